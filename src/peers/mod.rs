//! Connections between nodes.
//!
//! Each node dials every other node, once per [`Channel`]; the dialer sends, the acceptor receives.
//! A connection opens with a hello that names the cluster, both ends, the sender's life and the
//! config; whoever does not fit is refused with one line in the log. After it come frames:
//! opaque bytes with a length and a checksum.
//!
//! Invariants: frames of one channel arrive in the order they were sent or not at all; a frame of
//! an older connection is never delivered after one of a newer connection of the same node and
//! channel; memory per node and channel is bounded, and a node that does not read delays nobody
//! else. Nothing is sent twice here: what is lost is the protocol's to send again.

mod config;
mod frame;
mod hello;
mod inbound;
mod log_limit;
mod outbound;
mod queue;
mod transport;

#[cfg(test)]
mod tests;

pub use config::{OnFrame, PeerAddress, PeersConfig};
pub use frame::FRAME_BYTES_MAX;
pub use hello::Channel;
pub use transport::{PeerStatus, Peers};
