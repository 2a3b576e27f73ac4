//! What the sessions of one node have in common.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::counters::Counters;
use super::cursors::Cursors;
use super::latency::LatencyMonitor;
use super::monitors::Monitors;
use super::parameters::Parameters;
use super::pause::Pause;
use super::rates::{Rates, Totals};
use super::registry::{Client, ClientRegistry};
use super::slowlog::Slowlog;
use super::subscriptions::{Mailbox, Posted};
use crate::command::table;

/// A clock that sessions measure with; nothing that they answer of data depends on it.
type Clock = Box<dyn Fn() -> u64 + Send + Sync>;

/// One for each node, in an `Arc`.
pub struct Shared {
    /// SCAN's cursors.
    pub cursors: Mutex<Cursors>,
    /// What commands were run.
    pub counters: Counters,
    /// What CONFIG SET changes.
    pub parameters: Parameters,
    pub(super) slowlog: Slowlog,
    pub(super) latency: LatencyMonitor,
    pub(super) rates: Rates,
    registry: OnceLock<Arc<ClientRegistry>>,
    clock_us: Clock,
    wall_ms: Clock,
    pub(super) pause: Pause,
    pub(super) monitors: Arc<Monitors>,
    clients: Mutex<BTreeMap<u64, ClientInfo>>,
    clients_ever: AtomicU64,
    commands: AtomicU64,
    /// What the sessions' generators are seeded with, beside their numbers.
    pub(super) seed: u64,
}

/// A connected client, for CLIENT LIST.
#[derive(Clone, Debug, Default)]
pub struct ClientInfo {
    /// Where it connects from.
    pub address: String,
    /// Where it connected to.
    pub local_address: String,
    /// CLIENT SETNAME.
    pub name: String,
    /// CLIENT SETINFO.
    pub library_name: String,
    /// CLIENT SETINFO.
    pub library_version: String,
    /// The selected database.
    pub db: u8,
    /// 2 or 3.
    pub protocol: u8,
    /// READONLY.
    pub read_only: bool,
    /// CLIENT NO-EVICT.
    pub no_evict: bool,
    /// CLIENT NO-TOUCH.
    pub no_touch: bool,
    /// MONITOR.
    pub monitors: bool,
    /// The socket, if there is one.
    pub(super) connection: Option<Arc<Client>>,
    pub(super) signals: Arc<Signals>,
}

/// The client waits, and may be told not to any more.
pub(super) const WAITS: u8 = 1;
/// It shall wait no longer, as if its time was over.
pub(super) const TIMED_OUT: u8 = 2;
/// It shall wait no longer, and be told so.
pub(super) const UNBLOCKED: u8 = 3;

/// What passes between a session and the others without a lock.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// CLIENT KILL: the session ends the conversation at its next turn.
    pub(super) killed: AtomicBool,
    /// 0, [`WAITS`], [`TIMED_OUT`] or [`UNBLOCKED`].
    pub(super) blocked: AtomicU8,
    /// Commands queued by MULTI, and one more; 0: no transaction is open.
    pub(super) queued: AtomicUsize,
    /// The last command's place in the table, and one more; 0: none yet.
    pub(super) last: AtomicUsize,
    /// Sentinel's events that it asked for.
    pub(super) mailbox: Mailbox,
}

impl Shared {
    /// `seed` should differ from node to node and start to start.
    pub fn new(seed: u64) -> Shared {
        Shared {
            cursors: Mutex::new(Cursors::new(seed)),
            counters: Counters::default(),
            parameters: Parameters::default(),
            slowlog: Slowlog::default(),
            latency: LatencyMonitor::default(),
            rates: Rates::default(),
            registry: OnceLock::new(),
            clock_us: Box::new(|| 0),
            wall_ms: Box::new(|| 0),
            pause: Pause::default(),
            monitors: Arc::default(),
            clients: Mutex::new(BTreeMap::new()),
            clients_ever: AtomicU64::new(0),
            commands: AtomicU64::new(0),
            seed,
        }
    }

