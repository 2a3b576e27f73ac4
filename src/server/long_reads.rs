//! Long reads: one after the other, because each may take much memory.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};

use super::refusal::Refusal;

/// How many may be in line, the one that is read included. Each keeps a thread while it waits.
const LONG_READS_MAX: usize = 32;

/// The line of the long reads of a node.
pub(super) struct LongReads {
    turn: Mutex<()>,
    in_line: AtomicUsize,
    /// No client waits longer for its turn: it is to have an answer in time.
    patience: Duration,
}

impl LongReads {
    pub fn new(patience: Duration) -> LongReads {
        LongReads { turn: Mutex::new(()), in_line: AtomicUsize::new(0), patience }
    }

    /// Reads when it is the reader's turn. A refusal for the line's sake means that `read` was not
    /// begun.
    pub fn read<T>(&self, read: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
        let before = self.in_line.fetch_add(1, Ordering::SeqCst);
        let in_turn = || match self.turn.try_lock_for(self.patience) {
            Some(_turn) => read(),
            None => Err(Refusal::TryAgain("other long reads took too long".into())),
        };
        let result = match before < LONG_READS_MAX {
            true => beside_the_others(in_turn),
            false => Err(Refusal::TryAgain("too many long reads wait already".into())),
        };
        self.in_line.fetch_sub(1, Ordering::SeqCst);
        result
    }
}

/// The other connections of this thread go on elsewhere.
pub(super) fn beside_the_others<T>(read: impl FnOnce() -> T) -> T {
    let alone = Handle::try_current()
        .is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::CurrentThread);
    // Connections leave such a thread before they read long (`server/residence.rs`), so it is a test's.
    if alone { read() } else { tokio::task::block_in_place(read) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_in_vain_is_refused_without_reading() {
        let reads = LongReads::new(Duration::ZERO);
        let turn = reads.turn.lock();
        let refused: Result<(), _> = reads.read(|| panic!("it is not its turn"));
        assert_eq!(refused, Err(Refusal::TryAgain("other long reads took too long".into())));
        drop(turn);
        assert_eq!(reads.read(|| Ok(1)), Ok(1));
        assert_eq!(reads.in_line.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn on_a_runtime_of_one_thread_it_is_read_there() {
        assert_eq!(LongReads::new(Duration::ZERO).read(|| Ok(1)), Ok(1));
    }

    #[test]
    fn the_line_is_short() {
        let reads = LongReads::new(Duration::ZERO);
        reads.in_line.store(LONG_READS_MAX, Ordering::SeqCst);
        let refused: Result<(), _> = reads.read(|| panic!("there is no room"));
        assert_eq!(refused, Err(Refusal::TryAgain("too many long reads wait already".into())));
        assert_eq!(reads.in_line.load(Ordering::SeqCst), LONG_READS_MAX);
    }
}
