//! A head is read back as written, and nothing else passes for one.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn meta() -> HeadMeta {
    HeadMeta {
        cluster_id: "demo".into(),
        index: 42,
        ballot: HeadBallot { round: 7, node: 2, incarnation: 9 },
        members: vec![1, 9, 3],
        keys: 5,
        stamp_ms: 1_700_000_000_000,
    }
}

fn write(rows: &BTreeMap<Vec<u8>, Vec<u8>>) -> (Vec<u8>, HeadSummary) {
    let mut file = Vec::new();
    let mut writer = HeadWriter::new(&mut file, meta()).expect("starts");
    for (row, value) in rows {
        writer.push(row, value).expect("takes a row");
    }
    let summary = writer.finish().expect("finishes");
    assert_eq!(summary.file_bytes, file.len() as u64);
    (file, summary)
}

fn read(file: Vec<u8>) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, HeadError> {
    let head = HeadReader::open(file)?;
    head.verify()?;
    head.rows().map(|row| row.map(|(row, value)| (row.to_vec(), value.to_vec()))).collect()
}

/// Rows of three blocks and more, one of them bigger than a block.
fn sample() -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut rows: BTreeMap<_, _> = (0..3_000_u32)
        .map(|number| {
            let value = (0..random.usize(0..100)).map(|_| random.u8(0..4)).collect();
            (number.to_be_bytes().to_vec(), value)
        })
        .collect();
    rows.insert(b"big".to_vec(), vec![1; 200_000]);
    rows.insert(vec![], vec![]);
    rows
}

#[test]
fn read_back_as_written() {
    for rows in [BTreeMap::new(), BTreeMap::from([(vec![1], vec![2])]), sample()] {
        let (file, summary) = write(&rows);
        let head = HeadReader::open(file.clone()).expect("opens");
        assert_eq!(head.footer().meta, meta());
        assert_eq!(head.footer().hash, summary.hash);
        assert_eq!(head.footer().rows, rows.len() as u64);
        assert_eq!(read(file).expect("verifies"), rows);
    }
}

#[test]
fn rows_are_found_from_any_row_on() {
    let rows = sample();
    let head = HeadReader::open(write(&rows).0).expect("opens");
    for first in rows.keys().step_by(97).cloned().chain([vec![0, 0, 3, 3, 0], vec![255; 9]]) {
        let found: Vec<_> = head
            .rows_from(&first)
            .expect("finds")
            .map(|row| row.expect("reads").0.to_vec())
            .collect();
        let expected: Vec<_> = rows.range(first.clone()..).map(|(row, _)| row.clone()).collect();
        assert!(found == expected, "from {first:?}: {} of {}", found.len(), expected.len());
    }
}

#[test]
fn the_hash_tells_row_from_value() {
    let hash =
        |row: &[u8], value: &[u8]| write(&BTreeMap::from([(row.to_vec(), value.to_vec())])).1.hash;
    assert_ne!(hash(b"ab", b"c"), hash(b"a", b"bc"));
}

#[test]
fn every_flipped_bit_is_found() {
    let rows = (0..40_u8).map(|number| (vec![number], vec![number; 5])).collect();
    let (file, _) = write(&rows);
    for bit in 0..file.len() * 8 {
        let mut damaged = file.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(read(damaged).is_err(), "bit {bit} of {}", file.len() * 8);
    }
}

#[test]
fn every_truncation_and_extension_is_found() {
    let (file, _) = write(&(0..40_u8).map(|number| (vec![number], vec![])).collect());
    for length in 0..file.len() {
        assert!(read(file[..length].to_vec()).is_err(), "cut to {length}");
    }
    let mut longer = file.clone();
    longer.push(0);
    assert!(read(longer).is_err());
}

#[test]
fn a_newer_format_is_named() {
    let (mut file, _) = write(&BTreeMap::new());
    file[8] = 2;
    assert!(matches!(HeadReader::open(file), Err(HeadError::Version(2))));
}

#[test]
#[should_panic(expected = "does not ascend")]
fn rows_out_of_order_are_our_own_fault() {
    let mut writer = HeadWriter::new(Vec::new(), meta()).expect("starts");
    writer.push(b"b", b"").expect("takes a row");
    let _ = writer.push(b"a", b"");
}

/// Makes all checksums of a damaged file right again, so that the checks behind them are met.
fn mend_checksums(file: &mut [u8]) {
    let length = file.len();
    let footer_bytes = u32::from_le_bytes([
        file[length - 16],
        file[length - 15],
        file[length - 14],
        file[length - 13],
    ]) as usize;
    let Some(start) = (length - 16).checked_sub(footer_bytes) else { return };
    let checksum = crc32c::crc32c(&file[start..length - 16]);
    file[length - 12..length - 8].copy_from_slice(&checksum.to_le_bytes());
    let (stored, raw) = (&file[12..16], &file[16..20]);
    let (stored, raw) = (
        u32::from_le_bytes(stored.try_into().expect("4 bytes")),
        u32::from_le_bytes(raw.try_into().expect("4 bytes")),
    );
    if let Some(block) = file.get(24..24_usize.saturating_add(stored as usize)) {
        let checksum = format::block_checksum(stored, raw, block);
        file[20..24].copy_from_slice(&checksum.to_le_bytes());
    }
}

proptest! {
    #[test]
    fn garbage_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(read(bytes).is_err());
    }

    /// Fields of any value behind right checksums: no panic and no huge allocation; what passes
    /// must at least still have the hash of its rows.
    #[test]
    fn damage_behind_right_checksums_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let (file, _) = write(&(0..40_u8).map(|number| (vec![number], vec![number])).collect());
        let mut damaged = file.clone();
        for (place, byte) in changes {
            let place = place.index(damaged.len());
            damaged[place] = byte;
        }
        mend_checksums(&mut damaged);
        if let Ok(head) = HeadReader::open(damaged) {
            let _ = head.verify();
            let _ = head.rows().count();
            if let Ok(rows) = head.rows_from(&[20]) {
                let _ = rows.count();
            }
        }
    }
}
