//! Clients that read and write all the time, and the history of what they heard.
//!
//! Each sends one operation, waits, notes what it heard, thinks, and goes on. A connection that
//! breaks, or a reply that does not come within the client's patience, leaves the outcome unknown.
//! Patience differs, as with real clients: the short ones find a new master soon, the long ones
//! hear what a node says at last.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use fastrand::Rng;
use resp::Reply;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::arguments::Arguments;
use crate::checker::{Conversation, Heard, History, Kind, Role, Violation, Workload, operation};
use crate::connection::Connection;
use crate::network::client_address;
use crate::timeline::Clock;

const PATIENCE: [Duration; 4] = [
    Duration::from_millis(150),
    Duration::from_millis(600),
    Duration::from_millis(1_500),
    Duration::from_millis(7_000),
];
/// Between two operations, at most.
const THINK_MS_MAX: u64 = 30;
/// Before another node is tried.
const RETRY_MS_MAX: u64 = 20;
/// Lists and registers at a time.
const LISTS: u32 = 4;
/// Between the wall clocks of the runner and the nodes, besides the jumps: drift, and what the log's
/// clock runs ahead by; ms.
const CLOCK_SLACK_MS: u64 = 2_000;

/// What the clients did, as it is collected.
#[derive(Default)]
pub struct Record {
    pub history: History,
    /// When a write was acknowledged, and by which node.
    pub acknowledged: Vec<(u64, u8)>,
    pub violation: Option<Violation>,
    pub refused: u64,
    pub unknown: u64,
}

/// What clients and runner share.
pub struct Shared {
    pub clock: Clock,
    record: Mutex<Record>,
    nodes: usize,
    seed: u64,
    stop: AtomicBool,
    /// The node that acknowledged the last write.
    master: AtomicUsize,
    writes: AtomicU64,
    /// The furthest that any node's wall clock was ever ahead.
    wall_ahead_ms: AtomicI64,
    connections: AtomicU64,
}

impl Shared {
    pub fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn master(&self) -> usize {
        self.master.load(Ordering::Relaxed)
    }

    /// Acknowledged so far.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// A node's wall clock will be so far off.
    pub fn wall_will_be(&self, offset_ms: i64) {
        self.wall_ahead_ms.fetch_max(offset_ms, Ordering::Relaxed);
    }

    /// No clock of the log shows more: it follows the wall clocks.
    fn log_clock_ms_max(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let ahead_ms = self.wall_ahead_ms.load(Ordering::Relaxed).max(0) as u64;
        now as u64 + ahead_ms + CLOCK_SLACK_MS
    }
}

/// The clients of a run.
pub struct Load {
    pub shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts clients of the master, and a quarter as many that read stale data.
    pub fn start(runtime: &Runtime, clock: Clock, arguments: &Arguments) -> Load {
        let (nodes, seed) = (arguments.nodes, arguments.seed());
        let main = usize::from(arguments.clients);
        let shared = Arc::new(Shared {
            clock,
            record: Mutex::default(),
            nodes,
            seed,
            stop: AtomicBool::new(false),
            master: AtomicUsize::new(0),
            writes: AtomicU64::new(0),
            wall_ahead_ms: AtomicI64::new(0),
            connections: AtomicU64::new(0),
        });
        let clients = (0..main + main.div_ceil(4))
            .map(|number| {
                let role = if number < main { Role::Main } else { Role::Stale };
                runtime.spawn(Client::new(number, role, shared.clone()).run())
            })
            .collect();
        Load { shared, clients }
    }

    /// Ends the clients, each after its present operation.
    pub fn stop(&mut self, runtime: &Runtime) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            runtime.block_on(client).expect("a client does not panic");
        }
    }
}

struct Client {
    number: usize,
    shared: Arc<Shared>,
    rng: Rng,
    patience: Duration,
    conversation: Conversation,
    node: usize,
    connection: Option<Connection>,
    /// What one connection sees follows each other.
    number_of_connection: u64,
}

impl Client {
    fn new(number: usize, role: Role, shared: Arc<Shared>) -> Client {
        Client {
            number,
            rng: Rng::with_seed(shared.seed.wrapping_mul(1_000_003) ^ number as u64),
            patience: PATIENCE[number % PATIENCE.len()],
            conversation: Conversation::new(role),
            node: number % shared.nodes,
            connection: None,
            number_of_connection: 0,
            shared,
        }
    }

