//! Multi-Paxos without IO: a log that a quorum of nodes agrees on, entry by entry.
//!
//! A [`Replica`] is driven by `tick`, `receive`, `propose` and `saved`, and hands out what to save,
//! send, read and know. It reads no clock (times come as arguments, in microseconds), opens no file
//! or socket, starts no thread, and draws randomness from the seed it was given: the same calls
//! give the same results. `docs/paxos.md` tells the whole protocol; in short:
//!
//! - A node that hears no leader canvasses, then prepares under a ballot of its own, adopts the
//!   best log among a quorum's promises (`election.rs`), and leads: it appends, sends, and counts
//!   (`leader.rs`) what the others take and make durable (`follower.rs`). Entries go first to those
//!   whose votes will choose them, and a little later to the others (`spares.rs`).
//! - A leader whose heartbeats a quorum answers holds a lease, and may answer reads alone; it may hand
//!   both over to another node on purpose (`handover.rs`).
//! - A node without its log is another life of its seat; it has no vote until an entry admits it
//!   (`founding.rs`).
//!
//! Left out: adding and removing seats.

mod election;
mod follower;
mod founding;
mod handover;
mod leader;
mod log;
mod message;
mod quorum;
mod replica;
mod settings;
mod spares;
#[cfg(test)]
mod tests;
mod types;

pub use leader::FollowerStatus;
pub use message::Message;
pub use quorum::{NodeSet, Quorums};
pub use replica::{Event, NotLeader, ReadRequest, Reader, Ready, Recovered, Replica};
pub use settings::{CLOCK_RATE_BOUND_PPM, LEASE_US_MAX, Settings};
pub use types::{
    Ballot, DurableState, Entry, Incarnation, Index, NodeId, Position, Save, SaveId, Value,
};
