//! A real node behind the sessions.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::answers::Answers;
use super::backend::{Backend, NodeInfo, NodeRole, PeerInfo, Submission, Synced};
use super::handover::{HandOver, HandOverRefused, Target};
use super::info::host_and_port;
use super::long_reads::{LongReads, beside_the_others};
use super::masters::{Masters, Switch};
use super::places::Place;
use super::refusal::Refusal;
use super::sentinel::names;
use super::topology::node_id;
use crate::config::Config;
use crate::disk::{Disk, RealDisk};
use crate::node::heads::HeadDirectory;
use crate::node::{self, HandOverOrder, Handle, Outcome, Role, Status};
use crate::paxos::{FollowerStatus, NodeId};
use crate::store::keyspace::Meta;
use crate::store::{Rows, StoreError};

/// Disk use is summed at most this often.
const DISK_USE_EVERY: Duration = Duration::from_secs(1);

/// Whether the connections with another node stand. A master knows better: who answers it.
pub type Links = Arc<dyn Fn(NodeId) -> bool + Send + Sync>;

/// What sessions need of a running node.
pub struct NodeBackend {
    handle: Handle,
    config: Config,
    seat: NodeId,
    clients_max: usize,
    started: Instant,
    answers: Arc<Answers>,
    disk_used: Mutex<Option<(Instant, u64)>>,
    masters: Masters,
    links: Links,
    long_reads: LongReads,
    /// `None` in simulations.
    heads: Option<HeadDirectory>,
    stop: Notify,
    /// Ends the process.
    fatal: node::runtime::Fatal,
}

impl NodeBackend {
    /// For the node of that seat.
    pub fn new(
        handle: Handle,
        config: Config,
        seat: NodeId,
        clients_max: usize,
        fatal: node::runtime::Fatal,
    ) -> NodeBackend {
        let answer_within_us = node::answer_within_us(config.cluster.lease.as_micros() as u64);
        NodeBackend {
            handle,
            config,
            seat,
            clients_max,
            started: Instant::now(),
            answers: Arc::new(Answers::new(answer_within_us)),
            disk_used: Mutex::new(None),
            masters: Masters::default(),
            links: Arc::new(|_| false),
            long_reads: LongReads::new(Duration::from_micros(answer_within_us)),
            heads: None,
            stop: Notify::new(),
            fatal,
        }
    }

    /// With the heads that the node writes.
    pub fn with_heads(mut self, heads: HeadDirectory) -> NodeBackend {
        self.heads = Some(heads);
        self
    }

    /// Waits until a client tells this node to stop.
    pub async fn told_to_stop(&self) {
        self.stop.notified().await;
    }

    /// With a way to ask whether other nodes can be reached while this one does not lead.
    pub fn with_links(mut self, links: Links) -> NodeBackend {
        self.links = links;
        self
    }

    /// Another master is known, or none. To be told of every change, in order. Returns Sentinel's
    /// messages of a switch, one for each name of the master.
    pub fn master_changed(&self, master: Option<NodeId>) -> Vec<String> {
        let Some(Switch { from, to }) = self.masters.note(master, self.handle.boot_us()) else {
            return Vec::new();
        };
        let place = |node: NodeId| {
            let (host, port) = host_and_port(self.config.node(node).advertised());
            format!("{host} {port}")
        };
        let (from, to) = (place(from), place(to));
        names(&self.config.cluster.id).map(|name| format!("{name} {from} {to}")).collect()
    }

    /// The master, if one is known at this very moment: a lease may have ended since the driver's
    /// last step.
    fn master(&self, status: &Status) -> Option<NodeId> {
        let own = status.master == Some(self.seat);
        status.master.filter(|_| !own || self.handle.boot_us() < status.serving_until_us)
    }

    /// Its tasks have to run; without them no update is answered.
    pub fn answers(&self) -> &Arc<Answers> {
        &self.answers
    }

