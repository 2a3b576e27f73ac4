//! What a node does beside its updates, each on a thread of its own: writing heads, draining layers to
//! the engine, preparing log segments and watching the disk.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::environment::Input;
use super::heads::HeadFileError;
use super::runtime::{Common, ReadJob, timed};
use crate::disk::Disk;
use crate::paxos::Index;
use crate::store::StoreError;
use crate::transaction_log::{LogError, Reader, SegmentPreparer};

/// How often free space is looked at: much less than a fast disk needs to write the reserve.
const DISK_LOOKED_AT_EVERY: Duration = Duration::from_millis(100);
/// How long housekeeping and draining rest when there is nothing to do.
const REST: Duration = Duration::from_millis(20);
/// Between two batches draining rests as long as the last one took, and so many times as long while
/// updates come and little waits to be drained; not at all once much does. So who comes in bursts
/// finds the processors free, and who goes on is held to the engine's pace little by little.
const DRAIN_RESTS_AMID_UPDATES: f64 = 15.0;
/// With so much log that the engine does not know draining is in a hurry: a restart replays it.
const HASTY_LOG_BYTES: f64 = 1.2e9;
/// One rest is no longer than this.
const DRAIN_REST_MAX: Duration = Duration::from_millis(100);
/// Draining begins when layers take so many times the memory of one that is full,
const DRAIN_LAYERS: f64 = 1.5;
/// or so many are frozen, which whoever looks for a row looks through,
const DRAIN_FROZEN: usize = 4;
/// or after about so much log: a hot row goes to the engine once in that, and a restart replays it;
const DRAIN_LOG_BYTES: f64 = 400e6;
/// less if heads are more frequent, since the log that they do not need stays until it is drained,
const DRAIN_HEADS: f64 = 1.5;
/// or so long after it ended,
const DRAIN_AFTER_BUSY: Duration = Duration::from_secs(300);
/// or so long, and nobody updates anything.
const DRAIN_AFTER_QUIET: Duration = Duration::from_secs(30);
/// Nobody does if nothing was applied for so long.
const QUIET: Duration = Duration::from_secs(1);
/// How often the engine is synced and the floor raised.
const ENGINE_SYNC_EVERY: Duration = Duration::from_secs(5);
/// A head is written in pieces of this size, with a rest after each.
const HEAD_PIECE_BYTES: u64 = 4 << 20;

pub(super) fn run_head(common: &Common) {
    let mut waiting = Vec::new();
    while common.frozen.take(&mut waiting) {
        // Only the newest matters; the older ones would keep layers from draining.
        let Some(frozen) = waiting.drain(..).next_back() else { continue };
        let mut next_rest_bytes = HEAD_PIECE_BYTES;
        let written = common.heads.write(&frozen, |done_bytes| {
            if done_bytes >= next_rest_bytes {
                next_rest_bytes = done_bytes + HEAD_PIECE_BYTES;
                thread::sleep(Duration::from_millis(5));
            }
            !common.stopping.load(Ordering::SeqCst)
        });
        let index = frozen.entry.index;
        drop(frozen);
        match written {
            Ok(head) => {
                tracing::info!(
                    index = %head.name.index, bytes = head.size_bytes,
                    hash = head.name.short_hash(), "wrote a head"
                );
                common.read_jobs.push(ReadJob::HeadWritten(head.name, head.size_bytes));
            }
            // A head from another node took the place of the state that this one was of.
            Err(HeadFileError::Store(StoreError::Replaced)) => {
                common.inbox.push(Input::HeadFailed(index));
            }
            Err(HeadFileError::Stopped) => {}
            // Nothing relies on it yet. The next one is due after as much log again.
            Err(error) if error.is_full_disk() => {
                tracing::warn!(%error, "no room for a head; the log stays as long as it is");
                common.inbox.push(Input::HeadFailed(index));
            }
            Err(error) => return (common.fatal)(&format!("a head cannot be written: {error}")),
        }
    }
}

