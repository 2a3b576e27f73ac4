//! Which clients are connected, and how to part from them.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use atomic_waker::AtomicWaker;
use bytes::Bytes;
use parking_lot::Mutex;
use rustix::net::{Shutdown, shutdown};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;

use super::room_ahead::RoomsAhead;

const STAY: u8 = 0;
const FINISH: u8 = 1;
const KILL: u8 = 2;

/// One connected client: what its session and everybody else know about it.
#[derive(Debug)]
pub struct Client {
    id: u64,
    address: SocketAddr,
    created: Instant,
    /// By [`coarse_ms`].
    last_used_ms: AtomicU64,
    name: Mutex<Bytes>,
    readonly: AtomicBool,
    /// STAY, FINISH or KILL; only grows.
    leaving: AtomicU8,
    /// Something waits for it that it did not ask for just now.
    called: AtomicBool,
    /// Bytes received that are not handled yet.
    received_bytes: AtomicUsize,
    /// Room for more that is kept.
    room_bytes: AtomicUsize,
    /// Its connection shall keep no more room than it needs, until it says something.
    told_to_rest: AtomicBool,
    /// Of the connection's task, while it waits.
    waiting: AtomicWaker,
    /// Its socket, while its task may stand still and others must be able to close it.
    socket: Mutex<Option<OwnedFd>>,
}

impl Client {
    /// Unique while this process lives, from 1, growing.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Where it connected from.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How long it has been connected.
    pub fn age(&self) -> Duration {
        self.created.elapsed()
    }

    /// How long ago its last request came.
    pub fn idle(&self) -> Duration {
        let last_used_ms = self.last_used_ms.load(Ordering::Relaxed);
        // The coarse clock is a little behind the other.
        Duration::from_millis(coarse_ms().saturating_sub(last_used_ms)).min(self.age())
    }

    /// As given by CLIENT SETNAME; empty: none.
    pub fn name(&self) -> Bytes {
        self.name.lock().clone()
    }

    /// See [`Client::name`].
    pub fn set_name(&self, name: Bytes) {
        *self.name.lock() = name;
    }

    /// In READONLY mode, or waiting for events: it may stay when this node is not the master.
    pub fn is_readonly(&self) -> bool {
        self.readonly.load(Ordering::Relaxed)
    }

    /// See [`Client::is_readonly`].
    pub fn set_readonly(&self, readonly: bool) {
        self.readonly.store(readonly, Ordering::Relaxed);
    }

    /// Ends the connection once what was begun is answered; requests not begun are dropped.
    pub fn finish(&self) {
        self.leave(FINISH);
    }

    /// Ends the connection now, with whatever is pending.
    pub fn kill(&self) {
        self.leave(KILL);
    }

    /// From now on [`Client::hang_up`] has something to close, or has not.
    pub(super) fn keep_socket(&self, socket: Option<OwnedFd>) {
        *self.socket.lock() = socket;
    }

    /// Closes the connection, if its socket is kept here: whatever its task is doing, nothing more is
    /// sent or received, and nothing more of what came is handled. Whether it was kept.
    pub fn hang_up(&self) -> bool {
        let Some(socket) = self.socket.lock().take() else { return false };
        self.kill();
        // It may be closed already.
        let _ = shutdown(socket, Shutdown::Both);
        true
    }

    fn leave(&self, how: u8) {
        self.leaving.fetch_max(how, Ordering::SeqCst);
        self.waiting.wake();
    }

    /// Has its handler asked for what waits for it.
    pub fn call(&self) {
        self.called.store(true, Ordering::SeqCst);
        self.waiting.wake();
    }

    /// Whether it was called since last asked.
    pub(super) fn take_call(&self) -> bool {
        self.called.load(Ordering::Relaxed) && self.called.swap(false, Ordering::SeqCst)
    }

    /// Bytes received that are not handled yet, and the room for more.
    pub fn input_bytes(&self) -> (usize, usize) {
        (self.received_bytes.load(Ordering::Relaxed), self.room_bytes.load(Ordering::Relaxed))
    }

    /// See [`Client::input_bytes`]. Only the connection itself calls it.
    pub(super) fn set_input_bytes(&self, received: usize, room: usize) {
        self.received_bytes.store(received, Ordering::Relaxed);
        self.room_bytes.store(room, Ordering::Relaxed);
    }

    /// Has its connection give back the room that it keeps for more bytes.
    pub(super) fn rest(&self) {
        self.told_to_rest.store(true, Ordering::SeqCst);
        self.call();
    }

    /// Whether it was told to rest since last asked.
    pub(super) fn take_rest(&self) -> bool {
        self.told_to_rest.swap(false, Ordering::SeqCst)
    }

