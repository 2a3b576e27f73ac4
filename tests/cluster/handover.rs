//! Planned handovers under load, and what clients of every kind are told of them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use resp::Reply;

use crate::harness::{Cluster, eventually, times};
use crate::load::Load;

/// Clients are promised 50 ms; the rest is for a machine that builds and tests at once. It stays
/// far below the lease, so it shows that the lease was handed back.
const GAP_MAX: Duration = Duration::from_millis(250);

#[test]
fn the_master_hands_over_to_whom_it_is_told() {
    let cluster = Cluster::start();
    let load = Load::start(&cluster);
    let mut asked = Vec::new();
    for turn in 0..times("ARAKOON_HANDOVERS", 5) {
        load.wait_for(200);
        let master = cluster.master();
        let target = (master + 1 + turn % 2) % 3;
        cluster.wait_until_current(target);
        asked.push(Instant::now());
        // By turns the master is told, and the replica asked.
        let answer = match turn % 3 {
            0 => {
                let port = cluster.port(target).to_owned();
                cluster.redis_cli(master, &["failover", "to", "127.0.0.1", &port])
            }
            1 => cluster.redis_cli(target, &["cluster", "failover"]),
            _ => {
                let port = cluster.port(target).to_owned();
                let to = ["failover", "to", "127.0.0.1", &port, "force", "timeout", "1000"];
                cluster.redis_cli(master, &to)
            }
        };
        assert_eq!(answer, "OK");
        eventually("the target is the master", || {
            (cluster.master_now() == Some(target)).then_some(())
        });
        load.wait_for(200);
    }
    load.wait_for(200);
    let written = load.stop();
    written.check(&cluster);
    let (median, longest) = written.gaps_after(&asked);
    eprintln!("{} handovers: median gap {median:?}, longest {longest:?}", asked.len());
    assert!(longest < GAP_MAX, "a handover cost {longest:?}");
}

#[test]
fn a_handover_to_a_stalled_replica_is_given_up() {
    let cluster = Cluster::start();
    let load = Load::start(&cluster);
    load.wait_for(100);
    let (master, target) = (cluster.master(), cluster.replica());
    cluster.stall(target);
    load.wait_for(100);
    let port = cluster.port(target).to_owned();
    let to = ["failover", "to", "127.0.0.1", &port, "timeout", "700"];
    let answer = cluster.redis_cli(master, &to);
    // By now the master may have noticed that the replica is silent.
    if answer == "OK" {
        let state = |word: &'static str| {
            let info = cluster.redis_cli(master, &["info", "replication"]);
            info.contains(&format!("master_failover_state:{word}")).then_some(())
        };
        eventually("it gives up", || state("no-failover"));
    } else {
        assert_eq!(answer, "ERR FAILOVER target HOST and PORT is not a replica.");
    }
    load.wait_for(100);
    assert_eq!(cluster.master(), master, "it went on");
    cluster.go_on(target);
    cluster.wait_until_whole();
    load.stop().check(&cluster);
}

#[test]
fn a_replica_without_a_majority_does_not_become_master_by_force() {
    let mut cluster = Cluster::start();
    let last = cluster.replica();
    for seat in (0..3).filter(|seat| *seat != last) {
        cluster.kill(seat);
    }
    eventually("it knows no master", || {
        let answer = cluster.redis_cli(last, &["sentinel", "get-master-addr-by-name", "mymaster"]);
        answer.is_empty().then_some(())
    });
    let plain = cluster.redis_cli(last, &["cluster", "failover"]);
    assert_eq!(plain, "ERR Master is down or failed, please use CLUSTER FAILOVER FORCE");
    assert_eq!(cluster.redis_cli(last, &["cluster", "failover", "takeover"]), "OK");
    let answer = cluster.redis_cli(last, &["set", "a", "1"]);
    assert!(answer.starts_with("CLUSTERDOWN"), "{answer}");
}

/// Reads until the text has come.
fn hear(stream: &mut TcpStream, wanted: &str) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let (mut heard, mut buffer) = (String::new(), [0; 1024]);
    while !heard.contains(wanted) {
        match stream.read(&mut buffer) {
            Ok(0) => panic!("closed after {heard:?}, waiting for {wanted:?}"),
            Ok(count) => heard += &String::from_utf8_lossy(&buffer[..count]),
            Err(error) => panic!("{error} after {heard:?}, waiting for {wanted:?}"),
        }
    }
    heard
}

