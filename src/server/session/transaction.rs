//! MULTI, EXEC and what lies between.
//!
//! A transaction with a write is one item of the log, its watched versions included: it is the log
//! that decides, also when the master changed since WATCH. One that only reads needs no log: one
//! view, versions compared in it, then the lease. What the session answers itself (PING, SELECT)
//! is merged into the replies; SELECT counts for the commands behind it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::AtomicBool;

use bytes::{Bytes, BytesMut};
use resp::Reply;

use super::accounting::Fate;
use super::own_replies::OwnReplies;
use super::read::{BRIEF, Met, NoResult};
use super::{Gathered, Session, Taken};
use crate::command::assertions::{check_assertion, is_assertion};
use crate::command::batch;
use crate::command::charge::{TRANSACTION_CHARGE_MAX, of_many};
use crate::command::connection::Connection;
use crate::command::outcome::run_read;
use crate::command::parse::{check_command, command_bytes, parse_db};
use crate::command::ranges::{answers_later, scans};
use crate::command::table::{Kind, Spec};
use crate::planted::{Bug, plants};
use crate::server::{Backend, Refusal};
use crate::store::keyspace::{Allowance, Exceeded, ReadError, View};
use crate::store::{Rows, StoreError};

/// An open MULTI.
#[derive(Default)]
pub(super) struct Transaction {
    queue: Vec<Queued>,
    bytes: usize,
    /// What the results may come to.
    charge: usize,
    /// The largest of them, or of what was sent.
    largest: usize,
    /// A command could not be queued: EXEC will refuse.
    pub(super) aborted: bool,
}

impl Transaction {
    /// How many commands were queued.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether it needs the log.
    pub(super) fn has_write(&self) -> bool {
        self.queue.iter().any(|queued| queued.spec.is_write())
    }

    /// The level that a node must know to apply it.
    fn level(&self) -> u8 {
        let bounded = |queued: &Queued| {
            // The last ones: a key may be written in two databases.
            is_assertion(queued.spec)
                || matches!(queued.spec.name, "copy" | "move" | "swapdb" | "select")
        };
        match self.queue.iter().any(bounded) {
            true => batch::LEVEL_BOUNDED,
            false => {
                let levels = self.queue.iter().map(|queued| queued.spec.level(&queued.args));
                levels.max().unwrap_or(1)
            }
        }
    }
}

struct Queued {
    spec: &'static Spec,
    /// Where it is counted.
    place: usize,
    args: Vec<Bytes>,
}

impl Queued {
    fn first_key(&self) -> Option<&[u8]> {
        self.spec.keys_of(&self.args).next().map(|key| &key[..])
    }
}

/// Where each reply of an EXEC comes from.
pub(super) struct Layout {
    /// In order; empty: all from the log.
    sources: Vec<Source>,
    db_before: u8,
    /// Where the commands from the log are counted, in order.
    places: Vec<usize>,
}

impl Layout {
    /// See `places`.
    pub(super) fn applied_places(&self) -> impl Iterator<Item = usize> {
        self.places.iter().copied()
    }
}

enum Source {
    Applied,
    /// SCAN's place has to become a cursor.
    AppliedScan,
    Known(Reply),
}

/// Whether a command is run at once although a transaction is open.
pub(super) fn runs_at_once(spec: &Spec) -> bool {
    use Connection::{Discard, Exec, Multi, Quit, Reset, Watch};
    matches!(spec.kind, Kind::Connection(Multi | Exec | Discard | Watch | Quit | Reset))
}

impl Session {
    /// What EXEC would run: nothing if the transaction is spoilt.
    pub(super) fn queued_calls(&self) -> impl Iterator<Item = (&'static Spec, &[Bytes])> {
        let transaction = self.transaction.as_ref().filter(|transaction| !transaction.aborted);
        transaction
            .into_iter()
            .flat_map(|it| it.queue.iter().map(|queued| (queued.spec, &queued.args[..])))
    }

