//! The driver's world in a real node: its disk, the other nodes, and the threads that work for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::applying::{self, StoreJob};
use super::awake::Awake;
use super::clock;
use super::environment::{ApplyJob, Environment, HeadJob, ReadPurpose};
use super::handle::Handle;
use super::message::NodeMessage;
use super::runtime::{Common, Outbox, ReadJob};
use super::status::Status;
use crate::paxos::{Index, NodeId, Save};

/// The driver's world.
pub(super) struct World {
    pub(super) common: Common,
    pub(super) awake: Awake,
    pub(super) handle: Handle,
    /// Of this step, in order; see [`World::save_now`].
    pub(super) saves: Vec<Save>,
    /// Of this step, in order; see [`World::apply_now`].
    pub(super) to_apply: Vec<StoreJob>,
    /// Something was sent in this step.
    pub(super) has_sent: bool,
    pub(super) outbox: Arc<parking_lot::Mutex<Box<dyn Outbox>>>,
    pub(super) close_clients: Arc<dyn Fn() + Send + Sync>,
    /// As last told to `master_changed`.
    pub(super) master: Option<NodeId>,
    pub(super) master_changed: Arc<dyn Fn(Option<NodeId>) + Send + Sync>,
}

impl World {
    /// Does what the step wants saved, itself if that is soonest and there is nothing better to do
    /// meanwhile (`busy`: there is). What it has sent leaves first: the other nodes' syncs then run
    /// beside this one.
    pub(super) async fn save_now(&mut self, busy: bool) {
        if self.saves.is_empty() {
            return;
        }
        let saving = &self.common.saving;
        if !busy && saving.is_quick(&self.saves) {
            if std::mem::take(&mut self.has_sent) {
                tokio::task::yield_now().await;
            }
            if saving.save(&self.saves) {
                self.saves.clear();
                return;
            }
        }
        saving.save_later(std::mem::take(&mut self.saves));
    }

    /// Does what the step wants applied: a leader itself, if it is little, once the log's thread has
    /// its work and the others have theirs. A follower's thread is in no hurry.
    pub(super) async fn apply_now(&mut self, leads: bool) -> Result<(), String> {
        let has_sent = std::mem::take(&mut self.has_sent);
        if !leads {
            self.send_to_apply();
        } else if !self.to_apply.is_empty() {
            if has_sent {
                tokio::task::yield_now().await;
            }
            for job in self.to_apply.drain(..) {
                let StoreJob::Apply(job) = job else {
                    self.common.applying.send(job);
                    continue;
                };
                let tell = |applied| applying::tell(applied, &self.common);
                self.common.applying.apply_here(job, tell)?;
            }
        }
        Ok(())
    }

    fn send_to_apply(&mut self) {
        for job in self.to_apply.drain(..) {
            self.common.applying.send(job);
        }
    }

    /// What is asked of the log now comes after what was to be saved before.
    fn keep_order(&mut self) {
        if !self.saves.is_empty() {
            self.common.saving.save_later(std::mem::take(&mut self.saves));
        }
    }
}

impl Environment for World {
    fn save(&mut self, saves: Vec<Save>) {
        self.saves.extend(saves);
    }

    fn send(&mut self, to: NodeId, message: NodeMessage) {
        self.has_sent = true;
        self.outbox.lock().send(to, &message);
    }

    fn read(&mut self, purpose: ReadPurpose) {
        self.common.read_jobs.push(ReadJob::Log(purpose));
    }

    fn apply(&mut self, job: ApplyJob) {
        self.to_apply.push(StoreJob::Apply(job));
    }

    fn head(&mut self, job: HeadJob) {
        match job {
            HeadJob::Serve { to, partial, offset_bytes } => {
                self.common.read_jobs.push(ReadJob::Serve { to, partial, offset_bytes });
            }
            HeadJob::Keep(chunk) => self.common.read_jobs.push(ReadJob::Keep(chunk)),
            HeadJob::Install(name) => self.to_apply.push(StoreJob::Install(name)),
        }
    }

    fn collapse_log(&mut self, below: Index) {
        self.keep_order();
        self.common.saving.collapse(below);
    }

    fn publish(&mut self, status: &Arc<Status>) {
        // Nothing of this step is applied yet.
        self.common.log_durable.store(status.durable.0, Ordering::SeqCst);
        self.handle.publish(status);
        if status.master != self.master {
            self.master = status.master;
            (self.master_changed)(status.master);
        }
    }

    fn close_clients(&mut self) {
        (self.close_clients)();
    }

    fn over_bound(&self) -> bool {
        self.common.store.over_bound()
    }

    fn wall_ms(&self) -> u64 {
        clock::wall_ms()
    }
}
