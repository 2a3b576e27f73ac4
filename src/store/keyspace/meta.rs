//! The one row that says which databases there are, what they count, and what time it is.
//!
//! One row, because every batch advances the clock anyway, and a read then needs just one row
//! besides the key's own.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::store::{Rows, StoreError};

/// Logical databases, as SELECT counts them from 0.
pub const DATABASES: usize = 16;

const ROW: [u8; 5] = [0, 0, 0, 0, b'M'];
const FORMAT: u8 = 1;
const DATABASE_BYTES: usize = 4 + 8 + 8 + 8;
const DATABASES_AT: usize = 1 + 8 + 4;
const ROW_BYTES: usize = DATABASES_AT + DATABASES * DATABASE_BYTES;

/// One logical database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Database {
    /// Where its rows are.
    pub space: u32,
    /// Its keys; keys past their deadline count until their rows are gone.
    pub keys: u64,
    /// Those of them that have a deadline.
    pub keys_with_deadline: u64,
    /// No deadline is earlier, in ms since the epoch; `u64::MAX`: no deadline at all. May be too
    /// early after a deadline was removed; a clock entry makes it exact.
    pub earliest_ms: u64,
}

impl Database {
    pub(super) fn empty(space: u32) -> Database {
        Database { space, keys: 0, keys_with_deadline: 0, earliest_ms: u64::MAX }
    }

    fn decode(mut bytes: &[u8]) -> Database {
        Database {
            space: bytes.get_u32(),
            keys: bytes.get_u64(),
            keys_with_deadline: bytes.get_u64(),
            earliest_ms: bytes.get_u64(),
        }
    }
}

/// The keyspace as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The log's clock: the highest stamp of any applied batch, in ms since the epoch.
    pub clock_ms: u64,
    /// The space that the next emptied database gets.
    pub next_space: u32,
    /// The databases.
    pub databases: [Database; DATABASES],
}

impl Meta {
    /// The meta row, or what holds before the first batch.
    pub fn read(rows: &(impl Rows + ?Sized)) -> Result<Meta, StoreError> {
        let Some(row) = rows.get(&ROW)? else { return Ok(Meta::initial()) };
        let clock_ms = check(&row)?;
        let next_space = (&row[9..]).get_u32();
        let databases = std::array::from_fn(|database| database_of(&row, database));
        Ok(Meta { clock_ms, next_space, databases })
    }

    /// The log's clock and one database; the rest is not decoded.
    pub fn read_one(
        rows: &(impl Rows + ?Sized),
        database: u8,
    ) -> Result<(u64, Database), StoreError> {
        match rows.get(&ROW)? {
            Some(row) => Ok((check(&row)?, database_of(&row, usize::from(database)))),
            None => Ok((0, Meta::initial().databases[usize::from(database)])),
        }
    }

    fn initial() -> Meta {
        let databases = std::array::from_fn(|database| Database::empty(1 + database as u32));
        Meta { clock_ms: 0, next_space: 1 + DATABASES as u32, databases }
    }

    pub(super) fn row() -> Bytes {
        Bytes::from_static(&ROW)
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut row = BytesMut::with_capacity(ROW_BYTES);
        row.put_u8(FORMAT);
        row.put_u64(self.clock_ms);
        row.put_u32(self.next_space);
        for database in &self.databases {
            row.put_u32(database.space);
            row.put_u64(database.keys);
            row.put_u64(database.keys_with_deadline);
            row.put_u64(database.earliest_ms);
        }
        row.freeze()
    }

    /// A space that was never used before.
    pub(super) fn take_space(&mut self) -> u32 {
        let space = self.next_space;
        assert!(space < u32::MAX, "space {space} belongs to the store");
        self.next_space += 1;
        space
    }

    /// No deadline of any database is earlier; `None`: there is none.
    pub fn earliest_deadline_ms(&self) -> Option<u64> {
        let earliest = self.databases.iter().map(|database| database.earliest_ms).min();
        earliest.filter(|earliest| *earliest != u64::MAX)
    }
}

/// The log's clock, if the row is one of this version.
fn check(row: &[u8]) -> Result<u64, StoreError> {
    if row.len() != ROW_BYTES || row[0] != FORMAT {
        let text = format!("meta row of {} bytes, format {:?}", row.len(), row.first());
        return Err(StoreError::Damaged(text));
    }
    Ok((&row[1..]).get_u64())
}

fn database_of(row: &[u8], database: usize) -> Database {
    Database::decode(&row[DATABASES_AT + database * DATABASE_BYTES..])
}

/// No key's deadline is earlier, in ms since the epoch; `None`: no key has one. When it is due, a
/// clock entry deletes what is expired and makes it exact again.
pub fn earliest_deadline(rows: &(impl Rows + ?Sized)) -> Result<Option<u64>, StoreError> {
    Ok(Meta::read(rows)?.earliest_deadline_ms())
}
