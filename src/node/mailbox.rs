//! A queue between threads: many push, one takes everything that is there at once.

use parking_lot::{Condvar, Mutex};

/// An unbounded queue; what bounds it is the flow control of those who push.
pub struct Mailbox<T> {
    letters: Mutex<Letters<T>>,
    arrived: Condvar,
}

struct Letters<T> {
    queue: Vec<T>,
    closed: bool,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        let letters = Letters { queue: Vec::new(), closed: false };
        Mailbox { letters: Mutex::new(letters), arrived: Condvar::new() }
    }
}

impl<T> Mailbox<T> {
    /// Adds one. After [`Mailbox::close`] it is dropped.
    pub fn push(&self, letter: T) {
        let mut letters = self.letters.lock();
        if !letters.closed {
            letters.queue.push(letter);
            drop(letters);
            self.arrived.notify_one();
        }
    }

    /// Puts one in the place of all that wait.
    pub fn replace(&self, letter: T) {
        self.letters.lock().queue.clear();
        self.push(letter);
    }

    /// Swaps all letters into `into`, which must be empty; waits for the first. False: it is closed and
    /// everything was taken.
    pub fn take(&self, into: &mut Vec<T>) -> bool {
        assert!(into.is_empty(), "{} letters were not read", into.len());
        let mut letters = self.letters.lock();
        self.arrived
            .wait_while(&mut letters, |letters| letters.queue.is_empty() && !letters.closed);
        std::mem::swap(&mut letters.queue, into);
        !letters.closed || !into.is_empty()
    }

    /// Nothing more is taken in; what is there can still be taken out.
    pub fn close(&self) {
        self.letters.lock().closed = true;
        self.arrived.notify_all();
    }
}
