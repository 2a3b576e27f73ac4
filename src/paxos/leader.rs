//! The leader's side: sending entries, counting votes, holding the lease.
//!
//! Phase 2 ("Paxos Made Simple", 2.2) for a whole log: per follower a window of entries on their
//! way, bounded in bytes. A follower that answers nothing gets heartbeats only; one that misses
//! something is probed with one chunk at a time; one whose entries are gone is told to take a head.

use super::message::Message;
use super::quorum::NodeSet;
use super::replica::{Deferred, Event, ReadRequest, Reader, Replica, Role};
use super::spares::{Hurried, Pace};
use super::types::{Ballot, Entry, Incarnation, Index, NodeId, Position, Value};
use crate::planted::{Bug, plants};

/// Entries that a newcomer may lack when it is admitted; its votes still wait until it has them.
const CAUGHT_UP_WITHIN: u64 = 1000;

/// How entries go to one follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// Where its log parts from ours is not known: one message at a time, the next one when it is
    /// answered, or again after a while.
    Probe { waiting_until_us: u64 },
    /// As fast as the window allows.
    Stream,
    /// The transaction log is being read for it.
    Reading,
}

/// An Accept on its way.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    first: Index,
    end: Index,
    bytes: usize,
    sent_at_us: u64,
}

/// What the leader knows of one follower.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    pub node: NodeId,
    /// The life that answers.
    incarnation: Incarnation,
    /// Its log agrees with ours up to here, durably.
    pub matched: Index,
    /// Its answers are votes.
    pub votes: bool,
    /// The next entry to send.
    next: Index,
    pub flow: Flow,
    pub pace: Pace,
    /// Messages sent and not answered, oldest first.
    in_flight: std::collections::VecDeque<InFlight>,
    in_flight_bytes: usize,
    /// When it last answered anything.
    pub heard_at_us: u64,
    /// When the window last moved.
    moved_at_us: u64,
    /// The newest question of ours that it granted: our own clock then.
    granted_us: Option<u64>,
    /// It was told to take a head.
    behind: bool,
}

/// What a heartbeat's answer says about the lease.
pub(super) struct HeartbeatGrant {
    /// When we asked, by our own clock.
    pub sent_at_us: u64,
    pub granted: bool,
}

/// The leader's own state.
#[derive(Debug)]
pub(super) struct Leading {
    pub ballot: Ballot,
    /// The end of what was adopted.
    adopted: Index,
    pub progress: Vec<Progress>,
    pub lease_until_us: u64,
    heartbeat_at_us: u64,
    elected_at_us: u64,
    /// Our own vote.
    own: Index,
    pub hurried: Hurried,
}

impl Leading {
    /// The follower that should lead next: it answers, votes, and has the most.
    pub fn heir(&self, now_us: u64) -> Option<NodeId> {
        self.progress
            .iter()
            .filter(|progress| progress.votes && now_us < progress.heard_at_us + 1_000_000)
            .max_by_key(|progress| progress.matched)
            .map(|progress| progress.node)
    }
}

/// A follower as its leader sees it, for `INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerStatus {
    /// Its seat.
    pub node: NodeId,
    /// Its log agrees with the leader's up to here, durably.
    pub matched: Index,
    /// It votes.
    pub votes: bool,
    /// Microseconds since it last answered.
    pub silent_us: u64,
    /// It lacks more than the log holds.
    pub behind: bool,
    /// Bytes of entries sent to it and not answered.
    pub in_flight_bytes: usize,
}

