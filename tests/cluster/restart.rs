//! All nodes at once.

use std::path::{Path, PathBuf};

use crate::harness::Cluster;
use crate::load::Load;

#[test]
fn all_killed_at_once_lose_nothing_acknowledged() {
    let mut cluster = Cluster::start();
    let load = Load::start(&cluster);
    load.wait_for(1000);
    cluster.kill_all();
    let written = load.stop();
    for seat in 0..3 {
        cluster.start_node(seat);
    }
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
    for seat in 0..3 {
        cluster.start_node(seat);
    }
    cluster.wait_until_whole();
    written.check(&cluster);
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
