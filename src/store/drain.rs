//! Draining: moving frozen layers to the engine, and freeing the rows of retired spaces.
//!
//! Layers take these steps, one or, when several wait, some together, and a kill between any two of them leaves a state that opening
//! brings to an entry boundary:
//! 1. the journal gets all their rows;
//! 2. batches of its rows, in order; the first also sets the draining row, the last also sets the
//!    marker and removes the draining row;
//! 3. the engine is flushed, because until then a kill may take back any suffix of the batches;
//! 4. the journal is removed, and the layers are dropped.
//!
//! Many rows go to an engine that has [`Ingest`] in one step instead, with the marker among them.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::changes::{ChangeRef, Changes, FETCHED_AT_ONCE};
use super::engine::{Change, Engine, Ingest};
use super::journal::{self, Journal};
use super::layers::{FrozenChanges, FrozenLayer};
use super::local_rows::{
    DRAINING, MARKER, RETIRED_END, RETIRED_FIRST, retired, retired_space, space_range,
};
use super::rows::StoreError;
use super::sealed::seal;
use super::shared::{HASTY_PART, Shared, Store};
use super::spill::SpilledLayer;
use crate::planted::{Bug, plants};

/// A batch for the engine ends after this many bytes of values, whatever the number of rows.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// The engine answers nobody while it takes a batch. One that took longer than this was too large,
const BATCH_US_MAX: u64 = 8_000;
/// and one that took less than this may have been larger.
const BATCH_US_MIN: u64 = 3_000;
/// No batch is made smaller than this.
const BATCH_ROWS_MIN: usize = 16;

/// After so many ingested rows, about a millisecond, there may be a rest.
const INGESTED_AT_ONCE: usize = 1024;

/// So many drained rows go to the row cache under one lock, so that nobody who applies waits for it.
const REMEMBERED_AT_ONCE: usize = 16;

/// Layers that take no more than this, or than two full ones, are drained together. One alone may take
/// more, and full ones are larger unless a test has them smaller.
const TOGETHER_BYTES: usize = 128 << 20;

/// What a call of [`Store::drain_step`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainProgress {
    /// Nothing can be done now.
    Idle,
    /// A piece of work was done; there may be more.
    Worked,
    /// A layer is drained: the engine holds the state at this index.
    Drained(u64),
    /// The disk has no room for the journal, or for what is ingested; nothing has happened.
    NoRoom,
}

impl DrainProgress {
    /// Whether another step may find work.
    pub fn worked(self) -> bool {
        matches!(self, DrainProgress::Worked | DrainProgress::Drained(_))
    }
}

/// What a step of draining has to heed.
pub struct DrainLimits<'a> {
    /// Up to where the node's own transaction log is on disk, see [`Store::drain_step`].
    pub log_durable: &'a dyn Fn() -> u64,
    /// Of several layers no more than these are taken together.
    pub bytes_max: usize,
    /// Called within long steps, with the time that has gone by since the last call of it: leaves the
    /// processor and the disk to others, unless [`Store::drain_is_awaited`].
    pub rest: &'a dyn Fn(Duration),
}

/// Where draining stands.
#[derive(Default)]
pub(super) struct Drainer {
    current: Option<Draining>,
    /// Spaces whose retirement the engine knows and whose rows it may still hold.
    retired: BTreeSet<u32>,
}

struct Draining {
    /// The changes of these layers, ascending.
    changes: Vec<Change>,
    /// How many layers they are of.
    layers: usize,
    /// The marker they lead to.
    end: u64,
    /// How many of them the engine has.
    done: usize,
}

impl Drainer {
    pub fn new(engine: &dyn Engine) -> Result<Self, StoreError> {
        let mut drainer = Drainer::default();
        engine.scan(RETIRED_FIRST, Some(RETIRED_END), false, &mut |row, _| {
            drainer.retired.extend(retired_space(row));
            true
        })?;
        Ok(drainer)
    }

    /// Forgets everything: the engine is being wiped.
    pub fn reset(&mut self) {
        *self = Drainer::default();
    }
}

