//! The chaos runner: real `arakoon serve` processes under faults, real clients, every answer
//! checked. `docs/testing.md` has the commands; `--help` has the arguments.

mod arguments;
#[path = "../checker/mod.rs"]
mod checker;
mod clocks;
mod cluster;
mod conductor;
mod connection;
mod disk;
mod enclosure;
mod faults;
mod final_state;
mod html;
mod keep;
mod load;
mod monitor;
mod network;
mod node;
mod report;
mod timeline;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use fastrand::Rng;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use arguments::{Arguments, Task};
use cluster::Cluster;
use conductor::{Conductor, Stop};
use keep::RunDirectory;
use load::Load;
use report::Report;
use timeline::{Clock, Timeline};

const EXIT_INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let arguments = match Arguments::read() {
        Task::Run(arguments) => arguments,
        Task::List => {
            println!("chaos: test");
            return ExitCode::SUCCESS;
        }
        Task::NotMeant => return ExitCode::SUCCESS,
    };
    if let Some(reason) = enclosure::reason_to_skip() {
        println!("SKIPPED: the chaos run: {reason}");
        return ExitCode::SUCCESS;
    }
    match enclosure::enter().and_then(|()| run(&arguments)) {
        Ok(exit) => exit,
        Err(error) => {
            eprintln!("the chaos run failed by itself: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    println!("chaos: {}", arguments.command());
    let mut rng = Rng::with_seed(arguments.seed());
    let directory = RunDirectory::make()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start Tokio")?;
    let interrupted = watch_signals(&runtime)?;
    // Started from this thread: the nodes end when the thread ends that started them.
    let cluster = Cluster::make(arguments.nodes, directory.path(), &mut rng)?;
    let clock = Clock::start();
    let mut load = Load::start(&runtime, clock, arguments);
    let shared = load.shared.clone();
    let kinds = arguments.kinds();
    let mut conductor =
        Conductor::new(cluster, Timeline::new(clock), shared.clone(), kinds, rng, interrupted);

    let mut end = conductor.conduct(arguments.duration());
    load.stop(&runtime);
    let mut record = shared.record();
    if end.is_ok() {
        end = match final_state::check(&mut record, arguments.nodes) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(violation)) => Err(Stop::Violation(violation)),
            Err(error) => Err(Stop::Broken(error)),
        };
        let logs = conductor.cluster.read_logs();
        if let (Ok(()), Err(what)) = (&end, logs) {
            end = Err(Stop::Violation(checker::Violation { check: "process", what }));
        }
    }
    let report = Report::new(&conductor.timeline, &record);
    report.print();
    let (verdict, exit) = match &end {
        Ok(()) => {
            let undecided = record.history.registers.undecided;
            if undecided > 0 {
                println!(
                    "\nREDUCED: the search for an order of {undecided} registers took too long"
                );
            }
            ("no violation".to_string(), ExitCode::SUCCESS)
        }
        Err(Stop::Violation(violation)) => {
            (format!("VIOLATION of {}: {}", violation.check, violation.what), ExitCode::FAILURE)
        }
        Err(Stop::Interrupted) => ("interrupted".to_string(), ExitCode::from(EXIT_INTERRUPTED)),
        Err(Stop::Broken(error)) => (format!("the runner failed: {error:#}"), ExitCode::FAILURE),
    };
    println!("\n{verdict}");
    let page = || html::page(arguments, &conductor.timeline, &record, &report, &verdict);
    if let Some(file) = &arguments.html {
        std::fs::write(file, page()).with_context(|| format!("cannot write {}", file.display()))?;
        println!("the page: {}", file.display());
    }
    let failed = matches!(end, Err(Stop::Violation(_) | Stop::Broken(_)));
    if failed || arguments.keep {
        conductor.cluster.nodes.iter_mut().for_each(node::Node::kill);
        let kept = directory.keep(arguments.seed(), &conductor.timeline, &record, &page())?;
        println!("kept: {}\nagain: {}", kept.display(), arguments.command());
    }
    Ok(exit)
}

/// True once SIGINT or SIGTERM came.
fn watch_signals(runtime: &Runtime) -> anyhow::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let _inside = runtime.enter();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut stream = signal(kind).context("cannot wait for signals")?;
        let interrupted = interrupted.clone();
        runtime.spawn(async move {
            while stream.recv().await.is_some() {
                interrupted.store(true, Ordering::Relaxed);
            }
        });
    }
    Ok(interrupted)
}
