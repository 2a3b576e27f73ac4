//! What commands were run, how often, for how long, and what they were refused with.
//!
//! A command's numbers are atomics at its place in the command table, so that counting needs no
//! lock; sessions add a run of equal commands at once. Errors are counted under a lock: they are
//! rare, and told apart by their first word.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::histogram::Histogram;
use crate::command::table;

/// Different first words of errors that are counted; the rest only in the total.
const ERROR_WORDS_MAX: usize = 128;

/// The numbers of one command.
#[derive(Debug, Default)]
struct Place {
    calls: AtomicU64,
    us: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
    /// Made at the first call: most commands are never called.
    histogram: OnceLock<Box<Histogram>>,
}

/// The numbers of one command that was called or refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandCount {
    /// How often it was run.
    pub calls: u64,
    /// How long that took in total.
    pub us: u64,
    /// How often it was refused before it was run.
    pub rejected: u64,
    /// How often it answered an error.
    pub failed: u64,
}

/// Numbers since the node began, or since CONFIG RESETSTAT.
#[derive(Debug)]
pub struct Counters {
    places: Box<[Place]>,
    errors: Mutex<BTreeMap<String, u64>>,
    errors_total: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    reads: AtomicU64,
    writes: AtomicU64,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            places: (0..table::places()).map(|_| Place::default()).collect(),
            errors: Mutex::default(),
            errors_total: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
        }
    }
}

fn add(to: &AtomicU64, more: u64) {
    to.fetch_add(more, Ordering::Relaxed);
}

fn get(from: &AtomicU64) -> u64 {
    from.load(Ordering::Relaxed)
}

impl Counters {
    /// `calls` of the command at a place were run, in `us` together. `timed`: each as long as the
    /// others, to be shown as latency.
    pub(super) fn ran(&self, place: usize, calls: u64, us: u64, timed: bool) {
        let at = &self.places[place];
        add(&at.calls, calls);
        add(&at.us, us);
        if timed && calls > 0 {
            at.histogram.get_or_init(Box::default).add(us / calls, calls);
        }
    }

    /// A command was refused before it was run.
    pub(super) fn rejected(&self, place: usize) {
        add(&self.places[place].rejected, 1);
    }

    /// A command that was run answered an error.
    pub(super) fn failed(&self, place: usize) {
        add(&self.places[place].failed, 1);
    }

    /// An error was answered.
    pub(super) fn error(&self, text: &str) {
        add(&self.errors_total, 1);
        let word = text.split(' ').next().unwrap_or_default();
        let mut errors = self.errors.lock();
        if let Some(count) = errors.get_mut(word) {
            *count += 1;
        } else if errors.len() < ERROR_WORDS_MAX {
            errors.insert(word.to_owned(), 1);
        }
    }

    /// Reads found so many keys, and missed so many.
    pub(super) fn looked_up(&self, hits: u64, misses: u64) {
        if hits > 0 {
            add(&self.hits, hits);
        }
        if misses > 0 {
            add(&self.misses, misses);
        }
    }

    /// Bytes came from a client.
    pub fn read(&self, bytes: usize) {
        add(&self.bytes_read, bytes as u64);
        add(&self.reads, 1);
    }

    /// Bytes went to a client.
    pub fn wrote(&self, bytes: usize) {
        add(&self.bytes_written, bytes as u64);
        add(&self.writes, 1);
    }

    /// Every command that was called or refused, by name.
    pub(super) fn commands(&self) -> Vec<(String, CommandCount)> {
        let count = |place: &Place| CommandCount {
            calls: get(&place.calls),
            us: get(&place.us),
            rejected: get(&place.rejected),
            failed: get(&place.failed),
        };
        self.named(|place| {
            let count = count(place);
            (count != CommandCount::default()).then_some(count)
        })
    }

    /// The histogram of every command that was called.
    pub(super) fn histograms(&self) -> Vec<(String, &Histogram)> {
        self.named(|place| place.histogram.get().map(|it| &**it).filter(|it| it.count() > 0))
    }

    fn named<'a, T>(&'a self, pick: impl Fn(&'a Place) -> Option<T>) -> Vec<(String, T)> {
        let places = self.places.iter().enumerate();
        let picked = places.filter_map(|(at, place)| Some((table::name_at(at)?, pick(place)?)));
        let mut picked: Vec<_> = picked.collect();
        picked.sort_by(|(one, _), (other, _)| one.cmp(other));
        picked
    }

    /// How often each first word was answered.
    pub(super) fn errors(&self) -> BTreeMap<String, u64> {
        self.errors.lock().clone()
    }

    /// All errors that were answered.
    pub fn errors_total(&self) -> u64 {
        get(&self.errors_total)
    }

    /// Keys that reads found, and missed.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (get(&self.hits), get(&self.misses))
    }

    /// Bytes that came from clients, and went to them.
    pub fn bytes(&self) -> (u64, u64) {
        (get(&self.bytes_read), get(&self.bytes_written))
    }

    /// How often bytes came, and went.
    pub fn reads_and_writes(&self) -> (u64, u64) {
        (get(&self.reads), get(&self.writes))
    }

    /// Begins anew, as CONFIG RESETSTAT asks.
    pub(super) fn reset(&self) {
        for place in &self.places {
            for number in [&place.calls, &place.us, &place.rejected, &place.failed] {
                number.store(0, Ordering::Relaxed);
            }
            if let Some(histogram) = place.histogram.get() {
                histogram.reset();
            }
        }
        self.errors.lock().clear();
        let numbers = [
            &self.errors_total,
            &self.hits,
            &self.misses,
            &self.bytes_read,
            &self.bytes_written,
            &self.reads,
            &self.writes,
        ];
        for number in numbers {
            number.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_by_command_and_by_first_word() {
        let counters = Counters::default();
        let (get, _) = table::find_place(b"get").expect("GET is in the table");
        counters.ran(get, 3, 30, true);
        counters.failed(get);
        counters.rejected(get);
        let expected = CommandCount { calls: 3, us: 30, rejected: 1, failed: 1 };
        assert_eq!(counters.commands(), [("get".to_owned(), expected)]);
        counters.error("ERR syntax error");
        counters.error("WRONGTYPE Operation");
        counters.error("ERR no such key");
        let errors: Vec<(String, u64)> = counters.errors().into_iter().collect();
        assert_eq!(errors, [("ERR".to_owned(), 2), ("WRONGTYPE".to_owned(), 1)]);
        counters.reset();
        assert!(counters.commands().is_empty() && counters.histograms().is_empty());
        assert_eq!(counters.errors_total(), 0);
    }

    #[test]
    fn made_up_first_words_are_bounded() {
        let counters = Counters::default();
        for word in 0..1000 {
            counters.error(&format!("E{word} text"));
        }
        assert_eq!(counters.errors().len(), ERROR_WORDS_MAX);
        assert_eq!(counters.errors_total(), 1000);
    }
}
