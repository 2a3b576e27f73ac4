//! A sorted map of changes that is mostly written and read by key.
//!
//! Keys are in a hash table for points and in a sorted set for scans; changing a row that is there
//! touches only the table. Invariant: both hold the same keys.

use std::cell::OnceCell;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use bytes::Bytes;

/// Rows and what became of them, in no order; `None` means removed.
type Unordered = HashMap<Bytes, Option<Bytes>, foldhash::fast::RandomState>;

/// Rows and what became of them; `None` means removed.
#[derive(Default)]
pub(super) struct Changes {
    table: Unordered,
    order: BTreeSet<Bytes>,
}

impl Changes {
    /// Sets a row; returns what was there.
    pub fn insert(&mut self, row: Bytes, value: Option<Bytes>) -> Option<Option<Bytes>> {
        if let Some(old) = self.table.get_mut(&row) {
            return Some(std::mem::replace(old, value));
        }
        self.order.insert(row.clone());
        self.table.insert(row, value);
        None
    }

    pub fn get(&self, row: &[u8]) -> Option<&Option<Bytes>> {
        self.table.get(row)
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn clear(&mut self) {
        *self = Changes::default();
    }

    /// Rows with `first <= row < end`, ascending.
    pub fn range<'a>(
        &'a self,
        first: &[u8],
        end: Option<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&'a Bytes, &'a Option<Bytes>)> + use<'a> {
        range_of(&self.table, &self.order, first, end)
    }

    /// All rows, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&Bytes, &Option<Bytes>)> {
        self.range(&[], None)
    }

    /// All keys, ascending.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.order.iter()
    }
}

/// The changes of one entry. Hardly any is scanned; one that is gets its order then, and keeps it.
#[derive(Default)]
pub(super) struct EntryChanges {
    table: Unordered,
    order: OnceCell<BTreeSet<Bytes>>,
}

impl EntryChanges {
    /// Sets a row; returns what was there.
    pub fn insert(&mut self, row: Bytes, value: Option<Bytes>) -> Option<Option<Bytes>> {
        match self.table.entry(row) {
            Entry::Occupied(mut occupied) => Some(occupied.insert(value)),
            Entry::Vacant(vacant) => {
                if let Some(order) = self.order.get_mut() {
                    order.insert(vacant.key().clone());
                }
                vacant.insert(value);
                None
            }
        }
    }

    /// Forgets that a row was changed.
    pub fn remove(&mut self, row: &[u8]) {
        self.table.remove(row);
        if let Some(order) = self.order.get_mut() {
            order.remove(row);
        }
    }

    pub fn get(&self, row: &[u8]) -> Option<&Option<Bytes>> {
        self.table.get(row)
    }

    /// Rows with `first <= row < end`, ascending.
    pub fn range<'a>(
        &'a self,
        first: &[u8],
        end: Option<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&'a Bytes, &'a Option<Bytes>)> + use<'a> {
        let order = self.order.get_or_init(|| self.table.keys().cloned().collect());
        range_of(&self.table, order, first, end)
    }

    pub fn into_iter(self) -> impl Iterator<Item = (Bytes, Option<Bytes>)> {
        self.table.into_iter()
    }
}

fn range_of<'a>(
    table: &'a Unordered,
    order: &'a BTreeSet<Bytes>,
    first: &[u8],
    end: Option<&[u8]>,
) -> impl DoubleEndedIterator<Item = (&'a Bytes, &'a Option<Bytes>)> + use<'a> {
    let high = end.map_or(Bound::Unbounded, Bound::Excluded);
    let rows = order.range::<[u8], _>((Bound::Included(first), high));
    rows.map(|row| (row, table.get(row).expect("the table holds what the order holds")))
}

#[cfg(test)]
impl FromIterator<(Bytes, Option<Bytes>)> for Changes {
    fn from_iter<I: IntoIterator<Item = (Bytes, Option<Bytes>)>>(changes: I) -> Self {
        let mut all = Changes::default();
        for (row, value) in changes {
            all.insert(row, value);
        }
        all
    }
}
