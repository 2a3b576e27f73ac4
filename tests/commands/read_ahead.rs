//! Reads that follow each other in a pipeline share one view; nobody sees that.

use arakoon::server::Refusal;
use proptest::collection::vec;
use proptest::prelude::*;
use resp::Reply;

use crate::support::client::{Client, is_error, request};

/// The replies to a pipeline, and how many views it took.
fn pipe(client: &mut Client, lines: &[&str]) -> (Vec<Reply>, usize) {
    client.node.0.lock().views = 0;
    let replies = client.send(lines.iter().map(|line| request(line)).collect()).1;
    (replies, client.node.0.lock().views)
}

#[test]
fn reads_in_a_row_share_a_view() {
    let mut client = Client::new();
    pipe(&mut client, &["SET a 1", "SET b two"]);
    let lines = ["GET a", "get b", "STRLEN b", "EXISTS a c", "GET c", "TTL a", "MGET a b"];
    let (replies, views) = pipe(&mut client, &lines);
    let [one, two] = ["1", "two"].map(Reply::bulk);
    let array = Reply::Array(vec![one.clone(), two.clone()]);
    let integer = Reply::Integer;
    assert_eq!(replies, [one, two, integer(3), integer(1), Reply::Null, integer(-1), array]);
    assert_eq!(views, 1);
    // So many at a time: the view holds the next entry up.
    let (replies, views) = pipe(&mut client, &["GET a"; 100]);
    assert_eq!(replies, vec![Reply::bulk("1"); 100]);
    assert!((3..10).contains(&views), "{views}");
    let long = format!("EXISTS {}", "x".repeat(2000));
    let (_, views) = pipe(&mut client, &["GET a", "GET b", &long, "GET a", "GET b"]);
    assert_eq!(views, 3, "nor has a long key");
    let (_, views) = pipe(&mut client, &["GET a", "EXISTS a a a a", "KEYS *", "GET a", "SCAN 0"]);
    assert_eq!(views, 5, "what is not short has its own");
}

#[test]
fn what_is_behind_an_update_sees_it() {
    let mut client = Client::new();
    let lines = ["SET a 1", "GET a", "GET a", "SET a 2", "GET a", "GETDEL a", "GET a"];
    let replies = pipe(&mut client, &lines).0;
    let [one, two] = ["1", "2"].map(Reply::bulk);
    let expected = [Reply::OK, one.clone(), one, Reply::OK, two.clone(), two, Reply::Null];
    assert_eq!(replies, expected);
    pipe(&mut client, &["SET a 1", "SELECT 1", "SET a other", "SELECT 0"]);
    let replies = pipe(&mut client, &["GET a", "SELECT 1", "GET a", "GET a", "SELECT 0"]).0;
    assert_eq!((&replies[2], &replies[3]), (&Reply::bulk("other"), &Reply::bulk("other")));
}

#[test]
fn errors_between_reads_take_nobody_elses_answer() {
    let mut client = Client::new();
    pipe(&mut client, &["SET a 1", "SET b 2"]);
    let lines = ["GET a", "GET", "GET b", "NOSUCH", "GET a", "GETBIT a x", "GET b", "GET a"];
    let replies = pipe(&mut client, &lines).0;
    let values: Vec<_> = replies.iter().filter(|reply| !is_error(reply, "ERR")).cloned().collect();
    assert_eq!(values, ["1", "2", "1", "2", "1"].map(Reply::bulk));
    assert!(is_error(&replies[1], "arguments") && is_error(&replies[3], "unknown"));
    assert!(is_error(&replies[5], "bit offset"), "{replies:?}");
}

#[test]
fn without_the_lease_none_of_them_is_answered() {
    let mut client = Client::new();
    pipe(&mut client, &["SET a 1"]);
    client.node.0.lock().lease = Some(Refusal::TryAgain("not now".into()));
    let replies = pipe(&mut client, &["GET a"; 5]).0;
    assert!(replies.iter().all(|reply| is_error(reply, "TRYAGAIN")), "{replies:?}");
}

#[test]
fn a_key_that_becomes_due_is_gone_for_all_behind_it() {
    let mut client = Client::new();
    pipe(&mut client, &["SET a 1", "SET b 2 PX 100", "SET c 3"]);
    client.node.0.lock().stamp_ms += 101;
    let replies = pipe(&mut client, &["GET a", "GET b", "EXISTS a b c", "GET c", "DBSIZE"]).0;
    let two = Reply::Integer(2);
    assert_eq!(replies, [Reply::bulk("1"), Reply::Null, two.clone(), Reply::bulk("3"), two]);
}

#[test]
fn large_values_do_not_pile_up() {
    let mut client = Client::new();
    client.ask(&[b"SET", b"a", &[b'x'; 40_000]]);
    let (replies, views) = pipe(&mut client, &["GET a"; 9]);
    assert!(replies.iter().all(|reply| *reply == Reply::bulk(vec![b'x'; 40_000])));
    assert_eq!(views, 3, "two beside the first");
}

fn line() -> impl Strategy<Value = String> {
    let key = || prop::sample::select(vec!["a", "b", "c"]);
    let read = prop::sample::select(vec!["GET", "STRLEN", "TTL", "EXISTS", "PTTL"]);
    let write = prop::sample::select(vec!["INCR", "DEL", "GETDEL", "SETNX"]);
    prop_oneof![
        6 => (read, key()).prop_map(|(name, key)| format!("{name} {key}")),
        1 => (key(), key()).prop_map(|(one, other)| format!("MGET {one} {other}")),
        2 => (write, key()).prop_map(|(name, key)| match name {
            "SETNX" => format!("SETNX {key} 7"),
            _ => format!("{name} {key}"),
        }),
        1 => prop::sample::select(vec![
            "SELECT 1", "SELECT 0", "MULTI", "EXEC", "DBSIZE", "GET", "PEXPIRE a 1000", "PEXPIRE a -1",
        ]).prop_map(str::to_owned),
    ]
}

proptest! {
    #[test]
    fn a_pipeline_answers_what_its_requests_do_one_by_one(lines in vec(line(), 1..60)) {
        let (mut together, mut alone) = (Client::new(), Client::new());
        let requests = lines.iter().map(|line| request(line)).collect();
        let replies = together.send(requests).1;
        let one_by_one: Vec<_> =
            lines.iter().flat_map(|line| alone.send(vec![request(line)]).1).collect();
        prop_assert_eq!(replies, one_by_one);
    }
}
