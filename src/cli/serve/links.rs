//! The connections to the other nodes, as the driver's outbox and the source of its messages.

use std::sync::{Arc, OnceLock};

use anyhow::Context;
use bytes::Bytes;
use tokio::net::TcpListener;

use crate::config::Config;
use crate::node::{Inbox, Input, NodeMessage, Outbox};
use crate::paxos::{Incarnation, Message, NodeId};
use crate::peers::{Channel, PeerAddress, Peers, PeersConfig};

/// Bytes that may wait for one other node.
const PEER_QUEUE_BYTES: usize = 64 << 20;

pub(super) async fn listen_to_peers(
    config: Config,
    seat: NodeId,
    incarnation: Incarnation,
    inbox: Arc<Inbox>,
) -> anyhow::Result<Peers> {
    let address = &config.node(seat).peer;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen for the other nodes on {address}"))?;
    let peers = PeersConfig {
        cluster_id: config.cluster.id.clone(),
        node: seat,
        nodes: config
            .nodes
            .iter()
            .map(|node| PeerAddress { name: node.name.clone(), address: node.peer.clone() })
            .collect(),
        fingerprint: config.fingerprint(),
        queue_bytes_max: PEER_QUEUE_BYTES,
    };
    let on_frame =
        move |from, incarnation, _channel, frame: Bytes| match NodeMessage::decode(&frame) {
            Some(message) => inbox.push(Input::Message { from, incarnation, message }),
            None => tracing::warn!(%from, bytes = frame.len(), "dropped what is no message"),
        };
    Ok(Peers::start(peers, listener, incarnation, Arc::new(on_frame)))
}

/// The connections to the other nodes, once they are there; a node alone has none.
#[derive(Default)]
pub(super) struct PeerOutbox(OnceLock<Peers>);

impl Outbox for Arc<PeerOutbox> {
    fn send(&self, to: NodeId, message: &NodeMessage) {
        if let Some(peers) = self.0.get() {
            let channel = match message {
                NodeMessage::HeadChunk(_) => Channel::Bulk,
                NodeMessage::Paxos(Message::Heartbeat { .. } | Message::HeartbeatReply { .. })
                | NodeMessage::Stamp { .. } => Channel::Pulse,
                _ => Channel::Stream,
            };
            // In vain is fine: whoever needs it sends it again.
            let _ = peers.send(to, channel, message.encode());
        }
    }
}

impl PeerOutbox {
    /// From now on they are there. To be called once.
    pub(super) fn set(&self, peers: Peers) {
        assert!(self.0.set(peers).is_ok(), "the peers are set once");
    }

    /// Writes what is queued, and closes the connections.
    pub(super) async fn shutdown(&self) {
        if let Some(peers) = self.0.get() {
            peers.shutdown().await;
        }
    }

    /// Whether that node and this one reach each other.
    pub(super) fn stand(&self, node: NodeId) -> bool {
        let status = self.0.get().map(|peers| peers.status(node)).unwrap_or_default();
        status.sending && status.receiving
    }
}
