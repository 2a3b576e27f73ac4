//! Large ranges deleted while others work, and across a change of master; questions that need more
//! than one node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arakoon::cli::client::Client;
use resp::Reply;

use crate::harness::{Cluster, eventually};

const KEYS: usize = 30_000;
/// Of 100 bytes.
const VALUE: &str = "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789";
/// Keys that stay.
const KEPT: usize = 10_000;
/// Deleting that many takes 120 steps, with a rest after each.
const WITHIN: Duration = Duration::from_secs(60);

fn connect(cluster: &Cluster, seat: usize) -> Client {
    Client::connect(cluster.address(seat), WITHIN).expect("it is there")
}

fn ask(client: &mut Client, words: &[&str]) -> Reply {
    client.set_timeout(WITHIN);
    client.call(words).expect("an answer")
}

/// Sets so many keys.
fn fill(client: &mut Client, prefix: &str, count: usize) {
    for first in (0..count).step_by(1000) {
        let keys: Vec<String> = (first..first + 1000).map(|n| format!("{prefix}{n:06}")).collect();
        let mut words = vec!["MSET"];
        keys.iter().for_each(|key| words.extend([key.as_str(), VALUE]));
        assert_eq!(ask(client, &words), Reply::OK);
    }
}

/// What one client's commands took, and when the long ones began.
struct Took {
    name: &'static str,
    times: Vec<Duration>,
    long: Vec<(Duration, Duration)>,
}

/// Commands that take longer are listed.
const LONG: Duration = Duration::from_millis(100);

impl Took {
    fn greatest(&self) -> Duration {
        self.times.iter().max().copied().unwrap_or_default()
    }

    fn print(&mut self, when: &str) {
        self.times.sort_unstable();
        let at = |part: f64| self.times[((self.times.len() - 1) as f64 * part) as usize];
        println!(
            "{} {when}: {} answers, p50 {:?}, p99 {:?}, greatest {:?}, {} above {LONG:?}: {:?}",
            self.name,
            self.times.len(),
            at(0.5),
            at(0.99),
            self.greatest(),
            self.long.len(),
            self.long,
        );
    }
}

/// GETs and SETs of two clients, one after the other each, until told to stop.
fn ask_until(cluster: &Cluster, master: usize, done: &Arc<AtomicBool>) -> Vec<JoinHandle<Took>> {
    let began = Instant::now();
    let mut working = Vec::new();
    for name in ["GET", "SET"] {
        let (mut client, done) = (connect(cluster, master), done.clone());
        working.push(std::thread::spawn(move || {
            let mut took = Took { name, times: Vec::new(), long: Vec::new() };
            let mut random = fastrand::Rng::with_seed(7);
            client.set_timeout(WITHIN);
            while !done.load(Ordering::SeqCst) {
                let key = format!("kept:{:06}", random.usize(..KEPT));
                let asked = Instant::now();
                let answer = match name {
                    "GET" => client.call(&["GET", &key]),
                    _ => client.call(&["SET", &key, "value"]),
                };
                let time = asked.elapsed();
                let refused = matches!(answer, Err(_) | Ok(Reply::Error(_) | Reply::Null));
                assert!(!refused, "{name}: {answer:?}");
                took.times.push(time);
                if time > LONG {
                    took.long.push((asked - began, time));
                }
            }
            took
        }));
    }
    working
}

fn end(working: Vec<JoinHandle<Took>>, done: &AtomicBool) -> Vec<Took> {
    done.store(true, Ordering::SeqCst);
    working.into_iter().map(|client| client.join().expect("it only asks")).collect()
}

/// With `ARAKOON_RANGE_KEYS=1000000` that many are deleted, and the same clients go on for as long
/// afterwards: what both prints have is the machine's.
#[test]
fn others_are_answered_while_a_large_range_is_deleted() {
    let asked_for = std::env::var("ARAKOON_RANGE_KEYS").ok();
    let keys = asked_for.as_ref().map_or(KEYS, |keys| keys.parse().expect("a number"));
    let cluster = Cluster::start();
    let master = cluster.master();
    let mut client = connect(&cluster, master);
    fill(&mut client, "large:", keys);
    fill(&mut client, "kept:", KEPT);

    let done = Arc::new(AtomicBool::new(false));
    let working = ask_until(&cluster, master, &done);
    let began = Instant::now();
    client.set_timeout(Duration::from_secs(600));
    let count = client.call(&["AK.DELPREFIX", "large:"]).expect("an answer");
    let took = began.elapsed();
    let mut meanwhile = end(working, &done);
    assert_eq!(count, Reply::Integer(keys as i64));
    assert_eq!(ask(&mut client, &["DBSIZE"]), Reply::Integer(KEPT as i64));

    println!("{keys} keys in {took:?}");
    meanwhile.iter_mut().for_each(|client| client.print("meanwhile"));
    for client in &meanwhile {
        // How long each waits depends on the machine; that they do not wait for the end does not.
        let (count, greatest) = (client.times.len(), client.greatest());
        assert!(count > 20, "{count} answers to {} in {took:?}", client.name);
        assert!(greatest < took / 2, "a {} took {greatest:?} of {took:?}", client.name);
    }
    if asked_for.is_some() {
        done.store(false, Ordering::SeqCst);
        let working = ask_until(&cluster, master, &done);
        std::thread::sleep(took);
        let mut without = end(working, &done);
        without.iter_mut().for_each(|client| client.print("without it"));
    }
}

#[test]
fn a_large_range_stays_deleted_when_the_master_dies() {
    let mut cluster = Cluster::start();
    let master = cluster.master();
    let mut client = connect(&cluster, master);
    fill(&mut client, "large:", KEYS);
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
