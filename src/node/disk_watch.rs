//! When a disk counts as nearly full: while there is still room for what memory has to bring to it.
//!
//! Layers that are not drained yet go to the engine whether updates are taken or not, so their bytes
//! are kept free beside the reserve. A head may use up most of the reserve, since the log that it makes
//! droppable gives more back, once it is drained (`node/drain_schedule.rs`); but not the layers' room.
//! Others may fill the disk as well, such as nodes that share it: then what is in layers stays there,
//! since an engine without room ends the node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// There is room again with one part in so many of the reserve more than what there has to be, so that
/// a disk at its bound is not announced with each update.
const ROOM_AGAIN_PART: u64 = 8;
/// Heads leave one part in so many of the reserve, and draining does.
const LEFT_PART: u64 = 4;

/// What there is on a disk, and what there has to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub free_bytes: u64,
    pub reserve_bytes: u64,
    /// Of layers.
    pub undrained_bytes: u64,
    /// The log could not prepare its next segment.
    pub lacks_segment: bool,
}

/// What watches the disk, and who asks it. Clones say the same.
#[derive(Clone, Debug, Default)]
pub(super) struct DiskWatch {
    nearly_full: Arc<AtomicBool>,
    too_full_for_heads: Arc<AtomicBool>,
}

impl DiskWatch {
    /// Looks at the disk; whether updates are to be refused from now on, or taken again, if that is news.
    pub fn look(&self, room: Room) -> Option<bool> {
        let Room { free_bytes, reserve_bytes, undrained_bytes, lacks_segment } = room;
        let before = self.nearly_full.load(Ordering::SeqCst);
        let margin = if before { reserve_bytes / ROOM_AGAIN_PART } else { 0 };
        let needed = undrained_bytes.saturating_add(reserve_bytes).saturating_add(margin);
        let now = lacks_segment || free_bytes < needed;
        self.nearly_full.store(now, Ordering::SeqCst);
        let heads_leave = undrained_bytes.saturating_add(reserve_bytes / LEFT_PART);
        self.too_full_for_heads.store(free_bytes < heads_leave, Ordering::SeqCst);
        (now != before).then_some(now)
    }

    /// Whether a head that is being written takes room that is needed otherwise.
    pub fn is_too_full_for_heads(&self) -> bool {
        self.too_full_for_heads.load(Ordering::SeqCst)
    }
}

/// What draining may write there so that room is left for what else there is.
pub(super) fn room_to_drain(free_bytes: u64, reserve_bytes: u64) -> u64 {
    free_bytes.saturating_sub(reserve_bytes / LEFT_PART)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(watch: &DiskWatch, free_bytes: u64, lacks_segment: bool) -> Option<bool> {
        watch.look(Room { free_bytes, reserve_bytes: 80, undrained_bytes: 100, lacks_segment })
    }

    #[test]
    fn what_is_not_drained_yet_is_kept_free_beside_the_reserve() {
        let watch = DiskWatch::default();
        assert_eq!(look(&watch, 180, false), None);
        assert_eq!(look(&watch, 179, false), Some(true));
        assert_eq!(look(&watch, 189, false), None, "news only once there is some room more");
        assert_eq!(look(&watch, 190, false), Some(false));
        let all = u64::MAX;
        let room =
            Room { free_bytes: 1, reserve_bytes: all, undrained_bytes: all, lacks_segment: false };
        assert_eq!(watch.look(room), Some(true));
    }

    #[test]
    fn a_log_without_room_for_its_next_segment_fills_the_disk() {
        let watch = DiskWatch::default();
        assert_eq!(look(&watch, 1000, true), Some(true));
        assert_eq!(look(&watch, 1000, true), None);
        assert_eq!(look(&watch, 1000, false), Some(false));
    }

    #[test]
    fn a_head_may_use_the_reserve_but_not_the_layers_room() {
        let watch = DiskWatch::default();
        look(&watch, 120, false);
        assert!(!watch.is_too_full_for_heads());
        look(&watch, 119, false);
        assert!(watch.is_too_full_for_heads());
    }

    #[test]
    fn draining_leaves_a_part_of_the_reserve() {
        assert_eq!([19, 20, 27].map(|free_bytes| room_to_drain(free_bytes, 80)), [0, 0, 7]);
    }
}
