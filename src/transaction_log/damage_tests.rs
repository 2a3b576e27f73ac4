//! Every way to cut or alter the files: the log stops, or cuts what nobody relied on.

use std::path::Path;

use proptest::prelude::*;

use super::segment::SEGMENT_HEADER_BYTES;
use super::tests::{DIRECTORY, create, open, read_all, save, segment, state, try_open};
use super::{LogError, TransactionLog};
use crate::disk::SimulatedDisk;
use crate::paxos::{Index, Save};

/// A log with the entries 1 and 2 known to be synced, 3 and 4 not; and where each record starts,
/// with the end.
fn four_records() -> (SimulatedDisk, [usize; 5]) {
    let disk = SimulatedDisk::new(1);
    let mut log = create(&disk);
    let mut starts = [0; 5];
    for index in 1..=4 {
        starts[index as usize - 1] = log_end(&disk);
        log.append(&Save { state: Some(state(index)), ..save(index, index, 1, 1500) }).unwrap();
        if index <= 2 {
            log.sync().unwrap();
        }
    }
    log.sync().unwrap();
    starts[4] = log_end(&disk);
    (disk, starts)
}

/// Where the records of the first segment end.
fn log_end(disk: &SimulatedDisk) -> usize {
    let bytes = disk.contents(&segment(1)).unwrap();
    let mut at = SEGMENT_HEADER_BYTES;
    while bytes[at..at + 32].iter().any(|byte| *byte != 0) {
        at += 32 + u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
    }
    at
}

fn is_zero_from(disk: &SimulatedDisk, at: usize) -> bool {
    disk.contents(&segment(1)).unwrap()[at..].iter().all(|byte| *byte == 0)
}

fn alter(disk: &SimulatedDisk, id: u64, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = disk.contents(&segment(id)).unwrap();
    change(&mut bytes);
    disk.put(&segment(id), bytes);
}

