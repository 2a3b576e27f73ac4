//! What the driver has to take in: many threads and tasks push, the driver takes everything that is
//! there at once.

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::environment::{Input, Submission};
use super::proposals::{Gather, LARGE_BATCH_BYTES};

/// An unbounded queue; what bounds it is the flow control of those who push.
#[derive(Default)]
pub struct Inbox {
    letters: Mutex<Letters>,
    arrived: Notify,
}

#[derive(Default)]
struct Letters {
    queue: Vec<Input>,
    /// The driver has reason to take it now.
    is_pressing: bool,
    /// Submissions among it,
    submissions: usize,
    /// with so many bytes.
    submission_bytes: usize,
    /// So many submissions press.
    pressing_submissions: usize,
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

    /// Adds a submission. It presses once the driver can do something with all that are there.
    pub fn submit(&self, submission: Submission) {
        let mut letters = self.letters.lock();
        if letters.closed {
            return;
        }
        letters.submissions += 1;
        letters.submission_bytes += submission.items.len();
        letters.queue.push(Input::Submission(submission));
        let presses = letters.submissions >= letters.pressing_submissions
            || letters.submission_bytes >= LARGE_BATCH_BYTES;
        let is_first = presses && !std::mem::replace(&mut letters.is_pressing, true);
        drop(letters);
        if is_first {
            self.arrived.notify_one();
        }
    }

    /// Less is there than that.
    pub fn gathers(&self, gather: Gather) -> bool {
        let letters = self.letters.lock();
        letters.submissions < gather.submissions && letters.submission_bytes < gather.bytes
    }

    /// So many are there.
    pub fn submissions(&self) -> usize {
        self.letters.lock().submissions
    }

    /// From now on so many submissions press; fewer wait for whatever else comes. To be called by
    /// the driver before it waits.
    pub fn expect_submissions(&self, count: usize) {
        let mut letters = self.letters.lock();
        letters.pressing_submissions = count;
        letters.is_pressing |= letters.submissions > 0 && letters.submissions >= count;
    }

    /// Adds one for which it is early enough when the driver steps anyway.
    pub fn leave(&self, input: Input) {
        let mut letters = self.letters.lock();
        if !letters.closed {
            letters.queue.push(input);
        }
    }

    /// Something is there that the driver should take now.
    pub fn is_pressing(&self) -> bool {
        self.letters.lock().is_pressing
    }

    /// Waits until something presses. Cancel safe.
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
        (letters.submissions, letters.submission_bytes) = (0, 0);
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

    fn submission(bytes: usize) -> Submission {
        let items = vec![0; bytes].into();
        Submission { items, count: 1, charge: 0, read_at_us: 0, respond: Box::new(|_| ()) }
    }

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

    #[test]
    fn few_small_submissions_gather() {
        let inbox = Inbox::default();
        let gathers =
            |submissions| inbox.gathers(Gather { submissions, bytes: 1000, longest_us: 0 });
        assert!(gathers(1) && !gathers(0));
        inbox.submit(submission(10));
        assert!(gathers(2) && !gathers(1));
        inbox.submit(submission(990));
        assert!(!gathers(10));
        assert_eq!(inbox.submissions(), 2);
    }

    #[test]
    fn submissions_press_when_there_are_enough_or_they_are_large() {
        let inbox = Inbox::default();
        inbox.submit(submission(1));
        assert!(inbox.is_pressing(), "the first one, before anything was expected");
        let mut inputs = Vec::new();
        inbox.take(&mut inputs);
        inbox.expect_submissions(3);
        inbox.submit(submission(1));
        inbox.submit(submission(1));
        assert!(!inbox.is_pressing());
        inbox.submit(submission(1));
        assert!(inbox.is_pressing());

        inputs.clear();
        inbox.take(&mut inputs);
        inbox.expect_submissions(usize::MAX);
        inbox.submit(submission(LARGE_BATCH_BYTES - 1));
        assert!(!inbox.is_pressing());
        inbox.expect_submissions(2);
        assert!(!inbox.is_pressing());
        inbox.expect_submissions(1);
        assert!(inbox.is_pressing(), "what is there is enough now");

        inputs.clear();
        inbox.take(&mut inputs);
        assert_eq!(inputs.len(), 1);
        inbox.expect_submissions(usize::MAX);
        inbox.submit(submission(LARGE_BATCH_BYTES));
        assert!(inbox.is_pressing());
        inputs.clear();
        inbox.take(&mut inputs);
        inbox.push(Input::Stop);
        assert!(inbox.is_pressing(), "anything else always does");
    }
}
