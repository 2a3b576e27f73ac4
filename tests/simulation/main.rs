//! Whole clusters of the real node code in one thread each, under one seed: see `docs/testing.md`.

mod answers;
#[path = "../checker/mod.rs"]
mod checker;
mod clients;
mod connections;
mod faults;
mod machine;
mod node_work;
mod plan;
#[cfg(feature = "planted-bugs")]
mod planted;
mod runner;
mod trace;
mod world;

use plan::Plan;
use runner::{run, run_many, run_traced};

/// Seeds of an ordinary test run.
const SEEDS: std::ops::Range<u64> = 0..300;

/// Seeds that once failed, and why. Changes to the simulator deal their chances anew, so each fault
/// is also kept in another way: see `docs/testing.md`.
const ONCE_FAILED: [(u64, &str); 13] = [
    (8539, "a life number was had twice"),
    (8577, "a life below one that was never admitted was not told so"),
    (35, "a new master's wall clock, half an hour wrong, became the log's"),
    (14, "a wiped node with a lower number than its earlier life was never told so"),
    (21, "a flipped bit in the store's first row stopped the start"),
    (23, "a lost probe was never repeated"),
    (31, "a heartbeat's answer made up for a lost Accepted, but not for its vote"),
    (84, "a restarted follower of an idle leader did not learn what is chosen"),
    (173, "a repeated part of a head ended the node"),
    (291, "a node joined by what one said that did not know its latest life"),
    (312, "a tail came back over which zeros had been written, but not synced"),
    (281, "entries were applied as they were in the log before a save that still waited"),
    (393, "a view from before the mastership was answered once it had begun"),
];

#[test]
fn seeds_that_once_failed() {
    for (seed, why) in ONCE_FAILED {
        let done = run(Plan::new(seed));
        assert!(done.failure.is_none(), "once: {why}\n{}", done.report());
    }
}

/// `ARAKOON_SEEDS=FROM..TO` chooses others; with `ARAKOON_SECONDS=N` it goes on from `FROM` until the
/// time is over.
#[test]
fn many_seeds() {
    let seeds = match std::env::var("ARAKOON_SEEDS") {
        Err(_) => SEEDS,
        Ok(text) => {
            let range = text
                .split_once("..")
                .and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
            range.unwrap_or_else(|| panic!("ARAKOON_SEEDS is {text:?}, not like 1000..2000"))
        }
    };
    let seconds = std::env::var("ARAKOON_SECONDS").ok().map(|text| {
        let seconds = text.parse().unwrap_or_else(|_| panic!("ARAKOON_SECONDS is {text:?}"));
        std::time::Duration::from_secs(seconds)
    });
    let seeds = if seconds.is_some() { seeds.start..u64::MAX } else { seeds };
    let failures = run_many(seeds, seconds, Plan::new);
    assert!(failures.is_empty(), "{} seeds failed: {failures:?}", failures.len());
}

#[cfg(not(feature = "planted-bugs"))]
fn one_plan(seed: u64) -> Plan {
    Plan::new(seed)
}

/// With `ARAKOON_BUG=Name` the plan under which that bug is searched for, and the bug.
#[cfg(feature = "planted-bugs")]
fn one_plan(seed: u64) -> Plan {
    std::env::var("ARAKOON_BUG").map_or_else(|_| Plan::new(seed), |bug| planted::of(seed, &bug))
}

/// `ARAKOON_SEED=N` chooses which; with `ARAKOON_TRACE` set all its events are printed.
#[test]
fn one_seed() {
    let seed = match std::env::var("ARAKOON_SEED") {
        Err(_) => 4711,
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("ARAKOON_SEED is {text:?}")),
    };
    let done = run_traced(one_plan(seed), std::env::var("ARAKOON_TRACE").is_ok());
    println!("seed {seed}: {}", done.summary());
    assert!(done.failure.is_none(), "{}", done.report());
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..3 {
        let (first, second) = (run(Plan::new(seed)), run(Plan::new(seed)));
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
        assert!(first.events > 1_000, "seed {seed}: only {} events", first.events);
    }
    let hashes: std::collections::BTreeSet<u64> =
        (0..3).map(|seed| run(Plan::new(seed)).trace_hash).collect();
    assert_eq!(hashes.len(), 3, "different seeds, different runs");
}
