//! What the driver hands to the applier: chosen entries, in log order, and not too many at once.

use super::super::environment::{ApplyJob, Environment, ReadPurpose};
use super::Driver;
use crate::paxos::Entry;
use crate::planted::{Bug, plants};

/// Bytes of entries handed to the applier and not applied yet.
const APPLY_BYTES_MAX: usize = 8 << 20;
/// Bytes of entries in one apply job.
const APPLY_JOB_BYTES: usize = 1 << 20;
/// What nobody waits for is applied once so many entries have gathered,
const UNHURRIED_ENTRIES: u64 = 32;
/// or after this long.
const UNHURRIED_WAIT_US: u64 = 2_000;

impl Driver {
    /// Hands chosen entries to the applier.
    pub(super) fn dispatch(&mut self, environment: &mut dyn Environment) {
        if self.lets_gather() {
            return;
        }
        let early = plants(Bug::AppliesBeforeChosen) && self.lead.is_some();
        while (self.dispatched < self.replica.chosen()
            || (early && self.dispatched < self.replica.last().index))
            && !self.reading_for_apply
        {
            let bytes: usize = self.dispatched_bytes.iter().map(|(_, bytes)| bytes).sum();
            let full = bytes > APPLY_BYTES_MAX || environment.over_bound();
            if full || self.catch_up.installing() {
                return;
            }
            let from = self.dispatched.next();
            match self.replica.cached_entries(from, APPLY_JOB_BYTES) {
                Some(entries) => self.dispatch_entries(entries, environment),
                None if from <= self.replica.base().index => return, // A head is on its way.
                None => {
                    // At the place of what is not on disk yet the log may still hold what that replaces.
                    let to = self.replica.chosen().min(self.replica.durable());
                    if to < from {
                        return;
                    }
                    self.reading_for_apply = true;
                    environment.read(ReadPurpose::Apply { from, to });
                }
            }
        }
    }

    /// Nobody waits for what a follower applies, and many entries at once cost less. A leader's own
    /// clients wait, and so does a node that is far behind.
    fn lets_gather(&mut self) -> bool {
        let count = self.replica.chosen().0.saturating_sub(self.dispatched.0);
        let hurried = self.lead.is_some() || count >= UNHURRIED_ENTRIES;
        let since_us = *self.gathers_since_us.get_or_insert(self.now_us);
        let gathers = count > 0 && !hurried && self.now_us < since_us + UNHURRIED_WAIT_US;
        if !gathers {
            self.gathers_since_us = None;
        }
        gathers
    }

    pub(super) fn dispatch_entries(
        &mut self,
        entries: Vec<Entry>,
        environment: &mut dyn Environment,
    ) {
        let chosen = match plants(Bug::AppliesBeforeChosen) {
            true => self.replica.last().index,
            false => self.replica.chosen(),
        };
        let job: Vec<_> = entries
            .into_iter()
            .take_while(|entry| entry.index <= chosen)
            .map(|entry| {
                let waiters = self.proposals.take(entry.position(), self.now_us);
                (entry, waiters)
            })
            .collect();
        let Some((last, _)) = job.last() else { return };
        self.dispatched = last.index;
        let bytes = job.iter().map(|(entry, _)| entry.value.size_bytes()).sum();
        self.heads.logged(bytes as u64);
        self.dispatched_bytes.push_back((last.index, bytes));
        environment.apply(ApplyJob { entries: job });
    }
}
