//! The driver: where the protocol, the log, the store and the clients meet. Plain synchronous code
//! over [`Environment`]; a real node runs it on one thread, the simulator runs many in one.
//!
//! Order: events before messages (a master that is deposed stops answering before its release can
//! leave); saves before messages that need them (the replica holds those back); entries are applied
//! in log order, once chosen, and answered by the applier.

mod dispatching;
mod proposing;
mod publishing;

use std::sync::Arc;

use super::catch_up::CatchUpState;
use super::clock_entries::ClockEntries;
use super::environment::{Applied, Environment, HeadJob, Input, ReadPurpose};
use super::handover::{HandOver, HandOverState};
use super::head_plan::{HeadPlan, HeadSize};
use super::message::{HeadName, NodeMessage};
use super::proposals::{Gather, Proposals};
use super::refusal::Refusal;
use super::stamp::StampClock;
use super::status::{Role, Status};
use crate::paxos::{Ballot, Event, Incarnation, Index, NodeId, Recovered, Replica, Settings};

/// A node with more chosen entries left to apply leaves elections to others: about a tenth of a
/// second's work.
const STANDS_WITHIN_ENTRIES: u64 = 256;
/// How long a planned stop waits for what was proposed.
const STOP_SETTLES_US: u64 = 100_000;
/// How often `step` is called while something is due soon.
const SOON_US: u64 = 2_000;
/// Entries proposed and not applied; past it updates wait in the queue.
const UNAPPLIED_ENTRIES_MAX: u64 = 1024;

/// What a driver starts from.
pub struct Start {
    /// The protocol's settings.
    pub settings: Settings,
    /// Where clients reach each node, by seat.
    pub client_addresses: Vec<String>,
    /// What the log held.
    pub recovered: Recovered,
    /// How far the store is.
    pub applied: Applied,
    /// Heads that are here, oldest first, with their sizes.
    pub heads: Vec<(HeadName, HeadSize)>,
    /// Bytes of log between heads.
    pub head_every_bytes: u64,
    /// Bytes in the log since the newest head.
    pub log_bytes_since_head: u64,
    /// For all random choices.
    pub seed: u64,
    /// The boot clock.
    pub now_us: u64,
}

/// That this node leads.
#[derive(Clone, Copy, Debug)]
struct Lead {
    establish: Index,
    /// The latest time that any of those who elected it had kept; 0: none had.
    electors_time_ms: u64,
    /// The clock as it was before. A lead that ends before its first entry is applied must leave
    /// nothing behind: its clock may have jumped to a wrong wall clock.
    clock_before: StampClock,
}

/// One node.
pub struct Driver {
    settings: Settings,
    client_addresses: Vec<String>,
    pub(super) replica: Replica,
    proposals: Proposals,
    clock: StampClock,
    random: fastrand::Rng,
    now_us: u64,

    lead: Option<Lead>,
    pub(super) applied: Applied,
    /// Handed to the applier up to here.
    pub(super) dispatched: Index,
    /// Since then this follower has had something to apply, and lets more of it gather.
    gathers_since_us: Option<u64>,
    /// See [`Driver::gathers`].
    gathers: Option<Gather>,
    /// Bytes handed to it, per job, with the last index of the job.
    dispatched_bytes: std::collections::VecDeque<(Index, usize)>,
    reading_for_apply: bool,
    clock_entries: ClockEntries,

    pub(super) heads: HeadPlan,
    pub(super) catch_up: CatchUpState,
    disk_nearly_full: bool,
    stopping_since_us: Option<u64>,
    handed_over: bool,
    pub(super) hand_over: Option<HandOver>,
    /// Until then nobody knows yet whom this node handed over to.
    successor_expected_until_us: u64,
    /// The leader under this ballot has said what time it is, so it is the master.
    stamped_under: Ballot,
    stamp_sent_at_us: u64,
    status: Arc<Status>,
    outlived: Option<Incarnation>,
}

