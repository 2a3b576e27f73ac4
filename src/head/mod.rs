//! Heads: the whole state at one index as one immutable file.
//!
//! The log may be dropped below a head, a damaged store is rebuilt from it, a node that lags too far
//! is sent it, and a backup is it plus the log's tail. Two heads of the same index hold the same
//! rows, so they have the same hash, whatever nodes, engines or block sizes made them.
//!
//! A file is: header, blocks of ascending rows, block index, footer, tail. Each block, the index and
//! the footer carry a CRC32C; header and tail are fixed; nothing lies between them, so a change of
//! any byte is found. `docs/formats.md` has the layout.
//!
//! Invariants: rows ascend strictly; [`HeadFooter::hash`] covers each row's and value's length and
//! bytes in that order, nothing else. Reading never panics or allocates more than the file's size
//! justifies, whatever the bytes.
//!
//! Left out: writing aside, syncing and renaming (the caller's), choosing the index, sending.

mod format;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::io;

pub use format::VERSION;
pub use reader::{HeadReader, HeadRows, ReadAt};
pub use writer::{HeadSummary, HeadWriter};

/// A row with its value takes at most this many bytes: the limit of key plus value, 16 MiB, and
/// ample room for what the keyspace adds.
pub const ROW_BYTES_MAX: usize = 20 << 20;

/// A head cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// The file system said no.
    #[error("head: {0}")]
    Io(#[from] io::Error),
    /// Bytes that no version wrote, or a file cut short.
    #[error("head damaged: {0}")]
    Damaged(String),
    /// Written by a newer version.
    #[error("head has format {0}, this version reads up to {VERSION}")]
    Version(u32),
}

/// A ballot in plain numbers, in the order in which ballots compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadBallot {
    /// The round.
    pub round: u64,
    /// The node's number.
    pub node: u8,
    /// The node's incarnation.
    pub incarnation: u64,
}

/// What a head says about itself beside its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadMeta {
    /// The cluster it belongs to; at most 64 KiB.
    pub cluster_id: String,
    /// The state is the one after applying the entry at this index.
    pub index: u64,
    /// The ballot of that entry.
    pub ballot: HeadBallot,
    /// The incarnation of each member at that index, by node number; at most 255.
    pub members: Vec<u64>,
    /// Keys in the state, as clients count them.
    pub keys: u64,
    /// The log's clock at that index, in ms since the epoch.
    pub stamp_ms: u64,
}

/// A head's last part: what it says about itself, and what its rows must add up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadFooter {
    /// What was given to the writer.
    pub meta: HeadMeta,
    /// Rows in the file.
    pub rows: u64,
    /// Bytes of all rows and values, uncompressed.
    pub bytes: u64,
    /// BLAKE3 over the logical rows.
    pub hash: [u8; 32],
    /// Where the block index begins; blocks end there.
    pub(crate) index_offset: u64,
    pub(crate) index_bytes: u64,
    pub(crate) index_checksum: u32,
}
