//! Connections from Redis clients.
//!
//! A [`Session`] is one client's side of the conversation as a state machine: requests in, encoded
//! replies and submissions out. It knows its node through [`Backend`] only and has no socket, thread
//! or clock, so the simulator runs the very code that serves real clients.

pub mod backend;
pub mod cursors;
pub mod info;
pub mod refusal;
pub mod session;
pub mod settings;
pub mod shared;

pub use backend::{Backend, NodeInfo, NodeRole, PeerInfo, Submission};
pub use refusal::Refusal;
pub use session::{Session, Step};
pub use shared::Shared;
