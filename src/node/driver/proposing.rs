//! What the driver proposes, and when: entries as large as the load makes them, and the master's own.

use bytes::BytesMut;

use super::super::environment::Environment;
use super::super::proposals::{Gather, LARGE_BATCH_BYTES};
use super::{Driver, UNAPPLIED_ENTRIES_MAX};
use crate::command::batch;
use crate::paxos::Value;

/// Entries proposed and not on this node's own disk; more of them gather into a batch instead.
const UNSAVED_ENTRIES_MAX: u64 = 1;
/// Entries proposed and not chosen; the second not small (`Proposals::fills_entry`), because many small
/// ones would cost more than they save; a large batch goes out all the same.
const UNCHOSEN_ENTRIES_MAX: u64 = 2;

impl Driver {
    /// Once so many more submissions are there, the driver does something with them at once. Fewer are
    /// early enough after something else has happened (a sync has ended, a follower has answered), or
    /// at the next tick.
    pub fn submissions_awaited(&self) -> usize {
        let last = self.replica.last().index.0;
        let unchosen = last - self.replica.chosen().0;
        if self.lead.is_none() || !self.serves() || unchosen == 0 {
            1
        } else if last - self.replica.durable().0 >= UNSAVED_ENTRIES_MAX
            || unchosen >= UNCHOSEN_ENTRIES_MAX
        {
            usize::MAX
        } else {
            self.proposals.missing_to_fill_entry().max(1)
        }
    }

    /// What is there makes a small entry beside what comes as a rule: so much more is worth a short wait
    /// before the next step, which proposes whatever is there then.
    pub fn gathers(&self) -> Option<Gather> {
        self.gathers
    }

    /// What to wait for before anything is proposed, if for anything: once for an entry, and only while
    /// nothing is on its way that somebody waits for.
    fn decide_to_gather(
        &mut self,
        waited: Option<Gather>,
        environment: &dyn Environment,
    ) -> Option<Gather> {
        let last = self.replica.last().index;
        let idles = last == self.replica.chosen() && last == self.replica.durable();
        let gather = self.proposals.worth_gathering()?;
        if waited.is_some() {
            self.proposals.gathered_in_vain(gather.submissions);
            return None;
        }
        (idles && self.may_propose(environment)).then_some(gather)
    }

    /// Proposes what has gathered. While an entry waits for this node's own disk the next one
    /// gathers, so that a batch is as large as the load makes it.
    pub(super) fn propose(&mut self, environment: &mut dyn Environment) {
        let waited = self.gathers.take();
        if self.lead.is_none() {
            return;
        }
        if !self.serves() {
            let refusal = self.refusal();
            return self.proposals.refuse_queued(&refusal);
        }
        if self.holds_updates() {
            return;
        }
        self.gathers = self.decide_to_gather(waited, environment);
        if self.gathers.is_some() {
            return;
        }
        while self.may_propose(environment) {
            let stamp_ms = self.stamp_ms();
            let seed = self.random.u64(..);
            let Some((payload, waiters, deadline_us)) = self.proposals.next_batch(stamp_ms, seed)
            else {
                break;
            };
            let position =
                self.replica.propose(Value::Batch(payload)).expect("the lead was checked above");
            self.proposals.proposed(position, waiters, deadline_us, self.now_us);
            self.flush(environment);
        }
        // Its own entries would keep a stop from settling.
        if self.stopping_since_us.is_none() {
            self.propose_own(environment);
        }
    }

    fn may_propose(&self, environment: &dyn Environment) -> bool {
        let last = self.replica.last().index.0;
        let unchosen = last - self.replica.chosen().0;
        last - self.replica.durable().0 < UNSAVED_ENTRIES_MAX
            && (unchosen == 0
                || (unchosen < UNCHOSEN_ENTRIES_MAX && self.proposals.fills_entry())
                || self.proposals.queued_bytes() >= LARGE_BATCH_BYTES)
            && last - self.applied.index.0 < UNAPPLIED_ENTRIES_MAX
            && !environment.over_bound()
    }

    /// Entries that the master needs itself: the clock's when a deadline is due, and heads.
    fn propose_own(&mut self, environment: &mut dyn Environment) {
        let mut items = BytesMut::new();
        let mut asks_for_head = false;
        let late_ms =
            self.applied.earliest_deadline_ms.and_then(|at| self.stamp_ms().checked_sub(at));
        if let Some(late_ms) = late_ms.filter(|_| self.clock_entries.may_propose(self.now_us)) {
            batch::encode_clock(&mut items, self.clock_entries.expired_keys_max());
            let index = self.replica.last().index.next();
            self.clock_entries.proposed(index, late_ms, &self.applied, self.now_us);
        } else if self.heads.due(self.now_us) {
            batch::encode_head(&mut items);
            asks_for_head = true;
        } else {
            return;
        }
        let (stamp_ms, seed) = (self.stamp_ms(), self.random.u64(..));
        let payload = batch::seal(stamp_ms, seed, 1, &[items]);
        let position = self
            .replica
            .propose(Value::Batch(payload))
            .expect("the lead was checked by the caller");
        if asks_for_head {
            self.heads.proposed(position.index);
        }
        self.flush(environment);
    }
}
