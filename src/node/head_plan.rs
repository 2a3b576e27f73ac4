//! When heads are made, which are here, and whether all nodes agree on them.

use super::message::HeadName;
use crate::paxos::{Index, NodeId};

/// Digests of other nodes' heads that are remembered.
const DIGESTS_MAX: usize = 32;

/// One that failed, most likely for want of room, is asked for again after so long,
const AGAIN_AFTER_US: u64 = 60_000_000;
/// and twice as long each time, so often.
const AGAIN_DOUBLED_MAX: u32 = 6;

/// A large state lets the log grow to so many times what is otherwise between two heads.
const GROWN_MAX: u64 = 4;

/// How large a head is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadSize {
    /// Its file.
    pub file_bytes: u64,
    /// All rows in it, which the file has compressed.
    pub state_bytes: u64,
}

/// The heads of this node, and what is known of the others'.
#[derive(Debug)]
pub(super) struct HeadPlan {
    /// Written and checked, oldest first; two are kept.
    here: Vec<(HeadName, HeadSize)>,
    every_bytes: u64,
    since_bytes: u64,
    /// Somebody asked for one.
    wanted: bool,
    /// The newest entry that this node had all nodes write a head at, until this node's own head of
    /// it, or of a later one, is here or has failed, or it leads no longer.
    asked: Option<Index>,
    /// When the one that was asked for last, and failed, is asked for again.
    again_at_us: Option<u64>,
    /// Failures in a row.
    failures: u32,
    digests: Vec<(NodeId, HeadName)>,
    mismatch: Option<(Index, NodeId)>,
}

impl HeadPlan {
    pub fn new(here: Vec<(HeadName, HeadSize)>, every_bytes: u64, since_bytes: u64) -> HeadPlan {
        HeadPlan {
            here,
            every_bytes,
            since_bytes,
            wanted: false,
            asked: None,
            again_at_us: None,
            failures: 0,
            digests: Vec::new(),
            mismatch: None,
        }
    }

    /// So many bytes of entries went to the applier.
    pub fn logged(&mut self, bytes: u64) {
        self.since_bytes = self.since_bytes.saturating_add(bytes);
    }

    /// A head should be proposed: enough was logged since the last one. So that a large state is not
    /// written over and over that is half of the newest head's file at least, and as much as there is
    /// state, up to a bound, since the log has to be on the disk as well. Or the last one failed a while
    /// ago: without one the log stays, and with it a full disk.
    pub fn due(&self, now_us: u64) -> bool {
        let newest = self.here.last().map_or(HeadSize::default(), |(_, size)| *size);
        let of_state = newest.state_bytes.min(self.every_bytes.saturating_mul(GROWN_MAX));
        self.wanted
            || self.again_at_us.is_some_and(|at_us| at_us <= now_us)
            || self.since_bytes >= self.every_bytes.max(of_state).max(newest.file_bytes / 2)
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
        self.again_at_us = None;
        self.asked = Some(index);
    }

    /// This node's head at `index` will not come.
    pub fn failed(&mut self, index: Index, now_us: u64) {
        if self.asked.take_if(|asked| *asked <= index).is_some() {
            let doubled = self.failures.min(AGAIN_DOUBLED_MAX);
            self.again_at_us = Some(now_us + (AGAIN_AFTER_US << doubled));
            self.failures += 1;
        }
    }

    /// This node leads no longer: what it proposed may never be chosen.
    pub fn lead_ended(&mut self) {
        self.wanted = false;
        self.asked = None;
        self.again_at_us = None;
    }

    pub fn newest(&self) -> Option<HeadName> {
        self.here.last().map(|(name, _)| *name)
    }

    /// The log is not needed below the older of the two newest heads.
    pub fn log_needed_from(&self) -> Option<Index> {
        let older = self.here.len().checked_sub(2)?;
        Some(self.here[older].0.index.next())
    }

