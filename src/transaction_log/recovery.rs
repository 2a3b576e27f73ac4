//! Opens what is on disk: checks every record, rebuilds the index, cuts an unsynced tail.
//!
//! All segments but the last were synced to their end, so anything wrong in them is damage. In the
//! last one the boundary is the highest synced offset that any of its records states, also those
//! behind the damage: a power cut keeps unsynced sectors in any order. Reads in windows of bounded
//! size; a length is believed only after its checksum.

use std::path::Path;

use super::encoding::{
    RECORD_ALIGNMENT, RECORD_HEADER_BYTES, RecordHeader, RecordKind, RecordPlace,
    decode_checkpoint, decode_save,
};
use super::index::{Change, LogIndex, Segment, extend_runs};
use super::log::Active;
use super::segment::{SEGMENT_HEADER_BYTES, SegmentHeader, segment_ids, segment_path};
use super::{Identity, LogError, TailCut};
use crate::disk::{Disk, DiskFile, Open, write_zeros};
use crate::paxos::{DurableState, Index};
use crate::planted::{Bug, plants};

const WINDOW_BYTES: usize = 1 << 20;
const RECORD_HEADER: u64 = RECORD_HEADER_BYTES as u64;
const RECORDS_START: u64 = SEGMENT_HEADER_BYTES as u64;

/// What was rebuilt.
pub(super) struct Found {
    pub index: LogIndex,
    pub active: Active,
    pub state: DurableState,
    pub chosen: Index,
    pub tail_cut: Option<TailCut>,
}

pub(super) fn read_identity(
    disk: &dyn Disk,
    directory: &Path,
) -> Result<Option<Identity>, LogError> {
    let Some(id) = segment_ids(disk, directory)?.first().copied() else { return Ok(None) };
    let path = segment_path(directory, id);
    let file = disk.open(&path, Open::Read).map_err(|e| LogError::io("open", &path, e))?;
    let (header, _) = SegmentHeader::read(&*file, &path)?;
    Ok(Some(header.identity))
}

/// There must be a segment.
pub(super) fn recover(
    disk: &dyn Disk,
    directory: &Path,
    identity: &Identity,
) -> Result<Found, LogError> {
    // A segment may have got its name without the directory being synced yet.
    disk.sync_directory(directory).map_err(|e| LogError::io("sync", directory, e))?;
    let ids = segment_ids(disk, directory)?;
    let mut replay = Replay {
        index: LogIndex::new(Default::default()),
        state: DurableState::default(),
        chosen: Index(0),
        previous_end: None,
    };
    let mut tail = None;
    for (at, id) in ids.iter().copied().enumerate() {
        let path = segment_path(directory, id);
        if at > 0 && ids[at - 1] + 1 != id {
            let missing = segment_path(directory, ids[at - 1] + 1);
            return Err(LogError::damaged(&missing, 0, "this segment is missing"));
        }
        let is_last = at + 1 == ids.len();
        let how = if is_last { Open::Write } else { Open::Read };
        let file = disk.open(&path, how).map_err(|e| LogError::io("open", &path, e))?;
        let (header, seed) = SegmentHeader::read(&*file, &path)?;
        check_header(&*file, &path, &header, id, identity)?;
        let length_bytes = header.length_bytes;
        let mut segment = Segment { file, path, seed, length_bytes, end: 0 };
        let mut scan = Scan::new(&segment, id);
        let end = scan.replay_records(&mut replay)?;
        let rest = scan.examine_rest(end)?;
        let synced = scan.synced;
        let limit = if is_last { synced } else { length_bytes };
        let trusted = !plants(Bug::DamageTakenForTornEnd);
        if rest.damaged && end < limit && trusted {
            let reason = format!("{}; everything below byte {limit} had been synced", rest.reason);
            return Err(LogError::damaged(&segment.path, end, reason));
        }
        segment.end = end;
        replay.previous_end = Some(end);
        if is_last {
            tail = Some((id, segment.clone(), synced.min(end), rest.damaged_to));
        }
        replay.index.segments.insert(id, segment);
    }
    let (id, segment, synced, damaged_to) =
        tail.ok_or_else(|| LogError::Empty(directory.to_owned()))?;
    let tail_cut = make_durable(&segment, synced, damaged_to)?;
    let end = segment.end;
    Ok(Found {
        index: replay.index,
        active: Active { id, segment, end, synced: end },
        state: replay.state,
        chosen: replay.chosen,
        tail_cut,
    })
}

