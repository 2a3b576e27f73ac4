//! What a server answers.

use std::borrow::Cow;

use bytes::Bytes;

/// The version of the protocol that a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The default of every connection.
    Resp2,
    /// Chosen by `HELLO 3`.
    Resp3,
}

/// One answer. RESP3 types have a RESP2 form, chosen when the reply is encoded.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// `+OK` and the like.
    Simple(Cow<'static, str>),
    /// `-ERR ...`; the first word is the error's code.
    Error(Cow<'static, str>),
    /// `:1`
    Integer(i64),
    /// A string of bytes.
    Bulk(Bytes),
    /// No value: `$-1` in RESP2, `_` in RESP3.
    Null,
    /// No array (EXEC of a failed WATCH): `*-1` in RESP2, `_` in RESP3.
    NullArray,
    /// Replies in order.
    Array(Vec<Reply>),
    /// Pairs; a flat array in RESP2.
    Map(Vec<(Reply, Reply)>),
    /// Without order; an array in RESP2.
    Set(Vec<Reply>),
    /// A floating point number; a bulk string in RESP2.
    Double(f64),
    /// `#t`; an integer in RESP2.
    Boolean(bool),
    /// Text with a three-letter format (`txt`, `mkd`); a bulk string in RESP2.
    Verbatim(&'static str, Bytes),
    /// Out-of-band data; an array in RESP2.
    Push(Vec<Reply>),
}

impl Reply {
    /// `+OK`
    pub const OK: Reply = Reply::Simple(Cow::Borrowed("OK"));
    /// `+QUEUED`
    pub const QUEUED: Reply = Reply::Simple(Cow::Borrowed("QUEUED"));

    /// An error with this text, its code included.
    pub fn error(text: impl Into<Cow<'static, str>>) -> Reply {
        Reply::Error(text.into())
    }

    /// A bulk string.
    pub fn bulk(bytes: impl Into<Bytes>) -> Reply {
        Reply::Bulk(bytes.into())
    }
}
