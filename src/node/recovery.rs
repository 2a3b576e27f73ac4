//! From what is on disk to a node that can run: log, heads and store are opened, checked against
//! each other, and mended where they may be.
//!
//! - The log is truth, and says who this node is. Damage in it ends the start.
//! - A head further than the log (a crash between installing a head in the store and in the log)
//!   resets the log to it: all in a head is chosen.
//! - A store that cannot be trusted, or does not fit the log, is rebuilt from the newest head that
//!   verifies, and the log is replayed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::applier::{Applier, members};
use super::driver::Start;
use super::environment::Applied;
use super::heads::{HeadDirectory, HeadFileError, HeadInfo};
use crate::disk::Disk;
use crate::paxos::{DurableState, Incarnation, Index, Recovered, Save, Settings, Value};
use crate::planted::{Bug, plants};
use crate::store::keyspace::Meta;
use crate::store::{Distrust, Opened, Store, StoreError, StoreOptions, StorePlace};
use crate::transaction_log::{self, Identity, LogError, TransactionLog};

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The transaction log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The heads.
    #[error(transparent)]
    Head(#[from] HeadFileError),
    /// The file system.
    #[error("{path}: {error}")]
    Io {
        /// What was opened.
        path: PathBuf,
        /// What the file system said.
        error: std::io::Error,
    },
    /// The log begins behind every head: what came before it is nowhere here.
    #[error(
        "{directory}: the log starts after entry {base}, but no head that reaches it is left; \
         remove the directory and start again: the node comes back from the others"
    )]
    NoHead {
        /// The node's directory.
        directory: PathBuf,
        /// Where the log begins.
        base: Index,
    },
}

/// What a node is told about itself.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// The cluster's id.
    pub cluster_id: String,
    /// This node's name.
    pub node_name: String,
    /// The protocol's settings; the incarnation is replaced by the log's.
    pub paxos: Settings,
    /// Where clients reach each node, by seat.
    pub client_addresses: Vec<String>,
    /// Sizes of the store.
    pub store: StoreOptions,
    /// The transaction log's.
    pub log: transaction_log::Options,
    /// Bytes of log between heads.
    pub head_every_bytes: u64,
}

/// A node that is ready to run.
pub struct OpenedNode {
    /// Its log.
    pub log: TransactionLog,
    /// Its heads.
    pub heads: HeadDirectory,
    /// Its store.
    pub store: Store,
    /// The store's writer.
    pub applier: Applier,
    /// For the driver.
    pub start: Start,
}

