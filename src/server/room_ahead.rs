//! Room that connections make for arguments of which only the length has come.
//!
//! It can be memory even where nothing was written yet, in huge pages; so what all connections make
//! together is bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The most of it.
const BYTES_MAX: usize = 32 << 20;

/// The bytes of all [`RoomAhead`] that are there.
#[derive(Debug, Default)]
pub struct RoomsAhead(AtomicUsize);

/// Counts as long as it is there.
#[derive(Debug)]
pub struct RoomAhead {
    all: Arc<RoomsAhead>,
    bytes: usize,
}

impl RoomAhead {
    /// `None`: there is too much already.
    pub fn make(all: &Arc<RoomsAhead>, bytes: usize) -> Option<RoomAhead> {
        let before = all.0.fetch_add(bytes, Ordering::Relaxed);
        let room = RoomAhead { all: all.clone(), bytes };
        // Otherwise dropped, and so no longer counted.
        Some(room).filter(|_| before + bytes <= BYTES_MAX)
    }
}

impl Drop for RoomAhead {
    fn drop(&mut self) {
        self.all.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[test]
fn it_is_bounded_and_comes_back() {
    let all = Arc::default();
    let half = RoomAhead::make(&all, BYTES_MAX / 2).expect("there is room");
    assert!(RoomAhead::make(&all, BYTES_MAX / 2 + 1).is_none());
    let other = RoomAhead::make(&all, BYTES_MAX / 2).expect("what was refused does not count");
    drop(half);
    assert!(RoomAhead::make(&all, BYTES_MAX / 2).is_some());
    drop(other);
    assert_eq!(all.0.load(Ordering::Relaxed), 0);
}
