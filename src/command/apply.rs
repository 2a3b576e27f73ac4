//! Applying an entry of the log to the keyspace.
//!
//! The same on every node: nothing but the entry and the rows is looked at. Replies are for the
//! clients of the master; where nobody waits for them, reads are not run at all. Commands were checked
//! before they entered the log, so an error here comes from the state (a wrong type, an overflow);
//! it is an ordinary reply and has changed nothing.

use bytes::Bytes;
use resp::Reply;

use super::assertions::is_assertion;
use super::batch::{Batch, BatchError, Call, Item, LEVEL_BOUNDED, Watch};
use super::charge::{
    ASSERTION_STEPS_MAX, ENTRY_CHARGE_MAX, ENTRY_REPLY_BYTES_MAX, ENTRY_STEPS_MAX, RESULTS_MAX,
    TRANSACTION_REPLY_BYTES_MAX, TRANSACTION_STEPS_MAX, depends_on_values, of_arguments, of_values,
};
use super::outcome::{ASSERT_FAILED, run_read};
use super::table::{self, Kind, Spec};
use crate::store::keyspace::{Allowance, Keyspace, ReadError};
use crate::store::{RowList, RowsMut, StoreError};

/// Rows of removals that one clock item looks at at most: about a millisecond's work. All nodes must
/// have the same number.
pub const REMOVED_PER_CLOCK_MAX: usize = 250;

/// So many rows are fetched into the processor's caches together, about: with what belongs to them
/// they take a small part of the caches, and more do not come any quicker.
const EXPECTED_AT_ONCE: usize = 64;

/// What an entry did.
#[derive(Debug, PartialEq)]
pub struct Applied {
    /// One for each item. A transaction's is an array, or `NullArray` when a watched key had
    /// changed, or the error of an assertion; those of clock and head items are OK.
    pub replies: Vec<Reply>,
    /// The state after this entry is to be frozen and exported as a head.
    pub head_requested: bool,
    /// The log's clock after the entry, in ms since the epoch.
    pub stamp_ms: u64,
    /// No key's deadline is earlier, and no removal is due before; when it is due, a clock item is.
    /// `None`: there is nothing to do.
    pub earliest_deadline_ms: Option<u64>,
    /// Keys deleted because their deadline had passed.
    pub expired_keys: usize,
    /// Changes made to keys otherwise.
    pub changes: u64,
}

/// The entry cannot be applied. Ends the node.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The store cannot answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The entry is not of a version this node knows.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A newer version put in the log what this one cannot do.
    #[error("the log holds the command '{0}', which this version does not know: upgrade this node")]
    UnknownCommand(String),
}

/// Whether anybody waits for the replies. State never depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replies {
    /// The master, for its clients.
    Wanted,
    /// Other nodes, and every node that replays its log. Reads are left out; their replies are null.
    Unwanted,
}

/// Applies the batch at `index` of the log. The caller commits the rows, or none of them when this
/// fails.
pub fn apply_batch(
    index: u64,
    batch: &Bytes,
    rows: &mut dyn RowsMut,
    replies: Replies,
) -> Result<Applied, ApplyError> {
    let mut batch = Batch::open(batch)?;
    let keyspace = Keyspace::begin(rows, index, batch.stamp_ms, batch.seed)?;
    let room = Allowance { steps: ENTRY_STEPS_MAX, reply_bytes: ENTRY_REPLY_BYTES_MAX };
    let mut applying = Applying { keyspace, wanted: replies, room, level: 1, results: 0 };
    // An item takes at least a byte, but its reply more: a made-up count must not reserve much.
    let mut replies = Vec::with_capacity(batch.count.min(4096) as usize);
    let mut head_requested = false;
    let mut expired_keys = 0;
    let mut first = true;
    let mut next = Next::default();
    while next.read(&mut batch, &mut applying.keyspace)? {
        for NextItem { level, item, spec } in next.items.drain(..) {
            if !std::mem::take(&mut first) {
                applying.keyspace.next_item();
            }
            applying.level = level;
            applying.keyspace.bound(level >= LEVEL_BOUNDED);
            replies.push(match item {
                Item::Command(call) => applying.command(&call, spec)?,
                Item::Transaction { watches, calls } => applying.transaction(&watches, &calls)?,
                Item::Clock { expired_keys_max } => {
                    let limit = usize::from(expired_keys_max);
                    expired_keys += applying.keyspace.delete_expired(limit)?;
                    applying.keyspace.go_on_removing(REMOVED_PER_CLOCK_MAX)?;
                    Reply::OK
                }
                Item::Head => {
                    head_requested = true;
                    Reply::OK
                }
            });
        }
    }
    let changes = applying.keyspace.changes();
    let meta = applying.keyspace.finish();
    Ok(Applied {
        replies,
        head_requested,
        stamp_ms: meta.clock_ms,
        earliest_deadline_ms: meta.earliest_deadline_ms(),
        expired_keys,
        changes,
    })
}

