//! The transaction log: what this node promised and accepted, in order, on disk.
//!
//! A directory of segment files. Each holds its own identity block, then one checkpoint record
//! (everything a node needs to go on without the segments before it), then one record per
//! [`Save`](crate::paxos::Save). A segment is filled with zeros and synced before it is used, so
//! that syncing a record writes no metadata. `docs/formats.md` has every byte.
//!
//! Invariants:
//! - A record is there whole or not at all; records become durable in the order of appending.
//! - A file under a segment's name has a synced header and checkpoint, and every segment before it
//!   was synced to its end: a segment gets its name only after that. So only the last segment can
//!   hold an unsynced tail.
//! - Every record states how much of its segment was synced when it was written. Damage below the
//!   highest such statement hit data that somebody may rely on: opening refuses it. Damage at or
//!   past it is what a power cut leaves of writes nobody was told of: it is cut and zeroed.
//! - After a failed write or sync every further call fails; a failed sync is never retried.
//! - Truncation is logical: bytes never change, so readers need no lock while they read. The block
//!   that the records end in is written again with the next ones, as it is.
//!
//! Left out: threads (the caller runs [`SegmentPreparer`] where it likes), the reserve for a full
//! disk, and the decision how far to collapse; those are the node's.

mod blocks;
mod encoding;
mod error;
mod index;
mod log;
mod prepare;
mod reader;
mod recovery;
mod segment;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod tests;

pub use error::LogError;
pub use log::TransactionLog;
pub use prepare::SegmentPreparer;
pub use reader::Reader;

use std::path::PathBuf;

use crate::paxos::{Ballot, DurableState, Incarnation, Index, Position};

/// Whose log this is. Kept only in the segments' headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's id; at most 1024 bytes.
    pub cluster_id: String,
    /// The node's name in the configuration; at most 1024 bytes.
    pub node_name: String,
    /// Which life of the node wrote this log.
    pub incarnation: Incarnation,
}

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of a segment file; one is made larger for a record that would not fit. From 16 KiB to
    /// 1 GiB, rounded up to whole blocks of 4 KiB.
    pub segment_bytes: u64,
}

impl Options {
    /// The defaults but for the length of a segment.
    pub fn with_segment_bytes(segment_bytes: u64) -> Self {
        Options { segment_bytes }
    }
}

impl Default for Options {
    fn default() -> Self {
        Options::with_segment_bytes(64 << 20)
    }
}

/// What opening found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Whose log it is.
    pub identity: Identity,
    /// The newest state saved.
    pub state: DurableState,
    /// The log starts after this position.
    pub base: Position,
    /// The last entry; `base.index` when there is none.
    pub last: Index,
    /// Everything up to here is known to be chosen: the highest hint saved, at least `base.index`
    /// and at most `last`.
    pub chosen: Index,
    /// The first index of each run of kept entries with one ballot, and that ballot.
    pub ballots: Vec<(Index, Ballot)>,
    /// The unsynced tail that was cut, if there was one.
    pub tail_cut: Option<TailCut>,
}

/// An unsynced tail that was overwritten with zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailCut {
    /// The segment.
    pub file: PathBuf,
    /// Where the cut begins.
    pub offset: u64,
    /// From there to the last byte that was not zero.
    pub bytes: u64,
}
