//! The store on real files with sled.

use std::fs;

use super::*;

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

#[test]
fn readers_see_whole_entries_while_entries_and_draining_go_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(options(), sled_place(directory.path(), "boot 1")).expect("opens");
    let number = |value: Option<Bytes>| -> u64 {
        let text = value.map(|value| String::from_utf8(value.to_vec()).expect("is a number"));
        text.map_or(0, |text| text.parse().expect("is a number"))
    };
    let last = 2_000;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while store.drained() < last {
                store.drain_step(u64::MAX).expect("drains");
            }
        });
        for short in [true, false] {
            let store = &store;
            scope.spawn(move || {
                let mut before = 0;
                while before < last {
                    let frozen;
                    let read;
                    let (rows, applied): (&dyn Rows, u64) = if short {
                        read = store.read();
                        (&read, read.applied())
                    } else {
                        frozen = store.freeze();
                        (&frozen, frozen.applied())
                    };
                    let at = |name: &str| number(rows.get(&row(1, name)).expect("reads"));
                    assert_eq!((at("first"), at("second")), (applied, applied));
                    for value in all(rows).into_values() {
                        assert!(number(Some(value)) <= applied);
                    }
                    assert!(applied >= before, "{applied} after {before}");
                    before = applied;
                }
            });
        }
        for index in 1..=last {
            apply(&store, &["first", &format!("row {}", index % 50), "second"]);
        }
        store.freeze_for_drain();
    });
    assert_eq!((store.applied(), store.drained()), (last, last));
}
