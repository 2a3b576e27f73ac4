//! Reading one database.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::allowance::{Allowance, Exceeded, ReadError, steps_of};
use super::meta::{Database, Meta};
use super::removals::{Removal, hider};
use super::{
    HEADER_BYTES, Header, KeyRange, PREFIX_BYTES, Stored, TAG_KEY, Version, prefix, with_key_row,
};
use crate::planted::{Bug, plants};
use crate::store::{RowList, Rows, StoreError};

/// Gets a key and, if it is there, its header and value.
type VisitRow<'a> = dyn FnMut(&[u8], Option<(&Header, &Bytes)>) -> bool + 'a;

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
    left: Cell<Allowance>,
    /// The reader shall do no more.
    stop: Option<&'a AtomicBool>,
    exceeded: Cell<Option<Exceeded>>,
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
        let (clock_ms, database, removals) = Meta::read_one(rows, database)?;
        let removals = Removal::read_all(rows, removals)?;
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
        let (left, exceeded) = (Cell::new(Allowance::UNLIMITED), Cell::new(None));
        let (hits, misses) = (Cell::new(0), Cell::new(0));
        let stop = None;
        View {
            rows,
            database,
            clock_ms,
            now_ms,
            seed,
            removals,
            due,
            left,
            stop,
            exceeded,
            hits,
            misses,
        }
    }

    /// The same for a reader that may cost so much.
    pub fn allowing(self, allowance: Allowance) -> View<'a> {
        self.allow(allowance);
        self
    }

    /// The same for a reader that may cost nothing more once `stop` is true.
    pub fn until(self, stop: &'a AtomicBool) -> View<'a> {
        View { stop: Some(stop), ..self }
    }

    /// From now on the reader may cost so much.
    pub fn allow(&self, allowance: Allowance) {
        self.left.set(allowance);
    }

    /// What the reader may cost yet.
    pub fn left(&self) -> Allowance {
        self.left.get()
    }

    /// What a read would have cost too much of, if one did: its reply is then not to be used.
    pub fn exceeded(&self) -> Option<Exceeded> {
        self.exceeded.get()
    }

    /// The same, and the next read begins anew: it answers for what itself costs, not for what the
    /// one before it did.
    pub fn take_exceeded(&self) -> Option<Exceeded> {
        self.exceeded.take()
    }

    /// Takes steps off what is left.
    pub fn spend(&self, steps: u64) -> Result<(), ReadError> {
        let left = self.left.get();
        let stopped = self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed));
        let Some(steps) = left.steps.checked_sub(steps).filter(|_| !stopped) else {
            return Err(self.exceed(Exceeded::Steps));
        };
        self.left.set(Allowance { steps, ..left });
        Ok(())
    }

    /// Takes a part of a reply, so many bytes of a string, off what is left.
    pub fn answer(&self, bytes: usize) -> Result<(), ReadError> {
        // What a reply costs beside its bytes.
        const PART_BYTES: u64 = 64;
        let left = self.left.get();
        let Some(reply_bytes) = left.reply_bytes.checked_sub(bytes as u64 + PART_BYTES) else {
            return Err(self.exceed(Exceeded::ReplyBytes));
        };
        self.left.set(Allowance { reply_bytes, ..left });
        Ok(())
    }

    /// A reply of so many bytes takes the place of what was taken off since there were
    /// `reply_bytes` left.
    pub fn settle(&self, reply_bytes: u64, bytes: usize) -> Result<(), ReadError> {
        self.left.set(Allowance { reply_bytes, ..self.left.get() });
        self.answer(bytes)
    }

    fn exceed(&self, what: Exceeded) -> ReadError {
        let what = what.and(self.exceeded.get());
        self.exceeded.set(Some(what));
        ReadError::Exceeded(what)
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
    pub fn find(&self, key: &[u8]) -> Result<Option<Stored>, ReadError> {
        let found = self.look_up(key)?;
        let count = if found.is_some() { &self.hits } else { &self.misses };
        count.set(count.get() + 1);
        Ok(found)
    }

    /// How many keys [`View::find`] found, and missed.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits.get(), self.misses.get())
    }

    fn look_up(&self, key: &[u8]) -> Result<Option<Stored>, ReadError> {
        let row = with_key_row(self.database.space, key, |row| self.rows.get(row))?;
        self.spend(row.as_ref().map_or(1, |row| steps_of(row)))?;
        let Some(row) = row else { return Ok(None) };
        let stored = Stored::decode(row)?;
        Ok(self.is_there(key, &stored.header).then_some(stored))
    }

    /// Says which keys are about to be looked at, see [`Rows::touch`].
    pub fn touch<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        let mut rows = RowList::default();
        keys.for_each(|key| rows.add(&[&prefix(self.database.space, TAG_KEY), key]));
        self.rows.touch(&rows);
    }

    /// The key's version; [`Version::ABSENT`] when it is not there.
    pub fn version(&self, key: &[u8]) -> Result<Version, ReadError> {
        Ok(self.look_up(key)?.map_or(Version::ABSENT, |stored| stored.header.version))
    }

    /// Visits the keys of a range, ascending or, when `reverse`, descending, until `visit` returns
    /// false. It gets the key, its header and, for a string, the bytes. Fails when the reader may
    /// cost no more, also when `visit` has found that out.
    pub fn scan(
        &self,
        range: &KeyRange,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &Header, &Bytes) -> bool,
    ) -> Result<(), ReadError> {
        let visit = &mut |key: &[u8], found: Option<(&Header, &Bytes)>| {
            found.is_none_or(|(header, value)| visit(key, header, value))
        };
        self.scan_rows(range, reverse, visit)
    }

    /// The same, ascending, for at most `rows_max` rows, those included whose keys are not there
    /// any more. Returns the last row's key if there are more.
    pub fn scan_some(
        &self,
        range: &KeyRange,
        rows_max: usize,
        visit: &mut dyn FnMut(&[u8], &Header, &Bytes) -> bool,
    ) -> Result<Option<Bytes>, ReadError> {
        let (mut looked_at, mut last, mut more) = (0, Vec::new(), false);
        let visit = &mut |key: &[u8], found: Option<(&Header, &Bytes)>| {
            let full = looked_at == rows_max;
            if full || !found.is_none_or(|(header, value)| visit(key, header, value)) {
                more = looked_at > 0;
                return false;
            }
            looked_at += 1;
            last.clear();
            last.extend_from_slice(key);
            true
        };
        self.scan_rows(range, false, visit)?;
        Ok(more.then(|| last.into()))
    }

    /// Visits rows, whether their keys are there or not.
    fn scan_rows(
        &self,
        range: &KeyRange,
        reverse: bool,
        visit: &mut VisitRow,
    ) -> Result<(), ReadError> {
        let Some((from, to)) = range.rows(self.database.space) else { return Ok(()) };
        let mut failure = None;
        self.rows.scan_with_removed(&from, Some(&to), reverse, &mut |row, value| {
            let key = &row[PREFIX_BYTES..];
            let found = self.spend(value.map_or(1, |value| steps_of(value))).and_then(|()| {
                let Some(value) = value else { return Ok(None) };
                let header = Header::decode(value)?;
                Ok(self.is_there(key, &header).then(|| (header, value.slice(HEADER_BYTES..))))
            });
            match found {
                Ok(found) => visit(key, found.as_ref().map(|(header, value)| (header, value))),
                Err(error) => {
                    failure = Some(error);
                    false
                }
            }
        })?;
        match (failure, self.exceeded.get()) {
            (Some(error), _) => Err(error),
            (None, Some(what)) => Err(ReadError::Exceeded(what)),
            (None, None) => Ok(()),
        }
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