fn check_header(
    file: &dyn DiskFile,
    path: &Path,
    header: &SegmentHeader,
    id: u64,
    identity: &Identity,
) -> Result<(), LogError> {
    if header.id != id {
        let reason = format!("its header says that it is segment {}", header.id);
        return Err(LogError::damaged(path, 16, reason));
    }
    if header.identity != *identity {
        let reason = format!("its header names {:?}, not {identity:?}", header.identity);
        return Err(LogError::damaged(path, 32, reason));
    }
    let length = file.length().map_err(|e| LogError::io("read the length of", path, e))?;
    if length < header.length_bytes {
        let reason = format!("the file is cut short, it had {} bytes", header.length_bytes);
        return Err(LogError::damaged(path, length, reason));
    }
    Ok(())
}

/// Overwrites the tail with zeros, and what may not be synced with itself, then syncs. Writing it
/// again matters: after a sync that failed before the restart the pages can pass for clean, and a
/// sync alone would not write them. So zeros are written over zeros, too: they may be those of an
/// opening whose sync failed, with an old tail still under them on disk.
fn make_durable(
    segment: &Segment,
    synced: u64,
    damaged_to: Option<u64>,
) -> Result<Option<TailCut>, LogError> {
    let Segment { file, path, end, .. } = segment;
    let failed = |action| move |e| LogError::io(action, path, e);
    let mut at = synced.max(RECORDS_START);
    let mut buffer = vec![0; WINDOW_BYTES.min((end - at.min(*end)) as usize)];
    while at < *end {
        let count = buffer.len().min((end - at) as usize);
        let count = file.read_at(&mut buffer[..count], at).map_err(failed("read"))?;
        if count == 0 {
            return Err(LogError::damaged(path, at, "the file became shorter while it was read"));
        }
        file.write_at(&buffer[..count], at).map_err(failed("write"))?;
        at += count as u64;
    }
    let rest_bytes = segment.length_bytes - *end;
    write_zeros(&|zeros, at| file.write_at(zeros, at), *end, rest_bytes)
        .map_err(failed("write"))?;
    file.sync().map_err(failed("sync"))?;
    Ok(damaged_to.map(|to| TailCut { file: path.clone(), offset: *end, bytes: to - end }))
}

/// The log as far as it is read.
struct Replay {
    index: LogIndex,
    state: DurableState,
    chosen: Index,
    /// Where the records of the segment before end; None before the first segment.
    previous_end: Option<u64>,
}

impl Replay {
    /// The reason, when the checkpoint does not continue what was read.
    fn checkpoint(&mut self, body: &[u8]) -> Result<(), String> {
        let checkpoint = decode_checkpoint(body).ok_or("the checkpoint has an unknown form")?;
        match self.previous_end {
            None => self.index = LogIndex::new(checkpoint.last),
            Some(end) => {
                let last = self.index.last_position();
                if (last, end) != (checkpoint.last, checkpoint.previous_end) {
                    return Err(format!(
                        "the segment before this one ends at byte {end} with {last:?}, but it \
                         ended at byte {} with {:?}",
                        checkpoint.previous_end, checkpoint.last
                    ));
                }
            }
        }
        self.state = checkpoint.state;
        self.chosen = self.chosen.max(checkpoint.chosen);
        Ok(())
    }

    fn save(&mut self, body: &[u8], segment: u64, offset: u64) -> Result<(), String> {
        let mut runs = Vec::new();
        let mut count = 0;
        let save = decode_save(body, |index, ballot, _| {
            count += 1;
            extend_runs(&mut runs, index, ballot);
        })
        .ok_or("the record has an unknown form")?;
        let length = RECORD_HEADER + body.len() as u64;
        self.index.apply(&Change {
            reset_to: save.reset_to,
            truncate_from: save.truncate_from,
            after: save.after,
            count,
            runs,
            segment,
            offset,
            length,
        })?;
        self.chosen = self.chosen.max(save.chosen);
        if let Some(state) = save.state {
            self.state = state;
        }
        Ok(())
    }
}

/// What stands behind the last valid record.
struct Rest {
    damaged: bool,
    reason: &'static str,
    /// One past the last byte that is not zero.
    damaged_to: Option<u64>,
}

/// Walks over one segment.
struct Scan<'a> {
    segment: &'a Segment,
    id: u64,
    /// The highest synced offset stated so far.
    synced: u64,
    window: Vec<u8>,
    window_start: u64,
}

