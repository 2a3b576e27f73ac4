//! Deleting ranges of keys, at once or by a removal whose rows go later.

use super::removals::{BOUND_BYTES_MAX, KEPT_MS, REMOVALS_MAX, Removal, hider, put_finished};
use super::{Header, KeyRange, Keyspace, PREFIX_BYTES, Version, key_row, next_key};
use crate::planted::{Bug, plants};
use crate::store::StoreError;

/// How a range was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// Nothing was done: there are many rows, and a bound is longer than [`BOUND_BYTES_MAX`].
    BoundTooLong,
    /// So many keys were there.
    Now(u64),
    /// Nobody sees the keys any more; they are counted by the removal of this version.
    Later(Version),
    /// Not at all: there are as many unfinished removals as there may be.
    Refused,
}

/// Rows of a range, and where to go on.
struct FoundRows {
    rows: Vec<(Vec<u8>, Header)>,
    /// `None`: these were the last.
    next: Option<Vec<u8>>,
}

/// Bytes of values that are read at a time. All nodes must have the same number.
const BYTES_AT_ONCE_MAX: usize = 4 << 20;
/// A step of a bounded removal looks at so many times the rows that it removes. Newer keys in its
/// range would have to come at that rate to keep it from ending. All nodes must have the same
/// number.
const LOOKS: usize = 10;

/// How much is read at a time.
#[derive(Clone, Copy)]
struct Portion {
    /// Rows that are wanted.
    rows: usize,
    /// Rows that are looked at.
    looks: usize,
    bytes: usize,
}

impl Portion {
    fn new(rows: usize, looks: usize, bounded: bool) -> Portion {
        match bounded {
            true => Portion { rows, looks, bytes: BYTES_AT_ONCE_MAX },
            false => Portion { rows, looks: usize::MAX, bytes: usize::MAX },
        }
    }
}

