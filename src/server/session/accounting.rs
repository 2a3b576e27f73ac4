//! What a session's commands count for: INFO's statistics, SLOWLOG, LATENCY.
//!
//! Looking at the clock and adding to shared counters for every command would be felt, so the
//! commands of a pipeline are counted in runs: equal commands that follow each other, if each is of
//! the kind that Redis flags `fast` and has few arguments. All others are measured one by one; so is
//! everything while SLOWLOG is asked for short times.
//!
//! A command that goes through the log took from being taken up until its outcome came: the log, the
//! disks, the other nodes. A transaction's time is EXEC's; the commands within count as called.

use bytes::Bytes;
use resp::Reply;

use super::transaction::Layout;
use super::{Gathered, Session, Submission};
use crate::command::batch::{Item, Items};
use crate::command::table::{self, Spec};

/// A fast command with more arguments is measured by itself.
const ARGUMENTS_MAX: usize = 16;
/// Below this SLOWLOG's threshold needs exact times.
const EXACT_BELOW_US: i64 = 1000;

/// How the request at hand counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is no command.
    Unknown,
    /// It was run, and answered no error.
    Ran,
    /// It was run, and answered an error.
    Failed,
    /// It was refused before it was run.
    Rejected,
    /// It waits in a transaction.
    Queued,
    /// It is counted later: when its outcome is there, or with its transaction.
    Later,
}

/// What was not yet added to the shared counters.
pub(super) struct Account {
    pub(super) fate: Fate,
    /// Of the request at hand.
    place: usize,
    exact: bool,
    /// The place of the last command that was begun, whatever part of it was asked for.
    command_place: usize,
    /// The command of the run, how many there are, and since when.
    run_place: usize,
    run_count: u64,
    /// 0: the clock was not looked at since the last run.
    since_us: u64,
    /// `since_us` is when the request at hand began.
    is_fresh: bool,
    /// Keys that reads found and missed.
    pub(super) hits: u64,
    pub(super) misses: u64,
    /// When the first item of the submission at hand was gathered.
    submission_us: u64,
}

impl Account {
    pub(super) fn new() -> Account {
        Account {
            fate: Fate::Unknown,
            place: 0,
            exact: false,
            command_place: 0,
            run_place: 0,
            run_count: 0,
            since_us: 0,
            is_fresh: false,
            hits: 0,
            misses: 0,
            submission_us: 0,
        }
    }

    /// The request at hand is measured by itself.
    pub(super) fn is_exact(&self) -> bool {
        self.exact
    }

    /// The place of the request at hand, to be kept with what is counted later.
    pub(super) fn place(&self) -> usize {
        self.place
    }
}

/// Whether an error says that the command was not run, because this node may not run it now.
fn is_refusal(text: &str) -> bool {
    let words = ["MOVED", "CLUSTERDOWN", "TRYAGAIN", "LOADING", "MISCONF", "NOAUTH", "NOPERM"];
    words.contains(&text.split(' ').next().unwrap_or_default())
}

impl Session {
    /// A turn begins.
    pub(super) fn begin_account(&mut self) {
        self.account.since_us = 0;
    }

    /// A request is about to be run.
    pub(super) fn begin_command(&mut self, place: usize, spec: &Spec, args: &[Bytes]) {
        let account = &mut self.account;
        account.is_fresh = false;
        let goes_on = account.run_count > 0 && !account.exact && account.command_place == place;
        if goes_on && args.len() <= ARGUMENTS_MAX {
            (account.place, account.fate) = (account.run_place, Fate::Ran);
            return;
        }
        account.command_place = place;
        let fast = spec.flags.contains(&"fast") && args.len() <= ARGUMENTS_MAX;
        let exact = !fast || self.slowlog_threshold_us() < EXACT_BELOW_US;
        let place = table::place_of_call(place, spec, args);
        if self.account.run_count > 0 && (exact || self.account.run_place != place) {
            self.end_run(None);
        }
        let account = &mut self.account;
        (account.place, account.exact, account.fate) = (place, exact, Fate::Ran);
        account.run_place = place;
        if account.since_us == 0 {
            (account.since_us, account.is_fresh) = (self.shared.now_us(), true);
        }
    }

