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

/// Bytes of submissions that are worth an entry of their own, however few they are.
const GATHERED_BYTES: usize = 16 << 10;
/// Fewer are not waited for: the wait would cost each of them more than an entry does.
const CROWD_MIN: usize = 6;
/// Of those who waited at the same time one in so many is forgotten with each entry, so that the crowd
/// shrinks when clients leave.
const CROWD_FORGETS: usize = 16;
/// So many have something to say while a disk syncs, and are enough for two entries.
const CROWD_BUSY: usize = 200;
/// With so many the processors have something to do nearly all the time, if disks and network are quick;
/// if they are not, it is not the processors that updates wait for.
const BUSY_MIN: usize = 8;

/// One entry that was proposed here and is not chosen yet.
struct Proposed {
    position: Position,
    waiters: Vec<Waiter>,
    /// The earliest of its waiters.
    deadline_us: u64,
    at_us: u64,
}

/// For what a leader waits before it proposes an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gather {
    /// So many more submissions,
    pub submissions: usize,
    /// or so many more bytes of them.
    pub bytes: usize,
    /// and no longer than this: what the last entry took to be chosen.
    pub longest_us: u64,
}

/// All submissions that have no outcome yet.
pub(super) struct Proposals {
    queue: VecDeque<Submission>,
    queue_bytes: usize,
    proposed: VecDeque<Proposed>,
    /// Chosen and not known to be applied: the waiters of each entry.
    applying: VecDeque<(Index, usize)>,
    /// Submissions that were without an outcome at the same time, the most of late,
    together: usize,
    /// and those of them who come when they are waited for.
    crowd: usize,
    /// From proposing the last chosen entry until it was known to be.
    round_us: u64,
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
            together: 0,
            crowd: 0,
            round_us: 0,
            answer_within_us: answer_within_us(lease_us),
        }
    }

    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    pub fn queued_bytes(&self) -> usize {
        self.queue_bytes
    }

    /// So many submissions wait that another entry beside the last one would not be small.
    pub fn fills_entry(&self) -> bool {
        self.missing_to_fill_entry() == 0
    }

    /// How many more it takes: as many as the last entry has, so that the next is not smaller. Of very
    /// many clients half, while most of the others wait for that entry: their number keeps all nodes
    /// busy, and each entry takes its part of that.
    pub fn missing_to_fill_entry(&self) -> usize {
        let half = if self.crowd >= CROWD_BUSY { self.crowd / 2 } else { 0 };
        let wanted = self.proposed.back().map_or(1, |last| last.waiters.len().max(half));
        wanted.saturating_sub(self.queue.len())
    }

    /// An entry now would be small beside what comes as a rule: with so much more it would not.
    /// Clients that were answered together come back together, a little later.
    pub fn worth_gathering(&self) -> Option<Gather> {
        let submissions = match self.crowd < CROWD_MIN {
            true => 0,
            // Who is about to be answered cannot come before that.
            false => self.crowd.saturating_sub(self.queue.len() + self.applying()),
        };
        let bytes = GATHERED_BYTES.saturating_sub(self.queue_bytes);
        let worth = !self.queue.is_empty() && submissions > 0 && bytes > 0;
        worth.then_some(Gather { submissions, bytes, longest_us: self.round_us })
    }

    /// Those who were waited for have not come: half of them are forgotten.
    pub fn gathered_in_vain(&mut self, missing: usize) {
        self.crowd = self.crowd.saturating_sub(missing.div_ceil(2));
    }

    /// So many wait that somebody always has something to say.
    pub fn is_crowded(&self) -> bool {
        self.together >= CROWD_BUSY
    }

    /// So few wait that processors have nothing to do between one step and the next.
    pub fn leaves_processors_idle(&self) -> bool {
        self.together < BUSY_MIN
    }

    /// Submissions that are chosen and not known to be applied.
    fn applying(&self) -> usize {
        self.applying.iter().map(|(_, waiters)| waiters).sum()
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

    pub fn proposed(
        &mut self,
        position: Position,
        waiters: Vec<Waiter>,
        deadline_us: u64,
        now_us: u64,
    ) {
        self.proposed.push_back(Proposed { position, waiters, deadline_us, at_us: now_us });
        let in_flight: usize = self.proposed.iter().map(|proposed| proposed.waiters.len()).sum();
        let now = self.queue.len() + in_flight + self.applying();
        for most in [&mut self.together, &mut self.crowd] {
            *most = now.max(*most - most.div_ceil(CROWD_FORGETS));
        }
    }

    /// The entry at `position` is chosen: who waits for it?
    pub fn take(&mut self, position: Position, now_us: u64) -> Vec<Waiter> {
        // What was passed over without being seen (a head took its place) can only be uncertain.
        while let Some(mut passed) =
            self.proposed.pop_front_if(|proposed| proposed.position.index < position.index)
        {
            passed.waiters.iter_mut().for_each(|w| w.answer(Err(Refusal::Uncertain)));
        }
        let here = self.proposed.pop_front_if(|proposed| proposed.position == position);
        let waiters = here.map_or_else(Vec::new, |proposed| {
            self.round_us = now_us.saturating_sub(proposed.at_us);
            proposed.waiters
        });
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

    const ROUND_US: u64 = 300;

    fn enqueue(proposals: &mut Proposals, count: usize) {
        (0..count).for_each(|_| proposals.enqueue(submission()));
    }

    fn at(index: u64) -> Position {
        Position { index: Index(index), ballot: crate::paxos::Ballot::ZERO }
    }

    fn propose(proposals: &mut Proposals, index: u64) {
        let (_, waiters, deadline_us) = proposals.next_batch(0, 0).expect("something is queued");
        proposals.proposed(at(index), waiters, deadline_us, 0);
    }

    /// Proposes what is queued, and has it chosen and applied.
    fn pass(proposals: &mut Proposals, index: u64) {
        propose(proposals, index);
        assert!(!proposals.take(at(index), ROUND_US).is_empty());
        proposals.applied(Index(index));
    }

    fn missing(proposals: &Proposals) -> usize {
        proposals.worth_gathering().map_or(0, |gather| gather.submissions)
    }

    #[test]
    fn those_who_waited_together_are_waited_for_once_they_are_answered() {
        let mut proposals = Proposals::new(1_000_000);
        enqueue(&mut proposals, 10);
        assert_eq!(missing(&proposals), 0, "nobody is known");
        propose(&mut proposals, 1);
        enqueue(&mut proposals, 10);
        propose(&mut proposals, 2);
        // One is being applied, one in flight, one comes.
        assert_eq!(proposals.take(at(1), ROUND_US).len(), 10);
        enqueue(&mut proposals, 10);
        propose(&mut proposals, 3);
        assert_eq!(proposals.worth_gathering(), None, "there is nothing to propose");
        enqueue(&mut proposals, 4);
        assert_eq!(missing(&proposals), 30 - 4 - 10, "those who are being answered");
        proposals.applied(Index(1));
        let bytes = GATHERED_BYTES - 4 * submission().items.len();
        let gather = Gather { submissions: 26, bytes, longest_us: ROUND_US };
        assert_eq!(proposals.worth_gathering(), Some(gather));
        // Half of those who do not come are forgotten at once.
        proposals.gathered_in_vain(26);
        assert_eq!(missing(&proposals), 13);
        proposals.queue_bytes = GATHERED_BYTES;
        assert_eq!(missing(&proposals), 0, "they are large enough");
    }

    #[test]
    fn an_entry_is_filled_by_as_many_as_the_last_had_or_by_half_of_very_many() {
        let crowded = CROWD_BUSY + CROWD_BUSY.div_ceil(CROWD_FORGETS);
        for (clients, last, half) in [
            (20, 15, false),
            (crowded, 10, false),
            (crowded + 2, 10, true),
            (crowded + 2, 150, false),
        ] {
            let mut proposals = Proposals::new(1_000_000);
            enqueue(&mut proposals, clients);
            pass(&mut proposals, 1);
            assert_eq!(proposals.missing_to_fill_entry(), 1, "nothing that is waited for");
            enqueue(&mut proposals, last);
            propose(&mut proposals, 2);
            let wanted = if half { proposals.crowd / 2 } else { last };
            assert_eq!(proposals.missing_to_fill_entry(), wanted, "{clients} clients, {last}");
            enqueue(&mut proposals, wanted - 1);
            assert!(!proposals.fills_entry());
            enqueue(&mut proposals, 1);
            assert!(proposals.fills_entry());
        }
    }

    #[test]
    fn a_crowd_that_has_gone_is_forgotten_and_a_few_are_not_waited_for() {
        for in_vain in [false, true] {
            let mut proposals = Proposals::new(1_000_000);
            enqueue(&mut proposals, CROWD_BUSY);
            pass(&mut proposals, 1);
            let mut index = 2;
            loop {
                enqueue(&mut proposals, 1);
                if missing(&proposals) == 0 {
                    break;
                }
                if in_vain {
                    let missing = missing(&proposals);
                    proposals.gathered_in_vain(missing);
                    assert_eq!(proposals.is_crowded(), index == 2);
                }
                pass(&mut proposals, index);
                index += 1;
            }
            assert_eq!(in_vain, index < 10, "forgotten at entry {index}");
            assert!(index < 60, "one client alone waits for a crowd that has gone");
        }
        for (crowd, waits) in [(CROWD_MIN - 1, false), (CROWD_MIN, true)] {
            let mut proposals = Proposals::new(1_000_000);
            enqueue(&mut proposals, crowd);
            pass(&mut proposals, 1);
            enqueue(&mut proposals, 1);
            assert_eq!(missing(&proposals) > 0, waits, "{crowd}");
        }
    }

    #[test]
    fn a_few_leave_processors_idle_and_so_does_one_that_is_left_of_many() {
        let mut proposals = Proposals::new(1_000_000);
        enqueue(&mut proposals, BUSY_MIN - 1);
        pass(&mut proposals, 1);
        assert!(proposals.leaves_processors_idle());
        enqueue(&mut proposals, 400);
        pass(&mut proposals, 2);
        let mut index = 3;
        while !proposals.leaves_processors_idle() {
            enqueue(&mut proposals, 1);
            pass(&mut proposals, index);
            index += 1;
        }
        assert!((10..100).contains(&index), "forgotten at entry {index}");
        enqueue(&mut proposals, BUSY_MIN);
        pass(&mut proposals, index);
        assert!(!proposals.leaves_processors_idle());
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