fn change_ref((row, value): &Change) -> ChangeRef<'_> {
    ChangeRef::new(row, value.as_ref())
}

fn local_index(row: &'static [u8], index: u64) -> Change {
    (Bytes::from_static(row), Some(seal(row, &index.to_le_bytes())))
}

fn sealed_change(row: &Bytes, value: Option<&Bytes>) -> Change {
    (row.clone(), value.map(|value| seal(row, value)))
}

/// What ends a layer's draining: the marker set and the draining row gone.
pub(super) fn index_changes(end: u64) -> [Change; 2] {
    let end = if plants(Bug::IndexBehindRows) { end - 1 } else { end };
    [local_index(MARKER, end), (Bytes::from_static(DRAINING), None)]
}

/// Applies a whole journal again. It may have been applied in part.
pub(super) fn apply_journal(engine: &dyn Engine, journal: &Journal) -> Result<(), StoreError> {
    engine.apply(&[local_index(DRAINING, journal.end)])?;
    for rows in journal.changes.chunks(256) {
        let batch: Vec<Change> =
            rows.iter().map(|(row, value)| sealed_change(row, value.as_ref())).collect();
        engine.apply(&batch)?;
    }
    engine.apply(&index_changes(journal.end))?;
    engine.flush()
}

impl Store {
    /// Says how long the last step took, so that the batches of the next ones are of a size at which
    /// readers do not wait long. Without it they are as large as they may be.
    pub fn note_step(&self, us: u64) {
        let shared = &*self.shared;
        let rows = shared.batch_rows.load(Ordering::Relaxed);
        let rows = match us {
            BATCH_US_MIN..=BATCH_US_MAX => return,
            ..BATCH_US_MIN => rows + rows / 8 + 1,
            _ => rows / 2,
        };
        let rows_max = shared.options.drain_batch_rows;
        let rows = rows.clamp(BATCH_ROWS_MIN.min(rows_max), rows_max);
        shared.batch_rows.store(rows, Ordering::Relaxed);
    }

    /// What the next step may write, about, until it rests; more if it takes several layers.
    pub fn drain_step_bytes(&self) -> usize {
        let going_on = self.shared.drainer.lock().current.is_some();
        let layers = self.shared.layers.read();
        match layers.frozen.front() {
            Some(layer) if !going_on => layer.changes_bytes,
            _ => BATCH_BYTES_MAX,
        }
    }

    /// Whether somebody waits for the end of a step.
    pub fn drain_is_awaited(&self) -> bool {
        self.shared.drain_awaited.load(Ordering::Relaxed) > 0
    }

    /// Gives back room on disk that the engine needs no longer. Goes on afterwards, and then there may be
    /// more: to be called again some seconds later.
    pub fn give_back(&self) -> Result<(), StoreError> {
        // The engine's files must not be replaced meanwhile.
        let _drainer = self.shared.drainer.lock();
        self.shared.distrust_damage(self.shared.engine.give_back())
    }

    /// Does one bounded piece of background work: a batch of rows to the engine, or of retired rows
    /// out of it, or a layer to a file when a view keeps it from draining. `log_durable` is the index up
    /// to which the node's own transaction log is on disk; no layer that ends past it is touched.
    ///
    /// The log may lose its end, and what comes in its place is in layers before it is in the log. So
    /// `log_durable` is asked after the layers were looked at, while none can be added.
    pub fn drain_step(&self, log_durable: &dyn Fn() -> u64) -> Result<DrainProgress, StoreError> {
        self.drain_step_within(&DrainLimits { log_durable, bytes_max: usize::MAX, rest: &|_| () })
    }

    /// The same, for who has others to heed.
    pub fn drain_step_within(&self, limits: &DrainLimits) -> Result<DrainProgress, StoreError> {
        let shared = &*self.shared;
        let mut drainer = shared.drainer.lock();
        let progress = drainer.step(shared, limits);
        shared.distrust_damage(progress)
    }
}