pub(super) fn run_drain(log: &Reader, head_every_bytes: u64, common: &Common) {
    let mut synced_at = Instant::now();
    let mut drained_at = Instant::now();
    let mut drain_log_bytes = some_log(head_every_bytes);
    let mut drains = false;
    let mut applied = common.store.applied();
    let mut applied_at = Instant::now();
    while !common.stopping.load(Ordering::SeqCst) {
        let synced_log = common.log_synced.load(Ordering::SeqCst);
        let log_bytes = log.bytes_since(Index(common.store.drained() + 1)) as f64;
        let before = std::mem::replace(&mut applied, common.store.applied());
        let is_busy = applied > before;
        if is_busy {
            applied_at = Instant::now();
        }
        if !drains {
            let quiet = applied_at.elapsed() >= QUIET;
            let due = log_bytes >= drain_log_bytes || is_due(drained_at.elapsed(), quiet);
            if due {
                common.store.freeze_for_drain();
            }
            drains = due
                || common.store.frozen_layers() >= DRAIN_FROZEN
                || common.store.filled_layers() >= DRAIN_LAYERS;
        } else if common.store.frozen_layers() == 0 {
            // What came meanwhile had better gather.
            drains = false;
            drained_at = Instant::now();
            drain_log_bytes = some_log(head_every_bytes);
        }
        let synced_log = if drains { synced_log } else { 0 };
        let began = Instant::now();
        let drained = timed("a step of draining", || common.store.drain_step(synced_log));
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
            Ok(progress) if progress.worked() => {
                // What fills memory has to go, whoever waits meanwhile.
                let haste = common.store.haste().max((log_bytes / HASTY_LOG_BYTES).min(1.0));
                common.store.note_step(if haste < 1.0 { took.as_micros() as u64 } else { 0 });
                let rests = if is_busy { DRAIN_RESTS_AMID_UPDATES } else { 1.0 };
                let rest = took.mul_f64(rests * (1.0 - haste));
                if !rest.is_zero() {
                    thread::sleep(rest.min(DRAIN_REST_MAX));
                }
            }
            Ok(_) => thread::sleep(REST),
            Err(error) => return (common.fatal)(&format!("the store failed: {error}")),
        }
    }
}

fn is_due(since_the_last: Duration, quiet: bool) -> bool {
    since_the_last >= if quiet { DRAIN_AFTER_QUIET } else { DRAIN_AFTER_BUSY }
}

/// Not the same on all nodes, so that they do not drain at the same time.
fn some_log(head_every_bytes: u64) -> f64 {
    DRAIN_LOG_BYTES.min(DRAIN_HEADS * head_every_bytes as f64) * (0.75 + fastrand::f64() / 4.0)
}

pub(super) fn run_housekeeping(
    preparer: &SegmentPreparer,
    disk: &dyn Disk,
    directory: &Path,
    reserve_bytes: u64,
    common: &Common,
) {
    let mut nearly_full = false;
    let mut looked_at: Option<Instant> = None;
    while !common.stopping.load(Ordering::SeqCst) {
        match preparer.prepare_step() {
            Ok(true) => continue,
            Ok(false) => {}
            // Announced below; appending goes on in the segment in use.
            Err(LogError::Full { .. }) => {}
            Err(error) => return (common.fatal)(&format!("the transaction log failed: {error}")),
        }
        if looked_at.is_none_or(|at| at.elapsed() >= DISK_LOOKED_AT_EVERY) {
            looked_at = Some(Instant::now());
            match disk.bytes_free(directory) {
                Ok(free_bytes) => {
                    let full = free_bytes < reserve_bytes;
                    if full != nearly_full {
                        nearly_full = full;
                        let text = match full {
                            true => "the disk is nearly full: refuses updates as master",
                            false => "the disk has room again: updates are taken",
                        };
                        tracing::warn!(free_bytes, reserve_bytes, "{text}");
                        common.inbox.push(Input::DiskNearlyFull(full));
                    }
                }
                Err(error) => {
                    return (common.fatal)(&format!("{}: {error}", directory.display()));
                }
            }
        }
        thread::sleep(REST);
    }
}

#[test]
fn what_is_little_waits_longer_while_updates_come() {
    assert!(!is_due(DRAIN_AFTER_QUIET / 2, true));
    assert!(is_due(DRAIN_AFTER_QUIET, true));
    assert!(!is_due(DRAIN_AFTER_QUIET, false));
    assert!(is_due(DRAIN_AFTER_BUSY, false));
    for _ in 0..100 {
        // Draining that begins with so much log must not be in haste.
        assert!((0.2..0.5).contains(&(some_log(1 << 40) / HASTY_LOG_BYTES)));
        assert!((1125.0..=1500.0).contains(&some_log(1000)));
    }
}
