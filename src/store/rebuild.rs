//! Replacing the whole state by the rows of a head, piece by piece.
//!
//! The trust file is marked first and cleared last, so that a kill in between leads to an empty
//! engine and another rebuild, never to half a state.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::drain::index_changes;
use super::engine::Change;
use super::rows::StoreError;
use super::sealed::seal;
use super::shared::{Shared, Store};

/// Bytes of rows that an engine gets as a batch,
const BATCH_BYTES: usize = 1 << 20;
/// and that one which ingests gets at once.
const INGESTED_BYTES: usize = 32 << 20;
/// What a row takes in memory beside its bytes, about.
const ROW_OVERHEAD_BYTES: usize = 100;

/// A replacement under way. Reads fail with [`StoreError::Replaced`] until it is finished; dropped
/// before, the store stays unreadable until another one is finished or the store is opened again.
pub struct Rebuild {
    store: Store,
    batch: Vec<Change>,
    batch_bytes: usize,
    rows: u64,
    last: Option<Bytes>,
}

impl Store {
    /// Drops the whole state and starts to replace it. Frozen views become stale.
    pub fn rebuild(&self) -> Result<Rebuild, StoreError> {
        let shared: &Shared = &self.shared;
        let open = shared.entry_open.load(Ordering::Acquire);
        assert!(!open, "the state is replaced while an entry is applied");
        shared.drain_awaited.fetch_add(1, Ordering::Relaxed);
        let mut drainer = shared.drainer.lock();
        shared.drain_awaited.fetch_sub(1, Ordering::Relaxed);
        shared.change_trust(|trust| {
            trust.mark = "a rebuild was interrupted".into();
            trust.floor = 0;
        })?;
        {
            let mut layers = shared.layers.write();
            layers.ready = false;
            layers.clear();
            shared.clear_cache();
        }
        drainer.reset();
        shared.journal.remove()?;
        shared.engine.wipe()?;
        drop(drainer);
        let store = self.clone();
        Ok(Rebuild { store, batch: Vec::new(), batch_bytes: 0, rows: 0, last: None })
    }

    /// Replaces the whole state by that at index `applied`, whose rows come ascending.
    pub fn reset_to_rows(
        &self,
        applied: u64,
        rows: impl IntoIterator<Item = Result<(Bytes, Bytes), StoreError>>,
    ) -> Result<(), StoreError> {
        let mut rebuild = self.rebuild()?;
        for row in rows {
            let (row, value) = row?;
            rebuild.push(row, &value)?;
        }
        rebuild.finish(applied)
    }
}

impl Rebuild {
    /// Adds the next row; rows ascend. A row that does not, or of the local space, is damage in the
    /// source.
    pub fn push(&mut self, row: Bytes, value: &[u8]) -> Result<(), StoreError> {
        if self.last.as_ref().is_some_and(|last| *last >= row) {
            return Err(StoreError::Damaged("rows to rebuild from do not ascend".into()));
        }
        if row[..] >= super::local_rows::LOCAL_FIRST[..] {
            return Err(StoreError::Damaged("rows to rebuild from hold a local one".into()));
        }
        self.last = Some(row.clone());
        self.batch_bytes += row.len() + value.len() + ROW_OVERHEAD_BYTES;
        let sealed = seal(&row, value);
        self.batch.push((row, Some(sealed)));
        self.rows += 1;
        let shared = &self.store.shared;
        let (rows_max, bytes_max) = match shared.engine.ingest() {
            Some(_) => (usize::MAX, INGESTED_BYTES),
            None => (shared.options.drain_batch_rows, BATCH_BYTES),
        };
        if self.batch.len() >= rows_max || self.batch_bytes >= bytes_max {
            self.hand_over()?;
        }
        Ok(())
    }

    /// Rows added so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Gives the engine what has gathered.
    fn hand_over(&mut self) -> Result<(), StoreError> {
        let engine = &*self.store.shared.engine;
        let mut batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let many = batch.len() >= self.store.shared.options.ingest_rows_min;
        if let Some(ingesting) = engine.ingest().filter(|_| many) {
            let row_bytes_max = ingesting.row_bytes_max();
            let long = batch.extract_if(.., |(row, _)| row.len() > row_bytes_max).collect();
            let others = std::mem::replace(&mut batch, long);
            if !others.is_empty() {
                ingesting.ingest(&mut others.into_iter())?;
            }
        }
        let mut left = &batch[..];
        while !left.is_empty() {
            let mut bytes = 0;
            let fits = |(row, value): &&Change| {
                let is_first = bytes == 0;
                bytes += row.len() + value.as_ref().map_or(0, Bytes::len);
                is_first || bytes <= BATCH_BYTES
            };
            let rows_max = self.store.shared.options.drain_batch_rows;
            let (now, later) = left.split_at(left.iter().take(rows_max).take_while(fits).count());
            engine.apply(now)?;
            left = later;
        }
        Ok(())
    }

    /// Makes the rows the store's state, at index `applied`, durably.
    pub fn finish(mut self, applied: u64) -> Result<(), StoreError> {
        self.hand_over()?;
        // The last of all: whoever finds the marker finds all rows.
        self.batch.extend(index_changes(applied));
        self.hand_over()?;
        let shared = &*self.store.shared;
        shared.engine.sync()?;
        shared.change_trust(|trust| {
            trust.mark.clear();
            trust.floor = applied;
        })?;
        let mut layers = shared.layers.write();
        layers.applied = applied;
        layers.drained = applied;
        layers.ready = true;
        Ok(())
    }
}
