//! Who is and who was master, as this node has seen it. The last one is remembered while none is
//! known: tables go on naming it, and the next one is announced as its successor.

use parking_lot::Mutex;

use crate::paxos::NodeId;

/// What is known.
#[derive(Debug, Default)]
pub struct Masters(Mutex<Known>);

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    last: Option<NodeId>,
    /// By the boot clock; `None`: there is one now, or there never was.
    lost_at_us: Option<u64>,
}

/// Another node is the master than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch {
    /// Who was.
    pub from: NodeId,
    /// Who is.
    pub to: NodeId,
}

impl Masters {
    /// The master is that node now, or none is known. To be told of every change, in order.
    pub fn note(&self, master: Option<NodeId>, now_us: u64) -> Option<Switch> {
        let mut known = self.0.lock();
        let Some(to) = master else {
            if known.last.is_some() {
                known.lost_at_us = known.lost_at_us.or(Some(now_us));
            }
            return None;
        };
        known.lost_at_us = None;
        let from = known.last.replace(to)?;
        (from != to).then_some(Switch { from, to })
    }

    /// The present master, or the last one.
    pub fn last(&self) -> Option<NodeId> {
        self.0.lock().last
    }

    /// For how long none has been known, in microseconds; 0: one is, or none ever was.
    pub fn lost_us(&self, now_us: u64) -> u64 {
        self.0.lock().lost_at_us.map_or(0, |at| now_us.saturating_sub(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_is_announced_and_a_return_is_not() {
        let masters = Masters::default();
        let (a, b) = (NodeId(0), NodeId(1));
        assert_eq!(masters.note(None, 1), None);
        assert_eq!(masters.note(Some(a), 2), None, "the first one succeeds nobody");
        assert_eq!(masters.note(None, 3), None);
        assert_eq!((masters.last(), masters.lost_us(10)), (Some(a), 7));
        assert_eq!(masters.note(Some(a), 11), None);
        assert_eq!(masters.lost_us(12), 0);
        assert_eq!(masters.note(Some(b), 13), Some(Switch { from: a, to: b }));
        assert_eq!(masters.last(), Some(b));
    }
}
