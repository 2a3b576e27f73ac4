//! What a node refuses to start with, and whether what it says then helps.

use std::path::{Path, PathBuf};

use crate::harness::Cluster;
use crate::load::Load;

/// The newest segment of a node's log, and how many bytes of it are written.
fn newest_segment(dir: &Path) -> (PathBuf, u64) {
    let entries = std::fs::read_dir(dir.join("log")).expect("the log is there");
    let mut segments: Vec<PathBuf> = entries
        .map(|entry| entry.expect("its entries can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    segments.sort();
    let newest = segments.pop().expect("a log has a segment");
    let bytes = std::fs::read(&newest).expect("it can be read");
    let written = bytes.iter().rposition(|byte| *byte != 0).expect("it is not empty") as u64;
    (newest, written)
}

/// The node does not start, says so in one line that names the file, and comes back once what the
/// line advises is done.
fn refuses_and_recovers(damage: impl Fn(&Path, u64)) {
    let mut cluster = Cluster::start_with("log_segment = \"1MiB\"");
    let load = Load::start(&cluster);
    load.wait_for(500);
    let replica = cluster.replica();
    cluster.kill(replica);
    let (segment, written) = newest_segment(cluster.dir(replica));
    damage(&segment, written);

    let (exit, output) = cluster.refuses_to_start(replica);
    assert!(!exit.success(), "it started");
    let reason: Vec<&str> = output.lines().filter(|line| line.contains("arakoon: ")).collect();
    let [reason] = reason[..] else { panic!("not one line but:\n{output}") };
    eprintln!("{reason}");
    let file = segment.to_string_lossy();
    assert!(reason.contains(&format!("the transaction log is damaged: {file} at byte ")));
    let log = cluster.dir(replica).join("log");
    assert!(reason.contains(&format!("move the directory {} away", log.display())), "{reason}");
    assert!(!output.contains("panicked"), "{output}");

    std::fs::rename(&log, log.with_extension("damaged")).expect("it can be moved");
    cluster.start_node(replica);
    cluster.wait_until_current(replica);
    load.wait_for(100);
    load.stop().check(&cluster);
}

#[test]
fn a_flipped_bit_in_the_log_stops_the_start() {
    refuses_and_recovers(|segment, written| {
        let mut bytes = std::fs::read(segment).expect("it can be read");
        bytes[written as usize / 2] ^= 1;
        std::fs::write(segment, bytes).expect("it can be written");
    });
}

#[test]
fn a_truncated_log_file_stops_the_start() {
    refuses_and_recovers(|segment, written| {
        let file = std::fs::File::options().write(true).open(segment).expect("it opens");
        file.set_len(written / 2).expect("it can be cut");
    });
}

#[test]
fn a_directory_belongs_to_one_process() {
    let cluster = Cluster::start();
    let replica = cluster.replica();
    let (exit, output) = cluster.refuses_to_start(replica);
    assert_eq!(exit.code(), Some(1), "{output}");
    let reason = format!(
        "arakoon: {}: another process uses this directory; stop it first",
        cluster.dir(replica).display()
    );
    assert!(output.contains(&reason), "{output}");
    cluster.wait_until_current(replica);
}
