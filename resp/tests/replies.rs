//! Replies survive the way from server to client, in both versions of the protocol.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use resp::{Protocol, Reply, ReplyDecodeError, ReplyDecoder};

fn decode_pieces<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<Reply>, ReplyDecodeError> {
    let mut decoder = ReplyDecoder::default();
    let mut buffer = BytesMut::new();
    let mut replies = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while let Some(reply) = decoder.decode(&mut buffer)? {
            replies.push(reply);
        }
    }
    Ok(replies)
}

/// What a client sees of a reply in that protocol.
fn seen(reply: &Reply, protocol: Protocol) -> Reply {
    let all = |items: &[Reply]| items.iter().map(|item| seen(item, protocol)).collect::<Vec<_>>();
    if protocol == Protocol::Resp3 {
        return match reply {
            Reply::NullArray => Reply::Null,
            Reply::Array(items) => Reply::Array(all(items)),
            Reply::Set(items) => Reply::Set(all(items)),
            Reply::Push(items) => Reply::Push(all(items)),
            Reply::Map(pairs) => Reply::Map(
                pairs.iter().map(|(k, v)| (seen(k, protocol), seen(v, protocol))).collect(),
            ),
            other => other.clone(),
        };
    }
    match reply {
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => Reply::Array(all(items)),
        Reply::Map(pairs) => Reply::Array(
            pairs.iter().flat_map(|(k, v)| [seen(k, protocol), seen(v, protocol)]).collect(),
        ),
        Reply::Double(value) => Reply::bulk(resp::format_double(*value)),
        Reply::Boolean(value) => Reply::Integer(i64::from(*value)),
        Reply::Verbatim(_, bytes) => Reply::Bulk(bytes.clone()),
        other => other.clone(),
    }
}

fn any_reply() -> impl Strategy<Value = Reply> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
    let leaf = prop_oneof![
        "[ -~]{0,20}".prop_map(|text| Reply::Simple(text.into())),
        "[ -~]{0,20}".prop_map(Reply::error),
        any::<i64>().prop_map(Reply::Integer),
        bytes().prop_map(Reply::Bulk),
        Just(Reply::Null),
        Just(Reply::NullArray),
        any::<f64>().prop_filter("equal to itself", |v| !v.is_nan()).prop_map(Reply::Double),
        any::<bool>().prop_map(Reply::Boolean),
        bytes().prop_map(|text| Reply::Verbatim("txt", text)),
    ];
    leaf.prop_recursive(4, 30, 5, |inner| {
        let items = || prop::collection::vec(inner.clone(), 0..5);
        prop_oneof![
            items().prop_map(Reply::Array),
            items().prop_map(Reply::Set),
            items().prop_map(Reply::Push),
            prop::collection::vec((inner.clone(), inner.clone()), 0..4).prop_map(Reply::Map),
        ]
    })
}

#[test]
fn attributes_big_numbers_and_blob_errors_are_understood() {
    let bytes = b"|1\r\n+ttl\r\n:3\r\n*2\r\n(123456789012345678901234567890\r\n!5\r\nERR x\r\n";
    let expected = Reply::Array(vec![
        Reply::bulk(&b"123456789012345678901234567890"[..]),
        Reply::error("ERR x"),
    ]);
    assert_eq!(decode_pieces([&bytes[..]]), Ok(vec![expected]));
}

#[test]
fn nesting_and_lengths_are_bounded() {
    let deep = b"*1\r\n".repeat(1_000_000);
    assert!(matches!(decode_pieces([&deep[..]]), Err(ReplyDecodeError::TooBig(_))));
    for header in ["$9999999999\r\n", "*9999999999\r\n", "%9999999999\r\n"] {
        let decoded = decode_pieces([header.as_bytes()]);
        assert!(matches!(decoded, Err(ReplyDecodeError::TooBig(_))), "{header:?}");
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(
        replies in prop::collection::vec(any_reply(), 1..5),
        resp3 in any::<bool>(),
        piece in 1usize..40,
    ) {
        let protocol = if resp3 { Protocol::Resp3 } else { Protocol::Resp2 };
        let mut bytes = BytesMut::new();
        for reply in &replies {
            reply.encode(protocol, &mut bytes);
        }
        let expected: Vec<Reply> = replies.iter().map(|reply| seen(reply, protocol)).collect();
        prop_assert_eq!(decode_pieces(bytes.chunks(piece)), Ok(expected));
    }

    /// A decoder that is not ours agrees about where a reply ends. In RESP2 only: in RESP3 that one
    /// refuses aggregates as keys of maps.
    #[test]
    fn another_decoder_takes_what_we_encode(reply in any_reply()) {
        let mut bytes = BytesMut::new();
        reply.encode(Protocol::Resp2, &mut bytes);
        let bytes = bytes.freeze();
        let (_, length) =
            redis_protocol::resp2::decode::decode_bytes(&bytes).expect("valid").expect("whole");
        prop_assert_eq!(length, bytes.len());
    }

    #[test]
    fn garbage_gives_an_answer_and_splitting_changes_nothing(
        fragments in prop::collection::vec(prop_oneof![
            Just(b"*2\r\n".to_vec()),
            Just(b"%1\r\n".to_vec()),
            Just(b"$1\r\nx\r\n".to_vec()),
            Just(b"=5\r\ntxt:x\r\n".to_vec()),
            Just(b"=2\r\nxx\r\n".to_vec()),
            Just(b",1.5\r\n".to_vec()),
            Just(b"_\r\n".to_vec()),
            Just(b"#".to_vec()),
            prop::collection::vec(any::<u8>(), 0..6),
        ], 0..20),
        piece in 1usize..9,
    ) {
        let bytes = fragments.concat();
        prop_assert_eq!(decode_pieces(bytes.chunks(piece)), decode_pieces([&bytes[..]]));
    }
}
