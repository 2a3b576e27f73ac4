//! The rows while one log entry is applied: its changes lie over the store, unseen by others, until
//! they are committed as a whole.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::{RwLockReadGuard, RwLockWriteGuard};

use super::changes::{Changed, Sought};
use super::empty_ranges::EmptyRanges;
use super::entry_changes::EntryChanges;
use super::layers::{LayerRef, Layers};
use super::local_rows::{LOCAL_FIRST, retired};
use super::merge::scan_merged;
use super::row_cache::CACHED_VALUE_BYTES_MAX;
use super::rows::{RowList, Rows, RowsMut, StoreError};
use super::shared::Shared;
use super::view::{clamp, present};

/// The changes of one log entry over the state before it. Dropped without a commit, it leaves
/// nothing behind.
pub struct EntryRows {
    shared: Arc<Shared>,
    changes: EntryChanges,
    /// What the running part replaced in `changes`, in order; `None` when no part is running.
    part: Option<Vec<(Bytes, Option<Option<Bytes>>)>>,
    /// May wait for locks and for the engine, and look at whatever there is.
    may_wait: bool,
    /// Otherwise: how much it has looked at.
    seen_bytes: Cell<usize>,
    fetched: RefCell<Fetched>,
    empty: EmptyRanges,
    retired: Vec<u32>,
}

/// Large values that an entry had the engine look up, which takes as long as to read a file: commands
/// that do not change the row would ask for it over and over. The engine's value of a row stays what
/// it is as long as no layer holds the row, and only entries add to layers.
#[derive(Default)]
struct Fetched {
    values: HashMap<Bytes, Bytes>,
    bytes: usize,
}

/// Bytes of such values that are kept for one entry.
const FETCHED_BYTES_MAX: usize = 128 << 20;

impl Fetched {
    fn keep(&mut self, row: &[u8], value: &Bytes) {
        let bytes = self.bytes + value.len();
        if value.len() > CACHED_VALUE_BYTES_MAX && bytes <= FETCHED_BYTES_MAX {
            self.bytes = bytes;
            self.values.insert(Bytes::copy_from_slice(row), value.clone());
        }
    }
}

/// What an entry did, to be committed.
struct Done {
    changes: Vec<Changed>,
    empty: EmptyRanges,
    retired: Vec<u32>,
}

/// An entry that may not take long looks at so many bytes of values; it may copy or free them all.
const SEEN_BYTES_MAX: usize = 256 << 10;

impl EntryRows {
    pub(super) fn new(shared: Arc<Shared>, may_wait: bool) -> Self {
        EntryRows {
            shared,
            changes: EntryChanges::default(),
            part: None,
            may_wait,
            seen_bytes: Cell::new(0),
            fetched: RefCell::default(),
            empty: EmptyRanges::default(),
            retired: Vec::new(),
        }
    }

    /// Makes all changes visible at once, as the state at `index`, the one after the last.
    pub fn commit(mut self, index: u64) {
        let done = self.take(index);
        self.commit_into(self.shared.layers.write(), index, done);
    }

    /// The same, unless somebody reads at this moment; then nothing has happened.
    pub fn try_commit(mut self, index: u64) -> bool {
        let done = self.take(index);
        let layers = self.shared.layers.try_write();
        layers.map(|layers| self.commit_into(layers, index, done)).is_some()
    }

    fn take(&mut self, index: u64) -> Done {
        assert!(self.part.is_none(), "entry {index} ends inside a part");
        // Copied, because a value cut out of a log entry would keep the entry alive with it.
        let changes = std::mem::take(&mut self.changes)
            .into_iter()
            .map(|changed| changed.map_value(owned))
            .collect();
        let (empty, retired) = (std::mem::take(&mut self.empty), std::mem::take(&mut self.retired));
        Done { changes, empty, retired }
    }

