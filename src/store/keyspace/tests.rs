use std::collections::BTreeMap;

use super::*;
use crate::store::{Rows, RowsMut, StoreError};

#[derive(Default)]
struct Map(BTreeMap<Vec<u8>, Bytes>, Option<BTreeMap<Vec<u8>, Bytes>>);

impl Rows for Map {
    fn get(&self, row: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.0.get(row).cloned())
    }

    fn scan(
        &self,
        first: &[u8],
        end: Option<&[u8]>,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &Bytes) -> bool,
    ) -> Result<(), StoreError> {
        let within = self.0.range(first.to_vec()..);
        let within = within.take_while(|(row, _)| end.is_none_or(|end| row.as_slice() < end));
        let mut within: Vec<_> = within.collect();
        if reverse {
            within.reverse();
        }
        within.into_iter().all(|(row, value)| visit(row, value));
        Ok(())
    }
}

impl RowsMut for Map {
    fn put(&mut self, row: Bytes, value: Bytes) {
        self.0.insert(row.to_vec(), value);
    }

    fn delete(&mut self, row: Bytes) {
        assert!(self.0.remove(&row[..]).is_some(), "deleted {row:?}, which is not there");
    }

    fn retire_space(&mut self, space: u32) {
        self.0.retain(|row, _| row[..4] != space.to_be_bytes());
    }

    fn begin_part(&mut self) {
        self.1 = Some(self.0.clone());
    }

    fn keep_part(&mut self) {
        self.1 = None;
    }

    fn undo_part(&mut self) {
        self.0 = self.1.take().expect("a part was begun");
    }
}

fn change(rows: &mut Map, index: u64, stamp_ms: u64, change: impl FnOnce(&mut Keyspace)) -> Meta {
    let mut keyspace = Keyspace::begin(rows, index, stamp_ms, 0).unwrap();
    change(&mut keyspace);
    keyspace.finish()
}

fn set(keyspace: &mut Keyspace, key: &[u8], value: &[u8], deadline_ms: u64) {
    let old = keyspace.find(key).unwrap();
    keyspace.put_string(key, value, deadline_ms, old.as_ref().map(|old| &old.header));
}

#[test]
fn a_key_is_absent_from_its_deadline_on() {
    let mut rows = Map::default();
    change(&mut rows, 1, 10, |keyspace| set(keyspace, b"a", b"1", 20));
    for (now_ms, there, due) in [(10, true, false), (19, true, false), (20, true, true)] {
        let view = View::open(&rows, 0, now_ms, 0).unwrap();
        assert_eq!(view.find(b"a").unwrap().is_some(), there, "at {now_ms}");
        assert_eq!(view.met_due(), due, "at {now_ms}");
    }
    change(&mut rows, 2, 20, |_| ());
    let view = View::open(&rows, 0, 20, 0).unwrap();
    assert!(view.find(b"a").unwrap().is_none());
    assert_eq!(view.version(b"a").unwrap(), Version::ABSENT);
    assert!(!view.met_due());
}

#[test]
fn the_clock_never_goes_back() {
    let mut rows = Map::default();
    change(&mut rows, 1, 50, |_| ());
    assert_eq!(change(&mut rows, 2, 40, |_| ()).clock_ms, 50);
}

#[test]
fn deletes_a_bounded_number_of_expired_keys() {
    let mut rows = Map::default();
    change(&mut rows, 1, 10, |keyspace| {
        for key in 0..5u8 {
            keyspace.select(key % 2);
            set(keyspace, &[key], b"", 20 + u64::from(key));
        }
    });
    assert_eq!(earliest_deadline(&rows).unwrap(), Some(20));
    let meta = change(&mut rows, 2, 23, |keyspace| {
        assert_eq!(keyspace.delete_expired(3).unwrap(), 3);
    });
    assert_eq!(meta.earliest_deadline_ms(), Some(23));
    let meta = change(&mut rows, 3, 23, |keyspace| {
        assert_eq!(keyspace.delete_expired(3).unwrap(), 1);
    });
    assert_eq!(meta.earliest_deadline_ms(), Some(24));
    assert_eq!((meta.databases[0].keys, meta.databases[1].keys), (1, 0));
}

