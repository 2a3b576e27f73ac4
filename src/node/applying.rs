//! The store's only writer in a real node: a thread of its own, and the driver's for small entries
//! that clients wait for, because to change threads would take longer than to apply them.
//!
//! Invariant: the driver never waits for the store, nor works on it for long. What it applies itself
//! is simple and small, and needs nothing but memory and locks that nobody holds at that moment; all
//! else goes to the thread, in order.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use parking_lot::Mutex;

use super::applier::{Applier, Attempt};
use super::environment::{Applied, ApplyJob, Input};
use super::mailbox::Mailbox;
use super::message::HeadName;
use super::runtime::{Common, timed};

/// The largest entry that the driver applies itself, in bytes: a fifth of a millisecond's work with
/// values of 100 bytes, several with nothing but short keys.
const APPLIED_HERE_BYTES_MAX: usize = 32 << 10;
/// After an entry that needed the engine, so many go to the thread without an attempt.
const SENT_AFTER_VAIN: usize = 64;

pub(super) enum StoreJob {
    Apply(ApplyJob),
    Install(HeadName),
}

pub(super) struct Applying {
    applier: Mutex<Applier>,
    jobs: Mailbox<StoreJob>,
    /// Jobs of the thread that are not done. Only the driver adds some, so while it finds none the
    /// thread does not touch the applier.
    left: AtomicUsize,
    /// So many entries are sent before the next attempt.
    sent_first: AtomicUsize,
}

impl Applying {
    pub fn new(applier: Applier) -> Applying {
        Applying {
            applier: Mutex::new(applier),
            jobs: Mailbox::default(),
            left: AtomicUsize::new(0),
            sent_first: AtomicUsize::new(0),
        }
    }

    /// Leaves a job to the thread.
    pub fn send(&self, job: StoreJob) {
        self.left.fetch_add(1, Ordering::SeqCst);
        self.jobs.push(job);
    }

    /// Applies what can be applied at once, and leaves the rest to the thread. To be called by who
    /// calls [`Applying::send`], and nobody else.
    pub fn apply_here(&self, mut job: ApplyJob, tell: impl FnOnce(Applied)) -> Result<(), String> {
        // Told before the thread can tell of what comes next.
        if let Some(applied) = self.apply_small(&mut job)? {
            tell(applied);
        }
        if !job.entries.is_empty() {
            self.send(StoreJob::Apply(job));
        }
        Ok(())
    }

    /// Takes out of the job what it has applied.
    fn apply_small(&self, job: &mut ApplyJob) -> Result<Option<Applied>, String> {
        let sent_first = self.sent_first.load(Ordering::Relaxed);
        if sent_first > 0 {
            self.sent_first.store(sent_first - 1, Ordering::Relaxed);
            return Ok(None);
        }
        let bytes: usize = job.entries.iter().map(|(entry, _)| entry.value.size_bytes()).sum();
        if bytes > APPLIED_HERE_BYTES_MAX || self.left.load(Ordering::SeqCst) > 0 {
            return Ok(None);
        }
        let Some(mut applier) = self.applier.try_lock() else { return Ok(None) };
        let entries = std::mem::take(&mut job.entries);
        let mut entries = entries.into_iter();
        let mut applied = None;
        while let Some((entry, waiters)) = entries.next() {
            let done = timed("applying", || applier.apply_in_memory(&entry, waiters));
            let waiters = match done.map_err(|error| error.to_string())? {
                Attempt::Applied => {
                    applied = Some(applier.applied());
                    continue;
                }
                Attempt::WouldWait(waiters) => waiters,
                Attempt::NotInMemory(waiters) => {
                    self.sent_first.store(SENT_AFTER_VAIN, Ordering::Relaxed);
                    waiters
                }
            };
            job.entries = std::iter::once((entry, waiters)).chain(entries).collect();
            break;
        }
        Ok(applied)
    }

    /// Nothing more is taken in; what is there is still done.
    pub fn close(&self) {
        self.jobs.close();
    }