    /// Measures with these: microseconds that never go back, and ms since the epoch. Without them
    /// nothing takes any time.
    pub fn with_clocks(
        mut self,
        clock_us: impl Fn() -> u64 + Send + Sync + 'static,
        wall_ms: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Shared {
        (self.clock_us, self.wall_ms) = (Box::new(clock_us), Box::new(wall_ms));
        self
    }

    /// The sockets of these clients are in this registry. To be said once.
    pub fn set_registry(&self, registry: Arc<ClientRegistry>) {
        self.parameters.set_clients_allowed(registry.clients_max() as u64);
        assert!(self.registry.set(registry).is_ok(), "a node has one registry");
    }

    pub(super) fn registry(&self) -> Option<&ClientRegistry> {
        self.registry.get().map(|registry| &**registry)
    }

    pub(super) fn now_us(&self) -> u64 {
        (self.clock_us)()
    }

    pub(super) fn wall_s(&self) -> u64 {
        (self.wall_ms)() / 1000
    }

    pub(super) fn wall_us(&self) -> u64 {
        (self.wall_ms)() * 1000
    }

    /// Remembers the totals, for what INFO says of a second.
    pub(super) fn sample_rates(&self) {
        let (bytes_read, bytes_written) = self.counters.bytes();
        let totals = Totals { commands: self.commands(), bytes_read, bytes_written };
        self.rates.sample(self.now_us(), totals);
    }

    /// CONFIG RESETSTAT
    pub(super) fn reset_statistics(&self) {
        self.counters.reset();
        self.clients_ever.store(0, Ordering::Relaxed);
        self.commands.store(0, Ordering::Relaxed);
    }

    /// Who a client is to SLOWLOG: its address and name.
    pub(super) fn address_and_name(&self, id: u64) -> (String, String) {
        let clients = self.clients.lock();
        clients
            .get(&id)
            .map_or_else(Default::default, |client| (client.address.clone(), client.name.clone()))
    }

    /// How many clients wait, in WAIT and the like.
    pub(super) fn clients_blocked(&self) -> usize {
        let clients = self.clients.lock();
        let blocked = |client: &&ClientInfo| client.signals.blocked.load(Ordering::Relaxed) > 0;
        clients.values().filter(blocked).count()
    }

    /// Clients connected now, but for those that were told to go.
    pub fn clients_connected(&self) -> usize {
        let stays = |client: &&ClientInfo| !client.signals.killed.load(Ordering::SeqCst);
        self.clients.lock().values().filter(stays).count()
    }

    /// Clients that ever connected.
    pub fn clients_ever(&self) -> u64 {
        self.clients_ever.load(Ordering::Relaxed)
    }

    /// Commands that sessions have taken up.
    pub fn commands(&self) -> u64 {
        self.commands.load(Ordering::Relaxed)
    }

    pub(super) fn count_commands(&self, more: u64) {
        self.commands.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn enter(&self, id: u64, client: ClientInfo) {
        self.clients_ever.fetch_add(1, Ordering::Relaxed);
        let old = self.clients.lock().insert(id, client);
        assert!(old.is_none(), "client {id} is there already: {old:?}");
    }

    pub(super) fn leave(&self, id: u64) {
        self.clients.lock().remove(&id);
    }

    /// Changes what is told about a client that has entered.
    pub(super) fn update<R>(&self, id: u64, change: impl FnOnce(&mut ClientInfo) -> R) -> R {
        change(self.clients.lock().entry(id).or_default())
    }

    /// Lines of CLIENT LIST, of the clients that the filter picks; `asking`: who runs which command
    /// now.
    pub(super) fn list(
        &self,
        filter: impl Fn(u64, &ClientInfo) -> bool,
        asking: (u64, &str),
    ) -> String {
        let clients = self.clients.lock();
        let goes = |id: u64, client: &ClientInfo| {
            id != asking.0 && client.signals.killed.load(Ordering::SeqCst)
        };
        let listed =
            clients.iter().filter(|(id, client)| filter(**id, client) && !goes(**id, client));
        let line = |(id, client): (&u64, &ClientInfo)| {
            client.line(*id, (asking.0 == *id).then_some(asking.1))
        };
        listed.map(line).collect()
    }

    /// Ends the conversations that the filter picks; that of `own` when it has answered. Returns
    /// how many; those that were told to go already do not count.
    pub(super) fn kill(&self, own: u64, filter: impl Fn(u64, &ClientInfo) -> bool) -> usize {
        let clients = self.clients.lock();
        let picked = clients.iter().filter(|(id, client)| filter(**id, client));
        let kill = |(id, client): &(&u64, &ClientInfo)| {
            let already = client.signals.killed.swap(true, Ordering::SeqCst);
            match &client.connection {
                Some(connection) if **id == own => connection.finish(),
                Some(connection) => connection.kill(),
                None => (),
            }
            !already
        };
        picked.filter(kill).count()
    }

    /// Tells an event to whoever asked for it; returns how many clients.
    pub fn publish(&self, channel: &str, message: &str) -> usize {
        let clients = self.clients.lock();
        let post = |client: &&ClientInfo| {
            let posted = client.signals.mailbox.post(channel, message);
            match (posted, &client.connection) {
                (Posted::Yes, Some(connection)) => connection.call(),
                (Posted::Overflow, Some(connection)) => connection.kill(),
                _ => (),
            }
            posted == Posted::Yes
        };
        clients.values().filter(post).count()
    }

    /// Ends a client's waiting; whether it did wait.
    pub(super) fn unblock(&self, id: u64, how: u8) -> bool {
        let clients = self.clients.lock();
        let blocked = clients.get(&id).map(|client| &client.signals.blocked);
        blocked.is_some_and(|blocked| {
            blocked.compare_exchange(WAITS, how, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        })
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared({} clients)", self.clients_connected())
    }
}

impl ClientInfo {
    /// How long it has been connected, in s; 0 without a socket.
    pub(super) fn age_s(&self) -> u64 {
        self.connection.as_ref().map_or(0, |connection| connection.age().as_secs())
    }

    /// Whether it waits for events.
    pub(super) fn listens(&self) -> bool {
        self.signals.mailbox.counts() != (0, 0)
    }

    fn flags(&self) -> String {
        let Signals { blocked, queued, .. } = &*self.signals;
        let flags = [
            (self.monitors, 'O'),
            (self.listens(), 'P'),
            (queued.load(Ordering::Relaxed) > 0, 'x'),
            (blocked.load(Ordering::Relaxed) > 0, 'b'),
            (self.read_only, 'r'),
            (self.no_evict, 'e'),
            (self.no_touch, 'T'),
        ];
        let text: String = flags.iter().filter(|(is_set, _)| *is_set).map(|(_, it)| it).collect();
        if text.is_empty() { "N".to_owned() } else { text }
    }

    /// With Redis' fields in Redis' order. The file descriptor and the sizes of other buffers than
    /// the one that is read into are 0: nobody counts them.
    fn line(&self, id: u64, command: Option<&str>) -> String {
        let ClientInfo { address, local_address, name, library_name, library_version, .. } = self;
        let ClientInfo { db, protocol, .. } = self;
        let (age, flags) = (self.age_s(), self.flags());
        let (received, room) =
            self.connection.as_ref().map_or((0, 0), |connection| connection.input_bytes());
        let idle = self.connection.as_ref().map_or(0, |connection| connection.idle().as_secs());
        let (names, patterns) = self.signals.mailbox.counts();
        let multi = self.signals.queued.load(Ordering::Relaxed) as i64 - 1;
        let last = self.signals.last.load(Ordering::Relaxed);
        let last = last.checked_sub(1).and_then(table::at).map_or("NULL", |spec| spec.name);
        let command = command.unwrap_or(last);
        let total = received + room;
        format!(
            "id={id} addr={address} laddr={local_address} fd=0 name={name} age={age} idle={idle} \
             flags={flags} db={db} sub={names} psub={patterns} ssub=0 multi={multi} qbuf={received} qbuf-free={room} \
             argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem={total} events=r \
             cmd={command} user=default redir=-1 resp={protocol} lib-name={library_name} \
             lib-ver={library_version}\n"
        )
    }
}
