//! What the log keeps and gives back when nothing breaks. Also the helpers of the other tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::segment::segment_path;
use super::{Identity, LogError, Options, Recovered, TransactionLog};
use crate::disk::{Disk, RealDisk, SimulatedDisk};
use crate::paxos::{
    Ballot, DurableState, Entry, Incarnation, Index, NodeId, Position, Save, Value,
};

pub(super) const DIRECTORY: &str = "log";

pub(super) fn options() -> Options {
    Options::with_segment_bytes(16 << 10)
}

pub(super) fn identity() -> Identity {
    Identity {
        cluster_id: "demo".to_owned(),
        node_name: "n1".to_owned(),
        incarnation: Incarnation(0x1234_5678_9abc),
    }
}

pub(super) fn create(disk: &SimulatedDisk) -> TransactionLog {
    let disk = Arc::new(disk.clone());
    TransactionLog::create(disk, Path::new(DIRECTORY), &options(), identity()).unwrap()
}

pub(super) fn try_open(disk: &SimulatedDisk) -> Result<(TransactionLog, Recovered), LogError> {
    let disk = Arc::new(disk.clone());
    TransactionLog::open(disk, Path::new(DIRECTORY), &options(), "demo", "n1")
}

pub(super) fn open(disk: &SimulatedDisk) -> (TransactionLog, Recovered) {
    try_open(disk).unwrap()
}

pub(super) fn segment(id: u64) -> PathBuf {
    segment_path(Path::new(DIRECTORY), id)
}

pub(super) fn ballot(round: u64) -> Ballot {
    Ballot { round, node: NodeId(1), incarnation: Incarnation(77) }
}

pub(super) fn position(index: u64, round: u64) -> Position {
    Position { index: Index(index), ballot: ballot(round) }
}

pub(super) fn state(round: u64) -> DurableState {
    DurableState {
        promised: ballot(round),
        accepted: ballot(round),
        lease_bound_us: 500_000,
        members: vec![Incarnation(5), Incarnation(6), Incarnation(7)],
        voting: true,
    }
}

pub(super) fn entry(index: u64, round: u64, bytes: usize) -> Entry {
    let value = match index % 5 {
        0 => Value::Establish { members: vec![Incarnation(7), Incarnation(9)] },
        1 => Value::Admit { node: NodeId(2), incarnation: Incarnation(index) },
        _ => Value::Batch(Bytes::from(vec![(index * 31 + round) as u8; bytes])),
    };
    Entry { index: Index(index), ballot: ballot(round), value }
}

/// Appends the entries `from..=to` under `round`.
pub(super) fn save(from: u64, to: u64, round: u64, bytes: usize) -> Save {
    let entries = (from..=to).map(|index| entry(index, round, bytes)).collect();
    Save { entries, chosen: Index(from.saturating_sub(1)), ..Save::default() }
}

pub(super) fn read_all(log: &TransactionLog) -> Vec<Entry> {
    let reader = log.reader();
    reader.read(reader.base().index.next(), Index(u64::MAX), usize::MAX).unwrap()
}

#[test]
fn everything_saved_is_there_after_reopening() {
    let disk = SimulatedDisk::new(1);
    let mut log = create(&disk);
    let first = Save { state: Some(state(1)), ..save(1, 3, 1, 100) };
    log.append_all(&[first, save(4, 9, 2, 0), save(10, 10, 2, 100)]).unwrap();
    log.sync().unwrap();
    let entries = read_all(&log);
    assert_eq!(entries.len(), 10);
    drop(log);
    let (log, recovered) = open(&disk);
    assert_eq!(
        recovered,
        Recovered {
            identity: identity(),
            state: state(1),
            base: Position::default(),
            last: Index(10),
            chosen: Index(9),
            ballots: vec![(Index(1), ballot(1)), (Index(4), ballot(2))],
            tail_cut: None,
        }
    );
    assert_eq!(read_all(&log), entries);
    assert_eq!(log.last(), position(10, 2));
    assert_eq!(log.reader().position_at(Index(3)), Some(position(3, 1)));
    assert_eq!(log.reader().position_at(Index(11)), None);
}

#[test]
fn the_state_survives_in_a_new_segment_when_the_old_one_is_dropped() {
    let disk = SimulatedDisk::new(1);
    let mut log = create(&disk);
    log.append(&Save { state: Some(state(3)), ..save(1, 1, 3, 10) }).unwrap();
    for index in 2..=100 {
        log.append(&save(index, index, 3 + index / 40, 1000)).unwrap();
    }
    log.sync().unwrap();
    let on_disk = log.bytes_on_disk();
    log.collapse(Index(60)).unwrap();
    let base = log.base();
    assert!((30..60).contains(&base.index.0), "base {base:?}");
    assert!(log.bytes_on_disk() < on_disk / 2 + (16 << 10));
    let entries = read_all(&log);
    assert_eq!(entries.first().unwrap().index, base.index.next());
    let since =
        (log.bytes_since(Index(0)), log.bytes_since(Index(90)), log.bytes_since(Index(101)));
    assert!(since.0 > 30_000 && (5_000..30_000).contains(&since.1) && since.2 == 0, "{since:?}");
    let Err(LogError::Gone { base: gone }) = log.reader().read(base.index, Index(99), 1) else {
        panic!("read a dropped entry");
    };
    assert_eq!(gone, base);
    let ballots = log.reader();
    let ballots = entries.iter().all(|e| ballots.position_at(e.index) == Some(e.position()));
    assert!(ballots, "a ballot changed");
    drop(log);

    let (log, recovered) = open(&disk);
    assert_eq!(recovered.base, base);
    assert_eq!(recovered.state, state(3));
    assert_eq!(recovered.last, Index(100));
    assert_eq!(recovered.chosen, Index(99));
    assert_eq!(recovered.ballots[0].0, base.index.next());
    assert_eq!(read_all(&log), entries);
}