impl Driver {
    /// A driver that has not done anything yet.
    pub fn new(start: Start) -> Driver {
        let Start { settings, recovered, applied, now_us, .. } = start;
        let mut random = fastrand::Rng::with_seed(start.seed);
        let replica = Replica::new(settings.clone(), recovered, random.u64(..), now_us);
        let status = Arc::new(Status {
            role: Role::Joining,
            serving_until_us: 0,
            serving_from: Index(0),
            refusal: Refusal::ClusterDown("no master is known"),
            updates_refused: None,
            stamp_offset_ms: 0,
            master: None,
            leader_silent_us: 0,
            handover: HandOverState::None,
            ballot: Ballot::ZERO,
            incarnation: settings.incarnation,
            last: Index(0),
            durable: Index(0),
            chosen: Index(0),
            applied: applied.index,
            base: Index(0),
            lease_until_us: 0,
            followers: Vec::new(),
            queued: 0,
            head: None,
            head_mismatch: None,
            catch_up: None,
            clock_off_ms: 0,
        });
        Driver {
            client_addresses: start.client_addresses,
            proposals: Proposals::new(settings.lease_us),
            clock: StampClock::new(applied.stamp_ms, now_us),
            settings,
            replica,
            random,
            now_us,
            lead: None,
            applied,
            dispatched: applied.index,
            gathers_since_us: None,
            gathers: None,
            dispatched_bytes: Default::default(),
            reading_for_apply: false,
            clock_entries: ClockEntries::default(),
            heads: HeadPlan::new(start.heads, start.head_every_bytes, start.log_bytes_since_head),
            catch_up: CatchUpState::default(),
            disk_nearly_full: false,
            stopping_since_us: None,
            handed_over: false,
            hand_over: None,
            successor_expected_until_us: 0,
            stamped_under: Ballot::ZERO,
            stamp_sent_at_us: 0,
            status,
            outlived: None,
        }
    }

    /// Takes what happened, lets time pass, and does what follows. To be called for every input,
    /// and at least every [`Driver::tick_every_us`].
    pub fn step(
        &mut self,
        now_us: u64,
        inputs: impl IntoIterator<Item = Input>,
        environment: &mut dyn Environment,
    ) {
        self.now_us = self.now_us.max(now_us);
        for input in inputs {
            self.replica.set_time(self.settled_clock().kept_ms(self.now_us).unwrap_or(0));
            self.take(input, environment);
        }
        self.replica.set_time(self.settled_clock().kept_ms(self.now_us).unwrap_or(0));
        let to_apply = self.replica.chosen().0.saturating_sub(self.applied.index.0);
        self.replica.set_catching_up(to_apply > STANDS_WITHIN_ENTRIES);
        self.replica.tick(self.now_us);
        self.proposals.expire(self.now_us);
        self.install_head_in_log();
        self.flush(environment);
        // Before anything is stamped: after a pause the clock may have much to make up for.
        self.keep_time(environment);
        self.propose(environment);
        self.dispatch(environment);
        self.go_on_handing_over(environment);
        self.catch_up_again(environment);
        self.stop_if_asked(environment);
        self.publish(environment);
    }

    /// How often `step` is called when nothing happens, in microseconds.
    pub fn tick_every_us(&self) -> u64 {
        (self.settings.lease_us / 50).clamp(1_000, 10_000)
    }

    /// The same while [`Driver::is_waiting`].
    pub fn tick_soon_us(&self) -> u64 {
        self.tick_every_us().min(SOON_US)
    }

    /// Something becomes due before the next ordinary tick.
    pub fn is_waiting(&self) -> bool {
        self.gathers.is_some()
            || self.gathers_since_us.is_some()
            || self.clock_entries.rests(self.now_us)
            || self.replica.is_waiting()
    }

    /// Whether something goes on as soon as more is applied, not only at the next step.
    pub fn awaits_applied(&self) -> bool {
        // A store that was just made from a head may be ahead of the log for a while.
        let unapplied = self.replica.last().index.0.saturating_sub(self.applied.index.0);
        let behind = (self.dispatched < self.replica.chosen() && self.gathers_since_us.is_none())
            || unapplied >= UNAPPLIED_ENTRIES_MAX / 2;
        let becomes_master = self.lead.is_some() && !self.established();
        let for_the_clock = self.clock_entries.is_open();
        behind || for_the_clock || becomes_master || self.stopping() || self.hand_over.is_some()
    }

    /// Something that was proposed waits for its outcome.
    pub fn has_in_flight(&self) -> bool {
        self.proposals.in_flight() > 0
    }

    /// So many clients wait for updates that this thread is better used for them than for a disk.
    pub fn is_crowded(&self) -> bool {
        self.lead.is_some() && self.proposals.is_crowded()
    }

    /// While something is on its way, processors have nothing to do in between; as far as is known here.
    pub fn leaves_processors_idle(&self) -> bool {
        self.lead.is_none() || self.proposals.leaves_processors_idle()
    }

    /// A planned stop is complete: nothing is led and nothing pending.
    pub fn stopped(&self) -> bool {
        self.handed_over
    }

