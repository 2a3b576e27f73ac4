//! Why a connection is in one of the places (`server/places.rs`) and when it goes to another.
//!
//! Of each turn it is said what it asks for; whoever asks for little many times in a row goes where
//! little is done, and leaves before anything else is handled. Reads are also measured: what looks
//! short may be answered from a disk, or with much.

use std::collections::VecDeque;
use std::time::Duration;

use resp::Request;

use super::places::Place;
use crate::command::connection::Connection;
use crate::command::table::{self, Kind, Spec};

/// So many turns in a row are of a kind before a connection goes where that kind is done, the first time
const FIRST_TURNS_BEFORE: u32 = 8;
/// and once it has moved, or found no seat: to go from place to place costs more than a turn.
const TURNS_BEFORE: u32 = 64;
/// The most requests of a turn of small updates,
const UPDATES_MAX: usize = 4;
/// and of a short turn: with more than two the workers are faster.
const SHORT_REQUESTS_MAX: usize = 2;
/// The most bytes of the arguments of either.
const BYTES_MAX: usize = 1 << 10;

/// The most arguments of all that a turn of small updates asks for,
const UPDATE_ARGUMENTS_MAX: usize = 64;
/// and of each short read, its name included: two of the largest values are less than what is read
/// apart from the others (`server/long_reads.rs`).
const READ_ARGUMENTS_MAX: usize = 3;

/// A short turn is handled in less,
const SHORT_TURN: Duration = Duration::from_micros(100);
/// and its replies are not more than this.
const SHORT_REPLY_BYTES: usize = 16 << 10;
/// A turn that just is not short after all is forgotten after so many that are, which take about as
/// long; one that is n times as long, or answers n times as much, after n times as many.
const LONG_TURN_WEIGHT: u32 = 16;
/// Who has more than this that is not forgotten leaves.
const LONG_TURNS_MAX: u32 = 2 * LONG_TURN_WEIGHT;

/// Updates that are encoded and submitted. No value is looked at before, which may be on a disk, and
/// none is in the reply.
const UPDATES: [&[u8]; 10] = [
    b"SET", b"MSET", b"DEL", b"INCR", b"DECR", b"INCRBY", b"DECRBY", b"SETEX", b"PSETEX", b"SETNX",
];

/// What a turn asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// A little work before something is submitted, and none else.
    SmallUpdates,
    /// One or two reads that Redis calls fast, of a key or two.
    Short,
    /// Anything else.
    Any,
}

impl Turn {
    fn of(requests: &VecDeque<Request>) -> Turn {
        let few = requests.len() <= UPDATES_MAX
            && requests.iter().map(Request::byte_count).sum::<usize>() <= BYTES_MAX;
        let arguments = || requests.iter().map(|request| request.arguments.len()).sum::<usize>();
        if !few || arguments() > UPDATE_ARGUMENTS_MAX {
            return Turn::Any;
        }
        if requests.iter().all(is_update) {
            return Turn::SmallUpdates;
        }
        match requests.len() <= SHORT_REQUESTS_MAX && requests.iter().all(is_short) {
            true => Turn::Short,
            false => Turn::Any,
        }
    }
}

fn is_update(request: &Request) -> bool {
    let is = |word: &[u8], name: &[u8]| word.eq_ignore_ascii_case(name);
    let asks_for_value = is(request.name(), b"SET")
        && request.arguments.iter().skip(3).any(|option| is(option, b"GET"));
    !asks_for_value && UPDATES.iter().any(|name| is(request.name(), name))
}

fn is_short(request: &Request) -> bool {
    if request.arguments.len() > READ_ARGUMENTS_MAX {
        return false;
    }
    let is_fast_read = |spec: &Spec| match spec.kind {
        Kind::Read(_) => spec.flags.contains(&"fast"),
        Kind::Connection(Connection::Ping) => true,
        _ => false,
    };
    table::find(request.name()).is_some_and(is_fast_read)
}

/// Whether so many bytes of one request are received and decoded beside the driver.
pub fn is_little(bytes: usize) -> bool {
    bytes <= BYTES_MAX
}

