//! All nodes at once.

use std::time::{Duration, Instant};

use crate::harness::Cluster;
use crate::load::Load;

#[test]
fn all_killed_at_once_lose_nothing_acknowledged() {
    let mut cluster = Cluster::start();
    let load = Load::start(&cluster);
    load.wait_for(1000);
    cluster.kill_all();
    let written = load.stop();
    cluster.start_all();
    cluster.wait_until_whole();
    written.check(&cluster);
}

#[test]
fn all_killed_at_once_lose_nothing_when_every_engine_is_deleted() {
    let mut cluster = Cluster::start();
    let load = Load::start(&cluster);
    load.wait_for(1000);
    cluster.kill_all();
    let written = load.stop();
    for seat in 0..3 {
        std::fs::remove_dir_all(cluster.dir(seat).join("store")).expect("it is there");
    }
    cluster.start_all();
    cluster.wait_until_whole();
    written.check(&cluster);
}

#[test]
fn what_a_kill_leaves_of_the_store_does_no_harm() {
    let mut cluster = Cluster::start();
    let load = Load::start(&cluster);
    load.wait_for(1000);
    cluster.kill_all();
    let written = load.stop();
    for seat in 0..3 {
        let dir = cluster.dir(seat);
        // Half a drain journal, a file of spilled rows, and half a snapshot of sled's.
        std::fs::create_dir_all(dir.join("spill")).expect("it can be made");
        for file in ["store.journal", "spill/0", "store/snap.0000000000000000.generating"] {
            std::fs::write(dir.join(file), b"ARKDRAIN\x01 left behind").expect("it is written");
        }
    }
    cluster.start_all();
    cluster.wait_until_whole();
    written.check(&cluster);
}

#[test]
fn all_stopped_in_order_lose_nothing_and_are_back_at_once() {
    let mut cluster = Cluster::start();
    let load = Load::start(&cluster);
    load.wait_for(1000);
    for exit in cluster.stop_all() {
        assert!(exit.success(), "a stop in order is a success, not {exit}");
    }
    let written = load.stop();
    let started_at = Instant::now();
    cluster.start_all();
    cluster.master();
    let took = started_at.elapsed();
    cluster.wait_until_whole();
    written.check(&cluster);
    eprintln!("a master {took:?} after three nodes were started");
    assert!(took < Duration::from_secs(5), "{took:?} until there was a master");
}