    /// No threshold is as good as an endless one.
    fn slowlog_threshold_us(&self) -> i64 {
        match self.shared.parameters.slowlog_slower_than_us() {
            ..0 => i64::MAX,
            threshold => threshold,
        }
    }

    /// The request at hand was begun earlier than this turn.
    pub(super) fn began_at(&mut self, us: u64) {
        self.account.since_us = us;
    }

    /// A request is refused before it is run.
    pub(super) fn count_rejected(&mut self, place: usize, spec: &Spec, args: &[Bytes]) {
        let place = table::place_of_call(place, spec, args);
        (self.account.place, self.account.fate) = (place, Fate::Rejected);
    }

    /// A request was run, gathered or refused. `last`: none is behind it.
    pub(super) fn end_command(&mut self, args: &[Bytes], last: bool) {
        let place = self.account.place;
        match self.account.fate {
            Fate::Ran | Fate::Failed => {
                if self.account.fate == Fate::Failed {
                    self.shared.counters.failed(place);
                }
                self.account.run_count += 1;
                if self.account.exact || last {
                    self.end_run(Some(args));
                }
            }
            Fate::Rejected => self.shared.counters.rejected(place),
            Fate::Unknown | Fate::Queued | Fate::Later => (),
        }
    }

    /// Adds what has gathered; `args`: of the run's last command.
    pub(super) fn end_run(&mut self, args: Option<&[Bytes]>) {
        let Account { run_place, run_count, since_us, .. } = self.account;
        if run_count > 0 {
            let now_us = self.shared.now_us();
            let us = now_us.saturating_sub(since_us);
            let timed = self.shared.parameters.latency_tracking();
            self.shared.counters.ran(run_place, run_count, us, timed);
            if let (1, Some(args)) = (run_count, args) {
                self.note_slow(us, run_place, args);
            }
            self.account.since_us = now_us;
            self.account.run_count = 0;
        }
    }

    /// A turn ends.
    pub(super) fn end_account(&mut self) {
        self.end_run(None);
        let Account { hits, misses, .. } = self.account;
        self.shared.counters.looked_up(hits, misses);
        (self.account.hits, self.account.misses) = (0, 0);
    }

    /// Something took `us`: remembered where it took too long.
    fn note_slow(&self, us: u64, place: usize, args: &[Bytes]) {
        let parameters = &self.shared.parameters;
        let threshold_us = parameters.slowlog_slower_than_us();
        if threshold_us >= 0 && us >= threshold_us as u64 {
            let keep = parameters.slowlog_entries_max();
            let who = self.shared.address_and_name(self.id);
            self.shared.slowlog.push(self.shared.wall_s(), us, args, who, keep);
        }
        let threshold_ms = parameters.latency_threshold_ms();
        if threshold_ms > 0 && us / 1000 >= threshold_ms as u64 {
            let fast = table::at(place).is_some_and(|spec| spec.flags.contains(&"fast"));
            let event = if fast { "fast-command" } else { "command" };
            self.shared.latency.add(event, self.shared.wall_s(), us / 1000);
        }
    }

    /// The request at hand answered this.
    pub(super) fn count_reply(&mut self, reply: &Reply) {
        if let Reply::Error(text) = reply {
            self.count_error(text);
        }
    }

    fn count_error(&mut self, text: &str) {
        self.shared.counters.error(text);
        if self.account.fate == Fate::Ran {
            self.account.fate = if is_refusal(text) { Fate::Rejected } else { Fate::Failed };
        }
    }

