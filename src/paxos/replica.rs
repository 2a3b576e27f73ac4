//! One node's part in the protocol: its state, and the four ways in which it changes (`tick`,
//! `receive`, `propose`, `saved`). What follows from a change is collected and handed out by
//! [`Replica::take_ready`].
//!
//! Order: what must be on disk before a message may leave is held back here, until `saved` says
//! so; every message in a [`Ready`] may be sent at once. So the leader's Accepts leave before its
//! own sync (its own vote counts only after it), and a follower's Accepted after it.
//!
//! Invariants, checked after every call, in release builds too: `accepted <= promised`;
//! `base <= chosen <= last`; chosen never shrinks.

use std::collections::VecDeque;

use super::election::{Campaign, Promised};
use super::follower::Following;
use super::founding::Founding;
use super::leader::{HeartbeatGrant, Leading};
use super::log::Log;
use super::message::Message;
use super::quorum::Quorums;
use super::settings::Settings;
use super::types::{
    Ballot, DurableState, Entry, Incarnation, Index, NodeId, Position, Save, SaveId, Value,
};
use crate::planted::{Bug, plants};

/// What the disk of a node held when it started.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The last state saved.
    pub state: DurableState,
    /// The log starts after this position.
    pub base: Position,
    /// The last entry.
    pub last: Index,
    /// Everything up to here is known to be chosen.
    pub chosen: Index,
    /// The first index of each run of equal ballots after `base`.
    pub runs: Vec<(Index, Ballot)>,
    /// Admissions after `base`.
    pub admissions: Vec<(Index, NodeId, Incarnation)>,
}

/// Something the driver must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This node won its ballot. It is master once `establish` is applied and its lease holds.
    Elected {
        /// The ballot it won.
        ballot: Ballot,
        /// Its own first entry.
        establish: Index,
        /// The latest time that any of those who elected it kept; 0: none kept any.
        time_ms: u64,
    },
    /// This node leads no more: answer what is pending, it may or may not have happened.
    Deposed {
        /// The ballot that is over.
        ballot: Ballot,
        /// Why, for people.
        reason: &'static str,
    },
    /// This node's next entry is in nobody's log: fetch a head from that node.
    HeadNeeded {
        /// The leader that has one.
        from: NodeId,
    },
    /// The cluster knows another life of this seat: start again as a life above it.
    Outlived {
        /// The life the cluster knows.
        above: Incarnation,
    },
    /// The cluster was founded, or found.
    Joined {
        /// Whether this life may vote.
        voting: bool,
    },
    /// This life was admitted and may vote from now on.
    Admitted,
}

/// Whom a read of old entries is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// A follower that catches up.
    Follower(NodeId),
    /// A candidate that adopts this node's log under its ballot.
    Candidate(NodeId, Ballot),
}

/// Entries that are no longer in memory and must come from the transaction log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// For whom; handed back with the entries.
    pub reader: Reader,
    /// The first entry wanted.
    pub from: Index,
    /// The last entry wanted.
    pub to: Index,
}

/// What to do now. Saves go to the transaction log in this order; messages may leave at once.
#[derive(Debug, Default)]
pub struct Ready {
    /// To be made durable, each reported by [`Replica::saved`].
    pub saves: Vec<Save>,
    /// To be sent.
    pub messages: Vec<(NodeId, Message)>,
    /// To be read, each answered by [`Replica::entries_read`].
    pub reads: Vec<ReadRequest>,
    /// To be known, in order.
    pub events: Vec<Event>,
}

/// The part a replica plays at present.
#[derive(Debug)]
pub(super) enum Role {
    /// Follows whoever has the highest ballot, or waits for somebody to.
    Follower,
    /// Tries to be elected.
    Candidate(Campaign),
    /// Won its ballot.
    Leader(Box<Leading>),
}

/// What waits for a save.
#[derive(Debug)]
pub(super) enum Deferred {
    Send(NodeId, Message),
    /// The leader's own vote, up to this index.
    OwnVote(Ballot, Index),
    /// The candidate's own promise: now the ballot may be seen by others.
    OwnPromise(Ballot),
    /// This node's standing in the cluster is on disk.
    Founded {
        announce: bool,
    },
    Admitted,
}

/// Not the leader: nothing was proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the leader")]
pub struct NotLeader;

/// One node's state machine. See the module's text for the order of things.
#[derive(Debug)]
pub struct Replica {
    pub(super) settings: Settings,
    pub(super) quorums: Quorums,
    pub(super) random: fastrand::Rng,
    pub(super) now_us: u64,

