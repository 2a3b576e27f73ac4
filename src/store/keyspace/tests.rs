use std::collections::BTreeMap;

use super::*;
use crate::store::{Rows, RowsMut, StoreError};

/// Rows, and what they were when a part began.
#[derive(Default)]
pub(super) struct Map(pub BTreeMap<Vec<u8>, Bytes>, Option<BTreeMap<Vec<u8>, Bytes>>);

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

pub(super) fn change(
    rows: &mut Map,
    index: u64,
    stamp_ms: u64,
    change: impl FnOnce(&mut Keyspace),
) -> Meta {
    let mut keyspace = Keyspace::begin(rows, index, stamp_ms, 0).unwrap();
    change(&mut keyspace);
    keyspace.finish()
}

pub(super) fn set(keyspace: &mut Keyspace, key: &[u8], value: &[u8], deadline_ms: u64) {
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

#[test]
fn each_read_answers_for_what_it_costs_itself() {
    let mut rows = Map::default();
    change(&mut rows, 1, 10, |keyspace| set(keyspace, b"a", b"1", 0));
    let view = View::open(&rows, 0, 10, 0).unwrap();
    let view = view.allowing(Allowance { steps: 100, reply_bytes: 100 });
    assert!(matches!(view.answer(1000), Err(ReadError::Exceeded(Exceeded::ReplyBytes))));
    let scan = || view.scan(&KeyRange::all(), false, &mut |_, _, _| true);
    assert!(matches!(scan(), Err(ReadError::Exceeded(Exceeded::ReplyBytes))));
    assert_eq!(view.take_exceeded(), Some(Exceeded::ReplyBytes));
    scan().unwrap();
    assert_eq!(view.take_exceeded(), None);
}

#[test]
fn steps_count_when_reply_bytes_are_exceeded_as_well() {
    let mut rows = Map::default();
    change(&mut rows, 1, 10, |keyspace| set(keyspace, b"a", b"1", 0));
    let view = View::open(&rows, 0, 10, 0).unwrap();
    let view = view.allowing(Allowance { steps: 1, reply_bytes: 1 });
    for steps_first in [true, false] {
        let spend = || assert!(view.spend(2).is_err());
        if steps_first {
            spend();
        }
        assert!(view.answer(1).is_err());
        if !steps_first {
            spend();
        }
        assert_eq!(view.take_exceeded(), Some(Exceeded::Steps), "{steps_first}");
    }
}

#[test]
fn a_reader_that_is_told_to_stop_looks_at_no_more() {
    let mut rows = Map::default();
    change(&mut rows, 1, 0, |keyspace| {
        for key in [b"a", b"b", b"c"] {
            keyspace.put_string(key, b"value", 0, None);
        }
    });
    let stop = std::sync::atomic::AtomicBool::new(false);
    let view = View::open(&rows, 0, 0, 0).unwrap().until(&stop);
    let mut seen = 0;
    let scanned = view.scan(&KeyRange::all(), false, &mut |_, _, _| {
        seen += 1;
        stop.store(seen == 2, std::sync::atomic::Ordering::Relaxed);
        true
    });
    assert!(matches!(scanned, Err(ReadError::Exceeded(Exceeded::Steps))), "{scanned:?}");
    assert_eq!(seen, 2);
}
