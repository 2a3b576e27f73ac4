//! Commands that act on real processes: heads on demand, a stop by a client's word, limits that
//! change while a node runs, DEBUG SLEEP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use arakoon::cli::client::Client;
use resp::Reply;

use crate::harness::{Cluster, eventually};

/// A field of INFO.
fn field(cluster: &Cluster, seat: usize, name: &str) -> String {
    let text = cluster.redis_cli(seat, &["INFO", "everything"]);
    let line = text.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("INFO has no {name}")).to_owned()
}

#[test]
fn a_head_is_written_by_all_nodes_when_it_is_asked_for() {
    let cluster = Cluster::start();
    let master = cluster.master();
    assert_eq!(cluster.redis_cli(master, &["SET", "a", "1"]).trim(), "OK");
    assert_eq!(cluster.redis_cli(master, &["SAVE"]).trim(), "OK");
    assert_ne!(cluster.redis_cli(master, &["LASTSAVE"]).trim(), "0");
    assert_eq!(field(&cluster, master, "rdb_changes_since_last_save"), "0");
    for seat in 0..3 {
        let head = || cluster.report(seat).map(|_| field(&cluster, seat, "head_index"));
        eventually("a head on every node", || head().filter(|index| index != "0"));
    }
}

#[test]
fn info_counts_a_change_as_soon_as_it_is_answered() {
    let cluster = Cluster::start();
    let timeout = Duration::from_secs(10);
    let mut client =
        Client::connect(cluster.address(cluster.master()), timeout).expect("it listens");
    let mut changes = || {
        let Ok(Reply::Bulk(text)) = client.call(&["INFO", "persistence"]) else {
            panic!("no text")
        };
        let text = String::from_utf8_lossy(&text).into_owned();
        let line = text.lines().find_map(|it| it.strip_prefix("rdb_changes_since_last_save:"));
        let changes: u64 = line.and_then(|it| it.trim_end().parse().ok()).expect("a number");
        (changes, client.call(&["SET", "a", "1"]).expect("an answer"))
    };
    let (before, _) = changes();
    for count in 1..=200 {
        assert_eq!(changes(), (before + count, Reply::OK));
    }
}

#[test]
fn a_client_stops_a_node_and_another_takes_over() {
    let mut cluster = Cluster::start();
    let master = cluster.master();
    assert_eq!(cluster.redis_cli(master, &["SET", "a", "1"]).trim(), "OK");
    cluster.redis_cli(master, &["SHUTDOWN", "NOSAVE"]);
    assert!(cluster.wait_for_exit(master).success(), "it stops in order");
    let next = eventually("another master", || cluster.master_now().filter(|it| *it != master));
    assert_eq!(cluster.redis_cli(next, &["GET", "a"]).trim(), "1");
}

#[test]
fn debug_sleep_holds_up_its_own_connection_alone() {
    let cluster = Cluster::start_with("enable_debug_command = \"local\"\n");
    let master = cluster.master();
    assert_eq!(cluster.redis_cli(master, &["CONFIG", "RESETSTAT"]).trim(), "OK");
    std::thread::scope(|scope| {
        let sleeping = scope.spawn(|| cluster.redis_cli(master, &["DEBUG", "SLEEP", "2"]));
        let begun = Instant::now();
        while !sleeping.is_finished() {
            let asked = Instant::now();
            assert_eq!(cluster.redis_cli(master, &["SET", "a", "1"]).trim(), "OK");
            let took = asked.elapsed();
            assert!(took < Duration::from_secs(1), "an update took {took:?} meanwhile");
        }
        assert!(begun.elapsed() > Duration::from_secs(1), "it slept {:?}", begun.elapsed());
        assert_eq!(sleeping.join().expect("no panic").trim(), "OK");
    });
    let log = cluster.redis_cli(master, &["SLOWLOG", "GET", "1"]);
    assert!(log.contains("sleep") || log.contains("SLEEP"), "{log}");
    let calls = field(&cluster, master, "cmdstat_debug");
    assert!(calls.starts_with("calls=1,usec=2"), "{calls}");
}

