//! What the request decoder takes and refuses.

use bytes::BytesMut;
use proptest::prelude::*;
use resp::{DecodeError, Request, RequestDecoder, RequestLimits, encode_request};

/// Feeds the pieces one after another; all requests up to the end or the first error.
fn decode_pieces<'a>(
    limits: RequestLimits,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Request>, Option<DecodeError>) {
    let mut decoder = RequestDecoder::new(limits);
    let mut buffer = BytesMut::new();
    let mut requests = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(request)) => requests.push(request),
                Ok(None) => break,
                Err(error) => return (requests, Some(error)),
            }
        }
    }
    (requests, None)
}

fn decode_all(bytes: &[u8]) -> (Vec<Request>, Option<DecodeError>) {
    decode_pieces(RequestLimits::default(), [bytes])
}

fn words(requests: &[Request]) -> Vec<Vec<&[u8]>> {
    requests
        .iter()
        .map(|request| request.arguments.iter().map(|word| &word[..]).collect())
        .collect()
}

#[test]
fn pipelined_requests_of_both_forms_come_out_in_order() {
    let (requests, error) = decode_all(
        b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n\r\n*0\r\n*-1\r\nset k \"v w\"\nPING\r\n*1\r\n$0\r\n\r\n*2\r\n$3\r\nG",
    );
    assert_eq!(error, None);
    let expected: Vec<Vec<&[u8]>> =
        vec![vec![b"GET", b"a"], vec![b"set", b"k", b"v w"], vec![b"PING"], vec![b""]];
    assert_eq!(words(&requests), expected);
}

#[test]
fn refusals_say_what_redis_says() {
    let long = |first: &str| [first.as_bytes(), &vec![b'1'; 65 * 1024]].concat();
    for (bytes, text) in [
        (b"set \"a\n".to_vec(), "ERR Protocol error: unbalanced quotes in request"),
        (long("GET"), "ERR Protocol error: too big inline request"),
        (long("*"), "ERR Protocol error: too big mbulk count string"),
        (long("*1\r\n$"), "ERR Protocol error: too big bulk count string"),
        (b"*1048577\r\n".to_vec(), "ERR Protocol error: invalid multibulk length"),
        (b"*3000000000\r\n".to_vec(), "ERR Protocol error: invalid multibulk length"),
        (b"*abc\r\n".to_vec(), "ERR Protocol error: invalid multibulk length"),
        (b"*3\r\n$3\r\nSET\r\nx".to_vec(), "ERR Protocol error: expected '$', got 'x'"),
        (b"*1\r\n$-10\r\n".to_vec(), "ERR Protocol error: invalid bulk length"),
        (b"*1\r\n$x\r\n".to_vec(), "ERR Protocol error: invalid bulk length"),
        (
            b"*1\r\n$1073741824\r\n".to_vec(),
            "ERR Protocol error: invalid bulk length, 1073741824 bytes are more than the 16842752 \
             allowed",
        ),
        (
            b"*1\r\n$1\r\nabc".to_vec(),
            "ERR Protocol error: invalid bulk length, no line break after the argument",
        ),
    ] {
        let (requests, error) = decode_all(&bytes);
        assert_eq!(requests, []);
        let error = error.unwrap_or_else(|| panic!("accepted, wanted: {text}"));
        assert_eq!(error.reply(), resp::Reply::error(text));
    }
}

#[test]
fn a_request_above_the_limit_is_refused_by_its_header() {
    let limits =
        RequestLimits { argument_bytes_max: 100, request_bytes_max: 150, arguments_max: 9 };
    let mut bytes = b"*3\r\n$3\r\nSET\r\n$100\r\n".to_vec();
    bytes.extend_from_slice(&[b'k'; 100]);
    bytes.extend_from_slice(b"\r\n$100\r\n");
    let (_, error) = decode_pieces(limits, [&bytes[..]]);
    assert_eq!(error, Some(DecodeError::RequestTooBig { max: 150 }));
    let (_, error) = decode_pieces(limits, [&b"*10\r\n"[..]]);
    assert_eq!(error, Some(DecodeError::InvalidCount));
}

#[test]
fn a_header_reserves_nothing() {
    let mut decoder = RequestDecoder::default();
    let mut buffer = BytesMut::from(&b"*1048576\r\n$16777216\r\nabc"[..]);
    let capacity = buffer.capacity();
    assert_eq!(decoder.decode(&mut buffer), Ok(None));
    assert_eq!(buffer.capacity(), capacity);
}

#[test]
fn arguments_are_not_copied() {
    let mut buffer = BytesMut::from(&b"*2\r\n$3\r\nGET\r\n$5\r\nhello\r\n"[..]);
    let range = buffer.as_ptr_range();
    let request = RequestDecoder::default().decode(&mut buffer).expect("valid").expect("whole");
    for argument in request.arguments {
        assert!(range.contains(&argument.as_ptr()));
    }
}

/// With a scan from the start at each piece this takes minutes.
#[test]
fn a_large_value_in_small_pieces_takes_linear_time() {
    let value = vec![b'v'; 16 * 1024 * 1024];
    let mut bytes = BytesMut::new();
    encode_request(&[&b"SET"[..], b"k", &value], &mut bytes);
    let (requests, error) = decode_pieces(RequestLimits::default(), bytes.chunks(64));
    assert_eq!(error, None);
    assert_eq!(requests[0].arguments[2], value);
}

/// Bytes that often make sense: fragments of the protocol between random ones.
fn nearly_valid() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop_oneof![
        Just(b"*1\r\n".to_vec()),
        Just(b"*2\r\n".to_vec()),
        Just(b"$1\r\nx\r\n".to_vec()),
        Just(b"$3\r\nGET\r\n".to_vec()),
        Just(b"GET \"a\\x41\" 'b'\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"$".to_vec()),
        Just(b"*".to_vec()),
        Just(b"\"".to_vec()),
        prop::collection::vec(any::<u8>(), 0..6),
    ];
    prop::collection::vec(fragment, 0..20).prop_map(|fragments| fragments.concat())
}

proptest! {
    #[test]
    fn garbage_gives_an_answer_and_splitting_changes_nothing(
        bytes in nearly_valid(),
        piece in 1usize..9,
    ) {
        let whole = decode_all(&bytes);
        prop_assert_eq!(&decode_pieces(RequestLimits::default(), bytes.chunks(piece)), &whole);
        let taken: usize = whole.0.iter().map(Request::byte_count).sum();
        prop_assert!(taken <= bytes.len());
    }

    #[test]
    fn what_is_encoded_is_decoded(
        requests in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 1..8), 0..10),
        piece in 1usize..200,
    ) {
        let mut bytes = BytesMut::new();
        for request in &requests {
            encode_request(request, &mut bytes);
        }
        let (decoded, error) = decode_pieces(RequestLimits::default(), bytes.chunks(piece));
        prop_assert_eq!(error, None);
        prop_assert_eq!(words(&decoded), requests);
    }
}
