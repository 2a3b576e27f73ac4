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
use super::layers::Changes;

const MAGIC: &[u8; 8] = b"ARKDRAIN";
const VERSION: u8 = 1;

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
pub(super) fn encode(from: u64, end: u64, changes: &Changes, layer_bytes: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(layer_bytes + 64);
    bytes.extend_from_slice(MAGIC);
    bytes.push(VERSION);
    bytes.extend_from_slice(&from.to_le_bytes());
    bytes.extend_from_slice(&end.to_le_bytes());
    for (row, value) in changes {
        bytes.extend_from_slice(&length(row.len()).to_le_bytes());
        let value_length = value.as_ref().map_or(0, |value| length(value.len()) + 1);
        bytes.extend_from_slice(&value_length.to_le_bytes());
        bytes.extend_from_slice(row);
        bytes.extend_from_slice(value.as_deref().unwrap_or_default());
    }
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
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
    let mut rest = bytes.slice(..body);
    let mut take = |count: usize| (count <= rest.len()).then(|| rest.split_to(count));
    if take(MAGIC.len())?[..] != MAGIC[..] || take(1)?[0] != VERSION {
        return None;
    }
    let from = u64::from_le_bytes(take(8)?[..].try_into().ok()?);
    let end = u64::from_le_bytes(take(8)?[..].try_into().ok()?);
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
    rest.is_empty().then_some(Journal { from, end, changes })
}
