//! The clocks of the machine.
//!
//! Leases rest on the rate of the boot clock, and a real machine's runs right. So that tests of real
//! processes can have clocks that drift, `ARAKOON_TEST_CLOCK_PPM` makes this process see a boot
//! clock that runs so many millionths fast, or slow if negative, from the first look on. It is for
//! tests only: beyond 500 either way leases do not keep what they promise.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// The variable that lets this process's boot clock drift.
pub const TEST_DRIFT_VARIABLE: &str = "ARAKOON_TEST_CLOCK_PPM";

/// Microseconds of the boot clock, which never goes back and runs while the machine sleeps.
pub fn boot_us() -> u64 {
    static DRIFT: OnceLock<Option<Drift>> = OnceLock::new();
    let now_us = machine_boot_us();
    match DRIFT.get_or_init(|| Some(Drift { since_us: now_us, ppm: test_drift_ppm()? })) {
        None => now_us,
        Some(drift) => drift.apply(now_us),
    }
}

/// How far from the right rate a test wants this process's boot clock, in millionths.
pub fn test_drift_ppm() -> Option<i64> {
    std::env::var(TEST_DRIFT_VARIABLE).ok()?.parse().ok()
}

/// Milliseconds since the epoch, by the wall clock.
pub fn wall_ms() -> u64 {
    // A wall clock before 1970 counts as 1970; the log's clock does not follow it anyway.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn machine_boot_us() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}

/// A clock that was right at `since_us` and has run at another rate since.
struct Drift {
    since_us: u64,
    ppm: i64,
}

impl Drift {
    fn apply(&self, now_us: u64) -> u64 {
        let elapsed_us = now_us.saturating_sub(self.since_us);
        now_us.saturating_add_signed(elapsed_us as i64 * self.ppm / 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drifting_clock_gains_or_loses_by_its_rate() {
        let second_us = 1_000_000;
        let fast = Drift { since_us: second_us, ppm: 500 };
        assert_eq!(fast.apply(second_us), second_us);
        assert_eq!(fast.apply(11 * second_us), 11 * second_us + 5_000);
        let slow = Drift { since_us: 0, ppm: -500 };
        assert_eq!(slow.apply(10 * second_us), 10 * second_us - 5_000);
    }
}
