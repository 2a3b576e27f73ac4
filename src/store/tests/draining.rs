//! Draining, views and retired spaces, also when killed in between.

use std::fs;

use super::*;

#[test]
fn a_torn_journal_means_that_draining_had_not_begun() {
    let remains = synced_remains();
    let (store, _) = remains.open();
    apply(&store, &["a", "b", "c"]);
    store.freeze_for_drain();
    store.drain_step(&|| 6).expect("drains");
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
    assert_eq!(store.drain_step(&|| 0).expect("waits"), DrainProgress::Idle);
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
    // Its layers are drained one by one, or all together.
    let run = |remains: Remains, together: bool, kill_after: Option<usize>| {
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
            let drains = !together || number == 11;
            while drains
                && kill_after != Some(steps)
                && store.drain_step(&|| u64::MAX).expect("drains").worked()
            {
                steps += 1;
            }
            if kill_after == Some(steps) {
                break;
            }
        }
        (remains, states, steps)
    };
    let steps = |remains: fn() -> Remains, together| run(remains(), together, None).2;
    let batches: fn() -> Remains = Remains::default;
    let (one_by_one, together) = (steps(batches, false), steps(batches, true));
    assert!(together >= 7 && one_by_one >= 12, "only {together} and {one_by_one} steps");
    // At once: a step for each time, those that free the retired spaces' rows, none for batches.
    let at_once = (steps(Remains::ingesting, false), steps(Remains::ingesting, true));
    assert!(at_once.0 < one_by_one && at_once.1 < together, "{at_once:?} steps");
    let kills = |remains, together, steps| (0..=steps).map(move |kill| (remains, together, kill));
    let runs = kills(batches, false, one_by_one)
        .chain(kills(batches, true, together))
        .chain(kills(Remains::ingesting, false, at_once.0))
        .chain(kills(Remains::ingesting, true, at_once.1));
    for (remains, all_together, kill_after) in runs {
        let (remains, states, _) = run(remains(), all_together, Some(kill_after));
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
        let worked = store.drain_step(&|| 2).expect("drains").worked();
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

#[test]
fn what_waits_for_a_view_is_spilled_instead_of_filling_the_memory() {
    let directory = tempfile::tempdir().expect("a directory");
    let remains = Remains::default();
    let spill_directory = Some(directory.path().to_owned());
    let options = StoreOptions { spill_directory, layers_bytes_max: 20_000, ..options() };
    let (store, _) = remains.open_with(options, "boot 1");
    apply(&store, &["a"]);
    let view = store.freeze();
    let mut expected = all(&view);
    for number in 0..1_000 {
        let name = format!("row {}", number % 600);
        let index = apply(&store, &[&name]);
        expected.insert(row(1, &name), index.to_string().into());
        while store.drain_step(&|| u64::MAX).expect("spills").worked() {}
        assert!(!store.over_bound(), "{} bytes at entry {index}", store.layers_bytes());
    }
    assert_eq!((store.drained(), all(&view).len()), (1, 1));
    assert_eq!(all(&store.read()), expected);
    // Who must not wait reads no file, whatever it looks for.
    let entry = store.entry_in_memory();
    assert!(matches!(entry.get(&row(1, "row 0")), Err(StoreError::WouldWait)));
    drop(entry);
    for (row, value) in &expected {
        assert_eq!(store.freeze().get(row).expect("reads").as_ref(), Some(value));
    }
    // Without room it waits in memory.
    let (mut number, mut lacked_room) = (0, false);
    while store.layers_bytes() <= 20_000 {
        number += 1;
        expected.insert(
            row(1, "z"),
            apply(&store, &["z", &format!("more {number}")]).to_string().into(),
        );
        expected.insert(row(1, &format!("more {number}")), store.applied().to_string().into());
        let limits = DrainLimits { log_durable: &|| u64::MAX, bytes_max: 100, rest: &|_| () };
        let progress = store.drain_step_within(&limits).expect("waits");
        assert!(matches!(progress, DrainProgress::NoRoom | DrainProgress::Idle), "{progress:?}");
        lacked_room |= progress == DrainProgress::NoRoom;
    }
    assert!(lacked_room);
    while store.drain_step(&|| u64::MAX).expect("spills").worked() {}
    assert!(!store.over_bound());
    assert_eq!(fs::read_dir(directory.path()).expect("lists").count(), 0, "files with a name");
    drop(view);
    drain(&store);
    assert_eq!(store.drained(), store.applied());
    drop(store);
    assert_eq!(all(&remains.open().0.read()), expected);
}

#[test]
fn batches_shrink_while_the_engine_is_slow_and_grow_again() {
    let options = StoreOptions { drain_batch_rows: 256, ..options() };
    let (store, _) = Remains::default().open_with(options, "boot 1");
    let names: Vec<String> = (0..400).map(|n| format!("{n:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let steps_for_a_layer = || {
        apply(&store, &names);
        store.freeze_for_drain();
        let mut steps = 0;
        while store.drain_step(&|| u64::MAX).expect("drains").worked() {
            steps += 1;
        }
        steps
    };
    // The journal, then the batches.
    assert_eq!(steps_for_a_layer(), 1 + 2);
    store.note_step(5_000);
    assert_eq!(steps_for_a_layer(), 1 + 2);
    for _ in 0..20 {
        store.note_step(50_000);
    }
    assert_eq!(steps_for_a_layer(), 1 + 25, "16 rows at a time at least");
    for _ in 0..100 {
        store.note_step(100);
    }
    assert_eq!(steps_for_a_layer(), 1 + 2);
}

/// What the log says of an index may change until it is on disk, and a layer may be added at any time:
/// so whoever drains asks the log while no layer can be added.
#[test]
fn the_log_is_asked_while_no_layer_can_be_added() {
    let (store, _) = Remains::default().open();
    apply(&store, &["a"]);
    store.freeze_for_drain();
    let asked = std::cell::Cell::new(0);
    let durable = || {
        assert!(store.shared.layers.try_write().is_none(), "a layer could be added now");
        asked.set(asked.get() + 1);
        1
    };
    while store.drain_step(&durable).expect("drains").worked() {}
    assert!(asked.get() > 0);
    assert_eq!(store.drained(), 1);
}

#[test]
fn many_short_rows_go_at_once_and_others_in_batches() {
    let remains = Remains::ingesting();
    let (store, _) = remains.open();
    let names = |count: usize| (0..count).map(|name| format!("row {name}")).collect::<Vec<_>>();
    let put = |names: &[String]| {
        apply(&store, &names.iter().map(String::as_str).collect::<Vec<_>>());
        store.freeze_for_drain();
    };
    let step = |store: &Store| store.drain_step(&|| u64::MAX).expect("drains");
    put(&names(4));
    assert_eq!(step(&store), DrainProgress::Drained(1));
    // Few.
    put(&names(3));
    assert_eq!(step(&store), DrainProgress::Worked);
    assert!(remains.journal.bytes().is_some());
    assert_eq!(step(&store), DrainProgress::Drained(2));
    // One is too long by a byte, with its space in front of it.
    let long = |bytes: usize| "x".repeat(bytes - 4);
    put(&[names(4), vec![long(INGESTED_ROW_BYTES_MAX + 1)]].concat());
    assert_eq!(step(&store), DrainProgress::Worked);
    while step(&store) != DrainProgress::Drained(3) {}
    put(&[names(4), vec![long(INGESTED_ROW_BYTES_MAX)]].concat());
    assert_eq!(step(&store), DrainProgress::Drained(4));
    assert_eq!(remains.journal.bytes(), None);
    let before = all(&store.read());
    drop(store);
    assert_eq!(all(&remains.open().0.read()), before);
}

#[test]
fn who_drains_many_rows_at_once_rests_between() {
    let remains = Remains::ingesting();
    let options = StoreOptions { layer_bytes: 64 << 20, ..options() };
    let (store, _) = remains.open_with(options, "boot 1");
    let mut entry = store.entry();
    for name in 0..10_000 {
        entry.put(row(1, &format!("{name:05}")), Bytes::from("v"));
    }
    entry.commit(1);
    store.freeze_for_drain();
    let rests = std::cell::Cell::new(0);
    let rest = |_| {
        // Others go on meanwhile, and see all of it.
        assert_eq!(store.read().get(&row(1, "00007")).expect("reads"), Some("v".into()));
        apply(&store, &["meanwhile"]);
        rests.set(rests.get() + 1);
    };
    let limits = DrainLimits { log_durable: &|| 1, bytes_max: 0, rest: &rest };
    let progress = store.drain_step_within(&limits).expect("drains");
    assert_eq!((progress, rests.get()), (DrainProgress::Drained(1), 20));
    assert_eq!(all(&store.read()).len(), 10_001);
}

/// A file on a disk that is full now and then; what fits of a journal is written.
#[derive(Clone, Default)]
struct FullDisk {
    file: MemoryFile,
    full: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl SmallFile for FullDisk {
    fn read(&self) -> std::io::Result<Option<Vec<u8>>> {
        self.file.read()
    }

    fn write(&self, bytes: &[u8]) -> std::io::Result<()> {
        if self.full.load(std::sync::atomic::Ordering::Relaxed) {
            self.file.write(&bytes[..bytes.len() / 2])?;
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.file.write(bytes)
    }

    fn replace(&self, bytes: &[u8]) -> std::io::Result<()> {
        match self.full.load(std::sync::atomic::Ordering::Relaxed) {
            true => Err(std::io::ErrorKind::StorageFull.into()),
            false => self.file.replace(bytes),
        }
    }

    fn remove(&self) -> std::io::Result<()> {
        self.file.remove()
    }
}

#[test]
fn a_journal_that_finds_no_room_is_tried_again() {
    let journal = FullDisk::default();
    let place = StorePlace { journal: Box::new(journal.clone()), ..StorePlace::in_memory() };
    let (store, _) = Store::open(options(), place).expect("opens");
    apply(&store, &["a", "b", "c"]);
    store.freeze_for_drain();
    journal.full.store(true, std::sync::atomic::Ordering::Relaxed);
    let before = all(&store.read());
    for _ in 0..2 {
        let progress = store.drain_step(&|| 1).expect("nothing has failed");
        assert_eq!((progress, store.drained()), (DrainProgress::NoRoom, 0));
        assert!(!progress.worked() && journal.file.bytes().is_none());
        assert_eq!(all(&store.read()), before);
    }
    journal.full.store(false, std::sync::atomic::Ordering::Relaxed);
    drain(&store);
    assert_eq!((store.drained(), all(&store.read())), (1, before));
}

#[test]
fn a_floor_that_finds_no_room_is_raised_later() {
    let trust = FullDisk::default();
    let place = StorePlace { trust: Box::new(trust.clone()), ..StorePlace::in_memory() };
    let (store, _) = Store::open(options(), place).expect("opens");
    apply(&store, &["a", "b", "c"]);
    store.freeze_for_drain();
    drain(&store);
    trust.full.store(true, std::sync::atomic::Ordering::Relaxed);
    let before = trust.file.bytes();
    for _ in 0..2 {
        assert_eq!(store.sync().expect("nothing has failed"), 0);
        assert_eq!((store.synced(), store.drained()), (0, 1));
        assert_eq!(trust.file.bytes(), before);
    }
    trust.full.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!((store.sync().expect("syncs"), store.synced()), (1, 1));
    assert_ne!(trust.file.bytes(), before);
}

#[test]
fn layers_may_take_more_memory_beside_a_large_cache() {
    let sizes = |cache_bytes| {
        let options = StoreOptions::with_cache(cache_bytes);
        (options.layer_bytes >> 20, options.layers_bytes_max >> 20, options.cache_bytes)
    };
    for (cache_bytes, layer_mib, layers_mib) in
        [(1 << 20, 64, 512), (1 << 30, 64, 512), (4 << 30, 256, 2048), (1 << 40, 256, 2048)]
    {
        assert_eq!(sizes(cache_bytes), (layer_mib, layers_mib, cache_bytes));
    }
}

#[test]
fn draining_gets_hasty_before_anything_is_spilled_or_held_up() {
    let spill_directory = tempfile::tempdir().expect("a directory");
    let spilled_to = Some(spill_directory.path().to_owned());
    let options =
        StoreOptions { layers_bytes_max: 100_000, spill_directory: spilled_to, ..options() };
    let (store, _) = Remains::default().open_with(options, "boot 1");
    let mut index = apply(&store, &["K"]);
    let _pinned = store.freeze();
    while store.haste() < 1.0 {
        let (filled, haste) = (store.filled(), store.haste());
        assert_eq!(haste > 0.0, filled > 1.0, "{filled} filled");
        let idle = !store.drain_step(&|| u64::MAX).expect("steps").worked();
        assert!(idle || store.filled() < 0.5, "spilled at {filled}");
        index = apply(&store, &[&format!("K{index}")]);
    }
    assert!(!store.over_bound() && store.filled() < 1.7, "{} filled", store.filled());
}
