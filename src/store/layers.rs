//! Layers: sorted maps of changes that lie over the engine.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::bulk::{is_bulk, may_be_bulk};
use super::changes::{ChangeRef, Changed, Changes, FETCHED_AT_ONCE, Sought};
use super::empty_ranges::EmptyRanges;
use super::engine::Change;
use super::entry_changes::EntryChanges;
use super::rows::StoreError;
use super::spill::SpilledLayer;

/// So many rows,
const ORDERED_ROWS: usize = 4096;
/// of so many bytes, are put in order in about a millisecond.
const ORDERED_BYTES: usize = 4 << 20;
/// For so many layers rows are in order from the start after somebody has asked for it.
const ORDERED_LAYERS: usize = 64;

/// What a row costs in memory beside its bytes, about.
const ROW_OVERHEAD_BYTES: usize = 200;
/// And what one costs that is in order from the start.
const ORDERED_OVERHEAD_BYTES: usize = 100;

fn overhead_bytes(row: &[u8]) -> usize {
    ROW_OVERHEAD_BYTES + if is_bulk(row) { 0 } else { ORDERED_OVERHEAD_BYTES }
}

fn value_bytes(value: &Option<Bytes>) -> usize {
    value.as_ref().map_or(0, Bytes::len)
}

/// Where a frozen layer's changes are.
pub(super) enum FrozenChanges {
    Memory(Changes),
    Spilled(SpilledLayer),
}

impl FrozenChanges {
    /// Unless they are in a file.
    pub fn in_memory(&self) -> Option<&Changes> {
        match self {
            FrozenChanges::Memory(changes) => Some(changes),
            FrozenChanges::Spilled(_) => None,
        }
    }
}

/// A layer that no longer changes.
pub(super) struct FrozenLayer {
    pub changes: FrozenChanges,
    /// The index whose state the engine holds once this layer is drained.
    pub end: u64,
    /// Memory taken.
    pub bytes: usize,
    /// Memory that its changes take when they are not in a file.
    pub changes_bytes: usize,
}

impl FrozenLayer {
    /// Whether it can be scanned as it is.
    pub fn is_in_order(&self) -> bool {
        self.changes.in_memory().is_none_or(Changes::is_in_order)
    }

    /// Puts it in order. Takes a tenth of a second for 64 MiB; nobody waits meanwhile but who needs it as well.
    pub fn put_in_order(&self) {
        self.changes.in_memory().into_iter().for_each(Changes::put_in_order);
    }

    /// All changes, if they are in a file.
    pub fn read_spilled(&self) -> Result<Option<Vec<Change>>, StoreError> {
        match &self.changes {
            FrozenChanges::Memory(_) => Ok(None),
            FrozenChanges::Spilled(spilled) => {
                spilled.scan(&[], None, false).collect::<Result<_, _>>().map(Some)
            }
        }
    }

    pub fn layer(&self) -> LayerRef<'_> {
        match &self.changes {
            FrozenChanges::Memory(changes) => LayerRef::Memory(changes),
            FrozenChanges::Spilled(spilled) => LayerRef::Spilled(spilled),
        }
    }
}

/// A layer to read from.
#[derive(Clone, Copy)]
pub(super) enum LayerRef<'a> {
    Memory(&'a Changes),
    /// Ascending, for who reads it once from end to end.
    Sorted(&'a [ChangeRef<'a>]),
    /// Of one entry.
    Entry(&'a EntryChanges),
    Spilled(&'a SpilledLayer),
}

/// Changes in order.
pub(super) type ChangeIterator<'a> = Box<dyn Iterator<Item = Result<Change, StoreError>> + 'a>;

impl<'a> LayerRef<'a> {
    /// What this layer says about a row: nothing, removed, or its value.
    pub fn get(self, sought: Sought) -> Result<Option<Option<Bytes>>, StoreError> {
        match self {
            LayerRef::Memory(changes) => Ok(changes.get(sought).cloned()),
            LayerRef::Sorted(changes) => {
                let found = changes.binary_search_by(|change| change.row[..].cmp(sought.row()));
                Ok(found.ok().map(|at| changes[at].value.cloned()))
            }
            LayerRef::Entry(changes) => Ok(changes.get(sought).cloned()),
            LayerRef::Spilled(spilled) => spilled.get(sought.row()),
        }
    }

    /// The changes with `first <= row < end`; the caller has checked that the range is not empty.
    pub fn scan(self, first: &[u8], end: Option<&[u8]>, reverse: bool) -> ChangeIterator<'a> {
        let copy = |(row, value): (&Bytes, &Option<Bytes>)| Ok((row.clone(), value.clone()));
        match self {
            LayerRef::Memory(changes) => {
                let range = changes.range(first, end);
                if reverse { Box::new(range.rev().map(copy)) } else { Box::new(range.map(copy)) }
            }
            LayerRef::Sorted(changes) => {
                let before = |row: &[u8]| changes.partition_point(|change| change.row[..] < *row);
                let changes = &changes[before(first)..end.map_or(changes.len(), before)];
                let copy = |change: &ChangeRef| Ok((change.row.clone(), change.value.cloned()));
                if reverse {
                    return Box::new(changes.iter().rev().map(copy));
                }
                Box::new(changes.chunks(FETCHED_AT_ONCE).flat_map(move |changes| {
                    changes.iter().for_each(ChangeRef::touch);
                    changes.iter().map(copy)
                }))
            }
            LayerRef::Entry(changes) => {
                let range = changes.range(first, end);
                if reverse { Box::new(range.rev().map(copy)) } else { Box::new(range.map(copy)) }
            }
            LayerRef::Spilled(spilled) => Box::new(spilled.scan(first, end, reverse)),
        }
    }
}

