//! Without a quorum nothing is answered but errors, fast; with it again, service resumes.

use std::process::Command;
use std::time::{Duration, Instant};

use arakoon::cli::client::Client;
use resp::Reply;

use crate::harness::{ANSWER_WITHIN, Cluster, eventually, program, run};

/// Two leases, but at least 1 s, and some for a busy machine.
const BOUND: Duration = Duration::from_millis(1500);

#[test]
fn one_node_alone_refuses_and_resumes_with_a_second_one() {
    let mut cluster = Cluster::start();
    let master = cluster.master();
    assert_eq!(cluster.redis_cli(master, &["set", "before", "1"]), "OK");
    let others: Vec<usize> = (0..3).filter(|seat| *seat != master).collect();
    for seat in &others {
        cluster.kill(*seat);
    }

    // Still within the lease: this one is proposed, and can never be chosen.
    let started = Instant::now();
    let answer = cluster.call(master, &["SET", "during", "1"]).expect("an answer");
    let elapsed = started.elapsed();
    let Reply::Error(text) = &answer else { panic!("one of three acknowledged: {answer:?}") };
    assert!(
        text.starts_with("UNCERTAIN ") || text.starts_with("CLUSTERDOWN "),
        "a write without a quorum is answered {text:?}"
    );
    assert!(elapsed < BOUND, "answered after {elapsed:?}");

    eventually("the lease ends", || {
        let answer = cluster.redis_cli(master, &["get", "before"]);
        // Nothing: the node closed this connection too when it lost its mastership.
        if answer == "1" || answer.is_empty() {
            return None;
        }
        assert!(answer.starts_with("CLUSTERDOWN "), "a read without a lease: {answer:?}");
        Some(())
    });
    for command in [&["set", "after", "1"][..], &["get", "before"], &["incr", "count"]] {
        let started = Instant::now();
        let answer = cluster.redis_cli(master, command);
        assert!(answer.starts_with("CLUSTERDOWN "), "{command:?} answered {answer:?}");
        assert!(started.elapsed() < BOUND, "{command:?} took {:?}", started.elapsed());
    }
    assert!(!status(&cluster, &[]).0, "status must not be a success without a quorum");

    cluster.start_node(others[0]);
    let master = cluster.master();
    assert_eq!(cluster.redis_cli(master, &["get", "before"]), "1");
    assert_eq!(cluster.redis_cli(master, &["get", "after"]), "", "a refused write is not there");
    assert_eq!(cluster.redis_cli(master, &["set", "after", "2"]), "OK");
}

/// What a master answers to three updates at once when it has just lost its quorum.
fn answers_without_quorum(cluster: &Cluster, master: usize) -> Vec<String> {
    let mut clients: Vec<Client> = (0..3)
        .map(|_| Client::connect(cluster.address(master), ANSWER_WITHIN).expect("it is there"))
        .collect();
    for client in &mut clients {
        assert_eq!(client.call(&["SET", "before", "1"]).expect("an answer"), Reply::OK);
    }
    (0..3).filter(|seat| *seat != master).for_each(|seat| cluster.stall(seat));
    let asked = clients.into_iter().map(|mut client| {
        std::thread::spawn(move || {
            let started = Instant::now();
            (client.call(&["INCR", "during"]), started.elapsed())
        })
    });
    let answers = asked.collect::<Vec<_>>().into_iter().map(|asked| {
        let (answer, elapsed) = asked.join().expect("it does not panic");
        assert!(elapsed < BOUND, "answered after {elapsed:?}");
        match answer.expect("an answer, not a closed connection") {
            Reply::Error(text) => text.into_owned(),
            answer => panic!("acknowledged by one: {answer:?}"),
        }
    });
    answers.collect()
}

#[test]
fn updates_already_proposed_are_uncertain_within_the_bound() {
    let cluster = Cluster::start();
    let mut attempts = 0;
    let master = loop {
        let master = cluster.master();
        let answers = answers_without_quorum(&cluster, master);
        // While the lease holds two entries are proposed at most. What still waits when it ends, or
        // comes later, was not, and is told so.
        for text in &answers {
            let expected = text.starts_with("UNCERTAIN ") || text.starts_with("CLUSTERDOWN ");
            assert!(expected, "{text}");
        }
        if answers.iter().any(|text| text.starts_with("UNCERTAIN ")) {
            break master;
        }
        attempts += 1;
        assert!(attempts < 5, "no update came before the lease ended: {answers:?}");
        (0..3).filter(|seat| *seat != master).for_each(|seat| cluster.go_on(seat));
    };
    for command in [&["SET", "after", "1"][..], &["GET", "before"]] {
        let started = Instant::now();
        let answer = cluster.call(master, command).expect("an answer");
        let Reply::Error(text) = &answer else { panic!("answered by one: {answer:?}") };
        assert!(text.starts_with("CLUSTERDOWN "), "{text}");
        assert!(started.elapsed() < BOUND, "answered after {:?}", started.elapsed());
    }

    (0..3).filter(|seat| *seat != master).for_each(|seat| cluster.go_on(seat));
    let master = cluster.master();
    assert_eq!(cluster.redis_cli(master, &["get", "after"]), "", "a refused write is not there");
    assert_eq!(cluster.redis_cli(master, &["set", "after", "2"]), "OK");
}

#[test]
fn status_tells_roles_and_progress() {
    let mut cluster = Cluster::start();
    let master = cluster.master();
    assert_eq!(cluster.redis_cli(master, &["set", "a", "1"]), "OK");
    let (success, text) = status(&cluster, &[]);
    assert!(success, "{text}");
    assert!(text.contains(&format!("Master n{} at {}.", master + 1, cluster.address(master))));

    let replica = cluster.replica();
    cluster.kill(replica);
    eventually("a master without the dead node", || cluster.master_now());
    let (success, text) = status(&cluster, &["--json"]);
    assert!(success, "two of three are a quorum: {text}");
    let json: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(json["quorum"], true);
    assert_eq!(json["nodes"][replica]["reachable"], false);
    assert_eq!(json["nodes"][master]["info"]["part"], "master");
    assert_eq!(json["nodes"][master]["info"]["keys"], 1);

    let connect = ["status", "--connect", cluster.address(master), "--json"];
    let output = run(Command::new(program()).args(connect));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(json["nodes"].as_array().map(Vec::len), Some(3), "one node names the others");
}

fn status(cluster: &Cluster, arguments: &[&str]) -> (bool, String) {
    let output = run(Command::new(program())
        .arg("status")
        .arg("--config")
        .arg(cluster.file())
        .args(arguments));
    (output.status.success(), String::from_utf8_lossy(&output.stdout).to_string())
}
