//! Where the tasks of connections run: on Tokio's workers, on the thread for short turns, or beside the
//! driver.
//!
//! On a machine with two processors the workers cost more than they give as long as what is asked for
//! is little: one wakes the other for every few requests, and clients on the same machine want a
//! processor for themselves. So clients whose turns are short share one thread
//! (`server/short_turns.rs`); long turns, as those of clients that pipeline, are worth several.
//!
//! A client that does nothing but small updates costs least on the driver's own thread: no other thread
//! has to be woken to take its updates or to hand out their outcomes, and while the driver waits for the
//! disk its requests gather in their sockets, without waking anybody. Everything else stays away from
//! there, since whatever takes long beside the driver would keep it from its heartbeats: a connection
//! leaves before it does anything but submit a small update.
//!
//! With more processors than two everybody stays with the workers: one thread would have to do
//! for all, and it was not measured.
//!
//! When the driver stands still, so do those beside it. Somebody else must then be able to close them:
//! so the socket of each is kept a second time, by its [`Client`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::Handle;

use super::registry::Client;

/// See above.
const PROCESSORS_MAX: usize = 2;
/// Connections beside the driver at most: what the other nodes are sent waits for all that are ready.
const SEATS_MAX: usize = 512;
/// They are one in so many of all clients at most, since each takes two open files.
const SEATS_PART: usize = 16;

/// Of so many clients, how many may be there.
pub fn seats_for(clients_max: usize) -> usize {
    SEATS_MAX.min(clients_max / SEATS_PART)
}

/// One of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Tokio's worker threads.
    Workers,
    /// One thread for all whose turns are short.
    ShortTurns,
    /// The driver's thread.
    BesideDriver,
}

/// All of them.
#[derive(Clone, Debug)]
pub struct Places {
    workers: Handle,
    short_turns: Handle,
    beside_driver: Handle,
    /// One thread does for all whose turns are short.
    short_turns_are_open: Arc<AtomicBool>,
    /// Nobody sits there, beside the driver.
    free: Arc<AtomicUsize>,
}

/// One connection's place beside the driver; free again when this is dropped.
#[derive(Debug)]
pub struct Seat {
    client: Arc<Client>,
    free: Arc<AtomicUsize>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.client.keep_socket(None);
        self.free.fetch_add(1, Ordering::Relaxed);
    }
}

impl Places {
    /// Whether connections should go anywhere but to the workers on this machine.
    pub fn are_of_use() -> bool {
        thread::available_parallelism().is_ok_and(|it| it.get() <= PROCESSORS_MAX)
    }

    /// These, with so many seats beside the driver.
    pub fn new(
        workers: Handle,
        short_turns: Handle,
        beside_driver: Handle,
        seats: usize,
    ) -> Places {
        let short_turns_are_open = Arc::new(AtomicBool::new(true));
        let free = Arc::new(AtomicUsize::new(seats));
        Places { workers, short_turns, beside_driver, short_turns_are_open, free }
    }

    /// A seat beside the driver, if one is free.
    pub fn seat(&self, client: &Arc<Client>) -> Option<Seat> {
        let take = |free: usize| free.checked_sub(1);
        self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(Seat { client: client.clone(), free: self.free.clone() })
    }

    /// Whether connections may be on the thread for short turns.
    pub fn short_turns_are_open(&self) -> bool {
        self.short_turns_are_open.load(Ordering::Relaxed)
    }

    /// Says so.
    pub fn open_short_turns(&self, open: bool) {
        self.short_turns_are_open.store(open, Ordering::Relaxed);
    }

    /// Tokio's runtime there.
    pub fn runtime(&self, place: Place) -> &Handle {
        match place {
            Place::Workers => &self.workers,
            Place::ShortTurns => &self.short_turns,
            Place::BesideDriver => &self.beside_driver,
        }
    }
}
