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
const HASTY_LOG_BYTES: f64 = 2.4e9;
/// What a step writes between two rests, about.
const BETWEEN_RESTS_BYTES: u64 = 1 << 20;
/// How often the engine is synced and the floor raised.
const SYNC_EVERY: Duration = Duration::from_secs(5);
/// With less room than so many steps take, what the engine has is synced before the next: should that
/// have to wait for room, the log at least can let go of what it need not keep.
const SCARCE_STEPS: u64 = 4;
/// How often the engine is asked to give back room.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(5);
/// Before a step is tried again that found less room than there was.
const NO_ROOM_REST: Duration = Duration::from_secs(1);
/// Updates come if one was applied so lately.
const LATELY: Duration = Duration::from_millis(100);

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
    let (mut lacks_room, mut given_back_at) = (false, Instant::now());
    let pace = Pace::new(place, common);
    while !common.stopping.load(Ordering::SeqCst) {
        let drained = store.drained();
        let log_bytes = log.bytes_since(Index(drained + 1));
        let room_bytes = place.room_to_drain()?;
        let undrained = Undrained {
            applied: store.applied(),
            drained,
            log_bytes,
            room_bytes,
            frozen_layers: store.frozen_layers(),
            filled: store.filled(),
        };
        if schedule.look(&undrained, Instant::now()) {
            store.freeze_for_drain();
        }
        // No layer ends at 0; what is begun goes on, and there is other work.
        let drains = schedule.drains();
        let log_durable = || if drains { common.log_durable.load(Ordering::SeqCst) } else { 0 };
        pace.log_bytes.set(log_bytes);
        let step_bytes = store.drain_step_bytes() as u64;
        let is_scarce = room_bytes < step_bytes.saturating_mul(SCARCE_STEPS);
        if synced_at.elapsed() >= SYNC_EVERY || is_scarce {
            if store.drained() > store.synced() {
                timed("the store's sync", || store.sync()).map_err(failed)?;
                common.saving.collapse_again();
            }
            synced_at = Instant::now();
        }
        let began = Instant::now();
        let progress = if room_bytes < step_bytes {
            DrainProgress::NoRoom
        } else {
            let bytes_max = usize::try_from(room_bytes).unwrap_or(usize::MAX);
            let rest = |took| pace.rest(took);
            let limits = DrainLimits { log_durable: &log_durable, bytes_max, rest: &rest };
            store.drain_step_within(&limits).map_err(failed)?
        };
        let took = began.elapsed();
        let lacked_room = std::mem::replace(&mut lacks_room, progress == DrainProgress::NoRoom);
        if lacks_room && !lacked_room && undrained.frozen_layers > 0 {
            tracing::warn!(room_bytes, "no room to drain: rows stay in memory");
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
                // Not without room: what gives room back needs some for a while.
                if !lacks_room && given_back_at.elapsed() >= GIVE_BACK_EVERY {
                    store.give_back().map_err(failed)?;
                    given_back_at = Instant::now();
                }
                if drains {
                    // They wait for a view or for room, perhaps long; who scans should not have to wait.
                    store.put_frozen_in_order();
                }
                let tried = lacks_room && room_bytes >= step_bytes;
                thread::sleep(if tried { NO_ROOM_REST } else { REST });
            }
        }
    }
    Ok(())
}

/// How fast to drain.
struct Pace<'a> {
    place: &'a DiskPlace,
    common: &'a Common,
    /// At the last rest, and since when.
    applied: Cell<(u64, Instant)>,
    /// Of the log that the engine does not know.
    log_bytes: Cell<u64>,
}

impl<'a> Pace<'a> {
    fn new(place: &'a DiskPlace, common: &'a Common) -> Pace<'a> {
        let applied = Cell::new((common.store.applied(), Instant::now()));
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
        let (before, since) = self.applied.get();
        let updates_come = applied > before || since.elapsed() <= LATELY;
        if applied > before {
            self.applied.set((applied, Instant::now()));
        }
        let rests = if updates_come { RESTS_AMID_UPDATES } else { 1.0 };
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
