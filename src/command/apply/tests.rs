use std::collections::BTreeMap;

use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::command::batch::{
    EXPIRED_PER_CLOCK_MAX, encode_clock, encode_command, encode_head, encode_level,
    encode_transaction, seal,
};
use crate::store::Rows;
use crate::store::keyspace::Version;

#[derive(Clone, Default, PartialEq, Debug)]
struct Map(BTreeMap<Bytes, Bytes>, Option<BTreeMap<Bytes, Bytes>>);

impl Rows for Map {
    fn get(&self, row: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.0.get(row).cloned())
    }

    fn scan(
        &self,
        first: &[u8],
        end: Option<&[u8]>,
        _: bool,
        visit: &mut dyn FnMut(&[u8], &Bytes) -> bool,
    ) -> Result<(), StoreError> {
        let rows = self.0.range(Bytes::copy_from_slice(first)..);
        let mut rows = rows.take_while(|(row, _)| end.is_none_or(|end| &row[..] < end));
        rows.all(|(row, value)| visit(row, value));
        Ok(())
    }
}

impl RowsMut for Map {
    fn put(&mut self, row: Bytes, value: Bytes) {
        self.0.insert(row, value);
    }

    fn delete(&mut self, row: Bytes) {
        self.0.remove(&row);
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

fn args(line: &str) -> Vec<Bytes> {
    line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
}

fn batch(stamp_ms: u64, lines: &[&str]) -> Bytes {
    let mut items = BytesMut::new();
    for line in lines {
        match *line {
            "clock" => encode_clock(&mut items, EXPIRED_PER_CLOCK_MAX),
            "short clock" => encode_clock(&mut items, 1),
            "head" => encode_head(&mut items),
            line => match line.strip_prefix("MULTI ") {
                Some(lines) => {
                    encode_level(&mut items, if lines.contains("NOSUCH") { 1 } else { 3 });
                    let calls: Vec<Vec<Bytes>> = lines.split(';').map(args).collect();
                    let calls = calls.iter().map(|args| (0, &args[..]));
                    encode_transaction(&mut items, &[], calls);
                }
                None => encode_command(&mut items, 0, &args(line)),
            },
        }
    }
    seal(stamp_ms, 0, lines.len() as u32, &[items])
}

#[test]
fn answers_each_item_and_reports_heads_and_deadlines() {
    let mut rows = Map::default();
    let lines = ["SET a 1 PX 50", "incr a", "head", "GET a", "incr b"];
    let applied = apply_batch(1, &batch(1000, &lines), &mut rows, Replies::Wanted).unwrap();
    let replies = [Reply::OK, Reply::Integer(2), Reply::OK, Reply::bulk("2"), Reply::Integer(1)];
    assert_eq!(applied.replies, replies);
    assert!(applied.head_requested);
    assert_eq!(applied.earliest_deadline_ms, Some(1050));
    let applied =
        apply_batch(2, &batch(1050, &["clock", "get a"]), &mut rows, Replies::Wanted).unwrap();
    assert_eq!(applied.replies, [Reply::OK, Reply::Null]);
    assert_eq!((applied.stamp_ms, applied.earliest_deadline_ms), (1050, None));
}

#[test]
fn only_simple_writes_are_light() {
    let light = |line: &str| {
        let mut batch = Batch::open(&batch(1, &[line])).unwrap();
        let item = batch.next_item().unwrap().unwrap();
        is_light(&item, spec_of_item(&item))
    };
    for line in ["SET a 1", "set a 1 PX 5 NX", "MSET a 1 b 2", "DEL a b", "INCRBY a 7", "SETNX a 1"]
    {
        assert!(light(line), "{line}");
    }
    // What a few bytes can make long, and what is none of a client's simple writes.
    let heavy = [
        "APPEND a 1",
        "SETRANGE a 16000000 x",
        "SETBIT a 99999999 1",
        "SET a 1 GET",
        "COPY a b",
        "EXPIRE a 10",
        "GETEX a",
        "GET a",
        "LCS a b",
        "MULTI SET a 1;SET b 2",
        "clock",
        "head",
        "set a",
        "nosuch a",
    ];
    for line in heavy {
        assert!(!light(line), "{line}");
    }
}

/// More than are read together, among them what makes all that was expected wrong.
#[test]
fn an_entry_of_many_items_is_applied_in_order() {
    let mut lines = Vec::new();
    for round in 0..3 {
        lines.extend((0..100).map(|n| format!("set k{n} {round}")));
        lines.extend((0..100).map(|n| format!("incrby k{n} {n}")));
        lines.push("mset k0 x k1 y k0 z".to_owned());
        lines.push("MULTI get k0;flushdb;set k99 7;incr k99".to_owned());
    }
    lines.extend(["dbsize", "get k99", "get k98"].map(str::to_owned));
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let mut rows = Map::default();
    let applied = apply_batch(1, &batch(1, &lines), &mut rows, Replies::Wanted).unwrap();
    for (round, replies) in applied.replies.chunks(202).take(3).enumerate() {
        let sums = (0..100).map(|n| Reply::Integer(round as i64 + n));
        let transaction =
            Reply::Array(vec![Reply::bulk("z"), Reply::OK, Reply::OK, Reply::Integer(8)]);
        let expected: Vec<Reply> = std::iter::repeat_n(Reply::OK, 100)
            .chain(sums)
            .chain([Reply::OK, transaction])
            .collect();
        assert_eq!(replies, expected);
    }
    assert_eq!(applied.replies[606..], [Reply::Integer(1), Reply::bulk("8"), Reply::Null]);
}

#[test]
fn a_transaction_runs_only_while_its_watched_versions_hold() {
    let mut rows = Map::default();
    apply_batch(7, &batch(1, &["set x 1", "set a 1"]), &mut rows, Replies::Wanted).unwrap();
    let transaction = |version| {
        let mut items = BytesMut::new();
        let watch = Watch { db: 0, key: Bytes::from("a"), version };
        let calls = [args("set a 2"), args("incr word"), args("set word w"), args("incr word")];
        let calls = calls.iter().map(|args| (0, &args[..]));
        encode_transaction(&mut items, &[watch], calls);
        seal(1, 0, 1, &[items])
    };
    for version in [Version::ABSENT, Version { index: 7, place: 0 }] {
        let before = rows.clone();
        let applied = apply_batch(8, &transaction(version), &mut rows, Replies::Wanted).unwrap();
        assert_eq!(applied.replies, [Reply::NullArray]);
        assert_eq!(rows, before);
    }
    let version = Version { index: 7, place: 1 };
    let applied = apply_batch(8, &transaction(version), &mut rows, Replies::Wanted).unwrap();
    let replies = [Reply::OK, Reply::Integer(1), Reply::OK, crate::command::parse::NOT_AN_INTEGER];
    assert_eq!(applied.replies, [Reply::Array(replies.to_vec())]);
}

#[test]
fn an_unknown_command_ends_the_node() {
    let error =
        apply_batch(1, &batch(1, &["nosuch a"]), &mut Map::default(), Replies::Wanted).unwrap_err();
    assert!(matches!(&error, ApplyError::UnknownCommand(name) if name == "nosuch"), "{error}");
}

fn any_line() -> impl Strategy<Value = String> {
    let key = "[abc]";
    let time = -2i64..30;
    prop_oneof![
        (key, 0..9u8).prop_map(|(key, value)| format!("SET {key} {value}")),
        (key, 1..20u8).prop_map(|(key, ms)| format!("SET {key} v PX {ms}")),
        (key, key).prop_map(|(a, b)| format!("MSET {a} 1 {b} 2")),
        (key, key).prop_map(|(a, b)| format!("DEL {a} {b}")),
        (key, time).prop_map(|(key, ms)| format!("PEXPIRE {key} {ms} NX")),
        key.prop_map(|key| format!("PERSIST {key}")),
        key.prop_map(|key| format!("INCR {key}")),
        key.prop_map(|key| format!("APPEND {key} 0")),
        key.prop_map(|key| format!("GETDEL {key}")),
        (key, 0..40u8).prop_map(|(key, bit)| format!("SETBIT {key} {bit} 1")),
        (key, 0..9u8).prop_map(|(key, value)| format!("INCRBYFLOAT {key} {value}.1")),
        (key, key).prop_map(|(a, b)| format!("RENAME {a} {b}")),
        (key, key).prop_map(|(a, b)| format!("COPY {a} {b} DB 1 REPLACE")),
        key.prop_map(|key| format!("MOVE {key} 1")),
        Just("SWAPDB 0 1".to_owned()),
        (key, key).prop_map(|(a, b)| format!("AK.DELRANGE [{a} [{b}")),
        (key, key)
            .prop_map(|(a, b)| format!("MULTI GET {a};SET {b} 1;KEYS *;INCR {a};MGET {a} {b}")),
        (key, key).prop_map(|(a, b)| format!("MULTI SET {a} 1;AK.ASSERT {b} PRESENT;DEL {b}")),
        (key, key).prop_map(|(a, b)| format!("MULTI SET {a} 1;AK.ASSERT {b} NOSUCH;DEL {b}")),
        (key, key).prop_map(|(a, b)| format!(
            "MULTI COPY {a} {b} DB 1;RANDOMKEY;LCS {a} {b};APPEND {a} 1"
        )),
        key.prop_map(|key| format!("SET {key} 1 IFNE 2 GET")),
        Just("FLUSHALL".to_owned()),
        Just("clock".to_owned()),
        Just("short clock".to_owned()),
    ]
}

/// The counts in the meta row against the rows themselves.
fn check_counts(rows: &Map) {
    let meta = crate::store::keyspace::Meta::read(rows).unwrap();
    for database in meta.databases {
        let in_space = |tag: u8| {
            let start = [&database.space.to_be_bytes()[..], &[tag]].concat();
            rows.0.keys().filter(move |row| row.starts_with(&start)).cloned()
        };
        assert_eq!(in_space(b'K').count() as u64, database.keys);
        assert_eq!(in_space(b'D').count() as u64, database.keys_with_deadline);
        if let Some(first) = in_space(b'D').next() {
            let deadline_ms = u64::from_be_bytes(first[5..13].try_into().unwrap());
            assert!(database.earliest_ms <= deadline_ms);
        }
    }
}

proptest! {
    #[test]
    fn the_same_batches_make_the_same_rows_however_they_are_cut(
        batches in vec((vec(any_line(), 1..6), 0..15u64), 1..20),
    ) {
        let (mut one, mut two) = (Map::default(), Map::default());
        let mut stamp_ms = 100;
        for (index, (lines, pause_ms)) in batches.iter().enumerate() {
            stamp_ms += pause_ms;
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let batch = batch(stamp_ms, &lines);
            let first = apply_batch(index as u64 + 1, &batch, &mut one, Replies::Wanted).unwrap();
            // A copy of the bytes stands for another node's own reading of them.
            let copy = Bytes::copy_from_slice(&batch);
            let second = apply_batch(index as u64 + 1, &copy, &mut two, Replies::Unwanted).unwrap();
            let told = |applied: Applied| (applied.stamp_ms, applied.earliest_deadline_ms);
            prop_assert_eq!(told(first), told(second));
            prop_assert_eq!(&one, &two);
            check_counts(&one);
        }
    }

    #[test]
    fn whether_expired_rows_were_deleted_is_not_seen(
        batches in vec((vec(any_line(), 1..6), 0..15u64), 1..20),
    ) {
        let (mut eager, mut lazy) = (Map::default(), Map::default());
        let mut stamp_ms = 100;
        for (index, (lines, pause_ms)) in batches.iter().enumerate() {
            stamp_ms += pause_ms;
            let lines: Vec<&str> =
                lines.iter().map(String::as_str).filter(|line| !line.ends_with("clock")).collect();
            let index = index as u64 * 2 + 1;
            apply_batch(index, &batch(stamp_ms, &["clock"]), &mut eager, Replies::Wanted).unwrap();
            let first = apply_batch(index + 1, &batch(stamp_ms, &lines), &mut eager, Replies::Wanted).unwrap();
            let second = apply_batch(index + 1, &batch(stamp_ms, &lines), &mut lazy, Replies::Wanted).unwrap();
            prop_assert_eq!(first.replies, second.replies);
        }
    }
}

/// Applies transactions, each an entry of its own, and returns the last reply.
fn run(rows: &mut Map, level: u8, transactions: &[&[Vec<Bytes>]], replies: Replies) -> Reply {
    let mut last = Reply::Null;
    for (index, calls) in transactions.iter().enumerate() {
        let mut items = BytesMut::new();
        encode_level(&mut items, level);
        encode_transaction(&mut items, &[], calls.iter().map(|args| (0, &args[..])));
        let entry = seal(1, 0, 1, &[items]);
        let applied = apply_batch(index as u64 + 1, &entry, rows, replies).unwrap();
        last = applied.replies.into_iter().next().unwrap();
    }
    last
}

fn is_error(reply: &Reply, first_words: &str) -> bool {
    matches!(reply, Reply::Error(text) if text.starts_with(first_words))
}

#[test]
fn reads_in_the_log_are_bounded_and_are_not_run_where_nobody_waits() {
    let large = Bytes::from(vec![b'x'; 15 << 20]);
    let set = |key: &str| vec![Bytes::from("set"), Bytes::from(key.to_owned()), large.clone()];
    let fill: Vec<Vec<Bytes>> = ["a", "b", "c", "d", "e"].into_iter().map(set).collect();
    let read = [
        args("set z 1"),
        args("ak.range - + withvalues"),
        args("get a"),
        args("lcs a b"),
        args("mget a b c d e"),
    ];
    let mut rows = Map::default();
    let Reply::Array(replies) = run(&mut rows, 1, &[&fill, &read], Replies::Wanted) else {
        panic!("an array")
    };
    assert_eq!(replies[0], Reply::OK);
    assert!(is_error(&replies[1], "ERR the reply is too large"), "{:?}", replies[1]);
    assert_eq!(replies[2], Reply::Bulk(large), "there is room left for it");
    assert!(is_error(&replies[3], "ERR Insufficient memory"), "{:?}", replies[3]);
    assert!(is_error(&replies[4], "ERR the reply is too large"), "{:?}", replies[4]);

    let mut other = Map::default();
    let unread = run(&mut other, 1, &[&fill, &read], Replies::Unwanted);
    let unread_replies = [Reply::OK, Reply::Null, Reply::Null, Reply::Null, Reply::Null];
    assert_eq!(unread, Reply::Array(unread_replies.to_vec()));
    assert_eq!(rows, other);
}

#[test]
fn reads_in_the_log_take_a_bounded_time() {
    let word = Bytes::from("ab".repeat(5_500));
    let set = |key: &str| vec![Bytes::from("set"), Bytes::from(key.to_owned()), word.clone()];
    let long_key = "k".repeat(1 << 20);
    let pattern = "k".to_owned() + &"*k".repeat(1 << 18) + "z";
    let calls = [
        set("a"),
        set("b"),
        args("lcs a b len"),
        set(&long_key),
        args(&format!("keys {pattern}")),
        args("keys a"),
    ];
    let Reply::Array(replies) = run(&mut Map::default(), 1, &[&calls], Replies::Wanted) else {
        panic!("an array")
    };
    assert!(is_error(&replies[2], "ERR too much to look at"), "{:?}", replies[2]);
    assert!(is_error(&replies[4], "ERR too much to look at"), "{:?}", replies[4]);
    assert_eq!(replies[5], Reply::Array(vec![Reply::bulk("a")]));
}

#[test]
fn results_that_are_too_large_undo_their_transaction() {
    let large = Bytes::from(vec![b'x'; 15 << 20]);
    let mut calls = vec![vec![Bytes::from("set"), Bytes::from("a"), large]];
    calls.extend((0..50).map(|to| args(&format!("copy a to{to}"))));
    let mut rows = Map::default();
    let reply = run(&mut rows, 3, &[&[args("incr x")], &calls], Replies::Unwanted);
    assert!(is_error(&reply, "ERR the results of the transaction"), "{reply:?}");
    assert_eq!(crate::store::keyspace::Meta::read(&rows).unwrap().databases[0].keys, 1);
}

/// Written by a version before that level: it must become what it became there.
#[test]
fn an_assertion_that_is_malformed_undoes_from_its_level_on() {
    for (level, keys) in [(1, 1), (3, 0)] {
        let mut rows = Map::default();
        run(&mut rows, level, &[&[args("set a 1"), args("ak.assert a NOSUCH")]], Replies::Wanted);
        assert_eq!(crate::store::keyspace::Meta::read(&rows).unwrap().databases[0].keys, keys);
    }
}