impl Replica {
    /// Becomes leader: a prepare quorum has promised, and the best of its logs is this one.
    pub(super) fn lead(&mut self, ballot: Ballot, promises: &[super::election::Promised]) {
        assert_eq!(ballot, self.state.promised, "leads a ballot that it has not promised");
        let (last, now_us) = (self.log.last(), self.now_us);
        let progress = self.others().map(|node| {
            let promise = promises.iter().find(|promise| promise.node == node);
            let next = match promise {
                Some(promise)
                    if self.log.ballot_at(promise.last.index) == Some(promise.last.ballot) =>
                {
                    promise.last.index.next()
                }
                Some(promise) => promise.chosen.next(),
                None => last.index.next(),
            };
            Progress {
                node,
                incarnation: self.latest_incarnation(node),
                matched: Index(0),
                votes: false,
                next,
                flow: Flow::Probe { waiting_until_us: 0 },
                pace: Pace::default(),
                in_flight: Default::default(),
                in_flight_bytes: 0,
                heard_at_us: now_us,
                moved_at_us: now_us,
                granted_us: None,
                behind: false,
            }
        });
        let leading = Leading {
            ballot,
            adopted: last.index,
            progress: progress.collect(),
            lease_until_us: 0,
            heartbeat_at_us: now_us,
            elected_at_us: now_us,
            own: Index(0),
            hurried: Hurried::default(),
        };
        self.role = Role::Leader(Box::new(leading));
        // What is known to be chosen is in what was adopted. Admissions among it decide whose votes
        // count, and the nodes that knew may be the only ones that could choose them again.
        let chosen = promises.iter().map(|promise| promise.chosen).max().unwrap_or_default();
        self.advance_chosen(chosen.min(last.index));
        // One record: the ballot may rank this log only together with all that was adopted.
        self.state.accepted = ballot;
        self.save_state();
        let establish = last.index.next();
        let members = self.state.members.clone();
        self.append(Entry { index: establish, ballot, value: Value::Establish { members } });
        let time_ms =
            promises.iter().map(|promise| promise.time_now_ms(now_us)).max().unwrap_or_default();
        self.event(Event::Elected { ballot, establish, time_ms });
        self.own_vote();
        self.tick_leader();
    }

    /// Counts this node's own vote once all appended so far is on disk.
    pub(super) fn own_vote(&mut self) {
        let Role::Leader(leading) = &self.role else { return };
        let (ballot, end) = (leading.ballot, self.log.last().index);
        if plants(Bug::VoteBeforeSync) {
            return self.on_own_vote(ballot, end);
        }
        self.after_saves(Deferred::OwnVote(ballot, end));
    }

    pub(super) fn on_own_vote(&mut self, ballot: Ballot, index: Index) {
        if let Role::Leader(leading) = &mut self.role
            && leading.ballot == ballot
        {
            leading.own = leading.own.max(index);
            self.count_votes();
        }
    }

    fn leading(&mut self) -> Option<&mut Leading> {
        match &mut self.role {
            Role::Leader(leading) => Some(leading),
            _ => None,
        }
    }

    fn progress(&mut self, node: NodeId, incarnation: Incarnation) -> Option<&mut Progress> {
        let now_us = self.now_us;
        let leading = self.leading()?;
        let last = leading.adopted;
        let progress = leading.progress.iter_mut().find(|progress| progress.node == node)?;
        if incarnation < progress.incarnation {
            return None;
        }
        if incarnation > progress.incarnation {
            // Another life: what the earlier one had does not count any more.
            progress.incarnation = incarnation;
            progress.matched = Index(0);
            progress.votes = false;
            progress.granted_us = None;
            progress.next = last.next();
            progress.restart(now_us);
        }
        progress.heard_at_us = now_us;
        Some(progress)
    }

    pub(super) fn tick_leader(&mut self) {
        let (now_us, lease_us) = (self.now_us, self.settings.lease_us);
        if self.disk_stall_us() > 2 * lease_us {
            return self.hand_over("its disk has stalled");
        }
        let Some(leading) = self.leading() else { return };
        let alive_at_us = leading.lease_until_us.max(leading.elected_at_us);
        if now_us > alive_at_us + 2 * lease_us {
            return self.step_down("it has lost its quorum");
        }
        if now_us >= leading.heartbeat_at_us {
            self.heartbeat();
        }
        self.watch_quorum();
        self.resend();
        self.admit_newcomers();
    }

    fn heartbeat(&mut self) {
        let (now_us, every_us) = (self.now_us, self.settings.heartbeat_us());
        let (lease_us, chosen, last) = (self.settings.lease_us, self.chosen, self.log.last().index);
        let Some(leading) = self.leading() else { return };
        leading.heartbeat_at_us = now_us + every_us;
        let ballot = leading.ballot;
        self.broadcast(&Message::Heartbeat { ballot, sent_at_us: now_us, lease_us, last, chosen });
        self.pick_quorum();
        self.renew_lease();
    }

    /// What stays unanswered is sent again from its start, one message at a time. That includes a
    /// probe: when nothing else is proposed, nothing else would make up for its loss.
    fn resend(&mut self) {
        let now_us = self.now_us;
        let Role::Leader(leading) = &mut self.role else { return };
        if plants(Bug::UnansweredNotResent) {
            return;
        }
        for progress in &mut leading.progress {
            let Some(oldest) = progress.in_flight.front().copied() else { continue };
            let patience_us = self.settings.resend_entries_us(progress.in_flight_bytes);
            let due_at_us = match progress.flow {
                Flow::Stream => progress.moved_at_us + patience_us,
                Flow::Probe { waiting_until_us } => waiting_until_us,
                Flow::Reading => continue,
            };
            if now_us >= due_at_us {
                progress.next = oldest.first.max(progress.matched.next());
                progress.restart(now_us);
            }
        }
    }

