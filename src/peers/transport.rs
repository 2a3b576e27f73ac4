//! What the rest of the node sees of the connections.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::config::{OnFrame, PeersConfig};
use super::frame::FRAME_BYTES_MAX;
use super::hello::Channel;
use super::inbound::Inbound;
use super::log_limit::LogLimit;
use super::outbound::Outbound;
use super::queue::Queue;
use crate::paxos::{Incarnation, NodeId};

/// How long an orderly end may take to write what is queued.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(100);

/// How it stands with one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerStatus {
    /// We reach it, on all channels.
    pub sending: bool,
    /// It reaches us, on all channels.
    pub receiving: bool,
    /// Frames that were dropped since the start: no connection, no room, or left in the queue of a
    /// lost connection.
    pub dropped_frames: u64,
    /// Bytes that wait or are being written.
    pub queue_bytes: usize,
}

/// The connections to all other nodes. Dropping it ends them without writing what is queued.
pub struct Peers {
    config: Arc<PeersConfig>,
    inbound: Arc<Inbound>,
    /// By seat, then by channel; our own stay unused.
    queues: Vec<[Arc<Queue>; Channel::COUNT]>,
    incarnation: watch::Sender<Incarnation>,
    stopping: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Peers {
    /// Starts to dial all other nodes and to accept their connections. Must be called inside a
    /// Tokio runtime. `listener` is bound to our own peer address.
    pub fn start(
        config: PeersConfig,
        listener: TcpListener,
        incarnation: Incarnation,
        on_frame: OnFrame,
    ) -> Peers {
        assert!(
            usize::from(config.node.0) < config.nodes.len(),
            "seat {} in a config of {} nodes",
            config.node.0,
            config.nodes.len()
        );
        let config = Arc::new(config);
        let (incarnation, incarnation_receiver) = watch::channel(incarnation);
        let (stopping, stopping_receiver) = watch::channel(false);
        let queue = || Arc::new(Queue::new(config.queue_bytes_max));
        let queues: Vec<_> = config.nodes.iter().map(|_| Channel::ALL.map(|_| queue())).collect();
        let peers_seen: Vec<[Arc<Notify>; Channel::COUNT]> =
            config.nodes.iter().map(|_| Default::default()).collect();
        let inbound = Arc::new(Inbound {
            config: Arc::clone(&config),
            on_frame,
            lines: config.nodes.iter().map(|_| Default::default()).collect(),
            peers_seen: peers_seen.clone(),
            stopping: stopping_receiver.clone(),
            log_limit: LogLimit::default(),
        });
        let mut tasks = vec![tokio::spawn(Arc::clone(&inbound).run(listener))];
        for seat in (0..config.nodes.len()).filter(|seat| *seat != usize::from(config.node.0)) {
            for channel in Channel::ALL {
                let outbound = Outbound {
                    config: Arc::clone(&config),
                    to: NodeId(seat as u8),
                    channel,
                    queue: Arc::clone(&queues[seat][channel.position()]),
                    incarnation: incarnation_receiver.clone(),
                    stopping: stopping_receiver.clone(),
                    peer_seen: Arc::clone(&peers_seen[seat][channel.position()]),
                };
                tasks.push(tokio::spawn(outbound.run()));
            }
        }
        Peers { config, inbound, queues, incarnation, stopping, tasks: Mutex::new(tasks) }
    }

    /// Queues a frame of 1 byte to [`FRAME_BYTES_MAX`]. False: it was dropped, for lack of a
    /// connection or of room. Never waits; may be called from any thread.
    pub fn send(&self, to: NodeId, channel: Channel, frame: Bytes) -> bool {
        assert!(to != self.config.node, "a frame from {to} to itself");
        assert!(
            (1..=FRAME_BYTES_MAX).contains(&frame.len()),
            "a frame of {} bytes, 1 to {FRAME_BYTES_MAX} are allowed",
            frame.len()
        );
        self.queues
            .get(usize::from(to.0))
            .is_some_and(|queues| queues[channel.position()].push(frame))
    }

    /// This node lives under another incarnation from now on: all connections that we dialed are
    /// made anew, and what is queued on them is dropped.
    pub fn set_incarnation(&self, incarnation: Incarnation) {
        self.incarnation.send_if_modified(|current| {
            let changed = *current != incarnation;
            *current = incarnation;
            changed
        });
    }

    /// How it stands with that node; all zero for a seat that does not exist.
    pub fn status(&self, node: NodeId) -> PeerStatus {
        let seat = usize::from(node.0);
        let (Some(queues), Some(lines)) = (self.queues.get(seat), self.inbound.lines.get(seat))
        else {
            return PeerStatus::default();
        };
        PeerStatus {
            sending: queues.iter().all(|queue| queue.is_open()),
            receiving: lines.iter().all(|line| line.is_connected()),
            dropped_frames: queues.iter().map(|queue| queue.dropped_frames()).sum(),
            queue_bytes: queues.iter().map(|queue| queue.bytes()).sum(),
        }
    }

    /// Writes what is queued, for 100 ms at most, and closes everything.
    pub async fn shutdown(&self) {
        self.stopping.send_replace(true);
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        let all = async {
            for task in &mut tasks {
                // It ended, or it panicked and has said so itself.
                let _ = task.await;
            }
        };
        if timeout(FLUSH_TIMEOUT, all).await.is_err() {
            for task in &tasks {
                task.abort();
            }
        }
        for queue in self.queues.iter().flatten() {
            queue.close();
        }
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.stopping.send_replace(true);
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
    }
}