    pub(super) state: DurableState,
    pub(super) log: Log,
    pub(super) chosen: Index,

    pub(super) role: Role,
    pub(super) following: Following,
    pub(super) founding: Founding,
    /// The highest round seen anywhere.
    pub(super) round_seen: u64,
    /// What the driver says of the time.
    pub(super) time_ms: u64,
    pub(super) catching_up: bool,
    /// No promise before then: a lease granted before the restart may still run.
    pub(super) restart_wait_until_us: u64,
    /// The ballot whose release ends the wait.
    restart_ballot: Ballot,
    /// When to campaign, unless a leader is heard before.
    pub(super) election_at_us: u64,
    pub(super) attempts: u64,
    /// A leader asked this node to follow it; until then it asks the others again soon.
    pub(super) nominated_until_us: u64,

    /// The save being put together for the next Ready.
    open_save: Option<Save>,
    /// The last save that carries the state.
    state_save: SaveId,
    next_save: u64,
    /// Saves handed out or open that are not durable yet: id, the log's end, since when.
    unsaved: VecDeque<(SaveId, Index, u64)>,
    deferred: VecDeque<(SaveId, Deferred)>,
    /// The log is durable up to here.
    durable: Index,
    ready: Ready,
}

impl Replica {
    /// A replica that starts, or starts again, at `now_us` (microseconds of a clock that never
    /// goes back and runs while the machine sleeps).
    pub fn new(settings: Settings, recovered: Recovered, seed: u64, now_us: u64) -> Replica {
        let Recovered { state, base, last, chosen, runs, admissions } = recovered;
        let log = Log::new(base, last, runs, admissions);
        let quorums = Quorums::new(settings.seats, &settings.zones);
        let wait_us = match plants(Bug::NoWaitAfterRestart) {
            true => 0,
            false => settings.stretched(state.lease_bound_us),
        };
        let round_seen = state.promised.round;
        let mut replica = Replica {
            quorums,
            random: fastrand::Rng::with_seed(seed),
            now_us,
            chosen: chosen.max(base.index).min(last),
            log,
            role: Role::Follower,
            following: Following::default(),
            founding: Founding::default(),
            round_seen,
            time_ms: 0,
            catching_up: false,
            restart_wait_until_us: now_us + wait_us,
            restart_ballot: state.promised,
            election_at_us: now_us,
            attempts: 0,
            nominated_until_us: 0,
            open_save: None,
            state_save: SaveId(0),
            next_save: 1,
            unsaved: VecDeque::new(),
            deferred: VecDeque::new(),
            durable: last,
            ready: Ready::default(),
            state,
            settings,
        };
        replica.election_at_us = now_us + wait_us + replica.jitter_us();
        // A crash may come between an admission and the state that follows from it.
        for (index, node, incarnation) in replica.log.admissions().to_vec() {
            if index <= replica.chosen {
                replica.admit(node, incarnation);
            }
        }
        replica.begin_founding();
        replica.check_invariants();
        replica
    }

    /// Time passes.
    pub fn tick(&mut self, now_us: u64) {
        self.advance(now_us);
        self.tick_founding();
        match self.role {
            Role::Leader(_) => self.tick_leader(),
            _ => self.tick_election(),
        }
        self.check_invariants();
    }