    /// The cluster knows a later life of this seat than this one: start anew, above it.
    pub fn outlived(&self) -> Option<Incarnation> {
        self.outlived
    }

    /// Where this node stands.
    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }

    /// Whether it has kept the log's clock since some leader told it the time.
    pub fn keeps_time(&self) -> bool {
        self.settled_clock().kept_ms(self.now_us).is_some()
    }

    /// For a leader: the latest time that any of those who elected it had kept; 0: none had.
    pub fn electors_time_ms(&self) -> u64 {
        self.lead.map_or(0, |lead| lead.electors_time_ms)
    }

    /// The clock, without what a lead has made of it of which no entry is applied yet.
    fn settled_clock(&self) -> StampClock {
        match self.lead {
            Some(lead) if self.applied.index < lead.establish => lead.clock_before,
            _ => self.clock,
        }
    }

    /// The protocol's state, for checks.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    fn take(&mut self, input: Input, environment: &mut dyn Environment) {
        let now_us = self.now_us;
        match input {
            Input::Message { from, incarnation, message } => {
                self.take_message(from, incarnation, message, environment);
            }
            Input::Submission(submission) => match self.refusal_of_updates() {
                Some(refusal) => (submission.respond)(Err(refusal)),
                None => self.proposals.enqueue(submission),
            },
            Input::Saved(id) => self.replica.saved(now_us, id),
            Input::Read(ReadPurpose::Replica(request), entries) => {
                self.replica.entries_read(now_us, request, entries);
            }
            Input::Read(ReadPurpose::Apply { from, .. }, entries) => {
                self.reading_for_apply = false;
                if from == self.dispatched.next() && !entries.is_empty() {
                    for entry in &entries {
                        let (read, known) =
                            (entry.position(), self.replica.position_at(entry.index));
                        assert!(known == Some(read), "read {read:?} from the log, not {known:?}");
                    }
                    self.dispatch_entries(entries, environment);
                }
            }
            Input::Applied(applied) => self.take_applied(applied),
            Input::HeadWritten { name, size } => {
                self.take_head_written(name, size, environment);
            }
            Input::HeadFailed(index) => self.heads.failed(index, now_us),
            Input::HeadChunkKept { name, kept_bytes, size_bytes } => {
                self.take_chunk_kept(name, kept_bytes, size_bytes, environment);
            }
            Input::HeadInstalled(installed) => self.take_head_installed(installed),
            Input::Collapsed(base) => self.replica.collapse(base.min(self.replica.chosen())),
            Input::DiskNearlyFull(full) => self.disk_nearly_full = full,
            Input::Stop => self.stopping_since_us = self.stopping_since_us.or(Some(now_us)),
            Input::WriteHead => self.heads.want(self.replica.is_leader()),
            Input::HandOver(order) => self.begin_hand_over(order),
            Input::AbortHandOver => self.abort_hand_over(),
            Input::AskForMastership { force } => self.ask_for_mastership(force, environment),
        }
    }

    fn take_message(
        &mut self,
        from: NodeId,
        incarnation: Incarnation,
        message: NodeMessage,
        environment: &mut dyn Environment,
    ) {
        match message {
            NodeMessage::Paxos(message) => {
                self.replica.receive(self.now_us, from, incarnation, message);
            }
            NodeMessage::Stamp { ballot, stamp_ms } => {
                let follows = self.replica.leader() == Some(from);
                if follows && ballot == self.replica.state().promised {
                    self.clock.hear(stamp_ms, self.now_us);
                    self.stamped_under = self.replica.state().promised;
                }
            }
            NodeMessage::HeadDigest(name) => self.heads.compare(from, name),
            NodeMessage::HeadRequest { partial, offset_bytes } => {
                environment.head(HeadJob::Serve { to: from, partial, offset_bytes });
            }
            NodeMessage::HeadChunk(chunk) => self.take_chunk(from, chunk, environment),
            NodeMessage::AskForMastership { ballot } => self.asked_for_mastership(from, ballot),
        }
    }

    fn take_applied(&mut self, applied: Applied) {
        assert!(
            applied.index >= self.applied.index,
            "applied {applied:?} after {:?}",
            self.applied
        );
        self.applied = applied;
        self.clock.at_least(applied.stamp_ms, self.now_us);
        while self.dispatched_bytes.pop_front_if(|(last, _)| *last <= applied.index).is_some() {}
        self.proposals.applied(applied.index);
        self.clock_entries.applied(&applied, self.now_us);
    }

    /// Carries out what the replica wants, until it wants nothing more.
    pub(super) fn flush(&mut self, environment: &mut dyn Environment) {
        loop {
            let ready = self.replica.take_ready();
            let idle = ready.saves.is_empty()
                && ready.messages.is_empty()
                && ready.reads.is_empty()
                && ready.events.is_empty();
            if idle {
                return;
            }
            for event in ready.events {
                self.take_event(event, environment);
            }
            if !ready.saves.is_empty() {
                environment.save(ready.saves);
            }
            for (to, message) in ready.messages {
                environment.send(to, NodeMessage::Paxos(message));
            }
            for request in ready.reads {
                environment.read(ReadPurpose::Replica(request));
            }
        }
    }

    fn take_event(&mut self, event: Event, environment: &mut dyn Environment) {
        match event {
            Event::Elected { ballot, establish, time_ms } => {
                tracing::info!(%ballot, at = %establish, "elected");
                self.lead =
                    Some(Lead { establish, electors_time_ms: time_ms, clock_before: self.clock });
                self.catch_up.give_up();
                self.clock.lead(environment.wall_ms(), time_ms, self.now_us);
            }
            Event::Deposed { ballot, reason } => {
                tracing::info!(%ballot, reason, "leads no more");
                self.clock = self.settled_clock();
                self.lead = None;
                self.gathers = None;
                self.heads.lead_ended();
                self.hand_over = None;
                self.clock_entries.lead_ended();
                self.publish(environment);
                let refusal = self.refusal();
                self.proposals.fail(&refusal);
                environment.close_clients();
            }
            Event::HeadNeeded { from } => self.begin_catch_up(from, environment),
            Event::Outlived { above } => {
                tracing::info!(%above, "the cluster knows a later life of this node");
                self.outlived = Some(above);
            }
            Event::Joined { voting: true } => tracing::info!("the cluster is founded"),
            Event::Joined { voting: false } => {
                tracing::info!("found the cluster; joins without a vote until caught up");
            }
            Event::Admitted => tracing::info!("admitted: this node votes again"),
        }
    }

    fn stamp_ms(&self) -> u64 {
        self.clock.stamp_ms(self.now_us).max(self.applied.stamp_ms)
    }

    fn keep_time(&mut self, environment: &mut dyn Environment) {
        if self.lead.is_none() {
            return;
        }
        self.clock.slew(environment.wall_ms(), self.now_us);
        if self.established() && self.now_us >= self.stamp_sent_at_us + self.settings.heartbeat_us()
        {
            self.stamp_sent_at_us = self.now_us;
            let (ballot, stamp_ms) = (self.replica.state().promised, self.stamp_ms());
            for seat in (0..self.settings.seats as u8).map(NodeId) {
                if seat != self.settings.node {
                    environment.send(seat, NodeMessage::Stamp { ballot, stamp_ms });
                }
            }
        }
    }

    /// A planned stop waits until what was proposed is answered, then hands the lease back.
    fn stop_if_asked(&mut self, environment: &mut dyn Environment) {
        let Some(since_us) = self.stopping_since_us else { return };
        if self.handed_over {
            return;
        }
        let waited = self.now_us >= since_us + self.settings.lease_us.min(STOP_SETTLES_US);
        let settled = self.proposals.is_empty() && self.applied.index >= self.replica.last().index;
        if self.lead.is_none() || settled || waited {
            self.replica.hand_over("it stops");
            self.handed_over = true;
            self.flush(environment);
        }
    }

    pub(super) fn stopping(&self) -> bool {
        self.stopping_since_us.is_some()
    }

    /// Nothing that was proposed waits for its outcome.
    pub(super) fn nothing_in_flight(&self) -> bool {
        !self.has_in_flight()
    }

    pub(super) fn lease_us(&self) -> u64 {
        self.settings.lease_us
    }

    /// For a lease the clients of this node need not be told that nobody leads.
    pub(super) fn expect_successor(&mut self) {
        self.successor_expected_until_us = self.now_us + self.settings.lease_us;
    }

    /// This node's seat.
    pub fn node(&self) -> NodeId {
        self.settings.node
    }

    /// The boot clock as of the last step.
    pub(super) fn now_us(&self) -> u64 {
        self.now_us
    }

    pub(super) fn others(&self) -> impl Iterator<Item = NodeId> + use<> {
        let me = self.settings.node;
        (0..self.settings.seats as u8).map(NodeId).filter(move |node| *node != me)
    }
}