    fn commit_into(&self, mut layers: RwLockWriteGuard<'_, Layers>, index: u64, done: Done) {
        assert!(layers.ready, "entry {index} applied while the state is being replaced");
        layers.commit(index, done.changes);
        layers.empty.extend(done.empty);
        done.retired.iter().for_each(|space| layers.empty.forget(space.to_be_bytes()));
        if layers.active_bytes() >= self.shared.options.layer_bytes {
            layers.freeze();
        }
    }

    /// Recursive, because a visitor of `scan` may read: waiting behind a waiting writer there would
    /// wait for ever.
    fn layers(&self) -> Result<RwLockReadGuard<'_, Layers>, StoreError> {
        if self.may_wait {
            return Ok(self.shared.layers.read_recursive());
        }
        let layers = self.shared.layers.try_read_recursive();
        layers.filter(|layers| layers.are_in_memory()).ok_or(StoreError::WouldWait)
    }

    /// Counts what is looked at.
    fn see(&self, value: Option<&Bytes>) -> Result<(), StoreError> {
        self.seen_bytes.update(|seen| seen + value.map_or(0, Bytes::len));
        match self.may_wait || self.seen_bytes.get() <= SEEN_BYTES_MAX {
            true => Ok(()),
            false => Err(StoreError::WouldWait),
        }
    }

    /// What the engine has.
    fn fetch(&self, row: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if !self.may_wait {
            return Err(StoreError::NotInMemory);
        }
        let mut fetched = self.fetched.borrow_mut();
        if let Some(value) = fetched.values.get(row) {
            return Ok(Some(value.clone()));
        }
        let value = self.shared.get_from_engine(row)?;
        value.iter().for_each(|value| fetched.keep(row, value));
        Ok(value)
    }

    fn set(&mut self, row: Bytes, value: Option<Bytes>) {
        let part_row = self.part.is_some().then(|| row.clone());
        let before = self.changes.insert(row, value);
        if let (Some(part), Some(row)) = (&mut self.part, part_row) {
            part.push((row, before));
        }
    }
}

/// A value cut out of a log entry would keep the whole entry in memory.
fn owned(value: Bytes) -> Bytes {
    if value.is_unique() { value } else { Bytes::copy_from_slice(&value) }
}

impl Drop for EntryRows {
    fn drop(&mut self) {
        self.shared.entry_open.store(false, Ordering::Release);
    }
}

impl Rows for EntryRows {
    fn get(&self, row: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let sought = Sought::new(row);
        if let Some(value) = self.changes.get(sought) {
            self.see(value.as_ref())?;
            return Ok(value.clone());
        }
        let layers = self.layers()?;
        let fetch = |row: &[u8]| self.fetch(row);
        let value = self.shared.get_to_change(&layers, sought, fetch)?;
        self.see(value.as_ref())?;
        Ok(value)
    }

    fn peek(&self, row: &[u8], look: &mut dyn FnMut(&[u8])) -> Result<(), StoreError> {
        let sought = Sought::new(row);
        let mut look = |value: Option<&Bytes>| {
            self.see(value)?;
            value.into_iter().for_each(|value| look(value));
            Ok(())
        };
        if let Some(value) = self.changes.get(sought) {
            return look(value.as_ref());
        }
        let layers = self.layers()?;
        let fetch = |row: &[u8]| self.fetch(row);
        self.shared.peek_to_change(&layers, sought, fetch, look)?
    }

    fn scan(
        &self,
        first: &[u8],
        end: Option<&[u8]>,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &Bytes) -> bool,
    ) -> Result<(), StoreError> {
        if !self.may_wait {
            return Err(StoreError::WouldWait);
        }
        let mut layers = self.layers()?;
        if !layers.ask_for_order(first, end) {
            // Not within another scan: what that has found in order is so still. Nobody scans rows of
            // keys within a scan of others, which asks for no order; that would wait for itself.
            drop(layers);
            self.shared.put_in_order();
            layers = self.layers()?;
        }
        if !layers.ready {
            return Err(StoreError::Replaced);
        }
        let first = match reverse {
            true => first,
            false => layers.empty.first(self.empty.first(first)),
        };
        let maps = std::iter::once(LayerRef::Entry(&self.changes)).chain(layers.newest_first());
        let engine = &*self.shared.engine;
        let visit = &mut present(visit);
        let scanned = scan_merged(maps, engine, first, Some(clamp(end)), reverse, visit);
        self.shared.distrust_damage(scanned)
    }
}

