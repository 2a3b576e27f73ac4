//! Reading one database.

use std::cell::Cell;

use super::meta::{Database, Meta};
use super::{PREFIX_BYTES, Stored, TAG_KEY, Version, prefix, with_key_row};
use crate::planted::{Bug, plants};
use crate::store::keyspace::Header;
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
    due: Cell<bool>,
}

impl<'a> View<'a> {
    /// A view of a logical database, below [`super::DATABASES`].
    pub fn open(rows: &'a dyn Rows, database: u8, now_ms: u64) -> Result<View<'a>, StoreError> {
        let (clock_ms, database) = Meta::read_one(rows, database)?;
        Ok(View::of(rows, database, clock_ms, now_ms))
    }

    pub(super) fn of(
        rows: &'a dyn Rows,
        database: Database,
        clock_ms: u64,
        now_ms: u64,
    ) -> View<'a> {
        View { rows, database, clock_ms, now_ms: now_ms.max(clock_ms), due: Cell::new(false) }
    }

    /// The current time of the log, in ms since the epoch; what remaining lifetimes count from.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Keys in the database, those expired but not yet deleted included.
    pub fn keys(&self) -> u64 {
        self.database.keys
    }

    /// Whether a key was met that is due but not yet gone by the log's clock.
    pub fn met_due(&self) -> bool {
        self.due.get()
    }

    /// The key, if it is there.
    pub fn find(&self, key: &[u8]) -> Result<Option<Stored>, StoreError> {
        let Some(row) = with_key_row(self.database.space, key, |row| self.rows.get(row))? else {
            return Ok(None);
        };
        let stored = Stored::decode(row)?;
        Ok(self.is_there(&stored.header).then_some(stored))
    }

    /// The key's version; [`Version::ABSENT`] when it is not there.
    pub fn version(&self, key: &[u8]) -> Result<Version, StoreError> {
        Ok(self.find(key)?.map_or(Version::ABSENT, |stored| stored.header.version))
    }

    /// Visits the keys from `first` (itself excluded when `after`) to before `end` (`None`: to the
    /// last), ascending, until `visit` returns false.
    pub fn scan(
        &self,
        first: &[u8],
        after: bool,
        end: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &Header) -> bool,
    ) -> Result<(), StoreError> {
        let row_of = |tag: u8, key: &[u8]| {
            let mut row = prefix(self.database.space, tag).to_vec();
            row.extend_from_slice(key);
            row
        };
        let mut from = row_of(TAG_KEY, first);
        if after {
            // The smallest byte string above `first`.
            from.push(0);
        }
        let to = match end {
            Some(end) => row_of(TAG_KEY, end),
            None => row_of(TAG_KEY + 1, &[]),
        };
        if from >= to {
            return Ok(());
        }
        let mut damage = None;
        self.rows.scan(&from, Some(&to), false, &mut |row, value| match Header::decode(value) {
            Ok(header) if self.is_there(&header) => visit(&row[PREFIX_BYTES..], &header),
            Ok(_) => true,
            Err(error) => {
                damage = Some(error);
                false
            }
        })?;
        damage.map_or(Ok(()), Err)
    }

    fn is_there(&self, header: &Header) -> bool {
        if header.gone_at(self.clock_ms) {
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
