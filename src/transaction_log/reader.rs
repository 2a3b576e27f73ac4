//! Reads entries back, also while the log is being written by another thread.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use super::LogError;
use super::encoding::{
    RECORD_HEADER_BYTES, RecordHeader, RecordKind, RecordPlace, decode_save, entry_at,
};
use super::index::{LogIndex, Place, Segment};
use crate::paxos::{Entry, Index, Position};

/// Reads a log. Sees what was appended, synced or not. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    index: Arc<RwLock<LogIndex>>,
}

impl Reader {
    pub(super) fn new(index: Arc<RwLock<LogIndex>>) -> Self {
        Reader { index }
    }

    /// The log starts after this position.
    pub fn base(&self) -> Position {
        self.index.read().base
    }

    /// The last entry, or the base.
    pub fn last(&self) -> Position {
        self.index.read().last_position()
    }

    /// The position with this index; None below the base and above the last entry.
    pub fn position_at(&self, index: Index) -> Option<Position> {
        self.index.read().position_at(index)
    }

    /// Bytes of the records that hold the entries from `index` on, roughly.
    pub fn bytes_since(&self, index: Index) -> u64 {
        self.index.read().bytes_since(index)
    }

    /// The entries from `from` to `to`, as many as fit `bytes_max` but at least one; none when the
    /// log ends before `from` or `to` is below it. All are of one state of the log, even if it is
    /// truncated meanwhile.
    ///
    /// # Errors
    /// [`LogError::Gone`] when `from` was dropped; [`LogError::Damaged`] when the bytes on disk are
    /// not those that were written: the node must stop.
    pub fn read(&self, from: Index, to: Index, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        let places: Vec<(Place, Index, Segment)> = {
            let index = self.index.read();
            if from <= index.base.index {
                return Err(LogError::Gone { base: index.base });
            }
            let with_segment = |(place, last): (Place, Index)| {
                (place, last, index.segments[&place.segment].clone())
            };
            index.places(from, to, bytes_max).into_iter().map(with_segment).collect()
        };
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        for (place, last, segment) in places {
            let body = read_body(&segment, place)?;
            let mut full = false;
            let save = decode_save(&body, |index, ballot, value| {
                if full || index < from || index > to || index > last {
                    return;
                }
                let entry = entry_at(&body, index, ballot, &value);
                bytes += entry.value.size_bytes();
                full = bytes > bytes_max && !entries.is_empty();
                if !full {
                    entries.push(entry);
                }
            });
            if save.is_none() {
                return Err(bad_record(&segment.path, place));
            }
            if full {
                break;
            }
        }
        Ok(entries)
    }
}

fn read_body(segment: &Segment, place: Place) -> Result<Bytes, LogError> {
    let mut record = vec![0; place.length as usize];
    let count = segment
        .file
        .read_at(&mut record, u64::from(place.offset))
        .map_err(|e| LogError::io("read", &segment.path, e))?;
    let record = Bytes::from(record);
    if count < record.len() {
        return Err(bad_record(&segment.path, place));
    }
    let at =
        RecordPlace { segment: place.segment, seed: segment.seed, offset: u64::from(place.offset) };
    let body = record.slice(RECORD_HEADER_BYTES..);
    RecordHeader::decode(&record[..RECORD_HEADER_BYTES], at)
        .filter(|header| header.kind == RecordKind::Save && header.matches(&body))
        .map(|_| body)
        .ok_or_else(|| bad_record(&segment.path, place))
}

fn bad_record(path: &Path, place: Place) -> LogError {
    LogError::damaged(path, u64::from(place.offset), "a record changed after it was written")
}