    pub(super) fn on_heartbeat_reply(
        &mut self,
        from: NodeId,
        incarnation: Incarnation,
        ballot: Ballot,
        grant: HeartbeatGrant,
        index: Index,
        vote: bool,
    ) {
        let HeartbeatGrant { sent_at_us, granted } = grant;
        let last = self.log.last().index;
        let member = self.is_member(from, incarnation);
        let from_answer = plants(Bug::LeaseFromAnswer);
        let now_us = self.now_us;
        if !self.leads(ballot) || sent_at_us > now_us || index > self.log.last().index {
            return;
        }
        let Some(progress) = self.progress(from, incarnation) else { return };
        if granted && member {
            let at_us = if from_answer { now_us } else { sent_at_us };
            progress.granted_us = progress.granted_us.max(Some(at_us));
        }
        progress.votes |= vote;
        if index > progress.matched {
            progress.acknowledge(index, now_us);
        }
        // It has started again, and no longer knows that its log agrees with ours: an Accept
        // without entries tells it.
        let forgot = index < progress.matched && progress.next > last;
        let matched = (forgot && progress.in_flight.is_empty()).then_some(progress.matched);
        if let Some(previous) = matched.and_then(|index| self.log.position_at(index)) {
            self.remind(from, ballot, previous);
        }
        self.renew_lease();
        self.count_votes();
    }

    fn remind(&mut self, to: NodeId, ballot: Ballot, previous: Position) {
        let chosen = self.chosen;
        let Role::Leader(leading) = &self.role else { return };
        let adopted = leading.adopted;
        let entries = Vec::new();
        self.send(to, Message::Accept { ballot, previous, entries, chosen, adopted });
    }

    /// The newest life of a seat that this node has heard from or knows to be admitted.
    pub(super) fn newest_heard(&self, node: NodeId) -> Incarnation {
        let known = self.latest_incarnation(node);
        let Role::Leader(leading) = &self.role else { return known };
        let progress = leading.progress.iter().find(|progress| progress.node == node);
        progress.map_or(known, |progress| progress.incarnation.max(known))
    }

    fn leads(&self, ballot: Ballot) -> bool {
        matches!(&self.role, Role::Leader(leading) if leading.ballot == ballot)
    }

    /// Whether this life's votes and grants count.
    fn is_member(&self, node: NodeId, incarnation: Incarnation) -> bool {
        self.state.members.get(usize::from(node.0)) == Some(&incarnation)
    }

    pub(super) fn votes_for_us(&self, progress: &Progress) -> bool {
        progress.votes && self.is_member(progress.node, progress.incarnation)
    }

    /// The lease ends a lease's length after the question that the slowest of a quorum granted,
    /// less what our clock may be slower than theirs.
    fn renew_lease(&mut self) {
        let me = self.settings.node;
        let span_us = self.settings.shortened(self.settings.lease_us);
        let quorums = self.quorums.clone();
        let now_us = self.now_us;
        let Some(leading) = self.leading() else { return };
        let mut grants: Vec<(u64, NodeId)> = vec![(now_us, me)];
        let granted = |progress: &Progress| Some((progress.granted_us?, progress.node));
        grants.extend(leading.progress.iter().filter_map(granted));
        grants.sort_by(|a, b| b.cmp(a));
        let mut set = NodeSet::EMPTY;
        for (at_us, node) in grants {
            set.insert(node);
            if quorums.lease(set) {
                leading.lease_until_us = leading.lease_until_us.max(at_us + span_us);
                break;
            }
        }
    }

    /// The end of this node's lease by its own clock; 0 when it does not lead.
    pub fn lease_until_us(&self) -> u64 {
        match &self.role {
            Role::Leader(leading) => leading.lease_until_us,
            _ => 0,
        }
    }

    pub(super) fn on_accepted(
        &mut self,
        from: NodeId,
        incarnation: Incarnation,
        ballot: Ballot,
        index: Index,
        vote: bool,
    ) {
        let now_us = self.now_us;
        if !self.leads(ballot) || index > self.log.last().index {
            return;
        }
        let Some(progress) = self.progress(from, incarnation) else { return };
        progress.votes |= vote;
        progress.behind = false;
        progress.acknowledge(index, now_us);
        self.count_votes();
    }

