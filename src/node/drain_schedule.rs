//! When draining begins and ends. It comes late, because rows that are changed again meanwhile go to the
//! engine once; but not so late that memory, a lookup, a restart or the log on disk pay for it.

use std::time::{Duration, Instant};

/// Draining begins when so many layers are frozen, which whoever looks for a row looks through,
const FROZEN_LAYERS_MAX: usize = 4;
/// or when layers take the memory that [`Undrained::filled`] is in parts of, or after about so much log,
/// which a restart replays;
const LOG_BYTES_MAX: f64 = 800e6;
/// less if heads are more frequent, since the log that they do not need stays until it is drained,
const HEADS_MAX: f64 = 3.0;
/// or so long after it ended,
const AFTER_BUSY: Duration = Duration::from_secs(300);
/// or so long, and nobody updates anything,
const AFTER_QUIET: Duration = Duration::from_secs(30);
/// or nobody updates anything and there is this part of that memory or of that log: who updates in
/// bursts had better find it done.
const QUIET_PART: f64 = 0.25;
/// or the disk has no more room than draining would give back by letting go of log, if that is so much of
/// it.
const SCARCE_LOG_PART: f64 = 1.0 / 16.0;
/// Nobody does if nothing was applied for so long.
const QUIET: Duration = Duration::from_secs(1);

/// What there is to drain.
pub(super) struct Undrained {
    /// The index whose state the store shows.
    pub applied: u64,
    /// The one whose state the engine holds.
    pub drained: u64,
    /// Log between these two.
    pub log_bytes: u64,
    /// What may still be written to the disk.
    pub room_bytes: u64,
    pub frozen_layers: usize,
    /// Memory of all layers, in parts of what they should take before they are drained.
    pub filled: f64,
}

pub(super) struct DrainSchedule {
    drains: bool,
    ended_at: Instant,
    head_every_bytes: u64,
    log_bytes_max: f64,
    applied: u64,
    applied_at: Instant,
}

impl DrainSchedule {
    pub fn new(applied: u64, head_every_bytes: u64, now: Instant) -> DrainSchedule {
        DrainSchedule {
            drains: false,
            ended_at: now,
            head_every_bytes,
            log_bytes_max: some_log_bytes(head_every_bytes),
            applied,
            applied_at: now,
        }
    }

    /// Looks at what there is; whether the active layer is to be frozen.
    pub fn look(&mut self, undrained: &Undrained, now: Instant) -> bool {
        if undrained.applied != self.applied {
            self.applied = undrained.applied;
            self.applied_at = now;
        }
        if self.drains {
            if undrained.frozen_layers == 0 {
                // What came meanwhile had better gather.
                self.drains = false;
                self.ended_at = now;
                self.log_bytes_max = some_log_bytes(self.head_every_bytes);
            }
            return false;
        }
        let quiet = now.duration_since(self.applied_at) >= QUIET;
        let (after, part) = if quiet { (AFTER_QUIET, QUIET_PART) } else { (AFTER_BUSY, 1.0) };
        let is_scarce = undrained.room_bytes < undrained.log_bytes;
        let log_part = if is_scarce { SCARCE_LOG_PART } else { part };
        let due = undrained.applied > undrained.drained
            && (undrained.log_bytes as f64 >= log_part * self.log_bytes_max
                || undrained.filled >= part
                || now.duration_since(self.ended_at) >= after);
        self.drains = due || undrained.frozen_layers >= FROZEN_LAYERS_MAX;
        due
    }

    /// Frozen layers are to go to the engine.
    pub fn drains(&self) -> bool {
        self.drains
    }
}

