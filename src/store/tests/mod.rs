//! What the store as a whole promises: entry boundaries after every kill, one state per view, and
//! an engine that is believed only when it may be.

mod draining;
mod files;
mod order;
mod random;
mod trust;

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;

use super::*;

type Model = BTreeMap<Bytes, Bytes>;

/// The longest row that goes to the engine at once in these tests, where any does.
const INGESTED_ROW_BYTES_MAX: usize = 40;

/// What outlives the process of a simulated node.
#[derive(Clone, Default)]
struct Remains {
    engine: MemoryEngine,
    journal: MemoryFile,
    trust: MemoryFile,
}

impl Remains {
    /// With an engine that takes many rows at once.
    fn ingesting() -> Self {
        let remains = Remains::default();
        remains.engine.set_ingests(Some(INGESTED_ROW_BYTES_MAX));
        remains
    }

    fn open_with(&self, options: StoreOptions, boot_id: &str) -> (Store, Opened) {
        let place = StorePlace {
            engine: EngineChoice::Memory(self.engine.clone()),
            journal: Box::new(self.journal.clone()),
            trust: Box::new(self.trust.clone()),
            boot_id: boot_id.to_owned(),
        };
        Store::open(options, place).expect("opens")
    }

    fn open_on(&self, boot_id: &str) -> (Store, Opened) {
        self.open_with(options(), boot_id)
    }

    /// Spills every layer that waits for a view.
    fn open_spilling(&self, directory: &Path) -> (Store, Opened) {
        let spill_directory = Some(directory.to_owned());
        let options = StoreOptions { spill_directory, layers_bytes_max: 0, ..options() };
        self.open_with(options, "boot 1")
    }

    fn open(&self) -> (Store, Opened) {
        self.open_on("boot 1")
    }

    /// Another disk with the same bytes.
    fn fork(&self) -> Self {
        let copy = |file: &MemoryFile| {
            let copy = MemoryFile::new();
            copy.set(file.bytes());
            copy
        };
        Remains {
            engine: self.engine.fork(),
            journal: copy(&self.journal),
            trust: copy(&self.trust),
        }
    }
}

/// Small, so that a few rows make a layer of several batches.
fn options() -> StoreOptions {
    StoreOptions {
        layer_bytes: 2_000,
        drain_batch_rows: 3,
        ingest_rows_min: 4,
        cache_bytes: 100_000,
        ..StoreOptions::default()
    }
}

fn row(space: u32, name: &str) -> Bytes {
    [&space.to_be_bytes(), name.as_bytes()].concat().into()
}

fn all(rows: &dyn Rows) -> Model {
    let mut found = Model::new();
    rows.scan(&[], None, false, &mut |row, value| {
        found.insert(Bytes::copy_from_slice(row), value.clone());
        true
    })
    .expect("scans");
    found
}

fn exported(view: &FrozenView) -> Model {
    let mut found = Model::new();
    view.export_rows(&[], &mut |row, value| {
        found.insert(Bytes::copy_from_slice(row), value.clone());
        true
    })
    .expect("exports");
    found
}

/// Applies an entry that sets each named row of space 1 to the entry's index.
fn apply(store: &Store, names: &[&str]) -> u64 {
    let index = store.applied() + 1;
    let mut entry = store.entry();
    for name in names {
        entry.put(row(1, name), index.to_string().into());
    }
    entry.commit(index);
    index
}

fn drain(store: &Store) {
    store.freeze_for_drain();
    while store.drain_step(&|| u64::MAX).expect("drains").worked() {}
}

/// A store that drained and synced 5 entries of two rows each.
fn synced_remains() -> Remains {
    let remains = Remains::default();
    let (store, opened) = remains.open();
    assert_eq!(opened, Opened { applied: 0, distrust: None });
    for _ in 0..5 {
        apply(&store, &["a", "b"]);
    }
    drain(&store);
    assert_eq!(store.sync().expect("syncs"), 5);
    remains
}

fn assert_wiped(remains: &Remains, boot_id: &str, expected: &Distrust) {
    let (store, opened) = remains.open_on(boot_id);
    assert_eq!(opened.distrust.as_ref(), Some(expected));
    assert_eq!((opened.applied, all(&store.read())), (0, Model::new()));
    // And the wiped engine is a good one from here on.
    apply(&store, &["x"]);
    drain(&store);
    drop(store);
    assert_eq!(remains.open_on(boot_id).1, Opened { applied: 1, distrust: None });
}

