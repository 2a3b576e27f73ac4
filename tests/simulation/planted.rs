//! The checks, checked: deliberate faults in the node, each of which some seed must find.
//!
//! Each runs under the ordinary plans, with the circumstances it needs made more frequent.

use arakoon::planted::Bug;

use crate::plan::{Fault, Plan};
use crate::runner::run;

/// Seeds within which each bug must be found.
const SEEDS_MAX: u64 = 400;

const BUGS: [Bug; 8] = [
    Bug::HalfSyncedOutranks,
    Bug::WipedNodeVotes,
    Bug::VoteBeforeSync,
    Bug::NoWaitAfterRestart,
    Bug::LeaseFromAnswer,
    Bug::AnswersBeforeEstablished,
    Bug::LateSyncTruncates,
    Bug::DamageTakenForTornEnd,
];

/// The plan of a seed in which the circumstances of a bug are frequent.
fn plan(seed: u64, bug: Bug) -> Plan {
    let mut plan = Plan::new(seed);
    // One node alone keeps no other waiting.
    if plan.seats == 1 {
        plan.seats = 3;
    }
    let mut plan = match bug {
        Bug::HalfSyncedOutranks => {
            plan.chunk_bytes = 1;
            plan.window_bytes = 500;
            plan.at_least(Fault::Partition, 1.0).at_least(Fault::Kill, 1.0)
        }
        Bug::WipedNodeVotes => {
            plan.restart_us_max = 20_000;
            plan.at_least(Fault::Wipe, 1.0).at_least(Fault::Partition, 1.0)
        }
        Bug::VoteBeforeSync => plan.at_least(Fault::DiskStall, 1.0),
        Bug::NoWaitAfterRestart => {
            plan.lease_us = 2_000_000;
            plan.restart_us_max = 20_000;
            plan.at_least(Fault::Kill, 1.0).at_least(Fault::Partition, 1.0)
        }
        Bug::LeaseFromAnswer => {
            plan.lease_us = 200_000;
            plan.network.late = 0.2;
            plan.network.late_us_max = 300_000;
            plan.at_least(Fault::Partition, 1.0)
        }
        Bug::AnswersBeforeEstablished => {
            plan.apply_us_max = 10_000;
            plan.at_least(Fault::HandOver, 1.0).at_least(Fault::Kill, 0.5)
        }
        Bug::LateSyncTruncates => {
            plan.network.late = 0.02;
            plan.network.late_us_max = 300_000;
            plan.network.repeat = 0.2;
            plan
        }
        Bug::DamageTakenForTornEnd => plan.at_least(Fault::DamageLog, 1.0),
    };
    plan.planted = Some(bug);
    plan
}

#[test]
fn planted_bugs_are_found() {
    std::panic::set_hook(Box::new(|_| ())); // An assertion in the node is a way to be found.
    let search = |bug: Bug| {
        (0..SEEDS_MAX).find_map(|seed| {
            // Not serving is a symptom of many things: a wrong answer must be found.
            let found = run(plan(seed, bug)).failure.filter(|found| found.check != "liveness")?;
            // It is the bug that was found, not the circumstances.
            let without = run(Plan { planted: None, ..plan(seed, bug) });
            assert!(without.failure.is_none(), "{bug:?}, not planted: {}", without.report());
            Some((seed + 1, found))
        })
    };
    let found: Vec<_> = std::thread::scope(|scope| {
        let searches: Vec<_> = BUGS.map(|bug| (bug, scope.spawn(move || search(bug)))).into();
        searches.into_iter().map(|(bug, search)| (bug, search.join())).collect()
    });
    let mut missed = Vec::new();
    for (bug, result) in found {
        match result {
            Ok(Some((seeds, violation))) => {
                let what = violation.what.lines().next().unwrap_or_default().to_owned();
                println!("| {bug:?} | {seeds} | {} | {what:.90} |", violation.check);
            }
            Ok(None) => missed.push(bug),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "not found in {SEEDS_MAX} seeds: {missed:?}");
}
