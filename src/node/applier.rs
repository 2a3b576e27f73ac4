//! Applies chosen entries to the store, in order, and answers those who wait for them.
//!
//! Synchronous; the real node runs it on a thread of its own, so that a slow store holds up neither
//! heartbeats nor the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, Bytes};

use super::environment::{Applied, ApplyJob, InstalledHead, Waiter};
use super::heads::{HeadDirectory, HeadFileError};
use super::message::HeadName;
use crate::command::apply::{self, ApplyError, Replies, apply_batch};
use crate::paxos::{Entry, Value};
use crate::planted::{Bug, plants};
use crate::store::keyspace::Meta;
use crate::store::{FrozenView, Rows, RowsMut, Store, StoreError};
use resp::Reply;

/// Space 0, beside the keyspace's own row: the life of each seat, u64 big-endian. It belongs to the
/// state, so that a head says exactly which admissions it covers.
const MEMBERS_ROW: [u8; 5] = [0, 0, 0, 0, b'L'];

/// The state at an entry that asked for a head.
pub struct Frozen {
    /// That entry.
    pub entry: Entry,
    /// The log's clock there.
    pub stamp_ms: u64,
    /// Changes made to keys since the node began.
    pub changes: u64,
    /// All rows as they were then.
    pub view: FrozenView,
}

/// What was applied since the node began, counted. Whoever was answered finds what he did counted.
#[derive(Debug, Default)]
pub struct AppliedCounts {
    expired_keys: AtomicU64,
    changes: AtomicU64,
}

impl AppliedCounts {
    /// Keys deleted because their deadline had passed.
    pub fn expired_keys(&self) -> u64 {
        self.expired_keys.load(Ordering::Relaxed)
    }

    /// Changes made to keys otherwise.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }
}

/// What became of an entry that must be soon done or not at all. Unless it is applied nothing has
/// happened, and the waiters come back.
pub enum Attempt {
    /// Done and answered.
    Applied,
    /// It takes longer, or somebody is in the way.
    WouldWait(Vec<Waiter>),
    /// The engine has to be asked.
    NotInMemory(Vec<Waiter>),
}

/// The only writer of a store.
pub struct Applier {
    store: Store,
    applied: Applied,
    counts: Arc<AppliedCounts>,
}

impl Applier {
    /// `applied` is where the store is.
    pub fn new(store: Store, applied: Applied) -> Applier {
        Applier { store, applied, counts: Arc::default() }
    }

    /// Kept up to date while it applies.
    pub fn counts(&self) -> Arc<AppliedCounts> {
        self.counts.clone()
    }

    /// How far the store is.
    pub fn applied(&self) -> Applied {
        self.applied
    }

    /// An entry that deleted expired keys took so long.
    pub fn note_expiry(&mut self, us: u64) {
        self.applied.expiry_us += us;
    }

    /// Checks a fetched head and replaces the store's state by it. `None`: it is damaged, or the
    /// store is further already.
    pub fn install(
        &mut self,
        heads: &HeadDirectory,
        name: HeadName,
    ) -> Result<Option<InstalledHead>, HeadFileError> {
        if name.index <= self.applied.index {
            heads.discard(name)?;
            return Ok(None);
        }
        let Some(head) = heads.adopt(name)? else { return Ok(None) };
        heads.load(head.name, &self.store)?;
        let meta = Meta::read(&self.store.read())?;
        self.applied = Applied {
            index: head.name.index,
            stamp_ms: meta.clock_ms,
            earliest_deadline_ms: meta.earliest_deadline_ms(),
            expired_keys: self.applied.expired_keys,
            expiry_us: self.applied.expiry_us,
            changes: self.applied.changes,
        };
        heads.note_saved(self.applied.changes);
        Ok(Some((&head).into()))
    }

    /// Applies, makes each entry visible as a whole, then answers. Returns the states that heads
    /// were asked of.
    ///
    /// # Errors
    /// The node must stop.
    pub fn apply(&mut self, job: ApplyJob) -> Result<Vec<Frozen>, ApplyError> {
        let mut frozen = Vec::new();
        for (entry, waiters) in job.entries {
            if entry.index <= self.applied.index {
                continue; // A head brought the store further than the job knew.
            }
            assert_eq!(entry.index, self.applied.index.next(), "applies out of order");
            let (replies, head_requested) = self.apply_entry(&entry, wanted(&waiters))?;
            answer(replies, waiters);
            if head_requested {
                let view = self.store.freeze();
                let Applied { stamp_ms, changes, .. } = self.applied;
                frozen.push(Frozen { entry, stamp_ms, changes, view });
            }
        }
        Ok(frozen)
    }

