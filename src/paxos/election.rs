//! Getting elected: canvass, prepare, adopt the best log, lead.
//!
//! "Paxos Made Simple", 2.2, phase 1, for all indexes at once. Logs are ranked by (accepted ballot,
//! last index): the log with the highest accepted ballot holds everything chosen under lower ones
//! (its leader adopted it), and of two logs accepted under one ballot the longer holds the other.
//! So the best log of any prepare quorum holds everything that was or can still be chosen below
//! the new ballot, and the candidate makes it its own before it leads.
//!
//! The canvass asks first whether the others would promise at all. Without it a node that cannot
//! hear the leader would raise ballots that depose it.

use super::log::Holds;
use super::message::Message;
use super::quorum::NodeSet;
use super::replica::{Deferred, Event, ReadRequest, Reader, Replica, Role};
use super::types::{Ballot, Entry, Incarnation, Index, NodeId, Position};
use crate::planted::{Bug, plants};

/// A try to be elected.
#[derive(Debug)]
pub(super) enum Campaign {
    /// Asks who would promise.
    Canvass { willing: NodeSet },
    /// Has promised itself and asks for the others' promises.
    Prepare { ballot: Ballot, promises: Vec<Promised>, resend_at_us: u64 },
    /// A quorum has promised; takes over the best log.
    Adopt { ballot: Ballot, promises: Vec<Promised>, best: Promised, resend_at_us: u64 },
}

/// What a promise said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Promised {
    pub node: NodeId,
    /// The life that promised.
    pub incarnation: Incarnation,
    pub accepted: Ballot,
    pub last: Position,
    pub base: Index,
    pub chosen: Index,
    /// The log's clock as it had kept it when this was heard, or 0.
    pub time_ms: u64,
    pub heard_us: u64,
}

impl Promised {
    /// The log's clock now, by what it had kept; 0: it had kept none.
    pub fn time_now_ms(&self, now_us: u64) -> u64 {
        match self.time_ms {
            0 => 0,
            time_ms => time_ms + now_us.saturating_sub(self.heard_us) / 1000,
        }
    }

    fn rank(&self) -> (Ballot, Index) {
        (self.accepted, self.last.index)
    }
}

impl Replica {
    /// A random part of a lease, so that candidates do not meet.
    pub(super) fn jitter_us(&mut self) -> u64 {
        match self.settings.seats {
            1 => 0,
            _ => self.random.u64(0..(self.settings.lease_us / 4).max(10_000)),
        }
    }

    pub(super) fn tick_election(&mut self) {
        if let Role::Candidate(campaign) = &mut self.role {
            let (to, again) = match campaign {
                Campaign::Canvass { .. } => (None, None),
                Campaign::Prepare { ballot, resend_at_us, promises } => {
                    let due = *resend_at_us <= self.now_us && !promises.is_empty();
                    (None, due.then_some((Message::Prepare { ballot: *ballot }, resend_at_us)))
                }
                Campaign::Adopt { ballot, best, resend_at_us, .. } => {
                    let message =
                        Message::Fetch { ballot: *ballot, from: self.following.matched.next() };
                    let due = *resend_at_us <= self.now_us;
                    (Some(best.node), due.then_some((message, resend_at_us)))
                }
            };
            if let Some((message, resend_at_us)) = again {
                *resend_at_us = self.now_us + self.settings.resend_us();
                match to {
                    Some(node) => self.send(node, message),
                    None => self.broadcast(&message),
                }
            }
        }
        let founded = !self.state.members.is_empty();
        if self.now_us >= self.election_at_us && founded && !self.catching_up && self.willing() {
            self.canvass();
        }
    }

    /// Whether this node could promise a new ballot now.
    pub(super) fn willing(&self) -> bool {
        let leads = match &self.role {
            Role::Leader(leading) => self.now_us < leading.lease_until_us,
            _ => false,
        };
        self.may_vote()
            && !leads
            && self.now_us >= self.restart_wait_until_us
            && (self.now_us >= self.following.granted_until_us || plants(Bug::PromisesDuringLease))
    }

    pub(super) fn canvass(&mut self) {
        self.attempts += 1;
        let willing = NodeSet::from_iter([self.settings.node]);
        self.role = Role::Candidate(Campaign::Canvass { willing });
        let jitter_us = self.jitter_us() / 4;
        self.election_at_us = match self.now_us < self.nominated_until_us {
            true => self.now_us + self.settings.lease_us / 100,
            false => self.now_us + self.settings.lease_us / 16 + 10_000 + jitter_us,
        };
        self.broadcast(&Message::Canvass { attempt: self.attempts });
        self.prepare_if_welcome();
    }

    pub(super) fn on_canvass(&mut self, from: NodeId, attempt: u64) {
        if self.may_vote() {
            let (willing, round) = (self.willing(), self.round_seen);
            self.send(from, Message::CanvassReply { attempt, willing, round });
        }
    }

