//! Sessions beyond single commands: limits, and what a scan promises.

use std::collections::BTreeSet;

use arakoon::command::batch;
use arakoon::server::Submission;
use bytes::{Bytes, BytesMut};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use resp::{Reply, Request};

use crate::support::client::{Client, is_error, request};

const PAIR_LIMIT: usize = 16 << 20;

#[test]
fn a_key_with_its_value_stays_below_16_mib() {
    let mut client = Client::new();
    let value = vec![b'x'; PAIR_LIMIT - 2];
    assert_eq!(client.ask(&[b"SET", b"k", &value]), Reply::OK);
    assert!(is_error(&client.ask(&[b"SET", b"kk", &value]), "16777216"));
    assert!(is_error(&client.ask(&[b"APPEND", b"k", b"x"]), "16777216"));
    assert_eq!(client.ask(&[b"STRLEN", b"k"]), Reply::Integer(value.len() as i64));
}

#[test]
fn a_command_and_a_transaction_stay_below_32_mib() {
    let mut client = Client::new();
    let value = vec![b'x'; 15 << 20];
    let large: [&[u8]; 7] = [b"MSET", b"a", &value, b"b", &value, b"c", &value];
    assert!(is_error(&client.ask(&large), "33554432"));
    assert_eq!(client.ask(&[b"MULTI"]), Reply::OK);
    for queued in [true, true, false] {
        let reply = client.ask(&[b"SET", b"a", &value]);
        assert_eq!(is_error(&reply, "33554432"), !queued, "{reply:?}");
    }
    assert!(is_error(&client.ask(&[b"EXEC"]), "EXECABORT"));
    assert_eq!(client.ask(&[b"EXISTS", b"a"]), Reply::Integer(0));
}

#[test]
fn a_malformed_assertion_in_the_log_undoes_its_transaction() {
    // No session queues one any more.
    let mut client = Client::new();
    let args = |line: &str| line.split(' ').map(|word| Bytes::from(word.to_owned())).collect();
    let calls: [Vec<Bytes>; 2] = [args("set a 9"), args("ak.assert a version x")];
    let mut items = BytesMut::new();
    batch::encode_level(&mut items, batch::LEVEL_BOUNDED);
    batch::encode_transaction(&mut items, &[], calls.iter().map(|call| (0, &call[..])));
    let replies = client.node.propose(Submission { items: items.freeze(), count: 1, charge: 0 });
    let replies = replies.expect("it is applied");
    assert!(is_error(&replies[0], "index-place"), "{replies:?}");
    assert_eq!(client.ask(&[b"GET", b"a"]), Reply::Null);
}

#[test]
fn a_deep_pipeline_becomes_submissions_of_bounded_size() {
    let mut client = Client::new();
    let value = Bytes::from(vec![b'x'; 1000]);
    let set = |key: usize| Request {
        arguments: vec![Bytes::from("SET"), Bytes::from(key.to_string()), value.clone()],
    };
    let (submissions, replies) = client.send((0..5000).map(set).collect());
    assert_eq!(replies, vec![Reply::OK; 5000]);
    assert!((5..9).contains(&submissions.len()), "{} submissions", submissions.len());
    for submission in &submissions {
        assert!(submission.items.len() < (1 << 20) + 1100, "{}", submission.items.len());
    }
    assert_eq!(submissions.iter().map(|submission| submission.count).sum::<u32>(), 5000);
}

#[test]
fn small_writes_with_large_results_do_not_share_an_entry() {
    let mut client = Client::new();
    let setrange = |key| request(&format!("SETRANGE k{key} 16777000 x"));
    let (submissions, _) = client.send((0..10).map(setrange).collect());
    let counts: Vec<u32> = submissions.iter().map(|submission| submission.count).collect();
    assert_eq!(counts, [5, 5]);
    assert_eq!(client.ask(&[b"MULTI"]), Reply::OK);
    for place in 0..33 {
        let reply = client.ask(&[b"RENAME", b"k0", b"k1"]);
        assert_eq!(is_error(&reply, "536870912"), place == 32, "{reply:?}");
    }
    assert!(is_error(&client.ask(&[b"EXEC"]), "EXECABORT"));
}

