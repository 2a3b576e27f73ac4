//! Outcomes on their way from the driver and the applying thread to the connections' tasks.
//!
//! Where connections run (`server/places.rs`) a task hands them out: waking each connection from outside
//! would cost a system call for every reply.
//!
//! The driver answers everything in time, unless it stands still itself: a disk that is quick as a rule
//! is used by its thread (`node/saving.rs`), and may stall once. Then what is overdue is answered here,
//! with "nobody knows", which is true whatever the driver finds out later. Connections beside the driver
//! stand still with it; they are closed, which says the same.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::places::Place;
use crate::node::{Handle, Outcome, Refusal};

/// A driver that has ended no step for so long stands still: it ends one every 10 ms at least.
const STANDS_STILL_US: u64 = 250_000;
/// How often somebody looks whether it does.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A submission that waits for its outcome.
struct Submitted {
    to: oneshot::Sender<Outcome>,
    at_us: u64,
    /// Where it waits.
    place: Place,
}

/// Names a submission here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Number(u64);

/// That a submission is answered: with its outcome, or when it is dropped without one, since then
/// nobody knows it.
pub(super) struct Promise {
    number: Number,
    answers: Arc<Answers>,
    is_kept: bool,
}

impl Promise {
    /// The outcome; too late for what was overdue.
    pub(super) fn keep(mut self, outcome: Outcome) {
        self.is_kept = true;
        self.answers.push(self.number, outcome);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if !self.is_kept {
            self.answers.push(self.number, Err(Refusal::Uncertain));
        }
    }
}

#[derive(Default)]
struct Pending {
    /// Number of the oldest.
    first: u64,
    /// By number. `None`: answered.
    submitted: VecDeque<Option<Submitted>>,
}

impl Pending {
    fn take(&mut self, Number(number): Number) -> Option<Submitted> {
        let place = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let submitted = self.submitted.get_mut(place)?.take();
        while self.submitted.pop_front_if(|oldest| oldest.is_none()).is_some() {
            self.first += 1;
        }
        submitted
    }
}

/// All submissions of one node's clients.
pub struct Answers {
    answer_within_us: u64,
    pending: Mutex<Pending>,
    /// With the workers.
    workers: Waiting,
    short_turns: Waiting,
    beside_driver: Waiting,
}

/// Outcomes to be handed out in one place.
#[derive(Default)]
struct Waiting {
    outcomes: Mutex<Vec<(oneshot::Sender<Outcome>, Outcome)>>,
    arrived: Notify,
}

impl Answers {
    /// For a node whose driver answers within that time.
    pub fn new(answer_within_us: u64) -> Answers {
        Answers {
            answer_within_us,
            pending: Mutex::default(),
            workers: Waiting::default(),
            short_turns: Waiting::default(),
            beside_driver: Waiting::default(),
        }
    }

    /// A submission is made now, by a connection in that place.
    pub(super) fn promise(
        self: &Arc<Self>,
        now_us: u64,
        place: Place,
    ) -> (Promise, oneshot::Receiver<Outcome>) {
        let (to, receiver) = oneshot::channel();
        let mut pending = self.pending.lock();
        pending.submitted.push_back(Some(Submitted { to, at_us: now_us, place }));
        let number = pending.first + pending.submitted.len() as u64 - 1;
        (Promise { number: Number(number), answers: self.clone(), is_kept: false }, receiver)
    }

    fn push(&self, number: Number, outcome: Outcome) {
        let Some(submitted) = self.pending.lock().take(number) else { return };
        let waiting = self.waiting_in(submitted.place);
        let mut outcomes = waiting.outcomes.lock();
        let first = outcomes.is_empty();
        outcomes.push((submitted.to, outcome));
        drop(outcomes);
        if first {
            waiting.arrived.notify_one();
        }
    }

    fn waiting_in(&self, place: Place) -> &Waiting {
        match place {
            Place::Workers => &self.workers,
            Place::ShortTurns => &self.short_turns,
            Place::BesideDriver => &self.beside_driver,
        }
    }

    /// Hands outcomes out in that place, for ever. To be run there.
    pub async fn hand_out_in(&self, place: Place) {
        let waiting = self.waiting_in(place);
        loop {
            waiting.arrived.notified().await;
            waiting.hand_out();
        }
    }