    pub(super) fn on_canvass_reply(
        &mut self,
        from: NodeId,
        attempt: u64,
        answer: bool,
        round: u64,
    ) {
        self.round_seen = self.round_seen.max(round);
        if let Role::Candidate(Campaign::Canvass { willing }) = &mut self.role
            && attempt == self.attempts
            && answer
        {
            willing.insert(from);
            self.prepare_if_welcome();
        }
    }

    fn prepare_if_welcome(&mut self) {
        let Role::Candidate(Campaign::Canvass { willing }) = &self.role else { return };
        if !self.quorums.prepare(*willing) || !self.willing() {
            return;
        }
        // A ballot of this life is never used twice: it is above every round seen, the last one
        // promised is on disk, and this one reaches the disk before anyone sees it.
        let round = self.round_seen + 1;
        let ballot =
            Ballot { round, node: self.settings.node, incarnation: self.settings.incarnation };
        self.promise(ballot);
        let resend_at_us = self.now_us + self.settings.resend_us();
        self.role =
            Role::Candidate(Campaign::Prepare { ballot, promises: Vec::new(), resend_at_us });
        self.election_at_us = self.now_us + self.settings.lease_us + self.jitter_us();
        if plants(Bug::BallotReused) {
            return self.on_own_promise(ballot);
        }
        self.after_saves(Deferred::OwnPromise(ballot));
    }

    pub(super) fn on_own_promise(&mut self, ballot: Ballot) {
        let own = self.own_promise();
        if let Role::Candidate(Campaign::Prepare { ballot: current, promises, .. }) = &mut self.role
            && *current == ballot
        {
            promises.push(own);
            self.broadcast(&Message::Prepare { ballot });
            self.adopt_if_promised();
        }
    }

    fn own_promise(&self) -> Promised {
        Promised {
            node: self.settings.node,
            incarnation: self.settings.incarnation,
            accepted: self.state.accepted,
            last: self.log.last(),
            base: self.log.base().index,
            chosen: self.chosen,
            time_ms: self.time_ms,
            heard_us: self.now_us,
        }
    }

    pub(super) fn on_prepare(&mut self, from: NodeId, ballot: Ballot) {
        self.round_seen = self.round_seen.max(ballot.round);
        if !self.may_vote() || ballot.node != from {
            return;
        }
        if ballot < self.state.promised || (ballot > self.state.promised && !self.willing()) {
            let promised = self.state.promised;
            // Below the promise: the candidate must try a higher round. Not willing: it waits.
            if ballot < promised {
                self.send(from, Message::Reject { ballot, promised });
            }
            return;
        }
        if ballot > self.state.promised {
            self.promise(ballot);
            // Time for the candidate to become the leader.
            self.election_at_us = self.now_us + self.settings.lease_us / 2 + self.jitter_us();
        }
        if self.following.matched > Index(0) {
            return; // Its leader has begun to write here: the promise was counted long ago.
        }
        let Promised { accepted, last, base, chosen, time_ms, .. } = self.own_promise();
        let promise = Message::Promise { ballot, accepted, last, base, chosen, time_ms };
        if plants(Bug::PromiseBeforeDisk) {
            return self.send(from, promise);
        }
        // Design rule 3: the promise reaches the disk before the answer leaves.
        self.after_saves(Deferred::Send(from, promise));
    }

    pub(super) fn on_promise(&mut self, ballot: Ballot, promise: Promised) {
        if let Role::Candidate(Campaign::Prepare { ballot: current, promises, .. }) = &mut self.role
            && *current == ballot
            && !promises.is_empty()
            && promises.iter().all(|earlier| earlier.node != promise.node)
        {
            promises.push(promise);
            self.adopt_if_promised();
        }
    }

    fn adopt_if_promised(&mut self) {
        let Role::Candidate(Campaign::Prepare { ballot, promises, .. }) = &self.role else {
            return;
        };
        let set = promises.iter().map(|promise| promise.node).collect();
        if !self.elects(set) {
            return;
        }
        let (ballot, promises, own) = (*ballot, promises.clone(), self.own_promise());
        let best = promises.iter().copied().max_by_key(Promised::rank).unwrap_or(own);
        if best.rank() <= own.rank() || plants(Bug::AdoptsOwnLog) {
            return self.lead_if_promised_by_the_living(ballot, &promises);
        }
        if best.base > self.chosen {
            // Its log begins behind ours: only a head can bring us there, and only a leader sends
            // one. It is the better leader.
            self.role = Role::Follower;
            self.election_at_us = self.now_us + 2 * self.settings.lease_us + self.jitter_us();
            return self.send(best.node, Message::Nominate { ballot });
        }
        self.following.matched = self.chosen;
        if best.last.index <= self.chosen {
            // It ranks higher, but has nothing that this log lacks.
            self.truncate_after(self.chosen);
            return self.lead_if_promised_by_the_living(ballot, &promises);
        }
        let resend_at_us = self.now_us + self.settings.resend_us();
        self.send(best.node, Message::Fetch { ballot, from: self.chosen.next() });
        self.role = Role::Candidate(Campaign::Adopt { ballot, promises, best, resend_at_us });
    }

