//! The log's clock, as this node estimates it: milliseconds since the epoch, never going back.
//!
//! One wrong wall clock must not poison the log: a stamp advances with the elapsed time of the
//! boot clock and is slewed towards wall time by a tenth of that at most, on a new master too. It
//! jumps to wall time only when no quorum existed meanwhile: when neither this node nor any of those
//! who elected it has heard a leader's stamp since it started. Their promises carry the time that
//! they kept.

use crate::planted::{Bug, plants};

/// A node this far from the log's clock reports it.
pub const OFF_REPORTED_MS: u64 = 1000;

/// One node's estimate of the log's clock.
#[derive(Clone, Copy, Debug)]
pub struct StampClock {
    stamp_us: u64,
    at_us: u64,
    /// A leader's stamp was heard since the start: elapsed time is known, no jump is due.
    heard: bool,
}

impl StampClock {
    /// Starts from the last stamp in the store; `now_us` by the boot clock.
    pub fn new(last_stamp_ms: u64, now_us: u64) -> StampClock {
        StampClock { stamp_us: last_stamp_ms.saturating_mul(1000), at_us: now_us, heard: false }
    }

    /// The stamp now.
    pub fn stamp_ms(&self, now_us: u64) -> u64 {
        self.exact_us(now_us) / 1000
    }

    /// Milliseconds to add to the boot clock's to get the stamp's.
    pub fn offset_ms(&self) -> i64 {
        (self.stamp_us / 1000) as i64 - (self.at_us / 1000) as i64
    }

    fn exact_us(&self, now_us: u64) -> u64 {
        self.stamp_us.saturating_add(now_us.saturating_sub(self.at_us))
    }

    /// The master says that the stamp is this now.
    pub fn hear(&mut self, stamp_ms: u64, now_us: u64) {
        let stamp_us = stamp_ms.saturating_mul(1000);
        *self = StampClock { stamp_us, at_us: now_us, heard: true };
    }

    /// An entry with this stamp was applied: the clock is not behind it.
    pub fn at_least(&mut self, stamp_ms: u64, now_us: u64) {
        if self.exact_us(now_us) < stamp_ms * 1000 {
            self.stamp_us = stamp_ms * 1000;
            self.at_us = now_us;
        }
    }

    /// The stamp, if this node has kept time since it heard one.
    pub fn kept_ms(&self, now_us: u64) -> Option<u64> {
        self.heard.then(|| self.stamp_ms(now_us))
    }

    /// This node leads now. `kept_ms`: the latest time that those who elected it kept, or 0; jumps
    /// to wall time if nobody has kept any.
    pub fn lead(&mut self, wall_ms: u64, kept_ms: u64, now_us: u64) {
        let nobody_kept = !self.heard && (kept_ms == 0 || plants(Bug::NewMasterTakesItsWallTime));
        let known_ms = if nobody_kept { wall_ms } else { kept_ms };
        let stamp_us = self.exact_us(now_us).max(known_ms * 1000);
        *self = StampClock { stamp_us, at_us: now_us, heard: true };
    }

    /// Time passes on the master: moves towards the wall clock, at a tenth of the speed of time.
    pub fn slew(&mut self, wall_ms: u64, now_us: u64) {
        let elapsed_us = now_us.saturating_sub(self.at_us);
        let (now_stamp_us, wall_us) = (self.exact_us(now_us), wall_ms * 1000);
        let most_us = if plants(Bug::ClockSlewsAtOnce) { u64::MAX } else { elapsed_us / 10 };
        let step_us = now_stamp_us.abs_diff(wall_us).min(most_us);
        self.stamp_us = match wall_us >= now_stamp_us {
            true => now_stamp_us + step_us,
            false => now_stamp_us - step_us,
        };
        self.at_us = now_us;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_master_after_a_stop_jumps_to_wall_time_but_never_back() {
        let mut clock = StampClock::new(1_000, 0);
        clock.lead(9_000, 0, 0);
        assert_eq!(clock.stamp_ms(0), 9_000);
        let mut ahead = StampClock::new(10_000, 0);
        ahead.lead(9_000, 0, 0);
        assert_eq!(ahead.stamp_ms(0), 10_000);
    }

    #[test]
    fn a_master_elected_while_others_kept_time_slews() {
        let mut clock = StampClock::new(0, 0);
        clock.hear(5_000, 0);
        clock.lead(90_000, 0, 1_000_000);
        assert_eq!(clock.stamp_ms(1_000_000), 6_000);
        clock.slew(90_000, 2_000_000);
        assert_eq!(clock.stamp_ms(2_000_000), 7_100, "a tenth faster");
        clock.slew(0, 3_000_000);
        assert_eq!(clock.stamp_ms(3_000_000), 8_000, "a tenth slower, never back");
    }

    /// The simulator found it: a node that had just started was elected, and its wrong wall clock
    /// became the log's, although those who elected it knew the time.
    #[test]
    fn a_master_that_kept_no_time_takes_that_of_its_electors() {
        let mut clock = StampClock::new(1_000, 0);
        clock.lead(9_000_000, 4_000, 0);
        assert_eq!(clock.stamp_ms(0), 4_000);
        assert_eq!(clock.kept_ms(1_000_000), Some(5_000));
        assert_eq!(StampClock::new(1_000, 0).kept_ms(0), None);
    }
}
