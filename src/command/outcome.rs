//! What the functions of commands return.

use resp::Reply;

use crate::store::StoreError;

/// A reply, or why there is none.
pub type Outcome = Result<Reply, Failure>;

/// Why a command has no ordinary reply.
#[derive(Debug)]
pub enum Failure {
    /// The command was refused with this error and has changed nothing; the same on every node.
    Refused(Reply),
    /// The store cannot answer: the node stops.
    Store(StoreError),
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

/// First word of the error of an assertion that does not hold.
pub const ASSERT_FAILED: &str = "ASSERTFAILED";

/// Turns a refusal into the reply it is.
pub fn settle(outcome: Outcome) -> Result<Reply, StoreError> {
    match outcome {
        Ok(reply) | Err(Failure::Refused(reply)) => Ok(reply),
        Err(Failure::Store(error)) => Err(error),
    }
}
