//! Which followers the leader hurries.
//!
//! An entry is chosen by the quickest quorum. Its members get each entry at once; the other
//! followers are spares: they get what has gathered a little later, in one piece, with one sync and
//! one answer. A spare lacks no more than [`SPARE_WAITS_US`] of entries, and as soon as a quorum
//! takes longer than [`HURRY_AFTER_US`] it is a spare no more. Who is hurried decides nothing but
//! when messages leave: votes are counted as ever.

use super::leader::{Flow, Leading, Progress};
use super::quorum::NodeSet;
use super::replica::{Replica, Role};
use super::types::Index;

/// How long an entry waits for company on its way to a spare.
const SPARE_WAITS_US: u64 = 2_000;
/// So many bytes go to a spare at once.
const SPARE_BYTES: u64 = 64 << 10;
/// When nothing was chosen for this long though something was proposed, everyone is hurried.
const HURRY_AFTER_US: u64 = 2_000;
/// A spare must be so many times quicker than a hurried follower to take its place.
const QUICKER_TIMES: u64 = 2;

/// Of a leader: whom it hurries.
#[derive(Debug, Default)]
pub(super) struct Hurried {
    /// With this node they are a quorum. Empty: everyone is hurried.
    quorum: NodeSet,
    /// Something is proposed, and nothing was chosen since then.
    unchosen_since_us: Option<u64>,
    /// Bytes of all entries proposed in this reign.
    pub proposed_bytes: u64,
}

/// Of a follower: how quick it is, and what waits for it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// From an Accept to its answer, smoothed; 0: not known.
    answers_within_us: u64,
    /// The first entry that waits does so since then.
    waits_since_us: Option<u64>,
    /// [`Hurried::proposed_bytes`] when something was last sent.
    sent_bytes: u64,
}

impl Pace {
    /// An Accept was answered after so long.
    pub fn answered(&mut self, after_us: u64) {
        self.answers_within_us = match self.answers_within_us {
            0 => after_us.max(1),
            smoothed => (7 * smoothed + after_us).div_ceil(8),
        };
    }

    /// Entries leave.
    pub fn sent(&mut self, proposed_bytes: u64) {
        self.waits_since_us = None;
        self.sent_bytes = proposed_bytes;
    }
}

impl Hurried {
    /// Something was chosen.
    pub fn chosen(&mut self) {
        self.unchosen_since_us = None;
    }

    /// Whether entries for this follower should wait for more; asked when there are some.
    pub fn lets_wait(&self, progress: &mut Progress, now_us: u64) -> bool {
        let is_spare = !self.quorum.is_empty() && !self.quorum.contains(progress.node);
        // Who has no vote yet is being admitted, and that should not take longer.
        if !is_spare || !progress.votes || progress.flow != Flow::Stream {
            return false;
        }
        let since_us = *progress.pace.waits_since_us.get_or_insert(now_us);
        now_us < since_us + SPARE_WAITS_US
            && self.proposed_bytes - progress.pace.sent_bytes < SPARE_BYTES
    }

    fn wait_too_long(&mut self, all_is_chosen: bool, now_us: u64) {
        if all_is_chosen {
            self.unchosen_since_us = None;
            return;
        }
        let since_us = *self.unchosen_since_us.get_or_insert(now_us);
        if now_us >= since_us + HURRY_AFTER_US {
            self.quorum = NodeSet::EMPTY;
        }
    }
}

impl Replica {
    /// Hurries everyone when the quickest have become slow.
    pub(super) fn watch_quorum(&mut self) {
        let (now_us, all_is_chosen) = (self.now_us, self.chosen == self.log.last().index);
        if let Role::Leader(leading) = &mut self.role {
            leading.hurried.wait_too_long(all_is_chosen, now_us);
        }
    }

