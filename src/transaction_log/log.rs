//! The writing side: appends records, syncs them together, goes from segment to segment.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use super::blocks::Blocks;
use super::encoding::{
    Checkpoint, RECORD_HEADER_BYTES, RecordKind, RecordPlace, encode_checkpoint, encode_save,
    seal_record,
};
use super::index::{Change, LogIndex, Segment, runs_of};
use super::prepare::{Preparing, SegmentPreparer};
use super::recovery::{self, Found};
use super::segment::{
    SEGMENT_HEADER_BYTES, SegmentHeader, remove_unfinished, segment_ids, segment_path,
};
use super::{Identity, LogError, Options, Reader, Recovered};
use crate::disk::{BLOCK_BYTES, Disk};
use crate::paxos::{DurableState, Index, Position, Save};
use crate::planted::{Bug, plants};

const SEGMENT_BYTES_MIN: u64 = 16 << 10;
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// A larger write buffer is given back after use.
const BUFFER_BYTES_KEPT: usize = 4 << 20;
/// More than any checkpoint takes: 256 seats of 8 bytes and some fixed fields.
const CHECKPOINT_BYTES_MAX: u64 = 4096;

/// The log of one node, open for writing. One at a time per directory.
pub struct TransactionLog {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    identity: Identity,
    segment_bytes: u64,
    preparer: SegmentPreparer,
    index: Arc<RwLock<LogIndex>>,
    active: Active,
    /// As of the last save encoded.
    state: DurableState,
    chosen: Index,
    last: Position,
    /// Empty between calls; kept for its memory.
    pending: Pending,
    blocks: Blocks,
    poisoned: bool,
}

/// The segment in use.
#[derive(Clone)]
pub(super) struct Active {
    pub id: u64,
    pub segment: Segment,
    /// Where the next record goes.
    pub end: u64,
    /// Everything below is durable.
    pub synced: u64,
}

/// Records encoded and not yet written, with what they change.
#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    changes: Vec<Change>,
}

impl TransactionLog {
    /// Whose log is in `directory`; None when there is none (nothing, or a creation cut short).
    ///
    /// # Errors
    /// [`LogError::Damaged`], [`LogError::Version`], [`LogError::Io`].
    pub fn read_identity(disk: &dyn Disk, directory: &Path) -> Result<Option<Identity>, LogError> {
        recovery::read_identity(disk, directory)
    }

    /// Makes the log of a node that has none: no entries and the default state, durable.
    ///
    /// # Errors
    /// [`LogError::NotEmpty`], [`LogError::IdentityTooLong`], [`LogError::Full`],
    /// [`LogError::Io`].
    pub fn create(
        disk: Arc<dyn Disk>,
        directory: &Path,
        options: &Options,
        identity: Identity,
    ) -> Result<Self, LogError> {
        disk.create_directory(directory).map_err(|e| LogError::io("create", directory, e))?;
        if !segment_ids(&*disk, directory)?.is_empty() {
            return Err(LogError::NotEmpty(directory.to_owned()));
        }
        remove_unfinished(&*disk, directory)?;
        let segment_bytes = usable_segment_bytes(options);
        let preparer = SegmentPreparer::new(disk.clone(), directory, segment_bytes);
        let checkpoint = Checkpoint {
            last: Position::default(),
            chosen: Index(0),
            previous_end: 0,
            state: DurableState::default(),
        };
        let active = preparer.take(segment_bytes, |preparing| {
            start_segment(&*disk, directory, preparer.path(), preparing, 1, &identity, &checkpoint)
        })?;
        let mut index = LogIndex::new(Position::default());
        index.segments.insert(active.id, active.segment.clone());
        preparer.note_active(active.end, active.segment.length_bytes);
        Ok(TransactionLog {
            disk,
            directory: directory.to_owned(),
            identity,
            segment_bytes,
            preparer,
            index: Arc::new(RwLock::new(index)),
            active,
            state: checkpoint.state,
            chosen: checkpoint.chosen,
            last: checkpoint.last,
            pending: Pending::default(),
            blocks: Blocks::default(),
            poisoned: false,
        })
    }

