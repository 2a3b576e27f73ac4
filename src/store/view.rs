//! Views to read from: a short one that borrows the store's present, and a long one that keeps the
//! state at one index while updates go on.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLockReadGuard;

use super::changes::{Changes, Sought};
use super::layers::{FrozenLayer, LayerRef, Layers};
use super::local_rows::{
    LOCAL_FIRST, LOCAL_SPACE, RETIRED_END, RETIRED_FIRST, retired_space, space_range,
};
use super::merge::scan_merged;
use super::rows::{RowList, Rows, StoreError};
use super::shared::{Shared, Store};

/// Ends a scan before the local space.
pub(super) fn clamp(end: Option<&[u8]>) -> &[u8] {
    end.map_or(&LOCAL_FIRST, |end| end.min(&LOCAL_FIRST))
}

/// Visits only rows that are there.
pub(super) fn present(
    visit: &mut dyn FnMut(&[u8], &Bytes) -> bool,
) -> impl FnMut(&[u8], Option<&Bytes>) -> bool {
    |row, value| value.is_none_or(|value| visit(row, value))
}

/// The present state. It holds up the next entry while it lives: read and drop it, and never take
/// a second one on the same thread meanwhile.
pub struct ReadView<'a> {
    shared: &'a Shared,
    layers: RwLockReadGuard<'a, Layers>,
    may_wait: Cell<bool>,
    may_put_in_order: Cell<bool>,
}

impl ReadView<'_> {
    /// The index whose state this is.
    pub fn applied(&self) -> u64 {
        self.layers.applied
    }
}

impl Rows for ReadView<'_> {
    fn get(&self, row: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.may_wait.get() {
            true => self.shared.get(&self.layers, row),
            false => self.shared.get_from_memory(&self.layers, row),
        }
    }

    fn refuse_to_wait(&self) {
        self.may_wait.set(false);
    }

    fn refuse_to_put_in_order(&self) {
        self.may_put_in_order.set(false);
    }

    fn touch(&self, rows: &RowList) {
        self.shared.touch(&self.layers, rows);
    }

    fn scan(
        &self,
        first: &[u8],
        end: Option<&[u8]>,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &Bytes) -> bool,
    ) -> Result<(), StoreError> {
        self.scan_with_removed(first, end, reverse, &mut present(visit))
    }

    fn scan_with_removed(
        &self,
        first: &[u8],
        end: Option<&[u8]>,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], Option<&Bytes>) -> bool,
    ) -> Result<(), StoreError> {
        if !self.layers.ready {
            return Err(StoreError::Replaced);
        }
        if !self.may_put_in_order.get() && !self.layers.ask_for_order(first, end) {
            return Err(StoreError::WouldWait);
        }
        let maps = self.layers.newest_first();
        let engine = &*self.shared.engine;
        let scanned = scan_merged(maps, engine, first, Some(clamp(end)), reverse, visit);
        self.shared.distrust_damage(scanned)
    }
}

/// The state at one index, for as long as it lives. Layers newer than it wait in memory meanwhile.
/// It reads past the row cache. Take and drop it while holding no [`ReadView`] on the same thread.
pub struct FrozenView {
    shared: Arc<Shared>,
    applied: u64,
    generation: u64,
    /// Newest first.
    layers: Vec<Arc<FrozenLayer>>,
}

impl Store {
    /// The present state, briefly.
    pub fn read(&self) -> ReadView<'_> {
        let layers = self.shared.layers.read();
        let [may_wait, may_put_in_order] = [true, true].map(Cell::new);
        ReadView { shared: &self.shared, layers, may_wait, may_put_in_order }
    }

    /// The present state, for long. The state is not being replaced: only who applies entries knows
    /// that, others ask [`Store::freeze_if_ready`].
    pub fn freeze(&self) -> FrozenView {
        self.freeze_if_ready().expect("the state is not being replaced")
    }

    /// The present state, for long; `None`: it is being replaced.
    pub fn freeze_if_ready(&self) -> Option<FrozenView> {
        let mut layers = self.shared.layers.write();
        if !layers.ready {
            return None;
        }
        layers.freeze();
        let applied = layers.applied;
        *layers.pins.entry(applied).or_default() += 1;
        Some(FrozenView {
            shared: self.shared.clone(),
            applied,
            generation: layers.generation,
            layers: layers.frozen.iter().rev().cloned().collect(),
        })
    }
}