    /// Has the driver propose it. Who submits it is at `place`.
    pub(super) fn submit(
        &self,
        submission: Submission,
        place: Place,
    ) -> oneshot::Receiver<Outcome> {
        let Submission { items, count, charge } = submission;
        let read_at_us = self.handle.boot_us();
        let (promise, receiver) = self.answers.promise(read_at_us, place);
        let respond = Box::new(move |outcome| promise.keep(outcome));
        self.handle.submit(node::Submission { items, count, charge, read_at_us, respond });
        receiver
    }

    /// Where this node listens for clients.
    pub(super) fn own_address(&self) -> &str {
        &self.config.node(self.seat).client
    }

    fn advertised(&self, node: NodeId) -> String {
        self.config.node(node).advertised().to_owned()
    }

    fn disk_used_bytes(&self) -> u64 {
        let mut known = self.disk_used.lock();
        if let Some((at, bytes)) = *known
            && at.elapsed() < DISK_USE_EVERY
        {
            return bytes;
        }
        let bytes = directory_bytes(&self.config.node(self.seat).dir);
        *known = Some((Instant::now(), bytes));
        bytes
    }

    fn peers(&self, status: &Status) -> Vec<PeerInfo> {
        let others = (0..self.config.nodes.len() as u8).map(NodeId).filter(|n| *n != self.seat);
        let info = |node: NodeId| {
            let seen = status.followers.iter().find(|follower| follower.node == node);
            let silent_us_max = 2 * self.config.cluster.lease.as_micros() as u64;
            let is_master = status.master == Some(node);
            let matched = seen.map_or(0, |follower| follower.matched.0);
            PeerInfo {
                name: self.config.node(node).name.clone(),
                address: self.config.node(node).advertised().to_owned(),
                reachable: match seen {
                    Some(follower) => follower.silent_us < silent_us_max,
                    None => is_master || (self.links)(node),
                },
                applied_index: if is_master { status.chosen.0 } else { matched },
                silent_ms: match seen {
                    Some(follower) => follower.silent_us / 1000,
                    None if is_master => status.leader_silent_us / 1000,
                    None => 0,
                },
                lag_entries: status.chosen.0.saturating_sub(matched),
            }
        };
        others.map(info).collect()
    }

    /// Further lines of INFO's own section; `arakoon status` reads them.
    fn more(&self, status: &Status, now_us: u64) -> Vec<(String, String)> {
        let keys: u64 = Meta::read(&self.handle.store().read())
            .map_or(0, |meta| meta.databases.iter().map(|database| database.keys).sum());
        let master = self.master(status).map(|node| self.config.node(node).advertised().to_owned());
        let catch_up = status.catch_up.map_or("none".to_string(), |it| {
            format!("head, {} of {} bytes", it.kept_bytes, it.size_bytes)
        });
        let mismatch = status.head_mismatch.map_or(String::new(), |(index, node)| {
            format!("at index {index}, seen with {}", self.config.node(node).name)
        });
        let serves = now_us < status.serving_until_us;
        let mut lines = vec![
            ("part", status.role.name().to_string()),
            ("quorum", u8::from(serves).to_string()),
            ("master_address", master.unwrap_or_default()),
            ("incarnation", status.incarnation.to_string()),
            ("keys", keys.to_string()),
            ("log_base_index", status.base.to_string()),
            ("head_hash", status.head.map_or(String::new(), |head| head.short_hash())),
            ("head_mismatch", mismatch),
            ("catch_up", catch_up),
            ("queue", status.queued.to_string()),
            ("clock_off_ms", status.clock_off_ms.to_string()),
            ("layers_bytes", self.handle.store().layers_bytes().to_string()),
            ("drained_index", self.handle.store().drained().to_string()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_string(), value))
        .collect::<Vec<_>>();
        for (seat, node) in self.config.nodes.iter().enumerate() {
            let value =
                format!("name={},client={},peer={}", node.name, node.advertised(), node.peer);
            lines.push((format!("member{}", seat + 1), value));
        }
        for follower in &status.followers {
            let name = &self.config.node(follower.node).name;
            let value = format!(
                "matched={},votes={},silent_ms={},behind={}",
                follower.matched,
                u8::from(follower.votes),
                follower.silent_us / 1000,
                u8::from(follower.behind)
            );
            lines.push((format!("follower_{name}"), value));
        }
        lines
    }
}