    pub(super) fn queue(
        &mut self,
        spec: &'static Spec,
        args: &[Bytes],
        out: &mut BytesMut,
        backend: &dyn Backend,
    ) -> Taken {
        let permitted = match spec.kind {
            Kind::Write { .. } => backend.may_write(),
            Kind::Read(_) if !self.read_only => backend.lease(u64::MAX),
            Kind::Read(_) | Kind::Connection(_) => Ok(()),
        };
        let permitted = permitted.map_err(|refusal| {
            self.refuse(&refusal, spec.keys_of(args).next().map(|key| &key[..]))
        });
        let largest = self.transaction.as_ref().map_or(0, |transaction| transaction.largest);
        let charge = self.charge_of(spec, args, largest, backend);
        let Some(transaction) = &mut self.transaction else {
            return Taken::Done;
        };
        transaction.bytes += command_bytes(args);
        transaction.charge += charge;
        transaction.largest = transaction.largest.max(charge).max(command_bytes(args));
        let permitted = permitted.and_then(|()| check_command(transaction.bytes));
        let permitted = permitted.and_then(|()| check_charge(transaction.charge));
        match permitted.and_then(|()| check_assertion(spec, args)) {
            Ok(()) => {
                // Copies, so that the requests' whole buffers are not kept.
                let args = args.iter().map(|arg| Bytes::copy_from_slice(arg)).collect();
                let place = self.account.place();
                transaction.queue.push(Queued { spec, place, args });
                self.account.fate = Fate::Queued;
                self.emit(Reply::QUEUED, out)
            }
            Err(reply) => {
                transaction.aborted = true;
                self.emit(reply, out)
            }
        }
    }

    /// MULTI.
    pub(super) fn begin_transaction(&mut self) -> Reply {
        if self.transaction.is_some() {
            return Reply::error("ERR MULTI calls can not be nested");
        }
        self.transaction = Some(Transaction::default());
        Reply::OK
    }

    /// DISCARD.
    pub(super) fn discard(&mut self) -> Reply {
        if self.transaction.take().is_none() {
            return Reply::error("ERR DISCARD without MULTI");
        }
        self.watches.clear();
        Reply::OK
    }

    pub(super) fn exec(&mut self, out: &mut BytesMut, backend: &dyn Backend) -> Taken {
        let Some(transaction) = &self.transaction else {
            return self.emit(Reply::error("ERR EXEC without MULTI"), out);
        };
        let queue = &transaction.queue;
        let all_writes = queue.iter().all(|queued| queued.spec.is_write());
        let any_write = transaction.has_write();
        if transaction.aborted {
            self.discard();
            let text = "EXECABORT Transaction discarded because of previous errors.";
            return self.emit(Reply::error(text), out);
        }
        let in_line = any_write && all_writes;
        if !in_line && !self.gathered.is_empty() {
            return Taken::Later;
        }
        if !any_write {
            return self.exec_reads(out, backend);
        }
        let Some(transaction) = self.transaction.take() else { return Taken::Done };
        if let Err(refusal) = backend.may_write() {
            self.watches.clear();
            return self.refuse_transaction(&refusal, &transaction, out);
        }
        let watch =
            |(db, key, version): (u8, &Bytes, _)| batch::Watch { db, key: key.clone(), version };
        let mut watches: Vec<batch::Watch> = self.watches.iter().map(watch).collect();
        self.watches.clear();
        if plants(Bug::WatchComparedEarly) {
            if !unchanged(&watches, backend) {
                return self.emit(Reply::NullArray, out);
            }
            watches.clear();
        }
        if transaction.queue.iter().any(|queued| scans(queued.spec)) {
            backend.put_in_order();
        }
        let many = transaction.queue.iter().map(|queued| of_many(queued.spec)).max();
        self.charge += transaction.charge + many.unwrap_or(0);
        batch::encode_level(&mut self.items, transaction.level());
        if all_writes {
            let calls = transaction.queue.iter().map(|queued| (self.db, &queued.args[..]));
            batch::encode_transaction(&mut self.items, &watches, calls);
            self.count += 1;
            let places = transaction.queue.iter().map(|queued| queued.place).collect();
            let layout = Layout { sources: Vec::new(), db_before: self.db, places };
            self.gathered.push(Gathered::Transaction(layout, self.account.place()));
            self.count_later();
            let later = transaction.queue.iter().any(|queued| answers_later(queued.spec));
            return if later { Taken::Submit } else { Taken::Done };
        }
        let (layout, calls) = self.lay_out(transaction, backend);
        let calls = calls.iter().map(|(db, args)| (*db, &args[..]));
        batch::encode_transaction(&mut self.items, &watches, calls);
        self.count += 1;
        self.gathered.push(Gathered::Transaction(layout, self.account.place()));
        self.count_later();
        Taken::Submit
    }