/// All that lies over the engine. `frozen` is ordered, oldest first, with growing `end`.
pub(super) struct Layers {
    /// The index whose state these layers and the engine show.
    pub applied: u64,
    /// The engine's marker: the index whose state it holds once the oldest layers are laid over it.
    pub drained: u64,
    active: Changes,
    active_bytes: usize,
    /// So many of the next layers have their order from the start.
    ordered_layers: usize,
    pub frozen: VecDeque<Arc<FrozenLayer>>,
    frozen_bytes: usize,
    /// [`Layers::bytes`] for who has no lock.
    told_bytes: Arc<AtomicUsize>,
    /// What is empty for good at `applied`, but not for older views.
    pub empty: EmptyRanges,
    /// How many living views there are at each index.
    pub pins: BTreeMap<u64, usize>,
    /// Grows whenever the whole state is replaced; views of an older one are stale.
    pub generation: u64,
    /// False while the whole state is being replaced.
    pub ready: bool,
}

impl Layers {
    pub fn new(applied: u64) -> Self {
        Layers {
            applied,
            drained: applied,
            active: Changes::default(),
            active_bytes: 0,
            ordered_layers: 0,
            frozen: VecDeque::new(),
            frozen_bytes: 0,
            told_bytes: Arc::default(),
            empty: EmptyRanges::default(),
            pins: BTreeMap::new(),
            generation: 0,
            ready: true,
        }
    }

    pub fn bytes(&self) -> usize {
        self.active_bytes + self.frozen_bytes
    }

    /// Always what [`Layers::bytes`] is, for who has no lock.
    pub fn told_bytes(&self) -> Arc<AtomicUsize> {
        self.told_bytes.clone()
    }

    fn tell_bytes(&self) {
        self.told_bytes.store(self.bytes(), Ordering::Relaxed);
    }

    pub fn active_bytes(&self) -> usize {
        self.active_bytes
    }

    /// Makes the changes of the entry at `index` visible.
    pub fn commit(&mut self, index: u64, changes: Vec<Changed>) {
        assert_eq!(index, self.applied + 1, "entry {index} applied over {}", self.applied);
        for changed in changes {
            if changed.value.is_some() {
                self.empty.check(&changed.row);
            }
            let row_bytes = changed.row.len() + overhead_bytes(&changed.row);
            self.active_bytes += row_bytes + value_bytes(&changed.value);
            if let Some(old_value_bytes) = self.active.insert(changed) {
                self.active_bytes -= row_bytes + old_value_bytes;
            }
        }
        self.applied = index;
        self.tell_bytes();
    }

    /// Freezes the active layer. Does nothing when draining it would not bring the engine forward.
    pub fn freeze(&mut self) {
        let end = self.frozen.back().map_or(self.drained, |layer| layer.end);
        assert!(end <= self.applied, "layers end at {end}, past applied {}", self.applied);
        if end == self.applied {
            assert!(self.active.is_empty(), "{} rows at no index", self.active.len());
            return;
        }
        // Who scans one layer scans another one, too.
        let asked = self.active.was_asked_for_order();
        self.ordered_layers =
            if asked { ORDERED_LAYERS } else { self.ordered_layers.saturating_sub(1) };
        let next = match self.ordered_layers > 0 {
            true => Changes::in_order(),
            false => Changes::default(),
        };
        let changes = std::mem::replace(&mut self.active, next);
        let bytes = std::mem::take(&mut self.active_bytes);
        self.frozen_bytes += bytes;
        let changes = FrozenChanges::Memory(changes);
        let layer = FrozenLayer { changes, end: self.applied, bytes, changes_bytes: bytes };
        self.frozen.push_back(Arc::new(layer));
    }

