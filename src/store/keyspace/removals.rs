//! Ranges of keys that are gone although their rows are still there.
//!
//! To delete a million rows in one log entry would hold up everyone behind it. Instead the entry
//! writes one row that says: every key of this range is gone that was last changed before this
//! version. From then on nobody sees those keys. Clock entries remove the rows, a bounded number
//! each, and count the keys; whoever asked for the removal waits for the count. All of it is rows
//! and entries, so it is the same on every node.
//!
//! ```text
//! row:    space 0, tag `R`, version: index u64, place u32
//! value:  format u8 = 1 or 2, space u32, clock_ms u64, stepped_ms u64, removed u64,
//!         finished_ms u64, length of first u32, first, 1 and end, or 0
//!
//! row:    space 0, tag `F`, version as above: a removal of format 2 that is finished
//! value:  format u8 = 1, removed u64
//! ```
//!
//! A removal outlives the emptying of its database: the space is retired when the count is
//! complete. The count of a finished one is kept for a while, for whoever still waits for it.
//!
//! Format 2 is what entries of a bounded level write (`command::batch`). Its steps are bounded in
//! bytes too; it ends behind the last key that was there when it began, and a step may look at many
//! more rows than it removes, so that newer keys in the range cannot keep it from ending; and when
//! it is finished it leaves the removals that every reader looks at. One of format 1 goes on as the
//! versions before would have it.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::meta::Removals;
use super::{Header, KeyRange, Meta, Version};
use crate::planted::{Bug, plants};
use crate::store::{Rows, RowsMut, StoreError};

const PREFIX: [u8; 5] = [0, 0, 0, 0, b'R'];
const PREFIX_END: [u8; 5] = [0, 0, 0, 0, b'R' + 1];
const FORMAT: u8 = 1;
const FORMAT_BOUNDED: u8 = 2;
const FINISHED: [u8; 5] = [0, 0, 0, 0, b'F'];
const FINISHED_END: [u8; 5] = [0, 0, 0, 0, b'F' + 1];
const FORMAT_FINISHED: u8 = 1;

/// Unfinished removals there may be at once: every read compares keys with all of them.
pub const REMOVALS_MAX: usize = 64;
/// Longest bound of a removal that is not done at once: all removals stand in the head, and a row of
/// it is limited. All nodes must have the same number.
pub const BOUND_BYTES_MAX: usize = 64 << 10;
/// Between one step and the next of all removals, so that others' updates have most of the time.
pub const STEP_EVERY_MS: u64 = 10;
/// How long the count of a finished removal of format 1 is kept.
pub const KEPT_MS: u64 = 60_000;
/// Counts of other finished removals that are kept: the newest. A removal takes a step of
/// [`STEP_EVERY_MS`] at least, so who asks every second finds the count. All nodes must have the
/// same number.
pub const FINISHED_MAX: usize = 256;

/// One removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Keys changed before it are gone. It also names the removal.
    pub version: Version,
    /// Where the keys are.
    pub space: u32,
    /// The keys. What lies before its first one has no rows left that the removal hides.
    pub range: KeyRange,
    /// The log's clock when it was begun: keys expired by then do not count.
    pub clock_ms: u64,
    /// The log's clock when rows were last removed.
    pub stepped_ms: u64,
    /// Keys counted so far.
    pub removed: u64,
    /// When the last row was removed, by the log's clock; 0: there may be more.
    pub finished_ms: u64,
    /// Of format 2.
    pub bounded: bool,
}

impl Removal {
    /// Whether a key of its space, with this header, is gone.
    pub fn hides(&self, key: &[u8], header: &Header) -> bool {
        let older = header.version < self.version || plants(Bug::RemovalHidesNewerKeys);
        self.finished_ms == 0 && older && self.range.contains(key)
    }

    /// When a clock entry has to do something about it.
    pub fn due_ms(&self) -> u64 {
        match self.finished_ms {
            0 => self.stepped_ms.saturating_add(STEP_EVERY_MS),
            finished_ms => finished_ms.saturating_add(KEPT_MS),
        }
    }

    pub(super) fn row(version: Version) -> Bytes {
        row_of(&PREFIX, version)
    }
    pub(super) fn encode(&self) -> Bytes {
        let mut value = BytesMut::new();
        value.put_u8(if self.bounded { FORMAT_BOUNDED } else { FORMAT });
        value.put_u32(self.space);
        value.put_u64(self.clock_ms);
        value.put_u64(self.stepped_ms);
        value.put_u64(self.removed);
        value.put_u64(self.finished_ms);
        value.put_u32(self.range.first.len() as u32);
        value.put_slice(&self.range.first);
        match &self.range.end {
            Some(end) => {
                value.put_u8(1);
                value.put_slice(end);
            }
            None => value.put_u8(0),
        }
        value.freeze()
    }