/// The next items of an entry, read together so that the store can fetch their rows together.
#[derive(Default)]
struct Next {
    items: Vec<NextItem>,
    rows: RowList,
}

struct NextItem {
    level: u8,
    item: Item,
    /// Of a command by itself, if it is known.
    spec: Option<&'static Spec>,
}

impl Next {
    /// Reads some items and tells the store of their keys; false when there is none.
    fn read(&mut self, batch: &mut Batch, keyspace: &mut Keyspace) -> Result<bool, ApplyError> {
        self.rows.clear();
        while self.rows.len() < EXPECTED_AT_ONCE && self.items.len() < EXPECTED_AT_ONCE {
            let Some(item) = batch.next_item()? else { break };
            let spec = spec_of_item(&item);
            if !keyspace.may_wait() && !is_light(&item, spec) {
                return Err(StoreError::WouldWait.into());
            }
            match &item {
                Item::Command(call) => self.add(call, spec, keyspace),
                Item::Transaction { calls, .. } => {
                    calls.iter().for_each(|call| self.add(call, spec_of(call), keyspace));
                }
                Item::Clock { .. } | Item::Head => {}
            }
            self.items.push(NextItem { level: batch.level(), item, spec });
        }
        if self.rows.len() > 1 {
            keyspace.expect(&self.rows);
        }
        Ok(!self.items.is_empty())
    }

    fn add(&mut self, call: &Call, spec: Option<&Spec>, keyspace: &Keyspace) {
        let Some(spec) = spec.filter(|spec| spec.is_write()) else { return };
        let room = EXPECTED_AT_ONCE.saturating_sub(self.rows.len());
        for key in spec.keys_of(&call.args).take(room) {
            keyspace.add_expected(&mut self.rows, call.db, key);
        }
    }
}

/// See [`NextItem`].
fn spec_of_item(item: &Item) -> Option<&'static Spec> {
    let Item::Command(call) = item else { return None };
    spec_of(call)
}

fn spec_of(call: &Call) -> Option<&'static Spec> {
    table::find(&call.args[0])
}

/// Whether what it costs is told by its arguments' bytes and those of the values it meets.
fn is_light(item: &Item, spec: Option<&Spec>) -> bool {
    let Item::Command(call) = item else { return false };
    spec.is_some_and(|spec| {
        spec.is_write()
            && spec.check_arity(&call.args).is_ok()
            && !depends_on_values(spec, &call.args)
            && of_arguments(spec, &call.args) == 0
    })
}

/// An entry that is being applied.
struct Applying<'a> {
    keyspace: Keyspace<'a>,
    wanted: Replies,
    /// What the reads of all its transactions may cost yet; counted only where replies are wanted.
    room: Allowance,
    /// The item's.
    level: u8,
    /// What the results of its items of a bounded level come to; the same on every node.
    results: usize,
}

/// What became of a call.
enum Ran {
    Replied(Reply),
    /// It was not run: the results of the entry would be too large. So many bytes are its own.
    TooLarge(usize),
}

