//! A sorted map of changes that is mostly written and read by key.
//!
//! Keys are in a hash table for points and in a sorted set for scans; changing a row that is there
//! touches only the table. Invariant: both hold the same keys.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use bytes::Bytes;

/// Rows and what became of them, in no order; `None` means removed.
pub(super) type Unordered = HashMap<Bytes, Option<Bytes>, foldhash::fast::RandomState>;

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
        let high = end.map_or(Bound::Unbounded, Bound::Excluded);
        self.order
            .range::<[u8], _>((Bound::Included(first), high))
            .map(|row| (row, self.table.get(row).expect("the table holds what the order holds")))
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
