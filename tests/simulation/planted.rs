//! The checks, checked: deliberate faults in the node, each of which some seed must find.
//!
//! Each runs under the ordinary plans, with the circumstances it needs made more frequent.
//! `ARAKOON_BUG=Name` searches for one only, `ARAKOON_BUG_SEEDS=N` further.

use std::collections::VecDeque;
use std::sync::Mutex;

use arakoon::planted::Bug;

use crate::checker::Violation;
use crate::plan::{Fault, Plan};
use crate::runner::run;

/// Seeds within which each bug must be found.
const SEEDS_MAX: u64 = 800;

const BUGS: [Bug; 43] = [
    Bug::HalfSyncedOutranks,
    Bug::WipedNodeVotes,
    Bug::VoteBeforeSync,
    Bug::NoWaitAfterRestart,
    Bug::LeaseFromAnswer,
    Bug::AnswersBeforeEstablished,
    Bug::LateSyncTruncates,
    Bug::DamageTakenForTornEnd,
    Bug::PromiseBeforeDisk,
    Bug::AcceptedBeforeDisk,
    Bug::BallotReused,
    Bug::AcceptsLowerBallot,
    Bug::AdoptsOwnLog,
    Bug::PromisesDuringLease,
    Bug::ServesAfterRelease,
    Bug::NominatesWhileServing,
    Bug::HeldUpdatesProposedLater,
    Bug::MinorityElects,
    Bug::ZoneIgnored,
    Bug::LifeReused,
    Bug::AppliesBeforeChosen,
    Bug::RefusesWhatWasProposed,
    Bug::LeaseEndIgnored,
    Bug::ViewOfEarlierMastership,
    Bug::NewMasterTakesItsWallTime,
    Bug::ClockSlewsAtOnce,
    Bug::ExpiryByReadersClock,
    Bug::WatchComparedEarly,
    Bug::ReplyOfClockItemSent,
    Bug::RepliesSwapped,
    Bug::ReadOvertakesWrite,
    Bug::IndexBeforeRows,
    Bug::IndexBehindRows,
    Bug::HeadAheadOfItsRows,
    Bug::HeadBehindItsRows,
    Bug::UnansweredNotResent,
    Bug::WindowIgnored,
    Bug::ReleaseFromAnybody,
    Bug::HeadNameNotSynced,
    Bug::FailedSyncRetried,
    Bug::CursorOfAnotherNode,
    Bug::RemovalHidesNewerKeys,
    Bug::RemovalSkipsRows,
];