    /// A message came from the life `incarnation` of the seat `from`. Never panics on what a
    /// message holds: nonsense is dropped.
    pub fn receive(
        &mut self,
        now_us: u64,
        from: NodeId,
        incarnation: Incarnation,
        message: Message,
    ) {
        self.advance(now_us);
        let known = self.latest_incarnation(from);
        let seats = self.settings.seats;
        if from == self.settings.node || usize::from(from.0) >= seats {
            return;
        }
        if !message.is_plausible(seats) {
            return;
        }
        let over = incarnation < known && !plants(Bug::WipedNodeVotes);
        if over && message != Message::Hail {
            return; // What a life said that is over does not count. Only a Hail tells it so.
        }
        match message {
            Message::Hail => self.on_hail(from, incarnation),
            Message::Standing { to, members, newest } => {
                self.on_standing(from, incarnation, to, members, newest);
            }
            Message::Found { members } => self.on_found(members),
            // Nothing else reaches a node that does not know its cluster yet.
            _ if self.state.members.is_empty() => {}
            Message::Canvass { attempt } => self.on_canvass(from, attempt),
            Message::CanvassReply { attempt, willing, round } => {
                self.on_canvass_reply(from, attempt, willing, round);
            }
            Message::Prepare { ballot } => self.on_prepare(from, ballot),
            Message::Promise { ballot, accepted, last, base, chosen, time_ms } => {
                let promise = Promised {
                    node: from,
                    incarnation,
                    accepted,
                    last,
                    base,
                    chosen,
                    time_ms,
                    heard_us: self.now_us,
                };
                self.on_promise(ballot, promise);
            }
            Message::Reject { ballot, promised } => self.on_reject(ballot, promised),
            Message::Fetch { ballot, from: first } => self.on_fetch(from, ballot, first),
            Message::Suffix { ballot, previous, entries } => {
                self.on_suffix(from, ballot, previous, entries);
            }
            Message::Accept { ballot, previous, entries, chosen, adopted } => {
                self.on_accept(from, ballot, previous, entries, chosen, adopted);
            }
            Message::Accepted { ballot, index, vote } => {
                self.on_accepted(from, incarnation, ballot, index, vote);
            }
            Message::Gap { ballot, chosen } => self.on_gap(from, incarnation, ballot, chosen),
            Message::Heartbeat { ballot, sent_at_us, lease_us, last, chosen } => {
                self.on_heartbeat(from, ballot, sent_at_us, lease_us, last, chosen);
            }
            Message::HeartbeatReply { ballot, sent_at_us, granted, index, vote } => {
                let grant = HeartbeatGrant { sent_at_us, granted };
                self.on_heartbeat_reply(from, incarnation, ballot, grant, index, vote);
            }
            Message::Behind { ballot, adopted } => self.on_behind(from, ballot, adopted),
            // Only who holds a ballot can say that it is over.
            Message::Release { ballot }
                if ballot.node == from || plants(Bug::ReleaseFromAnybody) =>
            {
                self.on_release(ballot);
            }
            Message::Nominate { ballot } if ballot.node == from => self.on_nominate(ballot),
            Message::Release { .. } | Message::Nominate { .. } => {}
        }
        self.check_invariants();
    }

    /// The save with this id, and so each before it, is on disk.
    pub fn saved(&mut self, now_us: u64, id: SaveId) {
        self.advance(now_us);
        while let Some((save, end, _)) = self.unsaved.front().copied() {
            if save > id {
                break;
            }
            self.unsaved.pop_front();
            self.durable = end;
        }
        while let Some((_, deferred)) = self.deferred.pop_front_if(|(save, _)| *save <= id) {
            self.perform(deferred);
        }
        self.log.shrink_cache(self.durable, self.settings.cache_bytes_max);
        self.check_invariants();
    }

    /// The time of the log's clock as this node has kept it, or 0 if it has kept none. It means
    /// nothing to the protocol: promises carry it to the next leader.
    pub fn set_time(&mut self, time_ms: u64) {
        self.time_ms = time_ms;
    }

    /// While this node is far from having applied what it knows to be chosen it does not stand for
    /// election: as the leader it could not serve before it had, and another may be ready.
    pub fn set_catching_up(&mut self, catching_up: bool) {
        self.catching_up = catching_up;
    }

    /// Puts a value behind the log's end, if this node leads. Its fate is known once `chosen`
    /// passes the index, or never, if [`Event::Deposed`] comes first.
    pub fn propose(&mut self, value: Value) -> Result<Position, NotLeader> {
        let Role::Leader(leading) = &mut self.role else { return Err(NotLeader) };
        leading.hurried.proposed_bytes += value.size_bytes() as u64;
        let position = Position { index: self.log.last().index.next(), ballot: leading.ballot };
        self.append(Entry { index: position.index, ballot: position.ballot, value });
        self.own_vote();
        Ok(position)
    }

    /// What has to be done now.
    pub fn take_ready(&mut self) -> Ready {
        self.pump();
        if let Some(save) = self.open_save.take() {
            self.ready.saves.push(save);
        }
        std::mem::take(&mut self.ready)
    }

    /// Everything up to here is chosen.
    pub fn chosen(&self) -> Index {
        self.chosen
    }

    /// The log's last entry.
    pub fn last(&self) -> Position {
        self.log.last()
    }

    /// The log starts after this position.
    pub fn base(&self) -> Position {
        self.log.base()
    }

    /// The log is on this node's disk up to here.
    pub fn durable(&self) -> Index {
        self.durable
    }

    /// The ballot at a kept index.
    pub fn position_at(&self, index: Index) -> Option<Position> {
        self.log.position_at(index)
    }

    /// What is on disk, or on its way there.
    pub fn state(&self) -> &DurableState {
        &self.state
    }