/// Where one connection is, and why it may go.
#[derive(Debug)]
pub struct Residence {
    place: Place,
    /// Turns in a row that were small updates,
    updates: u32,
    /// and that were short.
    short: u32,
    /// See [`LONG_TURN_WEIGHT`].
    long: u32,
    /// See [`FIRST_TURNS_BEFORE`].
    turns_before: u32,
}

impl Default for Residence {
    fn default() -> Residence {
        let turns_before = FIRST_TURNS_BEFORE;
        Residence { place: Place::Workers, updates: 0, short: 0, long: 0, turns_before }
    }
}

impl Residence {
    /// Where these are to be handled. To be asked once a turn. `short_turns_are_open`: see
    /// [`super::places::Places::short_turns_are_open`].
    pub fn place_for(&mut self, requests: &VecDeque<Request>, short_turns_are_open: bool) -> Place {
        let turn = Turn::of(requests);
        self.count(turn);
        let may_be_short = short_turns_are_open && self.long <= LONG_TURNS_MAX;
        match (self.place, turn) {
            (Place::BesideDriver, Turn::SmallUpdates) => Place::BesideDriver,
            (_, Turn::SmallUpdates) if self.updates > self.turns_before => Place::BesideDriver,
            (Place::ShortTurns, Turn::Short) if may_be_short => Place::ShortTurns,
            (_, Turn::Short) if may_be_short && self.short > self.turns_before => Place::ShortTurns,
            _ => Place::Workers,
        }
    }

    fn count(&mut self, turn: Turn) {
        let (updates, short) = (self.updates.saturating_add(1), self.short.saturating_add(1));
        (self.updates, self.short) = match turn {
            Turn::SmallUpdates => (updates, 0),
            Turn::Short => (0, short),
            Turn::Any => (0, 0),
        };
        self.long = self.long.saturating_sub(1);
    }

    /// Whether it matters how long its turns are, and [`Residence::handled`] is to be called.
    pub fn is_measured(&self) -> bool {
        self.place == Place::ShortTurns || (self.place == Place::Workers && self.short > 0)
    }

    /// What was handled took so long, and was answered with so much.
    pub fn handled(&mut self, took: Duration, reply_bytes: usize) {
        let times = took.div_duration_f32(SHORT_TURN);
        let times = times.max(reply_bytes as f32 / SHORT_REPLY_BYTES as f32);
        if times <= 1.0 {
            return;
        }
        match self.place {
            Place::Workers => self.short = 0,
            _ => self.long = self.long.saturating_add((times * LONG_TURN_WEIGHT as f32) as u32),
        }
    }

    /// Where it is.
    pub fn place(&self) -> Place {
        self.place
    }

