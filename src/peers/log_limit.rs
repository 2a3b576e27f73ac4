//! At most one line per ten seconds about one kind of trouble.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

const INTERVAL: Duration = Duration::from_secs(10);

/// Remembers when it last let a line through.
#[derive(Debug, Default)]
pub(super) struct LogLimit {
    last: Mutex<Option<Instant>>,
}

impl LogLimit {
    /// True if a line may be written now.
    pub(super) fn permits(&self) -> bool {
        let now = Instant::now();
        let mut last = self.last.lock();
        let permitted = last.is_none_or(|last| now.duration_since(last) >= INTERVAL);
        if permitted {
            *last = Some(now);
        }
        permitted
    }
}
