//! CLIENT PAUSE: clients' commands are held back for a while.

use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;

/// Which commands are held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Paused {
    Writes = 1,
    All = 2,
}

/// A node's pause, if there is one.
#[derive(Debug, Default)]
pub(super) struct Pause {
    /// The one in `state`, 0: none. So that commands need no lock while nothing is paused.
    hint: AtomicU8,
    /// What, and until when in the log's time.
    state: Mutex<Option<(Paused, u64)>>,
}

impl Pause {
    /// A pause never shortens or weakens one that is still going on.
    pub(super) fn begin(&self, paused: Paused, now_ms: u64, timeout_ms: u64) {
        let mut state = self.state.lock();
        let (mut paused, mut until_ms) = (paused, now_ms.saturating_add(timeout_ms));
        if let Some((before, end_ms)) = state.filter(|(_, end_ms)| *end_ms > now_ms) {
            (paused, until_ms) = (paused.max(before), until_ms.max(end_ms));
        }
        *state = Some((paused, until_ms));
        self.hint.store(paused as u8, Ordering::SeqCst);
    }

    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        *state = None;
        self.hint.store(0, Ordering::SeqCst);
    }

    /// How many ms a command has to wait, as far as is known now.
    pub(super) fn left_ms(&self, is_write: bool, now_ms: impl FnOnce() -> u64) -> Option<u64> {
        if self.hint.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut state = self.state.lock();
        let (paused, until_ms) = (*state)?;
        let now_ms = now_ms();
        if until_ms <= now_ms {
            *state = None;
            self.hint.store(0, Ordering::SeqCst);
            return None;
        }
        (is_write || paused == Paused::All).then(|| until_ms - now_ms)
    }
}
