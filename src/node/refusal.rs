//! Why a request has no result. Part of the error contract in `docs/operations.md`.

/// Only [`Refusal::Uncertain`] may hide an applied update.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Not applied: that node is the master.
    Moved {
        /// Where clients reach it, `host:port`.
        address: String,
    },
    /// Not applied: no master is known, or it has lost its quorum.
    ClusterDown(&'static str),
    /// Not applied: the queue is full, or a handover is under way.
    TryAgain(&'static str),
    /// Not applied: this node is not ready yet.
    Loading(&'static str),
    /// Not applied: updates are refused for now.
    Misconf(&'static str),
    /// Proposed, and nobody knows whether it will be chosen.
    Uncertain,
}
