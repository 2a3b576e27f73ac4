//! What one entry changed, by key.

use std::cell::OnceCell;
use std::collections::BTreeSet;

use bytes::Bytes;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::changes::{Changed, InOrder, Sought, range_of, rehash};

/// The changes of one entry. Hardly any is scanned; one that is gets its order then, and keeps it.
#[derive(Default)]
pub(super) struct EntryChanges {
    table: HashTable<Changed>,
    order: OnceCell<BTreeSet<InOrder>>,
}

impl EntryChanges {
    /// Makes room for so many more rows.
    pub fn reserve(&mut self, rows: usize) {
        self.table.reserve(rows, rehash);
    }

    /// Sets a row; returns what was there.
    pub fn insert(&mut self, row: Bytes, value: Option<Bytes>) -> Option<Option<Bytes>> {
        let changed = Changed::new(row, value);
        let sought = changed.sought();
        match self.table.entry(sought.known_hash(), |other| sought.is(other), rehash) {
            Entry::Occupied(mut occupied) => {
                Some(std::mem::replace(&mut occupied.get_mut().value, changed.value))
            }
            Entry::Vacant(vacant) => {
                if let Some(order) = self.order.get_mut() {
                    order.insert(InOrder::new(changed.row.clone()));
                }
                vacant.insert(changed);
                None
            }
        }
    }

    /// Forgets that a row was changed.
    pub fn remove(&mut self, row: &[u8]) {
        let sought = Sought::new(row);
        if let Ok(found) = self.table.find_entry(sought.known_hash(), |changed| sought.is(changed))
        {
            found.remove();
        }
        if let Some(order) = self.order.get_mut() {
            order.remove(row);
        }
    }

    pub fn get(&self, sought: Sought) -> Option<&Option<Bytes>> {
        let found = self.table.find(sought.known_hash(), |changed| sought.is(changed));
        found.map(|changed| &changed.value)
    }

    /// Rows with `first <= row < end`, ascending.
    pub fn range<'a>(
        &'a self,
        first: &[u8],
        end: Option<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&'a Bytes, &'a Option<Bytes>)> + 'a {
        let all = || self.table.iter().map(|changed| InOrder::new(changed.row.clone())).collect();
        range_of(|sought| self.get(sought), self.order.get_or_init(all), first, end)
    }

    pub fn into_iter(self) -> impl Iterator<Item = Changed> {
        self.table.into_iter()
    }
}