    /// The thread.
    pub fn run(&self, common: &Common) {
        let mut jobs = Vec::new();
        while self.jobs.take(&mut jobs) {
            for job in jobs.drain(..) {
                let mut applier = self.applier.lock();
                let result = match job {
                    StoreJob::Apply(job) => apply(&mut applier, job, common),
                    StoreJob::Install(name) => install(&mut applier, name, common),
                };
                drop(applier);
                if let Err(error) = result {
                    return (common.fatal)(&format!("the store failed: {error}"));
                }
                self.left.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }
}

fn apply(applier: &mut Applier, job: ApplyJob, common: &Common) -> Result<(), String> {
    for (entry, waiters) in job.entries {
        let unhurried = waiters.is_empty();
        let one = ApplyJob { entries: vec![(entry, waiters)] };
        let (began, before) = (Instant::now(), applier.applied());
        let applied = timed("applying", || applier.apply(one));
        if applier.applied().expired_keys > before.expired_keys {
            applier.note_expiry(began.elapsed().as_micros() as u64);
        }
        for frozen in applied.map_err(|error| error.to_string())? {
            // One that waits would keep its layers in memory, and be thrown away unread.
            common.frozen.replace(frozen);
        }
        if unhurried {
            // What nobody waits for should not hold up those who are waited for, if they share a
            // processor.
            thread::yield_now();
        }
    }
    tell(applier.applied(), common);
    Ok(())
}

/// Tells the driver.
pub(super) fn tell(applied: Applied, common: &Common) {
    let applied = Input::Applied(applied);
    match common.applied_is_awaited.load(Ordering::SeqCst) {
        true => common.inbox.push(applied),
        // To wake the driver for it would cost more than the whole entry.
        false => common.inbox.leave(applied),
    }
}

fn install(applier: &mut Applier, name: HeadName, common: &Common) -> Result<(), String> {
    let installed = applier.install(&common.heads, name).map_err(|error| error.to_string())?;
    common.inbox.push(Input::HeadInstalled(installed));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use bytes::{Bytes, BytesMut};

    use super::super::environment::Waiter;
    use super::*;
    use crate::command::batch::{encode_command, seal};
    use crate::paxos::{Ballot, Entry, Index, Value};
    use crate::store::{Store, StoreOptions, StorePlace};

    fn store() -> Store {
        let options = StoreOptions { cache_bytes: 0, ..StoreOptions::default() };
        Store::open(options, StorePlace::in_memory()).expect("opens").0
    }

    /// An entry that sets a key, and who waits for it: `answered` becomes its index.
    fn set(index: u64, key: &str, value: &[u8], answered: &Arc<AtomicU64>) -> ApplyJob {
        let mut items = BytesMut::new();
        let args = [&b"SET"[..], key.as_bytes(), value].map(Bytes::copy_from_slice);
        encode_command(&mut items, 0, &args);
        let value = Value::Batch(seal(1, 0, 1, &[items]));
        let entry = Entry { index: Index(index), ballot: Ballot::ZERO, value };
        let answered = answered.clone();
        let respond = move |outcome: Result<_, _>| {
            outcome.expect("is applied");
            assert_eq!(answered.fetch_add(1, Ordering::SeqCst), index - 1, "answered in order");
        };
        let waiter = Waiter { count: 1, respond: Some(Box::new(respond)) };
        ApplyJob { entries: vec![(entry, vec![waiter])] }
    }

    #[test]
    fn what_needs_the_engine_or_is_large_or_comes_behind_is_left() {
        let store = store();
        let answered = Arc::new(AtomicU64::new(0));
        let set = |index, key, value: &[u8]| set(index, key, value, &answered);
        let mut applier = Applier::new(store.clone(), Applied::default());
        // The first one reads what only the engine could know: nothing, this time.
        applier.apply(set(1, "a", b"1")).expect("applies");
        let applying = Applying::new(applier);
        let left = |mut job: ApplyJob| {
            let told = applying.apply_small(&mut job).expect("no trouble");
            assert_eq!(told.is_some(), job.entries.is_empty());
            (!job.entries.is_empty()).then_some(job)
        };
        let answered = || answered.load(Ordering::SeqCst);

        assert!(left(set(2, "a", b"2")).is_none());
        assert_eq!((store.applied(), answered()), (2, 2));

        let large = left(set(3, "a", &[0; APPLIED_HERE_BYTES_MAX])).expect("is left");
        applying.send(StoreJob::Apply(large));
        // Its turn has not come, so what is next must not be applied.
        assert!(left(set(4, "a", b"4")).is_some());
        assert_eq!((store.applied(), answered()), (2, 2));
        let sent_entries = || {
            let (mut jobs, mut entries) = (Vec::new(), 0);
            applying.jobs.take(&mut jobs);
            for job in jobs {
                let StoreJob::Apply(job) = job else { panic!("not what was sent") };
                entries += job.entries.len();
                applying.applier.lock().apply(job).expect("applies");
                applying.left.fetch_sub(1, Ordering::SeqCst);
            }
            entries
        };
        assert_eq!(sent_entries(), 1);
        assert!(left(set(4, "a", b"4")).is_none());

        let mut job = set(5, "a", b"5");
        job.entries.extend(set(6, "unknown", b"6").entries);
        job.entries.extend(set(7, "a", b"7").entries);
        let told = |applied: Applied| {
            let sent = applying.left.load(Ordering::SeqCst);
            assert_eq!((applied.index, sent), (Index(5), 0), "told before the rest is sent");
        };
        applying.apply_here(job, told).expect("no trouble");
        assert_eq!((store.applied(), answered()), (5, 5));
        assert_eq!(sent_entries(), 2);
        // A load of new keys does not try each time.
        for index in 8..8 + SENT_AFTER_VAIN as u64 {
            let job = left(set(index, "a", b"1")).expect("is left");
            applying.applier.lock().apply(job).expect("applies");
        }
        assert!(left(set(8 + SENT_AFTER_VAIN as u64, "a", b"1")).is_none());
    }
}
