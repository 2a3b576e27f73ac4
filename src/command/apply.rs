//! Applying an entry of the log to the keyspace.
//!
//! The same on every node: nothing but the entry and the rows is looked at. Commands were checked
//! before they entered the log, so an error here comes from the state (a wrong type, an overflow);
//! it is an ordinary reply and has changed nothing.

use bytes::Bytes;
use resp::Reply;

use super::assertions::is_assertion;
use super::batch::{Batch, BatchError, Call, Item, Watch};
use super::table::{self, Kind};
use crate::store::keyspace::Keyspace;
use crate::store::{RowsMut, StoreError};

/// Expired keys that one clock item deletes at most: it must not hold up what stands behind it.
pub const EXPIRED_PER_CLOCK_MAX: usize = 1000;

/// Rows of removals that one clock item looks at at most: about a millisecond's work. All nodes must
/// have the same number.
pub const REMOVED_PER_CLOCK_MAX: usize = 250;

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

/// Applies the batch at `index` of the log. The caller commits the rows, or none of them when this
/// fails.
pub fn apply_batch(
    index: u64,
    batch: &Bytes,
    rows: &mut dyn RowsMut,
) -> Result<Applied, ApplyError> {
    let mut batch = Batch::open(batch)?;
    let mut keyspace = Keyspace::begin(rows, index, batch.stamp_ms, batch.seed)?;
    // An item takes at least a byte, but its reply more: a made-up count must not reserve much.
    let mut replies = Vec::with_capacity(batch.count.min(4096) as usize);
    let mut head_requested = false;
    let mut expired_keys = 0;
    let mut first = true;
    while let Some(item) = batch.next_item()? {
        if !std::mem::take(&mut first) {
            keyspace.next_item();
        }
        replies.push(match item {
            Item::Command(call) => run(&mut keyspace, &call)?,
            Item::Transaction { watches, calls } => transaction(&mut keyspace, &watches, &calls)?,
            Item::Clock => {
                expired_keys += keyspace.delete_expired(EXPIRED_PER_CLOCK_MAX)?;
                keyspace.go_on_removing(REMOVED_PER_CLOCK_MAX)?;
                Reply::OK
            }
            Item::Head => {
                head_requested = true;
                Reply::OK
            }
        });
    }
    let meta = keyspace.finish();
    Ok(Applied {
        replies,
        head_requested,
        stamp_ms: meta.clock_ms,
        earliest_deadline_ms: meta.earliest_deadline_ms(),
        expired_keys,
    })
}

/// All commands or, when a watched key has changed or an assertion answers an error, none. Any other
/// command that fails does not keep the others from being run.
fn transaction(
    keyspace: &mut Keyspace,
    watches: &[Watch],
    calls: &[Call],
) -> Result<Reply, ApplyError> {
    for watch in watches {
        keyspace.select(watch.db);
        if keyspace.view().version(&watch.key)? != watch.version {
            return Ok(Reply::NullArray);
        }
    }
    let asserts = |call: &Call| table::find(&call.args[0]).is_some_and(is_assertion);
    if !calls.iter().any(asserts) {
        let replies: Result<Vec<Reply>, ApplyError> =
            calls.iter().map(|call| run(keyspace, call)).collect();
        return Ok(Reply::Array(replies?));
    }
    keyspace.begin_part();
    let mut replies = Vec::with_capacity(calls.len());
    for call in calls {
        let reply = run(keyspace, call)?;
        if asserts(call) && matches!(reply, Reply::Error(_)) {
            keyspace.undo_part();
            return Ok(reply);
        }
        replies.push(reply);
    }
    keyspace.keep_part();
    Ok(Reply::Array(replies))
}

fn run(keyspace: &mut Keyspace, call: &Call) -> Result<Reply, ApplyError> {
    let name = &call.args[0];
    let unknown = || ApplyError::UnknownCommand(String::from_utf8_lossy(name).into_owned());
    let spec = table::find(name).ok_or_else(unknown)?;
    if let Err(reply) = spec.check_arity(&call.args) {
        return Ok(reply);
    }
    keyspace.select(call.db);
    match spec.kind {
        Kind::Write { apply, .. } => {
            let changes = keyspace.changes();
            let reply = apply(keyspace, &call.args)?;
            if let Reply::Error(text) = &reply {
                let now = keyspace.changes();
                assert_eq!(now, changes, "{} answered {text:?} after a change", spec.name);
            }
            Ok(reply)
        }
        Kind::Read(read) => Ok(read(&keyspace.view(), &call.args)?),
        Kind::Connection(_) => Err(unknown()),
    }
}

#[cfg(test)]
mod tests;
