//! Reading a range of keys with their values, as AK.RANGE does.

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use resp::Reply;

use arakoon::command::outcome::run_read;
use arakoon::command::{Kind, find};
use arakoon::store::keyspace::View;
use arakoon::store::{EngineChoice, MemoryEngine, Store};

use super::{KEYS, filled_store, key_name};

const RANGE_KEYS: u64 = 100;

/// From the write-behind layer, and from sled.
pub fn run(criterion: &mut Criterion) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let layered = filled_store(EngineChoice::Memory(MemoryEngine::new()));
    let drained = filled_store(EngineChoice::sled(directory.path().join("store")));
    drained.freeze_for_drain();
    while drained.drain_step(&|| u64::MAX).expect("sled takes it").worked() {}

    let mut group = criterion.benchmark_group("range");
    group.throughput(Throughput::Elements(RANGE_KEYS));
    for (name, store) in [("layer", &layered), ("sled", &drained)] {
        let mut random = fastrand::Rng::with_seed(1);
        group.bench_function(format!("{RANGE_KEYS} keys with values, {name}"), |bencher| {
            bencher.iter(|| read(store, random.u64(0..KEYS - RANGE_KEYS)));
        });
    }
    group.finish();
}

fn read(store: &Store, first: u64) {
    let [from, to] = [first, first + RANGE_KEYS].map(key_name);
    let arguments = ["AK.RANGE", &format!("[{from}"), &format!("({to}"), "WITHVALUES"]
        .map(|argument| Bytes::copy_from_slice(argument.as_bytes()));
    let spec = find(b"ak.range").expect("a command of ours");
    let Kind::Read(range) = spec.kind else { unreachable!("AK.RANGE reads") };
    let rows = store.read();
    let view = View::open(&rows, 0, 0, 1).expect("a view of a whole state");
    let Ok(Reply::Array(found)) = run_read(range, &view, &arguments) else {
        unreachable!("AK.RANGE answers an array")
    };
    assert_eq!(found.len() as u64, 2 * RANGE_KEYS);
}