    /// Whether this node won the highest ballot it knows of.
    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// The leader this node follows (or is), if one was heard from lately.
    pub fn leader(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(_) => Some(self.settings.node),
            Role::Candidate(_) => None,
            Role::Follower => self.following.leader(self.now_us),
        }
    }

    /// Microseconds since the leader that this node follows was heard; 0: it leads, or hears none.
    pub fn leader_silent_us(&self) -> u64 {
        match &self.role {
            Role::Follower => self.following.silent_us(self.now_us, self.settings.lease_us),
            _ => 0,
        }
    }

    /// Chosen or cached entries from `from`, for applying; `None`: read them from the log.
    pub fn cached_entries(&self, from: Index, bytes_max: usize) -> Option<Vec<Entry>> {
        self.log.cached(from, bytes_max)
    }

    /// The transaction log was collapsed: it starts after `index` now.
    pub fn collapse(&mut self, index: Index) {
        assert!(index <= self.chosen, "collapse to {index} above chosen {}", self.chosen);
        if index > self.log.base().index {
            self.log.collapse(index);
        }
    }

    fn advance(&mut self, now_us: u64) {
        // Threads may hand in times a little out of order; the replica's own never goes back.
        self.now_us = self.now_us.max(now_us);
    }

    fn perform(&mut self, deferred: Deferred) {
        match deferred {
            Deferred::Send(to, message) => self.ready.messages.push((to, message)),
            Deferred::OwnVote(ballot, index) => self.on_own_vote(ballot, index),
            Deferred::OwnPromise(ballot) => self.on_own_promise(ballot),
            Deferred::Founded { announce } => self.on_founded(announce),
            Deferred::Admitted => {
                self.event(Event::Admitted);
                self.vote_again();
            }
        }
    }

    pub(super) fn event(&mut self, event: Event) {
        self.ready.events.push(event);
    }

    pub(super) fn read(&mut self, request: ReadRequest) {
        self.ready.reads.push(request);
    }

    pub(super) fn send(&mut self, to: NodeId, message: Message) {
        self.ready.messages.push((to, message));
    }

    pub(super) fn broadcast(&mut self, message: &Message) {
        for to in self.others() {
            self.send(to, message.clone());
        }
    }

    pub(super) fn others(&self) -> impl Iterator<Item = NodeId> + use<> {
        let me = self.settings.node;
        (0..self.settings.seats as u8).map(NodeId).filter(move |node| *node != me)
    }

    /// The save that the next Ready carries, for adding to it.
    pub(super) fn save(&mut self) -> &mut Save {
        let (chosen, now_us, end) = (self.chosen, self.now_us, self.log.last().index);
        if self.open_save.is_none() {
            let id = SaveId(self.next_save);
            self.next_save += 1;
            self.unsaved.push_back((id, end, now_us));
            self.open_save = Some(Save { id, ..Save::default() });
        }
        let save = self.open_save.as_mut().expect("made above when missing");
        save.chosen = chosen;
        save
    }

    /// Saves the whole state as it is now.
    pub(super) fn save_state(&mut self) {
        let state = self.state.clone();
        let save = self.save();
        save.state = Some(state);
        self.state_save = save.id;
    }

    /// Whether the state as it is now is on disk.
    pub(super) fn state_is_durable(&self) -> bool {
        self.unsaved.front().is_none_or(|(oldest, ..)| *oldest > self.state_save)
    }

    /// Does this once everything handed out or open so far is durable; at once, if it is.
    pub(super) fn after_saves(&mut self, deferred: Deferred) {
        match self.unsaved.back() {
            None => self.perform(deferred),
            Some((id, ..)) => self.deferred.push_back((*id, deferred)),
        }
    }

    /// Appends to the log and to the open save.
    pub(super) fn append(&mut self, entry: Entry) {
        self.log.append(entry.clone());
        self.save().entries.push(entry);
        self.note_log_end();
    }

    /// Drops entries at and above `from`, in the log and in the open save.
    pub(super) fn truncate(&mut self, from: Index) {
        assert!(from > self.chosen, "truncation at {from}, chosen {}", self.chosen);
        if from > self.log.last().index {
            return;
        }
        self.log.truncate(from);
        self.cap_durable(from.previous());
        // A record truncates before it appends: entries of the open save go from its list.
        let save = self.save();
        save.entries.retain(|entry| entry.index < from);
        if save.entries.is_empty() {
            let lowest = save.truncate_from.unwrap_or(from).min(from);
            save.truncate_from = Some(lowest);
        }
        self.note_log_end();
    }

    /// A head at `position` was installed: the log starts anew behind it.
    pub(super) fn reset_log(&mut self, position: Position) {
        self.log.reset(position);
        let save = self.save();
        save.entries.clear();
        save.truncate_from = None;
        save.reset_to = Some(position);
        self.cap_durable(Index(0));
        self.note_log_end();
    }

    /// Earlier saves make the log durable up to `index` at most: the rest was replaced since.
    fn cap_durable(&mut self, index: Index) {
        self.durable = self.durable.min(index);
        for (_, end, _) in &mut self.unsaved {
            *end = index.min(*end);
        }
    }

    fn note_log_end(&mut self) {
        let end = self.log.last().index;
        if let Some((_, last, _)) = self.unsaved.back_mut() {
            *last = end;
        }
    }

    /// Everything up to `index` is chosen.
    pub(super) fn advance_chosen(&mut self, index: Index) {
        assert!(index <= self.log.last().index, "chosen {index} past {}", self.log.last().index);
        if index <= self.chosen {
            return;
        }
        let before = std::mem::replace(&mut self.chosen, index);
        let admitted: Vec<_> = self
            .log
            .admissions()
            .iter()
            .filter(|(at, ..)| *at > before && *at <= index)
            .copied()
            .collect();
        for (_, node, incarnation) in admitted {
            self.admit(node, incarnation);
        }
    }

    pub(super) fn admit(&mut self, node: NodeId, incarnation: Incarnation) {
        let seat = usize::from(node.0);
        if seat >= self.state.members.len() || self.state.members[seat] >= incarnation {
            return;
        }
        self.state.members[seat] = incarnation;
        if node == self.settings.node && incarnation == self.settings.incarnation {
            self.state.voting = true;
            self.save_state();
            self.after_saves(Deferred::Admitted);
        } else {
            self.save_state();
        }
    }

    /// The newest life of a seat that this log knows of, chosen or not. 0: unknown.
    pub(super) fn latest_incarnation(&self, node: NodeId) -> Incarnation {
        let member = self.state.members.get(usize::from(node.0)).copied().unwrap_or_default();
        self.log
            .admissions()
            .iter()
            .filter(|(_, admitted, _)| *admitted == node)
            .map(|(.., incarnation)| *incarnation)
            .fold(member, Ord::max)
    }

    /// Whether this life may promise, vote and campaign. True only once that is on disk.
    pub(super) fn may_vote(&self) -> bool {
        plants(Bug::WipedNodeVotes) || self.state.voting
    }

    /// For how long the oldest save has been waiting for the disk.
    pub(super) fn disk_stall_us(&self) -> u64 {
        self.unsaved.front().map_or(0, |(.., since)| self.now_us - since)
    }

    /// Gives way to a higher ballot.
    pub(super) fn promise(&mut self, ballot: Ballot) {
        assert!(ballot > self.state.promised, "promise {ballot} after {}", self.state.promised);
        if self.is_leader() {
            self.step_down("another node was elected");
        }
        self.role = Role::Follower;
        self.state.promised = ballot;
        self.round_seen = self.round_seen.max(ballot.round);
        self.following.start(ballot);
        // Votes under lower ballots have no use any more, and what they vouch for may be cut.
        self.deferred.retain(|(_, deferred)| {
            !matches!(deferred, Deferred::Send(_, Message::Accepted { .. }))
        });
        self.save_state();
    }

    /// The holder of the ballot promised before the restart serves no more.
    pub(super) fn end_restart_wait(&mut self, ballot: Ballot) {
        if ballot == self.restart_ballot && self.now_us < self.restart_wait_until_us {
            self.restart_wait_until_us = self.now_us;
            self.election_at_us = self.election_at_us.min(self.now_us + self.jitter_us());
        }
    }

    fn check_invariants(&self) {
        let (base, last) = (self.log.base().index, self.log.last().index);
        let DurableState { promised, accepted, .. } = self.state;
        assert!(accepted <= promised, "accepted {accepted} above promised {promised}");
        assert!(base <= self.chosen, "base {base} above chosen {}", self.chosen);
        assert!(self.chosen <= last, "chosen {} past the end {last}", self.chosen);
        assert!(self.durable <= last, "durable {} past the end {last}", self.durable);
        if let Role::Leader(leading) = &self.role {
            let ballot = leading.ballot;
            assert!(
                ballot == promised && ballot == accepted,
                "leads {ballot}, promised {promised}"
            );
        }
    }
}