    fn decode(row: &[u8], value: &[u8]) -> Option<Removal> {
        let mut name = row.strip_prefix(&PREFIX).filter(|name| name.len() == 12)?;
        let version = Version { index: name.get_u64(), place: name.get_u32() };
        let (format, rest) = value.split_first()?;
        let bounded = match *format {
            FORMAT => false,
            FORMAT_BOUNDED => true,
            _ => return None,
        };
        let mut rest = Some(rest).filter(|rest| rest.len() >= 40)?;
        let (space, clock_ms) = (rest.get_u32(), rest.get_u64());
        let (stepped_ms, removed, finished_ms) = (rest.get_u64(), rest.get_u64(), rest.get_u64());
        let length = rest.get_u32() as usize;
        let (first, rest) = rest.split_at_checked(length)?;
        let end = match rest.split_first()? {
            (0, []) => None,
            (1, end) => Some(end.to_vec()),
            _ => return None,
        };
        let range = KeyRange { first: first.to_vec(), end };
        let removal =
            Removal { version, space, range, clock_ms, stepped_ms, removed, finished_ms, bounded };
        Some(removal)
    }

    /// All removals, the oldest first.
    pub(super) fn read_all(
        rows: &(impl Rows + ?Sized),
        places: Removals,
    ) -> Result<Vec<Removal>, StoreError> {
        let damage = || StoreError::Damaged("a removal's row".into());
        let mut removals = Vec::new();
        match places {
            Removals::None => return Ok(removals),
            Removals::Unlisted => (),
            Removals::Listed(versions) => {
                for version in versions {
                    let row = Removal::row(version);
                    let value = rows.get(&row)?.ok_or_else(damage)?;
                    removals.push(Removal::decode(&row, &value).ok_or_else(damage)?);
                }
                return Ok(removals);
            }
        }
        let mut damaged = false;
        rows.scan(&PREFIX, Some(&PREFIX_END), false, &mut |row, value| {
            let removal = Removal::decode(row, value);
            damaged |= removal.is_none();
            removals.extend(removal);
            !damaged
        })?;
        match damaged {
            true => Err(damage()),
            false => Ok(removals),
        }
    }

    /// When rows of removals that are not finished were last removed, by the log's clock; `None`:
    /// there are no such removals.
    pub fn last_step_ms(rows: &dyn Rows) -> Result<Option<u64>, StoreError> {
        let removals = Removal::read_all(rows, Meta::read_removals(rows)?)?;
        let unfinished = removals.iter().filter(|removal| removal.finished_ms == 0);
        Ok(unfinished.map(|removal| removal.stepped_ms).max())
    }

    /// How many keys a removal has removed once it is finished; `None`: it is not, or it was
    /// finished so long ago that nobody knows any more.
    pub fn finished(rows: &dyn Rows, version: Version) -> Result<Option<Option<u64>>, StoreError> {
        if let Some(mut value) = rows.get(&row_of(&FINISHED, version))? {
            if value.len() != 9 || value.get_u8() != FORMAT_FINISHED {
                return Err(StoreError::Damaged("a finished removal's row".into()));
            }
            return Ok(Some(Some(value.get_u64())));
        }
        let row = Removal::row(version);
        let Some(value) = rows.get(&row)? else { return Ok(None) };
        let removal = Removal::decode(&row, &value);
        let removal = removal.ok_or_else(|| StoreError::Damaged("a removal's row".into()))?;
        Ok(Some((removal.finished_ms != 0).then_some(removal.removed)))
    }
}

fn row_of(prefix: &[u8; 5], version: Version) -> Bytes {
    let mut row = BytesMut::with_capacity(prefix.len() + 12);
    row.put_slice(prefix);
    row.put_u64(version.index);
    row.put_u32(version.place);
    row.freeze()
}

/// Keeps the count of a removal, and the newest of those that are there.
pub(super) fn put_finished(rows: &mut dyn RowsMut, removal: &Removal) -> Result<(), StoreError> {
    let mut value = BytesMut::with_capacity(9);
    value.put_u8(FORMAT_FINISHED);
    value.put_u64(removal.removed);
    rows.put(row_of(&FINISHED, removal.version), value.freeze());
    let mut kept = Vec::new();
    rows.scan(&FINISHED, Some(&FINISHED_END), true, &mut |row, _| {
        kept.push(Bytes::copy_from_slice(row));
        kept.len() <= FINISHED_MAX
    })?;
    for row in kept.into_iter().skip(FINISHED_MAX) {
        rows.delete(row);
    }
    Ok(())
}

/// Place of the removal that a key of this space is gone by: the first one after its last change.
pub(super) fn hider(
    removals: &[Removal],
    space: u32,
    key: &[u8],
    header: &Header,
) -> Option<usize> {
    removals.iter().position(|removal| removal.space == space && removal.hides(key, header))
}
