//! One machine: what stays when its process dies (disk, engine, clocks), the process, and what the
//! driver asks of it.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arakoon::disk::{Disk, SimulatedDisk};
use arakoon::node::environment::{ApplyJob, HeadJob, ReadPurpose};
use arakoon::node::heads::HeadDirectory;
use arakoon::node::recovery::{self, NodeSettings, OpenedNode, StartError};
use arakoon::node::{Applier, Driver, Environment, Frozen, HeadName, Input, NodeMessage, Status};
use arakoon::paxos::{
    Ballot, DurableState, Incarnation, Index, NodeId, Position, Save, SaveId, Settings,
};
use arakoon::store::{EngineChoice, MemoryEngine, MemoryFile, Store, StoreOptions, StorePlace};
use arakoon::transaction_log::{Options, TransactionLog};

use crate::connections::Sessions;
use crate::plan::Plan;
use crate::world::Event;

/// Wall time at the start of every run, in milliseconds since the epoch.
const WALL_START_MS: u64 = 1_700_000_000_000;

/// Where the simulated nodes live.
pub fn directory() -> PathBuf {
    PathBuf::from("/node")
}

/// A clock that runs at its own rate since the machine was booted.
#[derive(Clone, Copy, Debug)]
pub struct BootClock {
    booted_at_us: u64,
    start_us: u64,
    ppm: i64,
}

impl BootClock {
    pub fn new(booted_at_us: u64, start_us: u64, ppm: i64) -> BootClock {
        BootClock { booted_at_us, start_us, ppm }
    }

    /// How much faster than true time it runs, in parts per million.
    pub fn ppm(&self) -> i64 {
        self.ppm
    }

    /// What it shows at this true time.
    pub fn now_us(&self, true_us: u64) -> u64 {
        let passed = (true_us - self.booted_at_us) as i64;
        self.start_us + (passed + passed * self.ppm / 1_000_000) as u64
    }
}

/// What a machine keeps.
pub struct Machine {
    pub node: usize,
    pub disk: SimulatedDisk,
    pub engine: MemoryEngine,
    pub journal: MemoryFile,
    pub trust: MemoryFile,
    pub clock: BootClock,
    pub boots: u64,
    pub wall_offset_ms: i64,
    pub process: Option<Process>,
    /// Counts processes, so that events of an earlier one are recognized.
    pub life: u64,
    pub paused_until_us: u64,
    /// What came to it meanwhile, with the places it came in.
    pub held: Vec<(u64, Event)>,
    pub stalled_until_us: u64,
    pub slow_until_us: u64,
    /// Where its store spills layers.
    spill_directory: Option<PathBuf>,
    pub paused_lately_us: u64,
    pub above: Incarnation,
    /// The state that a power cut would leave.
    pub durable: DurableState,
    pub damaged: bool,
    /// It has lost its heads, and perhaps cannot start without them.
    pub headless: bool,
}

/// A save that is in the page cache only.
pub struct PendingSave {
    pub id: SaveId,
    pub truncate_from: Option<Index>,
    pub entries: Vec<Position>,
    pub state: Option<DurableState>,
}

/// Work of the thread that applies.
pub enum ApplyWork {
    Job(ApplyJob),
    Install(HeadName),
}

/// Work of the thread that writes and reads heads.
pub enum HeadWork {
    Write(Box<Frozen>),
    Job(HeadJob),
}

/// A running node.
pub struct Process {
    pub driver: Driver,
    pub log: TransactionLog,
    pub heads: HeadDirectory,
    pub store: Store,
    pub applier: Applier,
    pub incarnation: Incarnation,
    pub inbox: VecDeque<Input>,
    pub woken: bool,
    /// Saves that are not in the log yet, as they wait for the log's thread: a kill takes them.
    pub queued: Vec<Save>,
    /// Those in the log that are not synced: a power cut takes them.
    pub saves: VecDeque<PendingSave>,
    pub syncing: bool,
    pub applying: VecDeque<ApplyWork>,
    pub heading: VecDeque<HeadWork>,
    pub head_busy: bool,
    pub status: Arc<Status>,
    /// The last ballot that it won.
    pub led: Ballot,
    pub sessions: Sessions,
    /// Why it must stop.
    pub failed: Option<String>,
}

impl Machine {
    pub fn new(node: usize, plan: &Plan, rng: &mut fastrand::Rng) -> Machine {
        let ppm = match plan.clock_ppm_max {
            0 => 0,
            max => rng.i64(-max..=max),
        };
        Machine {
            node,
            disk: SimulatedDisk::new(rng.u64(..)),
            engine: MemoryEngine::new(),
            journal: MemoryFile::new(),
            trust: MemoryFile::new(),
            clock: BootClock::new(0, rng.u64(1_000_000..1_000_000_000_000), ppm),
            boots: 1,
            wall_offset_ms: rng.i64(-2_000..2_000),
            process: None,
            life: 0,
            paused_until_us: 0,
            held: Vec::new(),
            stalled_until_us: 0,
            slow_until_us: 0,
            spill_directory: None,
            paused_lately_us: 0,
            above: Incarnation(0),
            durable: DurableState::default(),
            damaged: false,
            headless: false,
        }
    }

    /// Real files, of which nothing is left when the process ends.
    pub fn spill_to(&mut self, directory: &Path) {
        self.spill_directory = Some(directory.join(format!("n{}", self.node + 1)));
    }