impl Backend for NodeBackend {
    fn with_rows(&self, read: &mut dyn FnMut(&dyn Rows)) -> Result<u64, Refusal> {
        let view = self.handle.store().read();
        read(&view);
        Ok(view.applied())
    }

    fn with_rows_for_long(&self, read: &mut dyn FnMut(&dyn Rows)) -> Result<u64, Refusal> {
        self.long_reads.read(|| {
            let view = self.handle.store().freeze_if_ready().ok_or(Refusal::Loading)?;
            read(&view);
            Ok(view.applied())
        })
    }

    fn put_in_order(&self) {
        let store = self.handle.store();
        if !store.ask_for_order() {
            beside_the_others(|| store.put_in_order());
        }
    }

    fn lease(&self, view_index: u64) -> Result<(), Refusal> {
        self.handle.serves(view_index).map_err(Refusal::from)
    }

    fn may_write(&self) -> Result<(), Refusal> {
        self.handle.may_write().map_err(Refusal::from)
    }

    fn stamp_ms(&self) -> u64 {
        self.handle.stamp_ms()
    }

    fn synced(&self) -> Synced {
        let Some(status) = self.handle.status() else { return Synced::default() };
        let others = status.followers.iter().map(|follower| follower.matched.0).collect();
        Synced { here: status.durable.0, others }
    }

    fn info(&self) -> NodeInfo {
        let now_us = self.handle.boot_us();
        let node = self.config.node(self.seat);
        let base = NodeInfo {
            cluster_id: self.config.cluster.id.clone(),
            name: node.name.clone(),
            address: node.advertised().to_owned(),
            lease_ms: self.config.cluster.lease.as_millis() as u64,
            handover: node::HandOverState::None.name(),
            last_master_address: self.masters.last().map(|it| self.advertised(it)),
            master_lost_ms: self.masters.lost_us(now_us) / 1000,
            uptime_ms: self.started.elapsed().as_millis() as u64,
            clients_max: self.clients_max as u64,
            disk_used_bytes: self.disk_used_bytes(),
            disk_free_bytes: RealDisk.bytes_free(&node.dir).unwrap_or(0),
            directory: node.dir.display().to_string(),
            debug_command: self.config.cluster.debug_command,
            layers_bytes: self.handle.store().layers_bytes() as u64,
            ..process_info()
        };
        let Some(status) = self.handle.status() else {
            let more = vec![("part".to_string(), "loading".to_string())];
            return NodeInfo { more, ..base };
        };
        let head = self.heads.as_ref().and_then(HeadDirectory::newest);
        NodeInfo {
            role: match status.role {
                Role::Master => NodeRole::Master,
                Role::Leader | Role::Replica => NodeRole::Replica,
                Role::Learner | Role::Joining => NodeRole::Learner,
            },
            master_address: self.master(&status).map(|it| self.advertised(it)),
            epoch: status.ballot.round,
            catching_up: status.catch_up.is_some(),
            handover: status.handover.name(),
            peers: self.peers(&status),
            ballot: status.ballot.to_string(),
            last_index: status.last.0,
            chosen_index: status.chosen.0,
            applied_index: status.applied.0,
            head_index: status.head.map_or(0, |head| head.index.0),
            head_stamp_ms: head.map_or(0, |head| head.stamp_ms),
            head_in_progress: self.heads.as_ref().is_some_and(HeadDirectory::is_writing),
            changes_since_head: self
                .handle
                .counts()
                .changes()
                .saturating_sub(self.heads.as_ref().map_or(0, HeadDirectory::saved_changes)),
            head_failed: self.heads.as_ref().is_some_and(HeadDirectory::last_failed),
            expired_keys: self.handle.counts().expired_keys(),
            lease_left_ms: status.lease_until_us.saturating_sub(now_us) / 1000,
            read_only: status.updates_refused.as_ref().map(|refusal| match refusal {
                node::Refusal::Misconf(reason) => reason.to_string(),
                other => format!("{other:?}"),
            }),
            more: self.more(&status, now_us),
            ..base
        }
    }

