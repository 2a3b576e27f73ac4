//! How a cluster comes to be, and how a node without its log comes back (design rule 9).
//!
//! A cluster is founded once, by the first seat, when every other seat has told this life of it
//! that it is empty too. A node that finds a founded cluster which knows another life of its seat
//! joins without a vote, and votes once its log holds the chosen entry that admits its new life.

use super::message::Message;
use super::replica::{Deferred, Event, Replica};
use super::types::{Incarnation, NodeId};

/// How often an empty node asks again.
const HAIL_EVERY_US: u64 = 50_000;
/// How often a node that has joined without a vote asks whether its life is over.
const JOINED_HAIL_EVERY_US: u64 = 500_000;

#[derive(Debug, Default)]
pub(super) struct Founding {
    /// Lives of other seats that answered "empty" to this life.
    empty: Vec<(NodeId, Incarnation)>,
    hail_at_us: u64,
}

impl Replica {
    pub(super) fn begin_founding(&mut self) {
        self.founding.hail_at_us = self.now_us;
        if self.state.members.is_empty() {
            self.found_if_all_are_empty();
        }
    }

    pub(super) fn tick_founding(&mut self) {
        let joined = !self.state.members.is_empty();
        if self.now_us < self.founding.hail_at_us || (joined && self.state.voting) {
            return;
        }
        let every_us = if joined { JOINED_HAIL_EVERY_US } else { HAIL_EVERY_US };
        self.founding.hail_at_us = self.now_us + every_us;
        self.broadcast(&Message::Hail);
    }

    pub(super) fn on_hail(&mut self, from: NodeId, incarnation: Incarnation) {
        let members = self.state.members.clone();
        // A leader that follows a later life, which lost its disk before it was admitted, hears no
        // earlier one: that one must know, or it would wait for ever.
        let newest = self.newest_heard(from);
        // Not before it is on disk: a founder that forgot it could found a second time.
        self.after_saves(Deferred::Send(
            from,
            Message::Standing { to: incarnation, members, newest },
        ));
    }

    pub(super) fn on_standing(
        &mut self,
        from: NodeId,
        incarnation: Incarnation,
        to: Incarnation,
        members: Vec<Incarnation>,
        newest: Incarnation,
    ) {
        if to != self.settings.incarnation {
            return;
        }
        if !self.state.members.is_empty() {
            // It joined by what a node said that had not heard of a later life yet.
            let seat = usize::from(self.settings.node.0);
            let known = members.get(seat).copied().unwrap_or_default().max(newest);
            if !self.state.voting && known > self.settings.incarnation {
                self.event(Event::Outlived { above: known });
            }
            return;
        }
        if !members.is_empty() {
            return self.on_found(members);
        }
        self.founding.empty.retain(|(node, _)| *node != from);
        self.founding.empty.push((from, incarnation));
        self.found_if_all_are_empty();
    }

    fn found_if_all_are_empty(&mut self) {
        if self.settings.node != NodeId(0) || self.founding.empty.len() + 1 < self.settings.seats {
            return;
        }
        self.founding.empty.sort();
        let others = self.founding.empty.iter().map(|(_, incarnation)| *incarnation);
        self.state.members = std::iter::once(self.settings.incarnation).chain(others).collect();
        self.state.voting = true;
        self.save_state();
        self.after_saves(Deferred::Founded { announce: true });
    }

    pub(super) fn on_found(&mut self, members: Vec<Incarnation>) {
        if !self.state.members.is_empty() || members.len() != self.settings.seats {
            return;
        }
        let (known, me) = (members[usize::from(self.settings.node.0)], self.settings.incarnation);
        if known > me {
            return self.event(Event::Outlived { above: known });
        }
        // A founder that has not voted yet, or a new life that has no vote yet.
        self.state.voting = known == me;
        self.state.members = members;
        if !self.state.voting {
            // An earlier life may have granted a lease just before it ended.
            let lease_us = self.settings.lease_us;
            self.state.lease_bound_us = self.state.lease_bound_us.max(lease_us);
            let until_us = self.now_us + self.settings.stretched(lease_us);
            self.restart_wait_until_us = self.restart_wait_until_us.max(until_us);
        }
        // Known members make a candidate: not before the first seat had its time to lead.
        self.election_at_us = self.now_us + self.settings.lease_us / 2 + self.jitter_us();
        self.save_state();
        self.after_saves(Deferred::Founded { announce: false });
    }

    pub(super) fn on_founded(&mut self, announce: bool) {
        if announce {
            let members = self.state.members.clone();
            self.broadcast(&Message::Found { members });
        }
        // The first seat leads a new cluster, unless it is slow: it is where people look first.
        let after_us = if announce { 0 } else { self.settings.lease_us / 2 + self.jitter_us() };
        self.election_at_us = self.now_us + after_us;
        self.event(Event::Joined { voting: self.state.voting });
    }
}