    /// Answers what is overdue while the driver stands still, for ever; `hang_up` closes the connections
    /// beside it. Not to be run beside the driver.
    pub async fn watch(&self, handle: &Handle, hang_up: impl Fn()) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stood_still = false;
        loop {
            look.tick().await;
            let silent_us = handle.silent_us();
            // Twice: after a stop of the whole process the driver may be about to go on.
            let stands_still = silent_us >= STANDS_STILL_US;
            if stands_still && stood_still {
                let beside_driver = self.give_up(handle.boot_us());
                if beside_driver || silent_us >= self.answer_within_us {
                    hang_up();
                }
            }
            stood_still = stands_still;
        }
    }

    /// Whether some of what is overdue waits beside the driver, where nobody hears of it.
    fn give_up(&self, now_us: u64) -> bool {
        let mut overdue = Vec::new();
        let mut pending = self.pending.lock();
        // The clock was read before the number was given, so that the order is not quite that of time:
        // whoever is behind one that is not overdue is found next time.
        while let Some(oldest) = pending.submitted.front_mut() {
            if oldest.as_ref().is_some_and(|it| now_us < it.at_us + self.answer_within_us) {
                break;
            }
            overdue.extend(oldest.take());
            pending.submitted.pop_front();
            pending.first += 1;
        }
        drop(pending);
        let beside_driver = overdue.iter().any(|it| it.place == Place::BesideDriver);
        for submitted in overdue {
            let _ = submitted.to.send(Err(Refusal::Uncertain));
        }
        beside_driver
    }
}

impl Waiting {
    fn hand_out(&self) {
        let outcomes = std::mem::take(&mut *self.outcomes.lock());
        for (to, outcome) in outcomes {
            // The client may have gone meanwhile.
            let _ = to.send(outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN_US: u64 = 1_000_000;

    fn outcome(receiver: &mut oneshot::Receiver<Outcome>) -> Option<Outcome> {
        receiver.try_recv().ok()
    }

    #[test]
    fn each_gets_its_own_outcome_in_whatever_order_they_come() {
        let answers = Arc::new(Answers::new(WITHIN_US));
        let mut promised: Vec<_> =
            (0..5).map(|at_us| Some(answers.promise(at_us, Place::Workers))).collect();
        for (count, position) in [3, 0, 4, 1, 2].into_iter().enumerate() {
            let (promise, mut receiver) = promised[position].take().expect("each once");
            promise.keep(Err(Refusal::TryAgain("in order")));
            assert_eq!(outcome(&mut receiver), None, "not handed out yet");
            answers.workers.hand_out();
            let got = outcome(&mut receiver);
            assert!(matches!(got, Some(Err(Refusal::TryAgain(_)))), "{count}: {got:?}");
        }
        assert!(answers.pending.lock().submitted.is_empty(), "nothing is left behind");
        assert_eq!(answers.promise(9, Place::Workers).0.number, Number(5));
    }

    #[test]
    fn what_a_driver_that_stands_still_does_not_answer_is_uncertain() {
        let answers = Arc::new(Answers::new(WITHIN_US));
        let (early, mut first) = answers.promise(0, Place::Workers);
        let (answered, mut second) = answers.promise(10, Place::Workers);
        let (late, mut third) = answers.promise(20, Place::Workers);
        answered.keep(Err(Refusal::TryAgain("in time")));
        answers.workers.hand_out();
        assert!(!answers.give_up(WITHIN_US - 1));
        assert_eq!(outcome(&mut first), None, "it may still be answered");
        assert!(!answers.give_up(WITHIN_US + 15), "nobody is beside the driver");
        assert!(matches!(outcome(&mut first), Some(Err(Refusal::Uncertain))));
        assert!(matches!(outcome(&mut second), Some(Err(Refusal::TryAgain(_)))));
        assert_eq!(outcome(&mut third), None, "its time comes later");
        // The driver goes on and answers both: one too late.
        early.keep(Err(Refusal::TryAgain("late")));
        late.keep(Err(Refusal::TryAgain("in time")));
        answers.workers.hand_out();
        assert!(matches!(outcome(&mut third), Some(Err(Refusal::TryAgain(_)))));
        assert!(answers.pending.lock().submitted.is_empty(), "nothing is left behind");
    }

    #[test]
    fn those_beside_the_driver_have_to_be_told_otherwise() {
        let answers = Arc::new(Answers::new(WITHIN_US));
        let _there = answers.promise(0, Place::BesideDriver);
        assert!(!answers.give_up(WITHIN_US - 1));
        assert!(answers.give_up(WITHIN_US));
        assert!(!answers.give_up(WITHIN_US), "once");
    }

    #[test]
    fn what_is_dropped_is_uncertain_at_once() {
        let answers = Arc::new(Answers::new(WITHIN_US));
        let (promise, mut receiver) = answers.promise(0, Place::Workers);
        drop(promise);
        answers.workers.hand_out();
        assert!(matches!(outcome(&mut receiver), Some(Err(Refusal::Uncertain))));
    }
}
