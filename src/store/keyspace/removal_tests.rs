use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::removals::FINISHED_MAX;
use super::tests::{Map, change, set};
use super::*;

/// Sets `count` keys of four digits.
fn fill(rows: &mut Map, index: u64, count: usize) {
    change(rows, index, 10, |keyspace| {
        (0..count).for_each(|key| set(keyspace, format!("{key:04}").as_bytes(), b"1", 0));
    });
}

fn visible(rows: &Map) -> usize {
    let mut count = 0;
    let view = View::open(rows, 0, 0, 0).unwrap();
    view.scan(&KeyRange::all(), false, &mut |_, _, _| {
        count += 1;
        true
    })
    .unwrap();
    count
}

#[test]
fn a_small_range_goes_at_once_and_a_large_one_by_parts() {
    let mut rows = Map::default();
    fill(&mut rows, 1, 3000);
    let range = |first: &str, end: &str| KeyRange { first: first.into(), end: Some(end.into()) };
    let meta = change(&mut rows, 2, 10, |keyspace| {
        let removed = keyspace.remove_range(range("0100", "0200"), 1000).unwrap();
        assert_eq!(removed, Removed::Now(100));
    });
    assert_eq!((meta.databases[0].keys, meta.removals), (2900, 0));
    assert_eq!(meta.earliest_deadline_ms(), None);

    let version = Version { index: 3, place: 1 };
    let meta = change(&mut rows, 3, 10, |keyspace| {
        let removed = keyspace.remove_range(range("0000", "2500"), 1000).unwrap();
        assert_eq!(removed, Removed::Later(version));
        set(keyspace, b"0007", b"new", 0);
    });
    assert_eq!(visible(&rows), 501, "500 behind the range, one set since");
    assert_eq!(meta.earliest_deadline_ms(), Some(20), "the next step is soon");
    assert_eq!(Removal::finished(&rows, version).unwrap(), Some(None));

    let mut entries = 0;
    while Removal::finished(&rows, version).unwrap() == Some(None) {
        change(&mut rows, 4 + entries, 20 + 10 * entries, |keyspace| {
            keyspace.go_on_removing(700).unwrap();
        });
        entries += 1;
    }
    assert_eq!(entries, 4, "2400 rows, 700 at a time");
    assert_eq!(Removal::finished(&rows, version).unwrap(), Some(Some(2400)));
    let meta = Meta::read(&rows).unwrap();
    assert_eq!((visible(&rows), meta.databases[0].keys), (501, 501));
    assert_eq!(meta.earliest_deadline_ms(), Some(60_050), "the count is kept for a minute");

    let meta = change(&mut rows, 9, 60_050, |keyspace| keyspace.go_on_removing(700).unwrap());
    assert_eq!(meta.removals, 0);
    assert_eq!(Removal::finished(&rows, version).unwrap(), None);
    let plain = Meta { clock_ms: 1, ..meta };
    assert_eq!(plain.encode(None)[0], 1, "without removals the row is as before there were any");
}

fn remove_all(rows: &mut Map, index: u64, clock_ms: u64) -> Version {
    let mut version = Version::ABSENT;
    change(rows, index, clock_ms, |keyspace| {
        keyspace.bound(true);
        match keyspace.remove_range(KeyRange::all(), 2).unwrap() {
            Removed::Later(later) => version = later,
            other => panic!("{other:?}"),
        }
    });
    version
}

#[test]
fn a_step_is_bounded_in_bytes() {
    let mut rows = Map::default();
    let large = vec![b'x'; 3 << 20];
    change(&mut rows, 1, 10, |keyspace| {
        (0..10u8).for_each(|key| set(keyspace, &[key], &large, 0));
    });
    let mut keys = Vec::new();
    change(&mut rows, 2, 10, |keyspace| {
        keyspace.bound(true);
        let removed = keyspace.remove_range(KeyRange::all(), 1000).unwrap();
        assert!(matches!(removed, Removed::Later(_)), "few rows, but long ones: {removed:?}");
    });
    for index in 3..9 {
        change(&mut rows, index, index * 10, |keyspace| keyspace.go_on_removing(250).unwrap());
        keys.push(Meta::read(&rows).unwrap().databases[0].keys);
    }
    assert_eq!(keys, [8, 6, 4, 2, 0, 0]);
}

#[test]
fn a_removal_ends_while_newer_keys_keep_coming() {
    let mut rows = Map::default();
    fill(&mut rows, 1, 100);
    let version = remove_all(&mut rows, 2, 10);
    let mut entries = 0;
    while Removal::finished(&rows, version).unwrap() == Some(None) {
        let index = 3 + entries;
        change(&mut rows, index, 10 * index, |keyspace| {
            // More behind its end, and more in it, than a step removes.
            for key in 0..20 {
                set(keyspace, format!("{key:02}{index:04}").as_bytes(), b"new", 0);
                set(keyspace, format!("9{index:04}{key:02}").as_bytes(), b"new", 0);
            }
            keyspace.go_on_removing(10).unwrap();
        });
        entries += 1;
        assert!(entries < 100, "it does not end");
    }
    assert_eq!(Removal::finished(&rows, version).unwrap(), Some(Some(100)));
    assert_eq!(visible(&rows) as u64, 40 * entries);
}

