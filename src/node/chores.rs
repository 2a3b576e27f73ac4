//! What a node does beside its updates, each on a thread of its own: writing heads, draining layers to
//! the engine, preparing log segments and watching the disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::disk_watch::{Room, has_room_to_drain};
use super::drain_schedule::{DrainSchedule, Undrained};
use super::environment::Input;
use super::heads::HeadFileError;
use super::runtime::{Common, ReadJob, timed};
use crate::disk::Disk;
use crate::paxos::Index;
use crate::store::{DrainProgress, StoreError};
use crate::transaction_log::{LogError, Reader, SegmentPreparer};

/// How long housekeeping and draining rest when there is nothing to do; so often free space is looked
/// at, much more often than a fast disk needs to write the reserve.
const REST: Duration = Duration::from_millis(20);
/// Between two batches draining rests as long as the last one took, and so many times as long while
/// updates come and little waits to be drained; not at all once much does. So who comes in bursts
/// finds the processors free, and who goes on is held to the engine's pace little by little.
const DRAIN_RESTS_AMID_UPDATES: f64 = 15.0;
/// With so much log that the engine does not know draining is in a hurry: a restart replays it.
const HASTY_LOG_BYTES: f64 = 1.2e9;
/// One rest is no longer than this.
const REST_MAX: Duration = Duration::from_millis(100);
/// How often the engine is synced and the floor raised.
const ENGINE_SYNC_EVERY: Duration = Duration::from_secs(5);
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

pub(super) fn run_drain(log: &Reader, head_every_bytes: u64, place: &DiskPlace, common: &Common) {
    let mut waits_for_room = false;
    let mut synced_at = Instant::now();
    let mut applied = common.store.applied();
    let mut schedule = DrainSchedule::new(applied, head_every_bytes, Instant::now());
    while !common.stopping.load(Ordering::SeqCst) {
        let before = std::mem::replace(&mut applied, common.store.applied());
        let drained = common.store.drained();
        let undrained = Undrained {
            applied,
            drained,
            log_bytes: log.bytes_since(Index(drained + 1)),
            frozen_layers: common.store.frozen_layers(),
            filled_layers: common.store.filled_layers(),
        };
        if schedule.look(&undrained, Instant::now()) {
            common.store.freeze_for_drain();
        }
        let free_bytes = match place.free_bytes() {
            Ok(free_bytes) => free_bytes,
            Err(error) => return (common.fatal)(&error),
        };
        let step_bytes = common.store.drain_step_bytes() as u64;
        let waited = waits_for_room;
        waits_for_room = !has_room_to_drain(free_bytes, place.reserve_bytes, step_bytes);
        if waits_for_room {
            if !waited {
                tracing::warn!(free_bytes, step_bytes, "no room to drain: rows stay in memory");
            }
            thread::sleep(REST);
            continue;
        }
        // No layer ends at 0; what is begun goes on, and there is other work.
        let drains = schedule.drains();
        let may_drain = || if drains { common.log_durable.load(Ordering::SeqCst) } else { 0 };
        // What fills memory has to go, whoever waits meanwhile.
        let haste = || {
            let log = undrained.log_bytes as f64 / HASTY_LOG_BYTES;
            common.store.haste().max(log.min(1.0))
        };
        let rests = if applied > before { DRAIN_RESTS_AMID_UPDATES } else { 1.0 };
        let rest = |took: Duration| {
            let rest = took.mul_f64(rests * (1.0 - haste()));
            if !rest.is_zero() && !common.stopping.load(Ordering::SeqCst) {
                thread::sleep(rest.min(REST_MAX));
            }
        };
        let began = Instant::now();
        let drained = common.store.drain_step_resting(&may_drain, &rest);
        let took = began.elapsed();
        let result = drained.and_then(|progress| {
            if synced_at.elapsed() >= ENGINE_SYNC_EVERY {
                synced_at = Instant::now();
                if common.store.drained() > common.store.synced() {
                    timed("the store's sync", || common.store.sync())?;
                    common.saving.collapse_again();
                }
            }
            Ok(progress)
        });
        match result {
            // While the engine takes a batch it answers no read, and one batch after the other would
            // leave the applier, whose scans ask for each row, hardly a chance.
            Ok(DrainProgress::Worked) => {
                common.store.note_step(if haste() < 1.0 { took.as_micros() as u64 } else { 0 });
                rest(took);
            }
            // Those of a layer's last step are within it, or it was short.
            Ok(DrainProgress::Drained(_)) => {}
            Ok(_) => thread::sleep(REST),
            Err(error) => return (common.fatal)(&format!("the store failed: {error}")),
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
        let undrained_bytes = common.store.layers_bytes() as u64;
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
