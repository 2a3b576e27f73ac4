//! Reads: one view, then the lease, then the reply.
//!
//! The view is taken under the store's lock, which holds up the next entry. A read that looks at
//! much is begun again on a view of its own, which holds up nobody, and off the threads that other
//! connections need.
//!
//! A read that meets a key past its deadline by the present time, but not by the log's clock, has
//! the clock advanced first and reads again. While updates are refused (a full disk) the log's clock
//! stands still, and reads go by it: the key is still there, as for every other client.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use resp::{Reply, Request};

use super::ahead::{Answer, Run};
use super::{Gathered, Retry, Session, Taken, for_a_read};
use crate::command::batch;
use crate::command::parse::integer;
use crate::command::scan::Place;
use crate::command::table::{Read, Spec};
use crate::planted::{Bug, plants};
use crate::server::{Backend, Refusal};
use crate::store::keyspace::{Allowance, Exceeded, ReadError, View};
use crate::store::{Rows, StoreError};

/// How often a read has the log's clock advanced before it gives up. Once is enough unless a new
/// master's stamps are behind the old one's.
const ATTEMPTS_MAX: u32 = 3;
/// Only the clock matters to a read, but DBSIZE had better not count its key any more. Many clients
/// may read at the moment when many keys expire, and their entries are not one after the other: the
/// master's own ones delete the rest.
const EXPIRED_PER_READ_MAX: u16 = 16;

/// Reads rows at a time, in ms since the epoch, for no more than is allowed.
type ReadAt<'a, T> = dyn FnMut(&dyn Rows, u64, Allowance) -> Result<(T, Met), StoreError> + 'a;

/// What reading met beside its result.
#[derive(Default)]
pub(super) struct Met {
    /// A key that is due by the reader's clock.
    pub due: bool,
    /// The end of its allowance: the result is not to be used, unless it is an error about that.
    pub exceeded: Option<Exceeded>,
}

impl Met {
    /// Takes in what one read of a view met.
    pub fn take(&mut self, view: &View) {
        self.due |= view.met_due();
        if let Some(what) = view.take_exceeded() {
            self.exceeded = Some(what.and(self.exceeded));
        }
    }

    fn of(view: &View) -> Met {
        Met { due: view.met_due(), exceeded: view.exceeded() }
    }
}

/// No reply is longer, in bytes; nor are those of a transaction together.
const REPLY_BYTES_MAX: u64 = 512 << 20;
/// What a read may look at while it holds the next entry up: a few milliseconds' work,
pub(super) const BRIEF: Allowance = Allowance { steps: 5000, reply_bytes: REPLY_BYTES_MAX };
/// and when it holds nobody up: minutes'.
pub(super) const LONG: Allowance = Allowance { steps: 200_000_000, reply_bytes: REPLY_BYTES_MAX };

/// Why a read has no result yet, or never.
pub(super) enum NoResult {
    Refused(Refusal),
    /// A clock item was gathered: submit it and read again.
    Again,
    Failed(StoreError),
    /// CLIENT KILL ended it; nobody is to hear anything.
    Killed,
}