    /// It is there from now on, or stays there for a while.
    pub fn settles_in(&mut self, place: Place) {
        *self = Residence { place, turns_before: TURNS_BEFORE, ..Residence::default() };
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const QUICK: Duration = Duration::from_micros(2);

    fn requests(all: &[&[&str]]) -> VecDeque<Request> {
        let request = |words: &&[&str]| Request {
            arguments: words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect(),
        };
        all.iter().map(request).collect()
    }

    fn times(residence: &mut Residence, count: u32, requests: &VecDeque<Request>, place: Place) {
        for turn in 0..count {
            assert_eq!(residence.place_for(requests, true), place, "turn {turn}");
            residence.handled(QUICK, 100);
        }
    }

    #[test]
    fn what_a_turn_asks_for() {
        let large = "v".repeat(BYTES_MAX);
        let turn = |all: &[&[&str]]| Turn::of(&requests(all));
        assert_eq!(turn(&[&["set", "k", "v"], &["DEL", "k"]]), Turn::SmallUpdates);
        assert_eq!(turn(&[&["ttl", "k"]]), Turn::Short);
        assert_eq!(turn(&[&["GET", "k"], &["PING"]]), Turn::Short);
        assert_eq!(turn(&[&["mget", "k", "l"]]), Turn::Short);
        for other in [
            &[&["GET", "k"][..]; SHORT_REQUESTS_MAX + 1][..],
            &[&["INCR", "k"][..]; UPDATES_MAX + 1][..],
            &[&["SET", "k", "v"], &["GET", "k"]],
            &[&["EXEC"][..]][..],
            &[&["MGET", "k", "l", "m"]],
            &[&["WATCH", "k"]],
            &[&["DEL"; UPDATE_ARGUMENTS_MAX + 1]],
            &[&["LPUSH", "k", "f"]],
            &[&["LRANGE", "k", "0", "-1"]],
            &[&["nothing"]],
            &[&["SET", "k", &large]],
            &[&["GET", &large]],
            &[&["SET", "k", "v", "nx", "get"]],
        ] {
            assert_eq!(turn(other), Turn::Any, "{other:?}");
        }
    }

    #[test]
    fn a_client_that_only_updates_goes_to_the_driver_and_leaves_when_it_reads() {
        let (update, read) = (requests(&[&["SET", "k", "v"]]), requests(&[&["GET", "k"]]));
        let mut residence = Residence::default();
        times(&mut residence, FIRST_TURNS_BEFORE, &update, Place::Workers);
        times(&mut residence, 1, &read, Place::Workers);
        times(&mut residence, FIRST_TURNS_BEFORE, &update, Place::Workers);
        times(&mut residence, 1, &update, Place::BesideDriver);
        residence.settles_in(Place::BesideDriver);
        times(&mut residence, 2, &update, Place::BesideDriver);
        times(&mut residence, 1, &read, Place::Workers);
        // It takes longer the next time.
        residence.settles_in(Place::Workers);
        times(&mut residence, TURNS_BEFORE, &update, Place::Workers);
        times(&mut residence, 1, &update, Place::BesideDriver);
    }

    #[test]
    fn short_reads_go_to_their_thread_and_leave_before_anything_else() {
        let (read, update) = (requests(&[&["GET", "k"]]), requests(&[&["SET", "k", "v"]]));
        let mut residence = Residence::default();
        times(&mut residence, FIRST_TURNS_BEFORE, &read, Place::Workers);
        times(&mut residence, 1, &read, Place::ShortTurns);
        for other in [update, requests(&[&["GET", "k"][..]; 3]), requests(&[&["KEYS", "*"]])] {
            residence.settles_in(Place::ShortTurns);
            times(&mut residence, 100, &read, Place::ShortTurns);
            times(&mut residence, 1, &other, Place::Workers);
            residence.settles_in(Place::Workers);
            times(&mut residence, TURNS_BEFORE, &read, Place::Workers);
        }
        residence.settles_in(Place::ShortTurns);
        assert_eq!(residence.place_for(&read, false), Place::Workers, "it is closed");
    }

    #[test]
    fn reads_that_are_long_after_all_leave_that_thread() {
        let read = requests(&[&["GET", "k"]]);
        let mut residence = Residence::default();
        for (took, reply_bytes) in [(SHORT_TURN * 2, 0), (QUICK, SHORT_REPLY_BYTES * 2)] {
            residence.settles_in(Place::ShortTurns);
            for _ in 0..100 {
                residence.handled(took, reply_bytes);
                times(&mut residence, 2 * LONG_TURN_WEIGHT, &read, Place::ShortTurns);
            }
            // More often than that.
            residence.handled(took, reply_bytes);
            residence.handled(took, reply_bytes);
            times(&mut residence, 1, &read, Place::Workers);
            residence.settles_in(Place::Workers);
            times(&mut residence, TURNS_BEFORE, &read, Place::Workers);
            residence.handled(took, reply_bytes);
            times(&mut residence, TURNS_BEFORE, &read, Place::Workers);
            times(&mut residence, 1, &read, Place::ShortTurns);
        }
        for (took, reply_bytes) in [(SHORT_TURN * 3, 0), (QUICK, SHORT_REPLY_BYTES * 3)] {
            residence.settles_in(Place::ShortTurns);
            residence.handled(took, reply_bytes);
            times(&mut residence, 1, &read, Place::Workers);
        }
    }
}