#[test]
fn finished_removals_cost_readers_nothing_and_are_not_kept_for_ever() {
    let mut rows = Map::default();
    let mut versions = Vec::new();
    for round in 0..FINISHED_MAX as u64 + 10 {
        fill(&mut rows, 3 * round + 1, 3);
        versions.push(remove_all(&mut rows, 3 * round + 2, 10 + 20 * round));
        let clock_ms = 20 + 20 * round;
        let meta = change(&mut rows, 3 * round + 3, clock_ms, |keyspace| {
            keyspace.go_on_removing(250).unwrap();
        });
        assert_eq!((meta.removals, meta.earliest_deadline_ms()), (0, None));
        assert_eq!(Removal::finished(&rows, versions[round as usize]).unwrap(), Some(Some(3)));
    }
    let known = |version: &&Version| Removal::finished(&rows, **version).unwrap().is_some();
    assert_eq!(versions.iter().filter(known).count(), FINISHED_MAX);
    assert!(known(&versions.last().unwrap()));
}

#[test]
fn there_are_not_too_many_large_removals_at_once() {
    let mut rows = Map::default();
    fill(&mut rows, 1, 1001);
    let all = || KeyRange::all();
    for index in 0..REMOVALS_MAX as u64 {
        change(&mut rows, 2 + index, 10, |keyspace| {
            assert!(matches!(keyspace.remove_range(all(), 1000).unwrap(), Removed::Later(_)));
        });
    }
    change(&mut rows, 100, 10, |keyspace| {
        assert_eq!(keyspace.remove_range(all(), 1000).unwrap(), Removed::Refused);
    });
}

#[test]
fn an_undone_part_leaves_no_trace() {
    let mut rows = Map::default();
    fill(&mut rows, 1, 1500);
    let before = (rows.0.clone(), Meta::read(&rows).unwrap());
    let meta = change(&mut rows, 2, 10, |keyspace| {
        keyspace.begin_part();
        set(keyspace, b"a", b"1", 20);
        keyspace.remove_range(KeyRange::all(), 1000).unwrap();
        keyspace.flush_all();
        keyspace.undo_part();
        assert_eq!(keyspace.changes(), 0);
    });
    assert_eq!((&rows.0, meta), (&before.0, before.1));
}

#[test]
fn two_removals_of_a_database_that_is_emptied_count_each_key_once() {
    let mut rows = Map::default();
    fill(&mut rows, 1, 5);
    let mut versions = Vec::new();
    for index in [2, 3] {
        change(&mut rows, index, 10, |keyspace| {
            match keyspace.remove_range(KeyRange::all(), 2).unwrap() {
                Removed::Later(version) => versions.push(version),
                other => panic!("{other:?}"),
            }
        });
    }
    change(&mut rows, 4, 10, |keyspace| keyspace.flush_all());
    for index in 5..20 {
        change(&mut rows, index, index * 10, |keyspace| keyspace.go_on_removing(2).unwrap());
    }
    let counts = versions.iter().map(|version| Removal::finished(&rows, *version).unwrap());
    assert_eq!(counts.collect::<Vec<_>>(), [Some(Some(5)), Some(Some(0))]);
    assert!(rows.0.keys().all(|row| row[..4] == [0; 4]), "the old space is retired");
}

/// What a step of the comparison with a plain map does.
#[derive(Clone, Debug)]
enum Action {
    Set {
        db: u8,
        key: u8,
        lifetime_ms: u64,
    },
    Delete {
        db: u8,
        key: u8,
    },
    Remove {
        db: u8,
        first: u8,
        end: u8,
    },
    Flush {
        db: u8,
    },
    Swap,
    /// The part is undone.
    Undo(Box<Action>),
    /// Time passes, and a clock entry is applied.
    Clock {
        ms: u64,
    },
}

fn any_action() -> impl Strategy<Value = Action> {
    let (db, key) = (0..2u8, 0..12u8);
    let plain = prop_oneof![
        6 => (db.clone(), key.clone(), prop_oneof![Just(0), 1..20u64])
            .prop_map(|(db, key, lifetime_ms)| Action::Set { db, key, lifetime_ms }),
        1 => (db.clone(), key.clone()).prop_map(|(db, key)| Action::Delete { db, key }),
        3 => (db.clone(), key.clone(), key)
            .prop_map(|(db, first, end)| Action::Remove { db, first, end }),
        1 => db.prop_map(|db| Action::Flush { db }),
        1 => Just(Action::Swap),
    ];
    let undone = plain.clone().prop_map(|action| Action::Undo(Box::new(action)));
    prop_oneof![6 => plain, 1 => undone, 3 => (0..12u64).prop_map(|ms| Action::Clock { ms })]
}