    /// The request at hand is counted when its outcome is there.
    pub(super) fn count_later(&mut self) {
        self.account.fate = Fate::Later;
        if self.account.submission_us == 0 {
            // The time at which the run before it ended is not always known.
            self.account.submission_us = match self.account.is_fresh {
                true => self.account.since_us,
                false => self.shared.now_us(),
            };
        }
    }

    /// Counts what a submission's items were, by their replies.
    pub(super) fn count_outcome(
        &mut self,
        gathered: &[Gathered],
        outcome: &Result<&[Reply], &str>,
        submission: &Submission,
    ) {
        let now_us = self.shared.now_us();
        let us = now_us.saturating_sub(std::mem::take(&mut self.account.submission_us));
        let timed = self.shared.parameters.latency_tracking();
        let (mut run_place, mut run_count) = (0, 0);
        let mut items = 0;
        for waiting in gathered {
            let reply = match waiting {
                Gathered::Known(_) => continue,
                Gathered::Clock => {
                    items += 1;
                    continue;
                }
                Gathered::Item(_) | Gathered::Transaction(..) => {
                    items += 1;
                    match outcome {
                        Ok(replies) => match &replies[items - 1] {
                            Reply::Error(text) => Err(&**text),
                            reply => Ok(Some(reply)),
                        },
                        Err(text) => Err(*text),
                    }
                }
            };
            let place = match waiting {
                Gathered::Transaction(_, place) | Gathered::Item(place) => *place,
                Gathered::Known(_) | Gathered::Clock => continue,
            };
            let mut ran = true;
            if let Err(text) = reply {
                self.shared.counters.error(text);
                ran = !is_refusal(text);
                match ran {
                    true => self.shared.counters.failed(place),
                    false => self.shared.counters.rejected(place),
                }
            }
            if let (Gathered::Transaction(layout, _), Ok(Some(Reply::Array(replies)))) =
                (waiting, &reply)
            {
                self.count_within(layout, replies);
            }
            if !ran {
                continue;
            }
            if place != run_place && run_count > 0 {
                self.shared.counters.ran(run_place, run_count, us * run_count, timed);
                run_count = 0;
            }
            (run_place, run_count) = (place, run_count + 1);
        }
        if run_count > 0 {
            self.shared.counters.ran(run_place, run_count, us * run_count, timed);
            self.note_slow_submission(us, submission);
        }
    }

    /// A command of a transaction was run, in the time of EXEC.
    pub(super) fn count_in_transaction(&self, place: usize, reply: &Reply) {
        self.shared.counters.ran(place, 1, 0, false);
        if let Reply::Error(text) = reply {
            self.shared.counters.error(text);
            self.shared.counters.failed(place);
        }
    }

    /// The commands of a transaction that was applied: called, in the time of EXEC.
    fn count_within(&self, layout: &Layout, replies: &[Reply]) {
        for (place, reply) in layout.applied_places().zip(replies) {
            self.count_in_transaction(place, reply);
        }
    }

    /// All commands of a submission waited for the same: each is as slow as the others.
    fn note_slow_submission(&self, us: u64, submission: &Submission) {
        let parameters = &self.shared.parameters;
        let (slow_us, slow_ms) =
            (parameters.slowlog_slower_than_us(), parameters.latency_threshold_ms());
        let slow = slow_us >= 0 && us >= slow_us as u64;
        if !slow && (slow_ms <= 0 || us / 1000 < slow_ms as u64) {
            return;
        }
        let mut items = Items::new(submission.items.clone(), submission.count);
        let mut left = parameters.slowlog_entries_max().max(1);
        while let Ok(Some(item)) = items.next_item()
            && left > 0
        {
            let calls = match item {
                Item::Command(call) => vec![call],
                Item::Transaction { calls, .. } => calls,
                Item::Clock { .. } | Item::Head => continue,
            };
            for call in calls.into_iter().take(left) {
                left -= 1;
                let place = table::find_place(&call.args[0]).map_or(0, |(place, _)| place);
                self.note_slow(us, place, &call.args);
            }
        }
    }
}
