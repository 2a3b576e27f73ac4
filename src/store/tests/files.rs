//! The store on real files, with sled and with fjall.

use std::fs;

use super::*;

fn sled(directory: &Path) -> EngineChoice {
    EngineChoice::Sled {
        directory: directory.join("engine"),
        cache_capacity_bytes: 1 << 20,
        flush_every_ms: 500,
    }
}

fn fjall(directory: &Path) -> EngineChoice {
    EngineChoice::Fjall { directory: directory.join("engine"), cache_capacity_bytes: 1 << 20 }
}

type Choice = fn(&Path) -> EngineChoice;

const BOTH: [Choice; 2] = [sled, fjall];

fn place(engine: Choice, directory: &Path, boot_id: &str) -> StorePlace {
    StorePlace {
        engine: engine(directory),
        journal: Box::new(RealFile::new(directory.join("drain.journal"))),
        trust: Box::new(RealFile::new(directory.join("store.trust"))),
        boot_id: boot_id.to_owned(),
    }
}

/// A directory with a store that synced 3 entries.
fn synced(engine: Choice) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, opened) = open(engine, directory.path());
    assert_eq!(opened, Opened { applied: 0, distrust: None });
    for _ in 0..3 {
        apply(&store, &["a", "b", "c"]);
    }
    drain(&store);
    store.sync().expect("syncs");
    directory
}

fn open(engine: Choice, directory: &Path) -> (Store, Opened) {
    Store::open(options(), place(engine, directory, "boot 1")).expect("opens")
}

#[test]
fn rows_stay_across_reopening_are_scanned_both_ways_and_wiped() {
    for engine in BOTH {
        let directory = synced(engine);
        let (store, opened) = open(engine, directory.path());
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
            Store::open(options(), place(engine, directory.path(), "boot 2")).expect("opens");
        assert_eq!(opened, Opened { applied: 9, distrust: None });
        assert_eq!(all(&store.read()), Model::from([(row(1, "z"), "head".into())]));
    }
}

#[test]
fn a_rebuild_takes_rows_of_all_sizes() {
    for engine in BOTH {
        let directory = synced(engine);
        let (store, _) = open(engine, directory.path());
        let mut state = Model::new();
        // More than goes to an engine at once, then few, and rows longer than fjall takes at once.
        for number in 0..40_u8 {
            state.insert(row(1, &format!("large {number}")), vec![number; 1 << 20].into());
            state.insert(row(2, &format!("small {number}")), vec![number].into());
        }
        for number in 0..3 {
            let name = [number.to_string(), "x".repeat(70_000)].concat();
            state.insert(row(1, &name), "of a long row".into());
        }
        let rows = state.iter().map(|(row, value)| Ok((row.clone(), value.clone())));
        store.reset_to_rows(9, rows).expect("resets");
        assert_eq!(all(&store.read()), state);
        apply(&store, &["a"]);
        state = all(&store.read());
        drain(&store);
        drop(store);
        let (store, opened) = open(engine, directory.path());
        assert_eq!(opened, Opened { applied: 10, distrust: None });
        assert_eq!(all(&store.read()), state);
    }
}

#[test]
fn an_engine_in_the_place_of_the_other_is_distrusted_and_emptied() {
    for (before, after) in [(sled as Choice, fjall as Choice), (fjall, sled)] {
        let directory = synced(before);
        let name = before(directory.path()).name();
        let (store, opened) = open(after, directory.path());
        let distrust = Some(Distrust::OtherEngine { before: name.into() });
        assert_eq!(opened, Opened { applied: 0, distrust });
        assert_eq!(apply(&store, &["a"]), 1);
    }
}

#[test]
fn sled_with_a_leftover_of_opening_is_distrusted() {
    let directory = synced(sled);
    let leftover = directory.path().join("engine/snap.0000000000000000.generating");
    fs::write(&leftover, b"torn").expect("writes");
    let (_, opened) = open(sled, directory.path());
    assert_eq!(opened, Opened { applied: 0, distrust: Some(Distrust::Leftover) });
    assert!(!leftover.exists());
}

#[test]
fn a_missing_directory_is_distrusted() {
    for engine in BOTH {
        let directory = synced(engine);
        fs::remove_dir_all(directory.path().join("engine")).expect("removes");
        let (_, opened) = open(engine, directory.path());
        assert_eq!(opened, Opened { applied: 0, distrust: Some(Distrust::Emptied { floor: 3 }) });
    }
}

