//! What others hear of the driver: whether it serves, why it does not, and where it stands.

use std::sync::Arc;

use super::super::environment::Environment;
use super::super::refusal::Refusal;
use super::super::stamp::OFF_REPORTED_MS;
use super::super::status::{Role, Status};
use super::Driver;
use crate::paxos::{Index, NodeId};
use crate::planted::{Bug, plants};

impl Driver {
    pub(super) fn established(&self) -> bool {
        self.lead.is_some_and(|lead| {
            self.applied.index >= lead.establish || plants(Bug::AnswersBeforeEstablished)
        })
    }

    pub(in crate::node) fn serves(&self) -> bool {
        self.established() && self.now_us < self.replica.lease_until_us()
    }

    /// Why nothing is answered here, for a node that does not serve.
    pub(super) fn refusal(&self) -> Refusal {
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

    pub(super) fn refusal_of_updates(&self) -> Option<Refusal> {
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

    pub(in crate::node) fn publish(&mut self, environment: &mut dyn Environment) {
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
}
