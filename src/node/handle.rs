//! A running node, as the connections of its clients see it. Reads never leave the caller's task.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::RwLock;

use super::applier::AppliedCounts;
use super::environment::{Input, Submission};
use super::handover::HandOverOrder;
use super::inbox::Inbox;
use super::refusal::Refusal;
use super::status::Status;
use crate::planted::{Bug, plants};
use crate::store::Store;

/// A boot clock: microseconds that never go back. The machine's, or a simulated one.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What the driver publishes. The numbers that every read looks at are atomics.
struct Published {
    serving_until_us: AtomicU64,
    serving_from: AtomicU64,
    stamp_offset_ms: AtomicI64,
    /// When the driver last published; 0: never.
    stepped_us: AtomicU64,
    status: RwLock<Option<Arc<Status>>>,
}

impl Published {
    fn new() -> Published {
        Published {
            serving_until_us: AtomicU64::new(0),
            serving_from: AtomicU64::new(0),
            stamp_offset_ms: AtomicI64::new(0),
            stepped_us: AtomicU64::new(0),
            status: RwLock::new(None),
        }
    }

    /// In force when this returns.
    fn publish(&self, status: &Arc<Status>) {
        // First where a mastership begins, then that it does: who sees the second sees the first.
        // It never goes back, so that the end of a mastership cannot let an older view pass.
        self.serving_from.fetch_max(status.serving_from.0, Ordering::SeqCst);
        self.serving_until_us.store(status.serving_until_us, Ordering::SeqCst);
        self.stamp_offset_ms.store(status.stamp_offset_ms, Ordering::SeqCst);
        *self.status.write() = Some(status.clone());
    }
}

/// A handle on a running node; clones are cheap.
#[derive(Clone)]
pub struct Handle {
    published: Arc<Published>,
    inbox: Arc<Inbox>,
    store: Store,
    clock: Clock,
    counts: Arc<AppliedCounts>,
}

impl Handle {
    /// A handle on the node whose driver reads that inbox and publishes here.
    pub fn new(inbox: Arc<Inbox>, store: Store, clock: Clock) -> Handle {
        let published = Arc::new(Published::new());
        Handle { published, inbox, store, clock, counts: Arc::default() }
    }

    /// The same with what the node's applier counts.
    pub fn with_counts(self, counts: Arc<AppliedCounts>) -> Handle {
        Handle { counts, ..self }
    }

    /// What was applied since the node began.
    pub fn counts(&self) -> &AppliedCounts {
        &self.counts
    }

    /// What the driver knows now; in force for every clone when this returns.
    pub fn publish(&self, status: &Arc<Status>) {
        self.published.publish(status);
        self.published.stepped_us.store(self.boot_us(), Ordering::SeqCst);
    }

    /// How long ago the driver ended a step, in microseconds; 0 before its first.
    pub fn silent_us(&self) -> u64 {
        match self.published.stepped_us.load(Ordering::SeqCst) {
            0 => 0,
            stepped_us => self.boot_us().saturating_sub(stepped_us),
        }
    }

    /// The boot clock, in microseconds.
    pub fn boot_us(&self) -> u64 {
        (self.clock)()
    }

    /// The applied state.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Whether this node is master, its lease holds at this moment, and a view at `view_index` is
    /// of this mastership. To be asked after reading and before replying.
    pub fn serves(&self, view_index: u64) -> Result<(), Refusal> {
        // A lease that ended while we looked at the clock counts as ended.
        let until_us = self.published.serving_until_us.load(Ordering::SeqCst);
        if self.boot_us() < until_us || (until_us > 0 && plants(Bug::LeaseEndIgnored)) {
            let from = self.published.serving_from.load(Ordering::SeqCst);
            return match view_index >= from || plants(Bug::ViewOfEarlierMastership) {
                true => Ok(()),
                false => Err(Refusal::TryAgain("the mastership has changed meanwhile")),
            };
        }
        match &*self.published.status.read() {
            Some(status) => Err(status.refusal.clone()),
            None => Err(Refusal::Loading("the node starts")),
        }
    }

    /// Whether an update has a chance.
    pub fn may_write(&self) -> Result<(), Refusal> {
        self.serves(u64::MAX)?;
        match self.status().and_then(|status| status.updates_refused.clone()) {
            Some(refusal) => Err(refusal),
            None => Ok(()),
        }
    }

    /// The log's clock, as the master estimates it, in milliseconds since the epoch.
    pub fn stamp_ms(&self) -> u64 {
        let boot_ms = (self.boot_us() / 1000) as i64;
        let offset_ms = self.published.stamp_offset_ms.load(Ordering::SeqCst);
        boot_ms.saturating_add(offset_ms).max(0) as u64
    }

    /// Where the node stands; `None` before its first step.
    pub fn status(&self) -> Option<Arc<Status>> {
        self.published.status.read().clone()
    }

    /// Hands an update to the log.
    pub fn submit(&self, submission: Submission) {
        self.inbox.submit(submission);
    }

    /// Asks for a head, if this node is the master and has not asked for one that is to come.
    pub fn write_head(&self) {
        self.inbox.push(Input::WriteHead);
    }

    /// Asks for a planned handover of the mastership.
    pub fn hand_over(&self, order: HandOverOrder) {
        self.inbox.push(Input::HandOver(order));
    }

    /// Ends a handover that has not happened yet.
    pub fn abort_hand_over(&self) {
        self.inbox.push(Input::AbortHandOver);
    }

    /// Asks that this node be the master.
    pub fn ask_for_mastership(&self, force: bool) {
        self.inbox.push(Input::AskForMastership { force });
    }
}