#[test]
fn small_writes_of_small_values_share_an_entry() {
    let mut client = Client::new();
    client.ask(&[b"MSET", b"a", b"1", b"b", b"2"]);
    for line in [
        "COPY a c REPLACE",
        "BITOP OR c a b",
        "BITFIELD a SET u8 0 65",
        "GETEX a PERSIST",
        "EXPIRE a 100",
        "APPEND a x",
        "SETRANGE a 1 x",
        "GETSET a 1",
        "SETBIT b 7 1",
    ] {
        let (submissions, replies) = client.send(vec![request(line); 1000]);
        assert_eq!(submissions.len(), 1, "{line}");
        assert!(!replies.iter().any(|reply| matches!(reply, Reply::Error(_))), "{line}");
    }
    client.ask(&[b"SETRANGE", b"a", b"10000000", b"x"]);
    for line in ["COPY a c REPLACE", "EXPIRE a 100", "APPEND a x"] {
        let (submissions, _) = client.send(vec![request(line); 14]);
        assert_eq!(submissions.len(), 2, "{line} of a large value");
    }
    // What the commands before make large is not in the view yet.
    client.ask(&[b"FLUSHALL"]);
    let mut requests = vec![request("SETRANGE a 10000000 x")];
    requests.extend(vec![request("COPY a c REPLACE"); 10]);
    assert_eq!(client.send(requests).0.len(), 2);
}

#[test]
fn results_that_are_too_large_together_are_refused_when_applied() {
    let mut client = Client::new();
    client.ask(&[b"SETRANGE", b"a", b"16000000", b"x"]);
    let mut items = BytesMut::new();
    for to in 0..50 {
        batch::encode_level(&mut items, batch::LEVEL_BOUNDED);
        batch::encode_command(&mut items, 0, &request(&format!("COPY a to{to}")).arguments);
    }
    let submission = Submission { items: items.freeze(), count: 50, charge: 0 };
    let replies = client.node.propose(submission).expect("it is applied");
    let refused = replies.iter().filter(|reply| is_error(reply, "TRYAGAIN")).count();
    assert_eq!(refused, 50 - (576 << 20) / 16_000_001);
    assert_eq!(client.ask(&[b"DBSIZE"]), Reply::Integer(51 - refused as i64));
}

/// What another client's update, still on its way, makes large is in nobody's view.
#[test]
fn short_updates_of_a_value_that_became_long_are_bounded() {
    let mut client = Client::new();
    for lines in [
        ["GETEX a", "GETEX a"],
        ["SET a x NX GET", "SET a x NX GET"],
        ["RENAME a b", "RENAME b a"],
        ["SETRANGE a 0 y", "SETBIT a 7 1"],
        ["APPEND a z", "EXPIRE a 1000"],
    ] {
        client.ask(&[b"FLUSHALL"]);
        let (submissions, replies) = client.send(lines.map(request).to_vec());
        assert_eq!(submissions.len(), 1, "{lines:?}");
        assert!(replies.len() == 2, "{replies:?}");
        let item = submissions[0].items.clone();
        client.ask(&[b"FLUSHALL"]);
        client.ask(&[b"SETRANGE", b"a", b"16000000", b"x"]);
        let items = Bytes::from(item.repeat(50));
        let submission = Submission { items, count: 100, charge: 0 };
        let replies = client.node.propose(submission).expect("it is applied");
        let done = replies.iter().filter(|reply| !matches!(reply, Reply::Error(_))).count();
        assert_eq!(done, (576 << 20) / 16_000_001, "{lines:?}");
        assert!(is_error(&replies[done], "TRYAGAIN"), "{lines:?}");
    }
}

#[test]
fn reads_that_look_at_much_do_not_hold_the_store_up() {
    let mut client = Client::new();
    client.send((0..6000).map(|key| request(&format!("SET k{key:04} 1"))).collect());
    client.ask(&[b"SET", b"long", &[b'x'; 5000]]);
    client.ask(&[b"SET", b"longer", &[b'x'; 9000]]);
    let mut reads = |lines: &[&str]| {
        let replies = client.send(lines.iter().map(|line| request(line)).collect()).1;
        (std::mem::take(&mut client.node.0.lock().long_reads), replies)
    };
    for line in ["KEYS *", "AK.RANGE - +", "AK.PREFIX k", "SCAN 0 COUNT 10000", "LCS long longer"] {
        let (long, replies) = reads(&[line]);
        assert_eq!(long, 1, "{line}");
        assert!(!is_error(&replies[0], ""), "{line}: {replies:?}");
        let (long, queued) = reads(&["MULTI", line, "EXEC"]);
        assert_eq!((long, &queued[2]), (1, &Reply::Array(replies)), "{line} in MULTI");
    }
    for line in ["SCAN 0", "AK.RANGE - + LIMIT 1000", "KEYS k12*", "LCS long k0001", "RANDOMKEY"] {
        assert_eq!(reads(&[line]).0, 0, "{line}");
    }
}

