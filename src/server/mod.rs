//! Connections from Redis clients: accepted by [`listener`], driven by [`connection`], listed in
//! [`registry`].
//!
//! A [`Session`] is one client's side of the conversation as a state machine: requests in, encoded
//! replies and submissions out. It knows its node through [`Backend`] only and has no socket, thread
//! or clock, so the simulator runs the very code that serves real clients.

pub mod answers;
pub mod backend;
pub mod cluster;
pub mod connection;
pub mod counters;
pub mod cursors;
pub mod handover;
pub mod histogram;
pub mod info;
pub mod latency;
pub mod limits;
pub mod listener;
pub mod loading;
mod long_reads;
pub mod masters;
mod monitors;
pub mod node;
pub mod parameters;
mod pause;
pub mod places;
mod rates;
pub mod refusal;
pub mod registry;
mod replication;
mod report;
mod residence;
pub mod room_ahead;
pub mod sentinel;
pub mod session;
pub mod session_handler;
pub mod shared;
pub mod short_turns;
pub mod slowlog;
mod strangers;
pub mod subscriptions;
pub mod ticker;
pub mod topology;

#[cfg(test)]
mod connection_tests;

pub use backend::{Backend, NodeInfo, NodeRole, PeerInfo, Submission, Synced};
pub use handover::{HandOver, HandOverRefused, Target};
pub use refusal::Refusal;
pub use session::{Session, Step};
pub use shared::Shared;
