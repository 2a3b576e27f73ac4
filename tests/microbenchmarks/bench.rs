//! Microbenchmarks: what one step of a command costs by itself, without threads and sockets.
//!
//! `cargo bench` runs them all, `cargo bench -- apply` those whose name contains a word. Figures of
//! a whole cluster are `compat/bench`'s business.

use bytes::{Bytes, BytesMut};
use criterion::Criterion;

use arakoon::command::batch::{encode_command, seal};
use arakoon::command::{Replies, apply_batch};
use arakoon::store::{EngineChoice, MemoryFile, Store, StoreOptions, StorePlace};

mod apply;
mod decoder;
mod log_append;
mod range;

/// The program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As `arakoon bench` has them.
const VALUE_BYTES: usize = 100;
/// Keys in the store.
const KEYS: u64 = 100_000;
/// SETs in a batch: what 50 clients without a pipeline bring together, about.
const BATCH_SETS: u32 = 20;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    decoder::run(&mut criterion);
    log_append::run(&mut criterion);
    apply::run(&mut criterion);
    range::run(&mut criterion);
    criterion.final_summary();
}

fn key_name(number: u64) -> String {
    format!("key:{number:012}")
}

/// An entry of the log that sets these keys.
fn set_batch(keys: impl Iterator<Item = u64>) -> Bytes {
    let mut items = BytesMut::new();
    let mut count = 0;
    for key in keys {
        let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
        encode_command(&mut items, 0, &[Bytes::from("SET"), Bytes::from(key_name(key)), value]);
        count += 1;
    }
    seal(1_700_000_000_000, 1, count, &[items])
}

/// A store on this engine with all keys, in its write-behind layer.
fn filled_store(engine: EngineChoice) -> Store {
    let place = StorePlace {
        engine,
        journal: Box::new(MemoryFile::new()),
        trust: Box::new(MemoryFile::new()),
        boot_id: "boot".to_owned(),
    };
    let (store, _) = Store::open(StoreOptions::default(), place).expect("an empty store opens");
    for first in (0..KEYS).step_by(1000) {
        apply_and_commit(&store, &set_batch(first..first + 1000));
    }
    store
}

fn apply_and_commit(store: &Store, batch: &Bytes) {
    let index = store.applied() + 1;
    let mut rows = store.entry();
    apply_batch(index, batch, &mut rows, Replies::Wanted).expect("a batch of SETs can be applied");
    rows.commit(index);
}
