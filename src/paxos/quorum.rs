//! Quorums: predicates over sets of seats, not counts.
//!
//! Every accept quorum and every set whose grants make a lease must meet every prepare quorum:
//! otherwise a new leader could miss a chosen entry, or two nodes could hold the lease.

use super::types::NodeId;
use crate::planted::{Bug, plants};

/// A set of seats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeSet(u64);

impl NodeSet {
    /// The set without members.
    pub const EMPTY: NodeSet = NodeSet(0);

    /// Adds a seat.
    pub fn insert(&mut self, node: NodeId) {
        self.0 |= 1 << node.0;
    }

    /// Whether the seat is in the set.
    pub fn contains(self, node: NodeId) -> bool {
        self.0 & (1 << node.0) != 0
    }

    /// How many seats.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn meets(self, other: NodeSet) -> bool {
        self.0 & other.0 != 0
    }
}

impl FromIterator<NodeId> for NodeSet {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> Self {
        let mut set = NodeSet::EMPTY;
        nodes.into_iter().for_each(|node| set.insert(node));
        set
    }
}

/// Which sets may promise, accept and grant.
#[derive(Clone, Debug)]
pub struct Quorums {
    seats: usize,
    /// The seats of each zone; empty when zones do not matter.
    zones: Vec<NodeSet>,
}

impl Quorums {
    /// The most seats a cluster may have; the check of all pairs of sets is exponential in it.
    pub const SEATS_MAX: usize = 7;

    /// `zones` names the zone of each seat, or is empty. With zones an accept quorum has a seat in
    /// each, so that what is chosen is on disk in all of them.
    ///
    /// # Panics
    /// When there are no seats or more than [`Quorums::SEATS_MAX`], or when two quorums that must
    /// meet do not.
    pub fn new(seats: usize, zones: &[String]) -> Quorums {
        assert!((1..=Self::SEATS_MAX).contains(&seats), "{seats} seats, not 1 to 7");
        assert!(zones.is_empty() || zones.len() == seats, "{} zones, {seats} seats", zones.len());
        let mut names: Vec<&String> = zones.iter().collect();
        names.sort();
        names.dedup();
        let zones = names
            .iter()
            .map(|name| {
                let inside = |seat: &usize| zones[*seat] == **name;
                (0..seats).filter(inside).map(|seat| NodeId(seat as u8)).collect()
            })
            .collect();
        let quorums = Quorums { seats, zones };
        quorums.check();
        quorums
    }

    /// A set whose promises elect a leader.
    pub fn prepare(&self, set: NodeSet) -> bool {
        self.majority(set)
    }

    /// Whether the votes of `voting` choose an entry that is on the disks of `holding`. A node
    /// without a vote holds it as well as any other: it counts for its zone, or one that was wiped
    /// could never be admitted again when it is alone in its zone.
    pub fn accept(&self, voting: NodeSet, holding: NodeSet) -> bool {
        self.majority(voting)
            && (self.zones.iter().all(|zone| zone.meets(holding)) || plants(Bug::ZoneIgnored))
    }

    /// A set whose grants make a lease.
    pub fn lease(&self, set: NodeSet) -> bool {
        self.majority(set)
    }

    fn majority(&self, set: NodeSet) -> bool {
        set.len() > self.seats / 2
    }

    fn check(&self) {
        let sets = || (0..1u64 << self.seats).map(NodeSet);
        let everyone = NodeSet((1 << self.seats) - 1);
        for prepare in sets().filter(|set| self.prepare(*set)) {
            for other in sets().filter(|set| self.accept(*set, everyone) || self.lease(*set)) {
                assert!(prepare.meets(other), "quorums {prepare:?} and {other:?} do not meet");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(seats: &[u8]) -> NodeSet {
        seats.iter().map(|seat| NodeId(*seat)).collect()
    }

    #[test]
    fn a_majority_is_more_than_half() {
        for (seats, least) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)] {
            let quorums = Quorums::new(seats, &[]);
            let nodes: Vec<u8> = (0..seats as u8).collect();
            assert!(quorums.prepare(set(&nodes[..least])), "{least} of {seats}");
            assert!(!quorums.prepare(set(&nodes[..least - 1])), "{} of {seats}", least - 1);
        }
    }

    #[test]
    fn with_zones_an_accept_quorum_has_a_seat_in_each() {
        let zones = ["a", "a", "b"].map(String::from);
        let quorums = Quorums::new(3, &zones);
        let accept = |voting: &[u8], holding: &[u8]| quorums.accept(set(voting), set(holding));
        assert!(!accept(&[0, 1], &[0, 1]));
        assert!(accept(&[0, 2], &[0, 2]));
        assert!(accept(&[0, 1], &[0, 1, 2]), "a learner's disk is in the zone, too");
        assert!(!accept(&[2], &[0, 1, 2]));
        assert!(quorums.prepare(set(&[0, 1])), "a leader may be elected by one zone");
    }

    /// Compared with counting in plain words, over all sets of random clusters.
    #[test]
    fn quorums_agree_with_a_plain_count() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let seats = random.usize(1..=Quorums::SEATS_MAX);
            let zoned = random.bool();
            let zones: Vec<String> =
                (0..if zoned { seats } else { 0 }).map(|_| random.u8(0..3).to_string()).collect();
            let quorums = Quorums::new(seats, &zones);
            for bits in 0..1u32 << seats {
                let inside: Vec<usize> = (0..seats).filter(|seat| bits >> seat & 1 == 1).collect();
                let nodes: NodeSet = inside.iter().map(|seat| NodeId(*seat as u8)).collect();
                let majority = 2 * inside.len() > seats;
                let everywhere =
                    zones.iter().all(|zone| inside.iter().any(|seat| zones[*seat] == *zone));
                assert_eq!(quorums.prepare(nodes), majority, "{inside:?} of {seats}");
                assert_eq!(quorums.lease(nodes), majority, "{inside:?} of {seats}");
                assert_eq!(
                    quorums.accept(nodes, nodes),
                    majority && everywhere,
                    "{inside:?}, {zones:?}"
                );
            }
        }
    }
}