impl Drainer {
    fn step(&mut self, shared: &Shared, limits: &DrainLimits) -> Result<DrainProgress, StoreError> {
        let Some(mut current) = self.current.take() else {
            return match self.start_layers(shared, limits)? {
                DrainProgress::Idle => match spill(shared, limits)? {
                    DrainProgress::Worked => Ok(DrainProgress::Worked),
                    // What is removed makes room.
                    none => match self.purge(shared)? {
                        DrainProgress::Idle => Ok(none),
                        purged => Ok(purged),
                    },
                },
                started => Ok(started),
            };
        };
        if !current.apply_batch(shared)? {
            self.current = Some(current);
            return Ok(DrainProgress::Worked);
        }
        shared.engine.flush()?;
        shared.journal.remove()?;
        let rows = current.changes.iter().map(|(row, _)| row);
        Ok(self.finish(shared, rows, current.layers, current.end))
    }

    /// The engine has the oldest layers.
    fn finish<'a>(
        &mut self,
        shared: &Shared,
        rows: impl Iterator<Item = &'a Bytes>,
        count: usize,
        end: u64,
    ) -> DrainProgress {
        self.retired.extend(rows.filter_map(|row| retired_space(row)));
        // Freeing their rows takes long, so it is not done under the lock.
        let mut layers = shared.layers.write();
        let gone: Vec<_> = (0..count).map_while(|_| layers.pop_oldest()).collect();
        drop(layers);
        drop(gone);
        DrainProgress::Drained(end)
    }

    /// Takes the oldest layers that may be drained, together: a row that is in several of them goes to
    /// the engine once. Many rows go there at once; others are journaled.
    fn start_layers(
        &mut self,
        shared: &Shared,
        limits: &DrainLimits,
    ) -> Result<DrainProgress, StoreError> {
        let (layers, from) = {
            let layers = shared.layers.read();
            if !layers.ready {
                return Ok(DrainProgress::Idle);
            }
            let pinned = layers.pins.keys().next().copied().unwrap_or(u64::MAX);
            let log_durable = (limits.log_durable)();
            // A full one has a little more than it takes to be full.
            let two_bytes = shared.options.layer_bytes / 4 * 9;
            let bytes_max = TOGETHER_BYTES.max(two_bytes).min(limits.bytes_max);
            let mut bytes = 0;
            let together = layers.frozen.iter().take_while(|layer| {
                let first = bytes == 0;
                bytes += layer.changes_bytes.max(1);
                layer.end <= log_durable.min(pinned) && (first || bytes <= bytes_max)
            });
            (together.cloned().collect::<Vec<_>>(), layers.drained)
        };
        let Some(end) = layers.last().map(|layer| layer.end) else {
            return Ok(DrainProgress::Idle);
        };
        assert!(from < end, "layers from {from} to {end}");
        let spilled: Vec<_> =
            layers.iter().map(|layer| layer.read_spilled()).collect::<Result<_, _>>()?;
        let sorted = layers.iter().zip(&spilled).map(|(layer, spilled)| match spilled {
            Some(changes) => changes.iter().map(change_ref).collect(),
            None => layer.changes.in_memory().map(Changes::sorted).unwrap_or_default(),
        });
        let changes: Vec<ChangeRef> = sorted.reduce(merged).unwrap_or_default();
        if let Some(engine) = who_ingests(shared, &changes) {
            match ingest(shared, engine, &changes, end, limits.rest) {
                Err(StoreError::Io(error)) if is_full_disk(&error) => {
                    return Ok(DrainProgress::NoRoom);
                }
                ingested => ingested?,
            }
            let rows = changes.iter().map(|change| change.row);
            return Ok(self.finish(shared, rows, layers.len(), end));
        }
        let owned = |change: ChangeRef| (change.row.clone(), change.value.cloned());
        let changes: Vec<Change> = changes.into_iter().map(owned).collect();
        match shared.journal.write(&journal::encode(from, end, &changes)) {
            Err(error) if is_full_disk(&error) => {
                shared.journal.remove()?;
                return Ok(DrainProgress::NoRoom);
            }
            written => written?,
        }
        self.current = Some(Draining { changes, layers: layers.len(), end, done: 0 });
        Ok(DrainProgress::Worked)
    }

    /// Removes some rows of a retired space from the engine. Safe beside living views: what the
    /// engine knows as retired is retired for each of them.
    fn purge(&mut self, shared: &Shared) -> Result<DrainProgress, StoreError> {
        let Some(&space) = self.retired.first() else { return Ok(DrainProgress::Idle) };
        let (first, end) = space_range(space);
        let rows_max = shared.options.drain_batch_rows;
        let end = end.as_ref().map(|end| &end[..]);
        if shared.engine.delete_range(&first, end, rows_max)? < rows_max {
            shared.engine.apply(&[(retired(space), None)])?;
            self.retired.remove(&space);
        }
        Ok(DrainProgress::Worked)
    }
}

