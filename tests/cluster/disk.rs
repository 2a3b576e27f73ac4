//! A disk that fills up. The disk is a small one of the test's own, which only root can make.

use std::path::PathBuf;
use std::process::Command;

use resp::Reply;
use rustix::process::geteuid;
use tempfile::TempDir;

use crate::harness::{Cluster, eventually, run};
use crate::load::Load;

const DISK_MIB: usize = 512;
/// Freed at the end, so that there is room again.
const BALLAST_MIB: usize = 128;

/// A file system in memory; gone with the value.
struct SmallDisk {
    directory: TempDir,
}

impl SmallDisk {
    /// None without the right to mount.
    fn mount() -> Option<SmallDisk> {
        let directory = TempDir::new().expect("a directory to mount on");
        let size = format!("size={DISK_MIB}m");
        let mounted = run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(directory.path()));
        mounted.status.success().then_some(SmallDisk { directory })
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
    let Some(disk) = SmallDisk::mount() else {
        assert!(
            !geteuid().is_root() || std::env::var_os("ARAKOON_NO_MOUNT").is_some(),
            "root cannot mount a tmpfs here; ARAKOON_NO_MOUNT=1 skips this test"
        );
        eprintln!("SKIPPED: a_full_disk_is_announced_and_reads_go_on needs root, to mount a tmpfs");
        return;
    };
    let ballast: PathBuf = disk.directory.path().join("ballast");
    std::fs::write(&ballast, vec![1; BALLAST_MIB << 20]).expect("there is room");
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
