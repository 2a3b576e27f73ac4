//! Submissions on their way through the log: queued, proposed, handed to the applier.
//!
//! Each is answered exactly once, and within its deadline unless its entry is chosen by then: not
//! proposed means "not applied", proposed and not known to be chosen means UNCERTAIN.

use std::collections::VecDeque;

use bytes::Bytes;

use super::environment::{Submission, Waiter};
use super::refusal::Refusal;
use crate::command::batch;
use crate::command::charge::ENTRY_CHARGE_MAX;
use crate::paxos::{Index, Position};
use crate::planted::{Bug, plants};

/// Bytes of submissions that may wait; past it they are refused.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// So many bytes of submissions make a batch that is large enough, whatever else is on its way.
pub(super) const LARGE_BATCH_BYTES: usize = 256 << 10;
/// Bytes in one entry, unless a single submission is larger.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// An entry is worth waiting for while it has fewer than one in so many of the crowd,
const CROWD_PART: usize = 3;
/// of which one in so many is forgotten with each entry, so that it shrinks when clients leave.
const CROWD_FORGETS: usize = 16;
/// So many have something to say while a disk syncs.
const CROWD_BUSY: usize = 200;

/// One entry that was proposed here and is not chosen yet.
struct Proposed {
    position: Position,
    waiters: Vec<Waiter>,
    /// The earliest of its waiters.
    deadline_us: u64,
}

/// All submissions that have no outcome yet.
pub(super) struct Proposals {
    queue: VecDeque<Submission>,
    queue_bytes: usize,
    proposed: VecDeque<Proposed>,
    /// Chosen and not known to be applied: the waiters of each entry.
    applying: VecDeque<(Index, usize)>,
    /// Submissions that were without an outcome at the same time, the most of late.
    crowd: usize,
    answer_within_us: u64,
}

/// How long an answer may take: two leases, but 1 to 5 seconds.
pub fn answer_within_us(lease_us: u64) -> u64 {
    (2 * lease_us).clamp(1_000_000, 5_000_000)
}

impl Proposals {
    /// `lease_us` decides how long an answer may take.
    pub fn new(lease_us: u64) -> Proposals {
        Proposals {
            queue: VecDeque::new(),
            queue_bytes: 0,
            proposed: VecDeque::new(),
            applying: VecDeque::new(),
            crowd: 0,
            answer_within_us: answer_within_us(lease_us),
        }
    }

    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    pub fn queued_bytes(&self) -> usize {
        self.queue_bytes
    }

    /// As many submissions wait as the last entry had: another entry beside it would not be smaller.
    pub fn fills_entry(&self) -> bool {
        self.missing_to_fill_entry() == 0
    }

    /// How many more it takes.
    pub fn missing_to_fill_entry(&self) -> usize {
        let wanted = self.proposed.back().map_or(1, |last| last.waiters.len());
        wanted.saturating_sub(self.queue.len())
    }

    /// An entry of its own would be small beside what comes as a rule: with so many more it would
    /// not. Clients that were answered together come back together, a little later.
    pub fn missing_to_gather(&self) -> usize {
        (self.crowd / CROWD_PART).saturating_sub(self.queue.len())
    }

    /// So many wait that somebody always has something to say.
    pub fn is_crowded(&self) -> bool {
        self.crowd >= CROWD_BUSY
    }

    pub fn in_flight(&self) -> usize {
        self.proposed.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.proposed.is_empty()
    }

    pub fn enqueue(&mut self, submission: Submission) {
        if self.queue_bytes + submission.items.len() > QUEUE_BYTES_MAX {
            (submission.respond)(Err(Refusal::TryAgain("the queue of updates is full")));
            return;
        }
        self.queue_bytes += submission.items.len();
        self.queue.push_back(submission);
    }

    /// Seals the next batch; `None` when nothing waits.
    pub fn next_batch(&mut self, stamp_ms: u64, seed: u64) -> Option<(Bytes, Vec<Waiter>, u64)> {
        let (mut items, mut waiters) = (Vec::new(), Vec::new());
        let (mut bytes, mut charge, mut count, mut deadline_us) = (0, 0, 0, u64::MAX);
        while let Some(submission) = self.queue.front() {
            let full = bytes + submission.items.len() > BATCH_BYTES_MAX
                || charge + submission.charge > ENTRY_CHARGE_MAX;
            if bytes > 0 && full {
                break;
            }
            let submission = self.queue.pop_front().expect("front was there");
            bytes += submission.items.len();
            charge += submission.charge;
            count += submission.count;
            deadline_us = deadline_us.min(submission.read_at_us + self.answer_within_us);
            waiters.push(Waiter { count: submission.count, respond: Some(submission.respond) });
            items.push(submission.items);
        }
        self.queue_bytes -= bytes;
        (!items.is_empty())
            .then(|| (batch::seal(stamp_ms, seed, count, &items), waiters, deadline_us))
    }

    pub fn proposed(&mut self, position: Position, waiters: Vec<Waiter>, deadline_us: u64) {
        self.proposed.push_back(Proposed { position, waiters, deadline_us });
        let in_flight: usize = self.proposed.iter().map(|proposed| proposed.waiters.len()).sum();
        let applying: usize = self.applying.iter().map(|(_, waiters)| waiters).sum();
        let remembered = self.crowd - self.crowd.div_ceil(CROWD_FORGETS);
        self.crowd = remembered.max(self.queue.len() + in_flight + applying);
    }