    /// As [`Applier::apply`] for one entry, if it is soon done: memory has all that it needs, nobody
    /// stands in the way, and it consists of simple writes only.
    ///
    /// # Errors
    /// As [`Applier::apply`].
    pub fn apply_in_memory(
        &mut self,
        entry: &Entry,
        waiters: Vec<Waiter>,
    ) -> Result<Attempt, ApplyError> {
        if entry.index <= self.applied.index {
            return Ok(Attempt::WouldWait(waiters));
        }
        assert_eq!(entry.index, self.applied.index.next(), "applies out of order");
        let mut rows = self.store.entry_in_memory();
        let done = match self.run(entry, &mut rows, wanted(&waiters)) {
            Err(ApplyError::Store(StoreError::NotInMemory)) => {
                return Ok(Attempt::NotInMemory(waiters));
            }
            Err(ApplyError::Store(StoreError::WouldWait)) => {
                return Ok(Attempt::WouldWait(waiters));
            }
            done => done?,
        };
        assert!(!done.head_requested, "a head is no simple write");
        if !rows.try_commit(entry.index.0) {
            return Ok(Attempt::WouldWait(waiters));
        }
        let replies = self.note(entry, done);
        answer(replies, waiters);
        Ok(Attempt::Applied)
    }

    fn apply_entry(
        &mut self,
        entry: &Entry,
        wanted: Replies,
    ) -> Result<(Vec<Reply>, bool), ApplyError> {
        let mut rows = self.store.entry();
        let done = self.run(entry, &mut rows, wanted)?;
        rows.commit(entry.index.0);
        let head_requested = done.head_requested;
        Ok((self.note(entry, done), head_requested))
    }

    /// Changes the rows as the entry says, and nothing else.
    fn run(
        &self,
        entry: &Entry,
        rows: &mut dyn RowsMut,
        wanted: Replies,
    ) -> Result<apply::Applied, ApplyError> {
        match &entry.value {
            Value::Batch(batch) => return apply_batch(entry.index.0, batch, rows, wanted),
            Value::Establish { members } => change_members(rows, |known| {
                known.resize(known.len().max(members.len()), 0);
                for (known, new) in known.iter_mut().zip(members) {
                    *known = new.0.max(*known);
                }
            })?,
            Value::Admit { node, incarnation } => change_members(rows, |known| {
                if let Some(known) = known.get_mut(usize::from(node.0)) {
                    *known = incarnation.0.max(*known);
                }
            })?,
        }
        Ok(apply::Applied {
            replies: Vec::new(),
            head_requested: false,
            stamp_ms: self.applied.stamp_ms,
            earliest_deadline_ms: self.applied.earliest_deadline_ms,
            expired_keys: 0,
            changes: 0,
        })
    }

    /// The entry's rows are visible.
    fn note(&mut self, entry: &Entry, done: apply::Applied) -> Vec<Reply> {
        self.applied = Applied {
            index: entry.index,
            stamp_ms: done.stamp_ms,
            earliest_deadline_ms: done.earliest_deadline_ms,
            expired_keys: self.applied.expired_keys + done.expired_keys as u64,
            expiry_us: self.applied.expiry_us,
            changes: self.applied.changes + done.changes,
        };
        self.counts.expired_keys.store(self.applied.expired_keys, Ordering::Relaxed);
        self.counts.changes.store(self.applied.changes, Ordering::Relaxed);
        done.replies
    }
}

/// Whether anybody waits for replies.
fn wanted(waiters: &[Waiter]) -> Replies {
    match waiters.iter().any(|waiter| waiter.respond.is_some()) {
        true => Replies::Wanted,
        false => Replies::Unwanted,
    }
}

/// The life of each seat as of the state that `rows` show; empty before the first leader.
pub fn members(rows: &dyn Rows) -> Result<Vec<u64>, StoreError> {
    let row = rows.get(&MEMBERS_ROW)?.unwrap_or_default();
    Ok(row.chunks_exact(8).map(|mut bytes| bytes.get_u64()).collect())
}

fn change_members(
    rows: &mut dyn RowsMut,
    change: impl FnOnce(&mut Vec<u64>),
) -> Result<(), StoreError> {
    let mut lives = members(rows)?;
    change(&mut lives);
    let value: Vec<u8> = lives.iter().flat_map(|life| life.to_be_bytes()).collect();
    rows.put(Bytes::from_static(&MEMBERS_ROW), value.into());
    Ok(())
}

/// Hands each waiter its part of an entry's replies.
fn answer(mut replies: Vec<Reply>, waiters: Vec<Waiter>) {
    if plants(Bug::RepliesSwapped) {
        replies.reverse();
    }
    let mut replies = replies.into_iter();
    for mut waiter in waiters {
        let part: Vec<Reply> = replies.by_ref().take(waiter.count as usize).collect();
        assert_eq!(part.len(), waiter.count as usize, "an entry with fewer replies than items");
        waiter.answer(Ok(part));
    }
}
