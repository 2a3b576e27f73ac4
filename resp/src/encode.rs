//! Values to bytes, as Redis 7 sends them.
//!
//! Lengths and integers are written through a buffer on the stack and appended once: this runs for
//! every command, and `format!` would cost more than all the rest.

use bytes::{BufMut, BytesMut};

use crate::number::format_double;
use crate::reply::{Protocol, Reply};

impl Reply {
    /// Appends this answer to `out`, in the form of the protocol.
    pub fn encode(&self, protocol: Protocol, out: &mut BytesMut) {
        let resp3 = protocol == Protocol::Resp3;
        match self {
            Reply::Simple(text) => put_line(out, b'+', text.as_bytes()),
            Reply::Error(text) => put_line(out, b'-', text.as_bytes()),
            Reply::Integer(value) => put_number(out, b':', *value),
            Reply::Bulk(bytes) => put_bulk(out, b'$', bytes),
            Reply::Null if resp3 => out.extend_from_slice(b"_\r\n"),
            Reply::Null => out.extend_from_slice(b"$-1\r\n"),
            Reply::NullArray if resp3 => out.extend_from_slice(b"_\r\n"),
            Reply::NullArray => out.extend_from_slice(b"*-1\r\n"),
            Reply::Array(items) => put_items(out, b'*', items, protocol),
            Reply::Set(items) => put_items(out, if resp3 { b'~' } else { b'*' }, items, protocol),
            Reply::Push(items) => put_items(out, if resp3 { b'>' } else { b'*' }, items, protocol),
            Reply::Map(pairs) => {
                if resp3 {
                    put_length(out, b'%', pairs.len());
                } else {
                    put_length(out, b'*', pairs.len() * 2);
                }
                for (key, value) in pairs {
                    key.encode(protocol, out);
                    value.encode(protocol, out);
                }
            }
            Reply::Double(value) if resp3 => put_line(out, b',', format_double(*value).as_bytes()),
            Reply::Double(value) => put_bulk(out, b'$', format_double(*value).as_bytes()),
            Reply::Boolean(true) => {
                out.extend_from_slice(if resp3 { b"#t\r\n" } else { b":1\r\n" })
            }
            Reply::Boolean(false) => {
                out.extend_from_slice(if resp3 { b"#f\r\n" } else { b":0\r\n" });
            }
            Reply::Verbatim(format, bytes) if resp3 => {
                assert_eq!(format.len(), 3, "a verbatim format has three letters: {format:?}");
                put_length(out, b'=', bytes.len() + 4);
                out.reserve(bytes.len() + 6);
                out.extend_from_slice(format.as_bytes());
                out.put_u8(b':');
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
            }
            Reply::Verbatim(_, bytes) => put_bulk(out, b'$', bytes),
        }
    }
}

/// Appends a request in the form every server takes: an array of bulk strings.
pub fn encode_request<A: AsRef<[u8]>>(arguments: &[A], out: &mut BytesMut) {
    put_length(out, b'*', arguments.len());
    for argument in arguments {
        put_bulk(out, b'$', argument.as_ref());
    }
}

fn put_items(out: &mut BytesMut, kind: u8, items: &[Reply], protocol: Protocol) {
    put_length(out, kind, items.len());
    for item in items {
        item.encode(protocol, out);
    }
}

fn put_length(out: &mut BytesMut, kind: u8, length: usize) {
    put_number(out, kind, i64::try_from(length).expect("nothing in memory is 2^63 long"));
}

fn put_number(out: &mut BytesMut, kind: u8, value: i64) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(value).as_bytes();
    // The longest i64 has 20 characters.
    let mut line = [0; 23];
    line[0] = kind;
    line[1..=digits.len()].copy_from_slice(digits);
    line[digits.len() + 1] = b'\r';
    line[digits.len() + 2] = b'\n';
    out.extend_from_slice(&line[..digits.len() + 3]);
}

fn put_bulk(out: &mut BytesMut, kind: u8, bytes: &[u8]) {
    out.reserve(bytes.len() + 25);
    put_number(out, kind, i64::try_from(bytes.len()).expect("nothing in memory is 2^63 long"));
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// A line break inside would end the line early and desynchronize the client: it becomes a blank.
fn put_line(out: &mut BytesMut, kind: u8, text: &[u8]) {
    out.reserve(text.len() + 3);
    out.put_u8(kind);
    if memchr::memchr2(b'\r', b'\n', text).is_none() {
        out.extend_from_slice(text);
    } else {
        out.extend(text.iter().map(|byte| match byte {
            b'\r' | b'\n' => b' ',
            other => *other,
        }));
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn encoded(reply: &Reply, protocol: Protocol) -> String {
        let mut out = BytesMut::new();
        reply.encode(protocol, &mut out);
        String::from_utf8(out.to_vec()).expect("text")
    }

    #[test]
    fn each_type_has_its_form_in_both_protocols() {
        let bulk = |text: &'static str| Reply::bulk(text);
        let pair = || vec![(bulk("k"), Reply::Integer(1))];
        let items = || vec![Reply::Integer(-1), Reply::Null];
        for (reply, resp2, resp3) in [
            (Reply::OK, "+OK\r\n", "+OK\r\n"),
            (Reply::error("ERR no\r\nline"), "-ERR no  line\r\n", "-ERR no  line\r\n"),
            (Reply::Integer(i64::MIN), ":-9223372036854775808\r\n", ":-9223372036854775808\r\n"),
            (bulk(""), "$0\r\n\r\n", "$0\r\n\r\n"),
            (bulk("abc"), "$3\r\nabc\r\n", "$3\r\nabc\r\n"),
            (Reply::Null, "$-1\r\n", "_\r\n"),
            (Reply::NullArray, "*-1\r\n", "_\r\n"),
            (Reply::Array(items()), "*2\r\n:-1\r\n$-1\r\n", "*2\r\n:-1\r\n_\r\n"),
            (Reply::Set(items()), "*2\r\n:-1\r\n$-1\r\n", "~2\r\n:-1\r\n_\r\n"),
            (Reply::Push(items()), "*2\r\n:-1\r\n$-1\r\n", ">2\r\n:-1\r\n_\r\n"),
            (Reply::Map(pair()), "*2\r\n$1\r\nk\r\n:1\r\n", "%1\r\n$1\r\nk\r\n:1\r\n"),
            (Reply::Double(1.5), "$3\r\n1.5\r\n", ",1.5\r\n"),
            (Reply::Double(f64::NEG_INFINITY), "$4\r\n-inf\r\n", ",-inf\r\n"),
            (Reply::Boolean(true), ":1\r\n", "#t\r\n"),
            (Reply::Boolean(false), ":0\r\n", "#f\r\n"),
            (Reply::Verbatim("txt", Bytes::from_static(b"hi")), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"),
        ] {
            assert_eq!(encoded(&reply, Protocol::Resp2), resp2);
            assert_eq!(encoded(&reply, Protocol::Resp3), resp3);
        }
    }
}
