//! Saving to the transaction log, by whoever does it soonest.
//!
//! A disk that syncs in little more time than two changes of threads take is used by the driver itself,
//! and what comes meanwhile makes the next batch. One that takes longer is left to the log's thread, so
//! that heartbeats go on meanwhile. Which of the two it is shows in how long the last sync took, and
//! whether any stalled lately. The driver of a master with very many clients leaves every disk to the
//! log's thread: there are always some whom it can read from and answer meanwhile.
//!
//! So a disk that begins to stall holds the driver up once. That must not become a habit: a follower
//! that is held up grants no lease, a leader does not renew its own, and nodes that share a disk are
//! held up together. Clients who wait for an update meanwhile hear in time that it is uncertain
//! (`server/answers.rs`).
//!
//! Invariant: saves reach the log in the order in which the replica gave them. The driver uses the
//! log itself only while nothing waits for the log's thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::environment::Input;
use super::inbox::Inbox;
use super::mailbox::Mailbox;
use super::runtime::{Fatal, timed};
use crate::paxos::{Index, Save};
use crate::store::Store;
use crate::transaction_log::{LogError, TransactionLog};

/// Syncs up to here are quick.
const QUICK: Duration = Duration::from_millis(1);
/// A disk that took longer once
const STALL: Duration = Duration::from_millis(10);
/// is not taken for quick for so long,
const DISTRUST: Duration = Duration::from_secs(10);
/// and one that took as long as might cost a lease
const LONG_STALL: Duration = Duration::from_millis(100);
/// for so long.
const LONG_DISTRUST: Duration = Duration::from_secs(600);
/// More bytes than these are left to the log's thread, however quick the disk is.
const QUICK_BYTES: usize = 256 << 10;

fn is_small(saves: &[Save]) -> bool {
    let entries = saves.iter().flat_map(|save| &save.entries);
    entries.map(|entry| entry.value.size_bytes()).sum::<usize>() <= QUICK_BYTES
}

enum Job {
    Save(Vec<Save>),
    Collapse(Index),
}

/// The transaction log of a running node.
pub(super) struct Saving {
    log: Mutex<TransactionLog>,
    jobs: Mailbox<Job>,
    /// Jobs that the log's thread has not done yet.
    waiting: AtomicUsize,
    is_quick: AtomicBool,
    distrusted_until: Mutex<Option<Instant>>,
    inbox: Arc<Inbox>,
    fatal: Fatal,
    keep_bytes: u64,
    /// Below here heads do not need the log.
    below: AtomicU64,
}

impl Saving {
    /// Some of the log below what could be dropped is kept for nodes that lag.
    pub fn new(log: TransactionLog, inbox: Arc<Inbox>, fatal: Fatal, keep_bytes: u64) -> Saving {
        Saving {
            log: Mutex::new(log),
            jobs: Mailbox::default(),
            waiting: AtomicUsize::new(0),
            is_quick: AtomicBool::new(false),
            distrusted_until: Mutex::new(None),
            inbox,
            fatal,
            keep_bytes,
            below: AtomicU64::new(0),
        }
    }

    /// Whether the driver should save this itself.
    pub fn is_quick(&self, saves: &[Save]) -> bool {
        self.is_quick.load(Ordering::Relaxed)
            && self.waiting.load(Ordering::SeqCst) == 0
            && is_small(saves)
    }

    /// The end of the log. Of use once [`Saving::run`] has returned.
    pub fn last(&self) -> Index {
        self.log.lock().last().index
    }

