//! All nodes at once.

use std::path::{Path, PathBuf};
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
fn all_killed_at_once_lose_nothing_when_every_sled_directory_is_deleted() {
    let mut cluster = Cluster::start();
    let load = Load::start(&cluster);
    load.wait_for(1000);
    cluster.kill_all();
    let written = load.stop();
    for seat in 0..3 {
        let found = sled_directories(cluster.dir(seat));
        assert_eq!(found.len(), 1, "sled directories of node {seat}: {found:?}");
        std::fs::remove_dir_all(&found[0]).expect("it can be deleted");
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

/// Directories below `dir` in which sled keeps its files: it names the main one `db`.
fn sled_directories(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if dir.join("db").is_file() {
        found.push(dir.to_path_buf());
    }
    for entry in std::fs::read_dir(dir).expect("the directory is there") {
        let path = entry.expect("its entries can be listed").path();
        if path.is_dir() {
            found.extend(sled_directories(&path));
        }
    }
    found
}
