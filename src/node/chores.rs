//! What a node does beside its updates, each on a thread of its own: writing heads, preparing log
//! segments and watching the disk. Draining is in `draining.rs`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::disk_watch::{Room, room_to_drain};
use super::environment::Input;
use super::heads::HeadFileError;
use super::runtime::{Common, ReadJob};
use crate::disk::Disk;
use crate::store::StoreError;
use crate::transaction_log::{LogError, SegmentPreparer};

/// How long housekeeping and draining rest when there is nothing to do; so often free space is looked
/// at, much more often than a fast disk needs to write the reserve.
pub(super) const REST: Duration = Duration::from_millis(20);
/// One rest is no longer than this.
pub(super) const REST_MAX: Duration = Duration::from_millis(100);
/// A head is written in pieces of this size, with a rest after each: at least so long,
const HEAD_PIECE_BYTES: u64 = 1 << 20;
const HEAD_REST: Duration = Duration::from_millis(1);
/// and so many times as long as the piece took while updates come. Less as layers fill memory, since
/// none is drained before the head is written.
const HEAD_RESTS_AMID_UPDATES: f64 = 4.0;

/// Where the node's files are, and how much is to stay free there.
#[derive(Clone)]
pub(super) struct DiskPlace {
    pub disk: Arc<dyn Disk>,
    pub directory: PathBuf,
    pub reserve_bytes: u64,
}

impl DiskPlace {
    /// How much is free.
    ///
    /// # Errors
    /// In words: the disk does not say.
    fn free_bytes(&self) -> Result<u64, String> {
        let free_bytes = self.disk.bytes_free(&self.directory);
        free_bytes.map_err(|error| format!("{}: {error}", self.directory.display()))
    }

    /// What draining may write there.
    ///
    /// # Errors
    /// As [`DiskPlace::free_bytes`].
    pub fn room_to_drain(&self) -> Result<u64, String> {
        Ok(room_to_drain(self.free_bytes()?, self.reserve_bytes))
    }
}

pub(super) fn run_head(common: &Common) {
    let mut waiting = Vec::new();
    while common.frozen.take(&mut waiting) {
        // Only the newest matters; the older ones would keep layers from draining.
        let Some(frozen) = waiting.drain(..).next_back() else { continue };
        let mut next_rest_bytes = HEAD_PIECE_BYTES;
        let (mut began, mut applied) = (Instant::now(), common.store.applied());
        let written = common.heads.write(&frozen, |done_bytes| {
            if done_bytes >= next_rest_bytes {
                next_rest_bytes = done_bytes + HEAD_PIECE_BYTES;
                let before = std::mem::replace(&mut applied, common.store.applied());
                let rests = if applied > before { HEAD_RESTS_AMID_UPDATES } else { 0.0 };
                let rest = began.elapsed().mul_f64(rests * (1.0 - common.store.haste()));
                thread::sleep(rest.clamp(HEAD_REST, REST_MAX));
                began = Instant::now();
            }
            if common.stopping.load(Ordering::SeqCst) {
                return Err(HeadFileError::Stopped);
            }
            match common.disk_watch.is_too_full_for_heads() {
                true => Err(HeadFileError::NoRoom),
                false => Ok(()),
            }
        });
        let index = frozen.entry.index;
        drop(frozen);
        match written {
            Ok(head) => {
                tracing::info!(
                    index = %head.name.index, bytes = head.size.file_bytes,
                    hash = head.name.short_hash(), "wrote a head"
                );
                common.read_jobs.push(ReadJob::HeadWritten(head.name, head.size));
            }
            // A head from another node took the place of the state that this one was of.
            Err(HeadFileError::Store(StoreError::Replaced)) => {
                common.inbox.push(Input::HeadFailed(index));
            }
            Err(HeadFileError::Stopped) => {}
            // Nothing relies on it yet. A leader asks for another one after a while.
            Err(error) if error.is_full_disk() => {
                tracing::warn!(%error, "no room for a head; the log stays as long as it is");
                common.inbox.push(Input::HeadFailed(index));
            }
            Err(error) => return (common.fatal)(&format!("a head cannot be written: {error}")),
        }
    }
}

pub(super) fn run_housekeeping(preparer: &SegmentPreparer, place: &DiskPlace, common: &Common) {
    while !common.stopping.load(Ordering::SeqCst) {
        let mut worked = false;
        let mut lacks_segment = false;
        match preparer.prepare_step() {
            Ok(more) => worked = more,
            // Appending goes on in the segment in use.
            Err(LogError::Full { .. }) => lacks_segment = true,
            Err(error) => return (common.fatal)(&format!("the transaction log failed: {error}")),
        }
        let free_bytes = match place.free_bytes() {
            Ok(free_bytes) => free_bytes,
            Err(error) => return (common.fatal)(&error),
        };
        let reserve_bytes = place.reserve_bytes;
        let undrained_bytes = common.store.undrained_bytes() as u64;
        let room = Room { free_bytes, reserve_bytes, undrained_bytes, lacks_segment };
        if let Some(full) = common.disk_watch.look(room) {
            let text = match full {
                true => "the disk is nearly full: refuses updates as master",
                false => "the disk has room again: updates are taken",
            };
            tracing::warn!(free_bytes, reserve_bytes, undrained_bytes, lacks_segment, "{text}");
            common.inbox.push(Input::DiskNearlyFull(full));
        }
        if worked {
            continue;
        }
        thread::sleep(REST);
    }
}
