//! Heads on a disk that forgets.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::applier::Frozen;
use super::heads::{HeadDirectory, HeadFileError};
use super::message::{HeadChunk, HeadName};
use crate::disk::{Disk as _, SimulatedDisk};
use crate::paxos::{Ballot, Entry, Incarnation, Index, NodeId, Value};
use crate::store::{RowsMut, Store, StorePlace};

const DIRECTORY: &str = "/node/heads";

fn open(disk: &SimulatedDisk) -> HeadDirectory {
    HeadDirectory::open(Arc::new(disk.clone()), Path::new(DIRECTORY), "demo").unwrap()
}

fn frozen() -> Frozen {
    let (store, _) = Store::open(Default::default(), StorePlace::in_memory()).unwrap();
    let mut rows = store.entry();
    rows.put(Bytes::from_static(b"\0\0\0\x01row"), Bytes::from_static(b"value"));
    rows.commit(1);
    let ballot = Ballot { round: 1, node: NodeId(0), incarnation: Incarnation(1) };
    let entry = Entry { index: Index(1), ballot, value: Value::Establish { members: Vec::new() } };
    Frozen { entry, stamp_ms: 0, changes: 0, view: store.freeze() }
}

/// The simulator found it: the log was reset to a head that was fetched but whose name was not on
/// disk yet; the next power cut left a log that starts after a head which is not there.
#[test]
fn a_head_that_was_found_at_the_start_survives_a_power_cut() {
    let source = SimulatedDisk::new(1);
    let heads = open(&source);
    let info = heads.write(&frozen(), |_| Ok(())).unwrap();
    let chunk = heads.serve(None, 0).unwrap().unwrap();
    let mut found_after_a_restart = 0;
    for step in 0..40 {
        let disk = SimulatedDisk::new(step);
        let heads = open(&disk);
        heads.keep(&chunk).unwrap();
        disk.fail_from_change(disk.changes() + step);
        let adopted = heads.adopt(info.name).is_ok();
        disk.crash(false);
        let found = open(&disk).newest().is_some();
        assert!(found || !adopted, "step {step}: adopted, and lost with the process");
        found_after_a_restart += u32::from(found && !adopted);
        disk.crash(true);
        let kept = open(&disk);
        assert_eq!(kept.newest().is_some(), found, "step {step}: lost with the power");
        if found {
            kept.verify(info.name).unwrap();
        }
    }
    assert!(found_after_a_restart > 0, "no step stopped between the name and its sync");
}

#[test]
fn a_head_that_finds_no_room_is_told_of_until_one_is_written() {
    let disk = SimulatedDisk::new(1);
    let heads = open(&disk);
    assert!(!heads.last_failed());
    disk.set_capacity(Some(0));
    assert!(heads.write(&Frozen { changes: 7, ..frozen() }, |_| Ok(())).is_err());
    assert!(heads.last_failed() && heads.saved_changes() == 0);
    // One that was only stopped changes nothing.
    disk.set_capacity(None);
    assert!(heads.write(&frozen(), |_| Err(HeadFileError::Stopped)).is_err());
    assert!(heads.last_failed());
    heads.write(&Frozen { changes: 7, ..frozen() }, |_| Ok(())).unwrap();
    assert!(!heads.last_failed() && heads.saved_changes() == 7);
}

#[test]
fn a_head_gives_its_room_back_when_the_disk_becomes_nearly_full() {
    let disk = SimulatedDisk::new(1);
    let heads = open(&disk);
    let error = heads.write(&frozen(), |_| Err(HeadFileError::NoRoom)).unwrap_err();
    assert!(error.is_full_disk() && heads.last_failed(), "{error}");
    let left = disk.list(Path::new(DIRECTORY)).unwrap();
    assert!(left.is_empty(), "{left:?} is left");
    heads.write(&frozen(), |_| Ok(())).unwrap();
    assert!(!heads.last_failed());
}

#[test]
fn what_was_fetched_of_another_head_goes_when_the_next_one_begins() {
    let disk = SimulatedDisk::new(1);
    let heads = open(&disk);
    let chunk = |index: u64, offset_bytes: u64| HeadChunk {
        name: HeadName { index: Index(index), hash: [index as u8; 32] },
        size_bytes: 100,
        offset_bytes,
        bytes: Bytes::from_static(b"part"),
    };
    let files = || disk.list(Path::new(DIRECTORY)).unwrap().len();
    assert_eq!((heads.keep(&chunk(1, 0)).unwrap(), files()), (4, 1));
    assert_eq!((heads.keep(&chunk(1, 4)).unwrap(), files()), (8, 1));
    assert_eq!((heads.keep(&chunk(2, 0)).unwrap(), files()), (4, 1), "only the newer one");
    assert_eq!((heads.keep(&chunk(1, 8)).unwrap(), files()), (0, 1), "nothing to follow");
}