impl Applying<'_> {
    fn command(&mut self, call: &Call, spec: Option<&'static Spec>) -> Result<Reply, ApplyError> {
        Ok(match self.run(call, spec, &mut Allowance::UNLIMITED.to_owned())? {
            Ran::Replied(reply) => reply,
            Ran::TooLarge(_) => Reply::error(TRY_LATER),
        })
    }

    /// All commands or, when a watched key has changed, an assertion answers an error or the results
    /// are too large, none. Any other command that fails does not keep the others from being run.
    fn transaction(&mut self, watches: &[Watch], calls: &[Call]) -> Result<Reply, ApplyError> {
        for watch in watches {
            self.keyspace.select(watch.db);
            let found =
                self.keyspace.view().version(&watch.key).map_err(ReadError::of_unlimited)?;
            if found != watch.version {
                return Ok(Reply::NullArray);
            }
        }
        let bounded = self.level >= LEVEL_BOUNDED;
        let undoable = bounded || calls.iter().any(asserts);
        if undoable {
            self.keyspace.begin_part();
        }
        let mut room = Allowance {
            steps: self.room.steps.min(TRANSACTION_STEPS_MAX),
            reply_bytes: self.room.reply_bytes.min(TRANSACTION_REPLY_BYTES_MAX),
        };
        let (before, results) = (room, self.results);
        let mut replies = Vec::with_capacity(calls.len());
        let mut refusal = None;
        for call in calls {
            if bounded && !replies.is_empty() {
                // Two databases may change places, and then a key of one must not have the version
                // that the other's has.
                self.keyspace.next_item();
            }
            match self.run(call, spec_of(call), &mut room)? {
                Ran::Replied(reply) if asserts(call) && self.undoes(&reply) => {
                    refusal = Some(reply);
                    break;
                }
                Ran::Replied(reply) => replies.push(reply),
                Ran::TooLarge(bytes) => {
                    let own = self.results - results + bytes;
                    let alone = own > RESULTS_MAX - ENTRY_CHARGE_MAX;
                    refusal = Some(Reply::error(if alone { TOO_LARGE } else { TRY_LATER }));
                    break;
                }
            }
        }
        self.room.steps -= before.steps - room.steps;
        self.room.reply_bytes -= before.reply_bytes - room.reply_bytes;
        if let Some(refusal) = refusal {
            self.keyspace.undo_part();
            return Ok(refusal);
        }
        if undoable {
            self.keyspace.keep_part();
        }
        Ok(Reply::Array(replies))
    }

    /// Whether an assertion that answers this undoes its transaction.
    fn undoes(&self, reply: &Reply) -> bool {
        match reply {
            Reply::Error(text) => {
                self.level >= LEVEL_BOUNDED || text.split(' ').next() == Some(ASSERT_FAILED)
            }
            _ => false,
        }
    }

    fn run(
        &mut self,
        call: &Call,
        spec: Option<&'static Spec>,
        room: &mut Allowance,
    ) -> Result<Ran, ApplyError> {
        let name = &call.args[0];
        let unknown = || ApplyError::UnknownCommand(String::from_utf8_lossy(name).into_owned());
        let spec = spec.ok_or_else(unknown)?;
        if let Err(reply) = spec.check_arity(&call.args) {
            return Ok(Ran::Replied(reply));
        }
        let keyspace = &mut self.keyspace;
        keyspace.select(call.db);
        match spec.kind {
            Kind::Write { apply, .. } => {
                if self.level >= LEVEL_BOUNDED {
                    let view = keyspace.view();
                    let bytes =
                        of_values(spec, &call.args, &view).map_err(ReadError::of_unlimited)?;
                    if self.results + bytes > RESULTS_MAX {
                        return Ok(Ran::TooLarge(bytes));
                    }
                    self.results += bytes;
                }
                let changes = keyspace.changes();
                let reply = apply(keyspace, &call.args)?;
                if let Reply::Error(text) = &reply {
                    let now = keyspace.changes();
                    assert_eq!(now, changes, "{} answered {text:?} after a change", spec.name);
                }
                Ok(Ran::Replied(reply))
            }
            // It decides what becomes of its transaction, so it must be the same everywhere.
            Kind::Read(read) if is_assertion(spec) => {
                let mut allowance = Allowance::UNLIMITED;
                if self.level >= LEVEL_BOUNDED {
                    allowance.steps = ASSERTION_STEPS_MAX;
                }
                let view = keyspace.view().allowing(allowance);
                Ok(Ran::Replied(read(&view, &call.args)?))
            }
            Kind::Read(_) if self.wanted == Replies::Unwanted => Ok(Ran::Replied(Reply::Null)),
            Kind::Read(read) => {
                let view = keyspace.view().allowing(*room);
                let reply = run_read(read, &view, &call.args)?;
                *room = view.left();
                Ok(Ran::Replied(reply))
            }
            Kind::Connection(_) => Err(unknown()),
        }
    }
}

const TRY_LATER: &str =
    "TRYAGAIN the results of all that was proposed together are too large; nothing was done";
const TOO_LARGE: &str =
    "ERR the results of the transaction come to more than 512 MiB; nothing was done";

fn asserts(call: &Call) -> bool {
    spec_of(call).is_some_and(is_assertion)
}

#[cfg(test)]
mod tests;