    /// Saves now. To be called by the driver, after [`Saving::is_quick`]. False: the log's thread is at
    /// work after all, and nothing has happened.
    pub fn save(&self, saves: &[Save]) -> bool {
        let Some(mut log) = self.log.try_lock() else { return false };
        // The log's thread counts its job as waiting until it has let go of the log.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            return false;
        }
        if let Err(error) = self.append(&mut log, saves) {
            self.failed(&error);
        }
        true
    }

    /// Has the log's thread save.
    pub fn save_later(&self, saves: Vec<Save>) {
        self.push(Job::Save(saves));
    }

    /// Has the log's thread drop what is below, but for what is kept.
    pub fn collapse(&self, below: Index) {
        self.below.fetch_max(below.0, Ordering::SeqCst);
        self.push(Job::Collapse(below));
    }

    /// The store has synced more: what it alone still needed may go.
    pub fn collapse_again(&self) {
        let below = self.below.load(Ordering::SeqCst);
        if below > 0 {
            self.push(Job::Collapse(Index(below)));
        }
    }

    fn push(&self, job: Job) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.jobs.push(job);
    }

    /// What waits is still done, then [`Saving::run`] returns.
    pub fn close(&self) {
        self.jobs.close();
    }

    /// The log's thread.
    pub fn run(&self, store: &Store) {
        let mut jobs = Vec::new();
        while self.jobs.take(&mut jobs) {
            let count = jobs.len();
            let mut saves = Vec::new();
            let mut collapse = None;
            for job in jobs.drain(..) {
                match job {
                    Job::Save(more) => saves.extend(more),
                    Job::Collapse(below) => collapse = collapse.max(Some(below)),
                }
            }
            let mut log = self.log.lock();
            let result = self.append(&mut log, &saves).and_then(|()| {
                collapse.map_or(Ok(()), |below| self.drop_below(&mut log, below, store))
            });
            drop(log);
            if let Err(error) = result {
                return self.failed(&error);
            }
            self.waiting.fetch_sub(count, Ordering::SeqCst);
        }
    }

    fn append(&self, log: &mut TransactionLog, saves: &[Save]) -> Result<(), LogError> {
        let Some(last) = saves.last() else { return Ok(()) };
        // With the write, which goes to the disk as well.
        let began = Instant::now();
        timed("the log's write", || log.append_all(saves))?;
        timed("the log's sync", || log.sync())?;
        self.judge(began, began.elapsed(), is_small(saves));
        self.inbox.push(Input::Saved(last.id));
        Ok(())
    }

    /// What a write and its sync say about the disk.
    fn judge(&self, began: Instant, took: Duration, is_small: bool) {
        let ended = began + took;
        let mut until = self.distrusted_until.lock();
        if took > STALL {
            let distrust = if took > LONG_STALL && is_small { LONG_DISTRUST } else { DISTRUST };
            *until = until.max(Some(ended + distrust));
        }
        let distrusted = until.is_some_and(|until| ended < until);
        self.is_quick.store(took <= QUICK && !distrusted, Ordering::Relaxed);
    }

    /// Drops what two heads cover and the store has synced, but keeps some for nodes that lag.
    fn drop_below(
        &self,
        log: &mut TransactionLog,
        below: Index,
        store: &Store,
    ) -> Result<(), LogError> {
        let before = log.base().index;
        let (mut low, mut high) = (before.0, below.0.min(store.synced() + 1));
        // The highest index from which on the log still holds what is to be kept.
        while low < high {
            let middle = low.midpoint(high) + 1;
            match log.bytes_since(Index(middle)) >= self.keep_bytes {
                true => low = middle,
                false => high = middle - 1,
            }
        }
        if low > before.0 {
            log.collapse(Index(low))?;
            if log.base().index > before {
                self.inbox.push(Input::Collapsed(log.base().index));
            }
        }
        Ok(())
    }

    fn failed(&self, error: &LogError) {
        (self.fatal)(&format!("the transaction log failed: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;

    use super::*;
    use crate::disk::SimulatedDisk;
    use crate::paxos::{Ballot, Entry, Incarnation, SaveId, Value};
    use crate::store::{StoreOptions, StorePlace};
    use crate::transaction_log::{Identity, Options};

    const ENTRIES: u64 = 100;

    /// Of 1 KiB each.
    fn log() -> TransactionLog {
        let disk = Arc::new(SimulatedDisk::new(1));
        let incarnation = Incarnation(1);
        let (cluster_id, node_name) = ("demo".to_owned(), "n1".to_owned());
        let identity = Identity { cluster_id, node_name, incarnation };
        let options = Options::with_segment_bytes(16 << 10);
        let mut log = TransactionLog::create(disk, Path::new("log"), &options, identity).unwrap();
        for index in 1..=ENTRIES {
            let value = Value::Batch(Bytes::from(vec![1; 1 << 10]));
            let entries = vec![Entry { index: Index(index), ballot: Ballot::ZERO, value }];
            log.append_all(&[Save { id: SaveId(index), entries, ..Save::default() }]).unwrap();
        }
        log.sync().unwrap();
        log
    }

    #[test]
    fn the_log_that_only_the_store_needed_goes_once_the_store_has_synced() {
        let (store, _) = Store::open(StoreOptions::default(), StorePlace::in_memory()).unwrap();
        (1..=ENTRIES).for_each(|index| store.entry().commit(index));
        let fatal: Fatal = Arc::new(|error: &str| panic!("{error}"));
        let saving = Saving::new(log(), Arc::default(), fatal, 10 << 10);
        let base = || {
            let deadline = Instant::now() + Duration::from_secs(60);
            while saving.waiting.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
                std::thread::yield_now();
            }
            saving.log.lock().base().index.0
        };
        // Asserted at the end: a panic in the scope would wait for the log's thread.
        let [needed, synced, asked] = std::thread::scope(|scope| {
            scope.spawn(|| saving.run(&store));
            saving.collapse_again();
            saving.collapse(Index(80));
            let needed = base();
            store.freeze_for_drain();
            while store.drain_step(&|| ENTRIES).is_ok_and(|progress| progress.worked()) {}
            let result = store.sync();
            let synced = base();
            saving.collapse_again();
            let asked = base();
            saving.close();
            result.map(|_| [needed, synced, asked])
        })
        .unwrap();
        assert_eq!(needed, 0, "the store has nothing of it");
        assert_eq!(synced, 0, "nobody asked");
        assert!((40..80).contains(&asked), "the log begins after {asked}");
    }
}
