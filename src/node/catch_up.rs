//! Catching up by a head: fetching it in chunks, resumable, then putting it under log and store.
//!
//! The receiver asks for one chunk at a time, so the sender keeps no state and a lost chunk costs
//! one timeout. The order of an installation: head file, store, log; a crash in between is repaired
//! at the start, because the head file says it all.

use super::driver::Driver;
use super::environment::{Environment, HeadJob, InstalledHead};
use super::head_plan::HeadSize;
use super::message::{HeadChunk, HeadName, NodeMessage};
use super::status::CatchUp;
use crate::paxos::NodeId;

/// Without a chunk for that long the request is sent again.
const CHUNK_TIMEOUT_US: u64 = 1_000_000;

#[derive(Debug, Default)]
pub(super) struct CatchUpState {
    transfer: Option<Transfer>,
    /// The store holds this head, the log does not know yet.
    installed: Option<InstalledHead>,
}

#[derive(Debug)]
struct Transfer {
    from: NodeId,
    name: Option<HeadName>,
    kept_bytes: u64,
    size_bytes: u64,
    asked_at_us: u64,
    /// A chunk is on its way to the disk; a repeated one must not start the file anew meanwhile.
    keeping: bool,
    /// All chunks are here; the store is being replaced.
    installing: bool,
}

impl CatchUpState {
    pub fn installing(&self) -> bool {
        self.installed.is_some() || self.transfer.as_ref().is_some_and(|t| t.installing)
    }

    /// Whoever leads has caught up.
    pub fn give_up(&mut self) {
        self.transfer.take_if(|transfer| !transfer.installing);
    }

    pub fn progress(&self) -> Option<CatchUp> {
        self.transfer.as_ref().map(|transfer| CatchUp {
            kept_bytes: transfer.kept_bytes,
            size_bytes: transfer.size_bytes,
        })
    }
}

impl Driver {
    pub(super) fn begin_catch_up(&mut self, from: NodeId, environment: &mut dyn Environment) {
        if self.catch_up.installing() {
            return;
        }
        match &mut self.catch_up.transfer {
            Some(transfer) if transfer.from == from => return,
            // A new leader: its head may be the same one.
            Some(transfer) => transfer.from = from,
            None => {
                tracing::info!(%from, "too far behind for the log: fetches a head");
                self.catch_up.transfer = Some(Transfer {
                    from,
                    name: None,
                    kept_bytes: 0,
                    size_bytes: 0,
                    asked_at_us: 0,
                    keeping: false,
                    installing: false,
                });
            }
        }
        self.ask_for_chunk(environment);
    }

    fn ask_for_chunk(&mut self, environment: &mut dyn Environment) {
        let now_us = self.now_us();
        let Some(transfer) = &mut self.catch_up.transfer else { return };
        transfer.asked_at_us = now_us;
        let request =
            NodeMessage::HeadRequest { partial: transfer.name, offset_bytes: transfer.kept_bytes };
        environment.send(transfer.from, request);
    }

    pub(super) fn catch_up_again(&mut self, environment: &mut dyn Environment) {
        let now_us = self.now_us();
        let leader = self.replica.leader();
        let node = self.node();
        let Some(transfer) = &mut self.catch_up.transfer else { return };
        if transfer.installing || now_us < transfer.asked_at_us + CHUNK_TIMEOUT_US {
            return;
        }
        if let Some(leader) = leader.filter(|leader| *leader != node) {
            transfer.from = leader;
        }
        self.ask_for_chunk(environment);
    }

    pub(super) fn take_chunk(
        &mut self,
        from: NodeId,
        chunk: HeadChunk,
        environment: &mut dyn Environment,
    ) {
        let Some(transfer) = &mut self.catch_up.transfer else { return };
        let busy = transfer.installing || transfer.keeping;
        if busy || from != transfer.from {
            return;
        }
        let other_file =
            transfer.name == Some(chunk.name) && transfer.size_bytes != chunk.size_bytes;
        if other_file && chunk.offset_bytes > 0 {
            // The same head in other blocks, from another node: from its start.
            transfer.name = None;
            transfer.kept_bytes = 0;
            return self.ask_for_chunk(environment);
        }
        let same = transfer.name == Some(chunk.name) && transfer.size_bytes == chunk.size_bytes;
        let fits = match same {
            true => chunk.offset_bytes == transfer.kept_bytes,
            false => chunk.offset_bytes == 0,
        };
        let end = chunk.offset_bytes.checked_add(chunk.bytes.len() as u64);
        let within = end.is_some_and(|end| end <= chunk.size_bytes) && !chunk.bytes.is_empty();
        if !fits || !within {
            return;
        }
        transfer.keeping = true;
        if !same {
            transfer.name = Some(chunk.name);
            transfer.size_bytes = chunk.size_bytes;
            transfer.kept_bytes = 0;
        }
        environment.head(HeadJob::Keep(chunk));
    }

    pub(super) fn take_chunk_kept(
        &mut self,
        name: HeadName,
        kept_bytes: u64,
        size_bytes: u64,
        environment: &mut dyn Environment,
    ) {
        let Some(transfer) = &mut self.catch_up.transfer else { return };
        if transfer.name != Some(name) || transfer.installing {
            return;
        }
        transfer.keeping = false;
        transfer.kept_bytes = kept_bytes;
        if kept_bytes < size_bytes {
            return self.ask_for_chunk(environment);
        }
        transfer.installing = true;
        tracing::info!(index = %name.index, size_bytes, "the head is here: installs it");
        environment.head(HeadJob::Install(name));
    }

    pub(super) fn take_head_installed(&mut self, installed: Option<InstalledHead>) {
        self.catch_up.transfer = None;
        let Some(installed) = installed else { return };
        let node = self.node();
        // It is one of this node's heads now.
        self.heads.written(node, installed.name, installed.size);
        self.applied.index = installed.position.index;
        self.applied.stamp_ms = installed.stamp_ms;
        self.dispatched = installed.position.index;
        self.catch_up.installed = Some(installed);
        self.install_head_in_log();
    }

    /// The store is at the head's index; the log follows as soon as the protocol lets it.
    pub(super) fn install_head_in_log(&mut self) {
        let Some(installed) = &self.catch_up.installed else { return };
        let (now_us, position) = (self.now_us(), installed.position);
        if self.replica.chosen() >= position.index
            || self.replica.head_installed(now_us, position, &installed.members)
        {
            tracing::info!(index = %position.index, "caught up by a head");
            self.catch_up.installed = None;
        }
    }

    pub(super) fn take_head_written(
        &mut self,
        name: HeadName,
        size: HeadSize,
        environment: &mut dyn Environment,
    ) {
        let node = self.node();
        self.heads.written(node, name, size);
        for other in self.others() {
            environment.send(other, NodeMessage::HeadDigest(name));
        }
        if let Some(below) = self.heads.log_needed_from() {
            environment.collapse_log(below);
        }
    }
}