/// Not the same on all nodes, so that those that share a machine do not drain at once.
fn some_log_bytes(head_every_bytes: u64) -> f64 {
    LOG_BYTES_MAX.min(HEADS_MAX * head_every_bytes as f64) * (0.75 + fastrand::f64() / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD_EVERY_BYTES: u64 = 1 << 28;

    fn undrained(applied: u64, log_bytes: u64, frozen: usize, filled: f64) -> Undrained {
        let room_bytes = u64::MAX;
        Undrained { applied, drained: 5, log_bytes, room_bytes, frozen_layers: frozen, filled }
    }

    /// Whether it begins to drain, and freezes first, when it sees this so long after its start.
    fn begins(undrained: &Undrained, after: Duration, busy: bool) -> (bool, bool) {
        let start = Instant::now();
        // At 5 there is nothing that the engine does not have.
        let mut schedule = DrainSchedule::new(5, HEAD_EVERY_BYTES, start);
        if !busy && after > QUIET {
            schedule.look(&self::undrained(undrained.applied, 0, 0, 0.0), start);
        }
        let freezes = schedule.look(undrained, start + after);
        (schedule.drains(), freezes)
    }

    #[test]
    fn it_begins_for_each_of_its_reasons() {
        let soon = Duration::from_secs(5);
        assert_eq!(begins(&undrained(6, 1000, 3, 0.9), soon, true), (false, false));
        assert_eq!(begins(&undrained(6, 1000, 4, 0.1), soon, true), (true, false));
        assert_eq!(begins(&undrained(6, 1000, 1, 1.0), soon, true), (true, true));
        assert_eq!(begins(&undrained(6, 1000, 1, 0.3), soon, true), (false, false));
        assert_eq!(begins(&undrained(6, 1000, 1, 0.3), soon, false), (true, true));
        assert_eq!(begins(&undrained(6, 500 << 20, 0, 0.1), soon, true), (false, false));
        assert_eq!(begins(&undrained(6, 900 << 20, 0, 0.1), soon, true), (true, true));
        assert_eq!(begins(&undrained(6, 100 << 20, 0, 0.1), soon, false), (false, false));
        assert_eq!(begins(&undrained(6, 250 << 20, 0, 0.1), soon, false), (true, true));
        assert_eq!(begins(&undrained(6, 1000, 0, 0.1), AFTER_QUIET, true), (false, false));
        assert_eq!(begins(&undrained(6, 1000, 0, 0.1), AFTER_QUIET, false), (true, true));
        assert_eq!(begins(&undrained(6, 1000, 0, 0.1), AFTER_BUSY, true), (true, true));
        // Log that was not applied cannot be drained.
        assert_eq!(begins(&undrained(5, 1 << 30, 0, 0.0), AFTER_BUSY, false), (false, false));
    }

    #[test]
    fn a_disk_that_gets_full_has_log_drained_that_would_make_room() {
        let begins = |log_bytes, room_bytes| {
            let undrained = Undrained { room_bytes, ..undrained(6, log_bytes, 0, 0.1) };
            begins(&undrained, Duration::from_secs(5), true).0
        };
        assert!(!begins(100 << 20, 100 << 20));
        assert!(begins(100 << 20, 99 << 20));
        assert!(!begins(30 << 20, 0), "too little to be worth it");
    }

    #[test]
    fn it_goes_on_until_no_layer_waits() {
        let now = Instant::now();
        let mut schedule = DrainSchedule::new(5, HEAD_EVERY_BYTES, now);
        schedule.look(&undrained(6, 0, 4, 0.0), now);
        for frozen in [3, 2, 3, 1] {
            assert!(!schedule.look(&undrained(6, 0, frozen, 0.0), now));
            assert!(schedule.drains());
        }
        schedule.look(&undrained(6, 0, 0, 0.0), now + AFTER_BUSY);
        assert!(!schedule.drains());
        schedule.look(&undrained(7, 0, 0, 0.0), now + AFTER_BUSY + AFTER_QUIET);
        assert!(!schedule.drains(), "the time counts from the end");
    }

    #[test]
    fn frequent_heads_make_for_frequent_drains() {
        for _ in 0..100 {
            assert!((2250.0..=3000.0).contains(&some_log_bytes(1000)));
            assert!((600e6..=800e6).contains(&some_log_bytes(1 << 40)));
        }
    }
}