impl Session {
    pub(super) fn read(
        &mut self,
        spec: &Spec,
        read: Read,
        requests: &VecDeque<Request>,
        out: &mut BytesMut,
        backend: &dyn Backend,
    ) -> Taken {
        if !self.gathered.is_empty() && !plants(Bug::ReadOvertakesWrite) {
            return Taken::Later;
        }
        if let Some(Answer { reply, looked_up }) = self.ahead.take() {
            self.count_looked_up(looked_up);
            return self.emit(reply, out);
        }
        let args = &requests[0].arguments[..];
        let is_scan = spec.name == "scan";
        let prepared;
        let mut call = args;
        if is_scan {
            match self.with_place(args) {
                Ok(args) => prepared = args,
                Err(reply) => return self.emit(reply, out),
            }
            call = &prepared;
        }
        let (db, seed, signals) = (self.db, self.random.u64(..), self.signals.clone());
        let mut looked_up = (0, 0);
        let mut ahead = std::mem::take(&mut self.ahead);
        let alone = requests.len() == 1
            || !ahead.may_begin()
            || self.account.is_exact()
            || self.retry.is_some();
        let run = (!alone).then(|| Run::of(requests)).filter(|run| !run.is_empty());
        let result = self.view(backend, &mut |rows, now_ms, allowance| {
            let view = View::open(rows, db, now_ms, seed)?.until(&signals.killed);
            let view = view.allowing(allowance);
            if let Some(run) = &run {
                run.touch(&view);
            }
            let reply = read(&view, call)?;
            looked_up = view.hits_and_misses();
            let met = Met::of(&view);
            if let Some(run) = run.as_ref().filter(|_| !met.due && met.exceeded.is_none()) {
                ahead.read(run, &view, rows)?;
            }
            Ok((reply, met))
        });
        self.ahead = ahead;
        match &result {
            Ok(_) => self.count_looked_up(looked_up),
            Err(_) => self.ahead.clear(),
        }
        match result {
            Ok(reply) if is_scan => {
                let reply = self.with_cursor(reply);
                self.emit(reply, out)
            }
            Ok(reply) => self.emit(reply, out),
            Err(no_result) => {
                let key = spec.keys_of(args).next();
                self.without_result(no_result, key.map(|key| &key[..]), out, backend)
            }
        }
    }

    fn count_looked_up(&mut self, (hits, misses): (u64, u64)) {
        self.account.hits += hits;
        self.account.misses += misses;
    }

    /// Reads under one view and asks for the lease afterwards. `read` gets the rows and the time to
    /// read at, and says what it met. It is called again, and for long, if it looks at much.
    pub(super) fn view<T>(
        &mut self,
        backend: &dyn Backend,
        read: &mut ReadAt<T>,
    ) -> Result<T, NoResult> {
        let mut attempts = 0;
        let mut now_ms = if self.read_only { 0 } else { backend.stamp_ms() };
        if let Some(retry) = self.retry.take() {
            (now_ms, attempts) = (retry.now_ms, retry.attempts);
            match retry.refusal {
                None => (),
                Some(Refusal::Misconf(_)) => now_ms = 0,
                Some(refusal) => return Err(NoResult::Refused(refusal)),
            }
        }
        let mut result = None;
        let mut briefly = |result: &mut Option<_>| {
            let viewed = backend.with_rows(&mut |rows| {
                rows.refuse_to_put_in_order();
                *result = Some(read(rows, now_ms, BRIEF));
            });
            viewed.map_err(NoResult::Refused)
        };
        let mut view_index = briefly(&mut result)?;
        if matches!(result, Some(Err(StoreError::WouldWait))) {
            backend.put_in_order();
            view_index = briefly(&mut result)?;
        }
        let is_too_much = |result: &Option<Result<(T, Met), StoreError>>| {
            matches!(
                result,
                Some(
                    Ok((_, Met { exceeded: Some(Exceeded::Steps), .. }))
                        | Err(StoreError::WouldWait)
                )
            )
        };
        let killed = || self.signals.killed.load(Ordering::Relaxed);
        if is_too_much(&result) && !killed() {
            let viewed =
                backend.with_rows_for_long(&mut |rows| result = Some(read(rows, now_ms, LONG)));
            view_index = viewed.map_err(NoResult::Refused)?;
        }
        if is_too_much(&result) && killed() {
            return Err(NoResult::Killed);
        }
        let Some(result) = result else {
            return Err(NoResult::Refused(Refusal::Loading));
        };
        let (value, met) = result.map_err(NoResult::Failed)?;
        if !self.read_only {
            backend.lease(view_index).map_err(NoResult::Refused)?;
        }
        self.check_at_least(view_index).map_err(NoResult::Refused)?;
        if !met.due {
            return Ok(value);
        }
        match backend.may_write() {
            Ok(()) => (),
            Err(Refusal::Misconf(_)) => return Ok(value),
            Err(refusal) => return Err(NoResult::Refused(refusal)),
        }
        if attempts == ATTEMPTS_MAX {
            let reason = "the log's clock does not advance".into();
            return Err(NoResult::Refused(Refusal::TryAgain(reason)));
        }
        self.retry = Some(Retry { now_ms, attempts: attempts + 1, refusal: None });
        batch::encode_clock(&mut self.items, EXPIRED_PER_READ_MAX);
        self.count += 1;
        self.gathered.push(Gathered::Clock);
        Err(NoResult::Again)
    }