    /// Picks anew whom to hurry; to be called now and then.
    pub(super) fn pick_quorum(&mut self) {
        let quorum = match &self.role {
            Role::Leader(leading) => self.quickest_quorum(leading),
            _ => return,
        };
        if let Role::Leader(leading) = &mut self.role {
            leading.hurried.quorum = quorum.unwrap_or(NodeSet::EMPTY);
        }
    }

    fn quickest_quorum(&self, leading: &Leading) -> Option<NodeSet> {
        let hears_since_us = self.now_us.saturating_sub(2 * self.settings.heartbeat_us());
        let mut ready: Vec<(u64, &Progress)> = leading
            .progress
            .iter()
            .filter(|progress| {
                progress.flow == Flow::Stream
                    && progress.heard_at_us >= hears_since_us
                    && self.votes_for_us(progress)
            })
            .map(|progress| {
                let stays = leading.hurried.quorum.contains(progress.node);
                let times = if stays { 1 } else { QUICKER_TIMES };
                let slowness_us =
                    progress.pace.answers_within_us.max(progress.unanswered_us(self.now_us));
                (slowness_us * times, progress)
            })
            .collect();
        ready.sort_by_key(|(slowness, progress)| (*slowness, progress.node));
        let mut quorum = NodeSet::EMPTY;
        quorum.insert(self.settings.node);
        for (_, progress) in ready {
            if self.quorums.accept(quorum, quorum) {
                break;
            }
            quorum.insert(progress.node);
        }
        self.quorums.accept(quorum, quorum).then_some(quorum)
    }