    fn write_head(&self) -> Result<(), Refusal> {
        // Also when updates are refused for want of room: it makes log droppable.
        self.handle.serves(self.handle.store().applied())?;
        self.handle.write_head();
        Ok(())
    }

    fn shut_down(&self) {
        self.stop.notify_one();
    }

    fn hand_over(&self, order: HandOver) -> Result<(), HandOverRefused> {
        let status = self.handle.status().ok_or(HandOverRefused::NoMaster)?;
        let leads = matches!(status.role, Role::Master | Role::Leader);
        if order.target == Target::Own {
            if leads {
                return Err(HandOverRefused::NotReplica);
            }
            if status.role != Role::Replica {
                return Err(HandOverRefused::NoReplica);
            }
            if status.master.is_none() && !order.force {
                return Err(HandOverRefused::NoMaster);
            }
            self.handle.ask_for_mastership(order.force);
            return Ok(());
        }
        if status.role != Role::Master {
            return Err(HandOverRefused::NotMaster);
        }
        if status.handover != node::HandOverState::None {
            return Err(HandOverRefused::UnderWay);
        }
        let silent_us_max = 2 * self.config.cluster.lease.as_micros() as u64;
        let can = |it: &&FollowerStatus| it.votes && it.silent_us < silent_us_max;
        let mut able = status.followers.iter().filter(can);
        let target = match &order.target {
            Target::Node(id) => {
                let has_id = |it: &FollowerStatus| {
                    node_id(&self.config.cluster.id, &self.config.node(it.node).name) == *id
                };
                let found = able.find(|it| has_id(it)).ok_or(HandOverRefused::NotReplica)?;
                Some(found.node)
            }
            Target::Any | Target::Own => {
                able.next().ok_or(HandOverRefused::NoReplica)?;
                None
            }
        };
        let timeout_us = order.timeout_ms.map(|ms| ms.saturating_mul(1000));
        self.handle.hand_over(HandOverOrder { target, force: order.force, timeout_us });
        Ok(())
    }

    fn abort_hand_over(&self) -> bool {
        let status = self.handle.status();
        let under_way = status.is_some_and(|it| it.handover != node::HandOverState::None);
        if under_way {
            self.handle.abort_hand_over();
        }
        under_way
    }

    fn store_failed(&self, error: StoreError) {
        // A head is replacing the store: this node is far behind and answers nobody meanwhile.
        if !matches!(error, StoreError::Replaced) {
            (self.fatal)(&format!("the store failed: {error}"));
        }
    }
}

/// What the kernel says of this process; what it does not say is 0.
fn process_info() -> NodeInfo {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name in parentheses: state is field 3, utime 14, stime 15, rss 24.
    let fields: Vec<u64> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
    let tick_us = 1_000_000 / rustix::param::clock_ticks_per_second().max(1);
    NodeInfo {
        memory_bytes: field(24) * rustix::param::page_size() as u64,
        memory_peak_bytes: kib_in("/proc/self/status", "VmHWM:") << 10,
        memory_total_bytes: kib_in("/proc/meminfo", "MemTotal:") << 10,
        cpu_user_us: field(14) * tick_us,
        cpu_system_us: field(15) * tick_us,
        ..NodeInfo::default()
    }
}

/// The number behind a name in one of the kernel's tables, in KiB.
fn kib_in(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

/// Bytes of all files below a directory; what cannot be read counts nothing.
fn directory_bytes(directory: &PathBuf) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => directory_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum()
}

impl From<node::Refusal> for Refusal {
    fn from(refusal: node::Refusal) -> Refusal {
        match refusal {
            node::Refusal::Moved { address } => Refusal::Moved { address },
            node::Refusal::ClusterDown(reason) => Refusal::ClusterDown(reason.into()),
            node::Refusal::TryAgain(reason) => Refusal::TryAgain(reason.into()),
            node::Refusal::Loading(_) => Refusal::Loading,
            node::Refusal::Misconf(reason) => Refusal::Misconf(reason.into()),
            node::Refusal::Uncertain => Refusal::Uncertain,
        }
    }
}
