//! The engine for simulation and tests: rows in memory, behind a handle that can be given to the
//! next incarnation of a simulated node.
//!
//! A killed process loses batches that were not flushed, from the newest back;
//! [`MemoryEngine::lose_unflushed`] does that. [`Engine::wipe`] and [`MemoryEngine::damage`] stand
//! for an emptied directory and for flipped bits.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::StoreError;
use super::engine::{Change, Engine, Ingest};

/// Rows copied out under one hold of the lock, so that visitors may call the engine again.
const SCAN_CHUNK_ROWS: usize = 128;

#[derive(Default)]
struct Inner {
    rows: BTreeMap<Bytes, Bytes>,
    /// What undoes each batch since the last flush, oldest first.
    undo: Vec<Vec<Change>>,
}

/// A handle on rows in memory; clones share them.
#[derive(Clone, Default)]
pub struct MemoryEngine {
    inner: Arc<Mutex<Inner>>,
    /// The longest row to ingest; 0: it does not.
    ingests: Arc<AtomicUsize>,
}

impl fmt::Debug for MemoryEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryEngine({} rows)", self.inner.lock().rows.len())
    }
}

impl MemoryEngine {
    /// An engine without rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on it has [`Ingest`] for rows of so many bytes, or `None`.
    pub fn set_ingests(&self, row_bytes_max: Option<usize>) {
        self.ingests.store(row_bytes_max.unwrap_or(0), Ordering::Relaxed);
    }

    /// Batches applied since the last flush.
    pub fn unflushed(&self) -> usize {
        self.inner.lock().undo.len()
    }

    /// What a killed process leaves: of the batches since the last flush only the oldest `kept`.
    pub fn lose_unflushed(&self, kept: usize) {
        let mut inner = self.inner.lock();
        while inner.undo.len() > kept {
            let Some(changes) = inner.undo.pop() else { break };
            for (row, value) in changes {
                set(&mut inner.rows, row, value);
            }
        }
        inner.undo.clear();
    }

    /// Flips one bit of a value: of the row at `position` (modulo the number of rows), at `bit`
    /// (modulo its length). Nothing happens when there is no row.
    pub fn damage(&self, position: usize, bit: usize) {
        let mut inner = self.inner.lock();
        let count = inner.rows.len().max(1);
        if let Some(value) = inner.rows.values_mut().nth(position % count) {
            let mut bytes = value.to_vec();
            if !bytes.is_empty() {
                let bit = bit % (bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
                *value = bytes.into();
            }
        }
    }

    /// A copy that shares nothing with this one.
    pub fn fork(&self) -> Self {
        let inner = self.inner.lock();
        let copy = Inner { rows: inner.rows.clone(), undo: inner.undo.clone() };
        let ingests = AtomicUsize::new(self.ingests.load(Ordering::Relaxed));
        MemoryEngine { inner: Arc::new(Mutex::new(copy)), ingests: Arc::new(ingests) }
    }
}

fn set(rows: &mut BTreeMap<Bytes, Bytes>, row: Bytes, value: Option<Bytes>) -> Option<Bytes> {
    match value {
        Some(value) => rows.insert(row, value),
        None => rows.remove(&row),
    }
}

impl Ingest for MemoryEngine {
    fn row_bytes_max(&self) -> usize {
        self.ingests.load(Ordering::Relaxed)
    }

    fn ingest(&self, changes: &mut dyn Iterator<Item = Change>) -> Result<(), StoreError> {
        let changes: Vec<Change> = changes.collect();
        assert!(changes.is_sorted_by(|one, other| one.0 < other.0), "changes ascend");
        self.apply(&changes)?;
        self.flush()
    }
}

impl Engine for MemoryEngine {
    fn apply(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut inner = self.inner.lock();
        let mut undo = Vec::with_capacity(changes.len());
        for (row, value) in changes {
            let before = set(&mut inner.rows, row.clone(), value.clone());
            undo.push((row.clone(), before));
        }
        inner.undo.push(undo);
        Ok(())
    }

    fn get(&self, row: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.inner.lock().rows.get(row).cloned())
    }

    fn scan(
        &self,
        first: &[u8],
        end: Option<&[u8]>,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], Bytes) -> bool,
    ) -> Result<(), StoreError> {
        let mut low = Bound::Included(Bytes::copy_from_slice(first));
        let mut high = end.map_or(Bound::Unbounded, |e| Bound::Excluded(Bytes::copy_from_slice(e)));
        if end.is_some_and(|end| end <= first) {
            return Ok(());
        }
        loop {
            let chunk: Vec<(Bytes, Bytes)> = {
                let inner = self.inner.lock();
                let range = inner.rows.range((low.clone(), high.clone()));
                let copy = |(row, value): (&Bytes, &Bytes)| (row.clone(), value.clone());
                if reverse {
                    range.rev().take(SCAN_CHUNK_ROWS).map(copy).collect()
                } else {
                    range.take(SCAN_CHUNK_ROWS).map(copy).collect()
                }
            };
            let Some((last, _)) = chunk.last() else { return Ok(()) };
            let last = last.clone();
            let complete = chunk.len() < SCAN_CHUNK_ROWS;
            for (row, value) in chunk {
                if !visit(&row, value) {
                    return Ok(());
                }
            }
            if complete {
                return Ok(());
            }
            // A range from Excluded(x) to Excluded(x) panics in BTreeMap: the last row is the
            // first possible one only when nothing can follow.
            if reverse {
                if last[..] == *first {
                    return Ok(());
                }
                high = Bound::Excluded(last);
            } else {
                let mut next = last.to_vec();
                next.push(0);
                if end.is_some_and(|end| end <= &next[..]) {
                    return Ok(());
                }
                low = Bound::Included(next.into());
            }
        }
    }

    fn ingest(&self) -> Option<&dyn Ingest> {
        (self.row_bytes_max() > 0).then_some(self as &dyn Ingest)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.inner.lock().undo.clear();
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.flush()
    }

    fn wipe(&self) -> Result<(), StoreError> {
        let mut inner = self.inner.lock();
        inner.rows.clear();
        inner.undo.clear();
        Ok(())
    }

    fn close(&self) -> Result<(), StoreError> {
        self.flush()
    }
}