    /// Separates what the log runs from what the session answers.
    fn lay_out(
        &mut self,
        transaction: Transaction,
        backend: &dyn Backend,
    ) -> (Layout, Vec<(u8, Vec<Bytes>)>) {
        let mut layout = Layout { sources: Vec::new(), db_before: self.db, places: Vec::new() };
        let mut calls = Vec::new();
        let mut own = OwnReplies::default();
        for Queued { spec, place, args } in transaction.queue {
            layout.sources.push(match spec.kind {
                Kind::Connection(command) => {
                    let reply = own.bound(self.local_reply(command, &args, backend));
                    self.count_in_transaction(place, &reply);
                    Source::Known(reply)
                }
                Kind::Read(_) if spec.name == "scan" => match self.with_place(&args) {
                    Ok(args) => {
                        layout.places.push(place);
                        calls.push((self.db, args));
                        Source::AppliedScan
                    }
                    Err(reply) => Source::Known(reply),
                },
                Kind::Read(_) | Kind::Write { .. } => {
                    layout.places.push(place);
                    calls.push((self.db, args));
                    Source::Applied
                }
            });
        }
        (layout, calls)
    }

    /// Nothing of the transaction was run, so nothing was selected. One that only writes holds no
    /// SELECT, and a later one may have been answered already.
    pub(super) fn unselect(&mut self, layout: &Layout) {
        if !layout.sources.is_empty() {
            self.select(layout.db_before);
        }
    }

    /// The reply of an EXEC whose transaction was applied.
    pub(super) fn finish_transaction(&mut self, layout: Layout, reply: Reply) -> Reply {
        let Reply::Array(applied) = reply else {
            // A watched key had changed, or an assertion failed: nothing was run or selected.
            self.unselect(&layout);
            return reply;
        };
        if layout.sources.is_empty() {
            return Reply::Array(applied);
        }
        let mut applied = applied.into_iter();
        let mut next = || applied.next().expect("one reply for each command of the transaction");
        let replies = layout.sources.into_iter().map(|source| match source {
            Source::Known(reply) => reply,
            Source::Applied => next(),
            Source::AppliedScan => self.with_cursor(next()),
        });
        Reply::Array(replies.collect())
    }

    /// EXEC without a write.
    fn exec_reads(&mut self, out: &mut BytesMut, backend: &dyn Backend) -> Taken {
        let Some(transaction) = self.transaction.take() else { return Taken::Done };
        // SCAN's cursors become places before the view is taken: the table has its own lock.
        let prepared: Vec<Result<Vec<Bytes>, Reply>> = transaction
            .queue
            .iter()
            .map(|queued| match queued.spec.name {
                "scan" => self.with_place(&queued.args),
                _ => Ok(Vec::new()),
            })
            .collect();
        let watches = std::mem::take(&mut self.watches);
        let (start, seed, signals) = (self.db, self.random.u64(..), self.signals.clone());
        let result = self.view(backend, &mut |rows, now_ms, allowance| {
            let mut views = Views::new(rows, now_ms, seed, allowance, &signals.killed);
            for (db, key, watched) in watches.iter() {
                match views.read(db, |view| Ok(view.version(key)))? {
                    Ok(version) if version == watched => (),
                    Ok(_) => return Ok((Err(Reply::NullArray), views.met)),
                    Err(ReadError::Exceeded(_)) => return Ok((Err(TOO_MUCH_WATCHED), views.met)),
                    Err(ReadError::Store(error)) => return Err(error),
                }
            }
            let mut db = start;
            let mut replies = Vec::with_capacity(transaction.queue.len());
            for (Queued { spec, args, .. }, prepared) in transaction.queue.iter().zip(&prepared) {
                replies.push(match (spec.kind, prepared) {
                    (Kind::Read(_), Err(reply)) => Some(reply.clone()),
                    (Kind::Read(read), Ok(prepared)) => {
                        let args = if prepared.is_empty() { args } else { prepared };
                        Some(views.read(db, |view| run_read(read, view, args))?)
                    }
                    (Kind::Connection(Connection::Select), _) => {
                        db = parse_db(&args[1]).unwrap_or(db);
                        None
                    }
                    _ => None,
                });
                // All of it will be read again: the rest would only hold the next entry up.
                if allowance == BRIEF && views.met.exceeded == Some(Exceeded::Steps) {
                    break;
                }
            }
            Ok((Ok(replies), views.met))
        });
        match result {
            Ok(Err(reply)) => self.emit(reply, out),
            Ok(Ok(replies)) => {
                let mut replied = transaction.queue.iter().zip(&replies);
                let failed = replied.find_map(|(queued, reply)| {
                    let error = reply.as_ref().filter(|reply| matches!(reply, Reply::Error(_)));
                    error.filter(|_| is_assertion(queued.spec))
                });
                if let Some(failed) = failed {
                    return self.emit(failed.clone(), out);
                }
                let mut own = OwnReplies::default();
                let merged = transaction.queue.iter().zip(replies).map(|(queued, reply)| {
                    let reply = match (reply, queued.spec.kind) {
                        (Some(reply), _) if queued.spec.name == "scan" => self.with_cursor(reply),
                        (Some(reply), _) => reply,
                        (None, Kind::Connection(command)) => {
                            own.bound(self.local_reply(command, &queued.args, backend))
                        }
                        (None, _) => Reply::Null,
                    };
                    self.count_in_transaction(queued.place, &reply);
                    reply
                });
                let merged = Reply::Array(merged.collect());
                self.emit(merged, out)
            }
            Err(NoResult::Again) => {
                // The same EXEC is taken up again when the clock has advanced.
                (self.transaction, self.watches) = (Some(transaction), watches);
                Taken::Later
            }
            Err(no_result) => {
                let key = transaction.queue.iter().find_map(Queued::first_key);
                self.without_result(no_result, key, out, backend)
            }
        }
    }

