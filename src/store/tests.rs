//! What the store as a whole promises: entry boundaries after every kill, one state per view, and
//! an engine that is believed only when it may be.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bytes::Bytes;

use super::*;

type Model = BTreeMap<Bytes, Bytes>;

/// What outlives the process of a simulated node.
#[derive(Clone, Default)]
struct Remains {
    engine: MemoryEngine,
    journal: MemoryFile,
    trust: MemoryFile,
}

impl Remains {
    fn open_on(&self, boot_id: &str) -> (Store, Opened) {
        let place = StorePlace {
            engine: EngineChoice::Memory(self.engine.clone()),
            journal: Box::new(self.journal.clone()),
            trust: Box::new(self.trust.clone()),
            boot_id: boot_id.to_owned(),
        };
        let options = StoreOptions { layer_bytes: 2_000, drain_batch_rows: 3, ..options() };
        Store::open(options, place).expect("opens")
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

fn options() -> StoreOptions {
    StoreOptions { cache_bytes: 100_000, ..StoreOptions::default() }
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
    while store.drain_step(u64::MAX).expect("drains").worked() {}
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

#[test]
fn trusted_after_a_killed_process() {
    let (store, opened) = synced_remains().open();
    assert_eq!(opened, Opened { applied: 5, distrust: None });
    assert_eq!(store.read().get(&row(1, "a")).expect("reads"), Some("5".into()));
}

#[test]
fn distrusted_below_the_floor() {
    let remains = synced_remains();
    let old = remains.fork();
    let (store, _) = remains.open();
    apply(&store, &["a"]);
    drain(&store);
    store.sync().expect("syncs");
    remains.engine.wipe().expect("wipes");
    // The engine of an older time, as if the disk had lost what it had said is synced.
    let older = Remains { engine: old.engine, ..remains };
    assert_wiped(&older, "boot 1", &Distrust::BelowFloor { applied: 5, floor: 6 });
}

#[test]
fn distrusted_when_emptied() {
    let remains = synced_remains();
    remains.engine.wipe().expect("wipes");
    assert_wiped(&remains, "boot 1", &Distrust::Emptied { floor: 5 });
}

#[test]
fn distrusted_on_another_boot_without_a_clean_stop() {
    assert_wiped(&synced_remains(), "boot 2", &Distrust::BootChanged);
}

#[test]
fn trusted_on_another_boot_after_a_clean_stop() {
    let remains = synced_remains();
    let (store, _) = remains.open();
    apply(&store, &["c"]);
    store.close(u64::MAX).expect("closes");
    assert_eq!(remains.open_on("boot 2").1, Opened { applied: 6, distrust: None });
}

#[test]
fn distrusted_without_its_trust_file() {
    let remains = synced_remains();
    remains.trust.set(None);
    assert_wiped(&remains, "boot 1", &Distrust::NoTrustFile("missing"));
}

#[test]
fn distrusted_with_any_flipped_bit_in_the_trust_file() {
    let remains = synced_remains();
    let bytes = remains.trust.bytes().expect("is there");
    for bit in 0..bytes.len() * 8 {
        let remains = remains.fork();
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        remains.trust.set(Some(damaged));
        assert_eq!(remains.open().1.distrust, Some(Distrust::NoTrustFile("damaged")));
    }
}

#[test]
fn distrusted_after_another_engine() {
    let remains = synced_remains();
    let directory = tempfile::tempdir().expect("a directory");
    let place = StorePlace {
        engine: EngineChoice::sled(directory.path().join("sled")),
        journal: Box::new(remains.journal.clone()),
        trust: Box::new(remains.trust.clone()),
        boot_id: "boot 1".into(),
    };
    let (_, opened) = Store::open(options(), place).expect("opens");
    assert_eq!(opened.distrust, Some(Distrust::OtherEngine { before: "memory".into() }));
}

#[test]
fn distrusted_after_a_read_met_flipped_bits() {
    let clean = synced_remains();
    for bit in 0..40 {
        let remains = clean.fork();
        remains.engine.damage(0, bit);
        let (store, opened) = remains.open();
        assert_eq!(opened.distrust, None);
        let read = store.read().get(&row(1, "a"));
        assert!(matches!(read, Err(StoreError::Damaged(_))), "bit {bit}: {read:?}");
        drop(store);
        let (_, opened) = remains.open();
        assert!(matches!(opened.distrust, Some(Distrust::Marked(_))), "{opened:?}");
    }
}

#[test]
fn distrusted_when_the_journal_of_a_half_drained_layer_is_gone_or_damaged() {
    let remains = synced_remains();
    let (store, _) = remains.open();
    apply(&store, &["a", "b", "c", "d", "e"]);
    store.freeze_for_drain();
    for _ in 0..2 {
        assert_eq!(store.drain_step(6).expect("drains"), DrainProgress::Worked);
    }
    drop(store);
    remains.engine.flush().expect("flushes");
    let bytes = remains.journal.bytes().expect("is there");
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    for journal in [None, Some(bytes[..bytes.len() - 1].to_vec()), Some(flipped)] {
        let remains = remains.fork();
        remains.journal.set(journal);
        let distrust = remains.open().1.distrust;
        assert!(matches!(distrust, Some(Distrust::HalfDrained(_))), "{distrust:?}");
    }
    assert_eq!(remains.open().1, Opened { applied: 6, distrust: None });
}

#[test]
fn a_torn_journal_means_that_draining_had_not_begun() {
    let remains = synced_remains();
    let (store, _) = remains.open();
    apply(&store, &["a", "b", "c"]);
    store.freeze_for_drain();
    store.drain_step(6).expect("drains");
    let bytes = remains.journal.bytes().expect("is there");
    drop(store);
    for length in 0..bytes.len() {
        let remains = remains.fork();
        remains.journal.set(Some(bytes[..length].to_vec()));
        assert_eq!(remains.open().1, Opened { applied: 5, distrust: None });
        assert_eq!(remains.journal.bytes(), None);
    }
}

#[test]
fn an_interrupted_rebuild_starts_again_and_a_finished_one_is_trusted() {
    let remains = synced_remains();
    let (store, _) = remains.open();
    let mut rebuild = store.rebuild().expect("starts");
    for name in ["a", "b", "c", "d", "e"] {
        rebuild.push(row(1, name), b"head").expect("takes a row");
        assert!(matches!(store.read().get(&row(1, "a")), Err(StoreError::Replaced)));
    }
    let half = remains.fork();
    assert_wiped(&half, "boot 1", &Distrust::Marked("a rebuild was interrupted".into()));
    rebuild.finish(40).expect("finishes");
    assert_eq!((store.applied(), store.synced()), (40, 40));
    assert_eq!(apply(&store, &["b"]), 41);
    drop(store);
    let (store, opened) = remains.open();
    assert_eq!(opened, Opened { applied: 40, distrust: None });
    assert_eq!(all(&store.read()).len(), 5);
}

#[test]
fn a_view_of_a_replaced_state_fails_instead_of_answering() {
    let (store, _) = synced_remains().open();
    let view = store.freeze();
    store.reset_to_rows(9, [Ok((row(1, "z"), "head".into()))]).expect("resets");
    assert!(matches!(view.get(&row(1, "a")), Err(StoreError::Replaced)));
    let exported = view.export_rows(&[], &mut |_, _| true);
    assert!(matches!(exported, Err(StoreError::Replaced)));
    assert_eq!(all(&store.read()), Model::from([(row(1, "z"), "head".into())]));
}

#[test]
fn draining_passes_neither_the_synced_log_nor_a_living_view() {
    let (store, _) = Remains::default().open();
    apply(&store, &["a"]);
    store.freeze_for_drain();
    assert_eq!(store.drain_step(0).expect("waits"), DrainProgress::Idle);
    let view = store.freeze();
    apply(&store, &["a"]);
    drain(&store);
    assert_eq!(store.drained(), 1);
    assert_eq!(view.get(&row(1, "a")).expect("reads"), Some("1".into()));
    drop(view);
    drain(&store);
    assert_eq!(store.drained(), 2);
}

#[test]
fn a_kill_at_any_step_of_draining_leaves_an_entry_boundary() {
    // Entry n writes the row "all" and one of its own, so a state shows which entries it holds.
    let run = |kill_after: Option<usize>| {
        let remains = Remains::default();
        let (store, _) = remains.open();
        let mut states = vec![Model::new()];
        let mut steps = 0;
        for number in 0..12 {
            apply(&store, &["all", &format!("own {number}")]);
            if number % 4 == 3 {
                let mut entry = store.entry();
                entry.delete(row(1, "own 0"));
                entry.retire_space(7);
                states.push(all(&store.read()));
                entry.commit(store.applied() + 1);
                store.freeze_for_drain();
            }
            states.push(all(&store.read()));
        }
        while kill_after != Some(steps) && store.drain_step(u64::MAX).expect("drains").worked() {
            steps += 1;
        }
        (remains, states, steps)
    };
    let (_, _, steps) = run(None);
    assert!(steps >= 12, "only {steps} steps");
    for kill_after in 0..=steps {
        let (remains, states, _) = run(Some(kill_after));
        for kept in 0..=remains.engine.unflushed() {
            let remains = remains.fork();
            remains.engine.lose_unflushed(kept);
            let (store, opened) = remains.open();
            assert_eq!(opened.distrust, None, "killed after {kill_after}, kept {kept}");
            assert_eq!(
                all(&store.read()),
                states[opened.applied as usize],
                "killed after {kill_after}, kept {kept}, applied {}",
                opened.applied
            );
        }
    }
}

#[test]
fn a_retired_space_leaves_exports_at_once_and_the_engine_in_time_also_across_kills() {
    let remains = Remains::default();
    let (store, _) = remains.open();
    let mut entry = store.entry();
    for number in 0..20 {
        entry.put(row(5, &number.to_string()), "old".into());
    }
    entry.put(row(4, "kept"), "4".into());
    entry.put(row(6, "kept"), "6".into());
    entry.commit(1);
    drain(&store);
    let before = store.freeze();
    let mut entry = store.entry();
    entry.begin_part();
    entry.retire_space(4);
    entry.undo_part();
    entry.retire_space(5);
    entry.commit(2);
    let live = Model::from([(row(4, "kept"), "4".into()), (row(6, "kept"), "6".into())]);
    assert_eq!(exported(&store.freeze()), live);
    assert_eq!(exported(&before).len(), 22);
    drop(before);
    store.freeze_for_drain();
    // Killed and opened again after every step, now and then before the step was flushed.
    let mut random = fastrand::Rng::with_seed(3);
    let mut store = store;
    loop {
        store.freeze_for_drain();
        let worked = store.drain_step(2).expect("drains").worked();
        let applied = store.applied();
        drop(store);
        remains.engine.lose_unflushed(random.usize(0..2));
        let opened;
        (store, opened) = remains.open();
        if opened.applied < applied {
            let mut entry = store.entry();
            entry.retire_space(5);
            entry.commit(2);
        }
        assert_eq!(exported(&store.freeze()), live);
        if !worked {
            break;
        }
    }
    assert_eq!(all(&store.read()), live);
}

/// A store under random use, beside plain maps.
#[test]
fn random_use_matches_a_plain_map() {
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let remains = Remains::default();
        let (mut store, _) = remains.open();
        // The state at each index, and views with the state they must keep showing.
        let mut states = vec![Model::new()];
        let mut views: Vec<(FrozenView, Model)> = Vec::new();
        for _ in 0..150 {
            match random.u8(0..20) {
                0..12 => random_entry(&store, &mut states, &mut random),
                12..15 => {
                    store.drain_step(random.u64(0..=store.applied())).expect("drains");
                }
                15 => store.freeze_for_drain(),
                16 => views.push((store.freeze(), states[states.len() - 1].clone())),
                17 if !views.is_empty() => {
                    views.swap_remove(random.usize(0..views.len()));
                }
                18 => {
                    store.sync().expect("syncs");
                }
                19 => {
                    views.clear();
                    drop(store);
                    remains.engine.lose_unflushed(random.usize(0..5));
                    let opened;
                    (store, opened) = remains.open();
                    assert_eq!(opened.distrust, None, "seed {seed}");
                    states.truncate(opened.applied as usize + 1);
                }
                _ => {}
            }
            let state = &states[states.len() - 1];
            assert_eq!(store.applied() as usize, states.len() - 1, "seed {seed}");
            compare(&store.read(), state, &mut random, seed);
            for (view, state) in &views {
                compare(view, state, &mut random, seed);
            }
        }
    }
}

fn random_row(random: &mut fastrand::Rng) -> Bytes {
    row(random.u32(1..3), &random.u8(b'a'..b'm').escape_ascii().to_string())
}

fn random_entry(store: &Store, states: &mut Vec<Model>, random: &mut fastrand::Rng) {
    let mut state = states[states.len() - 1].clone();
    let mut entry = store.entry();
    for _ in 0..random.usize(0..4) {
        let undone = random.u8(0..3) == 0;
        let before = state.clone();
        entry.begin_part();
        for _ in 0..random.usize(0..6) {
            let row = random_row(random);
            if random.bool() {
                let value = Bytes::from(vec![random.u8(..); random.usize(0..60)]);
                entry.put(row.clone(), value.clone());
                state.insert(row, value);
            } else {
                entry.delete(row.clone());
                state.remove(&row);
            }
            compare(&entry, &state, random, 0);
        }
        if undone {
            entry.undo_part();
            state = before;
        } else {
            entry.keep_part();
        }
    }
    compare(&entry, &state, random, 0);
    entry.commit(store.applied() + 1);
    states.push(state);
}

/// Compares a point and a range, in both directions and cut short.
fn compare(rows: &dyn Rows, state: &Model, random: &mut fastrand::Rng, seed: u64) {
    let (a, b) = (random_row(random), random_row(random));
    assert_eq!(rows.get(&a).expect("reads").as_ref(), state.get(&a), "seed {seed}");
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

fn sled_place(directory: &Path, boot_id: &str) -> StorePlace {
    StorePlace {
        engine: EngineChoice::Sled {
            directory: directory.join("sled"),
            cache_capacity_bytes: 1 << 20,
            flush_every_ms: 500,
        },
        journal: Box::new(RealFile::new(directory.join("drain.journal"))),
        trust: Box::new(RealFile::new(directory.join("store.trust"))),
        boot_id: boot_id.to_owned(),
    }
}

/// A directory with a sled store that synced 3 entries.
fn synced_sled() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, opened) =
        Store::open(options(), sled_place(directory.path(), "boot 1")).expect("opens");
    assert_eq!(opened, Opened { applied: 0, distrust: None });
    for _ in 0..3 {
        apply(&store, &["a", "b", "c"]);
    }
    drain(&store);
    store.sync().expect("syncs");
    directory
}

fn open_sled(directory: &Path) -> (Store, Opened) {
    Store::open(options(), sled_place(directory, "boot 1")).expect("opens")
}

#[test]
fn sled_keeps_rows_across_reopening_scans_both_ways_and_wipes() {
    let directory = synced_sled();
    let (store, opened) = open_sled(directory.path());
    assert_eq!(opened, Opened { applied: 3, distrust: None });
    let mut random = fastrand::Rng::with_seed(1);
    let state = all(&store.read());
    assert_eq!(state.len(), 3);
    for _ in 0..100 {
        compare(&store.read(), &state, &mut random, 1);
    }
    store.reset_to_rows(9, [Ok((row(1, "z"), "head".into()))]).expect("resets");
    store.close(9).expect("closes");
    drop(store);
    let (store, opened) =
        Store::open(options(), sled_place(directory.path(), "boot 2")).expect("opens");
    assert_eq!(opened, Opened { applied: 9, distrust: None });
    assert_eq!(all(&store.read()), Model::from([(row(1, "z"), "head".into())]));
}

#[test]
fn sled_with_a_leftover_of_opening_is_distrusted() {
    let directory = synced_sled();
    let leftover = directory.path().join("sled/snap.0000000000000000.generating");
    fs::write(&leftover, b"torn").expect("writes");
    let (_, opened) = open_sled(directory.path());
    assert_eq!(opened, Opened { applied: 0, distrust: Some(Distrust::Leftover) });
    assert!(!leftover.exists());
}

#[test]
fn sled_with_a_missing_directory_is_distrusted() {
    let directory = synced_sled();
    fs::remove_dir_all(directory.path().join("sled")).expect("removes");
    let (_, opened) = open_sled(directory.path());
    assert_eq!(opened, Opened { applied: 0, distrust: Some(Distrust::Emptied { floor: 3 }) });
}

#[test]
fn sled_that_fails_or_panics_at_open_is_distrusted() {
    // Each of these files is read at open; overwritten with noise, some make sled panic and others
    // return an error or come up empty. None may pass, and none may end the process.
    for name in ["conf", "db"] {
        let directory = synced_sled();
        let path = directory.path().join("sled").join(name);
        let length = fs::metadata(&path).expect("is there").len() as usize;
        let mut random = fastrand::Rng::with_seed(7);
        let noise: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
        fs::write(&path, noise).expect("writes");
        for snapshot in fs::read_dir(directory.path().join("sled")).expect("lists") {
            let snapshot = snapshot.expect("lists");
            if snapshot.file_name().to_string_lossy().starts_with("snap.") {
                fs::write(snapshot.path(), b"noise").expect("writes");
            }
        }
        let (store, opened) = open_sled(directory.path());
        assert!(opened.distrust.is_some(), "{name}");
        assert_eq!(apply(&store, &["a"]), 1);
    }
}

#[test]
fn sled_with_flipped_bits_never_answers_wrongly() {
    for seed in 0..10 {
        let directory = synced_sled();
        let path = directory.path().join("sled/db");
        let mut bytes = fs::read(&path).expect("reads");
        let used = bytes.iter().rposition(|byte| *byte != 0).expect("is not empty");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..20 {
            bytes[random.usize(0..used)] ^= 1 << random.u8(0..8);
        }
        fs::write(&path, bytes).expect("writes");
        let (store, opened) = open_sled(directory.path());
        if opened.distrust.is_some() {
            continue;
        }
        assert_eq!(opened.applied, 3);
        for name in ["a", "b", "c"] {
            match store.read().get(&row(1, name)) {
                Ok(value) => assert_eq!(value, Some("3".into()), "seed {seed}"),
                Err(error) => assert!(matches!(error, StoreError::Damaged(_)), "{error}"),
            }
        }
    }
}