    /// Takes the oldest frozen layer away; the engine has it.
    pub fn pop_oldest(&mut self) -> Option<Arc<FrozenLayer>> {
        let layer = self.frozen.pop_front()?;
        self.frozen_bytes -= layer.bytes;
        self.drained = layer.end;
        self.tell_bytes();
        Some(layer)
    }

    /// Drops everything: the state is being replaced.
    pub fn clear(&mut self) {
        self.active.clear();
        self.active_bytes = 0;
        self.frozen.clear();
        self.frozen_bytes = 0;
        self.empty.clear();
        self.applied = 0;
        self.drained = 0;
        self.generation += 1;
        self.tell_bytes();
    }

    /// Puts a spilled layer in the place of the one with the same `end`, if that is still there.
    pub fn replace(&mut self, layer: FrozenLayer) {
        if let Some(old) = self.frozen.iter_mut().find(|old| old.end == layer.end) {
            self.frozen_bytes = self.frozen_bytes - old.bytes + layer.bytes;
            *old = Arc::new(layer);
            self.tell_bytes();
        }
    }

    /// What the layers say about a row: nothing, removed, or its value.
    pub fn get(&self, sought: Sought) -> Result<Option<Option<Bytes>>, StoreError> {
        self.peek(sought, |value| value.cloned())
    }

    /// The same, looked at where it is: to take a value costs more than to read its first bytes.
    pub fn peek<R>(
        &self,
        sought: Sought,
        look: impl FnOnce(Option<&Bytes>) -> R,
    ) -> Result<Option<R>, StoreError> {
        if let Some(value) = self.active.get(sought) {
            return Ok(Some(look(value.as_ref())));
        }
        for layer in self.frozen.iter().rev() {
            if let FrozenChanges::Memory(changes) = &layer.changes {
                if let Some(value) = changes.get(sought) {
                    return Ok(Some(look(value.as_ref())));
                }
            } else if let Some(value) = layer.layer().get(sought)? {
                return Ok(Some(look(value.as_ref())));
            }
        }
        Ok(None)
    }

    /// Asks for the order of rows with `first <= row < end`; whether it is there, or soon will be.
    pub fn ask_for_order(&self, first: &[u8], end: Option<&[u8]>) -> bool {
        if !may_be_bulk(first, end) {
            return true;
        }
        let frozen = self.frozen.iter().map(|layer| (layer.changes.in_memory(), layer.bytes));
        let (mut rows, mut bytes) = (0, 0);
        for (changes, layer_bytes) in frozen.chain([(Some(&self.active), self.active_bytes)]) {
            let unordered = changes.map_or(0, Changes::ask_for_order);
            rows += unordered;
            bytes += if unordered > 0 { layer_bytes } else { 0 };
        }
        rows <= ORDERED_ROWS && bytes <= ORDERED_BYTES
    }

    /// Freezes the active layer if that is not in order. The frozen ones that are not.
    pub fn freeze_out_of_order(&mut self) -> Vec<Arc<FrozenLayer>> {
        if self.active.ask_for_order() > 0 {
            self.freeze();
        }
        self.frozen.iter().filter(|layer| !layer.is_in_order()).cloned().collect()
    }

    /// Whether none of the layers is in a file.
    pub fn are_in_memory(&self) -> bool {
        self.frozen.iter().all(|layer| layer.changes.in_memory().is_some())
    }

    /// Brings the rows with these hashes into the processor's caches, as far as layers in memory have
    /// them. The processor waits for many places at once when no step needs what another one found:
    /// so first all tables, then all rows. Returns those that no layer has.
    pub fn touch(&self, hashes: &[u64]) -> Vec<u64> {
        let frozen = self.frozen.iter().rev().filter_map(|layer| layer.changes.in_memory());
        let mut left = hashes.to_vec();
        for changes in std::iter::once(&self.active).chain(frozen) {
            let mut found = Vec::with_capacity(left.len());
            left.retain(|hash| {
                let changed = changes.with_hash(*hash);
                found.extend(changed);
                changed.is_none()
            });
            found.into_iter().for_each(Changed::touch);
            if left.is_empty() {
                break;
            }
        }
        left
    }

    /// The layers, newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = LayerRef<'_>> {
        let frozen = self.frozen.iter().rev().map(|layer| layer.layer());
        std::iter::once(LayerRef::Memory(&self.active)).chain(frozen)
    }
}