    pub(super) fn on_gap(
        &mut self,
        from: NodeId,
        incarnation: Incarnation,
        ballot: Ballot,
        chosen: Index,
    ) {
        let last = self.log.last().index;
        let now_us = self.now_us;
        if !self.leads(ballot) {
            return;
        }
        if let Some(progress) = self.progress(from, incarnation) {
            // What is chosen is common to all logs: the surest place to begin.
            progress.next = chosen.max(progress.matched).min(last).next();
            progress.restart(now_us);
        }
    }

    /// An entry is chosen when the logs of an accept quorum hold it, each under this ballot. That
    /// counts for adopted entries too: logs are ranked by accepted ballot, not by their last entry.
    fn count_votes(&mut self) {
        let me = self.settings.node;
        let chosen = self.chosen;
        let Role::Leader(leading) = &self.role else { return };
        let mut holders: Vec<(Index, NodeId, bool)> = vec![(leading.own, me, true)];
        for progress in &leading.progress {
            let votes = self.votes_for_us(progress);
            holders.push((progress.matched, progress.node, votes));
        }
        holders.sort_by(|a, b| b.cmp(a));
        let (mut voting, mut holding) = (NodeSet::EMPTY, NodeSet::EMPTY);
        for (index, node, votes) in holders {
            holding.insert(node);
            if votes {
                voting.insert(node);
            }
            if self.quorums.accept(voting, holding) {
                if index > chosen {
                    self.advance_chosen(index);
                    if let Some(leading) = self.leading() {
                        leading.hurried.chosen();
                    }
                }
                break;
            }
        }
    }

    /// Sends each follower what it lacks, as far as its window allows.
    pub(super) fn pump(&mut self) {
        if !self.is_leader() {
            return;
        }
        let Role::Leader(mut leading) = std::mem::replace(&mut self.role, Role::Follower) else {
            unreachable!("checked above")
        };
        let Leading { ballot, adopted, progress, hurried, .. } = &mut *leading;
        for progress in progress {
            self.pump_one(*ballot, *adopted, hurried, progress);
        }
        self.role = Role::Leader(leading);
    }

    fn pump_one(
        &mut self,
        ballot: Ballot,
        adopted: Index,
        hurried: &Hurried,
        progress: &mut Progress,
    ) {
        let last = self.log.last().index;
        // A follower that is silent for a lease costs heartbeats only.
        if self.now_us > progress.heard_at_us + self.settings.lease_us {
            return;
        }
        if progress.next <= last && hurried.lets_wait(progress, self.now_us) {
            return;
        }
        progress.pace.sent(hurried.proposed_bytes);
        while progress.next <= last && progress.may_send(self.now_us, &self.settings) {
            if progress.next <= self.log.base().index {
                let until_us = self.now_us + self.settings.lease_us / 2;
                progress.flow = Flow::Probe { waiting_until_us: until_us };
                progress.behind = true;
                return self.send(progress.node, Message::Behind { ballot, adopted });
            }
            match self.log.cached(progress.next, self.settings.chunk_bytes_max) {
                Some(entries) => self.send_accept(ballot, adopted, progress, entries),
                None => {
                    progress.flow = Flow::Reading;
                    let reader = Reader::Follower(progress.node);
                    let from = progress.next;
                    return self.read(ReadRequest { reader, from, to: last });
                }
            }
        }
    }

    fn send_accept(
        &mut self,
        ballot: Ballot,
        adopted: Index,
        progress: &mut Progress,
        entries: Vec<Entry>,
    ) {
        let previous: Position = self
            .log
            .position_at(progress.next.previous())
            .expect("next is past the base and at most one past the end");
        let bytes = entries.iter().map(|entry| entry.value.size_bytes()).sum();
        let end = Index(previous.index.0 + entries.len() as u64);
        if progress.in_flight.is_empty() {
            progress.moved_at_us = self.now_us;
        }
        progress.in_flight.push_back(InFlight {
            first: progress.next,
            end,
            bytes,
            sent_at_us: self.now_us,
        });
        progress.in_flight_bytes += bytes;
        progress.next = end.next();
        if let Flow::Probe { .. } | Flow::Reading = progress.flow {
            let waiting_until_us = self.now_us + self.settings.resend_entries_us(bytes);
            progress.flow = Flow::Probe { waiting_until_us };
        }
        let chosen = self.chosen;
        let accept = Message::Accept { ballot, previous, entries, chosen, adopted };
        self.send(progress.node, accept);
    }

