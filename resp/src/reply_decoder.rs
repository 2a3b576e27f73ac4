//! Bytes from a server to values: the client's side, for both versions of the protocol.
//!
//! Aggregates are kept on a stack of their own while their items arrive, so nesting is bounded and
//! nothing is parsed twice. Left out: streamed strings and aggregates, which Redis never sends.
//! Attributes are dropped. What `Reply` has no word for keeps its text: a big number and a verbatim
//! text of an unknown format become bulk strings.

use std::borrow::Cow;

use bytes::{Buf, Bytes, BytesMut};
use redis_protocol::resp3;
use redis_protocol::resp3::types::{BytesFrame, VerbatimStringFormat};

use crate::number::parse_integer;
use crate::reply::Reply;

/// How deep aggregates may nest.
const DEPTH_MAX: usize = 32;
/// The longest line without a length of its own, in bytes.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// The server does not speak the protocol, or sends too much.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyDecodeError {
    /// A value of no type we know, or one that is not formed as its type asks.
    #[error("malformed reply: {0}")]
    Malformed(&'static str),
    /// More bytes, items or levels than allowed.
    #[error("reply too big: more than {0}")]
    TooBig(&'static str),
}

use ReplyDecodeError::{Malformed, TooBig};

#[derive(Clone, Copy, Debug)]
enum Aggregate {
    Array,
    Set,
    Push,
    Map,
    Attribute,
}

/// An aggregate whose items are still arriving.
#[derive(Debug)]
struct Open {
    kind: Aggregate,
    remaining: usize,
    items: Vec<Reply>,
}

/// Turns bytes as they arrive into replies.
#[derive(Debug)]
pub struct ReplyDecoder {
    bulk_bytes_max: usize,
    items_max: usize,
    open: Vec<Open>,
    /// Values decoded so far in the reply that `open` belongs to.
    items: usize,
    /// No line break was found before this place in the buffer.
    scanned: usize,
}

impl Default for ReplyDecoder {
    /// Strings up to 512 MiB, as Redis; 64 Mi values in one reply.
    fn default() -> ReplyDecoder {
        ReplyDecoder::new(512 * 1024 * 1024, 64 * 1024 * 1024)
    }
}

impl ReplyDecoder {
    /// A decoder that takes strings of up to `bulk_bytes_max` bytes and replies of up to
    /// `items_max` values, nested ones counted.
    pub fn new(bulk_bytes_max: usize, items_max: usize) -> ReplyDecoder {
        ReplyDecoder { bulk_bytes_max, items_max, open: Vec::new(), items: 0, scanned: 0 }
    }

    /// Cuts the next whole reply off the front of `buffer`; `None`: more bytes are needed. Bytes of
    /// a reply that is not whole yet may already be taken from the buffer. After an error the
    /// decoder is of no further use.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Reply>, ReplyDecodeError> {
        while let Some(end) = self.find_line_end(buffer)? {
            let Some(mut value) = self.decode_value(end, buffer)? else {
                return Ok(None);
            };
            self.items += 1;
            if self.items > self.items_max {
                return Err(TooBig("the values allowed"));
            }
            // Close every aggregate that this value completes.
            while let Some(reply) = value.take() {
                match self.open.last_mut() {
                    None => {
                        self.items = 0;
                        return Ok(Some(reply));
                    }
                    Some(open) => {
                        open.items.push(reply);
                        open.remaining -= 1;
                        if open.remaining == 0 {
                            value = self.open.pop().and_then(close);
                        }
                    }
                }
            }
        }
        Ok(None)
    }

    /// The place of the `\r\n` that ends the first line.
    fn find_line_end(&mut self, buffer: &BytesMut) -> Result<Option<usize>, ReplyDecodeError> {
        match memchr::memchr(b'\r', &buffer[self.scanned..]) {
            Some(offset) => {
                self.scanned += offset;
                match buffer.get(self.scanned + 1) {
                    None => Ok(None),
                    Some(b'\n') => Ok(Some(self.scanned)),
                    Some(_) => Err(Malformed("a carriage return inside a line")),
                }
            }
            None if buffer.len() > LINE_BYTES_MAX => Err(TooBig("the length of a line")),
            None => {
                self.scanned = buffer.len();
                Ok(None)
            }
        }
    }

    /// Takes the value or the header whose first line ends at `end`. The inner `None` stands for a
    /// header: its items follow. The outer one: more bytes are needed.
    #[allow(clippy::option_option)]
    fn decode_value(
        &mut self,
        end: usize,
        buffer: &mut BytesMut,
    ) -> Result<Option<Option<Reply>>, ReplyDecodeError> {
        let Some(kind) = buffer[..end].first().copied() else {
            return Err(Malformed("an empty line"));
        };
        let reply = match kind {
            b'+' => Reply::Simple(take_text(&self.take_line(end, buffer)[1..])),
            b'-' => Reply::Error(take_text(&self.take_line(end, buffer)[1..])),
            b':' => {
                let line = self.take_line(end, buffer);
                Reply::Integer(parse_integer(&line[1..]).ok_or(Malformed("an integer"))?)
            }
            b'$' | b'=' | b'!' => {
                if &buffer[..end] == b"$-1" {
                    self.take_line(end, buffer);
                    return Ok(Some(Some(Reply::Null)));
                }
                let length = parse_length(&buffer[1..end])?;
                if length > self.bulk_bytes_max {
                    return Err(TooBig("the length of a string"));
                }
                let whole = end + 2 + length + 2;
                if buffer.len() < whole {
                    return Ok(None);
                }
                if &buffer[whole - 2..whole] != b"\r\n" {
                    return Err(Malformed("no line break after a string"));
                }
                self.scanned = 0;
                if kind == b'$' {
                    buffer.advance(end + 2);
                    let bytes = buffer.split_to(length).freeze();
                    buffer.advance(2);
                    Reply::Bulk(bytes)
                } else {
                    decode_single(&buffer.split_to(whole).freeze())?
                }
            }
            b'_' | b'#' | b',' | b'(' => {
                self.scanned = 0;
                decode_single(&buffer.split_to(end + 2).freeze())?
            }
            b'*' | b'~' | b'>' | b'%' | b'|' => return self.open(kind, end, buffer).map(Some),
            _ => return Err(Malformed("an unknown type")),
        };
        Ok(Some(Some(reply)))
    }

    /// Takes the header of an aggregate; an empty one is a value at once.
    fn open(
        &mut self,
        kind: u8,
        end: usize,
        buffer: &mut BytesMut,
    ) -> Result<Option<Reply>, ReplyDecodeError> {
        let line = self.take_line(end, buffer);
        if &line[..] == b"*-1" {
            return Ok(Some(Reply::NullArray));
        }
        let count = parse_length(&line[1..])?;
        if count > self.items_max {
            return Err(TooBig("the values allowed"));
        }
        let (kind, remaining) = match kind {
            b'*' => (Aggregate::Array, count),
            b'~' => (Aggregate::Set, count),
            b'>' => (Aggregate::Push, count),
            b'%' => (Aggregate::Map, count * 2),
            _ => (Aggregate::Attribute, count * 2),
        };
        let open = Open { kind, remaining, items: Vec::new() };
        if remaining == 0 {
            return Ok(close(open));
        }
        if self.open.len() == DEPTH_MAX {
            return Err(TooBig("the levels allowed"));
        }
        self.open.push(open);
        Ok(None)
    }

    fn take_line(&mut self, end: usize, buffer: &mut BytesMut) -> BytesMut {
        self.scanned = 0;
        let mut line = buffer.split_to(end + 2);
        line.truncate(end);
        line
    }
}

