//! What the functions of commands return.

use bytes::Bytes;
use resp::Reply;

use super::table::Read;
use crate::store::StoreError;
use crate::store::keyspace::{Exceeded, ReadError, View};

/// A reply, or why there is none.
pub type Outcome = Result<Reply, Failure>;

/// Why a command has no ordinary reply.
#[derive(Debug)]
pub enum Failure {
    /// The command was refused with this error and has changed nothing; the same on every node.
    Refused(Reply),
    /// The store cannot answer: the node stops.
    Store(StoreError),
    /// A read costs more than its view allows.
    Exceeded(Exceeded),
}

impl From<Reply> for Failure {
    fn from(reply: Reply) -> Self {
        Failure::Refused(reply)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::Store(error)
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => Failure::Store(error),
            ReadError::Exceeded(what) => Failure::Exceeded(what),
        }
    }
}

/// First word of the error of an assertion that does not hold.
pub const ASSERT_FAILED: &str = "ASSERTFAILED";

/// Turns a refusal into the reply it is.
pub fn settle(outcome: Outcome) -> Result<Reply, StoreError> {
    match outcome {
        Ok(reply) | Err(Failure::Refused(reply)) => Ok(reply),
        Err(Failure::Store(error)) => Err(error),
        Err(Failure::Exceeded(what)) => Ok(exceeded(what)),
    }
}

/// Runs a read and takes what its reply costs off what its view allows.
pub fn run_read(read: Read, view: &View, args: &[Bytes]) -> Result<Reply, StoreError> {
    let before = view.left();
    let reply = read(view, args)?;
    match view.settle(before.reply_bytes, bytes_of(&reply)) {
        Err(ReadError::Exceeded(what)) => Ok(exceeded(what)),
        Err(ReadError::Store(error)) => Err(error),
        Ok(()) => Ok(reply),
    }
}

/// About what a reply takes in memory.
fn bytes_of(reply: &Reply) -> usize {
    const PART_BYTES: usize = 64;
    let all = |replies: &[Reply]| replies.iter().map(bytes_of).sum();
    let content: usize = match reply {
        Reply::Bulk(bytes) | Reply::Verbatim(_, bytes) => bytes.len(),
        Reply::Simple(text) | Reply::Error(text) => text.len(),
        Reply::Array(replies) | Reply::Set(replies) | Reply::Push(replies) => all(replies),
        Reply::Map(pairs) => pairs.iter().map(|(key, value)| bytes_of(key) + bytes_of(value)).sum(),
        _ => 0,
    };
    PART_BYTES + content
}

/// What a client hears when its read costs too much.
fn exceeded(what: Exceeded) -> Reply {
    Reply::error(match what {
        Exceeded::Steps => {
            "ERR too much to look at; a transaction that writes may look at about 100000 keys"
        }
        Exceeded::ReplyBytes => {
            "ERR the reply is too large; the limit is 512 MiB, and 64 MiB for all replies of a \
             transaction that writes"
        }
    })
}