/// Opens a node in `directory`, which may be empty. `fresh` is the life of a node that has no log
/// yet; `above`, if not 0, a life of this seat that the cluster knows, which a node without a vote
/// must exceed.
///
/// # Errors
/// The node cannot start; the text says what to do.
#[allow(clippy::too_many_arguments)]
pub fn open(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    place: StorePlace,
    settings: NodeSettings,
    fresh: Incarnation,
    above: Incarnation,
    seed: u64,
    now_us: u64,
) -> Result<OpenedNode, StartError> {
    let log_directory = directory.join("log");
    disk.create_directory(&log_directory)
        .map_err(|error| StartError::Io { path: log_directory.clone(), error })?;
    let heads = HeadDirectory::open(disk.clone(), &directory.join("heads"), &settings.cluster_id)?;
    let newest = heads.newest();
    // A node that kept its heads but lost its log must still live above its earlier lives.
    let seat = usize::from(settings.paxos.node.0);
    let in_head = newest.as_ref().and_then(|head| head.members.get(seat).copied());
    let above_all = above.max(in_head.unwrap_or_default());
    let lives = Lives { fresh, lowest: above_all, above, seed };
    let (mut log, mut found) = open_log(disk, &log_directory, &settings, lives)?;
    let incarnation = found.identity.incarnation;

    if let Some(head) = &newest {
        let held = log.reader().position_at(head.position.index);
        if head.position.index > found.last || (held.is_some() && held != Some(head.position)) {
            reset_log(&mut log, &mut found, head, incarnation, &settings.paxos)?;
        }
    }
    let store_options = settings.store.clone();
    let (store, opened) = Store::open(store_options, place)?;
    let applied = match fitting(&opened, &found) {
        true => opened.applied,
        false => rebuild(&store, &opened, &heads, &found, directory)?,
    };
    let (applied, meta, lives) = match read_state(&store) {
        Ok((meta, lives)) => (applied, meta, lives),
        Err(StoreError::Damaged(reason)) => {
            let opened = Opened { applied, distrust: Some(Distrust::Marked(reason)) };
            let applied = rebuild(&store, &opened, &heads, &found, directory)?;
            let (meta, lives) = read_state(&store)?;
            (applied, meta, lives)
        }
        Err(error) => return Err(error.into()),
    };
    let applied = Applied {
        index: Index(applied),
        stamp_ms: meta.clock_ms,
        earliest_deadline_ms: meta.earliest_deadline_ms(),
        expired_keys: 0,
        expiry_us: 0,
        changes: 0,
    };
    let chosen = found.chosen.max(applied.index);
    take_over_members(&mut found.state, &lives, incarnation, &settings.paxos);
    let start = Start {
        settings: Settings { incarnation, ..settings.paxos },
        client_addresses: settings.client_addresses,
        recovered: Recovered {
            admissions: admissions(&log, found.chosen, found.last)?,
            state: found.state,
            base: found.base,
            last: found.last,
            chosen,
            runs: found.ballots,
        },
        applied,
        heads: heads.list().iter().map(|head| (head.name, head.size)).collect(),
        head_every_bytes: settings.head_every_bytes,
        log_bytes_since_head: match &newest {
            Some(head) if head.position.index >= found.base.index => {
                log.bytes_since(head.position.index.next())
            }
            // No head reaches the log: who lags could not be helped. One is due at once.
            _ if found.base.index > Index(0) => u64::MAX,
            _ => log.bytes_since(Index(1)),
        },
        seed,
        now_us,
    };
    let applier = Applier::new(store.clone(), applied);
    Ok(OpenedNode { log, heads, store, applier, start })
}

/// What the life of a node without a log is made from.
struct Lives {
    fresh: Incarnation,
    /// It must be above this.
    lowest: Incarnation,
    /// A log of this life or a lower one that never had a vote is of no use any more.
    above: Incarnation,
    seed: u64,
}

fn open_log(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    settings: &NodeSettings,
    Lives { fresh, lowest, above, seed }: Lives,
) -> Result<(TransactionLog, transaction_log::Recovered), StartError> {
    let known = TransactionLog::read_identity(&**disk, directory)?;
    let open = || {
        let NodeSettings { cluster_id, node_name, log, .. } = settings;
        TransactionLog::open(disk.clone(), directory, log, cluster_id, node_name)
    };
    if let Some(identity) = known {
        let (log, found) = open()?;
        // A life that never had a vote has promised nobody anything.
        let outlived = identity.incarnation <= above && !found.state.voting;
        if !outlived {
            return Ok((log, found));
        }
        drop(log);
        TransactionLog::wipe(&**disk, directory)?;
    }
    let identity = Identity {
        cluster_id: settings.cluster_id.clone(),
        node_name: settings.node_name.clone(),
        incarnation: match plants(Bug::LifeReused) {
            true => Incarnation(1),
            false => life_above(lowest, fresh, seed),
        },
    };
    TransactionLog::create(disk.clone(), directory, &settings.log, identity)?;
    Ok(open()?)
}

/// A life that this seat never had. Usually that is the fresh one, made of the wall clock and chance.
/// With a wall clock that went back it is above those that the others know, and not the very next
/// number: a machine that loses its disk again would take that one again, and with it the votes of a
/// node that is gone.
fn life_above(lowest: Incarnation, fresh: Incarnation, seed: u64) -> Incarnation {
    let beyond = lowest.0.saturating_add(1).saturating_add(seed >> 32);
    if fresh > lowest { fresh } else { Incarnation(beyond) }
}