/// WATCH of the keys with these numbers.
fn watch(keys: std::ops::Range<usize>) -> Request {
    let keys = keys.map(|key| Bytes::from(format!("k{key:07}")));
    Request { arguments: [Bytes::from("WATCH")].into_iter().chain(keys).collect() }
}

#[test]
fn many_watched_keys_do_not_hold_the_store_up() {
    let mut client = Client::new();
    let mut ask = |requests: Vec<Request>| {
        let mut replies = client.send(requests).1;
        (std::mem::take(&mut client.node.0.lock().long_reads), replies.pop().expect("a reply"))
    };
    let in_multi = |lines: &[&str]| {
        let lines = [&["MULTI"], lines, &["EXEC"]].concat();
        lines.into_iter().map(request).collect::<Vec<_>>()
    };
    let read = Reply::Array(vec![Reply::Null]);
    // Few enough to look at, but not twice, be it in one database or in two.
    assert_eq!(ask(vec![watch(0..3000)]), (0, Reply::OK));
    assert_eq!(ask(in_multi(&["GET a"])), (0, read.clone()));
    assert_eq!(ask(vec![watch(0..3000), watch(3000..6000)]), (0, Reply::OK));
    assert_eq!(ask(in_multi(&["GET a"])), (1, read.clone()));
    ask(vec![watch(0..3000), request("SELECT 1"), watch(0..3000), request("SELECT 0")]);
    assert_eq!(ask(in_multi(&["GET a"])), (1, read));
    // The reads have what the watched keys have left.
    let gets = vec!["GET a"; 3000];
    ask(vec![watch(0..3000)]);
    assert_eq!(ask(in_multi(&gets)), (1, Reply::Array(vec![Reply::Null; 3000])));
    // A change is seen there, too.
    ask(vec![watch(0..3000), watch(3000..6000), request("SET k0005999 1")]);
    assert_eq!(ask(in_multi(&["GET a"])), (1, Reply::NullArray));
}

#[test]
fn a_connection_watches_a_limited_number_of_keys() {
    let mut client = Client::new();
    let mut ask = |request| client.send(vec![request]).1.pop().expect("a reply");
    assert!(is_error(&ask(watch(0..1_000_000)), "too many watched keys"));
    assert_eq!(ask(watch(0..65_536)), Reply::OK);
    assert_eq!(ask(watch(0..65_536)), Reply::OK, "the same ones");
    assert!(is_error(&ask(watch(65_535..65_537)), "too many watched keys"));
    // What was not watched may change.
    ask(request("SET k0065536 1"));
    ask(request("MULTI"));
    ask(request("GET a"));
    assert_eq!(ask(request("EXEC")), Reply::Array(vec![Reply::Null]));
    assert_eq!(ask(watch(65_535..65_537)), Reply::OK);
}

#[test]
fn a_connection_watches_keys_of_a_limited_size() {
    let mut client = Client::new();
    let keys = [b'a', b'b', b'c'].map(|letter| vec![letter; 8 << 20]);
    assert_eq!(client.ask(&[b"WATCH", &keys[0], &keys[1]]), Reply::OK);
    assert_eq!(client.ask(&[b"WATCH", &keys[1]]), Reply::OK, "the same one");
    assert!(is_error(&client.ask(&[b"WATCH", b"d"]), "watched keys of 16777217 bytes"));
    client.ask(&[b"UNWATCH"]);
    assert_eq!(client.ask(&[b"WATCH", &keys[2], b"d"]), Reply::OK);
    assert!(is_error(&client.ask(&[b"WATCH", &keys[0]]), "watched keys of"));
}

