//! When the master proposes entries for the clock: they delete expired keys, and go on with large
//! removals. Each does a bounded piece, so there may be thousands of them in a row.
//!
//! One at a time, and after each a rest of twice as long as it took. So whatever is slow, the disk or
//! the applier, has two thirds of its time for others.

use crate::paxos::Index;

/// Rests in parts of what the entry took.
const REST_TIMES: u64 = 2;
/// The longest rest: a disk that stood still once says nothing about the next time.
const REST_US_MAX: u64 = 100_000;

/// The master's entries for the clock.
#[derive(Debug, Default)]
pub(super) struct ClockEntries {
    /// Proposed and not applied, and since when.
    open: Option<(Index, u64)>,
    rests_until_us: u64,
}

impl ClockEntries {
    /// Whether one may be proposed now.
    pub fn may_propose(&self, now_us: u64) -> bool {
        self.open.is_none() && now_us >= self.rests_until_us
    }

    /// One was proposed.
    pub fn proposed(&mut self, index: Index, now_us: u64) {
        assert!(self.open.is_none(), "two entries for the clock at once");
        self.open = Some((index, now_us));
    }

    /// Everything up to `index` is applied.
    pub fn applied(&mut self, index: Index, now_us: u64) {
        if let Some((_, since_us)) = self.open.take_if(|(open, _)| *open <= index) {
            let took_us = now_us.saturating_sub(since_us);
            self.rests_until_us = now_us + (REST_TIMES * took_us).min(REST_US_MAX);
        }
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

    #[test]
    fn a_slow_entry_is_followed_by_a_longer_rest() {
        let mut entries = ClockEntries::default();
        assert!(entries.may_propose(0));
        entries.proposed(Index(7), 1000);
        assert!(!entries.may_propose(2_000_000));
        entries.applied(Index(6), 3000);
        assert!(entries.is_open());
        entries.applied(Index(7), 4000);
        assert!(!entries.may_propose(9_999) && entries.rests(9_999));
        assert!(entries.may_propose(10_000));

        entries.proposed(Index(9), 10_000);
        entries.applied(Index(9), 5_010_000);
        assert!(entries.may_propose(5_010_000 + REST_US_MAX));
        entries.lead_ended();
        assert!(entries.may_propose(0));
    }
}
