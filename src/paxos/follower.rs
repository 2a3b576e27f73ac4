//! The acceptor's side: taking a leader's entries, and granting it a lease.
//!
//! The log is a prefix log: entries are taken only behind a `previous` that this log holds, and
//! cut only at the first entry that differs. The accepted ballot rises only in the record that
//! makes this log cover all that the leader adopted; until then it keeps its old rank.

use super::election::contiguous;
use super::log::Holds;
use super::message::{Message, is_plausible_index};
use super::replica::{Deferred, Event, Replica, Role};
use super::types::{Ballot, Entry, Incarnation, Index, NodeId, Position};
use crate::planted::{Bug, plants};

/// What a replica knows of the leader whose ballot it has promised. Forgotten at a restart.
#[derive(Debug, Default)]
pub(super) struct Following {
    ballot: Ballot,
    /// The log agrees with that leader's up to here. 0: not known yet.
    pub matched: Index,
    /// As in Accept; `None` until the first one.
    adopted: Option<Index>,
    /// A lease was granted to `granted_to` until then.
    pub granted_until_us: u64,
    granted_to: Ballot,
    /// The leader counts as alive until then.
    heard_until_us: u64,
    head_asked_until_us: u64,
    /// Its leader handed its lease back: what it sent before and comes only now does not count.
    released: Ballot,
}

impl Following {
    /// A new ballot was promised: nothing is known of its leader's log. A lease granted to an
    /// earlier leader goes on.
    pub fn start(&mut self, ballot: Ballot) {
        let Following { granted_until_us, granted_to, .. } = *self;
        *self = Following { ballot, granted_until_us, granted_to, ..Following::default() };
    }

    /// Since the leader was heard; 0 when it does not count as alive.
    pub fn silent_us(&self, now_us: u64, lease_us: u64) -> u64 {
        match self.leader(now_us) {
            Some(_) => (now_us + lease_us).saturating_sub(self.heard_until_us),
            None => 0,
        }
    }

    pub fn leader(&self, now_us: u64) -> Option<NodeId> {
        (now_us < self.heard_until_us).then_some(self.ballot.node)
    }
}

impl Replica {
    /// Whether a leader's message counts; if so, this node follows it from now on.
    fn follow(&mut self, from: NodeId, ballot: Ballot) -> bool {
        self.round_seen = self.round_seen.max(ballot.round);
        let promised = self.state.promised;
        if ballot.node != from || ballot == self.following.released {
            return false;
        }
        if ballot < promised && !plants(Bug::AcceptsLowerBallot) {
            self.send(from, Message::Reject { ballot, promised });
            return false;
        }
        if ballot > promised {
            // It was elected without this node. A quorum let go of every older lease first, so the
            // one granted here cannot be in force any more.
            self.promise(ballot);
        }
        self.role = Role::Follower;
        if self.following.ballot != ballot {
            self.following.start(ballot);
        }
        let lease_us = self.settings.lease_us;
        self.following.heard_until_us = self.now_us + lease_us;
        self.election_at_us = self.election_at_us.max(self.now_us + lease_us);
        true
    }

    pub(super) fn on_accept(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        previous: Position,
        entries: Vec<Entry>,
        chosen: Index,
        adopted: Index,
    ) {
        if !contiguous(previous, &entries) || !self.follow(from, ballot) {
            return;
        }
        self.following.adopted = Some(adopted);
        if self.log.holds(previous) == Holds::No {
            return self.send(from, Message::Gap { ballot, chosen: self.chosen });
        }
        if self.contradicts(&entries) {
            tracing::error!(%from, %ballot, "entries contradict what is chosen or acknowledged here");
            return;
        }
        let end = previous.index.0 + entries.len() as u64;
        if self.state.accepted == ballot && plants(Bug::LateSyncTruncates) {
            self.truncate(Index(end.max(self.chosen.0)).next());
        }
        let end = self.merge(previous, entries);
        self.following.matched = self.following.matched.max(end);
        self.raise_accepted(ballot);
        self.advance_chosen(chosen.min(self.following.matched));
        self.answer_accepted(from, ballot);
    }

    /// Whether `entries` differ from this log where it cannot change any more: at a chosen index, or
    /// where this node has told the leader of this ballot that it agrees. No honest node says so.
    pub(super) fn contradicts(&self, entries: &[Entry]) -> bool {
        let fixed = self.chosen.max(self.following.matched);
        entries.iter().any(|entry| {
            entry.index <= fixed
                && entry.index > self.log.base().index
                && self.log.ballot_at(entry.index) != Some(entry.ballot)
        })
    }

    /// Takes over `entries`, which follow a position that this log holds and do not contradict it:
    /// skips what is the same, cuts at the first difference, appends the rest. Returns how far the logs agree now.
    pub(super) fn merge(&mut self, previous: Position, entries: Vec<Entry>) -> Index {
        let mut end = previous.index;
        for entry in entries {
            end = entry.index;
            if entry.index <= self.log.base().index
                || self.log.ballot_at(entry.index) == Some(entry.ballot)
            {
                continue;
            }
            self.truncate(entry.index);
            self.append(entry);
        }
        end.max(self.log.base().index)
    }

    /// Cuts what stands behind `end`; nothing of it is chosen, since the leader lacks it.
    pub(super) fn truncate_after(&mut self, end: Index) {
        if self.log.last().index > end {
            self.truncate(end.next());
        }
    }