    /// Opens the log of the node `node_name` of the cluster `cluster_id`: checks every record, cuts
    /// an unsynced tail, and makes all that is left durable.
    ///
    /// # Errors
    /// [`LogError::Empty`] when there is no log, [`LogError::Foreign`] when it is another node's,
    /// [`LogError::Damaged`] when synced bytes are lost, [`LogError::Version`], [`LogError::Io`].
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        options: &Options,
        cluster_id: &str,
        node_name: &str,
    ) -> Result<(Self, Recovered), LogError> {
        let identity = recovery::read_identity(&*disk, directory)?
            .ok_or_else(|| LogError::Empty(directory.to_owned()))?;
        if identity.cluster_id != cluster_id || identity.node_name != node_name {
            return Err(LogError::Foreign {
                directory: directory.to_owned(),
                found_cluster: identity.cluster_id,
                found_node: identity.node_name,
                wanted_cluster: cluster_id.to_owned(),
                wanted_node: node_name.to_owned(),
            });
        }
        remove_unfinished(&*disk, directory)?;
        let found = recovery::recover(&*disk, directory, &identity)?;
        let Found { index, active, state, chosen, tail_cut } = found;
        let recovered = Recovered {
            identity: identity.clone(),
            state: state.clone(),
            base: index.base,
            last: index.last,
            chosen: chosen.min(index.last).max(index.base.index),
            ballots: index.ballots(),
            tail_cut,
        };
        let segment_bytes = usable_segment_bytes(options);
        let preparer = SegmentPreparer::new(disk.clone(), directory, segment_bytes);
        preparer.note_active(active.end, active.segment.length_bytes);
        let log = TransactionLog {
            disk,
            directory: directory.to_owned(),
            identity,
            segment_bytes,
            preparer,
            last: index.last_position(),
            index: Arc::new(RwLock::new(index)),
            active,
            state,
            chosen: recovered.chosen,
            pending: Pending::default(),
            blocks: Blocks::default(),
            poisoned: false,
        };
        Ok((log, recovered))
    }

    /// Removes the log in `directory`, if there is one. Only for a log that holds no members: any
    /// other one carries promises. Interrupted, it leaves a log that can be wiped again.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn wipe(disk: &dyn Disk, directory: &Path) -> Result<(), LogError> {
        for id in segment_ids(disk, directory)? {
            remove_durably(disk, directory, id)?;
        }
        remove_unfinished(disk, directory)
    }

    /// Whose log this is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Reads this log; usable on any thread.
    pub fn reader(&self) -> Reader {
        Reader::new(self.index.clone())
    }

    /// Prepares this log's segments; usable on any thread.
    pub fn preparer(&self) -> SegmentPreparer {
        self.preparer.clone()
    }

    /// Appends one save; durable after [`TransactionLog::sync`].
    ///
    /// # Errors
    /// As [`TransactionLog::append_all`].
    pub fn append(&mut self, save: &Save) -> Result<(), LogError> {
        self.append_all(std::slice::from_ref(save))
    }

    /// Appends saves in order, with as few writes as possible; durable after
    /// [`TransactionLog::sync`]. A crash before that keeps a prefix of them.
    ///
    /// # Errors
    /// [`LogError::Full`] when there is no room for a next segment, [`LogError::Io`]: what was
    /// appended is unknown and the log must be opened again. [`LogError::Poisoned`] from then on.
    ///
    /// # Panics
    /// When a save does not continue the log.
    pub fn append_all(&mut self, saves: &[Save]) -> Result<(), LogError> {
        self.guarded(|log| {
            let mut pending = std::mem::take(&mut log.pending);
            for save in saves {
                log.append_to(&mut pending, save)?;
            }
            log.write(&mut pending)?;
            if pending.bytes.capacity() <= BUFFER_BYTES_KEPT {
                log.pending = pending;
            }
            log.blocks.shrink(2 * BUFFER_BYTES_KEPT);
            Ok(())
        })
    }

    /// Makes everything appended so far durable.
    ///
    /// # Errors
    /// [`LogError::Io`]: what is durable is unknown, see [`TransactionLog::append_all`].
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.guarded(Self::sync_active)
    }

    /// Drops the whole segments whose entries are all below `below`; those must be in a head by
    /// now. Syncs first, because what made a segment droppable may not be durable.
    ///
    /// # Errors
    /// As [`TransactionLog::sync`].
    pub fn collapse(&mut self, below: Index) -> Result<(), LogError> {
        self.guarded(|log| {
            let ids = log.index.read().droppable(below);
            if ids.is_empty() {
                return Ok(());
            }
            log.sync_active()?;
            for id in ids {
                log.index.write().drop_oldest(id);
                remove_durably(&*log.disk, &log.directory, id)?;
            }
            Ok(())
        })
    }

    /// The log starts after this position.
    pub fn base(&self) -> Position {
        self.index.read().base
    }

    /// The last entry, or the base.
    pub fn last(&self) -> Position {
        self.last
    }

    /// The state of the last save that had one.
    pub fn state(&self) -> &DurableState {
        &self.state
    }

    /// Bytes of all its files, with the segment being prepared.
    pub fn bytes_on_disk(&self) -> u64 {
        self.index.read().bytes_on_disk() + self.preparer.bytes_on_disk()
    }

    /// Bytes of the records that hold the entries from `index` on, roughly.
    pub fn bytes_since(&self, index: Index) -> u64 {
        self.index.read().bytes_since(index)
    }

    fn guarded(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        if self.poisoned {
            return Err(LogError::Poisoned);
        }
        let result = work(self);
        self.poisoned = result.is_err();
        result
    }

    fn append_to(&mut self, pending: &mut Pending, save: &Save) -> Result<(), LogError> {
        let after = if save.reset_to.is_some() || save.truncate_from.is_some() {
            self.write(pending)?;
            self.after_truncation(save)
        } else {
            self.last
        };
        if let Some(first) = save.entries.first() {
            let next = after.index.next();
            assert!(first.index == next, "appends entry {}, but {next} is next", first.index);
        }
        for pair in save.entries.windows(2) {
            let (index, next) = (pair[0].index, pair[1].index);
            assert!(next == index.next(), "entry {next} follows entry {index}");
        }

        let mut start = pending.bytes.len();
        encode_save(&mut pending.bytes, save, after);
        let length = (pending.bytes.len() - start) as u64;
        if self.active.end + start as u64 + length > self.active.segment.length_bytes {
            let record = pending.bytes.split_off(start);
            self.write(pending)?;
            self.next_segment(length)?;
            pending.bytes = record;
            start = 0;
        }
        let offset = self.active.end + start as u64;
        let place = RecordPlace { segment: self.active.id, seed: self.active.segment.seed, offset };
        let record = &mut pending.bytes[start..];
        seal_record(record, RecordKind::Save, place, self.active.synced);
        pending.changes.push(Change {
            reset_to: save.reset_to,
            truncate_from: save.truncate_from,
            after,
            count: save.entries.len() as u64,
            runs: runs_of(&save.entries),
            segment: place.segment,
            offset,
            length,
        });

        self.last = save.entries.last().map_or(after, |entry| entry.position());
        self.chosen = self.chosen.max(save.chosen);
        if let Some(state) = &save.state {
            self.state.clone_from(state);
        }
        Ok(())
    }

    /// The last position once the save's reset and truncation are done.
    fn after_truncation(&self, save: &Save) -> Position {
        let index = self.index.read();
        let (base, last) = match save.reset_to {
            Some(position) => (position, position),
            None => (index.base, self.last),
        };
        let Some(from) = save.truncate_from else { return last };
        assert!(from > base.index, "truncates from {from}, but {} is the base", base.index);
        if from > last.index {
            return last;
        }
        index.position_at(from.previous()).expect("between base and last")
    }

    /// Writes what is pending, then shows it to readers.
    fn write(&mut self, pending: &mut Pending) -> Result<(), LogError> {
        if pending.bytes.is_empty() {
            return Ok(());
        }
        let segment = &self.active.segment;
        let end = self.active.end + pending.bytes.len() as u64;
        let block = self.active.end - self.active.end % BLOCK_BYTES;
        self.blocks.begin(self.active.id, segment, self.active.end)?;
        self.blocks.fill(&pending.bytes, segment.length_bytes - block);
        segment
            .file
            .write_blocks(self.blocks.filled(), block)
            .map_err(|e| LogError::io("write", &segment.path, e))?;
        self.blocks.written(end);
        self.active.end = end;
        pending.bytes.clear();
        self.preparer.note_active(self.active.end, segment.length_bytes);
        let mut index = self.index.write();
        for change in pending.changes.drain(..) {
            if let Err(reason) = index.apply(&change) {
                panic!("a record does not fit its own log: {reason}");
            }
        }
        if let Some(segment) = index.segments.get_mut(&self.active.id) {
            segment.end = self.active.end;
        }
        Ok(())
    }

    fn sync_active(&mut self) -> Result<(), LogError> {
        if self.active.synced < self.active.end {
            let segment = &self.active.segment;
            let mut synced = segment.file.sync();
            if synced.is_err() && plants(Bug::FailedSyncRetried) {
                synced = segment.file.sync();
            }
            synced.map_err(|e| LogError::io("sync", &segment.path, e))?;
            self.active.synced = self.active.end;
        }
        Ok(())
    }

    /// Goes on in a new segment with room for a record of `record_bytes`.
    fn next_segment(&mut self, record_bytes: u64) -> Result<(), LogError> {
        self.sync_active()?;
        let wanted = (SEGMENT_HEADER_BYTES as u64 + CHECKPOINT_BYTES_MAX + record_bytes)
            .next_multiple_of(BLOCK_BYTES)
            .max(self.segment_bytes);
        let checkpoint = Checkpoint {
            last: self.last,
            chosen: self.chosen,
            previous_end: self.active.end,
            state: self.state.clone(),
        };
        self.active = self.preparer.take(wanted, |preparing| {
            start_segment(
                &*self.disk,
                &self.directory,
                self.preparer.path(),
                preparing,
                self.active.id + 1,
                &self.identity,
                &checkpoint,
            )
        })?;
        self.preparer.note_active(self.active.end, self.active.segment.length_bytes);
        self.index.write().segments.insert(self.active.id, self.active.segment.clone());
        Ok(())
    }
}

