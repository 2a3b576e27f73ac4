//! Changing the keyspace, as one log entry does.

use bytes::{Buf, Bytes};

use super::meta::{DATABASES, Database, Meta};
use super::removals::{Removal, hider};
use super::{
    Header, PREFIX_BYTES, Stored, TAG_DEADLINE, TAG_KEY, Type, Version, View, deadline_row,
    key_row, prefix, with_key_row,
};
use crate::store::{RowList, Rows, RowsMut, StoreError};

/// The keyspace while one log entry is applied. [`Keyspace::finish`] must be called at the end:
/// counts and clock are kept aside until then.
pub struct Keyspace<'a> {
    pub(super) rows: &'a mut dyn RowsMut,
    pub(super) meta: Meta,
    pub(super) database: usize,
    pub(super) version: Version,
    pub(super) changes: u64,
    /// All that have a row, the oldest first.
    pub(super) removals: Vec<Removal>,
    /// What the running part began with; `None` when no part is running.
    part: Option<(Meta, Vec<Removal>, u64)>,
    /// Whether removals that begin now are bounded.
    pub(super) bounded: bool,
    /// What anything random in the entry is derived from.
    seed: u64,
}

impl<'a> Keyspace<'a> {
    /// Begins the entry at `index`, stamped `stamp_ms`. The log's clock never goes back. Anything
    /// random is derived from `seed`.
    pub fn begin(
        rows: &'a mut dyn RowsMut,
        index: u64,
        stamp_ms: u64,
        seed: u64,
    ) -> Result<Keyspace<'a>, StoreError> {
        let mut meta = Meta::read(&*rows)?;
        meta.clock_ms = meta.clock_ms.max(stamp_ms);
        let version = Version { index, place: 0 };
        let removals = Removal::read_all(&*rows, Meta::read_removals(&*rows)?)?;
        let (database, changes, part, bounded) = (0, 0, None, false);
        Ok(Keyspace { rows, meta, database, version, changes, removals, part, bounded, seed })
    }

    /// Writes counts and clock; what the keyspace is after the entry.
    pub fn finish(mut self) -> Meta {
        assert!(self.part.is_none(), "an entry ends inside a part");
        self.meta.removals = self.removals.len() as u32;
        self.meta.removals_due_ms = self.removals_due_ms().unwrap_or(0);
        let listed = self.removals.iter().any(|removal| removal.bounded);
        let versions: Vec<Version> = self.removals.iter().map(|removal| removal.version).collect();
        self.rows.put(Meta::row(), self.meta.encode(listed.then_some(&versions)));
        self.meta
    }

    /// Whether what follows is bounded, as `command::batch` says of its levels.
    pub fn bound(&mut self, bounded: bool) {
        self.bounded = bounded;
    }

    /// What follows is the entry's next item, and has another version than what was before.
    pub fn next_item(&mut self) {
        self.version.place += 1;
    }

    /// Starts a part that can be undone. Parts do not nest.
    pub fn begin_part(&mut self) {
        self.rows.begin_part();
        self.part = Some((self.meta, self.removals.clone(), self.changes));
    }

    /// Keeps what was done since [`Keyspace::begin_part`].
    pub fn keep_part(&mut self) {
        self.rows.keep_part();
        self.part = None;
    }

    /// Undoes what was done since [`Keyspace::begin_part`].
    pub fn undo_part(&mut self) {
        self.rows.undo_part();
        let before = self.part.take().expect("the rows have checked that a part was begun");
        (self.meta, self.removals, self.changes) = before;
    }

    /// What follows concerns this logical database, below [`DATABASES`].
    pub fn select(&mut self, database: u8) {
        assert!(usize::from(database) < DATABASES, "database {database} of {DATABASES}");
        self.database = usize::from(database);
    }

    /// The database that [`Keyspace::select`] chose.
    pub fn selected(&self) -> u8 {
        self.database as u8
    }

    /// The log's clock, in ms since the epoch.
    pub fn clock_ms(&self) -> u64 {
        self.meta.clock_ms
    }

    /// Changes made to keys since the entry began; deleting expired ones is none.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Adds the row of a key in a database, as it is numbered now, to those that
    /// [`Keyspace::expect`] is to be told of.
    pub fn add_expected(&self, rows: &mut RowList, database: u8, key: &[u8]) {
        let space = self.meta.databases[usize::from(database)].space;
        rows.add(&[&prefix(space, TAG_KEY), key]);
    }

    /// See [`RowsMut::may_wait`].
    pub fn may_wait(&self) -> bool {
        self.rows.may_wait()
    }

    /// Says which rows the next items look at, see [`RowsMut::expect`].
    pub fn expect(&mut self, rows: &RowList) {
        self.rows.expect(rows);
    }

    /// The selected database as it is now.
    pub fn view(&self) -> View<'_> {
        let clock_ms = self.meta.clock_ms;
        let rows: &dyn Rows = &*self.rows;
        // Another one for each item.
        let seed = self.seed.wrapping_add(u64::from(self.version.place));
        View::of(rows, self.meta.databases[self.database], clock_ms, clock_ms, seed, &self.removals)
    }

    /// The key, if it is there. The row of one that is expired or hidden is deleted.
    pub fn find(&mut self, key: &[u8]) -> Result<Option<Stored>, StoreError> {
        let space = self.now().space;
        let Some(row) = with_key_row(space, key, |row| self.rows.get(row))? else {
            return Ok(None);
        };
        let stored = Stored::decode(row)?;
        Ok(self.keep_visible(key, &stored.header).then_some(stored))
    }

    /// The same, for who needs the header alone.
    pub fn find_header(&mut self, key: &[u8]) -> Result<Option<Header>, StoreError> {
        let space = self.now().space;
        let mut header = None;
        let mut decode = |row: &[u8]| header = Some(Header::decode(row));
        with_key_row(space, key, |row| self.rows.peek(row, &mut decode))?;
        let Some(header) = header.transpose()? else { return Ok(None) };
        Ok(self.keep_visible(key, &header).then_some(header))
    }

    /// Whether a key that has a row is there. The row of one that is not is deleted.
    fn keep_visible(&mut self, key: &[u8], header: &Header) -> bool {
        let space = self.now().space;
        let hidden = hider(&self.removals, space, key, header).is_some();
        let gone = hidden || header.gone_at(self.meta.clock_ms);
        if gone {
            self.remove_gone(self.database, key, header);
        }
        !gone
    }

    /// Sets a string. `deadline_ms` 0: it never expires; one not after the log's clock deletes the
    /// key instead. `old`: what [`Keyspace::find`] just answered.
    pub fn put_string(&mut self, key: &[u8], value: &[u8], deadline_ms: u64, old: Option<&Header>) {
        let size = value.len() as u64;
        let header = Header { kind: Type::String, version: self.version, deadline_ms, size };
        self.put(key, header, value, old);
    }

    /// Gives a key another deadline (0: none); one not after the log's clock deletes it.
    pub fn set_deadline(&mut self, key: &[u8], stored: &Stored, deadline_ms: u64) {
        let header = Header { version: self.version, deadline_ms, ..stored.header };
        self.put(key, header, &stored.content(), Some(&stored.header));
    }

    /// Gives a key of the selected database what another one is, deadline included. `old`: what
    /// [`Keyspace::find`] just answered for the key.
    pub fn put_copy(&mut self, key: &[u8], source: &Stored, old: Option<&Header>) {
        let header = Header { version: self.version, ..source.header };
        self.put(key, header, &source.content(), old);
    }

    /// Lets two databases change places.
    pub fn swap_databases(&mut self, one: u8, other: u8) {
        self.changes += 1;
        self.meta.databases.swap(usize::from(one), usize::from(other));
    }

    /// Deletes a key that is there.
    pub fn delete(&mut self, key: &[u8], header: &Header) {
        self.changes += 1;
        self.remove(self.database, key, header);
    }

    /// Empties the selected database in constant time.
    pub fn flush_database(&mut self) {
        self.changes += 1;
        self.empty(self.database);
    }

    /// Empties all databases in constant time.
    pub fn flush_all(&mut self) {
        self.changes += 1;
        (0..DATABASES).for_each(|database| self.empty(database));
    }

    /// Deletes expired keys, at most `limit`, and finds each database's earliest deadline anew.
    /// Returns how many it deleted.
    pub fn delete_expired(&mut self, limit: usize) -> Result<usize, StoreError> {
        let clock_ms = self.meta.clock_ms;
        let mut deleted = 0;
        for database in 0..DATABASES {
            let from_ms = self.meta.databases[database].earliest_ms;
            if from_ms > clock_ms {
                continue;
            }
            let mut expired: Vec<(u64, Bytes)> = Vec::new();
            let mut earliest_ms = u64::MAX;
            let space = self.meta.databases[database].space;
            // Not from the first row that ever was: the store may have to step over those that are gone.
            let first = deadline_row(space, from_ms, b"");
            let end = prefix(space, TAG_DEADLINE + 1);
            let mut damage = None;
            self.rows.scan(&first, Some(&end), false, &mut |row, _| {
                let mut rest = &row[PREFIX_BYTES..];
                if rest.len() < 8 {
                    damage = Some(format!("deadline row of {} bytes", row.len()));
                    return false;
                }
                let deadline_ms = rest.get_u64();
                if deadline_ms > clock_ms || deleted + expired.len() == limit {
                    earliest_ms = deadline_ms;
                    return false;
                }
                expired.push((deadline_ms, Bytes::copy_from_slice(rest)));
                true
            })?;
            if let Some(damage) = damage {
                return Err(StoreError::Damaged(damage));
            }
            for (deadline_ms, key) in &expired {
                let row = self.rows.get(&key_row(space, key))?.unwrap_or_default();
                let header = Header::decode(&row)?;
                assert_eq!(header.deadline_ms, *deadline_ms, "the index and key {key:?} differ");
                self.remove_gone(database, key, &header);
            }
            if let Some((deadline_ms, key)) = expired.last() {
                // None comes again: what is set has a deadline after the clock, which never goes back.
                let last = deadline_row(space, *deadline_ms, key);
                self.rows.stays_empty(Bytes::copy_from_slice(&prefix(space, TAG_DEADLINE)), last);
            }
            deleted += expired.len();
            self.meta.databases[database].earliest_ms = earliest_ms;
        }
        Ok(deleted)
    }

    fn now(&mut self) -> &mut Database {
        &mut self.meta.databases[self.database]
    }

    fn put(&mut self, key: &[u8], header: Header, content: &[u8], old: Option<&Header>) {
        self.changes += 1;
        if header.gone_at(self.meta.clock_ms) {
            if let Some(old) = old {
                self.remove(self.database, key, old);
            }
            return;
        }
        let space = self.now().space;
        let old_deadline_ms = old.map_or(0, |old| old.deadline_ms);
        if old_deadline_ms != header.deadline_ms {
            self.unindex(self.database, old_deadline_ms, key);
            if header.deadline_ms != 0 {
                self.rows.put(deadline_row(space, header.deadline_ms, key), Bytes::new());
                let database = self.now();
                database.keys_with_deadline += 1;
                database.earliest_ms = database.earliest_ms.min(header.deadline_ms);
            }
        }
        if old.is_none() {
            self.now().keys += 1;
        }
        self.rows.put(key_row(space, key), header.encode(content));
    }

    /// Removes the row of a key that nobody sees any more.
    fn remove_gone(&mut self, database: usize, key: &[u8], header: &Header) {
        self.count_hidden(self.meta.databases[database].space, key, header);
        self.remove(database, key, header);
    }

    pub(super) fn remove(&mut self, database: usize, key: &[u8], header: &Header) {
        self.unindex(database, header.deadline_ms, key);
        let counts = &mut self.meta.databases[database];
        assert!(counts.keys > 0, "deleting {key:?} from a database of {} keys", counts.keys);
        counts.keys -= 1;
        self.rows.delete(key_row(counts.space, key));
    }

    fn unindex(&mut self, database: usize, deadline_ms: u64, key: &[u8]) {
        if deadline_ms == 0 {
            return;
        }
        let counts = &mut self.meta.databases[database];
        let expiring = counts.keys_with_deadline;
        assert!(expiring > 0, "key {key:?} with a deadline in a database of {expiring}");
        counts.keys_with_deadline -= 1;
        if counts.keys_with_deadline == 0 {
            counts.earliest_ms = u64::MAX;
        }
        self.rows.delete(deadline_row(counts.space, deadline_ms, key));
    }

    fn empty(&mut self, database: usize) {
        if self.meta.databases[database].keys == 0 {
            return;
        }
        let old = self.meta.databases[database].space;
        self.meta.databases[database] = Database::empty(self.meta.take_space());
        self.retire_unless_counted(old);
    }
}