#[test]
fn a_truncation_below_a_dropped_segment_moves_the_base_to_the_first_kept_entry() {
    let disk = SimulatedDisk::new(1);
    let mut log = create(&disk);
    log.append(&save(1, 40, 1, 600)).unwrap();
    log.append(&save(41, 42, 1, 7000)).unwrap();
    let truncation = Save { truncate_from: Some(Index(30)), ..save(30, 50, 2, 100) };
    log.append(&truncation).unwrap();
    assert_eq!(log.reader().read(Index(29), Index(30), usize::MAX).unwrap().len(), 2);
    log.collapse(Index(30)).unwrap();
    assert_eq!(log.base(), position(29, 1));
    let entries = read_all(&log);
    assert_eq!(entries, truncation.entries);
    drop(log);
    let (log, recovered) = open(&disk);
    assert_eq!((recovered.base, recovered.last), (position(29, 1), Index(50)));
    assert_eq!(recovered.ballots, [(Index(30), ballot(2))]);
    assert_eq!(read_all(&log), entries);
}

#[test]
fn an_installed_head_resets_the_log() {
    let disk = SimulatedDisk::new(1);
    let mut log = create(&disk);
    for index in 1..=40 {
        log.append(&save(index, index, 1, 1000)).unwrap();
    }
    let reset = Save { reset_to: Some(position(500, 4)), ..save(501, 502, 5, 10) };
    log.append(&reset).unwrap();
    assert_eq!(log.base(), position(500, 4));
    assert!(matches!(log.reader().read(Index(40), Index(40), 1), Err(LogError::Gone { .. })));
    let segments = disk.list(Path::new(DIRECTORY)).unwrap().len();
    log.collapse(Index(501)).unwrap();
    assert!(disk.list(Path::new(DIRECTORY)).unwrap().len() < segments);
    assert_eq!(read_all(&log), reset.entries);
    drop(log);
    let (log, recovered) = open(&disk);
    assert_eq!(recovered.base, position(500, 4));
    assert_eq!(recovered.chosen, Index(500));
    assert_eq!(read_all(&log), reset.entries);
}

#[test]
fn a_record_larger_than_a_segment_gets_a_larger_one() {
    let disk = SimulatedDisk::new(1);
    let mut log = create(&disk);
    log.append_all(&[save(1, 2, 1, 10), save(3, 4, 1, 3 << 20), save(5, 7, 1, 10)]).unwrap();
    log.sync().unwrap();
    let entries = read_all(&log);
    assert_eq!(entries.len(), 7);
    drop(log);
    let (log, recovered) = open(&disk);
    assert_eq!(recovered.last, Index(7));
    assert_eq!(read_all(&log), entries);
}

#[test]
fn a_read_returns_what_fits_and_at_least_one_entry() {
    let disk = SimulatedDisk::new(1);
    let mut log = create(&disk);
    log.append_all(&[save(1, 10, 1, 1000), save(11, 20, 1, 1000)]).unwrap();
    let reader = log.reader();
    let indexes = |from, to, bytes_max| -> Vec<u64> {
        let entries = reader.read(Index(from), Index(to), bytes_max).unwrap();
        entries.iter().map(|entry| entry.index.0).collect()
    };
    assert_eq!(indexes(3, 20, 0), [3]);
    assert_eq!(indexes(2, 20, 2200), [2, 3]);
    assert_eq!(indexes(9, 12, usize::MAX), [9, 10, 11, 12]);
    assert_eq!(indexes(10, 20, 1400), [10, 11, 12]);
    assert!(indexes(21, 30, 1000).is_empty());
    assert!(indexes(5, 4, 1000).is_empty());
}

#[test]
fn a_foreign_log_is_refused() {
    let disk = SimulatedDisk::new(1);
    drop(create(&disk));
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    for (cluster, node) in [("other", "n1"), ("demo", "n2")] {
        let directory = Path::new(DIRECTORY);
        let opened = TransactionLog::open(shared.clone(), directory, &options(), cluster, node);
        let Err(error @ LogError::Foreign { .. }) = opened.map(drop) else {
            panic!("opened the log of another node");
        };
        assert!(error.to_string().contains("\"demo\""), "{error}");
    }
    let again =
        TransactionLog::create(shared, Path::new(DIRECTORY), &options(), identity()).map(drop);
    assert!(matches!(again, Err(LogError::NotEmpty(_))));
}

