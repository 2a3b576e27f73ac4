//! The bytes of a record. Little-endian, written by hand, so that an entry on disk does not change
//! when a type in memory does. Decoding takes any bytes and never panics.

use std::ops::Range;

use bytes::Bytes;

use crate::paxos::{
    Ballot, DurableState, Entry, Incarnation, Index, NodeId, Position, Save, Value,
};

/// Bytes of a record before its body.
pub(super) const RECORD_HEADER_BYTES: usize = 32;
/// Records start at multiples of this, so that one can be found again behind damage.
pub(super) const RECORD_ALIGNMENT: usize = 8;
/// No body is longer; a length above it is damage.
pub(super) const BODY_BYTES_MAX: usize = 256 << 20;

const RECORD_VERSION: u8 = 1;
const HAS_RESET: u8 = 1;
const HAS_TRUNCATE: u8 = 2;
const HAS_STATE: u8 = 4;
const VALUE_ESTABLISH: u8 = 0;
const VALUE_BATCH: u8 = 1;
const VALUE_ADMIT: u8 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordKind {
    Save = 1,
    Checkpoint = 2,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct RecordHeader {
    body_crc: u32,
    pub body_bytes: usize,
    pub kind: RecordKind,
    /// This much of the segment was synced when the record was written.
    pub synced_offset: u64,
}

/// Where a record is written; all of it goes into the checksum, so that a record is valid only in
/// its own place of its own segment of its own log.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordPlace {
    pub segment: u64,
    /// The segment header's checksum.
    pub seed: u32,
    pub offset: u64,
}

fn header_crc(place: RecordPlace, header: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(place.seed, &place.offset.to_le_bytes());
    crc32c::crc32c_append(crc, &header[4..RECORD_HEADER_BYTES])
}

impl RecordHeader {
    /// None: not a record's header, or not one of this place.
    pub fn decode(header: &[u8], place: RecordPlace) -> Option<RecordHeader> {
        let mut cursor = Cursor { bytes: header, at: 0 };
        let crc = cursor.u32()?;
        let body_crc = cursor.u32()?;
        let body_bytes = cursor.u32()? as usize;
        let kind = match cursor.u8()? {
            1 => RecordKind::Save,
            2 => RecordKind::Checkpoint,
            _ => return None,
        };
        let version = cursor.u8()?;
        let reserved = cursor.u16()?;
        let segment = cursor.u64()?;
        let synced_offset = cursor.u64()?;
        let plausible = version == RECORD_VERSION
            && reserved == 0
            && segment == place.segment
            && synced_offset <= place.offset
            && body_bytes <= BODY_BYTES_MAX
            && body_bytes.is_multiple_of(RECORD_ALIGNMENT);
        (plausible && crc == header_crc(place, header)).then_some(RecordHeader {
            body_crc,
            body_bytes,
            kind,
            synced_offset,
        })
    }

    pub fn matches(&self, body: &[u8]) -> bool {
        body.len() == self.body_bytes && crc32c::crc32c(body) == self.body_crc
    }
}

/// Pads the body behind `record`'s first [`RECORD_HEADER_BYTES`] and fills those in.
pub(super) fn seal_record(
    record: &mut [u8],
    kind: RecordKind,
    place: RecordPlace,
    synced_offset: u64,
) {
    let (header, body) = record.split_at_mut(RECORD_HEADER_BYTES);
    header[4..8].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    header[8..12].copy_from_slice(&(body.len() as u32).to_le_bytes());
    header[12] = kind as u8;
    header[13] = RECORD_VERSION;
    header[14..16].fill(0);
    header[16..24].copy_from_slice(&place.segment.to_le_bytes());
    header[24..32].copy_from_slice(&synced_offset.to_le_bytes());
    let crc = header_crc(place, header);
    header[0..4].copy_from_slice(&crc.to_le_bytes());
}

