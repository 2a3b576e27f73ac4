//! What a node knows of itself and shows: to sessions, `INFO`, `ROLE` and `arakoon status`.

use super::handover::HandOverState;
use super::message::HeadName;
use super::refusal::Refusal;
use crate::paxos::{Ballot, FollowerStatus, Incarnation, Index, NodeId};

/// The part a node plays, in the words of `docs/paxos.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Answers clients while its lease holds.
    Master,
    /// Won its ballot, and is not master yet or not any more.
    Leader,
    /// Votes for a leader's entries.
    Replica,
    /// Takes entries without a vote: a new life that has not been admitted yet.
    Learner,
    /// Does not know its cluster yet.
    Joining,
}

impl Role {
    /// As `status` prints it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Master => "master",
            Role::Leader => "leader",
            Role::Replica => "replica",
            Role::Learner => "learner",
            Role::Joining => "joining",
        }
    }
}

/// A head that is fetched from another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatchUp {
    /// Bytes here.
    pub kept_bytes: u64,
    /// Bytes in all; 0: not known yet.
    pub size_bytes: u64,
}

/// Where a node stands. Replaced as a whole, never changed.
#[derive(Clone, Debug)]
pub struct Status {
    /// Its part.
    pub role: Role,
    /// Reads and updates are answered while the boot clock is below this; 0: not at all.
    pub serving_until_us: u64,
    /// The entry that made this node master. A read may be answered only from a view that includes
    /// it: one taken before may lack what earlier masters acknowledged, though the lease holds now.
    pub serving_from: Index,
    /// Why not, if not.
    pub refusal: Refusal,
    /// Why updates are refused although reads are answered.
    pub updates_refused: Option<Refusal>,
    /// The log's clock minus the boot clock, in milliseconds.
    pub stamp_offset_ms: i64,
    /// The master, if one is known: a node that says of itself that it serves, by now or within the
    /// last lease.
    pub master: Option<NodeId>,
    /// Microseconds since the leader that this node follows was heard; 0: it leads, or hears none.
    pub leader_silent_us: u64,
    /// How far a planned handover is.
    pub handover: HandOverState,
    /// What was promised.
    pub ballot: Ballot,
    /// This life.
    pub incarnation: Incarnation,
    /// The log's end.
    pub last: Index,
    /// The log is on this node's disk up to here. The store's engine may have entries up to here: what a
    /// restart finds in the store it takes for chosen, so the log has to have the same.
    pub durable: Index,
    /// Chosen up to here.
    pub chosen: Index,
    /// Applied up to here.
    pub applied: Index,
    /// The log's start.
    pub base: Index,
    /// The end of the lease by the boot clock; 0: none.
    pub lease_until_us: u64,
    /// The others, as a leader sees them.
    pub followers: Vec<FollowerStatus>,
    /// Submissions that wait to be proposed.
    pub queued: usize,
    /// The newest head here.
    pub head: Option<HeadName>,
    /// Heads of one index differ between nodes: index and the other node.
    pub head_mismatch: Option<(Index, NodeId)>,
    /// A head is on its way here.
    pub catch_up: Option<CatchUp>,
    /// This node's wall clock differs from the log's clock by this much.
    pub clock_off_ms: i64,
}
