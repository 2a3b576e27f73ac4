//! A sorted map of changes that is mostly written and read by key.
//!
//! Keys are in a hash table for points and in a sorted set for scans; changing a row that is there
//! touches only the table. Invariant: both hold the same keys.
//!
//! The table is many small ones. Rows are added while all readers wait, and a table that grows moves
//! all that it holds: as one, a layer's quarter of a million rows held everyone up for a tenth of a
//! second.

use std::cell::OnceCell;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::ops::Bound;

use bytes::Bytes;

/// Rows and what became of them, in no order; `None` means removed.
type Unordered = HashMap<Bytes, Option<Bytes>, foldhash::fast::RandomState>;

/// How many tables a layer's rows are spread over.
const PARTS: usize = 256;

/// Rows and what became of them, in parts that grow one by one.
#[derive(Default)]
struct Table {
    /// None until there is a row.
    parts: Vec<Unordered>,
    hasher: foldhash::fast::RandomState,
    len: usize,
}

impl Table {
    /// Which part a row is in. The parts have other hashes of their own.
    fn part_of(&self, row: &[u8]) -> usize {
        (self.hasher.hash_one(row) >> 40) as usize % PARTS
    }

    fn get(&self, row: &[u8]) -> Option<&Option<Bytes>> {
        if self.parts.is_empty() {
            return None;
        }
        self.parts[self.part_of(row)].get(row)
    }

    fn get_mut(&mut self, row: &[u8]) -> Option<&mut Option<Bytes>> {
        let part = self.part_of(row);
        self.parts.get_mut(part)?.get_mut(row)
    }

    /// Adds a row that is not there.
    fn add(&mut self, row: Bytes, value: Option<Bytes>) {
        if self.parts.is_empty() {
            self.parts.resize_with(PARTS, Unordered::default);
        }
        let part = self.part_of(&row);
        self.parts[part].insert(row, value);
        self.len += 1;
    }
}

/// Rows and what became of them; `None` means removed.
#[derive(Default)]
pub(super) struct Changes {
    table: Table,
    order: BTreeSet<Bytes>,
}

impl Changes {
    /// Sets a row; returns what was there.
    pub fn insert(&mut self, row: Bytes, value: Option<Bytes>) -> Option<Option<Bytes>> {
        if let Some(old) = self.table.get_mut(&row) {
            return Some(std::mem::replace(old, value));
        }
        self.order.insert(row.clone());
        self.table.add(row, value);
        None
    }

    pub fn get(&self, row: &[u8]) -> Option<&Option<Bytes>> {
        self.table.get(row)
    }

    pub fn is_empty(&self) -> bool {
        self.table.len == 0
    }

    pub fn len(&self) -> usize {
        self.table.len
    }

    pub fn clear(&mut self) {
        *self = Changes::default();
    }

    /// Rows with `first <= row < end`, ascending.
    pub fn range<'a>(
        &'a self,
        first: &[u8],
        end: Option<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&'a Bytes, &'a Option<Bytes>)> + 'a {
        range_of(|row| self.table.get(row), &self.order, first, end)
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
    ) -> impl DoubleEndedIterator<Item = (&'a Bytes, &'a Option<Bytes>)> + 'a {
        let order = self.order.get_or_init(|| self.table.keys().cloned().collect());
        range_of(|row| self.table.get(row), order, first, end)
    }

    pub fn into_iter(self) -> impl Iterator<Item = (Bytes, Option<Bytes>)> {
        self.table.into_iter()
    }
}

fn range_of<'a, G>(
    get: G,
    order: &'a BTreeSet<Bytes>,
    first: &[u8],
    end: Option<&[u8]>,
) -> impl DoubleEndedIterator<Item = (&'a Bytes, &'a Option<Bytes>)> + use<'a, G>
where
    G: Fn(&'a [u8]) -> Option<&'a Option<Bytes>>,
{
    let high = end.map_or(Bound::Unbounded, Bound::Excluded);
    let rows = order.range::<[u8], _>((Bound::Included(first), high));
    rows.map(move |row| (row, get(row).expect("the table holds what the order holds")))
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

#[test]
fn no_part_of_the_table_holds_much_more_than_its_share() {
    let mut all = Changes::default();
    assert!(all.is_empty() && all.get(b"0").is_none());
    let name = |n: usize| Bytes::from(n.to_string());
    for n in 0..100_000 {
        assert_eq!(all.insert(name(n), Some(name(n))), None);
    }
    assert_eq!(all.insert(name(7), None), Some(Some(name(7))));
    assert_eq!((all.len(), all.get(b"7"), all.get(b"x")), (100_000, Some(&None), None));
    assert_eq!(all.get(b"99999"), Some(&Some(name(99_999))));
    // What one addition may move.
    let largest = all.table.parts.iter().map(HashMap::len).max();
    assert!(largest < Some(3 * 100_000 / PARTS), "{largest:?}");
}
