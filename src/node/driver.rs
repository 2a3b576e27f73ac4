//! The driver: where the protocol, the log, the store and the clients meet. Plain synchronous code
//! over [`Environment`]; a real node runs it on one thread, the simulator runs many in one.
//!
//! Order: events before messages (a master that is deposed stops answering before its release can
//! leave); saves before messages that need them (the replica holds those back); entries are applied
//! in log order, once chosen, and answered by the applier.

use std::sync::Arc;

use bytes::BytesMut;

use super::catch_up::CatchUpState;
use super::clock_entries::ClockEntries;
use super::environment::{Applied, ApplyJob, Environment, HeadJob, Input, ReadPurpose};
use super::handover::{HandOver, HandOverState};
use super::head_plan::HeadPlan;
use super::message::{HeadName, NodeMessage};
use super::proposals::{LARGE_BATCH_BYTES, Proposals};
use super::refusal::Refusal;
use super::stamp::{OFF_REPORTED_MS, StampClock};
use super::status::{Role, Status};
use crate::command::batch;
use crate::paxos::{
    Ballot, Entry, Event, Incarnation, Index, NodeId, Recovered, Replica, Settings, Value,
};
use crate::planted::{Bug, plants};

/// A node with more chosen entries left to apply leaves elections to others: about a tenth of a
/// second's work.
const STANDS_WITHIN_ENTRIES: u64 = 256;
/// Bytes of entries handed to the applier and not applied yet.
const APPLY_BYTES_MAX: usize = 8 << 20;
/// Bytes of entries in one apply job.
const APPLY_JOB_BYTES: usize = 1 << 20;
/// Entries proposed and not on this node's own disk; more of them gather into a batch instead.
const UNSAVED_ENTRIES_MAX: u64 = 1;
/// Entries proposed and not chosen; the second not smaller than the first, because many small ones
/// would cost more than they save; a large batch goes out all the same.
const UNCHOSEN_ENTRIES_MAX: u64 = 2;
/// How long a planned stop waits for what was proposed.
const STOP_SETTLES_US: u64 = 100_000;
/// What nobody waits for is applied once so many entries have gathered,
const UNHURRIED_ENTRIES: u64 = 32;
/// or after this long.
const UNHURRIED_WAIT_US: u64 = 2_000;
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
    pub heads: Vec<(HeadName, u64)>,
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
        self.gathers_since_us.is_some()
            || self.clock_entries.rests(self.now_us)
            || self.replica.is_waiting()
    }

    /// Whether something goes on as soon as more is applied, not only at the next step.
    pub fn awaits_applied(&self) -> bool {
        let unapplied = self.replica.last().index.0 - self.applied.index.0;
        let behind = (self.dispatched < self.replica.chosen() && self.gathers_since_us.is_none())
            || unapplied >= UNAPPLIED_ENTRIES_MAX / 2;
        let becomes_master = self.lead.is_some() && !self.established();
        let for_the_clock = self.clock_entries.is_open();
        behind || for_the_clock || becomes_master || self.stopping() || self.hand_over.is_some()
    }

    /// Once so many more submissions are there, the driver does something with them at once. Fewer are
    /// early enough after something else has happened (a sync has ended, a follower has answered), or
    /// at the next tick.
    pub fn submissions_awaited(&self) -> usize {
        let last = self.replica.last().index.0;
        let unchosen = last - self.replica.chosen().0;
        if self.lead.is_none() || !self.serves() || unchosen == 0 {
            1
        } else if last - self.replica.durable().0 >= UNSAVED_ENTRIES_MAX
            || unchosen >= UNCHOSEN_ENTRIES_MAX
        {
            usize::MAX
        } else {
            self.proposals.missing_to_fill_entry().max(1)
        }
    }

    /// While nothing else is to be done: so many more submissions are worth a short wait.
    pub fn submissions_worth_waiting_for(&self) -> usize {
        let last = self.replica.last().index;
        let idles = last == self.replica.chosen() && last == self.replica.durable();
        if self.lead.is_some() && idles { self.proposals.missing_to_gather() } else { 0 }
    }

    /// Something that was proposed waits for its outcome.
    pub fn has_in_flight(&self) -> bool {
        self.proposals.in_flight() > 0
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
                    self.dispatch_entries(entries, environment);
                }
            }
            Input::Applied(applied) => self.take_applied(applied),
            Input::HeadWritten { name, size_bytes } => {
                self.take_head_written(name, size_bytes, environment);
            }
            Input::HeadFailed(index) => self.heads.failed(index),
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

    fn established(&self) -> bool {
        self.lead.is_some_and(|lead| {
            self.applied.index >= lead.establish || plants(Bug::AnswersBeforeEstablished)
        })
    }

    pub(super) fn serves(&self) -> bool {
        self.established() && self.now_us < self.replica.lease_until_us()
    }

    /// Why nothing is answered here, for a node that does not serve.
    fn refusal(&self) -> Refusal {
        if self.replica.is_leader() {
            return match self.established() {
                true => Refusal::ClusterDown("the master has lost contact with a quorum"),
                false => Refusal::TryAgain("the new master is not ready yet"),
            };
        }
        match self.replica.leader() {
            Some(node) => match self.client_addresses.get(usize::from(node.0)) {
                Some(address) => Refusal::Moved { address: address.clone() },
                None => Refusal::ClusterDown("no master is known"),
            },
            None if self.replica.state().members.is_empty() => {
                Refusal::Loading("the node is waiting for its cluster")
            }
            None if self.now_us < self.successor_expected_until_us => {
                Refusal::TryAgain("the mastership is being handed over")
            }
            None => Refusal::ClusterDown("no master is known"),
        }
    }

    fn refusal_of_updates(&self) -> Option<Refusal> {
        if !self.serves() {
            return Some(self.refusal());
        }
        if self.stopping_since_us.is_some() {
            return Some(Refusal::TryAgain("the master hands over"));
        }
        self.updates_refused()
    }

    fn updates_refused(&self) -> Option<Refusal> {
        self.disk_nearly_full.then_some(Refusal::Misconf(
            "the disk is nearly full; updates are refused until it is not",
        ))
    }

    /// Proposes what has gathered. While an entry waits for this node's own disk the next one
    /// gathers, so that a batch is as large as the load makes it.
    fn propose(&mut self, environment: &mut dyn Environment) {
        if self.lead.is_none() {
            return;
        }
        if !self.serves() {
            let refusal = self.refusal();
            return self.proposals.refuse_queued(&refusal);
        }
        if self.holds_updates() {
            return;
        }
        while self.may_propose(environment) {
            let stamp_ms = self.stamp_ms();
            let seed = self.random.u64(..);
            let Some((payload, waiters, deadline_us)) = self.proposals.next_batch(stamp_ms, seed)
            else {
                break;
            };
            let position =
                self.replica.propose(Value::Batch(payload)).expect("the lead was checked above");
            self.proposals.proposed(position, waiters, deadline_us);
            self.flush(environment);
        }
        // Its own entries would keep a stop from settling.
        if self.stopping_since_us.is_none() {
            self.propose_own(environment);
        }
    }

    fn may_propose(&self, environment: &dyn Environment) -> bool {
        let last = self.replica.last().index.0;
        let unchosen = last - self.replica.chosen().0;
        last - self.replica.durable().0 < UNSAVED_ENTRIES_MAX
            && (unchosen == 0
                || (unchosen < UNCHOSEN_ENTRIES_MAX && self.proposals.fills_entry())
                || self.proposals.queued_bytes() >= LARGE_BATCH_BYTES)
            && last - self.applied.index.0 < UNAPPLIED_ENTRIES_MAX
            && !environment.over_bound()
    }

    /// Entries that the master needs itself: the clock's when a deadline is due, and heads.
    fn propose_own(&mut self, environment: &mut dyn Environment) {
        let mut items = BytesMut::new();
        let mut asks_for_head = false;
        let late_ms =
            self.applied.earliest_deadline_ms.and_then(|at| self.stamp_ms().checked_sub(at));
        if let Some(late_ms) = late_ms.filter(|_| self.clock_entries.may_propose(self.now_us)) {
            batch::encode_clock(&mut items, self.clock_entries.expired_keys_max());
            let index = self.replica.last().index.next();
            self.clock_entries.proposed(index, late_ms, &self.applied, self.now_us);
        } else if self.heads.due() {
            batch::encode_head(&mut items);
            asks_for_head = true;
        } else {
            return;
        }
        let (stamp_ms, seed) = (self.stamp_ms(), self.random.u64(..));
        let payload = batch::seal(stamp_ms, seed, 1, &[items]);
        let position = self
            .replica
            .propose(Value::Batch(payload))
            .expect("the lead was checked by the caller");
        if asks_for_head {
            self.heads.proposed(position.index);
        }
        self.flush(environment);
    }

    fn stamp_ms(&self) -> u64 {
        self.clock.stamp_ms(self.now_us).max(self.applied.stamp_ms)
    }

    /// Hands chosen entries to the applier.
    fn dispatch(&mut self, environment: &mut dyn Environment) {
        if self.lets_gather() {
            return;
        }
        let early = plants(Bug::AppliesBeforeChosen) && self.lead.is_some();
        while (self.dispatched < self.replica.chosen()
            || (early && self.dispatched < self.replica.last().index))
            && !self.reading_for_apply
        {
            let bytes: usize = self.dispatched_bytes.iter().map(|(_, bytes)| bytes).sum();
            let full = bytes > APPLY_BYTES_MAX || environment.over_bound();
            if full || self.catch_up.installing() {
                return;
            }
            let from = self.dispatched.next();
            match self.replica.cached_entries(from, APPLY_JOB_BYTES) {
                Some(entries) => self.dispatch_entries(entries, environment),
                None if from <= self.replica.base().index => return, // A head is on its way.
                None => {
                    self.reading_for_apply = true;
                    let to = self.replica.chosen();
                    environment.read(ReadPurpose::Apply { from, to });
                }
            }
        }
    }

    /// Nobody waits for what a follower applies, and many entries at once cost less. A leader's own
    /// clients wait, and so does a node that is far behind.
    fn lets_gather(&mut self) -> bool {
        let count = self.replica.chosen().0.saturating_sub(self.dispatched.0);
        let hurried = self.lead.is_some() || count >= UNHURRIED_ENTRIES;
        let since_us = *self.gathers_since_us.get_or_insert(self.now_us);
        let gathers = count > 0 && !hurried && self.now_us < since_us + UNHURRIED_WAIT_US;
        if !gathers {
            self.gathers_since_us = None;
        }
        gathers
    }

    fn dispatch_entries(&mut self, entries: Vec<Entry>, environment: &mut dyn Environment) {
        let chosen = match plants(Bug::AppliesBeforeChosen) {
            true => self.replica.last().index,
            false => self.replica.chosen(),
        };
        let job: Vec<_> = entries
            .into_iter()
            .take_while(|entry| entry.index <= chosen)
            .map(|entry| {
                let waiters = self.proposals.take(entry.position());
                (entry, waiters)
            })
            .collect();
        let Some((last, _)) = job.last() else { return };
        self.dispatched = last.index;
        let bytes = job.iter().map(|(entry, _)| entry.value.size_bytes()).sum();
        self.heads.logged(bytes as u64);
        self.dispatched_bytes.push_back((last.index, bytes));
        environment.apply(ApplyJob { entries: job });
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

    fn role(&self) -> Role {
        let state = self.replica.state();
        match (self.replica.is_leader(), self.serves()) {
            (true, true) => Role::Master,
            (true, false) => Role::Leader,
            _ if state.members.is_empty() => Role::Joining,
            _ if !state.voting => Role::Learner,
            _ => Role::Replica,
        }
    }

    pub(super) fn publish(&mut self, environment: &mut dyn Environment) {
        let established = self.established();
        let serving_until_us = match self.replica.is_leader() && established {
            true => self.replica.lease_until_us(),
            false => 0,
        };
        let serving_from = match self.lead {
            Some(lead) if !plants(Bug::AnswersBeforeEstablished) => lead.establish,
            _ => Index(0),
        };
        let stamp_offset_ms = self.clock.offset_ms();
        let wall_off = environment.wall_ms() as i64 - self.stamp_ms() as i64;
        let clock_off_ms = if wall_off.unsigned_abs() > OFF_REPORTED_MS { wall_off } else { 0 };
        let refusal = match self.serves() {
            true => Refusal::ClusterDown("the master has lost contact with a quorum"),
            false => self.refusal(),
        };
        self.status = Arc::new(Status {
            role: self.role(),
            serving_until_us,
            serving_from,
            refusal,
            updates_refused: self.updates_refused(),
            stamp_offset_ms,
            master: self.master(),
            leader_silent_us: self.replica.leader_silent_us(),
            handover: self.hand_over_state(),
            ballot: self.replica.state().promised,
            incarnation: self.settings.incarnation,
            last: self.replica.last().index,
            durable: self.replica.durable(),
            chosen: self.replica.chosen(),
            applied: self.applied.index,
            base: self.replica.base().index,
            lease_until_us: self.replica.lease_until_us(),
            followers: self.replica.followers(),
            queued: self.proposals.queued() + self.proposals.in_flight(),
            head: self.heads.newest(),
            head_mismatch: self.heads.mismatch(),
            catch_up: self.catch_up.progress(),
            clock_off_ms,
        });
        environment.publish(&self.status);
    }

    /// Who serves now, as far as this node knows. A leader is not the master before it says so: it
    /// tells the time only once it serves.
    fn master(&self) -> Option<NodeId> {
        let leader = self.replica.leader()?;
        let serves = match leader == self.settings.node {
            true => self.serves(),
            false => self.stamped_under == self.replica.state().promised,
        };
        serves.then_some(leader)
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