impl<'a> Scan<'a> {
    fn new(segment: &'a Segment, id: u64) -> Self {
        Scan { segment, id, synced: 0, window: Vec::new(), window_start: 0 }
    }

    /// `length` bytes at `offset`; None past the end of the segment.
    fn get(&mut self, offset: u64, length: usize) -> Result<Option<&[u8]>, LogError> {
        let Segment { file, path, length_bytes, .. } = self.segment;
        if offset + length as u64 > *length_bytes {
            return Ok(None);
        }
        let window_end = self.window_start + self.window.len() as u64;
        if offset < self.window_start || offset + length as u64 > window_end {
            let wanted = length.max(WINDOW_BYTES).min((length_bytes - offset) as usize);
            self.window.resize(wanted, 0);
            self.window_start = offset;
            let count = file
                .read_at(&mut self.window, offset)
                .map_err(|e| LogError::io("read", path, e))?;
            if count < wanted {
                return Err(LogError::damaged(
                    path,
                    offset + count as u64,
                    "the file is cut short",
                ));
            }
        }
        let at = (offset - self.window_start) as usize;
        Ok(Some(&self.window[at..at + length]))
    }

    fn place(&self, offset: u64) -> RecordPlace {
        RecordPlace { segment: self.id, seed: self.segment.seed, offset }
    }

    /// Takes over all records up to the first that is not whole; returns where they end.
    fn replay_records(&mut self, replay: &mut Replay) -> Result<u64, LogError> {
        let (id, path) = (self.id, &self.segment.path);
        let mut offset = RECORDS_START;
        loop {
            let place = self.place(offset);
            let Some(bytes) = self.get(offset, RECORD_HEADER_BYTES)? else { break };
            let Some(header) = RecordHeader::decode(bytes, place) else { break };
            self.synced = self.synced.max(header.synced_offset);
            let body_start = offset + RECORD_HEADER;
            let Some(body) = self.get(body_start, header.body_bytes)? else { break };
            if !header.matches(body) {
                break;
            }
            // The checksum holds, so these bytes were written like this; if they make no sense, it
            // is not for a lost sync.
            let is_first = offset == RECORDS_START;
            let taken = match header.kind {
                RecordKind::Checkpoint if is_first => replay.checkpoint(body),
                RecordKind::Save if !is_first => replay.save(body, id, offset),
                _ => Err("a checkpoint must be the first record, and only that".to_owned()),
            };
            taken.map_err(|reason| LogError::damaged(path, offset, reason))?;
            offset = body_start + header.body_bytes as u64;
        }
        if offset == RECORDS_START {
            // Synced before the segment got its name.
            return Err(LogError::damaged(path, offset, "the checkpoint is not valid"));
        }
        Ok(offset)
    }

    /// Looks through everything behind the last valid record: how far it is not zero, and what
    /// records found there state about what was synced.
    fn examine_rest(&mut self, end: u64) -> Result<Rest, LogError> {
        let length_bytes = self.segment.length_bytes;
        let mut damaged_to = None;
        let mut first_byte = None;
        let mut offset = end;
        while offset < length_bytes {
            let count = (WINDOW_BYTES - RECORD_HEADER_BYTES).min((length_bytes - offset) as usize);
            let overlap = RECORD_HEADER_BYTES.min((length_bytes - offset) as usize - count);
            let place = self.place(offset);
            let Some(bytes) = self.get(offset, count + overlap)? else { break };
            let mut stated = 0;
            if let Some(last) = bytes[..count].iter().rposition(|byte| *byte != 0) {
                first_byte = first_byte.or(bytes[..count].iter().position(|byte| *byte != 0));
                damaged_to = Some(offset + last as u64 + 1);
                for at in (0..=last).step_by(RECORD_ALIGNMENT) {
                    let Some(header) = bytes.get(at..at + RECORD_HEADER_BYTES) else { break };
                    if header[16..24] != place.segment.to_le_bytes() {
                        continue;
                    }
                    let place = RecordPlace { offset: place.offset + at as u64, ..place };
                    if let Some(header) = RecordHeader::decode(header, place) {
                        stated = stated.max(header.synced_offset);
                    }
                }
            }
            self.synced = self.synced.max(stated);
            offset += count as u64;
        }
        let reason = match first_byte {
            None => "nothing is wrong",
            Some(0..RECORD_HEADER_BYTES) => "a record's checksum does not match",
            Some(_) => "a record is missing before others",
        };
        Ok(Rest { damaged: damaged_to.is_some(), reason, damaged_to })
    }
}