    fn elects(&self, set: NodeSet) -> bool {
        let nearly = plants(Bug::MinorityElects) && set.len() >= self.settings.seats / 2;
        self.quorums.prepare(set) || nearly
    }

    pub(super) fn on_fetch(&mut self, from: NodeId, ballot: Ballot, first: Index) {
        let (base, last) = (self.log.base().index, self.log.last().index);
        if ballot != self.state.promised || ballot.node != from || first <= base || first > last {
            return;
        }
        match self.log.cached(first, self.settings.chunk_bytes_max) {
            Some(entries) => self.send_suffix(from, ballot, entries),
            None => {
                let reader = Reader::Candidate(from, ballot);
                self.read(ReadRequest { reader, from: first, to: last });
            }
        }
    }

    pub(super) fn send_suffix(&mut self, to: NodeId, ballot: Ballot, entries: Vec<Entry>) {
        let Some(first) = entries.first() else { return };
        if let Some(previous) = self.log.position_at(first.index.previous())
            && ballot == self.state.promised
        {
            // What is shown counts as this node's promise, so it has to be on disk.
            let suffix = Message::Suffix { ballot, previous, entries };
            self.after_saves(Deferred::Send(to, suffix));
        }
    }

    pub(super) fn on_suffix(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        previous: Position,
        entries: Vec<Entry>,
    ) {
        let Role::Candidate(Campaign::Adopt { ballot: current, best, .. }) = &self.role else {
            return;
        };
        let (current, best) = (*current, *best);
        let expected = self.following.matched;
        if ballot != current || best.node != from || previous.index != expected {
            return;
        }
        let follows = self.log.holds(previous) == Holds::Yes && contiguous(previous, &entries);
        if !follows || self.contradicts(&entries) {
            return;
        }
        // The accepted ballot stays what it was: until all is here this log must not outrank
        // those that it is made from.
        let end = self.merge(previous, entries);
        self.following.matched = end;
        self.election_at_us = self.election_at_us.max(self.now_us + self.settings.lease_us);
        if end < best.last.index {
            self.send(best.node, Message::Fetch { ballot, from: end.next() });
            return;
        }
        self.truncate_after(end);
        let Role::Candidate(Campaign::Adopt { promises, .. }) =
            std::mem::replace(&mut self.role, Role::Follower)
        else {
            unreachable!("checked above")
        };
        self.lead_if_promised_by_the_living(ballot, &promises);
    }

    /// What was adopted may show that a promise came from a life that is over: the admission of the
    /// next one was accepted by a quorum without that seat, so one of our quorum knows it. The new
    /// life never heard of that promise, and may have helped to choose something since.
    fn lead_if_promised_by_the_living(&mut self, ballot: Ballot, promises: &[Promised]) {
        let lives =
            |promise: &&Promised| promise.incarnation >= self.latest_incarnation(promise.node);
        let living = promises.iter().filter(lives).map(|promise| promise.node).collect();
        if self.elects(living) {
            return self.lead(ballot, promises);
        }
        self.role = Role::Follower;
        self.election_at_us = self.now_us + self.jitter_us();
    }

    pub(super) fn on_reject(&mut self, ballot: Ballot, promised: Ballot) {
        self.round_seen = self.round_seen.max(promised.round);
        match &self.role {
            Role::Candidate(
                Campaign::Prepare { ballot: current, .. } | Campaign::Adopt { ballot: current, .. },
            ) if *current == ballot => {
                self.role = Role::Follower;
                self.election_at_us = self.now_us + self.jitter_us();
            }
            Role::Leader(leading) if leading.ballot == ballot && promised > ballot => {
                self.step_down("a replica has promised a higher ballot");
            }
            _ => {}
        }
    }

    /// Gives up the lead, hands the lease back, and tells the driver. Nothing happens to a node
    /// that does not lead.
    pub fn step_down(&mut self, reason: &'static str) {
        let Role::Leader(leading) = &self.role else { return };
        let ballot = leading.ballot;
        self.role = Role::Follower;
        self.election_at_us = self.now_us + self.settings.lease_us + self.jitter_us();
        // The driver stops answering when it sees the event, before it sends the release.
        self.event(Event::Deposed { ballot, reason });
        self.broadcast(&Message::Release { ballot });
    }
}

pub(super) fn contiguous(previous: Position, entries: &[Entry]) -> bool {
    let mut index = previous.index;
    entries.iter().all(|entry| {
        index = index.next();
        entry.index == index
    })
}