impl Draining {
    /// Hands the next batch to the engine; whether it was the last.
    fn apply_batch(&mut self, shared: &Shared) -> Result<bool, StoreError> {
        let rows_max = shared.batch_rows.load(Ordering::Relaxed);
        let mut batch = Vec::with_capacity(rows_max + 2);
        let mut bytes = 0;
        for (row, value) in &self.changes[self.done..] {
            if batch.len() == rows_max || bytes >= BATCH_BYTES_MAX {
                break;
            }
            bytes += row.len() + value.as_ref().map_or(0, Bytes::len);
            batch.push(sealed_change(row, value.as_ref()));
        }
        let done = self.done + batch.len();
        let complete = done == self.changes.len();
        if complete || plants(Bug::IndexBeforeRows) {
            batch.extend(index_changes(self.end));
        } else if self.done == 0 {
            batch.push(local_index(DRAINING, self.end));
        }
        shared.engine.apply(&batch)?;
        for rows in self.changes[self.done..done].chunks(REMEMBERED_AT_ONCE) {
            remember(shared, &rows.iter().map(change_ref).collect::<Vec<_>>());
        }
        self.done = done;
        Ok(complete)
    }
}

/// Whether there was no room, which others may make.
pub(super) fn is_full_disk(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Who takes these changes at once, if they are so many that it pays.
fn who_ingests<'a>(shared: &'a Shared, changes: &[ChangeRef]) -> Option<&'a dyn Ingest> {
    let engine = shared.engine.ingest()?;
    let longest = changes.iter().map(|change| change.row.len()).max()?;
    let many = changes.len() >= shared.options.ingest_rows_min;
    (many && longest <= engine.row_bytes_max()).then_some(engine)
}

/// Hands changes that lead to `end` to the engine at once, with the marker.
fn ingest(
    shared: &Shared,
    engine: &dyn Ingest,
    changes: &[ChangeRef],
    end: u64,
    rest: &dyn Fn(Duration),
) -> Result<(), StoreError> {
    let mut began = Instant::now();
    let mut rest = || {
        rest(began.elapsed());
        began = Instant::now();
    };
    let sealed = |change: &ChangeRef| sealed_change(change.row, change.value);
    // The marker stands among the store's own rows, which are the last.
    let marker_place = changes.partition_point(|change| change.row[..] < *MARKER);
    let (before, behind) = changes.split_at(marker_place);
    let mut bytes = 0;
    let before = before.chunks(FETCHED_AT_ONCE).enumerate().flat_map(|(number, changes)| {
        bytes += changes.iter().map(ChangeRef::bytes).sum::<usize>();
        if number % (INGESTED_AT_ONCE / FETCHED_AT_ONCE) == 0 || bytes >= BATCH_BYTES_MAX {
            bytes = 0;
            rest();
        }
        changes.iter().for_each(ChangeRef::touch);
        changes.iter().map(sealed)
    });
    let [marker, _] = index_changes(end);
    engine.ingest(&mut before.chain([marker]).chain(behind.iter().map(sealed)))?;
    for changes in changes.chunks(INGESTED_AT_ONCE) {
        rest();
        for rows in changes.chunks(REMEMBERED_AT_ONCE) {
            remember(shared, rows);
        }
    }
    Ok(())
}