#[test]
fn what_a_client_calls_itself_is_short() {
    let mut client = Client::new();
    let (long, longer) = (vec![b'n'; 4096], vec![b'n'; 4097]);
    assert_eq!(client.ask(&[b"CLIENT", b"SETNAME", &long]), Reply::OK);
    assert_eq!(client.ask(&[b"CLIENT", b"SETINFO", b"LIB-VER", &long]), Reply::OK);
    for words in [&[&b"CLIENT"[..], b"SETNAME"][..], &[b"CLIENT", b"SETINFO", b"LIB-NAME"]] {
        let reply = client.ask(&[words, &[&longer]].concat());
        assert!(is_error(&reply, "cannot be longer than 4096 bytes"), "{reply:?}");
    }
    let reply = client.ask(&[b"HELLO", b"3", b"SETNAME", &longer]);
    assert!(is_error(&reply, "cannot be longer"), "{reply:?}");
    assert_eq!(client.ask(&[b"CLIENT", b"GETNAME"]), Reply::bulk(long));
}

#[test]
fn only_the_read_that_exceeds_its_allowance_fails() {
    let mut client = Client::new();
    client.ask(&[b"SET", b"small", b"1"]);
    client.ask(&[b"SET", b"large", &vec![b'x'; 15 << 20]]);
    let mget = format!("MGET{}", " large".repeat(40));
    let lines = ["MULTI", "GET small", &mget, "GET small", "KEYS *", "EXEC"];
    let mut replies = client.send(lines.into_iter().map(request).collect()).1;
    let Some(Reply::Array(replies)) = replies.pop() else { panic!("EXEC answers an array") };
    let small = Reply::bulk("1");
    assert_eq!((&replies[0], &replies[2]), (&small, &small));
    assert!(is_error(&replies[1], "the reply is too large"), "{:?}", replies[1]);
    assert_eq!(replies[3], Reply::Array(vec![Reply::bulk("large"), Reply::bulk("small")]));
}

#[test]
fn a_large_removal_has_short_bounds() {
    let mut client = Client::new();
    let set = |key: usize| Request {
        arguments: vec![Bytes::from("SET"), Bytes::from(key.to_string()), Bytes::from("1")],
    };
    client.send((0..1100).map(set).collect());
    let bound = [b"[".to_vec(), vec![b'z'; 70_000]].concat();
    assert!(is_error(&client.ask(&[b"AK.DELRANGE", b"-", &bound]), "bounds"));
    assert_eq!(client.ask(&[b"DBSIZE"]), Reply::Integer(1100));
    assert_eq!(client.ask(&[b"AK.DELRANGE", b"[99", &bound]), Reply::Integer(11));
}

fn scan(client: &mut Client, cursor: &[u8], count: &[u8]) -> (Bytes, Vec<Bytes>) {
    let Reply::Array(parts) = client.ask(&[b"SCAN", cursor, b"COUNT", count]) else {
        panic!("SCAN answers an array");
    };
    let [Reply::Bulk(next), Reply::Array(keys)] = &parts[..] else {
        panic!("SCAN answers {parts:?}");
    };
    let keys = keys.iter().map(|key| match key {
        Reply::Bulk(key) => key.clone(),
        other => panic!("a key is {other:?}"),
    });
    (next.clone(), keys.collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_key_that_stays_comes_exactly_once_in_a_scan(
        staying in btree_set(vec(0..4u8, 0..4), 1..30),
        others in vec((any::<bool>(), vec(0..4u8, 0..4)), 0..60),
        count in 1..7u8,
    ) {
        let mut client = Client::new();
        for key in &staying {
            client.ask(&[b"SET", key, b"1"]);
        }
        let mut others = others.into_iter().filter(|(_, key)| !staying.contains(key));
        let count = count.to_string();
        let (mut cursor, mut seen) = (Bytes::from("0"), Vec::new());
        loop {
            let (next, keys) = scan(&mut client, &cursor, count.as_bytes());
            let again = scan(&mut client, &cursor, count.as_bytes()).1;
            prop_assert_eq!(&keys, &again, "a cursor sent again");
            seen.extend(keys);
            if next == "0" {
                break;
            }
            cursor = next;
            for (set, key) in others.by_ref().take(2) {
                match set {
                    true => client.ask(&[b"SET", &key, b"1"]),
                    false => client.ask(&[b"DEL", &key]),
                };
            }
        }
        let ascending = seen.windows(2).all(|pair| pair[0] < pair[1]);
        prop_assert!(ascending, "in order, so none comes twice: {seen:?}");
        let seen: BTreeSet<Vec<u8>> = seen.into_iter().map(|key| key.to_vec()).collect();
        prop_assert!(staying.is_subset(&seen));
    }
}