#[test]
fn a_wiped_log_is_empty_and_can_be_created_again() {
    let disk = SimulatedDisk::new(1);
    let mut log = create(&disk);
    log.append(&save(1, 60, 1, 1000)).unwrap();
    drop(log);
    TransactionLog::wipe(&disk, Path::new(DIRECTORY)).unwrap();
    assert_eq!(TransactionLog::read_identity(&disk, Path::new(DIRECTORY)).unwrap(), None);
    assert!(matches!(try_open(&disk), Err(LogError::Empty(_))));
    let new = Identity { incarnation: Incarnation(2), ..identity() };
    let shared = Arc::new(disk.clone());
    TransactionLog::create(shared, Path::new(DIRECTORY), &options(), new.clone()).unwrap();
    let (_, recovered) = open(&disk);
    assert_eq!((recovered.identity, recovered.last), (new, Index(0)));
}

#[test]
fn a_full_disk_is_reported_before_the_segment_in_use_is_full() {
    let disk = SimulatedDisk::new(1);
    let mut log = create(&disk);
    let preparer = log.preparer();
    disk.set_capacity(Some((16 << 10) + 1000));
    preparer.prepare_if_needed().expect("nothing to do in an empty segment");
    log.append(&save(1, 1, 1, 10)).unwrap();
    log.append(&save(2, 2, 1, 5000)).unwrap();
    assert!(matches!(preparer.prepare_if_needed(), Err(LogError::Full { .. })));
    log.append(&save(3, 3, 1, 5000)).unwrap();
    log.sync().expect("the segment in use has its space");
    disk.set_capacity(None);
    preparer.prepare_if_needed().expect("there is space again");
    disk.set_capacity(Some(32 << 10));
    log.append(&save(4, 4, 1, 5000)).expect("the next segment is prepared");
    log.append(&save(5, 5, 1, 5000)).unwrap();
    log.sync().unwrap();
    log.append(&save(6, 8, 1, 3000)).unwrap();
    let error = log.append(&save(9, 12, 1, 3000)).unwrap_err();
    assert!(matches!(error, LogError::Full { .. }), "{error}");
    assert!(matches!(log.append(&save(9, 9, 1, 0)), Err(LogError::Poisoned)));
    drop(log);
    disk.set_capacity(None);
    assert_eq!(open(&disk).1.last, Index(8));
}

#[test]
fn a_failed_write_or_sync_ends_the_log() {
    for fail in [SimulatedDisk::fail_next_write, SimulatedDisk::fail_next_sync] {
        let disk = SimulatedDisk::new(1);
        let mut log = create(&disk);
        log.append(&save(1, 1, 1, 10)).unwrap();
        log.sync().unwrap();
        fail(&disk);
        let failed = log.append(&save(2, 2, 1, 10)).and_then(|()| log.sync());
        assert!(matches!(failed, Err(LogError::Io { .. })), "{failed:?}");
        assert!(matches!(log.sync(), Err(LogError::Poisoned)));
        assert!(matches!(log.append(&save(3, 3, 1, 10)), Err(LogError::Poisoned)));
        assert!(matches!(log.collapse(Index(1)), Err(LogError::Poisoned)));
    }
}

#[test]
fn readers_and_the_preparer_work_beside_the_writer() {
    let directory = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let path = directory.path().join("new/log");
    let mut log = TransactionLog::create(disk.clone(), &path, &options(), identity()).unwrap();
    const LAST: u64 = 2000;
    std::thread::scope(|scope| {
        let (reader, preparer) = (log.reader(), log.preparer());
        scope.spawn(move || {
            let mut next = 1;
            while next <= LAST {
                let entries = match reader.read(Index(next), Index(LAST), 10_000) {
                    Ok(entries) => entries,
                    Err(LogError::Gone { base }) => {
                        next = base.index.0 + 1;
                        continue;
                    }
                    Err(error) => panic!("{error}"),
                };
                for found in entries {
                    assert_eq!(found, entry(next, 1, 200));
                    next += 1;
                }
                preparer.prepare_if_needed().unwrap();
            }
        });
        scope.spawn(move || {
            for index in (1..=LAST).step_by(4) {
                log.append_all(&[
                    save(index, index + 1, 1, 200),
                    save(index + 2, index + 3, 1, 200),
                ])
                .unwrap();
                if index % 100 == 1 {
                    log.sync().unwrap();
                    log.collapse(Index(index.saturating_sub(800))).unwrap();
                }
            }
            log.sync().unwrap();
        });
    });
    let (log, recovered) = TransactionLog::open(disk, &path, &options(), "demo", "n1").unwrap();
    assert_eq!(recovered.last, Index(LAST));
    assert!(recovered.base.index > Index(500));
    assert_eq!(read_all(&log).len() as u64, LAST - recovered.base.index.0);
}