    pub fn written(&mut self, node: NodeId, name: HeadName, size: HeadSize) {
        self.since_bytes = 0;
        self.asked.take_if(|asked| *asked <= name.index);
        self.again_at_us = None;
        self.failures = 0;
        self.here.retain(|(here, _)| here.index != name.index);
        self.here.push((name, size));
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
        plan.written(NodeId(0), name(10, 1), HeadSize::default());
        assert_eq!(plan.log_needed_from(), None, "one head is not enough");
        plan.written(NodeId(0), name(20, 2), HeadSize::default());
        assert_eq!(plan.log_needed_from(), Some(Index(11)));
        plan.written(NodeId(0), name(30, 3), HeadSize::default());
        assert_eq!(plan.log_needed_from(), Some(Index(21)));
    }

    #[test]
    fn one_that_is_asked_for_is_written_or_fails_before_the_next() {
        let mut plan = HeadPlan::new(Vec::new(), 100, 0);
        plan.want(true);
        assert!(plan.due(0));
        plan.proposed(Index(20));
        for _ in 0..3 {
            plan.want(true);
            assert!(!plan.due(0), "the first is not here yet");
        }
        plan.written(NodeId(0), name(10, 1), HeadSize::default());
        plan.failed(Index(19), 0);
        plan.want(true);
        assert!(!plan.due(0), "those were older ones");

        plan.written(NodeId(0), name(20, 2), HeadSize::default());
        assert!(!plan.due(0), "what was wanted meanwhile is not remembered");
        plan.want(true);
        assert!(plan.due(0));

        plan.proposed(Index(30));
        plan.failed(Index(30), 0);
        plan.want(true);
        assert!(plan.due(0), "after a failure");

        plan.proposed(Index(40));
        plan.lead_ended();
        plan.want(false);
        assert!(!plan.due(0), "only a leader may propose");
        plan.want(true);
        assert!(plan.due(0), "in the next lead");
    }

    #[test]
    fn one_that_failed_is_asked_for_again_ever_later() {
        let mut plan = HeadPlan::new(Vec::new(), 100, 0);
        let mut now_us = 5;
        for attempt in 0..10_u64 {
            plan.proposed(Index(attempt));
            plan.failed(Index(attempt), now_us);
            let later_us = now_us + (AGAIN_AFTER_US << attempt.min(AGAIN_DOUBLED_MAX.into()));
            assert!(!plan.due(later_us - 1) && plan.due(later_us), "attempt {attempt}");
            now_us = later_us;
        }
        plan.written(NodeId(0), name(20, 2), HeadSize::default());
        assert!(!plan.due(u64::MAX), "there is one now");
        plan.proposed(Index(30));
        plan.failed(Index(30), 0);
        assert!(plan.due(AGAIN_AFTER_US), "the first failure again");
        plan.lead_ended();
        assert!(!plan.due(u64::MAX), "only a leader may propose");
    }

    #[test]
    fn enough_log_makes_one_due_whatever_was_asked_for() {
        let mut plan = HeadPlan::new(Vec::new(), 100, 0);
        plan.proposed(Index(10));
        plan.logged(100);
        assert!(plan.due(0));
        // Of a large state it takes more,
        for (state_bytes, file_bytes, enough) in
            [(50, 50, 100), (300, 100, 300), (1000, 100, 400), (9000, 1000, 500)]
        {
            plan.written(NodeId(0), name(10, 1), HeadSize { file_bytes, state_bytes });
            plan.logged(enough - 1);
            assert!(!plan.due(0), "{state_bytes}");
            plan.logged(1);
            assert!(plan.due(0), "{state_bytes}");
        }
    }

    #[test]
    fn different_hashes_at_one_index_are_reported() {
        let mut plan = HeadPlan::new(Vec::new(), 100, 0);
        plan.compare(NodeId(1), name(10, 1));
        plan.written(NodeId(0), name(10, 1), HeadSize::default());
        assert_eq!(plan.mismatch(), None);
        plan.compare(NodeId(2), name(10, 2));
        assert_eq!(plan.mismatch(), Some((Index(10), NodeId(2))));
    }
}
