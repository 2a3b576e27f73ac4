//! Reading one database.

use std::cell::Cell;

use bytes::Bytes;

use super::meta::{Database, Meta};
use super::removals::{Removal, hider};
use super::{HEADER_BYTES, Header, KeyRange, PREFIX_BYTES, Stored, Version, with_key_row};
use crate::planted::{Bug, plants};
use crate::store::{Rows, StoreError};

/// One database as it was after some log entry.
///
/// A reader may know that the log's clock is behind: `now_ms` is what the next entry would be
/// stamped with. A key whose deadline lies between the two is neither surely there nor surely gone;
/// the view answers as if it were there and notes that it met one ([`View::met_due`]). The reader
/// must then not use the answer, but have the log's clock advanced and read again.
pub struct View<'a> {
    rows: &'a dyn Rows,
    database: Database,
    clock_ms: u64,
    now_ms: u64,
    seed: u64,
    /// Unfinished ones of this database.
    removals: Vec<Removal>,
    due: Cell<bool>,
    hits: Cell<u64>,
    misses: Cell<u64>,
}

impl<'a> View<'a> {
    /// A view of a logical database, below [`super::DATABASES`]. Anything random is derived from
    /// `seed`.
    pub fn open(
        rows: &'a dyn Rows,
        database: u8,
        now_ms: u64,
        seed: u64,
    ) -> Result<View<'a>, StoreError> {
        let (clock_ms, database, has_removals) = Meta::read_one(rows, database)?;
        let removals = if has_removals { Removal::read_all(rows)? } else { Vec::new() };
        Ok(View::of(rows, database, clock_ms, now_ms, seed, &removals))
    }

    pub(super) fn of(
        rows: &'a dyn Rows,
        database: Database,
        clock_ms: u64,
        now_ms: u64,
        seed: u64,
        removals: &[Removal],
    ) -> View<'a> {
        let (now_ms, due) = (now_ms.max(clock_ms), Cell::new(false));
        let here = |removal: &&Removal| removal.space == database.space && removal.finished_ms == 0;
        let removals = removals.iter().filter(here).cloned().collect();
        let (hits, misses) = (Cell::new(0), Cell::new(0));
        View { rows, database, clock_ms, now_ms, seed, removals, due, hits, misses }
    }

    /// What anything random is derived from: the same for the same entry on every node.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The current time of the log, in ms since the epoch; what remaining lifetimes count from.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Keys in the database, those included that are expired, or hidden by a removal, and whose rows
    /// are still there.
    pub fn keys(&self) -> u64 {
        self.database.keys
    }

    /// Whether a key was met that is due but not yet gone by the log's clock.
    pub fn met_due(&self) -> bool {
        self.due.get()
    }

    /// The key, if it is there.
    pub fn find(&self, key: &[u8]) -> Result<Option<Stored>, StoreError> {
        let found = self.look_up(key)?;
        let count = if found.is_some() { &self.hits } else { &self.misses };
        count.set(count.get() + 1);
        Ok(found)
    }

    /// How many keys [`View::find`] found, and missed.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits.get(), self.misses.get())
    }

    fn look_up(&self, key: &[u8]) -> Result<Option<Stored>, StoreError> {
        let Some(row) = with_key_row(self.database.space, key, |row| self.rows.get(row))? else {
            return Ok(None);
        };
        let stored = Stored::decode(row)?;
        Ok(self.is_there(key, &stored.header).then_some(stored))
    }

    /// The key's version; [`Version::ABSENT`] when it is not there.
    pub fn version(&self, key: &[u8]) -> Result<Version, StoreError> {
        Ok(self.look_up(key)?.map_or(Version::ABSENT, |stored| stored.header.version))
    }

    /// Visits the keys of a range, ascending or, when `reverse`, descending, until `visit` returns
    /// false. It gets the key, its header and, for a string, the bytes.
    pub fn scan(
        &self,
        range: &KeyRange,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &Header, &Bytes) -> bool,
    ) -> Result<(), StoreError> {
        let Some((from, to)) = range.rows(self.database.space) else { return Ok(()) };
        let mut damage = None;
        self.rows.scan(&from, Some(&to), reverse, &mut |row, value| {
            let key = &row[PREFIX_BYTES..];
            match Header::decode(value) {
                Ok(header) if self.is_there(key, &header) => {
                    visit(key, &header, &value.slice(HEADER_BYTES..))
                }
                Ok(_) => true,
                Err(error) => {
                    damage = Some(error);
                    false
                }
            }
        })?;
        damage.map_or(Ok(()), Err)
    }

    fn is_there(&self, key: &[u8], header: &Header) -> bool {
        let hidden = hider(&self.removals, self.database.space, key, header).is_some();
        if hidden || header.gone_at(self.clock_ms) {
            return false;
        }
        if header.gone_at(self.now_ms) {
            if plants(Bug::ExpiryByReadersClock) {
                return false;
            }
            self.due.set(true);
        }
        true
    }
}
