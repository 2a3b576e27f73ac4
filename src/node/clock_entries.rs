//! When the master proposes entries for the clock: they delete expired keys, and go on with large
//! removals. Each does a bounded piece, so there may be thousands of them in a row.
//!
//! One at a time, and after each a rest of twice as long as it took. So whatever is slow, the disk or
//! the applier, has two thirds of its time for others. And since what is applied after it waits for
//! it, one that took long to apply is followed by one that deletes fewer keys.

use super::environment::Applied;
use crate::command::batch::EXPIRED_PER_CLOCK_MAX;
use crate::paxos::Index;

/// Rests in parts of what the entry took.
const REST_TIMES: u64 = 2;
/// The longest rest: a disk that stood still once says nothing about the next time.
const REST_US_MAX: u64 = 100_000;
/// To apply one should take so long at most.
const APPLY_US: u64 = 4_000;
/// When keys have waited for long to be deleted, their memory counts more.
const LATE_MS: u64 = 10_000;
/// Then it may take so many times as long.
const LATE_TIMES_MAX: u64 = 4;
/// No entry deletes fewer keys: each has its own cost.
const EXPIRED_KEYS_MIN: u16 = 50;

/// The master's entries for the clock.
#[derive(Debug)]
pub(super) struct ClockEntries {
    /// Proposed and not applied.
    open: Option<Open>,
    rests_until_us: u64,
    expired_keys_max: u16,
}

#[derive(Debug)]
struct Open {
    index: Index,
    since_us: u64,
    /// How long the first of its keys had been expired.
    late_ms: u64,
    /// [`Applied::expiry_us`] when it was proposed.
    expiry_us: u64,
}

impl Default for ClockEntries {
    fn default() -> Self {
        let expired_keys_max = EXPIRED_PER_CLOCK_MAX;
        ClockEntries { open: None, rests_until_us: 0, expired_keys_max }
    }
}

impl ClockEntries {
    /// Whether one may be proposed now.
    pub fn may_propose(&self, now_us: u64) -> bool {
        self.open.is_none() && now_us >= self.rests_until_us
    }

    /// So many expired keys the next one is to delete at most.
    pub fn expired_keys_max(&self) -> u16 {
        self.expired_keys_max
    }

    /// One was proposed, `late_ms` after it was due.
    pub fn proposed(&mut self, index: Index, late_ms: u64, applied: &Applied, now_us: u64) {
        assert!(self.open.is_none(), "two entries for the clock at once");
        let expiry_us = applied.expiry_us;
        self.open = Some(Open { index, since_us: now_us, late_ms, expiry_us });
    }

    /// So much is applied.
    pub fn applied(&mut self, applied: &Applied, now_us: u64) {
        let Some(open) = self.open.take_if(|open| open.index <= applied.index) else { return };
        let took_us = now_us.saturating_sub(open.since_us);
        self.rests_until_us = now_us + (REST_TIMES * took_us).min(REST_US_MAX);
        let may_take_us = APPLY_US * (1 + open.late_ms / LATE_MS).min(LATE_TIMES_MAX);
        let keys = self.expired_keys_max;
        // The applying alone: an entry that had to wait for others before it would be no quicker with
        // fewer keys.
        self.expired_keys_max = match applied.expiry_us - open.expiry_us {
            0 => keys,
            us if us > may_take_us => keys / 2,
            us if us < may_take_us / 2 => keys + keys / 4,
            _ => keys,
        }
        .clamp(EXPIRED_KEYS_MIN, EXPIRED_PER_CLOCK_MAX);
    }

    /// One is on its way.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The last one is so recent that the next one waits.
    pub fn rests(&self, now_us: u64) -> bool {
        now_us < self.rests_until_us
    }

    /// This node leads no more.
    pub fn lead_ended(&mut self) {
        *self = ClockEntries::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(index: u64, expiry_us: u64) -> Applied {
        Applied { index: Index(index), expiry_us, ..Applied::default() }
    }

    #[test]
    fn a_slow_entry_is_followed_by_a_longer_rest() {
        let mut entries = ClockEntries::default();
        assert!(entries.may_propose(0));
        entries.proposed(Index(7), 0, &applied(6, 0), 1000);
        assert!(!entries.may_propose(2_000_000));
        entries.applied(&applied(6, 0), 3000);
        assert!(entries.is_open());
        entries.applied(&applied(7, 0), 4000);
        assert!(!entries.may_propose(9_999) && entries.rests(9_999));
        assert!(entries.may_propose(10_000));

        entries.proposed(Index(9), 0, &applied(8, 0), 10_000);
        entries.applied(&applied(9, 0), 5_010_000);
        assert!(entries.may_propose(5_010_000 + REST_US_MAX));
        entries.lead_ended();
        assert!(entries.may_propose(0));
    }

    /// Proposes one that took `apply_us` to apply; how many keys the next one may delete.
    fn next_max(entries: &mut ClockEntries, apply_us: u64, late_ms: u64) -> u16 {
        let began_us = entries.rests_until_us;
        entries.proposed(Index(1), late_ms, &applied(0, 5000), began_us);
        // It waited for a second, which says nothing.
        entries.applied(&applied(2, 5000 + apply_us), began_us + 1_000_000);
        entries.expired_keys_max()
    }

    #[test]
    fn what_was_slow_to_apply_deletes_less_the_next_time() {
        let mut entries = ClockEntries::default();
        assert_eq!(entries.expired_keys_max(), 1000);
        assert_eq!(next_max(&mut entries, 100, 0), 1000);
        assert_eq!(next_max(&mut entries, 4_001, 0), 500);
        assert_eq!(next_max(&mut entries, 2_000, 0), 500);
        assert_eq!(next_max(&mut entries, 100_000, 0), 250);
        // Later it may take longer, but not for ever.
        assert_eq!(next_max(&mut entries, 15_000, 30_000), 250);
        assert_eq!(next_max(&mut entries, 17_000, 3_000_000), 125);
        for _ in 0..10 {
            next_max(&mut entries, 100_000, 0);
        }
        assert_eq!(entries.expired_keys_max(), EXPIRED_KEYS_MIN);
        // One that deleted nothing says nothing either.
        assert_eq!(next_max(&mut entries, 0, 0), EXPIRED_KEYS_MIN);
        for _ in 0..20 {
            next_max(&mut entries, 100, 0);
        }
        assert_eq!(entries.expired_keys_max(), 1000);
    }
}