impl Keyspace<'_> {
    /// Deletes all keys of a range of the selected database; at once where there are no more than
    /// `at_once_max` rows.
    pub fn remove_range(
        &mut self,
        range: KeyRange,
        at_once_max: usize,
    ) -> Result<Removed, StoreError> {
        let space = self.meta.databases[self.database].space;
        let portion = Portion::new(at_once_max, at_once_max, self.bounded);
        let found = self.some_rows(space, &range, portion, &|_, _| true)?;
        if found.next.is_none() {
            let mut removed = 0;
            for (key, header) in found.rows {
                let hidden = hider(&self.removals, space, &key, &header).is_some();
                if !hidden && !header.gone_at(self.meta.clock_ms) {
                    self.delete(&key, &header);
                    removed += 1;
                }
            }
            return Ok(Removed::Now(removed));
        }
        let end_bytes = range.end.as_ref().map_or(0, Vec::len);
        if range.first.len().max(end_bytes) > BOUND_BYTES_MAX {
            return Ok(Removed::BoundTooLong);
        }
        if self.unfinished().count() >= REMOVALS_MAX {
            return Ok(Removed::Refused);
        }
        // What this item sets afterwards is not before the removal.
        self.version.place += 1;
        self.changes += 1;
        let (version, clock_ms) = (self.version, self.meta.clock_ms);
        let (stepped_ms, removed, finished_ms, bounded) = (clock_ms, 0, 0, self.bounded);
        let range = if bounded { self.up_to_last(space, range)? } else { range };
        let removal =
            Removal { version, space, range, clock_ms, stepped_ms, removed, finished_ms, bounded };
        self.removals.push(removal);
        self.put_removal(self.removals.len() - 1);
        Ok(Removed::Later(version))
    }

    /// Looks at some more rows of the oldest unfinished removal, at most `limit`, and forgets
    /// removals that were finished long ago.
    pub fn go_on_removing(&mut self, limit: usize) -> Result<(), StoreError> {
        let clock_ms = self.meta.clock_ms;
        let long_ago = |removal: &mut Removal| {
            removal.finished_ms != 0 && removal.finished_ms.saturating_add(KEPT_MS) <= clock_ms
        };
        for forgotten in self.removals.extract_if(.., long_ago) {
            self.rows.delete(Removal::row(forgotten.version));
        }
        let unfinished = self.removals.iter().position(|removal| removal.finished_ms == 0);
        let Some(place) = unfinished else { return Ok(()) };
        let mut removal = self.removals[place].clone();
        // Other clock entries may come before.
        if clock_ms < removal.due_ms() {
            return Ok(());
        }
        let portion = Portion::new(limit, LOOKS * limit, removal.bounded);
        let wanted = |key: &[u8], header: &Header| !removal.bounded || removal.hides(key, header);
        let found = self.some_rows(removal.space, &removal.range, portion, &wanted)?;
        let database = self.database_of(removal.space);
        for (key, header) in &found.rows {
            if !removal.hides(key, header) {
                continue;
            }
            removal.removed += u64::from(!header.gone_at(removal.clock_ms));
            match database {
                Some(database) => self.remove(database, key, header),
                // An emptied database has no counts any more; but the next removal must not find
                // the row again.
                None => self.rows.delete(key_row(removal.space, key)),
            }
        }
        removal.stepped_ms = clock_ms;
        let finished = found.next.is_none();
        match found.next {
            Some(next) => removal.range.first = next,
            // 0 would mean that it is not finished.
            None => removal.finished_ms = clock_ms.max(1),
        }
        let space = removal.space;
        if finished && removal.bounded {
            self.removals.remove(place);
            self.rows.delete(Removal::row(removal.version));
            put_finished(self.rows, &removal)?;
        } else {
            self.removals[place] = removal;
            self.put_removal(place);
        }
        if finished && database.is_none() {
            self.retire_unless_counted(space);
        }
        Ok(())
    }

    /// When a clock entry has to do something about removals; one unfinished removal after the other
    /// has its turn.
    pub(super) fn removals_due_ms(&self) -> Option<u64> {
        let finished = self.removals.iter().filter(|removal| removal.finished_ms != 0);
        finished.chain(self.unfinished().next()).map(Removal::due_ms).min()
    }

    /// Retires the space of an emptied database, unless keys in it are still to be counted: then it
    /// is retired when they are.
    pub(super) fn retire_unless_counted(&mut self, space: u32) {
        if !self.unfinished().any(|removal| removal.space == space) {
            self.rows.retire_space(space);
        }
    }

    /// Counts a key whose row is about to go, if a removal hides it.
    pub(super) fn count_hidden(&mut self, space: u32, key: &[u8], header: &Header) {
        let Some(place) = hider(&self.removals, space, key, header) else { return };
        if !header.gone_at(self.removals[place].clock_ms) {
            self.removals[place].removed += 1;
            self.put_removal(place);
        }
    }

    fn put_removal(&mut self, place: usize) {
        let removal = &self.removals[place];
        self.rows.put(Removal::row(removal.version), removal.encode());
    }

    fn unfinished(&self) -> impl Iterator<Item = &Removal> {
        self.removals.iter().filter(|removal| removal.finished_ms == 0)
    }

    /// The database whose rows are in this space; `None`: it was emptied.
    fn database_of(&self, space: u32) -> Option<usize> {
        self.meta.databases.iter().position(|database| database.space == space)
    }

    /// The range without what lies behind its last row.
    fn up_to_last(&self, space: u32, range: KeyRange) -> Result<KeyRange, StoreError> {
        let Some((from, to)) = range.rows(space) else { return Ok(range) };
        let mut end = None;
        self.rows.scan(&from, Some(&to), true, &mut |row, _| {
            end = Some(next_key(&row[PREFIX_BYTES..]));
            false
        })?;
        let end = end.filter(|end| end.len() <= BOUND_BYTES_MAX).or(range.end);
        Ok(KeyRange { first: range.first, end })
    }

    /// The first wanted rows of a range, whether their keys are there or not.
    fn some_rows(
        &self,
        space: u32,
        range: &KeyRange,
        portion: Portion,
        wanted: &dyn Fn(&[u8], &Header) -> bool,
    ) -> Result<FoundRows, StoreError> {
        let mut found = FoundRows { rows: Vec::new(), next: None };
        let Some((from, to)) = range.rows(space) else { return Ok(found) };
        let (mut looks, mut bytes, mut last) = (0, 0, Vec::new());
        let mut damage = None;
        self.rows.scan(&from, Some(&to), false, &mut |row, value| {
            let key = &row[PREFIX_BYTES..];
            if found.rows.len() == portion.rows || looks == portion.looks || bytes >= portion.bytes
            {
                let skips = plants(Bug::RemovalSkipsRows);
                found.next = Some(next_key(if skips { key } else { &last }));
                return false;
            }
            looks += 1;
            bytes += row.len() + value.len();
            last.clear();
            last.extend_from_slice(key);
            match Header::decode(value) {
                Ok(header) if wanted(key, &header) => found.rows.push((key.to_vec(), header)),
                Ok(_) => (),
                Err(error) => damage = Some(error),
            }
            damage.is_none()
        })?;
        damage.map_or(Ok(found), Err)
    }
}
