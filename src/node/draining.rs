//! The thread that drains layers to the engine, at a pace that leaves processors and disk to others.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::chores::{DiskPlace, REST, REST_MAX};
use super::drain_schedule::{DrainSchedule, Undrained};
use super::runtime::{Common, timed};
use crate::paxos::Index;
use crate::store::{DrainLimits, DrainProgress, StoreError};
use crate::transaction_log::Reader;

/// Between two batches draining rests as long as the last one took, and so many times as long while
/// updates come and little waits to be drained; not at all once much does. So who comes in bursts
/// finds the processors free, and who goes on is held to the engine's pace little by little.
const RESTS_AMID_UPDATES: f64 = 15.0;
/// With so much log that the engine does not know draining is in a hurry: a restart replays it.
const HASTY_LOG_BYTES: f64 = 1.2e9;
/// What a step writes between two rests, about.
const BETWEEN_RESTS_BYTES: u64 = 1 << 20;
/// How often the engine is synced and the floor raised.
const SYNC_EVERY: Duration = Duration::from_secs(5);

/// Goes on until the node stops.
pub(super) fn run(log: &Reader, head_every_bytes: u64, place: &DiskPlace, common: &Common) {
    if let Err(error) = drain(log, head_every_bytes, place, common) {
        (common.fatal)(&error);
    }
}

fn drain(
    log: &Reader,
    head_every_bytes: u64,
    place: &DiskPlace,
    common: &Common,
) -> Result<(), String> {
    let store = &common.store;
    let failed = |error: StoreError| format!("the store failed: {error}");
    let mut synced_at = Instant::now();
    let mut schedule = DrainSchedule::new(store.applied(), head_every_bytes, Instant::now());
    let mut waits_for_room = false;
    let pace = Pace::new(place, common);
    while !common.stopping.load(Ordering::SeqCst) {
        let drained = store.drained();
        let log_bytes = log.bytes_since(Index(drained + 1));
        let undrained = Undrained {
            applied: store.applied(),
            drained,
            log_bytes,
            frozen_layers: store.frozen_layers(),
            filled_layers: store.filled_layers(),
        };
        if schedule.look(&undrained, Instant::now()) {
            store.freeze_for_drain();
        }
        // No layer ends at 0; what is begun goes on, and there is other work.
        let drains = schedule.drains();
        let log_durable = || if drains { common.log_durable.load(Ordering::SeqCst) } else { 0 };
        pace.log_bytes.set(log_bytes);
        let room_bytes = place.room_to_drain()?;
        let waited = waits_for_room;
        waits_for_room = room_bytes < store.drain_step_bytes() as u64;
        let began = Instant::now();
        let progress = if waits_for_room {
            DrainProgress::NoRoom
        } else {
            let bytes_max = usize::try_from(room_bytes).unwrap_or(usize::MAX);
            let rest = |took| pace.rest(took);
            let limits = DrainLimits { log_durable: &log_durable, bytes_max, rest: &rest };
            store.drain_step_within(&limits).map_err(failed)?
        };
        let took = began.elapsed();
        if synced_at.elapsed() >= SYNC_EVERY {
            synced_at = Instant::now();
            if store.drained() > store.synced() {
                timed("the store's sync", || store.sync()).map_err(failed)?;
                common.saving.collapse_again();
            }
        }
        match progress {
            // While the engine takes a batch it answers no read, and one batch after the other would
            // leave the applier, whose scans ask for each row, hardly a chance.
            DrainProgress::Worked => {
                store.note_step(if pace.haste() < 1.0 { took.as_micros() as u64 } else { 0 });
                pace.rest(took);
            }
            // What it rested was within it, or it was short.
            DrainProgress::Drained(_) => {}
            DrainProgress::Idle | DrainProgress::NoRoom => {
                if waits_for_room && !waited && undrained.frozen_layers > 0 {
                    tracing::warn!(room_bytes, "no room to drain: rows stay in memory");
                }
                store.give_back().map_err(failed)?;
                // They wait for a view or for room, perhaps long; who scans should not have to wait.
                store.put_frozen_in_order();
                thread::sleep(REST);
            }
        }
    }
    Ok(())
}

/// How fast to drain.
struct Pace<'a> {
    place: &'a DiskPlace,
    common: &'a Common,
    /// At the last rest.
    applied: Cell<u64>,
    /// Of the log that the engine does not know.
    log_bytes: Cell<u64>,
}

impl<'a> Pace<'a> {
    fn new(place: &'a DiskPlace, common: &'a Common) -> Pace<'a> {
        let applied = Cell::new(common.store.applied());
        Pace { place, common, applied, log_bytes: Cell::new(0) }
    }

    /// What fills memory has to go, whoever waits meanwhile: from 0 to 1.
    fn haste(&self) -> f64 {
        let log = self.log_bytes.get() as f64 / HASTY_LOG_BYTES;
        self.common.store.haste().max(log.min(1.0))
    }

    /// Rests after work that took so long, and until the disk has room for more.
    fn rest(&self, took: Duration) {
        let store = &self.common.store;
        let applied = store.applied();
        let before = self.applied.replace(applied);
        let rests = if applied > before { RESTS_AMID_UPDATES } else { 1.0 };
        let rest = took.mul_f64(rests * (1.0 - self.haste()));
        let goes_on = || self.common.stopping.load(Ordering::SeqCst) || store.drain_is_awaited();
        if !rest.is_zero() && !goes_on() {
            thread::sleep(rest.min(REST_MAX));
        }
        // Others write there as well. Of an error the next step hears.
        let lacks_room = || self.place.room_to_drain().is_ok_and(|room| room < BETWEEN_RESTS_BYTES);
        let mut waited = false;
        while lacks_room() && !goes_on() {
            if !std::mem::replace(&mut waited, true) {
                tracing::warn!("no room to drain: the rest of a layer stays in memory");
            }
            thread::sleep(REST);
        }
    }
}