#[test]
fn sled_that_fails_or_panics_at_open_is_distrusted() {
    // Each of these files is read at open; overwritten with noise, some make sled panic and others
    // return an error or come up empty. None may pass, and none may end the process.
    for name in ["conf", "db"] {
        let directory = synced(sled);
        let path = directory.path().join("engine").join(name);
        let length = fs::metadata(&path).expect("is there").len() as usize;
        let mut random = fastrand::Rng::with_seed(7);
        let noise: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
        fs::write(&path, noise).expect("writes");
        for snapshot in fs::read_dir(directory.path().join("engine")).expect("lists") {
            let snapshot = snapshot.expect("lists");
            if snapshot.file_name().to_string_lossy().starts_with("snap.") {
                fs::write(snapshot.path(), b"noise").expect("writes");
            }
        }
        let (store, opened) = open(sled, directory.path());
        assert!(opened.distrust.is_some(), "{name}");
        assert_eq!(apply(&store, &["a"]), 1);
    }
}

#[test]
fn sled_with_flipped_bits_never_answers_wrongly() {
    for seed in 0..10 {
        let directory = synced(sled);
        let path = directory.path().join("engine/db");
        let mut bytes = fs::read(&path).expect("reads");
        let used = bytes.iter().rposition(|byte| *byte != 0).expect("is not empty");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..20 {
            bytes[random.usize(0..used)] ^= 1 << random.u8(0..8);
        }
        fs::write(&path, bytes).expect("writes");
        let (store, opened) = open(sled, directory.path());
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

/// All files under a directory.
fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).expect("lists").map(|entry| entry.expect("lists").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The directory of the process that opens a damaged store, if this is one.
const DAMAGED: &str = "ARAKOON_TEST_DAMAGED_STORE";

/// Flips bits in fjall's files and opens the store in a process of its own: a damaged length may
/// make fjall ask for more memory than there is, which ends that process; the next one rebuilds.
#[test]
fn fjall_with_flipped_bits_never_answers_wrongly() {
    if let Some(directory) = std::env::var_os(DAMAGED) {
        return open_damaged(Path::new(&directory));
    }
    let mut opened_at_once = 0;
    for seed in 0..40 {
        let directory = synced(fjall);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut files = files(&directory.path().join("engine"));
        files.retain(|file| fs::metadata(file).expect("is there").len() > 0);
        files.sort();
        let path = &files[random.usize(..files.len())];
        let mut bytes = fs::read(path).expect("reads");
        // Preallocated zeros are not read.
        let used = bytes.iter().rposition(|byte| *byte != 0).expect("is not empty");
        for _ in 0..3 {
            bytes[random.usize(0..=used)] ^= 1 << random.u8(0..8);
        }
        fs::write(path, bytes).expect("writes");
        let opens = || {
            let test = std::env::current_exe().expect("has a path");
            let name = "store::tests::files::fjall_with_flipped_bits_never_answers_wrongly";
            let mut process = std::process::Command::new(test);
            process.args(["--exact", name, "--quiet"]).env(DAMAGED, directory.path());
            process.output().expect("starts")
        };
        let first = opens();
        opened_at_once += i32::from(first.status.success());
        if !first.status.success() {
            assert_eq!(first.status.code(), None, "seed {seed}: {first:?}");
            assert!(opens().status.success(), "seed {seed}");
        }
    }
    assert!(opened_at_once > 20, "{opened_at_once} of 40 seeds");
}

fn open_damaged(directory: &Path) {
    let (store, opened) = open(fjall, directory);
    if opened.distrust.is_some() {
        assert_eq!(apply(&store, &["a"]), 1);
        return;
    }
    assert_eq!(opened.applied, 3);
    for name in ["a", "b", "c"] {
        match store.read().get(&row(1, name)) {
            Ok(value) => assert_eq!(value, Some("3".into())),
            Err(error) => assert!(matches!(error, StoreError::Damaged(_)), "{error}"),
        }
    }
}

#[test]
fn readers_see_whole_entries_while_entries_and_draining_go_on() {
    for engine in BOTH {
        readers_see_whole_entries(engine);
    }
}

fn readers_see_whole_entries(engine: Choice) {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(engine, directory.path());
    let number = |value: Option<Bytes>| -> u64 {
        let text = value.map(|value| String::from_utf8(value.to_vec()).expect("is a number"));
        text.map_or(0, |text| text.parse().expect("is a number"))
    };
    let last = 2_000;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while store.drained() < last {
                store.drain_step(&|| u64::MAX).expect("drains");
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
