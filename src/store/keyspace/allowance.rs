//! What a reader may cost.

use crate::store::StoreError;

/// What is left to a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Rows looked at; a long value, pattern or table counts as several. About a microsecond each.
    pub steps: u64,
    /// Bytes of replies, about what they take in memory.
    pub reply_bytes: u64,
}

impl Allowance {
    /// Everything.
    pub const UNLIMITED: Allowance = Allowance { steps: u64::MAX, reply_bytes: u64::MAX };
}

/// What of an [`Allowance`] was not enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// Too much to look at.
    Steps,
    /// Too much to answer.
    ReplyBytes,
}

impl Exceeded {
    /// What counts when both were exceeded: steps, because there may be more of them elsewhere.
    pub fn and(self, other: Option<Exceeded>) -> Exceeded {
        match (self, other) {
            (Exceeded::ReplyBytes, Some(other)) => other,
            (what, _) => what,
        }
    }
}

/// Why a read has no result.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store cannot answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It costs more than its reader allows.
    #[error("a read costs more than is allowed: {0:?}")]
    Exceeded(Exceeded),
}

impl ReadError {
    /// For a view that allows everything.
    pub fn of_unlimited(self) -> StoreError {
        match self {
            ReadError::Store(error) => error,
            ReadError::Exceeded(what) => panic!("{what:?}: more than everything"),
        }
    }
}

/// Bytes of a value that count as one step.
const STEP_BYTES: usize = 8 << 10;

/// Looking at a row with such a value.
pub(super) fn steps_of(value: &[u8]) -> u64 {
    1 + (value.len() / STEP_BYTES) as u64
}