/// The plan of a seed in which the circumstances of a bug are frequent.
fn plan(seed: u64, bug: Bug) -> Plan {
    let mut plan = Plan::new(seed);
    // One node alone keeps no other waiting.
    if plan.seats == 1 {
        plan.seats = 3;
    }
    // Where saves wait, what is in the log and not on disk is rare.
    plan.saves_wait = false;
    // The rarest is found in the runs that it was found in.
    plan.ingests = bug == Bug::IndexBehindRows;
    let mut plan = match bug {
        Bug::HalfSyncedOutranks => {
            plan.chunk_bytes = 1;
            plan.window_bytes = 500;
            plan.at_least(Fault::Partition, 1.0).at_least(Fault::Kill, 1.0)
        }
        Bug::WipedNodeVotes | Bug::LifeReused => {
            plan.restart_us_max = 20_000;
            plan.at_least(Fault::Wipe, 1.0).at_least(Fault::Partition, 1.0)
        }
        Bug::VoteBeforeSync => plan.at_least(Fault::DiskStall, 1.0),
        Bug::AcceptedBeforeDisk => plan.at_least(Fault::DiskStall, 1.0),
        Bug::PromiseBeforeDisk | Bug::BallotReused => {
            plan.lease_us = 100_000;
            plan.sync_us_max = 60_000;
            plan.restart_us_max = 5_000;
            plan.only(&[
                (Fault::DiskStall, 1.0),
                (Fault::SlowDisk, 3.0),
                (Fault::Partition, 4.0),
                (Fault::PowerOne, 6.0),
            ])
        }
        Bug::NoWaitAfterRestart => {
            plan.lease_us = 2_000_000;
            plan.restart_us_max = 20_000;
            plan.only(&[(Fault::Kill, 6.0), (Fault::Partition, 3.0)])
        }
        Bug::LeaseFromAnswer => {
            plan.lease_us = 200_000;
            plan.network.late = 0.2;
            plan.network.late_us_max = 300_000;
            plan.at_least(Fault::Partition, 1.0)
        }
        Bug::ViewOfEarlierMastership => {
            plan.clients = 7;
            plan.think_us = 3_000;
            plan.early_views = 0.5;
            plan.turn_us_max = 50_000;
            plan.at_least(Fault::HandOver, 3.0)
        }
        Bug::AnswersBeforeEstablished => {
            plan.apply_us_max = 10_000;
            plan.at_least(Fault::HandOver, 2.0).at_least(Fault::Kill, 0.5)
        }
        Bug::LateSyncTruncates => {
            plan.network.late = 0.02;
            plan.network.late_us_max = 300_000;
            plan.network.repeat = 0.2;
            plan
        }
        Bug::DamageTakenForTornEnd => plan.at_least(Fault::DamageLog, 1.0),
        Bug::AcceptsLowerBallot
        | Bug::AdoptsOwnLog
        | Bug::MinorityElects
        | Bug::PromisesDuringLease
        | Bug::LeaseEndIgnored
        | Bug::AppliesBeforeChosen
        | Bug::RefusesWhatWasProposed => {
            plan.at_least(Fault::Partition, 1.0).at_least(Fault::Pause, 1.0)
        }
        Bug::ClockSlewsAtOnce => plan.at_least(Fault::WallJump, 1.0),
        Bug::NewMasterTakesItsWallTime => {
            plan.at_least(Fault::Kill, 1.0).at_least(Fault::WallJump, 1.0)
        }
        Bug::ServesAfterRelease => plan.at_least(Fault::HandOver, 1.0),
        Bug::NominatesWhileServing => {
            plan.at_least(Fault::HandOver, 4.0).at_least(Fault::Partition, 2.0)
        }
        Bug::HeldUpdatesProposedLater => {
            plan.clients = 7;
            plan.think_us = 3_000;
            plan.at_least(Fault::HandOver, 4.0)
        }
        Bug::ZoneIgnored => {
            plan.zones = ["west", "west", "east"].map(str::to_owned).to_vec();
            plan.seats = 3;
            plan.at_least(Fault::Partition, 1.0)
        }
        Bug::ExpiryByReadersClock
        | Bug::WatchComparedEarly
        | Bug::ReplyOfClockItemSent
        | Bug::RepliesSwapped
        | Bug::ReadOvertakesWrite => {
            plan.clients = 7;
            plan.think_us = 3_000;
            plan
        }
        Bug::IndexBeforeRows | Bug::IndexBehindRows => plan.at_least(Fault::Kill, 1.0),
        Bug::UnansweredNotResent => {
            plan.network.loss = 0.2;
            plan
        }
        Bug::WindowIgnored => {
            plan.clients = 7;
            plan.think_us = 3_000;
            plan.chunk_bytes = 1;
            plan.window_bytes = 500;
            plan.network.delay_us_max = 10_000;
            plan
        }
        Bug::ReleaseFromAnybody => {
            plan.lease_us = 1_000_000;
            plan.at_least(Fault::Forgery, 8.0)
        }
        Bug::HeadAheadOfItsRows | Bug::HeadBehindItsRows => {
            plan.head_every_bytes = 8 << 10;
            plan.at_least(Fault::Wipe, 0.5)
        }
        Bug::HeadNameNotSynced => {
            plan.head_interrupts = 0.3;
            plan.head_chunk_bytes = 1 << 20;
            plan.head_every_bytes = 24 << 10;
            plan.kept_entries_max = 0;
            plan.restart_us_max = 20_000;
            plan.at_least(Fault::Wipe, 1.0).at_least(Fault::PowerOne, 3.0)
        }
        Bug::FailedSyncRetried => {
            plan.at_least(Fault::SyncError, 2.0).at_least(Fault::PowerOne, 1.0)
        }
        Bug::CursorOfAnotherNode => {
            plan.think_us = 3_000;
            plan.at_least(Fault::HandOver, 2.0)
        }
        Bug::RemovalHidesNewerKeys | Bug::RemovalSkipsRows => {
            plan.workload.ranges = true;
            plan.think_us = 3_000;
            plan
        }
    };
    plan.planted = Some(bug);
    plan
}

/// The plan of a seed for the bug of that name.
pub fn of(seed: u64, name: &str) -> Plan {
    let bug = BUGS.into_iter().find(|bug| format!("{bug:?}") == name);
    plan(seed, bug.unwrap_or_else(|| panic!("no bug is called {name}")))
}

/// The first seed that finds a bug, and how. Not serving is a symptom of many things: a wrong
/// answer or a broken promise must be found, but for the one bug that does nothing else.
fn search(bug: Bug) -> Option<(u64, Violation)> {
    let seeds = std::env::var("ARAKOON_BUG_SEEDS").ok().and_then(|text| text.parse().ok());
    (0..seeds.unwrap_or(SEEDS_MAX)).find_map(|seed| {
        let wanted =
            |found: &Violation| found.check != "liveness" || bug == Bug::UnansweredNotResent;
        let found = run(plan(seed, bug)).failure.filter(wanted)?;
        // It is the bug that was found, not the circumstances.
        let without = run(Plan { planted: None, ..plan(seed, bug) });
        assert!(without.failure.is_none(), "{bug:?}, not planted: {}", without.report());
        Some((seed + 1, found))
    })
}

#[test]
fn planted_bugs_are_found() {
    let wanted = std::env::var("ARAKOON_BUG").ok();
    let chosen = |bug: &Bug| wanted.as_ref().is_none_or(|name| *name == format!("{bug:?}"));
    let bugs: VecDeque<Bug> = BUGS.into_iter().filter(chosen).collect();
    assert!(!bugs.is_empty(), "no bug is called {wanted:?}");
    std::panic::set_hook(Box::new(|_| ())); // An assertion in the node is a way to be found.
    let (left, missed) = (Mutex::new(bugs), Mutex::new(Vec::new()));
    let work = || {
        while let Some(bug) = { left.lock().expect("no holder panics").pop_front() } {
            match search(bug) {
                Some((seeds, Violation { check, what })) => {
                    let what = what.lines().next().unwrap_or_default();
                    println!("| {bug:?} | {seeds} | {check} | {what:.90} |");
                }
                None => missed.lock().expect("no holder panics").push(bug),
            }
        }
    };
    let ended = std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(2, |count| count.get());
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join()).collect::<Vec<_>>()
    });
    let _ = std::panic::take_hook();
    for result in ended {
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
    let missed = missed.into_inner().expect("no holder panics");
    assert!(missed.is_empty(), "not found in {SEEDS_MAX} seeds: {missed:?}");
}