    /// Whether something becomes due between two ordinary ticks: an entry waits on its way to a
    /// spare, or to be chosen.
    pub fn is_waiting(&self) -> bool {
        let Role::Leader(leading) = &self.role else { return false };
        let last: Index = self.log.last().index;
        self.chosen < last || leading.progress.iter().any(|it| it.pace.waits_since_us.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paxos::{
        Ballot, DurableState, Incarnation, Message, NodeId, Position, Recovered, Settings, Value,
    };

    const LEASE_US: u64 = 500_000;
    const LIFE: Incarnation = Incarnation(2);
    const QUICK: NodeId = NodeId(1);
    const SLOW: NodeId = NodeId(2);

    /// A leader whose disk is immediate, and two followers that answer when they are asked to.
    struct Cluster {
        leader: Replica,
        now_us: u64,
        /// Accepts not answered yet: to whom, and the last entry.
        accepts: Vec<(NodeId, Index)>,
    }

    impl Cluster {
        fn elected() -> Cluster {
            let state =
                DurableState { members: vec![LIFE; 3], voting: true, ..DurableState::default() };
            let recovered = Recovered { state, ..Recovered::default() };
            let settings = Settings::new(NodeId(0), LIFE, 3, LEASE_US);
            let leader = Replica::new(settings, recovered, 1, 0);
            let mut cluster = Cluster { leader, now_us: 0, accepts: Vec::new() };
            while !cluster.leader.is_leader() {
                cluster.pass(1_000);
            }
            cluster.pass(1_000);
            cluster
        }

        fn ballot(&self) -> Ballot {
            self.leader.state().promised
        }

        /// Time passes; all but Accepts is answered at once.
        fn pass(&mut self, us: u64) {
            self.now_us += us;
            self.leader.tick(self.now_us);
            self.settle();
        }

        fn settle(&mut self) {
            loop {
                let ready = self.leader.take_ready();
                let answers: Vec<_> =
                    ready.messages.into_iter().filter_map(|(to, it)| self.answer(to, it)).collect();
                let saved = ready.saves.last().map(|save| save.id);
                if answers.is_empty() && saved.is_none() {
                    return;
                }
                for (from, message) in answers {
                    self.leader.receive(self.now_us, from, LIFE, message);
                }
                if let Some(id) = saved {
                    self.leader.saved(self.now_us, id);
                }
            }
        }

        fn answer(&mut self, to: NodeId, message: Message) -> Option<(NodeId, Message)> {
            let answer = match message {
                Message::Canvass { attempt } => {
                    Message::CanvassReply { attempt, willing: true, round: 0 }
                }
                Message::Prepare { ballot } => Message::Promise {
                    ballot,
                    accepted: Ballot::ZERO,
                    last: Position::default(),
                    base: Index(0),
                    chosen: Index(0),
                    time_ms: 0,
                },
                Message::Heartbeat { ballot, sent_at_us, .. } => Message::HeartbeatReply {
                    ballot,
                    sent_at_us,
                    granted: true,
                    index: Index(0),
                    vote: true,
                },
                Message::Accept { previous, entries, .. } => {
                    self.accepts.push((to, Index(previous.index.0 + entries.len() as u64)));
                    return None;
                }
                _ => return None,
            };
            Some((to, answer))
        }

        /// A follower answers the Accepts it has got; the last entry of them.
        fn accept(&mut self, from: NodeId) -> Option<Index> {
            let here: Vec<Index> =
                self.accepts.extract_if(.., |(to, _)| *to == from).map(|(_, end)| end).collect();
            for index in &here {
                let ballot = self.ballot();
                let accepted = Message::Accepted { ballot, index: *index, vote: true };
                self.leader.receive(self.now_us, from, LIFE, accepted);
            }
            self.settle();
            here.last().copied()
        }

        fn propose(&mut self) -> Index {
            let value = Value::Batch(bytes::Bytes::from_static(b"an update"));
            let position = self.leader.propose(value).expect("it leads");
            self.settle();
            position.index
        }

        /// Both answer for a while, one of them later.
        fn know_each_other(&mut self) {
            for step in 1..=4_000 {
                if step % 10 == 0 && step < 3_900 {
                    self.propose();
                }
                self.pass(100);
                self.accept(QUICK);
                if step % 8 == 0 {
                    self.accept(SLOW);
                }
            }
            assert_eq!(self.accepts, []);
        }
    }

    #[test]
    fn a_spare_gets_what_has_gathered_a_little_later() {
        let mut cluster = Cluster::elected();
        cluster.know_each_other();
        let first = cluster.propose();
        assert_eq!(cluster.accepts, [(QUICK, first)]);
        assert_eq!(cluster.accept(QUICK), Some(first));
        assert_eq!(cluster.leader.chosen(), first);
        cluster.pass(500);
        let second = cluster.propose();
        cluster.accept(QUICK);
        assert!(cluster.leader.is_waiting());
        cluster.pass(SPARE_WAITS_US - 501);
        assert_eq!(cluster.accepts, []);
        cluster.pass(1);
        assert_eq!(cluster.accepts, [(SLOW, second)], "both entries in one message");
        assert_eq!(cluster.accept(SLOW), Some(second));
        assert!(!cluster.leader.is_waiting());
    }

    #[test]
    fn much_at_once_does_not_wait() {
        let mut cluster = Cluster::elected();
        cluster.know_each_other();
        let value = Value::Batch(bytes::Bytes::from(vec![0; SPARE_BYTES as usize]));
        let index = cluster.leader.propose(value).expect("it leads").index;
        cluster.settle();
        assert_eq!(cluster.accepts, [(QUICK, index), (SLOW, index)]);
    }

    #[test]
    fn when_the_quick_one_is_silent_the_spare_takes_its_place() {
        let mut cluster = Cluster::elected();
        cluster.know_each_other();
        let first = cluster.propose();
        cluster.pass(HURRY_AFTER_US);
        assert_eq!(cluster.accept(SLOW), Some(first));
        assert_eq!(cluster.leader.chosen(), first, "chosen without the quick one");
        // At the next heartbeat the one that has not answered is no longer the quicker one.
        cluster.pass(LEASE_US / 5);
        cluster.accepts.clear();
        let second = cluster.propose();
        assert!(cluster.accepts.contains(&(SLOW, second)));
        assert_eq!(cluster.accept(SLOW), Some(second));
        assert_eq!(cluster.leader.chosen(), second);
    }
}
