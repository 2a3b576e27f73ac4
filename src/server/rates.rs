//! What happens in a second now: totals sampled at short intervals.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// Samples that are averaged.
const SAMPLES: usize = 16;

/// Totals at one time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) commands: u64,
    pub(super) bytes_read: u64,
    pub(super) bytes_written: u64,
}

/// The last samples, oldest first.
#[derive(Debug, Default)]
pub(super) struct Rates {
    samples: Mutex<VecDeque<(u64, Totals)>>,
}

impl Rates {
    pub(super) fn sample(&self, now_us: u64, totals: Totals) {
        let mut samples = self.samples.lock();
        samples.push_back((now_us, totals));
        if samples.len() > SAMPLES {
            samples.pop_front();
        }
    }

    /// What there was in a second, over the samples kept.
    pub(super) fn each_second(&self) -> Totals {
        let samples = self.samples.lock();
        let (Some((from_us, from)), Some((to_us, to))) = (samples.front(), samples.back()) else {
            return Totals::default();
        };
        let us = to_us - from_us;
        let rate = |from: u64, to: u64| {
            // CONFIG RESETSTAT may have come between.
            let more = u128::from(to.saturating_sub(from)) * 1_000_000;
            more.checked_div(u128::from(us)).unwrap_or(0) as u64
        };
        Totals {
            commands: rate(from.commands, to.commands),
            bytes_read: rate(from.bytes_read, to.bytes_read),
            bytes_written: rate(from.bytes_written, to.bytes_written),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_the_samples_that_are_kept() {
        let rates = Rates::default();
        assert_eq!(rates.each_second().commands, 0);
        for tick in 0..100 {
            let totals = Totals { commands: tick * 50, bytes_read: 7, bytes_written: 0 };
            rates.sample(tick * 100_000, totals);
        }
        let rates = rates.each_second();
        assert_eq!((rates.commands, rates.bytes_read), (500, 0));
    }
}