/// The log starts anew behind a head.
fn reset_log(
    log: &mut TransactionLog,
    found: &mut transaction_log::Recovered,
    head: &HeadInfo,
    incarnation: Incarnation,
    paxos: &Settings,
) -> Result<(), StartError> {
    let position = head.position;
    tracing::warn!(index = %position.index, "the newest head is further than the log: starts there");
    take_over_members(&mut found.state, &head.members, incarnation, paxos);
    log.append(&Save {
        reset_to: Some(position),
        state: Some(found.state.clone()),
        chosen: position.index,
        ..Save::default()
    })?;
    log.sync()?;
    (found.base, found.last, found.chosen) = (position, position.index, position.index);
    found.ballots.clear();
    Ok(())
}

/// What the store says about itself.
fn read_state(store: &Store) -> Result<(Meta, Vec<Incarnation>), StoreError> {
    let rows = store.read();
    let lives = members(&rows)?.into_iter().map(Incarnation).collect();
    Ok((Meta::read(&rows)?, lives))
}

/// Store and head may reflect admissions of which the log has not kept that they are chosen.
fn take_over_members(
    state: &mut DurableState,
    lives: &[Incarnation],
    incarnation: Incarnation,
    paxos: &Settings,
) {
    for (known, life) in state.members.iter_mut().zip(lives) {
        *known = (*known).max(*life);
    }
    if state.members.is_empty() && !lives.is_empty() {
        state.members = lives.to_vec();
        // The log is gone, and with it how long a lease an earlier life may have granted.
        state.lease_bound_us = state.lease_bound_us.max(paxos.lease_us);
    }
    state.voting |= lives.get(usize::from(paxos.node.0)) == Some(&incarnation);
}

/// The store is at an index from which the log can be replayed.
fn fitting(opened: &Opened, found: &transaction_log::Recovered) -> bool {
    opened.distrust.is_none()
        && opened.applied >= found.base.index.0
        && opened.applied <= found.last.0
}

fn rebuild(
    store: &Store,
    opened: &Opened,
    heads: &HeadDirectory,
    found: &transaction_log::Recovered,
    directory: &Path,
) -> Result<u64, StartError> {
    let reason = match &opened.distrust {
        Some(distrust) => distrust.to_string(),
        None => format!("it is at entry {}, the log holds others", opened.applied),
    };
    // The older head serves as well, if the newest is damaged.
    for head in heads.list().iter().rev().filter(|head| head.position.index >= found.base.index) {
        match heads.verify(head.name) {
            Ok(()) => {
                tracing::warn!(reason, head = %head.position.index, "rebuilds the store");
                heads.load(head.name, store)?;
                return Ok(head.position.index.0);
            }
            Err(error) => tracing::error!(%error, "a head is damaged"),
        }
    }
    if found.base.index > Index(0) {
        return Err(StartError::NoHead {
            directory: directory.to_path_buf(),
            base: found.base.index,
        });
    }
    if opened.applied > 0 || (opened.distrust.is_some() && found.last > Index(0)) {
        tracing::warn!(reason, "rebuilds the store from the whole log");
    }
    store.reset_to_rows(0, std::iter::empty())?;
    Ok(0)
}

/// Admissions that the log does not know to be chosen; those before are in the state's members.
fn admissions(
    log: &TransactionLog,
    chosen: Index,
    last: Index,
) -> Result<Vec<(Index, crate::paxos::NodeId, Incarnation)>, StartError> {
    let (reader, mut from, mut found) = (log.reader(), chosen.next(), Vec::new());
    while from <= last {
        let entries = reader.read(from, last, 1 << 20)?;
        for entry in &entries {
            if let Value::Admit { node, incarnation } = entry.value {
                found.push((entry.index, node, incarnation));
            }
        }
        from = entries.last().map_or(last, |entry| entry.index).next();
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The simulator found it: with a wall clock that had gone back, a machine that lost its disk
    /// twice took the number above the one known both times, and was taken for the node it had been.
    #[test]
    fn a_life_is_not_had_twice() {
        let known = Incarnation(1 << 60);
        let lives = [1, 2].map(|start| life_above(known, Incarnation(5), start << 40));
        assert!(lives[0] > known && lives[1] > known && lives[0] != lives[1]);
        assert_eq!(life_above(known, Incarnation(1 << 61), 7), Incarnation(1 << 61));
    }
}
