//! fjall beside rows in memory, across reopening, and what it leaves on disk.

use super::super::engine_memory::MemoryEngine;
use super::*;

/// Rows around the length from which they are kept under a hash, with common beginnings.
fn random_row(random: &mut fastrand::Rng) -> Bytes {
    let length = match random.u8(..4) {
        0 => random.usize(1..4),
        1 => PLAIN_BYTES - 1 + random.usize(..2),
        _ => PLAIN_BYTES + 1 + random.usize(..3),
    };
    let mut row = vec![b'a'; length];
    row[0] = b'a' + random.u8(..2);
    for place in [PLAIN_BYTES - 2, PLAIN_BYTES - 1, PLAIN_BYTES, PLAIN_BYTES + 1] {
        if let Some(byte) = row.get_mut(place) {
            *byte = [0, b'a', 255][random.usize(..3)];
        }
    }
    row.into()
}

fn rows(
    engine: &dyn Engine,
    (first, end): (&[u8], Option<&[u8]>),
    reverse: bool,
    most: usize,
) -> Vec<(Bytes, Bytes)> {
    let mut rows = Vec::new();
    let mut visit = |row: &[u8], value| {
        rows.push((Bytes::copy_from_slice(row), value));
        rows.len() < most
    };
    engine.scan(first, end, reverse, &mut visit).expect("scans");
    rows
}

#[test]
fn rows_of_any_length_are_as_in_memory() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("fjall");
    let mut fjall = FjallEngine::open(path.clone(), 1 << 20).expect("opens");
    let memory = MemoryEngine::new();
    let mut random = fastrand::Rng::with_seed(1);
    for step in 0..300_u32 {
        let mut changes: Vec<Change> = Vec::new();
        for _ in 0..random.usize(1..4) {
            let row = random_row(&mut random);
            if changes.iter().all(|(other, _)| *other != row) {
                let value = Bytes::copy_from_slice(&step.to_le_bytes());
                changes.push((row, random.bool().then_some(value)));
            }
        }
        fjall.apply(&changes).expect("applies");
        memory.apply(&changes).expect("applies");
        if step % 100 == 99 {
            fjall.close().expect("closes");
            fjall = FjallEngine::open(path.clone(), 1 << 20).expect("opens again");
        }
        let (first, end) = (random_row(&mut random), random_row(&mut random));
        let end = random.bool().then_some(&end[..]);
        let (reverse, most) = (random.bool(), random.usize(1..100));
        let range = (&first[..], end);
        let (ours, theirs) =
            (rows(&fjall, range, reverse, most), rows(&memory, range, reverse, most));
        assert!(ours == theirs, "step {step}: {} rows, {}", ours.len(), theirs.len());
        let row = random_row(&mut random);
        assert_eq!(fjall.get(&row).expect("reads"), memory.get(&row).expect("reads"));
    }
    fjall.wipe().expect("wipes");
    assert_eq!(rows(&fjall, (b"", None), false, 10), []);
}

/// Ingested changes lie over what was there and under what comes after, also once files were merged
/// and it was opened again.
#[test]
fn what_is_ingested_replaces_what_was_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("fjall");
    let mut fjall = FjallEngine::open(path.clone(), 1 << 20).expect("opens");
    let memory = MemoryEngine::new();
    memory.set_ingests(Some(PLAIN_BYTES));
    let mut random = fastrand::Rng::with_seed(7);
    for step in 0..120 {
        let numbers = 0..random.usize(1..400);
        let mut changes: Vec<Change> = numbers
            .map(|_| {
                let row = Bytes::from(format!("row {:04}", random.u16(0..2000)));
                let value = format!("{step} {}", "v".repeat(random.usize(0..200)));
                (row, (random.u8(0..4) > 0).then(|| Bytes::from(value)))
            })
            .collect();
        changes.sort_by(|one, other| one.0.cmp(&other.0));
        changes.dedup_by(|one, other| one.0 == other.0);
        for engine in [&fjall as &dyn Engine, &memory] {
            match step % 3 {
                0 => engine.apply(&changes).expect("applies"),
                _ => {
                    let ingest = engine.ingest().expect("it knows how to");
                    ingest.ingest(&mut changes.iter().cloned()).expect("ingests");
                }
            }
        }
        if step % 20 == 19 {
            drop(fjall);
            fjall = FjallEngine::open(path.clone(), 1 << 20).expect("opens");
        }
        let all = (&b""[..], None);
        let (ours, theirs) = (rows(&fjall, all, false, 5000), rows(&memory, all, false, 5000));
        assert!(ours == theirs, "step {step}: {} rows, {}", ours.len(), theirs.len());
        for _ in 0..20 {
            let row = format!("row {:04}", random.u16(0..2000));
            let row = row.as_bytes();
            assert_eq!(fjall.get(row).expect("reads"), memory.get(row).expect("reads"));
        }
    }
}

/// Batches and ingestions in turns; the journal and the tables that were merged do not stay.
#[test]
fn what_is_ingested_lets_old_files_go() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("fjall");
    let fjall = FjallEngine::open(path.clone(), 1 << 20).expect("opens");
    let changes = |rows: usize| {
        let row = |row: usize| Bytes::from(format!("row {row:06}"));
        let value = Bytes::from(vec![7; 10_000]);
        (0..rows).map(move |number| (row(number), Some(value.clone()))).collect::<Vec<Change>>()
    };
    let (many, few) = (changes(2_000), changes(1));
    let mut most_tables = 0;
    for _ in 0..16 {
        many.chunks(100).for_each(|batch| fjall.apply(batch).expect("applies"));
        Ingest::ingest(&fjall, &mut few.iter().cloned()).expect("ingests");
        let rows = fjall.files().expect("is open").rows;
        most_tables = most_tables.max(rows.l0_table_count());
    }
    let Files { database, rows: _open } = fjall.files().expect("is open");
    let journal_bytes = || database.journal_disk_space().expect("is there");
    assert!(most_tables <= OVERLAPPING_MAX + 4, "{most_tables} tables overlap");
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let until = |what: &str, done: &dyn Fn() -> bool| {
        while !done() {
            assert!(
                std::time::Instant::now() < deadline,
                "{what}, {} of journals",
                journal_bytes()
            );
            thread::sleep(Duration::from_millis(20));
        }
    };
    until("old journals go", &|| journal_bytes() <= JOURNAL_BYTES_MAX + (64 << 20));
    // Later than what is under way ends.
    let ends = || database.outstanding_flushes() == 0 && database.active_compactions() == 0;
    for _ in 0..GIVEN_BACK_TIMES {
        until("they end", &ends);
        let before = database.compactions_completed();
        fjall.give_back().expect("is asked");
        until("they are looked for", &|| database.compactions_completed() >= before + WORKERS - 1);
    }
    until("old tables go", &|| {
        let bytes = database.disk_space().expect("is there") - journal_bytes();
        bytes < 60_000_000
    });
}
