//! Bytes from a client to requests.
//!
//! Works on the caller's buffer: whole requests are cut off its front without copying, and an
//! incomplete one stays there, while the decoder remembers its place in it, so that a large value
//! arriving in small pieces is looked at once. Invariants: `position` never passes the end of the
//! buffer, and nothing before it is read again; the same bytes give the same requests and the same
//! error however they are split.

use bytes::{Buf, Bytes, BytesMut};

use crate::inline::split_words;
use crate::number::parse_integer;
use crate::reply::Reply;

/// The longest line (inline command, or header) in bytes, as in Redis.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// One command: its name and its arguments, never empty. They are slices of the connection's
/// buffer: copy what is kept for long, or it keeps the whole buffer in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The name first.
    pub arguments: Vec<Bytes>,
}

impl Request {
    /// The command's name, as sent.
    pub fn name(&self) -> &[u8] {
        &self.arguments[0]
    }

    /// The bytes of all arguments together.
    pub fn byte_count(&self) -> usize {
        self.arguments.iter().map(Bytes::len).sum()
    }
}

/// What a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// The longest argument, in bytes.
    pub argument_bytes_max: usize,
    /// The longest request with its headers, in bytes.
    pub request_bytes_max: usize,
    /// The most arguments in a request, the name included.
    pub arguments_max: usize,
}

impl Default for RequestLimits {
    /// A value of 16 MiB with room to spare, so that the command itself can refuse what is a little
    /// too large and the connection lives on; 64 MiB in all; Redis' 1024 * 1024 arguments.
    fn default() -> RequestLimits {
        RequestLimits {
            argument_bytes_max: 16 * 1024 * 1024 + 64 * 1024,
            request_bytes_max: 64 * 1024 * 1024,
            arguments_max: 1024 * 1024,
        }
    }
}

/// The client does not speak the protocol, or sends too much. Nothing after it can be understood:
/// answer with [`DecodeError::reply`], then close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A line without end that does not start with `*`.
    #[error("Protocol error: too big inline request")]
    InlineTooBig,
    /// An inline command whose quotes do not match.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// A line without end that starts with `*`.
    #[error("Protocol error: too big mbulk count string")]
    CountLineTooBig,
    /// Not a number, or too many arguments.
    #[error("Protocol error: invalid multibulk length")]
    InvalidCount,
    /// A line without end that starts with `$`.
    #[error("Protocol error: too big bulk count string")]
    LengthLineTooBig,
    /// An argument that does not start with `$`.
    #[error("Protocol error: expected '$', got '{}'", printable(*.0))]
    ExpectedDollar(u8),
    /// The length of an argument is not a number, or negative.
    #[error("Protocol error: invalid bulk length")]
    InvalidLength,
    /// An argument longer than its header says.
    #[error("Protocol error: invalid bulk length, no line break after the argument")]
    MissingLineBreak,
    /// An argument above the limit. Found in its header, before its bytes are taken.
    #[error("Protocol error: invalid bulk length, {length} bytes are more than the {max} allowed")]
    ArgumentTooBig {
        /// In bytes, as announced.
        length: u64,
        /// In bytes.
        max: usize,
    },
    /// A request above the limit. Found in a header, before the bytes are taken.
    #[error("Protocol error: request too big, more than {max} bytes")]
    RequestTooBig {
        /// In bytes.
        max: usize,
    },
}

impl DecodeError {
    /// What the client is told before the connection is closed.
    pub fn reply(&self) -> Reply {
        Reply::error(format!("ERR {self}"))
    }
}

fn printable(byte: u8) -> char {
    if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '?' }
}

/// Where the decoder stands inside a multibulk request.
#[derive(Debug)]
enum Expect {
    /// The first byte of a request.
    Start,
    /// The header of an argument; with this many arguments to come, at least one.
    Length { remaining: usize },
    /// This many bytes and a line break; with this many arguments to come, this one included.
    Argument { remaining: usize, length: usize },
}

/// Turns bytes as they arrive into requests.
#[derive(Debug)]
pub struct RequestDecoder {
    limits: RequestLimits,
    expect: Expect,
    /// Everything before it belongs to the current request and is done.
    position: usize,
    /// No line break was found before it.
    scanned: usize,
    /// The finished arguments of the current request, as start and end in the buffer.
    arguments: Vec<(usize, usize)>,
}

impl Default for RequestDecoder {
    fn default() -> RequestDecoder {
        RequestDecoder::new(RequestLimits::default())
    }
}

impl RequestDecoder {
    /// A decoder at the start of a connection.
    pub fn new(limits: RequestLimits) -> RequestDecoder {
        RequestDecoder {
            limits,
            expect: Expect::Start,
            position: 0,
            scanned: 0,
            arguments: Vec::new(),
        }
    }