impl Drop for FrozenView {
    fn drop(&mut self) {
        let mut layers = self.shared.layers.write();
        let count = layers.pins.get_mut(&self.applied).expect("this view's own pin is counted");
        *count -= 1;
        if *count == 0 {
            layers.pins.remove(&self.applied);
        }
    }
}

impl FrozenView {
    /// The index whose state this is.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Visits, ascending, every row from `first` on that a head holds: all but the store's own and
    /// those of retired spaces.
    pub fn export_rows(
        &self,
        first: &[u8],
        visit: &mut dyn FnMut(&[u8], &Bytes) -> bool,
    ) -> Result<(), StoreError> {
        // In order for this one time: the order that scans leave behind costs more, and more to follow.
        let sorted = self.layers.iter().map(|layer| layer.changes.in_memory().map(Changes::sorted));
        let sorted: Vec<_> = sorted.collect();
        let layers = self.layers.iter().zip(&sorted).map(|(layer, sorted)| match sorted {
            Some(changes) => LayerRef::Sorted(changes),
            None => layer.layer(),
        });
        let mut retired = BTreeSet::new();
        let noted = &mut |row: &[u8], _: &Bytes| {
            retired.extend(retired_space(row));
            true
        };
        self.scan_layers(layers.clone(), RETIRED_FIRST, RETIRED_END, false, noted)?;
        retired.insert(LOCAL_SPACE);
        let mut from = first.to_vec();
        let mut going = true;
        for space in retired {
            let (start, end) = space_range(space);
            self.scan_layers(layers.clone(), &from, &start, false, &mut |row, value| {
                going = visit(row, value);
                going
            })?;
            let Some(end) = end.filter(|_| going) else { break };
            from = from.max(end.to_vec());
        }
        Ok(())
    }

    /// Fails once the store's state has been replaced: the engine no longer holds this one.
    fn check(&self) -> Result<(), StoreError> {
        let layers = self.shared.layers.read_recursive();
        if layers.generation == self.generation { Ok(()) } else { Err(StoreError::Replaced) }
    }

    fn scan_all(
        &self,
        first: &[u8],
        end: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &Bytes) -> bool,
    ) -> Result<(), StoreError> {
        let layers = self.layers.iter().map(|layer| layer.layer());
        self.scan_layers(layers, first, end, reverse, visit)
    }

    fn scan_layers<'a>(
        &self,
        layers: impl Iterator<Item = LayerRef<'a>>,
        first: &[u8],
        end: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &Bytes) -> bool,
    ) -> Result<(), StoreError> {
        let visit = &mut present(visit);
        let scanned = scan_merged(layers, &*self.shared.engine, first, Some(end), reverse, visit);
        // Checked afterwards, so that what was visited is known to be of this state.
        self.check()?;
        self.shared.distrust_damage(scanned)
    }
}

impl Rows for FrozenView {
    fn get(&self, row: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let sought = Sought::new(row);
        for layer in &self.layers {
            if let Some(value) = layer.layer().get(sought)? {
                return Ok(value);
            }
        }
        let value = self.shared.get_from_engine(row);
        self.check()?;
        value
    }

    fn scan(
        &self,
        first: &[u8],
        end: Option<&[u8]>,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &Bytes) -> bool,
    ) -> Result<(), StoreError> {
        self.scan_all(first, clamp(end), reverse, visit)
    }
}