    /// The entry at `position` is chosen: who waits for it?
    pub fn take(&mut self, position: Position) -> Vec<Waiter> {
        // What was passed over without being seen (a head took its place) can only be uncertain.
        while let Some(mut passed) =
            self.proposed.pop_front_if(|proposed| proposed.position.index < position.index)
        {
            passed.waiters.iter_mut().for_each(|w| w.answer(Err(Refusal::Uncertain)));
        }
        let here = self.proposed.pop_front_if(|proposed| proposed.position == position);
        let waiters = here.map_or_else(Vec::new, |proposed| proposed.waiters);
        if !waiters.is_empty() {
            self.applying.push_back((position.index, waiters.len()));
        }
        waiters
    }

    /// All entries up to this one are applied.
    pub fn applied(&mut self, index: Index) {
        while self.applying.pop_front_if(|(applying, _)| *applying <= index).is_some() {}
    }

    /// Answers what is overdue.
    pub fn expire(&mut self, now_us: u64) {
        while let Some(submission) = self.queue.front() {
            if now_us < submission.read_at_us + self.answer_within_us {
                break;
            }
            let submission = self.queue.pop_front().expect("front was there");
            self.queue_bytes -= submission.items.len();
            let reason = "the update was not proposed in time";
            (submission.respond)(Err(Refusal::TryAgain(reason)));
        }
        for proposed in &mut self.proposed {
            if now_us >= proposed.deadline_us {
                // All of an entry at once: its waiters were read within one batch's gathering.
                proposed.deadline_us = u64::MAX;
                proposed.waiters.iter_mut().for_each(|w| w.answer(Err(Refusal::Uncertain)));
            }
        }
    }

    /// This node leads no more.
    pub fn fail(&mut self, refusal: &Refusal) {
        let unknown = match plants(Bug::RefusesWhatWasProposed) {
            true => refusal.clone(),
            false => Refusal::Uncertain,
        };
        for mut proposed in self.proposed.drain(..) {
            proposed.waiters.iter_mut().for_each(|w| w.answer(Err(unknown.clone())));
        }
        self.refuse_queued(refusal);
    }

    /// What was not proposed will not be.
    pub fn refuse_queued(&mut self, refusal: &Refusal) {
        if plants(Bug::HeldUpdatesProposedLater) {
            return self.refuse_and_keep(refusal);
        }
        self.queue_bytes = 0;
        for submission in self.queue.drain(..) {
            (submission.respond)(Err(refusal.clone()));
        }
    }

    /// What [`Bug::HeldUpdatesProposedLater`] does.
    fn refuse_and_keep(&mut self, refusal: &Refusal) {
        for submission in &mut self.queue {
            let respond = std::mem::replace(&mut submission.respond, Box::new(|_| ()));
            respond(Err(refusal.clone()));
            submission.read_at_us = u64::MAX / 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submission() -> Submission {
        let respond = Box::new(|_| ());
        Submission {
            items: Bytes::from_static(b"item"),
            count: 1,
            charge: 0,
            read_at_us: 0,
            respond,
        }
    }

    fn propose(proposals: &mut Proposals, index: u64) {
        let (_, waiters, deadline_us) = proposals.next_batch(0, 0).expect("something is queued");
        let position = Position { index: Index(index), ballot: crate::paxos::Ballot::ZERO };
        proposals.proposed(position, waiters, deadline_us);
    }

    #[test]
    fn a_third_of_those_who_waited_together_is_worth_waiting_for() {
        let mut proposals = Proposals::new(1_000_000);
        assert_eq!(proposals.missing_to_gather(), 0, "nobody is known");
        for index in 1..=3 {
            // One in flight, one being applied, one that comes.
            (0..10).for_each(|_| proposals.enqueue(submission()));
            propose(&mut proposals, index);
            let position = Position { index: Index(index), ballot: crate::paxos::Ballot::ZERO };
            if index < 3 {
                assert_eq!(proposals.take(position).len(), 10);
            }
        }
        assert_eq!(proposals.missing_to_gather(), 30 / 3);
        (0..4).for_each(|_| proposals.enqueue(submission()));
        assert_eq!(proposals.missing_to_gather(), 30 / 3 - 4);
        proposals.applied(Index(3));
        let mut index = 4;
        while proposals.missing_to_gather() > 0 {
            assert!(index < 60, "one client alone waits for a crowd that has gone");
            propose(&mut proposals, index);
            proposals.take(Position { index: Index(index), ballot: crate::paxos::Ballot::ZERO });
            proposals.applied(Index(index));
            proposals.enqueue(submission());
            index += 1;
        }
    }

    #[test]
    fn an_entry_is_closed_when_its_results_could_be_large() {
        let mut proposals = Proposals::new(1_000_000);
        for charge in [100 << 20, 40 << 20, 24 << 20, 1, 0] {
            let items = Bytes::from_static(b"item");
            let respond = Box::new(|_| ());
            proposals.enqueue(Submission { items, count: 1, charge, read_at_us: 0, respond });
        }
        let mut next = || proposals.next_batch(0, 0).map(|(_, waiters, _)| waiters.len());
        assert_eq!([next(), next(), next(), next()], [Some(1), Some(2), Some(2), None]);
    }
}