    /// Cuts the next whole request off the front of `buffer`; `None`: more bytes are needed.
    /// Between calls the caller only appends to the buffer. After an error the decoder and the
    /// buffer are of no further use.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Request>, DecodeError> {
        loop {
            match self.expect {
                Expect::Start => match buffer.first() {
                    None => return Ok(None),
                    Some(b'*') => {
                        if !self.decode_count(buffer)? {
                            return Ok(None);
                        }
                    }
                    Some(_) => match self.decode_inline(buffer)? {
                        None => return Ok(None),
                        Some(arguments) if arguments.is_empty() => {}
                        Some(arguments) => return Ok(Some(Request { arguments })),
                    },
                },
                Expect::Length { remaining } => {
                    if !self.decode_length(remaining, buffer)? {
                        return Ok(None);
                    }
                }
                Expect::Argument { remaining, length } => {
                    let end = self.position + length;
                    if buffer.len() < end + 2 {
                        return Ok(None);
                    }
                    if &buffer[end..end + 2] != b"\r\n" {
                        return Err(DecodeError::MissingLineBreak);
                    }
                    self.arguments.push((self.position, end));
                    self.advance_to(end + 2);
                    if remaining == 1 {
                        return Ok(Some(self.finish(buffer)));
                    }
                    self.expect = Expect::Length { remaining: remaining - 1 };
                }
            }
        }
    }

    /// How many bytes are known to be still to come for the argument at hand; 0: none is announced.
    pub fn missing_bytes(&self, buffer: &BytesMut) -> usize {
        match self.expect {
            Expect::Argument { length, .. } => {
                (self.position + length + 2).saturating_sub(buffer.len())
            }
            Expect::Start | Expect::Length { .. } => 0,
        }
    }

    /// `*3\r\n`. False: more bytes are needed.
    fn decode_count(&mut self, buffer: &mut BytesMut) -> Result<bool, DecodeError> {
        let too_big = DecodeError::CountLineTooBig;
        let Some(end) = self.find_header_end(buffer, too_big, DecodeError::InvalidCount)? else {
            return Ok(false);
        };
        let count = parse_integer(&buffer[1..end]).ok_or(DecodeError::InvalidCount)?;
        match usize::try_from(count) {
            // As in Redis, a request of nothing is no request.
            Err(_) | Ok(0) => {
                buffer.advance(end + 2);
                self.advance_to(0);
            }
            Ok(count) if count > self.limits.arguments_max => {
                return Err(DecodeError::InvalidCount);
            }
            Ok(count) => {
                self.advance_to(end + 2);
                self.expect = Expect::Length { remaining: count };
            }
        }
        Ok(true)
    }

    /// `$5\r\n`. False: more bytes are needed.
    fn decode_length(&mut self, remaining: usize, buffer: &BytesMut) -> Result<bool, DecodeError> {
        match buffer.get(self.position) {
            None => return Ok(false),
            Some(b'$') => {}
            Some(other) => return Err(DecodeError::ExpectedDollar(*other)),
        }
        let too_big = DecodeError::LengthLineTooBig;
        let Some(end) = self.find_header_end(buffer, too_big, DecodeError::InvalidLength)? else {
            return Ok(false);
        };
        let length = parse_integer(&buffer[self.position + 1..end])
            .and_then(|length| u64::try_from(length).ok())
            .ok_or(DecodeError::InvalidLength)?;
        let max = self.limits.argument_bytes_max;
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= max)
            .ok_or(DecodeError::ArgumentTooBig { length, max })?;
        self.advance_to(end + 2);
        if self.position + length + 2 > self.limits.request_bytes_max {
            return Err(DecodeError::RequestTooBig { max: self.limits.request_bytes_max });
        }
        self.expect = Expect::Argument { remaining, length };
        Ok(true)
    }

    /// The words of a line; none for an empty line.
    fn decode_inline(&mut self, buffer: &mut BytesMut) -> Result<Option<Vec<Bytes>>, DecodeError> {
        let end = match self.find(b'\n', buffer) {
            Some(end) if end <= LINE_BYTES_MAX => end,
            None if buffer.len() <= LINE_BYTES_MAX => return Ok(None),
            _ => return Err(DecodeError::InlineTooBig),
        };
        let line = &buffer[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let words = split_words(line).map_err(|_| DecodeError::UnbalancedQuotes)?;
        buffer.advance(end + 1);
        self.advance_to(0);
        Ok(Some(words))
    }

    /// The place of the `\r\n` that ends the header at `position`.
    fn find_header_end(
        &mut self,
        buffer: &BytesMut,
        too_big: DecodeError,
        malformed: DecodeError,
    ) -> Result<Option<usize>, DecodeError> {
        match self.find(b'\r', buffer) {
            Some(end) if end - self.position > LINE_BYTES_MAX => Err(too_big),
            Some(end) => match buffer.get(end + 1) {
                None => Ok(None),
                Some(b'\n') => Ok(Some(end)),
                Some(_) => Err(malformed),
            },
            None if buffer.len() - self.position > LINE_BYTES_MAX => Err(too_big),
            None => Ok(None),
        }
    }

    fn find(&mut self, byte: u8, buffer: &BytesMut) -> Option<usize> {
        let found = memchr::memchr(byte, &buffer[self.scanned..]);
        self.scanned = found.map_or(buffer.len(), |offset| self.scanned + offset);
        found.map(|_| self.scanned)
    }

    fn advance_to(&mut self, position: usize) {
        self.position = position;
        self.scanned = position;
    }

    fn finish(&mut self, buffer: &mut BytesMut) -> Request {
        let bytes = buffer.split_to(self.position).freeze();
        let arguments =
            self.arguments.drain(..).map(|(start, end)| bytes.slice(start..end)).collect();
        // One request of many arguments must not leave its room to an idle connection.
        self.arguments.shrink_to(16);
        self.advance_to(0);
        self.expect = Expect::Start;
        Request { arguments }
    }
}
