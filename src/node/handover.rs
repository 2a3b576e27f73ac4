//! A planned handover of the mastership: lossless, and short for clients.
//!
//! The master goes on serving until its successor lacks little. Then it holds updates back in the
//! queue, waits until the successor's log is as long as its own and everything in it is answered,
//! hands its lease back, and nominates the successor, which campaigns at once (`paxos::handover`).
//! What was held back is refused with TRYAGAIN: it was not proposed and never will be.
//!
//! Safety does not rest on any of this: whoever is elected adopts what is chosen. A handover only
//! sees to it that the election is quick.

use super::driver::Driver;
use super::environment::Environment;
use super::message::NodeMessage;
use crate::paxos::{Ballot, FollowerStatus, Index, NodeId};

/// Entries that the successor may lack when updates are held back.
const NEARLY_CURRENT_ENTRIES: u64 = 256;
/// How long updates are held back at most, before they go on for as long again.
const HOLDS_US_MAX: u64 = 200_000;
/// How long a master that was asked by a replica waits for it to catch up.
const ASKED_WAITS_US: u64 = 10_000_000;

/// What a master shall do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandOverOrder {
    /// The successor; `None`: whoever has the most.
    pub target: Option<NodeId>,
    /// Hand over when the time is up even so: the successor then fetches what it lacks.
    pub force: bool,
    /// How long to wait for the successor; `None`: until it has caught up.
    pub timeout_us: Option<u64>,
}

/// How far a handover is, in Redis' words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HandOverState {
    /// None was asked for.
    #[default]
    None,
    /// The successor catches up while clients are served.
    Waiting,
    /// Updates are held back.
    Holding,
}

impl HandOverState {
    /// As INFO prints it.
    pub fn name(self) -> &'static str {
        match self {
            HandOverState::None => "no-failover",
            HandOverState::Waiting => "waiting-for-sync",
            HandOverState::Holding => "failover-in-progress",
        }
    }
}

/// A handover under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct HandOver {
    order: HandOverOrder,
    deadline_us: u64,
    /// Since when updates are held back.
    held_since_us: Option<u64>,
    /// They are not held back again before then.
    rest_until_us: u64,
}

impl Driver {
    pub(super) fn begin_hand_over(&mut self, order: HandOverOrder) {
        if !self.serves() || self.hand_over.is_some() || self.stopping() {
            return;
        }
        let deadline_us = order.timeout_us.map_or(u64::MAX, |us| self.now_us().saturating_add(us));
        tracing::info!(target = ?order.target, force = order.force, "hands over when it can");
        self.hand_over =
            Some(HandOver { order, deadline_us, held_since_us: None, rest_until_us: 0 });
    }

    pub(super) fn abort_hand_over(&mut self) {
        if self.hand_over.take().is_some() {
            tracing::info!("the handover is aborted");
        }
    }

    /// This node wants to be the master: the present one is asked, or, without one and by force,
    /// the others' votes.
    pub(super) fn ask_for_mastership(&mut self, force: bool, environment: &mut dyn Environment) {
        match self.replica.leader() {
            Some(leader) if leader != self.node() => {
                let ballot = self.replica.state().promised;
                environment.send(leader, NodeMessage::AskForMastership { ballot });
            }
            None if force => self.replica.campaign(),
            _ => {}
        }
    }

    /// A replica asks. Late or untrue, it costs a handover at most: only the leader of that very
    /// ballot listens, and hands over only to who votes and has caught up.
    pub(super) fn asked_for_mastership(&mut self, from: NodeId, ballot: Ballot) {
        if self.replica.is_leader() && ballot == self.replica.state().promised {
            let timeout_us = Some(ASKED_WAITS_US);
            self.begin_hand_over(HandOverOrder { target: Some(from), force: false, timeout_us });
        }
    }

    /// Nothing is proposed now.
    pub(super) fn holds_updates(&self) -> bool {
        self.hand_over.is_some_and(|it| it.held_since_us.is_some())
    }

    pub(super) fn hand_over_state(&self) -> HandOverState {
        match self.hand_over {
            None => HandOverState::None,
            Some(HandOver { held_since_us: None, .. }) => HandOverState::Waiting,
            Some(_) => HandOverState::Holding,
        }
    }

    pub(super) fn go_on_handing_over(&mut self, environment: &mut dyn Environment) {
        let Some(mut under_way) = self.hand_over else { return };
        if !self.serves() {
            self.hand_over = None;
            return;
        }
        let now_us = self.now_us();
        let late = now_us >= under_way.deadline_us;
        if late && !under_way.order.force {
            tracing::warn!("the successor did not catch up in time: goes on as the master");
            self.hand_over = None;
            return;
        }
        let last = self.replica.last().index;
        let heir = self.heir(under_way.order.target);
        let lacks = heir.as_ref().map_or(u64::MAX, |heir| last.0.saturating_sub(heir.matched.0));
        match under_way.held_since_us {
            None => {
                let begins = lacks <= NEARLY_CURRENT_ENTRIES && now_us >= under_way.rest_until_us;
                if begins || late {
                    under_way.held_since_us = Some(now_us);
                }
            }
            Some(since_us) => {
                let settled = self.nothing_in_flight() && self.applied.index >= last;
                let waited = now_us >= since_us + HOLDS_US_MAX.min(self.lease_us());
                match heir {
                    Some(heir) if (settled && lacks == 0) || (late && (settled || waited)) => {
                        return self.hand_over_now(heir.node, last, environment);
                    }
                    _ if waited => {
                        under_way.held_since_us = None;
                        under_way.rest_until_us = now_us + (now_us - since_us);
                    }
                    _ => {}
                }
            }
        }
        self.hand_over = Some(under_way);
    }

    fn hand_over_now(&mut self, heir: NodeId, last: Index, environment: &mut dyn Environment) {
        tracing::info!(%heir, %last, "hands over");
        self.hand_over = None;
        self.expect_successor();
        self.replica.hand_over_to(heir, "it hands over");
        self.flush(environment);
    }

    /// Who shall be master: it answers and votes.
    fn heir(&self, target: Option<NodeId>) -> Option<FollowerStatus> {
        let lease_us = self.lease_us();
        let can = |it: &FollowerStatus| {
            it.votes && it.silent_us < lease_us && target.is_none_or(|node| node == it.node)
        };
        self.replica.followers().into_iter().filter(can).max_by_key(|it| it.matched)
    }
}
