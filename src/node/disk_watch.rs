//! When a disk counts as nearly full: while there is still room for what memory has to bring to it.
//!
//! Layers that are not drained yet go to the engine whether updates are taken or not, so their bytes
//! are kept free beside the reserve. Heads must not take that room either: see
//! [`DiskWatch::is_nearly_full`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// There is room again with one part in so many of the reserve more than what there has to be, so that
/// a disk at its bound is not announced with each update.
const ROOM_AGAIN_PART: u64 = 8;

/// What watches the disk, and who asks it. Clones say the same.
#[derive(Clone, Debug, Default)]
pub(super) struct DiskWatch {
    nearly_full: Arc<AtomicBool>,
}

impl DiskWatch {
    /// Looks at what is free and what has to be; whether that is news.
    pub fn look(&self, free_bytes: u64, reserve_bytes: u64, undrained_bytes: u64) -> bool {
        let before = self.is_nearly_full();
        let margin = if before { reserve_bytes / ROOM_AGAIN_PART } else { 0 };
        let needed = reserve_bytes.saturating_add(undrained_bytes).saturating_add(margin);
        let now = free_bytes < needed;
        self.nearly_full.store(now, Ordering::SeqCst);
        now != before
    }

    /// Whether what can wait should not take more room.
    pub fn is_nearly_full(&self) -> bool {
        self.nearly_full.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_drained_yet_is_kept_free_beside_the_reserve() {
        let watch = DiskWatch::default();
        assert!(!watch.look(180, 80, 100));
        assert!(watch.look(179, 80, 100) && watch.is_nearly_full());
        assert!(!watch.look(189, 80, 100), "news only once there is some room more");
        assert!(watch.look(190, 80, 100) && !watch.is_nearly_full());
        assert!(watch.look(u64::MAX - 1, u64::MAX, u64::MAX));
    }
}
