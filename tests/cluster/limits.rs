//! What one client, and many of them, may ask for.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use arakoon::cli::client::Client;
use resp::Reply;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::harness::{ANSWER_WITHIN, Cluster, eventually};
use crate::load::Load;

/// A node's memory, in MiB.
fn memory_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a process has it");
    let kib = line.split_whitespace().nth(1).expect("a number follows");
    kib.parse::<u64>().expect("it is a number") >> 10
}

#[test]
fn too_large_a_value_is_refused_with_its_size_and_the_limit() {
    // Three nodes on one disk: 16 MiB each must be synced within the bound, two leases.
    let cluster = Cluster::start_with("lease = \"2s\"");
    let master = cluster.master();
    let mut client = Client::connect(cluster.address(master), ANSWER_WITHIN).expect("it is there");

    let most = "v".repeat((16 << 20) - 2);
    client.set_timeout(ANSWER_WITHIN);
    assert_eq!(client.call(&["SET", "k", &most]).expect("an answer"), Reply::OK);
    client.set_timeout(ANSWER_WITHIN);
    assert_eq!(client.call(&["GET", "k"]).expect("an answer"), Reply::bulk(most.clone()));

    client.set_timeout(ANSWER_WITHIN);
    let answer = client.call(&["SET", "kk", &most]).expect("an answer");
    let expected = "ERR key and value are 16777216 bytes together, the limit is below 16777216";
    assert_eq!(answer, Reply::error(expected));
    assert_eq!(
        client.call(&["PING"]).expect("the connection lives on"),
        Reply::Simple("PONG".into())
    );

    let answer = client.call(&["SET", "k", &"v".repeat(17 << 20)]).expect("an answer");
    let Reply::Error(text) = &answer else { panic!("17 MiB are answered {answer:?}") };
    assert!(text.contains("17825792 bytes are more than"), "{text}");

    assert_eq!(cluster.redis_cli(master, &["strlen", "k"]), "16777214");
    assert_eq!(cluster.redis_cli(master, &["exists", "kk"]), "0");
    assert_eq!(cluster.master_now(), Some(master), "it stayed the master");
}

/// Longer than a part of any cache on the way.
#[test]
fn keys_of_megabytes_are_read_written_drained_and_read_again() {
    let cluster = Cluster::start_with("lease = \"2s\"");
    let master = cluster.master();
    let mut client = Client::connect(cluster.address(master), ANSWER_WITHIN).expect("it is there");
    let keys: Vec<String> = (2..8).map(|mib| "k".repeat(mib << 20)).collect();
    for value in ["first", "second"] {
        for key in &keys {
            client.set_timeout(ANSWER_WITHIN);
            let before = if value == "first" { Reply::Null } else { Reply::bulk("first") };
            assert_eq!(client.call(&["GET", key]).expect("an answer"), before);
            assert_eq!(client.call(&["SET", key, value]).expect("an answer"), Reply::OK);
        }
        // A head, and with it what was applied, goes to the engine.
        assert_eq!(client.call(&["SAVE"]).expect("an answer"), Reply::OK);
    }
    for key in &keys {
        client.set_timeout(ANSWER_WITHIN);
        assert_eq!(client.call(&["GET", key]).expect("an answer"), Reply::bulk("second"));
    }
    for seat in 0..3 {
        assert!(cluster.report(seat).is_some(), "node {seat} is gone:\n{}", cluster.log(seat));
    }
}

#[test]
fn a_header_alone_takes_no_memory() {
    let cluster = Cluster::alone();
    let before = memory_mib(cluster.pid(0));
    let mut announced: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(cluster.address(0)).expect("it is there");
            let header = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1073741824\r\n";
            stream.write_all(header).expect("it is sent");
            stream.set_read_timeout(Some(ANSWER_WITHIN)).expect("a time above 0");
            stream
        })
        .collect();
    for stream in &mut announced {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer, then the end");
        assert!(answer.contains("1073741824 bytes are more than"), "{answer}");
    }
    // Allowed, but never sent.
    let waiting: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(cluster.address(0)).expect("it is there");
            stream.write_all(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$16777216\r\n").expect("it is sent");
            stream
        })
        .collect();
    assert_eq!(cluster.redis_cli(0, &["ping"]), "PONG");
    let after = memory_mib(cluster.pid(0));
    eprintln!("{before} MiB before, {after} MiB with {} announced values", waiting.len());
    assert!(after < before + 100, "{before} MiB grew to {after} MiB");
}