/// `None`: an attribute, which is not a value.
fn close(open: Open) -> Option<Reply> {
    match open.kind {
        Aggregate::Array => Some(Reply::Array(open.items)),
        Aggregate::Set => Some(Reply::Set(open.items)),
        Aggregate::Push => Some(Reply::Push(open.items)),
        Aggregate::Map => {
            let mut items = open.items.into_iter();
            let mut pairs = Vec::with_capacity(items.len() / 2);
            while let (Some(key), Some(value)) = (items.next(), items.next()) {
                pairs.push((key, value));
            }
            Some(Reply::Map(pairs))
        }
        Aggregate::Attribute => None,
    }
}

fn parse_length(digits: &[u8]) -> Result<usize, ReplyDecodeError> {
    parse_integer(digits)
        .and_then(|length| usize::try_from(length).ok())
        .ok_or(Malformed("a length"))
}

fn take_text(text: &[u8]) -> Cow<'static, str> {
    match text {
        b"OK" => Cow::Borrowed("OK"),
        _ => Cow::Owned(String::from_utf8_lossy(text).into_owned()),
    }
}

/// One whole value that is no aggregate.
fn decode_single(bytes: &Bytes) -> Result<Reply, ReplyDecodeError> {
    let frame = match resp3::decode::complete::decode_bytes(bytes) {
        Ok(Some((frame, length))) if length == bytes.len() => frame,
        _ => return Err(Malformed("a value of RESP3")),
    };
    match frame {
        BytesFrame::Null => Ok(Reply::Null),
        BytesFrame::Boolean { data, .. } => Ok(Reply::Boolean(data)),
        BytesFrame::Double { data, .. } => Ok(Reply::Double(data)),
        BytesFrame::BigNumber { data, .. } => Ok(Reply::Bulk(data)),
        BytesFrame::BlobError { data, .. } => Ok(Reply::Error(take_text(&data))),
        BytesFrame::VerbatimString { data, format: VerbatimStringFormat::Text, .. } => {
            Ok(Reply::Verbatim("txt", data))
        }
        BytesFrame::VerbatimString { data, format: VerbatimStringFormat::Markdown, .. } => {
            Ok(Reply::Verbatim("mkd", data))
        }
        _ => Err(Malformed("a value of RESP3")),
    }
}