/// Appends an unsealed record: a blank header and a padded body. `after` is the log's last position
/// once the save's reset and truncation are done.
pub(super) fn encode_save(out: &mut Vec<u8>, save: &Save, after: Position) {
    out.reserve(save.entries.iter().map(|entry| entry.value.size_bytes()).sum::<usize>() + 512);
    let start = begin(out);
    let mut flags = 0;
    flags |= if save.reset_to.is_some() { HAS_RESET } else { 0 };
    flags |= if save.truncate_from.is_some() { HAS_TRUNCATE } else { 0 };
    flags |= if save.state.is_some() { HAS_STATE } else { 0 };
    out.push(flags);
    put_u64(out, save.chosen.0);
    put_position(out, after);
    if let Some(position) = save.reset_to {
        put_position(out, position);
    }
    if let Some(index) = save.truncate_from {
        put_u64(out, index.0);
    }
    if let Some(state) = &save.state {
        put_state(out, state);
    }
    let count = u32::try_from(save.entries.len()).expect("a save has under 4 billion entries");
    put_u32(out, count);
    for entry in &save.entries {
        put_u64(out, entry.index.0);
        put_ballot(out, entry.ballot);
        match &entry.value {
            Value::Establish { members } => {
                out.push(VALUE_ESTABLISH);
                put_u32(out, u32::try_from(8 * members.len()).expect("a cluster has few seats"));
                members.iter().for_each(|member| put_u64(out, member.0));
            }
            Value::Batch(bytes) => {
                out.push(VALUE_BATCH);
                put_u32(out, u32::try_from(bytes.len()).expect("a batch is under 4 GiB"));
                out.extend_from_slice(bytes);
            }
            Value::Admit { node, incarnation } => {
                out.push(VALUE_ADMIT);
                put_u32(out, 9);
                out.push(node.0);
                put_u64(out, incarnation.0);
            }
        }
    }
    finish(out, start);
}

/// What a new segment starts with: all that the segments before it would tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// The log's last position; the first entry of this segment follows it.
    pub last: Position,
    pub chosen: Index,
    /// Where the records of the previous segment end; 0 in the first segment of a log.
    pub previous_end: u64,
    pub state: DurableState,
}

pub(super) fn encode_checkpoint(out: &mut Vec<u8>, checkpoint: &Checkpoint) {
    let start = begin(out);
    put_position(out, checkpoint.last);
    put_u64(out, checkpoint.chosen.0);
    put_u64(out, checkpoint.previous_end);
    put_state(out, &checkpoint.state);
    finish(out, start);
}

pub(super) fn decode_checkpoint(body: &[u8]) -> Option<Checkpoint> {
    let mut cursor = Cursor { bytes: body, at: 0 };
    let checkpoint = Checkpoint {
        last: cursor.position()?,
        chosen: Index(cursor.u64()?),
        previous_end: cursor.u64()?,
        state: cursor.state()?,
    };
    cursor.is_at_end().then_some(checkpoint)
}

/// A save as found on disk, without its entries.
#[derive(Clone, Debug)]
pub(super) struct SaveRecord {
    pub reset_to: Option<Position>,
    pub truncate_from: Option<Index>,
    pub state: Option<DurableState>,
    pub chosen: Index,
    pub after: Position,
}

/// A value inside a record's body.
#[derive(Clone, Debug)]
pub(super) enum ValuePlace {
    Establish(Range<usize>),
    Batch(Range<usize>),
    Admit { node: NodeId, incarnation: Incarnation },
}

/// Reads a save; `on_entry` gets its entries in order, which are contiguous behind `after`. None:
/// not the body of a save.
pub(super) fn decode_save(
    body: &[u8],
    mut on_entry: impl FnMut(Index, Ballot, ValuePlace),
) -> Option<SaveRecord> {
    let mut cursor = Cursor { bytes: body, at: 0 };
    let flags = cursor.u8()?;
    if flags & !(HAS_RESET | HAS_TRUNCATE | HAS_STATE) != 0 {
        return None;
    }
    let chosen = Index(cursor.u64()?);
    let after = cursor.position()?;
    let reset_to = if flags & HAS_RESET != 0 { Some(cursor.position()?) } else { None };
    let truncate_from = if flags & HAS_TRUNCATE != 0 { Some(Index(cursor.u64()?)) } else { None };
    let state = if flags & HAS_STATE != 0 { Some(cursor.state()?) } else { None };
    let mut index = after.index;
    for _ in 0..cursor.u32()? {
        index = Index(index.0.checked_add(1)?);
        if cursor.u64()? != index.0 {
            return None;
        }
        let ballot = cursor.ballot()?;
        let kind = cursor.u8()?;
        let length = cursor.u32()? as usize;
        let start = cursor.at;
        cursor.take(length)?;
        let value = match kind {
            VALUE_ESTABLISH if length.is_multiple_of(8) => {
                ValuePlace::Establish(start..start + length)
            }
            VALUE_BATCH => ValuePlace::Batch(start..start + length),
            VALUE_ADMIT if length == 9 => {
                let mut inner = Cursor { bytes: body, at: start };
                ValuePlace::Admit {
                    node: NodeId(inner.u8()?),
                    incarnation: Incarnation(inner.u64()?),
                }
            }
            _ => return None,
        };
        on_entry(index, ballot, value);
    }
    cursor.is_at_end().then_some(SaveRecord { reset_to, truncate_from, state, chosen, after })
}