    /// Entries came from the transaction log; empty: they are not there any more.
    pub fn entries_read(&mut self, now_us: u64, request: ReadRequest, entries: Vec<Entry>) {
        self.tick(now_us);
        let fits = entries.first().is_none_or(|entry| entry.index == request.from)
            && entries.iter().all(|e| self.log.ballot_at(e.index).is_none_or(|b| b == e.ballot));
        let entries = if fits { entries } else { Vec::new() };
        match request.reader {
            Reader::Candidate(node, ballot) => self.send_suffix(node, ballot, entries),
            Reader::Follower(node) => self.follower_read(node, request.from, entries),
        }
    }

    fn follower_read(&mut self, node: NodeId, from: Index, entries: Vec<Entry>) {
        if !self.is_leader() {
            return; // Asked for in an earlier reign; a campaign under way is not disturbed.
        }
        let Role::Leader(mut leading) = std::mem::replace(&mut self.role, Role::Follower) else {
            unreachable!("checked above")
        };
        let (ballot, adopted) = (leading.ballot, leading.adopted);
        if let Some(progress) = leading.progress.iter_mut().find(|progress| progress.node == node)
            && progress.flow == Flow::Reading
        {
            progress.flow = Flow::Probe { waiting_until_us: 0 };
            let within = from > self.log.base().index && from <= self.log.last().index;
            if from == progress.next && !entries.is_empty() && within {
                self.send_accept(ballot, adopted, progress, entries);
            }
        }
        self.role = Role::Leader(leading);
    }

    /// A life that does not vote and has caught up is admitted by an entry, one at a time.
    fn admit_newcomers(&mut self) {
        if self.log.admissions().iter().any(|(index, ..)| *index > self.chosen) {
            return;
        }
        let chosen = self.chosen;
        let Role::Leader(leading) = &self.role else { return };
        let ready = leading.progress.iter().find(|progress| {
            progress.incarnation > self.latest_incarnation(progress.node)
                && chosen > leading.adopted
                && progress.flow == Flow::Stream
                && progress.matched.0 + CAUGHT_UP_WITHIN >= chosen.0
        });
        if let Some(Progress { node, incarnation, .. }) = ready {
            let admit = Value::Admit { node: *node, incarnation: *incarnation };
            self.propose(admit).expect("this node leads");
        }
    }

    /// What the leader knows of the others; empty when this node does not lead.
    pub fn followers(&self) -> Vec<FollowerStatus> {
        let Role::Leader(leading) = &self.role else { return Vec::new() };
        let status = |progress: &Progress| FollowerStatus {
            node: progress.node,
            matched: progress.matched,
            votes: self.votes_for_us(progress),
            silent_us: self.now_us - progress.heard_at_us,
            behind: progress.behind,
            in_flight_bytes: progress.in_flight_bytes,
        };
        leading.progress.iter().map(status).collect()
    }
}

impl Progress {
    /// Starts over from `next`, carefully.
    fn restart(&mut self, now_us: u64) {
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.moved_at_us = now_us;
        self.flow = Flow::Probe { waiting_until_us: 0 };
    }

    fn may_send(&self, now_us: u64, settings: &super::Settings) -> bool {
        match self.flow {
            Flow::Reading => false,
            Flow::Probe { waiting_until_us } => {
                self.in_flight.is_empty() && now_us >= waiting_until_us
            }
            Flow::Stream => {
                self.in_flight.is_empty()
                    || self.in_flight_bytes < settings.window_bytes_max
                    || plants(Bug::WindowIgnored)
            }
        }
    }

    /// How long the oldest Accept on its way has been so.
    pub fn unanswered_us(&self, now_us: u64) -> u64 {
        self.in_flight.front().map_or(0, |oldest| now_us - oldest.sent_at_us)
    }

    /// Its log agrees with ours up to `index`.
    fn acknowledge(&mut self, index: Index, now_us: u64) {
        if index > self.matched {
            self.matched = index;
            self.moved_at_us = now_us;
        }
        while let Some(answered) = self.in_flight.pop_front_if(|sent| sent.end <= index) {
            self.in_flight_bytes -= answered.bytes;
            self.moved_at_us = now_us;
            self.pace.answered(now_us - answered.sent_at_us);
        }
        if self.next <= self.matched {
            self.next = self.matched.next();
        }
        if let Flow::Probe { .. } = self.flow
            && self.in_flight.is_empty()
        {
            self.flow = Flow::Stream;
        }
    }
}