#[test]
fn listeners_hear_of_a_new_master_and_stay_connected() {
    let cluster = Cluster::start();
    let master = cluster.master();
    let target = cluster.replica();
    let mut listeners: Vec<TcpStream> = cluster
        .addresses()
        .iter()
        .map(|address| {
            let mut stream = TcpStream::connect(address).expect("it accepts");
            stream.write_all(b"SUBSCRIBE +switch-master\r\n").expect("it takes requests");
            hear(&mut stream, ":1\r\n");
            stream
        })
        .collect();
    assert_eq!(cluster.redis_cli(target, &["cluster", "failover"]), "OK");
    let (old, new) = (cluster.port(master), cluster.port(target));
    let event = |name: &str| format!("{name} 127.0.0.1 {old} 127.0.0.1 {new}");
    for listener in &mut listeners {
        let heard = hear(listener, &event("mymaster"));
        assert!(heard.contains(&event("test")), "under its own name first: {heard:?}");
    }
    // The old master closed its other clients, not these.
    for listener in &mut listeners {
        listener.write_all(b"PING\r\n").expect("it takes requests");
        hear(listener, "pong");
    }
    for seat in 0..3 {
        let answer = cluster.redis_cli(seat, &["sentinel", "get-master-addr-by-name", "test"]);
        assert_eq!(answer, format!("127.0.0.1\n{new}"));
    }
}

#[test]
fn every_node_names_the_master_in_every_way() {
    let cluster = Cluster::start();
    let master = cluster.master();
    let port = cluster.port(master).to_owned();
    eventually("all nodes know each other", || {
        let whole = |seat: usize| {
            let nodes = cluster.redis_cli(seat, &["cluster", "nodes"]);
            nodes.lines().count() == 3 && !nodes.contains("fail")
        };
        (0..3).all(whole).then_some(())
    });
    let ids: Vec<String> =
        (0..3).map(|seat| cluster.redis_cli(seat, &["cluster", "myid"])).collect();
    for seat in 0..3 {
        let ask = |arguments: &[&str]| cluster.redis_cli(seat, arguments);
        assert!(ask(&["cluster", "info"]).starts_with("cluster_state:ok"));
        assert_eq!(ask(&["sentinel", "ckquorum", "mymaster"]).split(' ').next(), Some("OK"));
        let nodes = ask(&["cluster", "nodes"]);
        let line = nodes.lines().find(|line| line.starts_with(&ids[master])).expect("its line");
        assert!(line.contains("master") && line.ends_with("connected 0-16383"), "{line}");
        let role = ask(&["role"]);
        match seat == master {
            true => {
                assert!(role.starts_with("master"), "{role}");
                let info = ask(&["info", "replication"]);
                assert!(info.contains("connected_slaves:2") && info.contains("slave1:ip="));
            }
            false => assert!(role.starts_with(&format!("slave\n127.0.0.1\n{port}")), "{role}"),
        }
        let config = ask(&["select", "3"]);
        match seat == master {
            true => assert_eq!(config, "OK"),
            false => assert!(config.starts_with("MOVED 0 "), "{config}"),
        }
    }
}

#[test]
fn a_replica_reads_its_own_state_only_in_readonly_mode() {
    use arakoon::cli::client::Client;

    let cluster = Cluster::start();
    let (master, replica) = (cluster.master(), cluster.replica());
    assert_eq!(cluster.redis_cli(master, &["set", "a", "1"]), "OK");
    let index = cluster.redis_cli(master, &["ak.txid"]);
    let mut client = Client::connect(cluster.address(replica), Duration::from_secs(10))
        .expect("it takes connections");
    let mut ask = |words: &[&str]| client.call(words).expect("it answers");
    assert!(matches!(ask(&["GET", "a"]), Reply::Error(text) if text.starts_with("MOVED ")));
    assert_eq!(ask(&["READONLY"]), Reply::OK);
    // TRYAGAIN until its state is as new as asked for.
    eventually("the replica has what the master acknowledged", || {
        (ask(&["AK.ATLEAST", &index]) == Reply::OK).then_some(())
    });
    assert_eq!(ask(&["GET", "a"]), Reply::bulk("1"));
    assert!(
        matches!(ask(&["AK.ATLEAST", "1000000"]), Reply::Error(it) if it.starts_with("TRYAGAIN"))
    );
    assert!(matches!(ask(&["GET", "a"]), Reply::Error(text) if text.starts_with("TRYAGAIN ")));
    assert_eq!(ask(&["AK.ATLEAST", "0"]), Reply::OK);
    assert!(matches!(ask(&["SET", "a", "2"]), Reply::Error(text) if text.starts_with("MOVED ")));
    assert_eq!(ask(&["READWRITE"]), Reply::OK);
    assert!(matches!(ask(&["GET", "a"]), Reply::Error(text) if text.starts_with("MOVED ")));
}
