//! Giving the lead to another node on purpose.
//!
//! Order: the driver hears that the lead is over and stops answering before the release leaves, and
//! the release before the nomination. Handing a lease back ends its ballot: this node never serves
//! in it again. The heir still has to be elected; nobody has to believe the nomination. Late or
//! repeated it makes a node canvass, which changes nothing while another leads. The others hold back
//! for a moment when they see a release, so that the heir meets no rival; and the heir asks again soon
//! if its question overtook the release.

use super::message::Message;
use super::replica::{Replica, Role};
use super::types::{Ballot, NodeId};
use crate::planted::{Bug, plants};

impl Replica {
    /// Steps down in favour of the replica whose log is best, which campaigns at once.
    pub fn hand_over(&mut self, reason: &'static str) {
        let Role::Leader(leading) = &self.role else { return };
        match leading.heir(self.now_us) {
            Some(heir) => self.hand_over_to(heir, reason),
            None => self.step_down(reason),
        }
    }

    /// Steps down in favour of that replica.
    pub fn hand_over_to(&mut self, heir: NodeId, reason: &'static str) {
        let Role::Leader(leading) = &self.role else { return };
        let ballot = leading.ballot;
        match () {
            () if plants(Bug::NominatesWhileServing) => {}
            () if plants(Bug::ServesAfterRelease) => self.broadcast(&Message::Release { ballot }),
            () => self.step_down(reason),
        }
        self.send(heir, Message::Nominate { ballot });
    }

    pub(super) fn on_nominate(&mut self, ballot: Ballot) {
        self.round_seen = self.round_seen.max(ballot.round);
        if ballot < self.state.promised || self.is_leader() {
            return;
        }
        self.end_grant(ballot);
        self.nominated_until_us = self.now_us + self.settings.lease_us / 4;
        if self.willing() {
            self.canvass();
        }
    }

    /// Campaigns at once, unless this node hears a leader or must not promise yet.
    pub fn campaign(&mut self) {
        if self.leader().is_none() && self.willing() && !self.state.members.is_empty() {
            self.canvass();
        }
    }
}
