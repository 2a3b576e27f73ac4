//! The one row that says which databases there are, what they count, and what time it is.
//!
//! One row, because every batch advances the clock anyway, and a read then needs just one row
//! besides the key's own.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::Version;
use crate::store::{Rows, StoreError};

/// Logical databases, as SELECT counts them from 0.
pub const DATABASES: usize = 16;

const ROW: [u8; 5] = [0, 0, 0, 0, b'M'];
/// Without removals; what every version of this program reads.
const FORMAT: u8 = 1;
/// With the two numbers about removals at the end; written only while there are any.
const FORMAT_REMOVALS: u8 = 2;
const REMOVALS_BYTES: usize = 4 + 8;
/// The same, and then the version of each; written only while there are any of format 2. A reader
/// then finds them by their names: to scan for them would ask the engine each time, and wait there
/// for whatever is being drained.
const FORMAT_LISTED: u8 = 3;
const VERSION_BYTES: usize = 8 + 4;
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
    /// Removals that have a row.
    pub removals: u32,
    /// When the first of them is due, in ms since the epoch; without meaning when there is none.
    pub removals_due_ms: u64,
}

impl Meta {
    /// The meta row, or what holds before the first batch.
    pub fn read(rows: &(impl Rows + ?Sized)) -> Result<Meta, StoreError> {
        let Some(row) = rows.get(&ROW)? else { return Ok(Meta::initial()) };
        let clock_ms = check(&row)?;
        let next_space = (&row[9..]).get_u32();
        let databases = std::array::from_fn(|database| database_of(&row, database));
        let mut rest = &row[ROW_BYTES..];
        let (removals, removals_due_ms) = match rest.is_empty() {
            true => (0, 0),
            false => (rest.get_u32(), rest.get_u64()),
        };
        Ok(Meta { clock_ms, next_space, databases, removals, removals_due_ms })
    }

    /// The log's clock, one database, and where its removals are; the rest is not decoded.
    pub(super) fn read_one(
        rows: &(impl Rows + ?Sized),
        database: u8,
    ) -> Result<(u64, Database, Removals), StoreError> {
        match rows.get(&ROW)? {
            Some(row) => {
                let clock_ms = check(&row)?;
                let database = database_of(&row, usize::from(database));
                Ok((clock_ms, database, removals_of(&row)))
            }
            None => Ok((0, Meta::initial().databases[usize::from(database)], Removals::None)),
        }
    }

    /// Where the removals are.
    pub(super) fn read_removals(rows: &(impl Rows + ?Sized)) -> Result<Removals, StoreError> {
        let Some(row) = rows.get(&ROW)? else { return Ok(Removals::None) };
        check(&row)?;
        Ok(removals_of(&row))
    }

    fn initial() -> Meta {
        let databases = std::array::from_fn(|database| Database::empty(1 + database as u32));
        let next_space = 1 + DATABASES as u32;
        Meta { clock_ms: 0, next_space, databases, removals: 0, removals_due_ms: 0 }
    }

    pub(super) fn row() -> Bytes {
        Bytes::from_static(&ROW)
    }

    /// `listed`: the versions of all removals, if they are to be listed.
    pub(super) fn encode(&self, listed: Option<&[Version]>) -> Bytes {
        let mut row = BytesMut::with_capacity(ROW_BYTES + REMOVALS_BYTES);
        row.put_u8(match (self.removals, listed) {
            (0, _) => FORMAT,
            (_, None) => FORMAT_REMOVALS,
            (_, Some(_)) => FORMAT_LISTED,
        });
        row.put_u64(self.clock_ms);
        row.put_u32(self.next_space);
        for database in &self.databases {
            row.put_u32(database.space);
            row.put_u64(database.keys);
            row.put_u64(database.keys_with_deadline);
            row.put_u64(database.earliest_ms);
        }
        if self.removals > 0 {
            row.put_u32(self.removals);
            row.put_u64(self.removals_due_ms);
            for version in listed.unwrap_or_default() {
                row.put_u64(version.index);
                row.put_u32(version.place);
            }
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

    /// No deadline of any database is earlier, and no removal is due before; `None`: there is none.
    pub fn earliest_deadline_ms(&self) -> Option<u64> {
        let removals = (self.removals > 0).then_some(self.removals_due_ms);
        let deadlines = self.databases.iter().map(|database| database.earliest_ms);
        let earliest = deadlines.chain(removals).min();
        earliest.filter(|earliest| *earliest != u64::MAX)
    }
}

/// The log's clock, if the row is one of this version.
fn check(row: &[u8]) -> Result<u64, StoreError> {
    let right = match row.first() {
        Some(&FORMAT) => row.len() == ROW_BYTES,
        Some(&FORMAT_REMOVALS) => row.len() == ROW_BYTES + REMOVALS_BYTES,
        Some(&FORMAT_LISTED) if row.len() >= ROW_BYTES + REMOVALS_BYTES => {
            let (removals, listed) = row[ROW_BYTES..].split_at(REMOVALS_BYTES);
            listed.len() as u64 == u64::from((&removals[..]).get_u32()) * VERSION_BYTES as u64
        }
        _ => false,
    };
    if !right {
        let text = format!("meta row of {} bytes, format {:?}", row.len(), row.first());
        return Err(StoreError::Damaged(text));
    }
    Ok((&row[1..]).get_u64())
}

/// Where the rows of removals are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Removals {
    None,
    /// To be searched.
    Unlisted,
    /// Of these versions.
    Listed(Vec<Version>),
}

/// The row is checked.
fn removals_of(row: &[u8]) -> Removals {
    match row[0] {
        FORMAT => Removals::None,
        FORMAT_REMOVALS => Removals::Unlisted,
        _ => {
            let listed = row[ROW_BYTES + REMOVALS_BYTES..].chunks_exact(VERSION_BYTES);
            let version =
                |mut bytes: &[u8]| Version { index: bytes.get_u64(), place: bytes.get_u32() };
            Removals::Listed(listed.map(version).collect())
        }
    }
}

fn database_of(row: &[u8], database: usize) -> Database {
    Database::decode(&row[DATABASES_AT + database * DATABASE_BYTES..])
}

/// No key's deadline is earlier, in ms since the epoch, and no removal is due before; `None`: there
/// is nothing to do. When it is due, a clock entry does it and makes it exact again.
pub fn earliest_deadline(rows: &(impl Rows + ?Sized)) -> Result<Option<u64>, StoreError> {
    Ok(Meta::read(rows)?.earliest_deadline_ms())
}