/// Two databases: keys and their deadlines, 0 for none.
type Model = [BTreeMap<u8, u64>; 2];

/// Does it to both; the removal that began, with the number of keys it must count.
fn act(keyspace: &mut Keyspace, model: &mut Model, action: &Action) -> Option<(Version, u64)> {
    match *action {
        Action::Set { db, key, lifetime_ms } => {
            let now_ms = keyspace.clock_ms();
            let deadline_ms = if lifetime_ms == 0 { 0 } else { now_ms + lifetime_ms };
            keyspace.select(db);
            set(keyspace, &[key], b"v", deadline_ms);
            model[usize::from(db)].insert(key, deadline_ms);
        }
        Action::Delete { db, key } => {
            keyspace.select(db);
            let found = keyspace.find(&[key]).unwrap();
            let expected = model[usize::from(db)].remove(&key);
            assert_eq!(found.is_some(), expected.is_some(), "{key} in {db}");
            if let Some(found) = found {
                keyspace.delete(&[key], &found.header);
            }
        }
        Action::Remove { db, first, end } => {
            keyspace.select(db);
            let range = KeyRange { first: vec![first], end: Some(vec![end]) };
            let keys = &mut model[usize::from(db)];
            let before = keys.len();
            keys.retain(|key, _| !(first..end.max(first)).contains(key));
            let count = (before - keys.len()) as u64;
            match keyspace.remove_range(range, 2).unwrap() {
                Removed::Now(removed) => assert_eq!(removed, count),
                Removed::Later(version) => return Some((version, count)),
                Removed::BoundTooLong | Removed::Refused => {
                    panic!("too many removals for this test")
                }
            }
        }
        Action::Flush { db } => {
            keyspace.select(db);
            keyspace.flush_database();
            model[usize::from(db)].clear();
        }
        Action::Swap => {
            keyspace.swap_databases(0, 1);
            model.swap(0, 1);
        }
        Action::Undo(ref action) => {
            keyspace.begin_part();
            act(keyspace, &mut model.clone(), action);
            keyspace.undo_part();
        }
        Action::Clock { .. } => {
            keyspace.delete_expired(2).unwrap();
            keyspace.go_on_removing(2).unwrap();
        }
    }
    None
}

proptest! {
    #[test]
    fn removals_are_seen_at_once_and_counted_right(
        actions in vec((any_action(), any::<bool>()), 1..60),
    ) {
        let (mut rows, mut model, mut clock_ms) = (Map::default(), Model::default(), 100);
        let mut removals: Vec<(Version, u64)> = Vec::new();
        let mut index = 0;
        let mut apply = |rows: &mut Map, model: &mut Model, clock_ms: u64, action: &Action, bounded| {
            index += 1;
            for keys in model.iter_mut() {
                keys.retain(|_, deadline_ms| *deadline_ms == 0 || *deadline_ms > clock_ms);
            }
            let mut removal = None;
            change(rows, index, clock_ms, |keyspace| {
                keyspace.bound(bounded);
                removal = act(keyspace, model, action);
            });
            for (db, keys) in model.iter().enumerate() {
                let view = View::open(rows, db as u8, 0, 0).unwrap();
                let mut found = Vec::new();
                view.scan(&KeyRange::all(), false, &mut |key, _, _| {
                    found.push(key[0]);
                    true
                })
                .unwrap();
                assert_eq!(found, keys.keys().copied().collect::<Vec<_>>(), "database {db}");
            }
            removal
        };
        for (action, bounded) in &actions {
            clock_ms += if let Action::Clock { ms } = action { *ms } else { 1 };
            removals.extend(apply(&mut rows, &mut model, clock_ms, action, *bounded));
        }
        // Far less than the time that counts are kept.
        for _ in 0..400 {
            clock_ms += 10;
            apply(&mut rows, &mut model, clock_ms, &Action::Clock { ms: 10 }, true);
        }
        for (version, count) in removals {
            prop_assert_eq!(Removal::finished(&rows, version).unwrap(), Some(Some(count)));
        }
        let meta = Meta::read(&rows).unwrap();
        for (database, keys) in meta.databases.iter().zip(&model) {
            prop_assert_eq!(database.keys, keys.len() as u64);
            prop_assert!(!rows.0.keys().any(|row| {
                let space = u32::from_be_bytes([row[0], row[1], row[2], row[3]]);
                space != 0 && meta.databases.iter().all(|database| database.space != space)
            }), "rows of an emptied database");
        }
    }
}