fn assert_damaged(disk: &SimulatedDisk, id: u64, at: usize) {
    match try_open(disk).map(|(_, recovered)| recovered) {
        Err(LogError::Damaged { file, offset, reason }) => {
            assert_eq!((file, offset), (segment(id), at as u64), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_torn_last_record_is_cut_and_zeroed() {
    let (disk, starts) = four_records();
    alter(&disk, 1, |bytes| bytes[starts[3] + 900..starts[4]].fill(0));
    let (mut log, recovered) = open(&disk);
    assert_eq!((recovered.last, recovered.state), (Index(3), state(3)));
    let cut = recovered.tail_cut.expect("something was cut");
    assert_eq!((cut.file, cut.offset), (segment(1), starts[3] as u64));
    assert!((800..=900).contains(&cut.bytes), "{}", cut.bytes);
    assert!(is_zero_from(&disk, starts[3]));
    log.append(&save(4, 4, 2, 10)).unwrap();
    log.sync().unwrap();
    drop(log);
    let (log, recovered) = open(&disk);
    assert_eq!((recovered.last, recovered.tail_cut), (Index(4), None));
    assert_eq!(read_all(&log).len(), 4);
}

#[test]
fn a_valid_record_behind_a_hole_in_the_unsynced_tail_is_cut_as_well() {
    let (disk, starts) = four_records();
    alter(&disk, 1, |bytes| bytes[starts[2]..starts[3]].fill(0));
    let (_, recovered) = open(&disk);
    assert_eq!((recovered.last, recovered.state), (Index(2), state(2)));
    assert!(is_zero_from(&disk, starts[2]), "the record behind the hole was left");
    assert!(recovered.tail_cut.is_some());
}

#[test]
fn damage_below_the_synced_offset_stops_with_file_and_offset() {
    // Record 3 states that records 1 and 2 are synced, wherever it is found.
    for (record, lost) in [(0, 0..32), (0, 40..41), (1, 0..1500), (1, 1000..1001)] {
        let (disk, starts) = four_records();
        alter(&disk, 1, |bytes| {
            for byte in &mut bytes[starts[record] + lost.start..starts[record] + lost.end] {
                *byte = !*byte;
            }
        });
        assert_damaged(&disk, 1, starts[record]);
    }
    let (disk, starts) = four_records();
    alter(&disk, 1, |bytes| bytes[starts[0]..starts[2]].fill(0));
    assert_damaged(&disk, 1, starts[0]);
    let error = try_open(&disk).map(drop).unwrap_err().to_string();
    assert!(error.contains(&format!("byte {}", starts[0])) && error.contains("move"), "{error}");
}

#[cfg(feature = "planted-bugs")]
#[test]
fn the_planted_bug_skips_damage_below_the_synced_offset() {
    let (disk, starts) = four_records();
    alter(&disk, 1, |bytes| bytes[starts[1] + 100] ^= 1);
    crate::planted::plant(Some(crate::planted::Bug::DamageTakenForTornEnd));
    let options = super::tests::options();
    let shared = std::sync::Arc::new(disk.clone());
    let opened = TransactionLog::open(shared, Path::new(DIRECTORY), &options, "demo", "n1");
    assert_eq!(opened.unwrap().1.last, Index(1));
    crate::planted::plant(None);
}

#[test]
fn a_zeroed_header_stops() {
    let (disk, _) = four_records();
    alter(&disk, 1, |bytes| bytes[..SEGMENT_HEADER_BYTES].fill(0));
    assert_damaged(&disk, 1, 0);
}

#[test]
fn a_zeroed_file_stops() {
    let (disk, _) = four_records();
    alter(&disk, 1, |bytes| bytes.fill(0));
    assert_damaged(&disk, 1, 0);
}

#[test]
fn a_missing_checkpoint_stops() {
    let (disk, starts) = four_records();
    alter(&disk, 1, |bytes| bytes[SEGMENT_HEADER_BYTES..].fill(0));
    assert_damaged(&disk, 1, SEGMENT_HEADER_BYTES);
    assert!(starts[0] > SEGMENT_HEADER_BYTES);
}

/// A log of at least five segments.
fn many_segments() -> SimulatedDisk {
    let disk = SimulatedDisk::new(1);
    let mut log = create(&disk);
    for index in 1..=60 {
        log.append(&save(index, index, 1, 2000)).unwrap();
    }
    log.sync().unwrap();
    assert!(disk.contents(&segment(5)).is_some());
    disk
}

#[test]
fn a_missing_middle_segment_stops() {
    let disk = many_segments();
    crate::disk::Disk::remove(&disk, &segment(3)).unwrap();
    assert_damaged(&disk, 3, 0);
}

#[test]
fn a_segment_under_another_name_stops() {
    let disk = many_segments();
    disk.put(&segment(3), disk.contents(&segment(2)).unwrap());
    assert_damaged(&disk, 3, 16);
}

#[test]
fn a_segment_of_another_life_stops() {
    let disk = many_segments();
    let other = SimulatedDisk::new(2);
    let identity =
        super::Identity { incarnation: crate::paxos::Incarnation(9), ..super::tests::identity() };
    let shared = std::sync::Arc::new(other.clone());
    let directory = Path::new(DIRECTORY);
    let options = super::tests::options();
    let mut log = TransactionLog::create(shared, directory, &options, identity).unwrap();
    log.append(&save(1, 30, 1, 2000)).unwrap();
    disk.put(&segment(2), other.contents(&segment(2)).unwrap());
    assert_damaged(&disk, 2, 32);
}

#[test]
fn a_last_record_lost_from_a_full_segment_stops() {
    let disk = many_segments();
    let bytes = disk.contents(&segment(2)).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    // Zeros from the start of the last record on look like an end; the next segment knows better.
    let last = (0..end - 24)
        .step_by(8)
        .rfind(|at| bytes[at + 12] == 1 && bytes[at + 16..at + 24] == 2u64.to_le_bytes())
        .unwrap();
    alter(&disk, 2, |bytes| bytes[last..end].fill(0));
    assert_damaged(&disk, 3, SEGMENT_HEADER_BYTES);
}

#[test]
fn a_truncated_file_stops() {
    for length in [0, 1, 4095, 4096, 5000, (16 << 10) - 1] {
        let (disk, _) = four_records();
        assert!(disk.truncate(&segment(1), length));
        assert_damaged(&disk, 1, length as usize);
    }
}

#[test]
fn a_read_finds_a_flipped_bit() {
    let disk = SimulatedDisk::new(1);
    let mut log = create(&disk);
    let start = log_end(&disk) as u64;
    log.append(&save(1, 3, 1, 100)).unwrap();
    assert!(disk.flip_bit(&segment(1), start + 200, 3));
    match log.reader().read(Index(1), Index(1), 1) {
        Err(LogError::Damaged { offset, .. }) => assert_eq!(offset, start),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_flipped_bit_anywhere_is_found_or_harmless() {
    let disk = SimulatedDisk::new(1);
    let mut log = create(&disk);
    for index in 1..=4 {
        log.append(&Save { state: Some(state(index)), ..save(index, index, 1, 40) }).unwrap();
        log.sync().unwrap();
    }
    drop(log);
    let original = disk.contents(&segment(1)).unwrap();
    let (_, expected) = open(&disk);
    let end = log_end(&disk);
    let (mut same, mut cut, mut damaged) = (0, 0, 0);
    for at in 0..end + 64 {
        let mut bytes = original.clone();
        bytes[at] ^= 1 << (at % 8);
        disk.put(&segment(1), bytes);
        match try_open(&disk).map(|(_, recovered)| recovered) {
            Ok(found) if found.tail_cut.is_none() => panic!("the bit flipped at {at} was missed"),
            Ok(found) if found.last == expected.last => {
                assert_eq!(found.state, expected.state);
                assert!(at >= end, "bit {at}");
                same += 1;
            }
            Ok(found) => {
                assert_eq!((found.last, found.state), (Index(3), state(3)), "bit {at}");
                cut += 1;
            }
            Err(LogError::Damaged { offset, .. }) => {
                assert!(offset <= at as u64, "bit {at} was reported at {offset}");
                damaged += 1;
            }
            Err(error) => panic!("bit {at}: {error}"),
        }
    }
    assert!(same == 64 && cut > 100 && damaged > 4400, "{same} {cut} {damaged}");
}

/// Opening may fail, but not panic; what opens can be written.
fn survives(disk: &SimulatedDisk) {
    if let Ok((mut log, recovered)) = try_open(disk) {
        let next = recovered.last.0 + 1;
        log.append(&save(next, next, 9, 10)).unwrap();
        log.sync().unwrap();
        assert_eq!(read_all(&log).last().unwrap().index, Index(next));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn garbage_files_never_panic(
        files in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9000), 1..4)
    ) {
        let disk = SimulatedDisk::new(1);
        for (id, bytes) in files.into_iter().enumerate() {
            disk.put(&segment(id as u64 + 1), bytes);
        }
        survives(&disk);
    }

    #[test]
    fn garbage_in_a_valid_log_never_panics(
        pieces in prop::collection::vec(
            (0..(16usize << 10), prop::collection::vec(any::<u8>(), 1..600)), 1..4
        )
    ) {
        let (disk, _) = four_records();
        alter(&disk, 1, |bytes| {
            for (at, piece) in pieces {
                let end = (at + piece.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&piece[..end - at]);
            }
        });
        survives(&disk);
    }

    #[test]
    fn garbage_bodies_never_panic(body in prop::collection::vec(any::<u8>(), 0..400)) {
        super::encoding::decode_checkpoint(&body);
        super::encoding::decode_save(&body, |_, _, _| {});
    }
}