    pub fn wall_ms(&self, true_us: u64) -> u64 {
        (WALL_START_MS + true_us / 1000).saturating_add_signed(self.wall_offset_ms)
    }

    /// Forgets everything, as a new machine.
    pub fn wipe(&mut self) {
        self.disk.delete_directory(Path::new("/"));
        self.engine = MemoryEngine::new();
        self.journal.set(None);
        self.trust.set(None);
        self.durable = DurableState::default();
        self.above = Incarnation(0);
        self.damaged = false;
        self.headless = false;
    }

    /// Starts a process on what is there.
    pub fn start(
        &mut self,
        plan: &Plan,
        fresh: Incarnation,
        seed: u64,
        now_us: u64,
    ) -> Result<(), StartError> {
        let ingests = plan.ingests && (self.node as u64 + plan.seed) % 2 == 1;
        self.engine.set_ingests(ingests.then_some(60_000));
        let place = StorePlace {
            engine: EngineChoice::Memory(self.engine.clone()),
            journal: Box::new(self.journal.clone()),
            trust: Box::new(self.trust.clone()),
            boot_id: format!("boot-{}", self.boots),
        };
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let mut settings = node_settings(plan, self.node);
        settings.store.spill_directory.clone_from(&self.spill_directory);
        let now_us = self.clock.now_us(now_us);
        let opened =
            recovery::open(&disk, &directory(), place, settings, fresh, self.above, seed, now_us)?;
        let OpenedNode { log, heads, store, applier, start } = opened;
        // Opening a log makes all that it holds durable.
        self.durable = log.state().clone();
        let incarnation = start.settings.incarnation;
        let driver = Driver::new(start);
        let status = driver.status().clone();
        let sessions = Sessions::new(self.node, plan.seats, store.clone(), seed);
        self.process = Some(Process {
            driver,
            log,
            heads,
            store,
            applier,
            incarnation,
            inbox: VecDeque::new(),
            woken: false,
            queued: Vec::new(),
            saves: VecDeque::new(),
            syncing: false,
            applying: VecDeque::new(),
            heading: VecDeque::new(),
            head_busy: false,
            status,
            led: Ballot::ZERO,
            sessions,
            failed: None,
        });
        Ok(())
    }
}

fn node_settings(plan: &Plan, node: usize) -> NodeSettings {
    let mut paxos = Settings::new(NodeId(node as u8), Incarnation(0), plan.seats, plan.lease_us);
    paxos.zones.clone_from(&plan.zones);
    paxos.chunk_bytes_max = plan.chunk_bytes;
    paxos.window_bytes_max = plan.window_bytes;
    paxos.cache_bytes_max = plan.cache_bytes;
    NodeSettings {
        cluster_id: "simulated".to_owned(),
        node_name: format!("n{}", node + 1),
        paxos,
        client_addresses: (0..plan.seats).map(client_address).collect(),
        store: StoreOptions {
            layer_bytes: plan.layer_bytes,
            layers_bytes_max: plan.layers_bytes_max,
            spill_directory: None,
            cache_bytes: if plan.seed.is_multiple_of(2) { 64 << 10 } else { 0 },
            drain_batch_rows: 7,
            ingest_rows_min: 5,
        },
        log: Options::with_segment_bytes(plan.segment_bytes),
        head_every_bytes: plan.head_every_bytes,
    }
}

/// What MOVED names.
pub fn client_address(node: usize) -> String {
    format!("10.0.0.{}:4000", node + 1)
}

/// The node of a client's address.
pub fn node_of_address(address: &str) -> Option<usize> {
    let number = address.strip_prefix("10.0.0.")?.strip_suffix(":4000")?;
    number.parse::<usize>().ok()?.checked_sub(1)
}

/// What the driver asked for in one step.
pub enum Effect {
    Save(Vec<Save>),
    Send(NodeId, NodeMessage),
    Read(ReadPurpose),
    Apply(ApplyJob),
    Head(HeadJob),
    Collapse(Index),
    Publish(Arc<Status>),
    CloseClients,
}

/// Takes down what the driver asks for, in order.
pub struct Collector {
    pub wall_ms: u64,
    pub over_bound: bool,
    pub effects: Vec<Effect>,
}

impl Environment for Collector {
    fn over_bound(&self) -> bool {
        self.over_bound
    }
    fn save(&mut self, saves: Vec<Save>) {
        self.effects.push(Effect::Save(saves));
    }
    fn send(&mut self, to: NodeId, message: NodeMessage) {
        self.effects.push(Effect::Send(to, message));
    }
    fn read(&mut self, purpose: ReadPurpose) {
        self.effects.push(Effect::Read(purpose));
    }
    fn apply(&mut self, job: ApplyJob) {
        self.effects.push(Effect::Apply(job));
    }
    fn head(&mut self, job: HeadJob) {
        self.effects.push(Effect::Head(job));
    }
    fn collapse_log(&mut self, below: Index) {
        self.effects.push(Effect::Collapse(below));
    }
    fn publish(&mut self, status: &Arc<Status>) {
        self.effects.push(Effect::Publish(status.clone()));
    }
    fn close_clients(&mut self) {
        self.effects.push(Effect::CloseClients);
    }
    fn wall_ms(&self) -> u64 {
        self.wall_ms
    }
}
