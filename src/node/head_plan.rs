//! When heads are made, which are here, and whether all nodes agree on them.

use super::message::HeadName;
use crate::paxos::{Index, NodeId};

/// Digests of other nodes' heads that are remembered.
const DIGESTS_MAX: usize = 32;

/// The heads of this node, and what is known of the others'.
#[derive(Debug)]
pub(super) struct HeadPlan {
    /// Written and checked, oldest first; two are kept.
    here: Vec<(HeadName, u64)>,
    every_bytes: u64,
    since_bytes: u64,
    /// Somebody asked for one.
    wanted: bool,
    /// The newest entry that this node had all nodes write a head at, until this node's own head of
    /// it, or of a later one, is here or has failed, or it leads no longer.
    asked: Option<Index>,
    digests: Vec<(NodeId, HeadName)>,
    mismatch: Option<(Index, NodeId)>,
}

impl HeadPlan {
    pub fn new(here: Vec<(HeadName, u64)>, every_bytes: u64, since_bytes: u64) -> HeadPlan {
        HeadPlan {
            here,
            every_bytes,
            since_bytes,
            wanted: false,
            asked: None,
            digests: Vec::new(),
            mismatch: None,
        }
    }

    /// So many bytes of entries went to the applier.
    pub fn logged(&mut self, bytes: u64) {
        self.since_bytes = self.since_bytes.saturating_add(bytes);
    }

    /// A head should be proposed: enough was logged since the last one, and, so that a large state
    /// is not written over and over, at least half of the newest head's size.
    pub fn due(&self) -> bool {
        let newest_bytes = self.here.last().map_or(0, |(_, size_bytes)| *size_bytes);
        self.wanted || self.since_bytes >= self.every_bytes.max(newest_bytes / 2)
    }

    /// One is due now, whatever was logged, unless one that was asked for is still to come: each
    /// freezes a layer on all nodes, and no layer drains while an older head is being written.
    /// Forgotten when the node does not lead.
    pub fn want(&mut self, leads: bool) {
        self.wanted = leads && self.asked.is_none();
    }

    /// The entry at `index`, which asks for a head, was proposed.
    pub fn proposed(&mut self, index: Index) {
        self.since_bytes = 0;
        self.wanted = false;
        self.asked = Some(index);
    }

    /// This node's head at `index` will not come.
    pub fn failed(&mut self, index: Index) {
        self.asked.take_if(|asked| *asked <= index);
    }

    /// This node leads no longer: what it proposed may never be chosen.
    pub fn lead_ended(&mut self) {
        self.wanted = false;
        self.asked = None;
    }

    pub fn newest(&self) -> Option<HeadName> {
        self.here.last().map(|(name, _)| *name)
    }

    /// The log is not needed below the older of the two newest heads.
    pub fn log_needed_from(&self) -> Option<Index> {
        let older = self.here.len().checked_sub(2)?;
        Some(self.here[older].0.index.next())
    }

    pub fn written(&mut self, node: NodeId, name: HeadName, size_bytes: u64) {
        self.since_bytes = 0;
        self.asked.take_if(|asked| *asked <= name.index);
        self.here.retain(|(here, _)| here.index != name.index);
        self.here.push((name, size_bytes));
        self.here.sort_by_key(|(here, _)| here.index);
        if self.here.len() > 2 {
            self.here.remove(0);
        }
        self.compare(node, name);
    }

    /// Heads of one index have one hash on all nodes; anything else is silent divergence.
    pub fn compare(&mut self, node: NodeId, name: HeadName) {
        let known = self.digests.iter().find(|(_, known)| known.index == name.index);
        if let Some((other, known)) = known
            && known.hash != name.hash
        {
            tracing::error!(
                index = %name.index, %node, %other,
                "STORES DIFFER: two nodes hold different states at one index; \
                 wipe the directory of the wrong one and start it again"
            );
            self.mismatch = Some((name.index, node));
        }
        self.digests.push((node, name));
        if self.digests.len() > DIGESTS_MAX {
            self.digests.remove(0);
        }
    }

    pub fn mismatch(&self) -> Option<(Index, NodeId)> {
        self.mismatch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(index: u64, byte: u8) -> HeadName {
        HeadName { index: Index(index), hash: [byte; 32] }
    }

    #[test]
    fn the_log_goes_below_the_older_of_two_heads() {
        let mut plan = HeadPlan::new(Vec::new(), 100, 0);
        plan.written(NodeId(0), name(10, 1), 5);
        assert_eq!(plan.log_needed_from(), None, "one head is not enough");
        plan.written(NodeId(0), name(20, 2), 5);
        assert_eq!(plan.log_needed_from(), Some(Index(11)));
        plan.written(NodeId(0), name(30, 3), 5);
        assert_eq!(plan.log_needed_from(), Some(Index(21)));
    }

    #[test]
    fn one_that_is_asked_for_is_written_or_fails_before_the_next() {
        let mut plan = HeadPlan::new(Vec::new(), 100, 0);
        plan.want(true);
        assert!(plan.due());
        plan.proposed(Index(20));
        for _ in 0..3 {
            plan.want(true);
            assert!(!plan.due(), "the first is not here yet");
        }
        plan.written(NodeId(0), name(10, 1), 5);
        plan.failed(Index(19));
        plan.want(true);
        assert!(!plan.due(), "those were older ones");

        plan.written(NodeId(0), name(20, 2), 5);
        assert!(!plan.due(), "what was wanted meanwhile is not remembered");
        plan.want(true);
        assert!(plan.due());

        plan.proposed(Index(30));
        plan.failed(Index(30));
        plan.want(true);
        assert!(plan.due(), "after a failure");

        plan.proposed(Index(40));
        plan.lead_ended();
        plan.want(false);
        assert!(!plan.due(), "only a leader may propose");
        plan.want(true);
        assert!(plan.due(), "in the next lead");
    }

    #[test]
    fn enough_log_makes_one_due_whatever_was_asked_for() {
        let mut plan = HeadPlan::new(Vec::new(), 100, 0);
        plan.proposed(Index(10));
        plan.logged(100);
        assert!(plan.due());
    }

    #[test]
    fn different_hashes_at_one_index_are_reported() {
        let mut plan = HeadPlan::new(Vec::new(), 100, 0);
        plan.compare(NodeId(1), name(10, 1));
        plan.written(NodeId(0), name(10, 1), 5);
        assert_eq!(plan.mismatch(), None);
        plan.compare(NodeId(2), name(10, 2));
        assert_eq!(plan.mismatch(), Some((Index(10), NodeId(2))));
    }
}