fn random_row(random: &mut fastrand::Rng) -> Bytes {
    let tag = ["D", "K", "K", "L"][random.usize(..4)];
    row(random.u32(1..3), &format!("{tag}{}", random.u8(b'a'..b'f').escape_ascii()))
}

/// Where a range may begin or end: a row, or some of its first bytes.
fn random_bound(random: &mut fastrand::Rng) -> Bytes {
    let row = random_row(random);
    let kept = if random.u8(..4) == 0 { random.usize(..row.len()) } else { row.len() };
    row.slice(..kept)
}

/// Compares a point and a range, in both directions and cut short.
fn compare(rows: &dyn Rows, state: &Model, random: &mut fastrand::Rng, seed: u64) {
    let point = random_row(random);
    assert_eq!(rows.get(&point).expect("reads").as_ref(), state.get(&point), "seed {seed}");
    let (a, b) = (random_bound(random), random_bound(random));
    let end = random.bool().then_some(&b[..]);
    let limit = random.usize(1..30);
    let in_range = |row: &[u8]| row >= &a[..] && end.is_none_or(|end| row < end);
    for reverse in [false, true] {
        let mut found = Vec::new();
        rows.scan(&a, end, reverse, &mut |row, value| {
            found.push((Bytes::copy_from_slice(row), value.clone()));
            found.len() < limit
        })
        .expect("scans");
        let mut expected: Vec<_> = state
            .iter()
            .filter(|(row, _)| in_range(row))
            .map(|(r, v)| (r.clone(), v.clone()))
            .collect();
        if reverse {
            expected.reverse();
        }
        expected.truncate(limit);
        assert_eq!(found, expected, "seed {seed}, reverse {reverse}");
    }
}

#[test]
fn an_entry_scans_its_own_changes_as_they_come_and_go() {
    let (store, _) = Remains::default().open();
    apply(&store, &["a", "d"]);
    let mut entry = store.entry();
    let shown = |entry: &EntryRows, reverse| {
        let mut names = String::new();
        entry
            .scan(&row(1, ""), Some(&row(2, "")), reverse, &mut |row, _| {
                names.push_str(&String::from_utf8_lossy(&row[4..]));
                true
            })
            .unwrap();
        names
    };
    entry.put(row(1, "c"), Bytes::new());
    assert_eq!(shown(&entry, false), "acd");
    entry.put(row(1, "b"), Bytes::new());
    entry.delete(row(1, "d"));
    assert_eq!(shown(&entry, true), "cba");
    entry.begin_part();
    entry.put(row(1, "x"), Bytes::new());
    entry.put(row(1, "d"), Bytes::new());
    entry.delete(row(1, "c"));
    assert_eq!(shown(&entry, false), "abdx");
    entry.undo_part();
    assert_eq!(shown(&entry, false), "abc");
    entry.commit(store.applied() + 1);
}

#[test]
fn a_reader_is_told_of_removed_rows_that_it_steps_over() {
    let (store, _) = Remains::default().open();
    apply(&store, &["a", "b", "c", "d"]);
    drain(&store);
    let mut entry = store.entry();
    entry.delete(row(1, "b"));
    entry.delete(row(1, "c"));
    entry.put(row(1, "x"), Bytes::new());
    entry.commit(store.applied() + 1);
    for reverse in [false, true] {
        let (mut there, mut removed) = (String::new(), String::new());
        let (first, end) = (row(1, ""), row(2, ""));
        store
            .read()
            .scan_with_removed(&first, Some(&end), reverse, &mut |row, value| {
                let names = if value.is_some() { &mut there } else { &mut removed };
                names.push_str(&String::from_utf8_lossy(&row[4..]));
                true
            })
            .unwrap();
        let expected = if reverse { ("xda", "cb") } else { ("adx", "bc") };
        assert_eq!((&there[..], &removed[..]), expected);
    }
}