/// Six reads of some seconds each stand in line, and nobody waits for them any more.
#[test]
fn a_stop_does_not_wait_for_long_reads() {
    let mut cluster = Cluster::alone();
    cluster.master();
    for (key, letter) in [("long", "x"), ("longer", "y")] {
        let value = letter.repeat(11_000);
        assert_eq!(cluster.redis_cli(0, &["SET", key, &value]).trim(), "OK");
    }
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = TcpStream::connect(cluster.address(0)).expect("it listens");
        client.write_all(b"LCS long longer\r\n").expect("it reads");
        clients.push(client);
    }
    let busy = || field(&cluster, 0, "used_cpu_user").parse::<f64>().expect("it is a number");
    let before = busy();
    eventually("a read that is under way", || (busy() > before + 0.05).then_some(()));
    let asked_at = Instant::now();
    let exit = cluster.stop(0);
    assert!(exit.success(), "a stop in order, not {exit}: {}", cluster.log(0));
    assert!(asked_at.elapsed() < Duration::from_secs(3), "{:?}", asked_at.elapsed());
}

/// Says this on a connection of its own.
fn say(cluster: &Cluster, seat: usize, words: &[&[u8]]) -> TcpStream {
    let mut stream = TcpStream::connect(cluster.address(seat)).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("it is open");
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    stream.write_all(&out).expect("it takes that");
    stream
}

#[test]
fn a_monitor_is_sent_what_others_run_and_closed_when_it_reads_nothing() {
    let cluster = Cluster::start();
    let master = cluster.master();
    let mut lines = BufReader::new(say(&cluster, master, &[b"MONITOR"])).lines();
    let mut next = || lines.next().expect("a line").expect("it is open");
    assert_eq!(next(), "+OK");
    assert_eq!(cluster.redis_cli(master, &["SET", "a", "1"]).trim(), "OK");
    let line = next();
    assert!(line.starts_with('+') && line.ends_with("\"SET\" \"a\" \"1\""), "{line}");

    // Long values and nobody who reads: its own queue is bounded, and so are the sockets' buffers.
    let listed = || cluster.redis_cli(master, &["CLIENT", "LIST"]);
    let deaf = say(&cluster, master, &[b"MONITOR"]);
    let port = deaf.local_addr().expect("it is open").port();
    let is_there = |list: String| list.contains(&format!("addr=127.0.0.1:{port} "));
    eventually("it is a monitor", || is_there(listed()).then_some(()));
    let long = vec![0; 4 << 20];
    eventually("it is closed", || {
        // What becomes of it on a busy machine does not matter.
        let answer = say(&cluster, master, &[b"SET", b"b", &long]).read_exact(&mut [0; 1]);
        answer.expect("an answer");
        (!is_there(listed())).then_some(())
    });
}

#[test]
fn client_kill_ends_a_read_that_takes_long() {
    let cluster = Cluster::start();
    let master = cluster.master();
    // To compare one of these keys with the pattern takes many milliseconds.
    let key = |number: usize| format!("{number:04}{}", "a".repeat(8000)).into_bytes();
    for first in (0..2000).step_by(500) {
        let keys: Vec<Vec<u8>> = (first..first + 500).map(key).collect();
        let mut words: Vec<&[u8]> = vec![b"MSET"];
        keys.iter().for_each(|key| words.extend([&key[..], b"1"]));
        let mut reply = [0; 5];
        say(&cluster, master, &words).read_exact(&mut reply).expect("an answer");
        assert_eq!(&reply, b"+OK\r\n");
    }
    let pattern = format!("*{}b", "a".repeat(3000));
    let mut reading = say(&cluster, master, &[b"KEYS", pattern.as_bytes()]);
    let address = reading.local_addr().expect("it is open").to_string();
    std::thread::sleep(Duration::from_millis(300));
    let killed = Instant::now();
    let asked = ["CLIENT", "KILL", "ADDR", &address];
    assert_eq!(cluster.redis_cli(master, &asked).trim(), "1", "it has not been answered yet");
    let mut rest = Vec::new();
    // A reset is an end as well.
    let _ = reading.read_to_end(&mut rest);
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(10), "it ended {took:?} after it was killed");
    // A read that takes its turn behind it does not wait either.
    let mut next = say(&cluster, master, &[b"KEYS", b"0001*b"]);
    let mut reply = [0; 4];
    next.read_exact(&mut reply).expect("an answer");
    assert_eq!(&reply, b"*0\r\n");
}
