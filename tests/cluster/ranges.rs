//! Large ranges deleted while others work, and across a change of master; questions that need more
//! than one node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arakoon::cli::client::Client;
use resp::Reply;

use crate::harness::{Cluster, eventually};

const KEYS: usize = 30_000;
/// Deleting that many takes a step of 250 every 10 ms at best.
const WITHIN: Duration = Duration::from_secs(60);

fn connect(cluster: &Cluster, seat: usize) -> Client {
    Client::connect(cluster.address(seat), WITHIN).expect("it is there")
}

fn ask(client: &mut Client, words: &[&str]) -> Reply {
    client.set_timeout(WITHIN);
    client.call(words).expect("an answer")
}

/// Sets [`KEYS`] keys.
fn fill(client: &mut Client, prefix: &str) {
    for first in (0..KEYS).step_by(1000) {
        let keys: Vec<String> = (first..first + 1000).map(|n| format!("{prefix}{n:06}")).collect();
        let mut words = vec!["MSET"];
        keys.iter().for_each(|key| words.extend([key.as_str(), "value"]));
        assert_eq!(ask(client, &words), Reply::OK);
    }
}

#[test]
fn others_are_answered_while_a_large_range_is_deleted() {
    let cluster = Cluster::start();
    let master = cluster.master();
    let mut client = connect(&cluster, master);
    fill(&mut client, "large:");
    assert_eq!(ask(&mut client, &["SET", "other", "0"]), Reply::OK);

    let done = Arc::new(AtomicBool::new(false));
    let mut other = connect(&cluster, master);
    let until = done.clone();
    let working = std::thread::spawn(move || {
        let (mut answers, mut longest) = (0u64, Duration::ZERO);
        while !until.load(Ordering::SeqCst) {
            let asked = Instant::now();
            assert!(matches!(ask(&mut other, &["INCR", "other"]), Reply::Integer(_)));
            assert!(matches!(ask(&mut other, &["GET", "other"]), Reply::Bulk(_)));
            longest = longest.max(asked.elapsed());
            answers += 1;
        }
        (answers, longest)
    });
    let began = Instant::now();
    let count = ask(&mut client, &["AK.DELPREFIX", "large:"]);
    let took = began.elapsed();
    done.store(true, Ordering::SeqCst);
    let (answers, longest) = working.join().expect("it only asks");
    assert_eq!(count, Reply::Integer(KEYS as i64));
    assert_eq!(ask(&mut client, &["DBSIZE"]), Reply::Integer(1));
    // How long each waits depends on the machine; that they do not wait for the end does not.
    println!("{KEYS} keys in {took:?}; meanwhile {answers} pairs, the longest {longest:?}");
    assert!(answers > 20, "{answers} pairs of answers in {took:?}");
    assert!(longest < took / 2, "a pair took {longest:?} of {took:?}");
}

#[test]
fn a_large_range_stays_deleted_when_the_master_dies() {
    let mut cluster = Cluster::start();
    let master = cluster.master();
    let mut client = connect(&cluster, master);
    fill(&mut client, "large:");
    let mut deleting = connect(&cluster, master);
    let waiting = std::thread::spawn(move || {
        deleting.set_timeout(WITHIN);
        deleting.call(&["AK.DELPREFIX", "large:"])
    });
    // Once nobody sees the keys, the entry is chosen; their rows are still there.
    eventually("the range is gone", || {
        let found = ask(&mut client, &["AK.PREFIX", "large:", "LIMIT", "1"]);
        (found == Reply::Array(Vec::new())).then_some(())
    });
    cluster.kill(master);
    // Its connection broke, or it was very fast.
    let answer = waiting.join().expect("it only asks");
    assert!(!matches!(&answer, Ok(Reply::Integer(n)) if *n != KEYS as i64), "{answer:?}");

    let master = cluster.master();
    let mut client = connect(&cluster, master);
    let found = ask(&mut client, &["AK.PREFIX", "large:", "LIMIT", "1"]);
    assert_eq!(found, Reply::Array(Vec::new()));
    eventually("the new master removes the rows", || {
        (ask(&mut client, &["DBSIZE"]) == Reply::Integer(0)).then_some(())
    });
}

#[test]
fn a_replica_answers_from_a_state_that_is_new_enough() {
    let cluster = Cluster::start();
    let master = cluster.master();
    let mut client = connect(&cluster, master);
    assert_eq!(ask(&mut client, &["SET", "a", "1"]), Reply::OK);
    let Reply::Integer(index) = ask(&mut client, &["AK.TXID"]) else { panic!("it is a number") };
    // With all three there, both others have it soon.
    assert_eq!(ask(&mut client, &["WAIT", "2", "5000"]), Reply::Integer(2));
    assert_eq!(ask(&mut client, &["AK.PROGRESS"]), Reply::Integer(1));

    let mut reader = connect(&cluster, cluster.replica());
    assert_eq!(ask(&mut reader, &["READONLY"]), Reply::OK);
    eventually("the replica is new enough", || {
        (ask(&mut reader, &["AK.ATLEAST", &index.to_string()]) == Reply::OK).then_some(())
    });
    assert_eq!(ask(&mut reader, &["GET", "a"]), Reply::bulk("1"));
    let ahead = (index + 1_000_000).to_string();
    for words in [&["AK.ATLEAST", &ahead][..], &["GET", "a"]] {
        let answer = ask(&mut reader, words);
        assert!(
            matches!(&answer, Reply::Error(text) if text.starts_with("TRYAGAIN")),
            "{answer:?}"
        );
    }
    let name = format!("n{}", master + 1);
    let expected = [Reply::bulk(name), Reply::bulk(cluster.address(master).to_owned())];
    assert_eq!(ask(&mut reader, &["AK.MASTER"]), Reply::Array(expected.to_vec()));
}