/// Turns a prepared file into segment `id`. It gets its name only when its header and checkpoint
/// are synced, so that a file of that name is never half made.
fn start_segment(
    disk: &dyn Disk,
    directory: &Path,
    unfinished: &Path,
    preparing: Preparing,
    id: u64,
    identity: &Identity,
    checkpoint: &Checkpoint,
) -> Result<Active, LogError> {
    let Preparing { file, filled_bytes: length_bytes } = preparing;
    let header = SegmentHeader { id, length_bytes, identity: identity.clone() };
    let (mut bytes, seed) = header.encode()?;
    let offset = bytes.len() as u64;
    let place = RecordPlace { segment: id, seed, offset };
    encode_checkpoint(&mut bytes, checkpoint);
    let record = &mut bytes[SEGMENT_HEADER_BYTES..];
    assert!(record.len() > RECORD_HEADER_BYTES && record.len() as u64 <= CHECKPOINT_BYTES_MAX);
    seal_record(record, RecordKind::Checkpoint, place, 0);

    let path = segment_path(directory, id);
    let end = bytes.len() as u64;
    // Whole blocks, see `fill_with_zeros`; the rest of the last one is zeros already.
    bytes.resize((end.next_multiple_of(BLOCK_BYTES).min(length_bytes)) as usize, 0);
    file.write_at(&bytes, 0).map_err(|e| LogError::io("write", unfinished, e))?;
    file.sync().map_err(|e| LogError::io("sync", unfinished, e))?;
    disk.rename(unfinished, &path).map_err(|e| LogError::io("rename", unfinished, e))?;
    disk.sync_directory(directory).map_err(|e| LogError::io("sync", directory, e))?;
    let segment = Segment { file, path, seed, length_bytes, end };
    Ok(Active { id, segment, end, synced: end })
}

/// The directory is synced after each removal: no power cut leaves a hole between segments.
fn remove_durably(disk: &dyn Disk, directory: &Path, id: u64) -> Result<(), LogError> {
    let path = segment_path(directory, id);
    disk.remove(&path).map_err(|e| LogError::io("remove", &path, e))?;
    disk.sync_directory(directory).map_err(|e| LogError::io("sync", directory, e))
}

fn usable_segment_bytes(options: &Options) -> u64 {
    options.segment_bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX).next_multiple_of(BLOCK_BYTES)
}
