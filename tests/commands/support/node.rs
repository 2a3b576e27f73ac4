//! A node of one, without a log: a submission is applied at once.

use arakoon::command::{Replies, apply_batch, batch};
use arakoon::config::Allowed;
use arakoon::server::{
    Backend, HandOver, HandOverRefused, NodeInfo, NodeRole, PeerInfo, Refusal, Submission, Synced,
    Target,
};
use arakoon::store::{Rows, StoreError};
use bytes::BytesMut;
use resp::Reply;

use super::map::MapRows;

/// What the node has and what it shall refuse.
#[derive(Default)]
pub struct Node {
    /// The applied state.
    pub rows: MapRows,
    /// The last entry.
    pub index: u64,
    /// The clock.
    pub stamp_ms: u64,
    /// Asking for the lease is refused so.
    pub lease: Option<Refusal>,
    /// Writes are refused so, before they are proposed.
    pub write: Option<Refusal>,
    /// Submissions end so.
    pub outcome: Option<Refusal>,
    /// A handover that was asked for.
    pub hand_over: Option<HandOver>,
    /// Submissions so far.
    pub submissions: usize,
    /// Views so far.
    pub views: usize,
    /// Reads that took long, so far.
    pub long_reads: usize,
    /// The newest head: its index, and the clock then.
    pub head_index: u64,
    /// See `head_index`.
    pub head_stamp_ms: u64,
    /// Changes since then.
    pub changes: u64,
    /// A client has told it to stop.
    pub told_to_stop: bool,
    /// Who may use DEBUG.
    pub debug_command: Allowed,
}

/// A cluster of one, as its sessions see it.
#[derive(Default)]
pub struct OneNode(pub parking_lot::Mutex<Node>);

impl Backend for OneNode {
    fn with_rows(&self, read: &mut dyn FnMut(&dyn Rows)) -> Result<u64, Refusal> {
        let mut node = self.0.lock();
        node.views += 1;
        read(&node.rows);
        Ok(node.index)
    }

    fn with_rows_for_long(&self, read: &mut dyn FnMut(&dyn Rows)) -> Result<u64, Refusal> {
        self.0.lock().long_reads += 1;
        self.with_rows(read)
    }

    fn put_in_order(&self) {}

    fn lease(&self, _view_index: u64) -> Result<(), Refusal> {
        self.0.lock().lease.clone().map_or(Ok(()), Err)
    }

    fn may_write(&self) -> Result<(), Refusal> {
        self.0.lock().write.clone().map_or(Ok(()), Err)
    }

    fn stamp_ms(&self) -> u64 {
        self.0.lock().stamp_ms
    }

    fn synced(&self) -> Synced {
        let node = self.0.lock();
        Synced { here: node.index, others: vec![node.index.saturating_sub(1), node.index] }
    }

    fn info(&self) -> NodeInfo {
        let node = self.0.lock();
        let peer = PeerInfo {
            name: "n2".to_owned(),
            address: "10.0.0.2:4000".to_owned(),
            reachable: true,
            applied_index: node.index,
            silent_ms: 0,
            lag_entries: 0,
        };
        let down = matches!(node.lease, Some(Refusal::ClusterDown(_)));
        let master = if node.lease.is_some() { "10.0.0.2:4000" } else { "10.0.0.1:4000" };
        NodeInfo {
            cluster_id: "demo".to_owned(),
            name: "n1".to_owned(),
            address: "10.0.0.1:4000".to_owned(),
            role: if node.lease.is_some() { NodeRole::Replica } else { NodeRole::Master },
            master_address: (!down).then(|| master.to_owned()),
            last_master_address: Some(master.to_owned()),
            master_lost_ms: if down { 1500 } else { 0 },
            epoch: 7,
            lease_ms: 500,
            handover: if node.hand_over.is_some() { "waiting-for-sync" } else { "no-failover" },
            peers: vec![peer],
            ballot: "1.n1".to_owned(),
            applied_index: node.index,
            head_index: node.head_index,
            head_stamp_ms: node.head_stamp_ms,
            changes_since_head: node.changes,
            debug_command: node.debug_command,
            clients_max: 16_000,
            ..NodeInfo::default()
        }
    }

    fn write_head(&self) -> Result<(), Refusal> {
        self.may_write()?;
        let mut node = self.0.lock();
        (node.head_index, node.head_stamp_ms) = (node.index, node.stamp_ms);
        node.changes = 0;
        Ok(())
    }

    fn shut_down(&self) {
        self.0.lock().told_to_stop = true;
    }

    fn hand_over(&self, order: HandOver) -> Result<(), HandOverRefused> {
        let mut node = self.0.lock();
        let leads = node.lease.is_none();
        match &order.target {
            Target::Own if leads => return Err(HandOverRefused::NotReplica),
            Target::Own => {
                let down = matches!(node.lease, Some(Refusal::ClusterDown(_)));
                return if down && !order.force { Err(HandOverRefused::NoMaster) } else { Ok(()) };
            }
            _ if !leads => return Err(HandOverRefused::NotMaster),
            _ if node.hand_over.is_some() => return Err(HandOverRefused::UnderWay),
            Target::Node(_) | Target::Any => {}
        }
        node.hand_over = Some(order);
        Ok(())
    }

    fn abort_hand_over(&self) -> bool {
        self.0.lock().hand_over.take().is_some()
    }

    fn store_failed(&self, error: StoreError) {
        panic!("a map cannot fail: {error}");
    }
}

impl OneNode {
    /// An empty node whose clock shows `stamp_ms`.
    pub fn new(stamp_ms: u64) -> OneNode {
        OneNode(parking_lot::Mutex::new(Node { stamp_ms, ..Node::default() }))
    }

    /// Applies a clock item, as the master does when one is due.
    pub fn propose_clock(&self) {
        let mut items = BytesMut::new();
        batch::encode_clock(&mut items, batch::EXPIRED_PER_CLOCK_MAX);
        let submission = Submission { items: items.freeze(), count: 1, charge: 0 };
        // Refused when the test says so; then no clock advances.
        let _ = self.propose(submission);
    }

    /// Applies a submission at once, as an entry of its own.
    pub fn propose(&self, submission: Submission) -> Result<Vec<Reply>, Refusal> {
        let mut node = self.0.lock();
        node.submissions += 1;
        if let Some(refusal) = &node.outcome {
            return Err(refusal.clone());
        }
        node.index += 1;
        let entry = batch::seal(node.stamp_ms, 0, submission.count, &[submission.items]);
        let index = node.index;
        let applied =
            apply_batch(index, &entry, &mut node.rows, Replies::Wanted).expect("a map cannot fail");
        node.changes += applied.changes;
        Ok(applied.replies)
    }
}
