//! What a session needs of its node.

use bytes::Bytes;

use super::Refusal;
use super::handover::{HandOver, HandOverRefused};
use crate::config::Allowed;
use crate::store::{Rows, StoreError};

/// The node as its sessions see it. All calls but [`Backend::with_rows_for_long`]
/// and [`Backend::put_in_order`] return at once.
pub trait Backend: Send + Sync {
    /// Calls `read` once with a view of the applied state, in which every entry is there as a whole
    /// or not at all. Returns the index of the last entry in it.
    fn with_rows(&self, read: &mut dyn FnMut(&dyn Rows)) -> Result<u64, Refusal>;

    /// The same for long: the view holds nothing up while it is read. Refused when too many wait for
    /// that already.
    fn with_rows_for_long(&self, read: &mut dyn FnMut(&dyn Rows)) -> Result<u64, Refusal>;

    /// Puts the rows in order that [`Backend::with_rows`] has refused to scan with
    /// [`StoreError::WouldWait`], or that an update is about to scan. May take a while, and holds up only
    /// who waits for it.
    fn put_in_order(&self);

    /// Whether this node is master, its lease holds at this moment, and a view at `view_index` is
    /// of this mastership: one taken earlier may lack what another master acknowledged meanwhile.
    /// Asked AFTER the view was read and before the reply leaves: only then was the view the newest
    /// there is. `u64::MAX`: nothing was read.
    fn lease(&self, view_index: u64) -> Result<(), Refusal>;

    /// Whether a write has a chance; a cheap early answer, the proposal may still be refused.
    fn may_write(&self) -> Result<(), Refusal>;

    /// What the master would stamp an entry with now, in ms since the epoch. A clock item submitted
    /// after this call brings the log's clock to at least this.
    fn stamp_ms(&self) -> u64;

    /// How far each node's log is on its disk.
    fn synced(&self) -> Synced;

    /// What INFO, ROLE and HELLO tell.
    fn info(&self) -> NodeInfo;

    /// Asks for a head now. `Ok`: the log's next entry but few will ask all nodes for it, unless
    /// this node leads no longer when it comes to that, or has asked for one that is neither written
    /// here nor failed yet.
    fn write_head(&self) -> Result<(), Refusal>;

    /// Stops this node in order, soon: what it leads is handed over first.
    fn shut_down(&self);

    /// Begins a planned handover; it happens later, and `info` says how far it is.
    fn hand_over(&self, order: HandOver) -> Result<(), HandOverRefused>;

    /// Ends a handover that has not happened yet; whether there was one.
    fn abort_hand_over(&self) -> bool;

    /// The store could not answer a read: the node must stop. The session closes.
    fn store_failed(&self, error: StoreError);
}

/// How far the logs are on the disks, as the master knows it: at least so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// This node's.
    pub here: u64,
    /// The others'.
    pub others: Vec<u64>,
}

/// Items to be proposed, in the encoding of `command::batch`. Its outcome is one reply for each
/// item, or one refusal for all: `Result<Vec<Reply>, Refusal>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// The items one after the other.
    pub items: Bytes,
    /// How many.
    pub count: u32,
    /// What their results may come to, in bytes, see `command::charge`.
    pub charge: usize,
}

/// What a node is to its clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeRole {
    /// Answers clients: leads, and its lease holds.
    Master,
    /// Votes.
    #[default]
    Replica,
    /// Has the data, no vote.
    Learner,
}

impl NodeRole {
    /// One lower-case word.
    pub fn name(self) -> &'static str {
        match self {
            NodeRole::Master => "master",
            NodeRole::Replica => "replica",
            NodeRole::Learner => "learner",
        }
    }
}

/// Another node of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerInfo {
    /// Its name in the configuration.
    pub name: String,
    /// Where its clients connect, `host:port`.
    pub address: String,
    /// It is connected.
    pub reachable: bool,
    /// What it has applied, as far as this node knows.
    pub applied_index: u64,
    /// Milliseconds since it was heard; 0: just now, or not known.
    pub silent_ms: u64,
    /// Chosen entries that it has not yet in its log.
    pub lag_entries: u64,
}

/// A node, for INFO, ROLE and HELLO. Numbers that a node cannot tell are 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// The cluster's id.
    pub cluster_id: String,
    /// This node's name in the configuration.
    pub name: String,
    /// Where its clients connect, `host:port`.
    pub address: String,
    /// What it is at this moment.
    pub role: NodeRole,
    /// The master's client address, if one is known; this node's own when it is the master.
    pub master_address: Option<String>,
    /// The same, or the last one's that was known.
    pub last_master_address: Option<String>,
    /// For how long no master has been known, in ms.
    pub master_lost_ms: u64,
    /// The round of the ballot that this node is under; grows with each election.
    pub epoch: u64,
    /// The length of the master's lease, in ms.
    pub lease_ms: u64,
    /// A head is on its way here: this node is far behind.
    pub catching_up: bool,
    /// How far a planned handover is, as INFO prints it.
    pub handover: &'static str,
    /// The other nodes, in the configuration's order.
    pub peers: Vec<PeerInfo>,
    /// The highest ballot promised, as text.
    pub ballot: String,
    /// The last entry in its log.
    pub last_index: u64,
    /// The last entry it knows to be chosen.
    pub chosen_index: u64,
    /// The last entry in its store.
    pub applied_index: u64,
    /// The newest head that was verified.
    pub head_index: u64,
    /// The log's time at that head, in ms since the epoch; 0: there is none.
    pub head_stamp_ms: u64,
    /// A head is being written.
    pub head_in_progress: bool,
    /// Changes to keys that the newest head does not have; since the node began when it wrote none.
    pub changes_since_head: u64,
    /// The last head that this node began could not be written.
    pub head_failed: bool,
    /// Keys that were deleted because their deadline had passed, since the process began.
    pub expired_keys: u64,
    /// What is left of the master's lease, in ms.
    pub lease_left_ms: u64,
    /// Since the process began, in ms.
    pub uptime_ms: u64,
    /// Resident memory of the process, in bytes.
    pub memory_bytes: u64,
    /// The most that it ever was.
    pub memory_peak_bytes: u64,
    /// Memory of the machine, in bytes.
    pub memory_total_bytes: u64,
    /// Of the process's memory: rows that are not in the engine yet, and rows read often.
    pub layers_bytes: u64,
    /// Where the node keeps its data.
    pub directory: String,
    /// Who may use DEBUG.
    pub debug_command: Allowed,
    /// Bytes of the node's directory.
    pub disk_used_bytes: u64,
    /// Bytes free on its file system.
    pub disk_free_bytes: u64,
    /// Processor time of the process in user mode, in microseconds.
    pub cpu_user_us: u64,
    /// Processor time of the process in the kernel, in microseconds.
    pub cpu_system_us: u64,
    /// Client connections the node accepts at most.
    pub clients_max: u64,
    /// Updates are refused, and why.
    pub read_only: Option<String>,
    /// Further lines of INFO's section `arakoon`: name and value.
    pub more: Vec<(String, String)>,
}
