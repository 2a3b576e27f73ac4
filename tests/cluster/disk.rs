//! A disk that fills up. The disk is a small one of the test's own, which only root can make.

use std::path::PathBuf;
use std::process::Command;

use arakoon::cli::client::Client;
use resp::Reply;
use rustix::process::geteuid;
use tempfile::TempDir;

use crate::harness::{ANSWER_WITHIN, Cluster, eventually, run};
use crate::load::Load;

/// What the nodes may use of it at first.
const ROOM_MIB: usize = 384;
/// What fills a disk that nodes share.
const VALUE_BYTES: usize = 1000;
const KEYS_AT_ONCE: usize = 100;

/// A file system in memory; gone with the value.
struct SmallDisk {
    directory: TempDir,
    mib: usize,
}

impl SmallDisk {
    /// None, which is said, without the right to mount.
    fn mount(test: &str, mib: usize) -> Option<SmallDisk> {
        let directory = TempDir::new().expect("a directory to mount on");
        let size = format!("size={mib}m");
        let mounted = run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(directory.path()));
        if mounted.status.success() {
            return Some(SmallDisk { directory, mib });
        }
        assert!(
            !geteuid().is_root() || std::env::var_os("ARAKOON_NO_MOUNT").is_some(),
            "root cannot mount a tmpfs here; ARAKOON_NO_MOUNT=1 skips this test"
        );
        eprintln!("SKIPPED: {test} needs root, to mount a tmpfs");
        None
    }

    /// A file that takes all but [`ROOM_MIB`] of it. Without it there is room again.
    fn ballast(&self) -> PathBuf {
        let ballast = self.directory.path().join("ballast");
        std::fs::write(&ballast, vec![1; (self.mib - ROOM_MIB) << 20]).expect("there is room");
        ballast
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the nodes are gone, but the kernel may not have noticed yet.
        let unmounted = run(Command::new("umount").arg("--lazy").arg(self.directory.path()));
        assert!(unmounted.status.success() || std::thread::panicking(), "{unmounted:?}");
    }
}

#[test]
fn a_full_disk_is_announced_and_reads_go_on() {
    let Some(disk) = SmallDisk::mount("a_full_disk_is_announced_and_reads_go_on", 512) else {
        return;
    };
    let ballast = disk.ballast();
    let dir = TempDir::new_in(disk.directory.path()).expect("a directory for the cluster");
    let cluster = Cluster::start_in(
        dir,
        3,
        "disk_reserve = \"160MiB\"\nlog_segment = \"4MiB\"\nhead_every = \"16MiB\"",
    );
    let load = Load::start(&cluster);
    load.wait_for(200);
    let master = cluster.master();
    load.stop().check(&cluster);

    let value = "v".repeat(16 << 10);
    let mut number = 0;
    let refused = eventually("updates are refused", || {
        number += 1;
        match cluster.call(master, &["SET", &format!("fill:{number}"), &value]) {
            Ok(Reply::Simple(_)) => None,
            Ok(Reply::Error(text)) => Some(text.to_string()),
            other => panic!("SET answered {other:?}"),
        }
    });
    assert!(refused.starts_with("MISCONF "), "{refused}");
    assert!(number > 100, "refused at once, after {number} writes");
    for seat in 0..3 {
        assert!(cluster.report(seat).is_some(), "node {seat} is gone:\n{}", cluster.log(seat));
    }
    for read in [1, number / 2, number - 1] {
        let answer = cluster.call(master, &["GET", &format!("fill:{read}")]).expect("an answer");
        assert_eq!(answer, Reply::bulk(value.clone()), "fill:{read}");
    }
    let answer = cluster.call(master, &["EXISTS", &format!("fill:{number}")]).expect("an answer");
    assert_eq!(answer, Reply::Integer(0), "a refused write is not there");

    std::fs::remove_file(&ballast).expect("it can be removed");
    eventually("updates are taken again", || {
        let answer = cluster.call(master, &["SET", "again", "1"]).ok()?;
        (answer == Reply::OK).then_some(())
    });
    drop(cluster);
    drop(disk);
}

/// Each node keeps room for what its own layers will take, but they all fill the same disk: what does not
/// fit stays in memory.
#[test]
fn nodes_that_share_a_disk_stay_when_it_is_full() {
    let name = "nodes_that_share_a_disk_stay_when_it_is_full";
    let Some(disk) = SmallDisk::mount(name, 1024) else { return };
    let ballast = disk.ballast();
    let dir = TempDir::new_in(disk.directory.path()).expect("a directory for the cluster");
    let cluster = Cluster::start_in(dir, 3, "disk_reserve = \"128MiB\"\nlog_segment = \"4MiB\"");
    let master = cluster.master();
    let value = "v".repeat(VALUE_BYTES);
    let keys = |writer: usize, batch: usize| {
        (0..KEYS_AT_ONCE).map(move |key| format!("fill:{writer}:{batch}:{key}"))
    };
    // Much faster than it is drained.
    let fill = |writer: usize| {
        let mut client = Client::connect(cluster.address(master), ANSWER_WITHIN).expect("connects");
        for batch in 0.. {
            let keys: Vec<String> = keys(writer, batch).collect();
            let pairs = keys.iter().flat_map(|key| [key.as_str(), value.as_str()]);
            let command: Vec<&str> = std::iter::once("MSET").chain(pairs).collect();
            match client.call(&command).expect("an answer") {
                Reply::Simple(_) => {}
                Reply::Error(text) if text.starts_with("MISCONF ") => return batch,
                other => panic!("MSET answered {other:?}"),
            }
        }
        unreachable!("the disk has an end")
    };
    let written: Vec<usize> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3).map(|writer| scope.spawn(move || fill(writer))).collect();
        writers.into_iter().map(|writer| writer.join().expect("refused in the end")).collect()
    });
    for seat in 0..3 {
        eventually("rows wait in memory, or all are drained", || {
            let waits = cluster.log(seat).contains("no room to drain");
            let info = cluster.redis_cli(seat, &["INFO", "memory"]);
            (waits || info.contains("used_memory_dataset:0\r")).then_some(())
        });
    }
    let waited = (0..3).filter(|&seat| cluster.log(seat).contains("no room to drain"));
    assert!(waited.count() > 0, "there was room for all");
    std::fs::remove_file(&ballast).expect("it can be removed");
    eventually("updates are taken again", || {
        let answer = cluster.call(master, &["SET", "again", "1"]).ok()?;
        (answer == Reply::OK).then_some(())
    });
    let mut client = Client::connect(cluster.address(master), ANSWER_WITHIN).expect("connects");
    for (writer, batches) in written.into_iter().enumerate() {
        for batch in 0..batches {
            let keys: Vec<String> = keys(writer, batch).collect();
            let command: Vec<&str> =
                std::iter::once("MGET").chain(keys.iter().map(String::as_str)).collect();
            let expected = Reply::Array(vec![Reply::bulk(value.clone()); KEYS_AT_ONCE]);
            assert!(client.call(&command).expect("an answer") == expected, "{writer} {batch}");
        }
    }
    for seat in 0..3 {
        assert!(cluster.report(seat).is_some(), "node {seat} is gone:\n{}", cluster.log(seat));
    }
    drop(cluster);
    drop(disk);
}
