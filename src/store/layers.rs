//! Layers: sorted maps of changes in memory that lie over the engine, and the merged scan over all.

use std::collections::{BTreeMap, VecDeque};
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::engine::{Change, Engine};
use super::rows::StoreError;
use super::sealed::unseal;

/// Rows and what became of them; `None` means removed.
pub(super) type Changes = BTreeMap<Bytes, Option<Bytes>>;

/// What a row costs in memory beside its bytes, about.
const ROW_OVERHEAD_BYTES: usize = 96;

/// The memory a change takes.
pub(super) fn change_bytes(row: &Bytes, value: &Option<Bytes>) -> usize {
    row.len() + value.as_ref().map_or(0, Bytes::len) + ROW_OVERHEAD_BYTES
}

/// A layer that no longer changes.
pub(super) struct FrozenLayer {
    pub changes: Changes,
    /// The index whose state the engine holds once this layer is drained.
    pub end: u64,
    pub bytes: usize,
}

/// All that lies over the engine. `frozen` is ordered, oldest first, with growing `end`.
pub(super) struct Layers {
    /// The index whose state these layers and the engine show.
    pub applied: u64,
    /// The engine's marker: the index whose state it holds once the oldest layers are laid over it.
    pub drained: u64,
    active: Changes,
    active_bytes: usize,
    pub frozen: VecDeque<Arc<FrozenLayer>>,
    frozen_bytes: usize,
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
            active: Changes::new(),
            active_bytes: 0,
            frozen: VecDeque::new(),
            frozen_bytes: 0,
            pins: BTreeMap::new(),
            generation: 0,
            ready: true,
        }
    }

    pub fn bytes(&self) -> usize {
        self.active_bytes + self.frozen_bytes
    }

    pub fn active_bytes(&self) -> usize {
        self.active_bytes
    }

    /// Makes the changes of the entry at `index` visible.
    pub fn commit(&mut self, index: u64, changes: Vec<Change>) {
        assert_eq!(index, self.applied + 1, "entry {index} applied over {}", self.applied);
        for (row, value) in changes {
            self.active_bytes += change_bytes(&row, &value);
            if let Some(old) = self.active.get_mut(&row) {
                self.active_bytes -= change_bytes(&row, old);
                *old = value;
            } else {
                self.active.insert(row, value);
            }
        }
        self.applied = index;
    }

    /// Freezes the active layer. Does nothing when draining it would not bring the engine forward.
    pub fn freeze(&mut self) {
        let end = self.frozen.back().map_or(self.drained, |layer| layer.end);
        assert!(end <= self.applied, "layers end at {end}, past applied {}", self.applied);
        if end == self.applied {
            assert!(self.active.is_empty(), "{} rows at no index", self.active.len());
            return;
        }
        let changes = std::mem::take(&mut self.active);
        let bytes = std::mem::take(&mut self.active_bytes);
        self.frozen_bytes += bytes;
        self.frozen.push_back(Arc::new(FrozenLayer { changes, end: self.applied, bytes }));
    }

    /// Drops the oldest frozen layer; the engine has it.
    pub fn pop_oldest(&mut self) {
        if let Some(layer) = self.frozen.pop_front() {
            self.frozen_bytes -= layer.bytes;
            self.drained = layer.end;
        }
    }

    /// Drops everything: the state is being replaced.
    pub fn clear(&mut self) {
        self.active.clear();
        self.active_bytes = 0;
        self.frozen.clear();
        self.frozen_bytes = 0;
        self.applied = 0;
        self.drained = 0;
        self.generation += 1;
    }

    /// What the layers say about a row: nothing, removed, or its value.
    pub fn get(&self, row: &[u8]) -> Option<&Option<Bytes>> {
        self.active
            .get(row)
            .or_else(|| self.frozen.iter().rev().find_map(|layer| layer.changes.get(row)))
    }

    /// The layers, newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Changes> {
        std::iter::once(&self.active).chain(self.frozen.iter().rev().map(|layer| &layer.changes))
    }
}

type Source<'a> = Peekable<Box<dyn Iterator<Item = (&'a Bytes, &'a Option<Bytes>)> + 'a>>;

/// Several sorted maps as one, where the newest map that knows a row decides.
struct Merged<'a> {
    /// Newest first.
    sources: Vec<Source<'a>>,
    reverse: bool,
}

impl<'a> Merged<'a> {
    fn new(
        maps: impl Iterator<Item = &'a Changes>,
        first: &[u8],
        end: Option<&[u8]>,
        reverse: bool,
    ) -> Self {
        let bounds = (Bound::Included(first), end.map_or(Bound::Unbounded, Bound::Excluded));
        let sources = maps
            .map(|map| {
                let range = map.range::<[u8], _>(bounds);
                let rows: Box<dyn Iterator<Item = _> + 'a> =
                    if reverse { Box::new(range.rev()) } else { Box::new(range) };
                rows.peekable()
            })
            .filter_map(|mut source| source.peek().is_some().then_some(source))
            .collect();
        Merged { sources, reverse }
    }

    /// The next row.
    fn peek(&mut self) -> Option<&'a Bytes> {
        let rows = self.sources.iter_mut().filter_map(|source| source.peek().map(|(row, _)| *row));
        if self.reverse { rows.max() } else { rows.min() }
    }

    /// Takes `row`, the one [`Merged::peek`] named, out of every map; the newest one's word on it.
    fn take(&mut self, row: &Bytes) -> Option<&'a Bytes> {
        let mut newest = None;
        for source in &mut self.sources {
            if let Some((_, value)) = source.next_if(|(next, _)| *next == row) {
                newest = newest.or(Some(value));
            }
        }
        newest.and_then(Option::as_ref)
    }
}

/// Visits the rows that `maps` (newest first) over `engine` show, as [`super::Rows::scan`] says.
pub(super) fn scan_merged<'a>(
    maps: impl Iterator<Item = &'a Changes>,
    engine: &dyn Engine,
    first: &[u8],
    end: Option<&[u8]>,
    reverse: bool,
    visit: &mut dyn FnMut(&[u8], &Bytes) -> bool,
) -> Result<(), StoreError> {
    if end.is_some_and(|end| end <= first) {
        return Ok(());
    }
    let mut merged = Merged::new(maps, first, end, reverse);
    let mut stopped = false;
    let mut failure = None;
    engine.scan(first, end, reverse, &mut |row, sealed| {
        while let Some(next) = merged.peek() {
            let same = next[..] == *row;
            if !same && (next[..] < *row) == reverse {
                break;
            }
            if let Some(value) = merged.take(next)
                && !visit(next, value)
            {
                stopped = true;
                return false;
            }
            if same {
                return true;
            }
        }
        match unseal(row, &sealed) {
            Ok(value) => {
                stopped = !visit(row, &value);
                !stopped
            }
            Err(error) => {
                failure = Some(error);
                false
            }
        }
    })?;
    if let Some(error) = failure {
        return Err(error);
    }
    while !stopped && let Some(next) = merged.peek() {
        if let Some(value) = merged.take(next) {
            stopped = !visit(next, value);
        }
    }
    Ok(())
}
