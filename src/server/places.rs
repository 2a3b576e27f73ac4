//! Where the tasks of connections run: on Tokio's workers, or beside the driver.
//!
//! A client that does nothing but small updates costs least on the driver's own thread: no other thread
//! has to be woken to take its updates or to hand out their outcomes, and while the driver waits for the
//! disk its requests gather in their sockets, without waking anybody. On two processors that gave a
//! fifth. Everything else stays with the workers, since whatever takes long beside the driver would keep
//! it from its heartbeats: a connection goes back before it does anything but submit a small update.
//!
//! With more processors than [`PROCESSORS_MAX`] nobody goes to the driver: one thread would have to do
//! for all of them, and it was not measured.

use std::collections::VecDeque;
use std::thread;

use resp::Request;
use tokio::runtime::Handle;

/// See above.
const PROCESSORS_MAX: usize = 2;
/// So many turns in a row have to be small updates before a connection goes to the driver.
const TURNS_BEFORE: u32 = 64;
/// The most requests of one turn there,
const REQUESTS_MAX: usize = 4;
/// and the most bytes of their arguments.
const BYTES_MAX: usize = 1 << 10;

/// Updates that are encoded and submitted, and read nothing before.
const UPDATES: [&[u8]; 14] = [
    b"SET", b"MSET", b"DEL", b"INCR", b"DECR", b"INCRBY", b"DECRBY", b"APPEND", b"SETEX",
    b"PSETEX", b"SETNX", b"GETSET", b"EXPIRE", b"PEXPIRE",
];

/// Whether all that these ask for is a little work before it is submitted.
pub fn are_small_updates(requests: &VecDeque<Request>) -> bool {
    let is_update =
        |request: &Request| UPDATES.iter().any(|name| request.name().eq_ignore_ascii_case(name));
    requests.len() <= REQUESTS_MAX
        && requests.iter().all(is_update)
        && requests.iter().map(Request::byte_count).sum::<usize>() <= BYTES_MAX
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
}

impl Places {
    /// `None` where all connections stay with the workers.
    pub fn of_this_machine(workers: Handle, beside_driver: Handle) -> Option<Places> {
        let processors = thread::available_parallelism().map_or(usize::MAX, |it| it.get());
        (processors <= PROCESSORS_MAX).then(|| Places::new(workers, beside_driver))
    }

    /// However many processors there are.
    pub fn new(workers: Handle, beside_driver: Handle) -> Places {
        Places { workers, beside_driver }
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
    /// With the workers: turns in a row that were small updates and were submitted.
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
        match are_small_updates(requests) {
            true if self.place == Place::BesideDriver || self.turns >= TURNS_BEFORE => {
                Place::BesideDriver
            }
            true => Place::Workers,
            false => {
                self.turns = 0;
                Place::Workers
            }
        }
    }

    /// Something was submitted in this turn.
    pub fn submitted(&mut self) {
        self.turns = self.turns.saturating_add(1);
    }

    /// Where it is.
    pub fn place(&self) -> Place {
        self.place
    }

    /// It is there from now on.
    pub fn moved_to(&mut self, place: Place) {
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
                residence.submitted();
            }
        };
        updates(&mut residence, TURNS_BEFORE);
        assert_eq!(residence.place_for(&read), Place::Workers, "reads begin the count anew");
        updates(&mut residence, TURNS_BEFORE);
        assert_eq!(residence.place_for(&requests(&[&["SET", "k", "v"]])), Place::BesideDriver);
        residence.moved_to(Place::BesideDriver);
        assert_eq!(residence.place_for(&requests(&[&["DEL", "k"]])), Place::BesideDriver);
        assert_eq!(residence.place_for(&read), Place::Workers);
        residence.moved_to(Place::Workers);
        updates(&mut residence, 1);
    }
}
