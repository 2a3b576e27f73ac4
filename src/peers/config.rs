//! What the connections need to know.

use std::sync::Arc;

use bytes::Bytes;

use crate::paxos::{Incarnation, NodeId};

use super::hello::Channel;

/// Called for each frame, on the task that read it: whoever sent it, its life as said in the hello,
/// and the bytes. While it runs nothing more is read from that connection, so it may block shortly
/// as back-pressure, but it must not wait for another frame.
pub type OnFrame = Arc<dyn Fn(NodeId, Incarnation, Channel, Bytes) + Send + Sync>;

/// A node of the config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// As in the config.
    pub name: String,
    /// `host:port`, looked up anew for each attempt to connect.
    pub address: String,
}

/// Who we are, and who the others are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeersConfig {
    /// Nodes of another cluster are refused.
    pub cluster_id: String,
    /// Our own seat.
    pub node: NodeId,
    /// Every node by seat, our own included.
    pub nodes: Vec<PeerAddress>,
    /// A hash of what must be equal in every node's config.
    pub fingerprint: u64,
    /// The most bytes that wait or are being written, for each node and channel. A frame is
    /// dropped when it would not fit, unless nothing else waits.
    pub queue_bytes_max: usize,
}

impl PeersConfig {
    /// A name for the log, also for a seat that does not exist.
    pub(super) fn name(&self, node: NodeId) -> &str {
        self.nodes.get(usize::from(node.0)).map_or("unknown", |peer| peer.name.as_str())
    }
}