    fn raise_accepted(&mut self, ballot: Ballot) {
        let Some(adopted) = self.following.adopted else { return };
        let covers = self.following.matched >= adopted || plants(Bug::HalfSyncedOutranks);
        if self.state.accepted < ballot && covers {
            // A tail of an older ballot must not lend its length to this one.
            let matched = self.following.matched.max(self.chosen);
            self.truncate_after(matched);
            self.state.accepted = ballot;
            self.save_state();
        }
    }

    /// Whether agreement with that leader's log is a vote for it.
    fn votes_under(&self, ballot: Ballot) -> bool {
        self.state.accepted == ballot && self.may_vote()
    }

    fn answer_accepted(&mut self, from: NodeId, ballot: Ballot) {
        let vote = self.votes_under(ballot);
        let index = self.following.matched;
        if plants(Bug::AcceptedBeforeDisk) {
            return self.send(from, Message::Accepted { ballot, index, vote });
        }
        // Design rule 3: on disk before the answer leaves.
        self.after_saves(Deferred::Send(from, Message::Accepted { ballot, index, vote }));
    }

    /// Tells the leader how far this log is: more than when it last asked, or as a vote now. A ballot
    /// of this node's own has no leader to be told.
    pub(super) fn vote_again(&mut self) {
        let leader = self.following.ballot;
        let follows = matches!(self.role, Role::Follower) && leader.node != self.settings.node;
        if follows && self.following.matched > Index(0) {
            self.answer_accepted(leader.node, leader);
        }
    }

    pub(super) fn on_heartbeat(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        sent_at_us: u64,
        lease_us: u64,
        _last: Index,
        chosen: Index,
    ) {
        if !self.follow(from, ballot) {
            return;
        }
        self.advance_chosen(chosen.min(self.following.matched));
        let until_us = self.now_us.saturating_add(lease_us);
        if lease_us > self.state.lease_bound_us {
            // Longer than ever before: a restart must wait that long, so it is saved first.
            self.state.lease_bound_us = lease_us;
            self.save_state();
            if !self.may_vote() {
                // A wiped node does not know what its earlier life granted.
                self.restart_wait_until_us =
                    self.restart_wait_until_us.max(self.now_us + self.settings.stretched(lease_us));
            }
        }
        let granted = self.may_vote();
        if granted {
            self.following.granted_until_us = self.following.granted_until_us.max(until_us);
            self.following.granted_to = ballot;
        }
        self.election_at_us = until_us + self.jitter_us();
        // Every leader's log holds what is chosen. A restarted node knows no more than that of its
        // agreement with the leader, and an idle leader has nothing else to find out by.
        let index = self.durable().min(self.following.matched.max(self.chosen));
        let vote = self.votes_under(ballot);
        let reply = Message::HeartbeatReply { ballot, sent_at_us, granted, index, vote };
        // Renewing a lease needs no disk; only the promise and the bound behind it do, once.
        if self.state_is_durable() {
            self.send(from, reply);
        } else {
            self.after_saves(Deferred::Send(from, reply));
        }
    }

    pub(super) fn on_behind(&mut self, from: NodeId, ballot: Ballot, adopted: Index) {
        if !self.follow(from, ballot) {
            return;
        }
        self.following.adopted = Some(adopted);
        if self.now_us >= self.following.head_asked_until_us {
            self.following.head_asked_until_us = self.now_us + self.settings.lease_us;
            self.event(Event::HeadNeeded { from });
        }
    }

    /// A head at `position` is on disk, with the members it names. Returns whether the log took it:
    /// not when it already reaches further by itself.
    pub fn head_installed(
        &mut self,
        now_us: u64,
        position: Position,
        members: &[Incarnation],
    ) -> bool {
        self.tick(now_us);
        let follows = matches!(self.role, Role::Follower) && self.following.ballot > Ballot::ZERO;
        if !follows || position.index <= self.chosen || members.len() != self.settings.seats {
            return false;
        }
        if !is_plausible_index(position.index) {
            return false;
        }
        if self.log.holds(position) == Holds::No {
            // All up to the head is chosen; what differs from it, or follows what differs, is not.
            self.reset_log(position);
            self.following.matched = position.index;
        }
        for (seat, incarnation) in members.iter().enumerate() {
            self.admit(NodeId(seat as u8), *incarnation);
        }
        self.following.matched = self.following.matched.max(position.index);
        self.advance_chosen(position.index);
        let ballot = self.following.ballot;
        self.raise_accepted(ballot);
        self.vote_again();
        true
    }

    pub(super) fn on_release(&mut self, ballot: Ballot) {
        self.round_seen = self.round_seen.max(ballot.round);
        self.end_grant(ballot);
        if self.state.promised == ballot {
            self.following.released = ballot;
        }
        if self.following.ballot == ballot && !self.is_leader() {
            self.following.heard_until_us = 0;
            // Whoever it nominated goes first.
            let first_us = self.settings.lease_us / 8;
            self.election_at_us = self.now_us + first_us + self.jitter_us();
        }
    }

    /// The holder of that ballot handed its lease back.
    pub(super) fn end_grant(&mut self, ballot: Ballot) {
        if self.following.granted_to == ballot {
            self.following.granted_until_us = self.now_us;
        }
        self.end_restart_wait(ballot);
    }
}
