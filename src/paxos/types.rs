//! The words of the protocol: ballots, indexes, entries, and what a replica keeps on disk.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A seat in the cluster: the node's place in the config's list of nodes, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u8);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0 + 1)
    }
}

/// Which life of a seat: a node that lost its disk comes back under a higher one, because it no
/// longer knows what it promised. 0: none.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A position in the replicated log, from 1. 0: before the first entry.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Index(pub u64);

impl Index {
    /// The position after this one.
    pub fn next(self) -> Index {
        Index(self.0 + 1)
    }

    /// The position before this one; before 0 stays 0.
    pub fn previous(self) -> Index {
        Index(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A ballot: one attempt of one life of one node to lead. Ordered by round first; never used for a
/// second attempt ("Paxos Made Simple", 2.5: "different proposers choose their numbers from
/// disjoint sets").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// Counts attempts. 0 only in [`Ballot::ZERO`].
    pub round: u64,
    /// Who leads under it.
    pub node: NodeId,
    /// In which life.
    pub incarnation: Incarnation,
}

impl Ballot {
    /// Below every ballot that is ever used.
    pub const ZERO: Ballot = Ballot { round: 0, node: NodeId(0), incarnation: Incarnation(0) };
}

impl Default for Ballot {
    fn default() -> Self {
        Ballot::ZERO
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.round, self.node)
    }
}

/// An index and the ballot of the entry there; names one log prefix (two logs that agree on it
/// agree on all before it).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// 0: the empty prefix.
    pub index: Index,
    /// The ballot under which the entry at `index` was first proposed.
    pub ballot: Ballot,
}

/// What is agreed on at one index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// A new leader's first entry: once it is chosen, so is everything before it.
    Establish {
        /// The life of each seat, as far as the leader knew; later Admits change it.
        members: Vec<Incarnation>,
    },
    /// Commands, in the encoding of `command::batch`; opaque to the protocol.
    Batch(Bytes),
    /// From here on `node` lives its life `incarnation`.
    Admit {
        /// Whose seat.
        node: NodeId,
        /// The life that may vote once this entry is chosen.
        incarnation: Incarnation,
    },
}

impl Value {
    /// Bytes that this value takes in memory, on disk and on the wire, roughly.
    pub fn size_bytes(&self) -> usize {
        match self {
            Value::Batch(bytes) => bytes.len() + 48,
            _ => 48,
        }
    }
}

/// One position of the log and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where.
    pub index: Index,
    /// The ballot it was first proposed under; kept when a later leader adopts it.
    pub ballot: Ballot,
    /// What.
    pub value: Value,
}

impl Entry {
    /// Index and ballot.
    pub fn position(&self) -> Position {
        Position { index: self.index, ballot: self.ballot }
    }
}

/// What a replica must not forget, besides its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DurableState {
    /// No message of a lower ballot is accepted.
    pub promised: Ballot,
    /// The highest ballot whose leader's adopted log this log covers. Ranks logs in an election.
    pub accepted: Ballot,
    /// The longest lease ever granted, in microseconds. A restarted node waits that long before it
    /// promises, because it no longer knows when it granted.
    pub lease_bound_us: u64,
    /// The life of each seat whose votes count, by seat; empty: no cluster was founded here yet.
    pub members: Vec<Incarnation>,
    /// This life may vote: it founded the cluster, or its log holds its own chosen admission.
    pub voting: bool,
}

/// Names a [`Save`]. Saves become durable in the order of their ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SaveId(pub u64);

/// One atomic record for the transaction log: all of it survives a crash, or nothing of it.
/// Applied in the order of the fields: reset, then truncate, then append.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Save {
    /// To be told back by `Replica::saved` once it is synced.
    pub id: SaveId,
    /// Drop every entry; the log now starts after this position (a head was installed).
    pub reset_to: Option<Position>,
    /// Drop the entries at and above this index.
    pub truncate_from: Option<Index>,
    /// Append these, contiguous, starting one past the last entry.
    pub entries: Vec<Entry>,
    /// Replaces the whole state, if present.
    pub state: Option<DurableState>,
    /// A hint: everything up to here is chosen.
    pub chosen: Index,
}
