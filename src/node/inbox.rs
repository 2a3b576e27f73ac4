//! What the driver has to take in: many threads and tasks push, the driver takes everything that is
//! there at once.

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::environment::Input;

/// An unbounded queue; what bounds it is the flow control of those who push.
#[derive(Default)]
pub struct Inbox {
    letters: Mutex<Letters>,
    arrived: Notify,
}

#[derive(Default)]
struct Letters {
    queue: Vec<Input>,
    /// Some of it was pushed, not left.
    is_pressing: bool,
    closed: bool,
}

impl Inbox {
    /// Adds one. After [`Inbox::close`] it is dropped.
    pub fn push(&self, input: Input) {
        let mut letters = self.letters.lock();
        if letters.closed {
            return;
        }
        letters.queue.push(input);
        // Whoever was first has told the driver already.
        let is_first = !std::mem::replace(&mut letters.is_pressing, true);
        drop(letters);
        if is_first {
            self.arrived.notify_one();
        }
    }

    /// Adds one for which it is early enough when the driver steps anyway.
    pub fn leave(&self, input: Input) {
        let mut letters = self.letters.lock();
        if !letters.closed {
            letters.queue.push(input);
        }
    }

    /// Something was pushed.
    pub fn is_pressing(&self) -> bool {
        self.letters.lock().is_pressing
    }

    /// Waits until something was pushed. Cancel safe.
    pub async fn wait(&self) {
        while !self.is_pressing() {
            self.arrived.notified().await;
        }
    }

    /// Swaps all that is there into `into`, which must be empty.
    pub fn take(&self, into: &mut Vec<Input>) {
        assert!(into.is_empty(), "{} inputs were not read", into.len());
        let mut letters = self.letters.lock();
        letters.is_pressing = false;
        std::mem::swap(&mut letters.queue, into);
    }

    /// Nothing more is taken in; what is there can still be taken out.
    pub fn close(&self) {
        self.letters.lock().closed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_waits_hears_of_the_first_and_takes_all() {
        let inbox = std::sync::Arc::new(Inbox::default());
        let pushed = inbox.clone();
        let pusher = tokio::spawn(async move {
            for _ in 0..100 {
                pushed.push(Input::Stop);
                tokio::task::yield_now().await;
            }
        });
        let (mut inputs, mut count) = (Vec::new(), 0);
        while count < 100 {
            inbox.wait().await;
            inbox.take(&mut inputs);
            assert!(!inputs.is_empty());
            count += inputs.drain(..).count();
        }
        pusher.await.expect("the pusher ends");
        inbox.close();
        inbox.push(Input::Stop);
        inbox.take(&mut inputs);
        assert!(inputs.is_empty(), "taken in after the end");
    }
}