/// Drained rows are as hot as they were. Until the layer is gone it hides what the cache says of them; a
/// newer layer goes on doing so.
fn remember(shared: &Shared, changes: &[ChangeRef]) {
    let _layers = shared.layers.read();
    shared.remember_all(changes);
}

/// Both in order; where they name the same row, the newer one counts.
fn merged<'a>(older: Vec<ChangeRef<'a>>, newer: Vec<ChangeRef<'a>>) -> Vec<ChangeRef<'a>> {
    let mut all = Vec::with_capacity(older.len() + newer.len());
    let mut older = older.into_iter().peekable();
    for change in newer {
        while let Some(before) = older.next_if(|before| before.row <= change.row) {
            if before.row < change.row {
                all.push(before);
            }
        }
        all.push(change);
    }
    all.extend(older);
    all
}

/// Moves the oldest layer that waits for a view to a file, when the layers take too much memory. Idle:
/// there is none.
fn spill(shared: &Shared, limits: &DrainLimits) -> Result<DrainProgress, StoreError> {
    let Some(directory) = &shared.options.spill_directory else { return Ok(DrainProgress::Idle) };
    let layer = {
        let layers = shared.layers.read();
        // Before the bound, so that updates are not held up at it.
        if layers.bytes() as f64 <= HASTY_PART * shared.options.layers_bytes_max as f64 {
            return Ok(DrainProgress::Idle);
        }
        let Some(pinned) = layers.pins.keys().next() else { return Ok(DrainProgress::Idle) };
        let waits = |layer: &&Arc<FrozenLayer>| {
            layer.end > *pinned && matches!(layer.changes, FrozenChanges::Memory(_))
        };
        let Some(layer) = layers.frozen.iter().find(waits) else { return Ok(DrainProgress::Idle) };
        layer.clone()
    };
    let FrozenChanges::Memory(changes) = &layer.changes else { return Ok(DrainProgress::Idle) };
    if layer.changes_bytes > limits.bytes_max {
        return Ok(DrainProgress::NoRoom);
    }
    let spilled = match SpilledLayer::write(directory, changes) {
        // What was written of it is gone with the file.
        Err(StoreError::Io(error)) if is_full_disk(&error) => return Ok(DrainProgress::NoRoom),
        written => written?,
    };
    let bytes = spilled.memory_bytes();
    let changes = FrozenChanges::Spilled(spilled);
    let FrozenLayer { end, changes_bytes, .. } = *layer;
    shared.layers.write().replace(FrozenLayer { changes, end, bytes, changes_bytes });
    Ok(DrainProgress::Worked)
}

#[test]
fn the_newer_of_two_changes_of_a_row_counts() {
    let changes = |rows: &[(&'static str, &'static str)]| -> Vec<Change> {
        let value = |value: &'static str| (!value.is_empty()).then(|| Bytes::from(value));
        rows.iter().map(|(row, it)| (Bytes::from(*row), value(it))).collect()
    };
    let older = changes(&[("a", "1"), ("b", "1"), ("d", ""), ("e", "1"), ("g", "1")]);
    let newer = changes(&[("b", "2"), ("c", "2"), ("d", "2"), ("e", "")]);
    let all = changes(&[("a", "1"), ("b", "2"), ("c", "2"), ("d", "2"), ("e", ""), ("g", "1")]);
    fn refs(changes: &[Change]) -> Vec<ChangeRef<'_>> {
        changes.iter().map(change_ref).collect()
    }
    let check = |older, newer, all: &Vec<Change>| {
        let merged = merged(older, newer);
        let merged = merged.iter().map(|change| (change.row.clone(), change.value.cloned()));
        assert_eq!(merged.collect::<Vec<_>>(), *all);
    };
    check(refs(&older), refs(&newer), &all);
    check(Vec::new(), refs(&newer), &newer);
    check(refs(&older), Vec::new(), &older);
}
