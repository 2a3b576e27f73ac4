//! What redis-cli is told by the last of three nodes, and how soon, when the others were killed or
//! stand still. `--nocapture` shows every answer with its time.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Cluster, eventually};

/// Two leases, but at least 1 s, and some for a busy machine.
const BOUND: Duration = Duration::from_millis(1500);
/// Links that are silent for 5 s are given up.
const NO_QUORUM_WITHIN: Duration = Duration::from_secs(8);
/// For what is answered without waiting for anybody; it includes the start of redis-cli.
const AT_ONCE: Duration = Duration::from_millis(500);

const TRANSACTION: &str = "MULTI\nSET a 3\nGET a\nEXEC\n";

#[test]
fn redis_cli_is_told_when_the_others_were_killed() {
    for master_is_left in [true, false] {
        ask_the_last_one(master_is_left, |cluster, seat| cluster.kill(seat));
    }
}

#[test]
fn redis_cli_is_told_when_the_others_stand_still() {
    for master_is_left in [true, false] {
        ask_the_last_one(master_is_left, |cluster, seat| cluster.stall(seat));
    }
}

fn ask_the_last_one(master_is_left: bool, take_away: fn(&mut Cluster, usize)) {
    let mut cluster = Cluster::start();
    let master = cluster.master();
    assert_eq!(cluster.redis_cli(master, &["set", "a", "1"]), "OK");
    let last = if master_is_left { master } else { cluster.replica() };
    cluster.wait_until_current(last);
    let (port, master_port) = (cluster.port(last).to_owned(), cluster.port(master).to_owned());
    for seat in (0..3).filter(|seat| *seat != last) {
        take_away(&mut cluster, seat);
    }

    let left_at = Instant::now();
    // At once: the lease may hold, and the master may seem to be there.
    let questions = ["GET a\n", "SET a 2\n", "INCR n\n", TRANSACTION];
    let asked = questions.map(|question| {
        let port = port.clone();
        std::thread::spawn(move || (question, ask(&port, question)))
    });
    for asked in asked {
        let (question, (answer, took)) = asked.join().expect("it does not panic");
        show("at once", master_is_left, question, &answer, took);
        let word = answer.lines().last().unwrap_or_default().split(' ').next().unwrap_or_default();
        let told = ["UNCERTAIN", "CLUSTERDOWN", "EXECABORT"].contains(&word)
            || answer.contains("Server closed the connection")
            || (question == "GET a\n" && answer == "1")
            || (!master_is_left && (word == "MOVED" || word == "EXECABORT"));
        assert!(told, "{question:?} was answered {answer:?}");
        assert!(took < BOUND, "{question:?} took {took:?}");
    }

    eventually("it knows no master", || {
        let name = ask(&port, "SENTINEL GET-MASTER-ADDR-BY-NAME mymaster\n").0;
        name.is_empty().then_some(())
    });
    let expect = |question: &str, within: Duration, check: &dyn Fn(&str) -> bool| {
        let (answer, took) = ask(&port, question);
        show("later", master_is_left, question, &answer, took);
        assert!(check(&answer), "{question:?} was answered {answer:?}");
        assert!(took < within, "{question:?} took {took:?}");
    };
    let down = |answer: &str| answer.starts_with("CLUSTERDOWN ");
    for question in ["GET a\n", "SET a 2\n", "INCR n\n", "MGET a b\n", "DBSIZE\n", "SCAN 0\n"] {
        expect(question, AT_ONCE, &down);
    }
    expect(TRANSACTION, AT_ONCE, &|answer| {
        let answer = answer.lines().last().unwrap_or_default();
        answer.starts_with("CLUSTERDOWN ") || answer.starts_with("EXECABORT ")
    });
    expect("CLUSTER SLOTS\n", AT_ONCE, &|answer| answer.contains(&master_port));
    expect("CLUSTER INFO\n", AT_ONCE, &|answer| answer.starts_with("cluster_state:fail"));
    expect("SENTINEL MASTER mymaster\n", AT_ONCE, &|answer| answer.contains("s_down,o_down"));
    let role = format!("slave\n127.0.0.1\n{master_port}\nconnect\n");
    expect("ROLE\n", AT_ONCE, &|answer| answer.starts_with(&role));
    expect("INFO replication\n", AT_ONCE, &|answer| answer.contains("master_link_status:down"));
    expect("PING\n", AT_ONCE, &|answer| answer == "PONG");
    expect("READONLY\nGET a\n", AT_ONCE, &|answer| answer == "OK\n1");
    // A replica takes a node that stands still for one that can be reached until its link is silent
    // for too long.
    eventually("it counts itself alone", || {
        let answer = ask(&port, "SENTINEL CKQUORUM mymaster\n").0;
        answer.starts_with("NOQUORUM 1 ").then_some(())
    });
    let took = left_at.elapsed();
    eprintln!("NOQUORUM within {} ms", took.as_millis());
    assert!(took < NO_QUORUM_WITHIN, "NOQUORUM after {took:?}");
}

/// What redis-cli prints, errors of its own included, and how long it ran.
fn ask(port: &str, lines: &str) -> (String, Duration) {
    let started = Instant::now();
    let mut process = Command::new("redis-cli")
        .args(["-p", port])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("redis-cli starts");
    let mut stdin = process.stdin.take().expect("it is piped");
    stdin.write_all(lines.as_bytes()).expect("it reads");
    drop(stdin);
    let output = process.wait_with_output().expect("its output can be read");
    let took = started.elapsed();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&text).trim().to_owned(), took)
}

fn show(when: &str, master_is_left: bool, question: &str, answer: &str, took: Duration) {
    let left = if master_is_left { "master" } else { "replica" };
    let question = question.trim().replace('\n', ", ");
    let answer = answer.replace('\n', " | ");
    eprintln!("{left} left, {when}: {question}: {} ms: {answer:.100}", took.as_millis());
}