/// So many connections at most that this process and a node may have.
fn connections() -> usize {
    const WANTED: u64 = 10_000;
    // More than a node keeps for itself, so that it takes them all and some for the load.
    const OTHER_FILES: u64 = 900;
    let limit = getrlimit(Resource::Nofile);
    let raised = limit.maximum.unwrap_or(WANTED + OTHER_FILES).min(WANTED + OTHER_FILES);
    if limit.current.is_some_and(|current| current < raised) {
        let rlimit = Rlimit { current: Some(raised), maximum: limit.maximum };
        setrlimit(Resource::Nofile, rlimit).expect("below the maximum it is allowed");
    }
    let current = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let count = WANTED.min(current.saturating_sub(OTHER_FILES));
    if count < WANTED {
        eprintln!("REDUCED to {count} connections: the system allows {current} open files");
    }
    count as usize
}

#[test]
fn ten_thousand_idle_connections_are_no_trouble() {
    let count = connections();
    let cluster = Cluster::start();
    let master = cluster.master();
    let ballot = cluster.report(master).expect("it answers").text("ballot").to_string();
    let before = memory_mib(cluster.pid(master));
    let idle: Vec<TcpStream> = (0..count)
        .map(|_| TcpStream::connect(cluster.address(master)).expect("it is there"))
        .collect();
    eventually("all are counted", || {
        let info = cluster.redis_cli(master, &["info", "clients"]);
        let counted = info.lines().find_map(|line| line.strip_prefix("connected_clients:"))?;
        (counted.trim().parse::<usize>().ok()? >= count).then_some(())
    });
    let after = memory_mib(cluster.pid(master));
    let started = Instant::now();
    let load = Load::start(&cluster);
    load.wait_for(500);
    let elapsed = started.elapsed();
    eprintln!("{count} idle clients: {} MiB; 500 writes in {elapsed:?}", after - before);
    assert!(after < before + 400, "{before} MiB grew to {after} MiB");
    assert!(elapsed < Duration::from_secs(10), "500 writes took {elapsed:?}");
    // One of the idle ones is still served.
    let mut stream = &idle[count / 2];
    stream.write_all(b"PING\r\n").expect("it is open");
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"+PONG\r\n");
    let report = cluster.report(master).expect("it answers");
    assert_eq!(report.text("ballot"), ballot, "nobody was elected meanwhile");
    load.stop().check(&cluster);
}

/// As many as connect at once when a node has become the master.
const BURST: usize = 600;
/// A system drops a connection that finds no room in the queue, and the client's system asks again
/// after a second.
const BEFORE_ASKING_AGAIN: Duration = Duration::from_millis(900);

#[test]
fn a_burst_of_connections_waits_in_the_queue_until_the_node_accepts_them() {
    let queue_max = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("Linux has it");
    let queue_max: usize = queue_max.trim().parse().expect("it is a number");
    let count = BURST.min(queue_max);
    let cluster = Cluster::alone();
    let address = cluster.address(0).parse().expect("an address with a port");
    cluster.stall(0);
    let clients: Vec<_> = (0..count)
        .map_while(|_| TcpStream::connect_timeout(&address, BEFORE_ASKING_AGAIN).ok())
        .collect();
    cluster.go_on(0);
    assert_eq!(clients.len(), count, "connected while the node stood still");
    for mut client in clients {
        client.write_all(b"PING\r\n").expect("it is open");
        client.set_read_timeout(Some(ANSWER_WITHIN)).expect("it is a socket");
        let mut answer = [0; 7];
        client.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"+PONG\r\n");
    }
}

/// Growing the table of open files holds a process with many threads up, for as long as it takes every
/// processor to pass a point of rest: up to a second until there is room for 1,000 clients.
#[test]
fn the_table_of_open_files_has_room_for_all_clients_from_the_start() {
    let cluster = Cluster::alone();
    let allowed = cluster.redis_cli(0, &["config", "get", "maxclients"]);
    let allowed: u64 = allowed.lines().last().and_then(|it| it.parse().ok()).expect("a number");
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", cluster.pid(0))).expect("it runs");
    let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).expect("Linux has it");
    let size: u64 = size.trim().parse().expect("it is a number");
    assert!(size > allowed, "a table of {size} for {allowed} clients");
}

#[test]
fn freed_memory_is_kept_for_a_while_and_the_process_stays_the_same() {
    let cluster = Cluster::alone();
    let file = |name: &str| {
        std::fs::read(format!("/proc/{}/{name}", cluster.pid(0)))
            .expect("it runs under its first id")
    };
    let environment = file("environ");
    let mut variables = environment.split(|byte| *byte == 0);
    assert!(variables.any(|it| it == b"MIMALLOC_PURGE_DELAY=600000"));
    assert_eq!(file("comm"), b"arakoon\n");
    let arguments = file("cmdline");
    assert!(arguments.split(|byte| *byte == 0).nth(1) == Some(b"serve"));
}