    /// Answers a read that has no result; `key`: its first.
    pub(super) fn without_result(
        &mut self,
        no_result: NoResult,
        key: Option<&[u8]>,
        out: &mut BytesMut,
        backend: &dyn Backend,
    ) -> Taken {
        match no_result {
            NoResult::Again => Taken::Later,
            NoResult::Killed => Taken::Close,
            // A head is taking the store's place.
            NoResult::Failed(StoreError::Replaced) => self.emit(Refusal::Loading.reply(key), out),
            NoResult::Failed(error) => self.store_failed(error, backend),
            NoResult::Refused(refusal) => {
                let reply = self.refuse(&for_a_read(refusal), key);
                self.emit(reply, out)
            }
        }
    }

    pub(super) fn watch(
        &mut self,
        args: &[Bytes],
        out: &mut BytesMut,
        backend: &dyn Backend,
    ) -> Taken {
        if self.transaction.is_some() {
            return self.emit(Reply::error("ERR WATCH inside MULTI is not allowed"), out);
        }
        if !self.gathered.is_empty() {
            return Taken::Later;
        }
        let (db, signals) = (self.db, self.signals.clone());
        let fresh = match self.watches.fresh(db, &args[1..]) {
            Ok(fresh) => fresh,
            Err(reply) => return self.emit(reply, out),
        };
        let result = self.view(backend, &mut |rows, now_ms, allowance| {
            let view = View::open(rows, db, now_ms, 0)?.until(&signals.killed);
            let view = view.allowing(allowance);
            let versions: Result<Vec<_>, ReadError> =
                fresh.iter().map(|key| view.version(key)).collect();
            match versions {
                Ok(versions) => Ok((Some(versions), Met::of(&view))),
                Err(ReadError::Exceeded(_)) => Ok((None, Met::of(&view))),
                Err(ReadError::Store(error)) => Err(error),
            }
        });
        match result {
            Ok(None) => self.emit(Reply::error("ERR too many keys, or too large ones"), out),
            Ok(Some(versions)) => {
                for (key, version) in fresh.into_iter().zip(versions) {
                    self.watches.add(db, key, version);
                }
                self.emit(Reply::OK, out)
            }
            Err(no_result) => self.without_result(no_result, Some(&args[1]), out, backend),
        }
    }

    /// SCAN's arguments with the place that its cursor stands for.
    pub(super) fn with_place(&self, args: &[Bytes]) -> Result<Vec<Bytes>, Reply> {
        let cursor = integer(&args[1]).and_then(|cursor| u64::try_from(cursor).ok());
        let place = match cursor {
            None => return Err(Reply::error("ERR invalid cursor")),
            Some(0) => Place::Start,
            Some(cursor) => match self.shared.cursors.lock().find(cursor) {
                Some(key) => Place::After(key),
                None => {
                    return Err(Reply::error(
                        "ERR unknown cursor: it is not of this node, or too old; start again at 0",
                    ));
                }
            },
        };
        let mut args = args.to_vec();
        args[1] = place.encode();
        Ok(args)
    }

    /// SCAN's reply with a cursor for the place it came to.
    pub(super) fn with_cursor(&self, reply: Reply) -> Reply {
        let Reply::Array(mut parts) = reply else { return reply };
        let cursor = match parts.first() {
            Some(Reply::Bulk(last)) => self.shared.cursors.lock().insert(last.clone()),
            _ => 0,
        };
        if let Some(first) = parts.first_mut() {
            *first = Reply::bulk(cursor.to_string());
        }
        Reply::Array(parts)
    }
}
