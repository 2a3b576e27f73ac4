//! Rows: the sorted map of byte strings that the whole keyspace is made of.
//!
//! Everything above (keys, deadlines, counters, databases) is rows; everything below (layers,
//! journal, sled) knows nothing but rows. The first four bytes of a row are its space; see
//! `keyspace.rs` for who uses which.

use bytes::Bytes;

/// The store cannot answer. Always ends the node; never an answer to a client.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system said no.
    #[error("store: {0}")]
    Io(#[from] std::io::Error),
    /// The engine said no.
    #[error("store engine: {0}")]
    Engine(String),
    /// Bytes that this version cannot have written.
    #[error("store damaged: {0}")]
    Damaged(String),
    /// Memory alone does not have it, and to wait was not allowed. With the next one, an error that
    /// nothing is wrong with: who asked tries again and waits.
    #[error("the row is not in memory")]
    NotInMemory,
    /// It would take long, or somebody else is at it, and to wait was not allowed.
    #[error("the store would have to wait")]
    WouldWait,
    /// The whole state is being replaced, or was replaced since this view was taken.
    #[error("the store is being replaced by a head")]
    Replaced,
}

/// A consistent, readable view of all rows.
pub trait Rows {
    /// The row's value; `None` when there is no such row.
    fn get(&self, row: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Shows the row's value, if there is such a row, without taking it.
    fn peek(&self, row: &[u8], look: &mut dyn FnMut(&[u8])) -> Result<(), StoreError> {
        self.get(row)?.iter().for_each(|value| look(value));
        Ok(())
    }

    /// From now on a row that is not in memory is refused with [`StoreError::NotInMemory`]: to fetch
    /// it may take long. Only a hint; does nothing where it cannot be told.
    fn refuse_to_wait(&self) {}

    /// From now on a scan is refused with [`StoreError::WouldWait`] if many rows had to be put in order
    /// for it: all updates would wait meanwhile. Only a hint, too.
    fn refuse_to_put_in_order(&self) {}

    /// Says which rows are about to be looked at, so that their places in memory are fetched beside
    /// each other instead of one after the other. Only a hint.
    fn touch(&self, _rows: &RowList) {}

    /// Visits the rows with `first <= row < end` (`end` `None`: to the last row), ascending, or
    /// descending when `reverse`, until `visit` returns false.
    fn scan(
        &self,
        first: &[u8],
        end: Option<&[u8]>,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &Bytes) -> bool,
    ) -> Result<(), StoreError>;

    /// The same; also visits removed rows that it has to step over, without a value, because they
    /// take time as well. Which these are differs between nodes: only a reader may ask, never an
    /// entry that is being applied.
    fn scan_with_removed(
        &self,
        first: &[u8],
        end: Option<&[u8]>,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], Option<&Bytes>) -> bool,
    ) -> Result<(), StoreError> {
        self.scan(first, end, reverse, &mut |row, value| visit(row, Some(value)))
    }
}

/// Rows one behind the other in memory, in any order.
#[derive(Default)]
pub struct RowList {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl RowList {
    /// Adds the row that consists of these parts.
    pub fn add(&mut self, parts: &[&[u8]]) {
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.ends.push(self.bytes.len());
    }

    /// The rows.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut from = 0;
        self.ends.iter().map(move |&end| &self.bytes[std::mem::replace(&mut from, end)..end])
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Takes all rows out.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

/// Rows that one log entry is changing. Reads see the changes made so far; nobody else sees any of
/// them before the whole entry is committed.
pub trait RowsMut: Rows {
    /// Sets a row. `row` owns its memory, so that it does not keep a whole log entry alive.
    fn put(&mut self, row: Bytes, value: Bytes);
    /// Removes a row, if it is there.
    fn delete(&mut self, row: Bytes);
    /// The same as [`Rows::touch`] of rows that are about to be changed.
    fn expect(&mut self, _rows: &RowList) {}
    /// Says that there is no row in `first..=last`, of one space, and never will be again: scans of
    /// later entries need not step over what was removed there. Only a hint. One range for each
    /// space: the last one counts.
    fn stays_empty(&mut self, _first: Bytes, _last: Bytes) {}
    /// Whether this may take long. Otherwise only little is to be done, all else is refused with
    /// [`StoreError::WouldWait`].
    fn may_wait(&self) -> bool {
        true
    }
    /// Forgets a whole space at once, in constant time: no row in it will be read or written again.
    /// The store frees the room later.
    fn retire_space(&mut self, space: u32);
    /// Starts a part that can be undone. Parts do not nest.
    fn begin_part(&mut self);
    /// Keeps what was done since [`RowsMut::begin_part`].
    fn keep_part(&mut self);
    /// Undoes what was done since [`RowsMut::begin_part`].
    fn undo_part(&mut self);
}
