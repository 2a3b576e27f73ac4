//! How long calls of one command took: counts in buckets that many threads add to without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets for each power of two: a value is known to an eighth of itself.
const PARTS: u64 = 8;
/// Values from here on, twelve days in microseconds, count as this.
const VALUE_MAX: u64 = (1 << 40) - 1;
const BUCKETS: usize = bucket_of(VALUE_MAX) + 1;

/// Counts of microseconds.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: [const { AtomicU64::new(0) }; BUCKETS] }
    }
}

const fn bucket_of(us: u64) -> usize {
    if us < PARTS {
        return us as usize;
    }
    let power = us.ilog2();
    let part = (us >> (power - 3)) % PARTS;
    ((power as u64 - 2) * PARTS + part) as usize
}

/// The highest value that falls into a bucket.
fn top_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < PARTS {
        return bucket;
    }
    let (power, part) = (bucket / PARTS + 2, bucket % PARTS);
    ((PARTS + part + 1) << (power - 3)) - 1
}

impl Histogram {
    /// `count` calls took `us` each.
    pub fn add(&self, us: u64, count: u64) {
        self.buckets[bucket_of(us.min(VALUE_MAX))].fetch_add(count, Ordering::Relaxed);
    }

    fn counts(&self) -> impl Iterator<Item = u64> {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed))
    }

    /// All calls.
    pub fn count(&self) -> u64 {
        self.counts().sum()
    }

    /// What so many of a hundred calls took at most, to an eighth.
    pub fn percentile(&self, percent: f64) -> u64 {
        let wanted = (self.count() as f64 * percent / 100.0).ceil().max(1.0) as u64;
        let mut seen = 0;
        let reached = self.counts().position(|count| {
            seen += count;
            seen >= wanted
        });
        reached.map_or(0, top_of)
    }

    /// For each power of two where the count grows: how many calls took less.
    pub fn powers(&self) -> Vec<(u64, u64)> {
        let (mut powers, mut below, mut last) = (Vec::new(), 0, 0);
        for (bucket, count) in self.counts().enumerate() {
            below += count;
            let next = top_of(bucket) + 1;
            if next.is_power_of_two() && below > last {
                powers.push((next, below));
                last = below;
            }
        }
        powers
    }

    /// Forgets all.
    pub fn reset(&self) {
        self.buckets.iter().for_each(|bucket| bucket.store(0, Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_a_bucket_that_is_an_eighth_wide() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..10_000 {
            let us = random.u64(..=VALUE_MAX) >> random.u32(..40);
            let top = top_of(bucket_of(us));
            assert!(top >= us && top - us <= us / PARTS, "{us} is in a bucket up to {top}");
            assert!(us == 0 || top_of(bucket_of(us) - usize::from(us > 0)) < us || us < PARTS);
        }
    }

    #[test]
    fn percentiles_and_powers_say_what_was_added() {
        let histogram = Histogram::default();
        assert_eq!((histogram.percentile(99.0), histogram.powers()), (0, vec![]));
        histogram.add(3, 98);
        histogram.add(100, 1);
        histogram.add(u64::MAX, 1);
        assert_eq!(histogram.percentile(50.0), 3);
        assert_eq!(histogram.percentile(99.0), 103);
        assert_eq!(histogram.percentile(100.0), VALUE_MAX);
        assert_eq!(histogram.powers(), [(4, 98), (128, 99), (1 << 40, 100)]);
        histogram.reset();
        assert_eq!(histogram.count(), 0);
    }
}