    pub(super) fn must_finish(&self) -> bool {
        self.leaving.load(Ordering::SeqCst) >= FINISH
    }

    /// Waits for [`Client::finish`], [`Client::kill`] or [`Client::call`]. Only the connection itself
    /// calls it.
    pub(super) async fn told(&self) {
        self.until(|| self.must_finish() || self.called.load(Ordering::SeqCst)).await;
    }

    /// Waits for [`Client::kill`]. Only the connection itself calls it.
    pub(super) async fn killed(&self) {
        self.until(|| self.leaving.load(Ordering::SeqCst) >= KILL).await;
    }

    async fn until(&self, happened: impl Fn() -> bool) {
        poll_fn(|context| {
            // In this order: what happens between the two wakes us.
            self.waiting.register(context.waker());
            if happened() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    pub(super) fn touch(&self) {
        self.last_used_ms.store(coarse_ms(), Ordering::Relaxed);
    }
}

/// Some milliseconds exact, and cheaper to look at than an [`Instant`].
fn coarse_ms() -> u64 {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// All connected clients.
#[derive(Debug)]
pub struct ClientRegistry {
    clients_max: AtomicUsize,
    /// Who found no room.
    refused: AtomicU64,
    clients: Mutex<BTreeMap<u64, Arc<Client>>>,
    next_id: AtomicU64,
    removed: Notify,
    rooms_ahead: Arc<RoomsAhead>,
}

impl ClientRegistry {
    /// With room for that many.
    pub fn new(clients_max: usize) -> ClientRegistry {
        ClientRegistry {
            clients_max: AtomicUsize::new(clients_max),
            refused: AtomicU64::new(0),
            clients: Mutex::default(),
            next_id: AtomicU64::new(1),
            removed: Notify::new(),
            rooms_ahead: Arc::default(),
        }
    }

    /// Adds a client; `None`: there is no room. The entry goes when the [`Registration`] is
    /// dropped.
    pub fn register(self: &Arc<Self>, address: SocketAddr) -> Option<Registration> {
        let mut clients = self.clients.lock();
        if clients.len() >= self.clients_max() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let client = Arc::new(Client {
            id,
            address,
            created: Instant::now(),
            last_used_ms: AtomicU64::new(coarse_ms()),
            name: Mutex::default(),
            readonly: AtomicBool::new(false),
            leaving: AtomicU8::new(STAY),
            called: AtomicBool::new(false),
            received_bytes: AtomicUsize::new(0),
            room_bytes: AtomicUsize::new(0),
            told_to_rest: AtomicBool::new(false),
            waiting: AtomicWaker::new(),
            socket: Mutex::new(None),
        });
        clients.insert(id, Arc::clone(&client));
        Some(Registration { registry: Arc::clone(self), client })
    }

    /// How many may be connected.
    pub fn clients_max(&self) -> usize {
        self.clients_max.load(Ordering::Relaxed)
    }

    /// From now on; who is connected stays.
    pub fn set_clients_max(&self, clients_max: usize) {
        self.clients_max.store(clients_max, Ordering::Relaxed);
    }

    /// How many were turned away for want of room.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How many are connected.
    pub fn count(&self) -> usize {
        self.clients.lock().len()
    }

    /// Everyone, oldest first.
    pub fn list(&self) -> Vec<Arc<Client>> {
        self.clients.lock().values().cloned().collect()
    }

    /// That client, if it is connected.
    pub fn get(&self, id: u64) -> Option<Arc<Client>> {
        self.clients.lock().get(&id).cloned()
    }

    /// Ends the connections that the filter picks, each once what it began is answered. Returns how
    /// many.
    pub fn close_clients(&self, filter: impl Fn(&Client) -> bool) -> usize {
        let picked: Vec<_> = self.list().into_iter().filter(|client| filter(client)).collect();
        for client in &picked {
            client.finish();
        }
        picked.len()
    }

    /// Waits until nobody is connected.
    pub async fn wait_until_empty(&self) {
        loop {
            let removed = self.removed.notified();
            if self.count() == 0 {
                return;
            }
            removed.await;
        }
    }
}

/// A client's place in the registry.
#[derive(Debug)]
pub struct Registration {
    registry: Arc<ClientRegistry>,
    client: Arc<Client>,
}

impl Registration {
    /// Whose it is.
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Of all connections.
    pub fn rooms_ahead(&self) -> &Arc<RoomsAhead> {
        &self.registry.rooms_ahead
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.clients.lock().remove(&self.client.id);
        self.registry.removed.notify_waiters();
    }
}