    async fn run(mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let pause_ms_max = match self.connection.take() {
                Some(connection) => self.operate(connection).await,
                None => self.connect().await,
            };
            sleep(Duration::from_millis(self.rng.u64(..=pause_ms_max))).await;
        }
    }

    /// Nothing is asked before there is a connection, so nothing can be in doubt.
    async fn connect(&mut self) -> u64 {
        self.conversation.reconnected();
        self.number_of_connection = self.shared.connections.fetch_add(1, Ordering::Relaxed);
        self.connection = Connection::open(&client_address(self.node)).await.ok();
        if let (Role::Stale, Some(connection)) = (self.conversation.role, &mut self.connection) {
            let readonly = [vec![Bytes::from_static(b"READONLY")]];
            let answer = timeout(self.patience, connection.talk(&readonly)).await;
            if !matches!(answer, Ok(Ok(replies)) if replies == [Reply::OK]) {
                self.connection = None;
            }
        }
        if self.connection.is_none() {
            self.leave();
        }
        RETRY_MS_MAX
    }

    fn leave(&mut self) {
        self.node = self.rng.usize(..self.shared.nodes);
    }

    /// One operation; how long to pause after it, at most.
    async fn operate(&mut self, mut connection: Connection) -> u64 {
        let (op, kind) = {
            let mut record = self.shared.record();
            let now_us = self.shared.clock.now_us();
            let workload = Workload { lists: LISTS, ranges: true };
            let history = &mut record.history;
            let kind = workload.choose(now_us, &mut self.conversation, history, &mut self.rng);
            (history.ask(self.number, kind.clone(), now_us), kind)
        };
        let requests = operation::requests(op, &kind);
        let answer = timeout(self.patience, connection.talk(&requests)).await;
        let heard_us = self.shared.clock.now_us();
        let heard = match answer {
            Ok(Ok(replies)) => {
                self.connection = Some(connection);
                operation::heard(&kind, replies)
            }
            Ok(Err(_)) | Err(_) => Heard::Unknown,
        };
        let pause_ms_max = self.go_on(&heard);
        let mut record = self.shared.record();
        match &heard {
            Heard::Reply(_) if writes(&kind) => {
                record.acknowledged.push((heard_us, self.node as u8));
                self.shared.master.store(self.node, Ordering::Relaxed);
                self.shared.writes.fetch_add(1, Ordering::Relaxed);
            }
            Heard::Reply(_) => {}
            Heard::Refused { .. } => record.refused += 1,
            Heard::Unknown => record.unknown += 1,
        }
        let clock_ms = self.shared.log_clock_ms_max();
        if let Err(violation) =
            record.history.hear(op, heard_us, heard, clock_ms, self.number_of_connection)
        {
            record.violation.get_or_insert(violation);
        }
        self.conversation.heard(&record.history, op, &mut self.rng);
        pause_ms_max
    }

    /// Where to turn next.
    fn go_on(&mut self, heard: &Heard) -> u64 {
        match heard {
            Heard::Reply(_) => return THINK_MS_MAX,
            Heard::Refused { master: Some(address) } => {
                let named = (0..self.shared.nodes).find(|seat| client_address(*seat) == *address);
                match named {
                    Some(seat) => self.node = seat,
                    None => {
                        let what = format!("MOVED to {address}, which is no node");
                        let violation = Violation { check: "redirect", what };
                        self.shared.record().violation.get_or_insert(violation);
                    }
                }
            }
            // Half of them stay where they are: a master that has lost its peers hears reads too.
            Heard::Unknown if self.rng.bool() => {}
            Heard::Refused { master: None } | Heard::Unknown => self.leave(),
        }
        self.connection = None;
        RETRY_MS_MAX
    }
}

/// An operation that waits for the log.
fn writes(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Append { .. }
            | Kind::AppendBoth { .. }
            | Kind::ReadAppend { .. }
            | Kind::Increment { .. }
            | Kind::Swap { .. }
            | Kind::SetAbsent { .. }
            | Kind::Put { .. }
            | Kind::Exchange { .. }
            | Kind::Delete { .. }
            | Kind::SetExpiring { .. }
            | Kind::SetScanned { .. }
            | Kind::DeleteScanned { .. }
    )
}