/// Expecting rows is a hint: those of layers, of the engine and of none.
#[test]
fn expecting_rows_changes_nothing() {
    let remains = Remains::default();
    let (store, _) = remains.open();
    apply(&store, &["engine", "both"]);
    drain(&store);
    apply(&store, &["frozen", "both"]);
    store.freeze_for_drain();
    apply(&store, &["active"]);
    let before = all(&store.read());
    let mut rows = RowList::default();
    for name in ["engine", "both", "frozen", "active", "none", ""] {
        rows.add(&[&1u32.to_be_bytes(), name.as_bytes()]);
    }
    let names: Vec<&[u8]> = rows.iter().map(|row| &row[4..]).collect();
    assert_eq!(names, [&b"engine"[..], b"both", b"frozen", b"active", b"none", b""]);
    let mut entry = store.entry();
    entry.expect(&rows);
    assert_eq!(all(&entry), before);
    entry.put(row(1, "none"), "4".into());
    entry.expect(&rows);
    entry.commit(4);
    rows.clear();
    assert!(rows.is_empty());
    assert_eq!(all(&store.read()).len(), before.len() + 1);
}

/// Who must not wait gets an answer from memory or none, and then nothing has happened.
#[test]
fn an_entry_in_memory_waits_for_nothing() {
    let remains = Remains::default();
    let (store, _) = remains.open_with(StoreOptions { cache_bytes: 0, ..options() }, "boot 1");
    apply(&store, &["engine"]);
    drain(&store);
    apply(&store, &["layer"]);
    let not_in_memory = |result| matches!(result, Err(StoreError::NotInMemory));
    let would_wait = |result| matches!(result, Err(StoreError::WouldWait));
    let mut entry = store.entry_in_memory();
    assert_eq!(entry.get(&row(1, "layer")).expect("is in memory"), Some("2".into()));
    entry.put(row(1, "own"), "3".into());
    assert_eq!(entry.get(&row(1, "own")).expect("is in memory"), Some("3".into()));
    for name in ["engine", "none"] {
        assert!(not_in_memory(entry.get(&row(1, name)).map(drop)), "{name}");
        assert!(not_in_memory(entry.peek(&row(1, name), &mut |_| ())), "{name}");
    }
    assert!(would_wait(entry.scan(&[], None, false, &mut |_, _| true)));

    // Others may read beside it while it reads, but not while it commits.
    let view = store.read();
    assert!(entry.get(&row(1, "layer")).is_ok());
    assert!(!entry.try_commit(3));
    let before = all(&view);
    drop(view);
    assert_eq!((store.applied(), all(&store.read())), (2, before));

    let mut entry = store.entry_in_memory();
    entry.put(row(1, "own"), "3".into());
    assert!(entry.try_commit(3));
    assert_eq!((store.applied(), all(&store.read()).len()), (3, 3));
    // While somebody writes, it does not even read.
    let writer = store.shared.layers.write();
    let entry = store.entry_in_memory();
    assert!(would_wait(entry.get(&row(1, "layer")).map(drop)));
    drop((writer, entry));

    // Long values are for who may take long, also those of the entry itself.
    let long = Bytes::from(vec![0; 100 << 10]);
    let mut entry = store.entry();
    entry.put(row(1, "long"), long.clone());
    entry.commit(4);
    let mut entry = store.entry_in_memory();
    entry.put(row(1, "own"), long);
    for _ in 0..2 {
        assert!(entry.get(&row(1, "long")).is_ok());
    }
    assert!(would_wait(entry.get(&row(1, "own")).map(drop)));
    assert!(would_wait(entry.peek(&row(1, "long"), &mut |_| ())));
}

#[test]
fn entries_scan_from_behind_what_is_gone_for_good_and_views_do_not() {
    let (store, _) = Remains::default().open();
    apply(&store, &["a", "b", "c", "d"]);
    let from = |rows: &dyn Rows, name: &str| -> usize {
        let mut found = 0;
        let count = &mut |_: &[u8], _: &Bytes| {
            found += 1;
            true
        };
        rows.scan(&row(1, name), None, false, count).expect("scans");
        found
    };
    // Rows that are there show that they are not looked at.
    let mut entry = store.entry();
    entry.stays_empty(row(1, ""), row(1, "c"));
    assert_eq!(from(&entry, "a"), 2);
    drop(entry);
    assert_eq!(from(&store.entry(), "a"), 4);
    let mut entry = store.entry();
    entry.stays_empty(row(1, ""), row(1, "c"));
    entry.commit(2);
    assert_eq!(from(&store.entry(), "a"), 2);
    assert_eq!(from(&store.entry(), "d"), 1);
    assert_eq!(from(&store.read(), "a"), 4);

    let mut entry = store.entry();
    entry.retire_space(1);
    entry.commit(3);
    assert_eq!(from(&store.entry(), "a"), 4);
}
