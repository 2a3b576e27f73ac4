//! The drain journal: one frozen layer as bytes, kept while its rows go to the engine.
//!
//! The engine's batches are atomic, a layer of many batches is not, and a state between two log
//! entries must never be read or replayed over. So the whole layer is written aside first; after a
//! killed process it is applied again from there. It is not synced: a power cut makes the engine
//! distrusted anyway.
//!
//! Layout, integers little-endian: magic `ARKDRAIN`, version u8, from u64, end u64, then per change
//! row length u32, value length u32 plus one (0: removed), row, value; at the end a CRC32C of all
//! before it.

use bytes::Bytes;

use super::engine::Change;

const MAGIC: &[u8; 8] = b"ARKDRAIN";
const VERSION: u8 = 1;
/// Of the magic, the version, both indices and the checksum.
const FRAME_BYTES: usize = 8 + 1 + 8 + 8 + 4;

/// A complete journal.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Journal {
    /// The marker the layer lies over.
    pub from: u64,
    /// The marker it leads to.
    pub end: u64,
    pub changes: Vec<Change>,
}

/// The bytes of a journal.
pub(super) fn encode(from: u64, end: u64, changes: &[Change]) -> Vec<u8> {
    let lengths =
        changes.iter().map(|(row, value)| row.len() + value.as_ref().map_or(0, Bytes::len));
    // At once: what grows step by step is copied, and takes new memory each time.
    let mut bytes =
        Vec::with_capacity(FRAME_BYTES + lengths.map(|length| length + 8).sum::<usize>());
    bytes.extend_from_slice(MAGIC);
    bytes.push(VERSION);
    bytes.extend_from_slice(&from.to_le_bytes());
    bytes.extend_from_slice(&end.to_le_bytes());
    for (row, value) in changes {
        encode_change(&mut bytes, row, value.as_ref());
    }
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Appends one change.
pub(super) fn encode_change(bytes: &mut Vec<u8>, row: &Bytes, value: Option<&Bytes>) {
    bytes.extend_from_slice(&length(row.len()).to_le_bytes());
    let value_length = value.map_or(0, |value| length(value.len()) + 1);
    bytes.extend_from_slice(&value_length.to_le_bytes());
    bytes.extend_from_slice(row);
    bytes.extend_from_slice(value.map(|value| &value[..]).unwrap_or_default());
}

fn length(length: usize) -> u32 {
    u32::try_from(length).expect("rows and values are limited to 16 MiB before they are proposed")
}

/// Reads a journal; `None` when it is not complete.
pub(super) fn decode(bytes: Vec<u8>) -> Option<Journal> {
    let bytes = Bytes::from(bytes);
    let body = bytes.len().checked_sub(4)?;
    let checksum = u32::from_le_bytes(bytes[body..].try_into().ok()?);
    if crc32c::crc32c(&bytes[..body]) != checksum {
        return None;
    }
    let rest = bytes[..body].strip_prefix(MAGIC)?;
    let (&VERSION, rest) = rest.split_first()? else { return None };
    let (from, rest) = rest.split_first_chunk::<8>()?;
    let (end, rest) = rest.split_first_chunk::<8>()?;
    let changes = decode_changes(bytes.slice(body - rest.len()..body))?;
    Some(Journal { from: u64::from_le_bytes(*from), end: u64::from_le_bytes(*end), changes })
}

/// Reads changes; `None` when they do not end where the bytes end.
pub(super) fn decode_changes(mut rest: Bytes) -> Option<Vec<Change>> {
    let mut take = |count: usize| (count <= rest.len()).then(|| rest.split_to(count));
    let mut changes = Vec::new();
    while let Some(lengths) = take(8) {
        let row_length = u32::from_le_bytes(lengths[..4].try_into().ok()?) as usize;
        let value_length = u32::from_le_bytes(lengths[4..].try_into().ok()?) as usize;
        let row = take(row_length)?;
        let value = match value_length.checked_sub(1) {
            Some(value_length) => Some(take(value_length)?),
            None => None,
        };
        changes.push((row, value));
    }
    rest.is_empty().then_some(changes)
}
