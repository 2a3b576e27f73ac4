//! Runs seeds, on several threads, and tells what failed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::checker::Violation;
use crate::checker::history::{Op, Outcome};
use crate::plan::Plan;
use crate::world::World;

/// What a run came to.
pub struct Done {
    pub seed: u64,
    pub failure: Option<Violation>,
    pub trace_hash: u64,
    pub events: u64,
    pub simulated_us: u64,
    pub operations: usize,
    pub acknowledged: usize,
    /// Registers whose search for an order was given up.
    pub undecided: usize,
    pub scans: usize,
    /// Entries that waited for more.
    pub gathered: u64,
    trace: String,
    plan: String,
}

impl Done {
    pub fn summary(&self) -> String {
        format!(
            "{} events, {} operations, {} with a reply, {:.1} simulated s, trace {:016x}",
            self.events,
            self.operations,
            self.acknowledged,
            self.simulated_us as f64 / 1e6,
            self.trace_hash
        )
    }

    /// What happened and how to see it again.
    pub fn report(&self) -> String {
        let Some(Violation { check, what }) = &self.failure else { return self.summary() };
        format!(
            "{}\n{}seed {} violates: {check}\n{what}\n{}\nto replay: ARAKOON_SEED={} cargo test \
             --release --test simulation one_seed -- --nocapture\n",
            self.plan,
            self.trace,
            self.seed,
            self.summary(),
            self.seed
        )
    }
}

/// Runs one seed.
pub fn run(plan: Plan) -> Done {
    run_traced(plan, false)
}

/// Runs one seed; prints each event at once, if `live`. A panic inside the node code is a failure
/// like any other.
pub fn run_traced(plan: Plan, live: bool) -> Done {
    let plan_text = format!("{plan:?}");
    #[cfg(feature = "planted-bugs")]
    arakoon::planted::plant(plan.planted);
    let mut world = World::new(plan);
    world.trace.live = live;
    let ended = catch_unwind(AssertUnwindSafe(|| world.run()));
    if let Err(panic) = ended {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
        let what = text.unwrap_or_else(|| "a panic".to_owned());
        world.violation = Some(Violation { check: "assertion in the node", what });
    }
    let replied = |op: &&Op| matches!(op.outcome, Outcome::Reply(_));
    Done {
        seed: world.plan.seed,
        trace_hash: world.trace.hash(),
        events: world.trace.events(),
        simulated_us: world.now_us,
        operations: world.history.ops.len(),
        acknowledged: world.history.ops.iter().filter(replied).count(),
        undecided: world.history.registers.undecided,
        scans: world.history.scans.completed,
        gathered: world.gathered,
        trace: if world.violation.is_some() { world.trace.text() } else { String::new() },
        failure: world.violation.take(),
        plan: plan_text,
    }
}

/// Runs many seeds, for so long at most; returns those that failed, after printing a report of each.
pub fn run_many(
    seeds: std::ops::Range<u64>,
    at_most: Option<Duration>,
    plan: impl Fn(u64) -> Plan + Sync,
) -> Vec<u64> {
    let started = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let ended = AtomicU64::new(0);
    let simulated_us = AtomicU64::new(0);
    let operations = AtomicU64::new(0);
    let (undecided, scans) = (AtomicU64::new(0), AtomicU64::new(0));
    let gathered = AtomicU64::new(0);
    let failed = Mutex::new(Vec::new());
    let work = || {
        while at_most.is_none_or(|at_most| started.elapsed() < at_most) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let done = run(plan(seed));
            simulated_us.fetch_add(done.simulated_us, Ordering::Relaxed);
            operations.fetch_add(done.acknowledged as u64, Ordering::Relaxed);
            undecided.fetch_add(done.undecided as u64, Ordering::Relaxed);
            scans.fetch_add(done.scans as u64, Ordering::Relaxed);
            gathered.fetch_add(done.gathered, Ordering::Relaxed);
            if done.failure.is_some() {
                println!("{}", done.report());
                failed.lock().expect("no holder panics").push(seed);
            }
            let count = ended.fetch_add(1, Ordering::Relaxed) + 1;
            if count.is_multiple_of(100) {
                println!("{count} seeds, {:.0} s", started.elapsed().as_secs_f64());
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(2, |count| count.get());
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    let seconds = started.elapsed().as_secs_f64();
    let count = ended.into_inner();
    let minutes = simulated_us.into_inner() as f64 / 60e6;
    let mut failed = failed.into_inner().expect("no holder panics");
    failed.sort_unstable();
    println!(
        "{count} seeds from {} on: {} failed; {seconds:.0} s, {:.1} seeds/s, {:.0} simulated \
         cluster-minutes per minute, {} operations with a reply, {} scans to their end, {} \
         entries that waited for more, {} registers undecided",
        seeds.start,
        failed.len(),
        count as f64 / seconds,
        minutes / (seconds / 60.0),
        operations.into_inner(),
        scans.into_inner(),
        gathered.into_inner(),
        undecided.into_inner()
    );
    failed
}
