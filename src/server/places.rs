//! Where the tasks of connections run: on Tokio's workers, or beside the driver.
//!
//! A client that does nothing but small updates costs least on the driver's own thread: no other thread
//! has to be woken to take its updates or to hand out their outcomes, and while the driver waits for the
//! disk its requests gather in their sockets, without waking anybody. On two processors that gave a
//! quarter. Everything else stays with the workers, since whatever takes long beside the driver would keep
//! it from its heartbeats: a connection goes back before it does anything but submit a small update.
//!
//! With more processors than two nobody goes to the driver: one thread would have to do
//! for all of them, and it was not measured.
//!
//! When the driver stands still, so do they. Somebody else must then be able to close them: so the
//! socket of each is kept a second time, by its [`Client`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use resp::Request;
use tokio::runtime::Handle;

use super::registry::Client;

/// See above.
const PROCESSORS_MAX: usize = 2;
/// So many turns in a row have to be small updates before a connection goes to the driver.
const TURNS_BEFORE: u32 = 64;
/// The most requests of one turn there,
const REQUESTS_MAX: usize = 4;
/// and the most bytes of their arguments.
const BYTES_MAX: usize = 1 << 10;

/// Connections there at most: what the other nodes are sent waits for all that are ready.
const SEATS_MAX: usize = 512;
/// They are one in so many of all clients at most, since each takes two open files.
const SEATS_PART: usize = 16;

/// Of so many clients, how many may be there.
pub fn seats_for(clients_max: usize) -> usize {
    SEATS_MAX.min(clients_max / SEATS_PART)
}

/// Updates that are encoded and submitted. No value is looked at before, which may be on a disk, and
/// none is in the reply.
const UPDATES: [&[u8]; 10] = [
    b"SET", b"MSET", b"DEL", b"INCR", b"DECR", b"INCRBY", b"DECRBY", b"SETEX", b"PSETEX", b"SETNX",
];

/// Whether all that these ask for is a little work before it is submitted.
pub fn are_small_updates(requests: &VecDeque<Request>) -> bool {
    requests.len() <= REQUESTS_MAX
        && requests.iter().all(is_update)
        && requests.iter().map(Request::byte_count).sum::<usize>() <= BYTES_MAX
}

fn is_update(request: &Request) -> bool {
    let is = |word: &[u8], name: &[u8]| word.eq_ignore_ascii_case(name);
    let asks_for_value = is(request.name(), b"SET")
        && request.arguments.iter().skip(3).any(|option| is(option, b"GET"));
    !asks_for_value && UPDATES.iter().any(|name| is(request.name(), name))
}

/// Whether so many bytes of one request are received and decoded there.
pub fn is_little(bytes: usize) -> bool {
    bytes <= BYTES_MAX
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Tokio's worker threads.
    Workers,
    /// The driver's thread.
    BesideDriver,
}

/// Both.
#[derive(Clone, Debug)]
pub struct Places {
    workers: Handle,
    beside_driver: Handle,
    /// Nobody sits there.
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
    /// `None` where all connections stay with the workers.
    pub fn of_this_machine(
        workers: Handle,
        beside_driver: Handle,
        clients_max: usize,
    ) -> Option<Places> {
        let processors = thread::available_parallelism().map_or(usize::MAX, |it| it.get());
        let seats = seats_for(clients_max);
        (processors <= PROCESSORS_MAX).then(|| Places::new(workers, beside_driver, seats))
    }

    /// However many processors there are, with so many seats beside the driver.
    pub fn new(workers: Handle, beside_driver: Handle, seats: usize) -> Places {
        Places { workers, beside_driver, free: Arc::new(AtomicUsize::new(seats)) }
    }

    /// A seat beside the driver, if one is free.
    pub fn seat(&self, client: &Arc<Client>) -> Option<Seat> {
        let take = |free: usize| free.checked_sub(1);
        self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(Seat { client: client.clone(), free: self.free.clone() })
    }

    /// Tokio's runtime there.
    pub fn runtime(&self, place: Place) -> &Handle {
        match place {
            Place::Workers => &self.workers,
            Place::BesideDriver => &self.beside_driver,
        }
    }
}

/// Where one connection is, and why it may go.
#[derive(Debug)]
pub struct Residence {
    place: Place,
    /// With the workers: turns in a row that were small updates.
    turns: u32,
}

impl Default for Residence {
    fn default() -> Residence {
        Residence { place: Place::Workers, turns: 0 }
    }
}

impl Residence {
    /// Where these are to be handled. To be asked once a turn.
    pub fn place_for(&mut self, requests: &VecDeque<Request>) -> Place {
        if !are_small_updates(requests) {
            self.turns = 0;
            return Place::Workers;
        }
        self.turns = self.turns.saturating_add(1);
        match self.place == Place::BesideDriver || self.turns > TURNS_BEFORE {
            true => Place::BesideDriver,
            false => Place::Workers,
        }
    }

    /// Where it is.
    pub fn place(&self) -> Place {
        self.place
    }

    /// It is there from now on, or stays there for a while.
    pub fn settles_in(&mut self, place: Place) {
        *self = Residence { place, turns: 0 };
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn requests(all: &[&[&str]]) -> VecDeque<Request> {
        let request = |words: &&[&str]| Request {
            arguments: words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect(),
        };
        all.iter().map(request).collect()
    }

    #[test]
    fn only_small_updates_are_done_beside_the_driver() {
        let large = "v".repeat(BYTES_MAX);
        assert!(are_small_updates(&requests(&[&["set", "k", "v"], &["DEL", "k"]])));
        for other in [
            requests(&[&["SET", "k", "v"], &["GET", "k"]]),
            requests(&[&["EXEC"]]),
            requests(&[&["SET", "k", &large]]),
            requests(&[&["SET", "k", "v", "nx", "get"]]),
            (0..=REQUESTS_MAX).flat_map(|_| requests(&[&["INCR", "k"]])).collect(),
        ] {
            assert!(!are_small_updates(&other), "{} requests", other.len());
        }
    }

    #[test]
    fn a_client_that_only_updates_goes_to_the_driver_and_back_when_it_reads() {
        let (update, read) = (requests(&[&["SET", "k", "v"]]), requests(&[&["GET", "k"]]));
        let mut residence = Residence::default();
        let updates = |residence: &mut Residence, count: u32| {
            for turn in 0..count {
                assert_eq!(residence.place_for(&update), Place::Workers, "turn {turn}");
            }
        };
        updates(&mut residence, TURNS_BEFORE);
        assert_eq!(residence.place_for(&read), Place::Workers, "reads begin the count anew");
        updates(&mut residence, TURNS_BEFORE);
        assert_eq!(residence.place_for(&requests(&[&["SET", "k", "v"]])), Place::BesideDriver);
        residence.settles_in(Place::BesideDriver);
        assert_eq!(residence.place_for(&requests(&[&["DEL", "k"]])), Place::BesideDriver);
        assert_eq!(residence.place_for(&read), Place::Workers);
        residence.settles_in(Place::Workers);
        updates(&mut residence, 1);
    }
}