#[test]
fn flushing_leaves_only_the_meta_row_and_a_new_space() {
    let mut rows = Map::default();
    change(&mut rows, 1, 10, |keyspace| {
        set(keyspace, b"a", b"1", 20);
        set(keyspace, b"b", b"1", 0);
    });
    let meta = change(&mut rows, 2, 10, |keyspace| keyspace.flush_all());
    assert_eq!(rows.0.len(), 1);
    assert_eq!((meta.databases[0].space, meta.next_space), (17, 18));
    assert_eq!(meta.earliest_deadline_ms(), None);
}

#[test]
fn the_index_follows_every_change_of_a_deadline() {
    let mut rows = Map::default();
    let steps: [(u64, usize); 5] = [(0, 0), (20, 1), (30, 1), (0, 0), (40, 1)];
    for (step, (deadline_ms, indexed)) in steps.into_iter().enumerate() {
        let meta = change(&mut rows, step as u64 + 1, 10, |keyspace| {
            set(keyspace, b"a", b"1", deadline_ms);
        });
        let index = rows.0.keys().filter(|row| row[4] == TAG_DEADLINE).count();
        assert_eq!(index, indexed, "after step {step}");
        assert_eq!(meta.databases[0].keys_with_deadline, indexed as u64);
        assert_eq!(meta.databases[0].keys, 1);
    }
}

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
        let removed = keyspace.remove_range(range("0100", "0200")).unwrap();
        assert_eq!(removed, Removed::Now(100));
    });
    assert_eq!((meta.databases[0].keys, meta.removals), (2900, 0));
    assert_eq!(meta.earliest_deadline_ms(), None);

    let version = Version { index: 3, place: 1 };
    let meta = change(&mut rows, 3, 10, |keyspace| {
        let removed = keyspace.remove_range(range("0000", "2500")).unwrap();
        assert_eq!(removed, Removed::Later(version));
        set(keyspace, b"0007", b"new", 0);
    });
    assert_eq!(visible(&rows), 501, "500 behind the range, one set since");
    assert_eq!(meta.earliest_deadline_ms(), Some(15), "the next step is soon");
    assert_eq!(Removal::finished(&rows, version).unwrap(), Some(None));

    let mut entries = 0;
    while Removal::finished(&rows, version).unwrap() == Some(None) {
        change(&mut rows, 4 + entries, 20 + 5 * entries, |keyspace| {
            keyspace.go_on_removing(700).unwrap();
        });
        entries += 1;
    }
    assert_eq!(entries, 4, "2400 rows, 700 at a time");
    assert_eq!(Removal::finished(&rows, version).unwrap(), Some(Some(2400)));
    let meta = Meta::read(&rows).unwrap();
    assert_eq!((visible(&rows), meta.databases[0].keys), (501, 501));
    assert_eq!(meta.earliest_deadline_ms(), Some(60_035), "the count is kept for a minute");

    let meta = change(&mut rows, 9, 60_035, |keyspace| keyspace.go_on_removing(700).unwrap());
    assert_eq!(meta.removals, 0);
    assert_eq!(Removal::finished(&rows, version).unwrap(), None);
    let plain = Meta { clock_ms: 1, ..meta };
    assert_eq!(plain.encode()[0], 1, "without removals the row is as before there were any");
}

#[test]
fn there_are_not_too_many_large_removals_at_once() {
    let mut rows = Map::default();
    fill(&mut rows, 1, 1001);
    let all = || KeyRange::all();
    for index in 0..REMOVALS_MAX as u64 {
        change(&mut rows, 2 + index, 10, |keyspace| {
            assert!(matches!(keyspace.remove_range(all()).unwrap(), Removed::Later(_)));
        });
    }
    change(&mut rows, 100, 10, |keyspace| {
        assert_eq!(keyspace.remove_range(all()).unwrap(), Removed::Refused);
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
        keyspace.remove_range(KeyRange::all()).unwrap();
        keyspace.flush_all();
        keyspace.undo_part();
        assert_eq!(keyspace.changes(), 0);
    });
    assert_eq!((&rows.0, meta), (&before.0, before.1));
}
