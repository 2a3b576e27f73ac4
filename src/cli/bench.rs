//! `arakoon bench`: a load generator for any server that speaks the Redis protocol.
//!
//! Closed loop: each client has one pipeline's worth of commands under way and sends the next when
//! all are answered, so latency is that of the whole pipeline. Clients follow the master: a MOVED
//! or a lost connection sends them to the next address, and what was under way counts as an error.
//!
//! Left out: fixed arrival rates; other key distributions than uniform.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;

use super::info::Report;

mod load;
mod mix;
mod replies;
mod summary;

use load::{Plan, Shared, Totals};
use mix::Mix;

/// How long the first question to a server may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Arguments of `arakoon bench`.
#[derive(Args, Debug, Clone)]
pub struct BenchArgs {
    /// Any node of the cluster, or a Redis server.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:4000")]
    pub connect: String,
    /// Connections at the same time.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub clients: u32,
    /// Commands that each client sends before it waits for their replies.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub pipeline: u32,
    /// Bytes of each value.
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    pub value_size: usize,
    /// How many different keys, chosen uniformly.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: u64,
    /// What to send, with weights: set, get, incr and mset10, as in set=50,get=50.
    #[arg(long, default_value = "set=100")]
    pub mix: Mix,
    /// How long to measure.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// Seconds of the same load before measuring.
    #[arg(long, value_name = "SECONDS", default_value_t = 1)]
    pub warmup: u64,
    /// Do not write every key before reading: gets may meet keys that do not exist.
    #[arg(long)]
    pub no_fill: bool,
    /// Start of the random sequence: the same seed asks for the same keys.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Threads of the load generator.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub threads: u16,
    /// For programs: one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// What one run measured.
pub struct Outcome {
    /// Time that was measured.
    pub elapsed: Duration,
    /// Added up over all clients.
    pub totals: Totals,
    /// The longest time without an acknowledged write; none when the mix has no writes.
    pub write_gap_max: Option<Duration>,
    /// Failed commands by first word; `closed` and `timeout` for lost connections.
    pub errors: BTreeMap<String, u64>,
}

/// Runs the load and prints what it measured. Fails when nothing at all was answered.
pub fn run(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    if args.value_size > 16 * 1024 * 1024 {
        bail!("--value-size {}: values have at most 16 MiB", args.value_size);
    }
    let addresses = find_addresses(&args.connect)?;
    let mut runtime = if args.threads == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = runtime
        .worker_threads(usize::from(args.threads))
        .enable_all()
        .build()
        .context("cannot start the load generator")?;
    let outcome = runtime.block_on(measure(args, addresses))?;
    super::print(&if args.json {
        format!("{:#}\n", summary::json(args, &outcome))
    } else {
        summary::text(args, &outcome)
    })?;
    let answered = outcome.totals.count() > 0;
    Ok(if answered { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Addresses to connect to, the master's first. A server that is no Arakoon names no others.
fn find_addresses(connect: &str) -> anyhow::Result<Vec<String>> {
    let report = Report::ask(connect, ANSWER_WITHIN)
        .with_context(|| format!("no answer from {connect}; is the server running?"))?;
    let mut addresses = vec![connect.to_string()];
    addresses.extend(report.members().into_iter().map(|member| member.client));
    if !report.is_master() && !report.text("master_address").is_empty() {
        addresses.insert(0, report.text("master_address").to_string());
    }
    let mut seen = std::collections::HashSet::new();
    addresses.retain(|address| seen.insert(address.clone()));
    Ok(addresses)
}

async fn measure(args: &BenchArgs, addresses: Vec<String>) -> anyhow::Result<Outcome> {
    let shared = Arc::new(Shared::new(addresses, usize::from(args.threads)));
    if args.mix.reads() && !args.no_fill {
        say(&format!("filling {} keys ...", args.keys));
        load::fill(&shared, args).await?;
    }
    let begin = Instant::now() + Duration::from_secs(args.warmup);
    let plan = Arc::new(Plan::new(args, begin, begin + Duration::from_secs(args.seconds)));
    let clients: Vec<_> = (0..args.clients)
        .map(|number| tokio::spawn(load::client(plan.clone(), shared.clone(), number)))
        .collect();
    show_progress(&plan, &shared).await;
    for client in clients {
        client.await.context("a client failed")?;
    }
    let writes = args.mix.writes();
    Ok(Outcome {
        elapsed: plan.end - plan.begin,
        totals: shared.totals(),
        write_gap_max: writes.then(|| shared.write_gap_max(&plan)),
        errors: shared.errors(),
    })
}

async fn show_progress(plan: &Plan, shared: &Shared) {
    let mut answered_before = 0;
    let mut next = Instant::now();
    while next < plan.end {
        next = (next + Duration::from_secs(1)).min(plan.end);
        let since = Instant::now();
        tokio::time::sleep_until(next.into()).await;
        let answered = shared.answered.load(Ordering::Relaxed);
        let rate = (answered - answered_before) as f64 / since.elapsed().as_secs_f64().max(1e-9);
        answered_before = answered;
        let phase = if since < plan.begin { "warm-up" } else { "measuring" };
        let errors: u64 = shared.errors().values().sum();
        say(&format!("{phase}: {rate:.0} commands/s, {errors} errors"));
    }
}

fn say(progress: &str) {
    // The load goes on when nobody reads this.
    let _ = writeln!(std::io::stderr(), "{progress}");
}