/// Builds an entry from its place in `body`. A value that is a small part of the body is copied, so
/// that it does not keep the whole body in memory.
pub(super) fn entry_at(body: &Bytes, index: Index, ballot: Ballot, place: &ValuePlace) -> Entry {
    let value = match place {
        ValuePlace::Establish(range) => Value::Establish {
            members: body[range.clone()]
                .chunks_exact(8)
                .map(|bytes| Incarnation(u64::from_le_bytes(bytes.try_into().expect("8 bytes"))))
                .collect(),
        },
        ValuePlace::Batch(range) if range.len() * 2 >= body.len() => {
            Value::Batch(body.slice(range.clone()))
        }
        ValuePlace::Batch(range) => Value::Batch(Bytes::copy_from_slice(&body[range.clone()])),
        ValuePlace::Admit { node, incarnation } => {
            Value::Admit { node: *node, incarnation: *incarnation }
        }
    };
    Entry { index, ballot, value }
}

fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.resize(start + RECORD_HEADER_BYTES, 0);
    start
}

fn finish(out: &mut Vec<u8>, start: usize) {
    let body_bytes = (out.len() - start - RECORD_HEADER_BYTES).next_multiple_of(RECORD_ALIGNMENT);
    assert!(body_bytes <= BODY_BYTES_MAX, "a save of {body_bytes} bytes, {BODY_BYTES_MAX} allowed");
    out.resize(start + RECORD_HEADER_BYTES + body_bytes, 0);
}

fn put_u16(out: &mut Vec<u8>, number: u16) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_u32(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_ballot(out: &mut Vec<u8>, ballot: Ballot) {
    put_u64(out, ballot.round);
    out.push(ballot.node.0);
    put_u64(out, ballot.incarnation.0);
}

fn put_position(out: &mut Vec<u8>, position: Position) {
    put_u64(out, position.index.0);
    put_ballot(out, position.ballot);
}

fn put_state(out: &mut Vec<u8>, state: &DurableState) {
    put_ballot(out, state.promised);
    put_ballot(out, state.accepted);
    put_u64(out, state.lease_bound_us);
    out.push(u8::from(state.voting));
    put_u16(out, u16::try_from(state.members.len()).expect("a cluster has at most 256 seats"));
    for member in &state.members {
        put_u64(out, member.0);
    }
}

/// Reads numbers off a slice; None at its end.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn ballot(&mut self) -> Option<Ballot> {
        Some(Ballot {
            round: self.u64()?,
            node: NodeId(self.u8()?),
            incarnation: Incarnation(self.u64()?),
        })
    }

    fn position(&mut self) -> Option<Position> {
        Some(Position { index: Index(self.u64()?), ballot: self.ballot()? })
    }

    fn state(&mut self) -> Option<DurableState> {
        let promised = self.ballot()?;
        let accepted = self.ballot()?;
        let lease_bound_us = self.u64()?;
        let voting = match self.u8()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let count = self.u16()?;
        let members = (0..count).map(|_| self.u64().map(Incarnation)).collect::<Option<_>>()?;
        Some(DurableState { promised, accepted, lease_bound_us, members, voting })
    }

    /// Only the padding is left.
    fn is_at_end(&self) -> bool {
        let rest = &self.bytes[self.at..];
        rest.len() < RECORD_ALIGNMENT && rest.iter().all(|byte| *byte == 0)
    }
}