    fn refuse_transaction(
        &mut self,
        refusal: &Refusal,
        transaction: &Transaction,
        out: &mut BytesMut,
    ) -> Taken {
        let key = transaction.queue.iter().find_map(Queued::first_key);
        let reply = self.refuse(refusal, key);
        self.emit(reply, out)
    }
}

const TOO_MUCH_WATCHED: Reply =
    Reply::Error(Cow::Borrowed("ERR the watched keys are too many, or too large"));

/// The databases that an EXEC looks into, all at one moment and for one allowance.
struct Views<'a> {
    rows: &'a dyn Rows,
    now_ms: u64,
    seed: u64,
    left: Allowance,
    killed: &'a AtomicBool,
    opened: BTreeMap<u8, View<'a>>,
    met: Met,
}

impl<'a> Views<'a> {
    fn new(
        rows: &'a dyn Rows,
        now_ms: u64,
        seed: u64,
        left: Allowance,
        killed: &'a AtomicBool,
    ) -> Views<'a> {
        Views { rows, now_ms, seed, left, killed, opened: BTreeMap::new(), met: Met::default() }
    }

    fn read<T>(
        &mut self,
        db: u8,
        read: impl FnOnce(&View) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let view = match self.opened.entry(db) {
            Entry::Occupied(opened) => opened.into_mut(),
            Entry::Vacant(place) => {
                let view = View::open(self.rows, db, self.now_ms, self.seed)?;
                place.insert(view.until(self.killed))
            }
        };
        view.allow(self.left);
        let result = read(view);
        self.left = view.left();
        self.met.take(view);
        result
    }
}

fn check_charge(bytes: usize) -> Result<(), Reply> {
    match bytes <= TRANSACTION_CHARGE_MAX {
        true => Ok(()),
        false => Err(Reply::error(format!(
            "ERR the results of the transaction could be {bytes} bytes, the limit is \
             {TRANSACTION_CHARGE_MAX}"
        ))),
    }
}

/// What [`Bug::WatchComparedEarly`] does instead of leaving it to the log.
fn unchanged(watches: &[batch::Watch], backend: &dyn Backend) -> bool {
    let mut same = true;
    let viewed = backend.with_rows(&mut |rows| {
        same = watches.iter().all(|watch| {
            let version = View::open(rows, watch.db, 0, 0).map(|view| view.version(&watch.key));
            matches!(version, Ok(Ok(version)) if version == watch.version)
        });
    });
    viewed.is_ok() && same
}