impl RowsMut for EntryRows {
    fn put(&mut self, row: Bytes, value: Bytes) {
        assert!(row[..] < LOCAL_FIRST[..], "row {} is local", row.escape_ascii());
        self.empty.check(&row);
        self.set(row, Some(value));
    }

    fn delete(&mut self, row: Bytes) {
        assert!(row[..] < LOCAL_FIRST[..], "row {} is local", row.escape_ascii());
        self.set(row, None);
    }

    fn may_wait(&self) -> bool {
        self.may_wait
    }

    fn expect(&mut self, rows: &RowList) {
        self.changes.reserve(rows.len());
        if let Ok(layers) = self.layers() {
            self.shared.touch_to_change(&layers, rows);
        }
    }

    fn stays_empty(&mut self, first: Bytes, last: Bytes) {
        assert!(self.part.is_none(), "what is undone may come again");
        self.empty.note(first, last);
    }

    fn retire_space(&mut self, space: u32) {
        assert_ne!(space, super::LOCAL_SPACE, "the local space is not for retiring");
        self.retired.push(space);
        self.set(retired(space), Some(Bytes::new()));
    }

    fn begin_part(&mut self) {
        assert!(self.part.is_none(), "a part begins inside a part");
        self.part = Some(Vec::new());
    }

    fn keep_part(&mut self) {
        assert!(self.part.take().is_some(), "no part to keep");
    }

    fn undo_part(&mut self) {
        let Some(part) = self.part.take() else { panic!("no part to undo") };
        for (row, before) in part.into_iter().rev() {
            match before {
                Some(value) => drop(self.changes.insert(row, value)),
                None => self.changes.remove(&row),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Store, StoreOptions, StorePlace};
    use super::*;

    #[test]
    fn a_large_value_is_fetched_once_for_an_entry_and_still_changes() {
        let options = StoreOptions { cache_bytes: 0, ..StoreOptions::default() };
        let (store, _) = Store::open(options, StorePlace::in_memory()).expect("opens");
        let row = |name: &str| Bytes::from([b"\0\0\0\x01", name.as_bytes()].concat());
        let value = |bytes: usize| Bytes::from(vec![7; bytes]);
        let mut rows = store.entry();
        rows.put(row("large"), value(CACHED_VALUE_BYTES_MAX + 1));
        rows.put(row("small"), value(CACHED_VALUE_BYTES_MAX));
        rows.put(row("huge"), value(FETCHED_BYTES_MAX));
        rows.commit(1);
        store.freeze_for_drain();
        while store.drain_step(&|| 1).expect("drains").worked() {}

        let mut rows = store.entry();
        let kept = |rows: &EntryRows| {
            let fetched = rows.fetched.borrow();
            (fetched.values.keys().cloned().collect::<Vec<_>>(), fetched.bytes)
        };
        for _ in 0..2 {
            for name in ["large", "small", "huge", "absent"] {
                let bytes = rows.get(&row(name)).expect("reads").map(|value| value.len());
                let expected = store.read().get(&row(name)).expect("reads");
                assert_eq!(bytes, expected.map(|value| value.len()), "{name}");
            }
            assert_eq!(kept(&rows), (vec![row("large")], CACHED_VALUE_BYTES_MAX + 1));
        }
        rows.delete(row("large"));
        assert_eq!(rows.get(&row("large")).expect("reads"), None);
        rows.put(row("large"), value(1));
        assert_eq!(rows.get(&row("large")).expect("reads"), Some(value(1)));
        rows.commit(2);
        let rows = store.entry();
        assert_eq!(rows.get(&row("large")).expect("reads"), Some(value(1)), "of the layer");
    }
}
