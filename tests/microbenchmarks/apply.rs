//! Applying a batch of the log to a store in memory, replies included.

use criterion::{Criterion, Throughput};

use arakoon::store::{EngineChoice, MemoryEngine};

use super::{BATCH_SETS, KEYS, apply_and_commit, filled_store, set_batch};

/// Different batches, so that not always the same rows are in the processor's cache.
const BATCHES: usize = 4096;

/// SETs of random keys that are there already.
pub fn run(criterion: &mut Criterion) {
    let store = filled_store(EngineChoice::Memory(MemoryEngine::new()));
    let mut group = criterion.benchmark_group("apply");
    for sets in [1, BATCH_SETS, 200] {
        let mut random = fastrand::Rng::with_seed(1);
        let mut keys = || random.u64(0..KEYS);
        let batches: Vec<_> = (0..BATCHES).map(|_| set_batch((0..sets).map(|_| keys()))).collect();
        let mut next = batches.iter().cycle();
        group.throughput(Throughput::Elements(u64::from(sets)));
        group.bench_function(format!("batch of {sets} SETs"), |bencher| {
            bencher.iter(|| apply_and_commit(&store, next.next().expect("a cycle has no end")));
        });
    }
    group.finish();
}
