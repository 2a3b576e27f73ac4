//! What the driver asks of the world, and what the world tells it.
//!
//! Two worlds implement [`Environment`]: the threads and files of a real node (`world.rs`), and
//! the simulator (`tests/simulation`). Each job is answered by one [`Input`], later.

use std::sync::Arc;

use bytes::Bytes;
use resp::Reply;

use super::handover::HandOverOrder;
use super::head_plan::HeadSize;
use super::message::{HeadChunk, HeadName, NodeMessage};
use super::refusal::Refusal;
use super::status::Status;
use crate::paxos::{Entry, Incarnation, Index, NodeId, Position, ReadRequest, Save, SaveId};

/// What became of a submission: one reply for each of its items, or why there is none.
pub type Outcome = Result<Vec<Reply>, Refusal>;

/// Called exactly once.
pub type Respond = Box<dyn FnOnce(Outcome) + Send>;

/// Encoded items (see `command::batch`) that one client wants in the log, in this order.
pub struct Submission {
    /// The items, one after the other.
    pub items: Bytes,
    /// How many.
    pub count: u32,
    /// What their results may come to, in bytes, see `command::charge`.
    pub charge: usize,
    /// When the request was read whole, by the boot clock.
    pub read_at_us: u64,
    /// Takes the outcome.
    pub respond: Respond,
}

impl std::fmt::Debug for Submission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Submission({} items, {} bytes)", self.count, self.items.len())
    }
}

/// Who waits for a part of an entry's replies.
pub struct Waiter {
    /// How many of the replies.
    pub count: u32,
    /// `None`: it has been answered already, or nobody asked.
    pub respond: Option<Respond>,
}

impl Waiter {
    /// Answers, unless that has happened.
    pub fn answer(&mut self, outcome: Outcome) {
        if let Some(respond) = self.respond.take() {
            respond(outcome);
        }
    }
}

/// Entries to apply, in order, each with those who wait for its replies.
pub struct ApplyJob {
    /// Contiguous, all chosen.
    pub entries: Vec<(Entry, Vec<Waiter>)>,
}

/// Where entries that were read from the log go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadPurpose {
    /// Back to the replica.
    Replica(ReadRequest),
    /// To be applied.
    Apply {
        /// The first one wanted.
        from: Index,
        /// The last one wanted.
        to: Index,
    },
}

impl ReadPurpose {
    /// The first and the last entry wanted.
    pub fn range(self) -> (Index, Index) {
        match self {
            ReadPurpose::Replica(request) => (request.from, request.to),
            ReadPurpose::Apply { from, to } => (from, to),
        }
    }
}

/// Work on head files.
#[derive(Clone, Debug)]
pub enum HeadJob {
    /// Send a part of a head: of `partial` if it is still here, else of the newest from its start.
    Serve {
        /// To whom.
        to: NodeId,
        /// What it has a part of.
        partial: Option<HeadName>,
        /// How much of it.
        offset_bytes: u64,
    },
    /// Keep a part. Answered by [`Input::HeadChunkKept`].
    Keep(HeadChunk),
    /// Check the whole head, replace the store by it. Answered by [`Input::HeadInstalled`].
    Install(HeadName),
}

/// Something happened.
#[derive(Debug)]
pub enum Input {
    /// A message came.
    Message {
        /// The seat that sent it.
        from: NodeId,
        /// In which life.
        incarnation: Incarnation,
        /// The message.
        message: NodeMessage,
    },
    /// A client wants something in the log.
    Submission(Submission),
    /// This save, and each before it, is on disk.
    Saved(SaveId),
    /// Entries came from the log; empty: they are not there.
    Read(ReadPurpose, Vec<Entry>),
    /// The store reflects everything up to here.
    Applied(Applied),
    /// A head was written and checked here.
    HeadWritten {
        /// Which.
        name: HeadName,
        /// How large it is.
        size: HeadSize,
    },
    /// The head at this index will not be written here: there was no room for it, or the state that
    /// it was of is gone.
    HeadFailed(Index),
    /// A part of a head is on disk; the transfer goes on from there.
    HeadChunkKept {
        /// Which.
        name: HeadName,
        /// How much is here without a gap.
        kept_bytes: u64,
        /// The whole.
        size_bytes: u64,
    },
    /// The store holds that head now; `None`: it was damaged or not needed.
    HeadInstalled(Option<InstalledHead>),
    /// The log starts after this index now.
    Collapsed(Index),
    /// Disk space is short, or is not any more.
    DiskNearlyFull(bool),
    /// Stop in order: hand over what is led.
    Stop,
    /// Hand over what is led, and go on as a replica.
    HandOver(HandOverOrder),
    /// Go on as the master, if the handover has not happened yet.
    AbortHandOver,
    /// Become the master: ask the present one; by force also when none is known.
    AskForMastership {
        /// Campaign at once when no master is known.
        force: bool,
    },
    /// Have all nodes write a head now, if this one leads and none that it asked for is to come.
    WriteHead,
}

/// What a head says that the protocol must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstalledHead {
    /// Which head.
    pub name: HeadName,
    /// The last entry in it.
    pub position: Position,
    /// The lives of the seats then.
    pub members: Vec<Incarnation>,
    /// The log's clock then.
    pub stamp_ms: u64,
    /// How large it is.
    pub size: HeadSize,
}

/// How far the store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The last entry applied.
    pub index: Index,
    /// The log's clock there.
    pub stamp_ms: u64,
    /// The earliest deadline of any key.
    pub earliest_deadline_ms: Option<u64>,
    /// Keys deleted since the node began because their deadline had passed.
    pub expired_keys: u64,
    /// How long the entries took that deleted them, in microseconds.
    pub expiry_us: u64,
    /// Changes made to keys otherwise since the node began.
    pub changes: u64,
}

/// The world around a driver. No call blocks.
pub trait Environment {
    /// Appends to the transaction log and syncs; answered by [`Input::Saved`].
    fn save(&mut self, saves: Vec<Save>);
    /// Sends, perhaps in vain.
    fn send(&mut self, to: NodeId, message: NodeMessage);
    /// Reads the log; answered by [`Input::Read`].
    fn read(&mut self, purpose: ReadPurpose);
    /// Applies; answered by [`Input::Applied`].
    fn apply(&mut self, job: ApplyJob);
    /// Works on head files.
    fn head(&mut self, job: HeadJob);
    /// Drops the log below an index as far as the store is safe without it; answered by
    /// [`Input::Collapsed`].
    fn collapse_log(&mut self, below: Index);
    /// Shows clients' sessions where things stand. Takes effect before this returns: a driver that
    /// has stopped serving may hand its lease back in the next call.
    fn publish(&mut self, status: &Arc<Status>);
    /// Closes the connection of every client that is not in READONLY mode.
    fn close_clients(&mut self);
    /// The store's memory is full: nothing more is applied, and so nothing proposed, until it is
    /// not. Must not wait for the store.
    fn over_bound(&self) -> bool;
    /// Wall time in milliseconds since the epoch.
    fn wall_ms(&self) -> u64;
}
