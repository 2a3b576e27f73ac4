//! The runner's arguments, and what it does when `cargo test` starts it like any other test.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::faults::Kind;

/// A run without arguments, as part of `cargo test`.
const SMOKE_SECONDS: u64 = 20;

const EXAMPLES: &str = "\
Examples:
  cargo test --test chaos                                    a smoke run of 20 seconds
  cargo test --test chaos -- --seconds 600 --html chaos.html ten minutes, with a page to look at
  cargo test --test chaos -- --seed 7                        the faults of seed 7 again
  cargo test --test chaos -- --only kill-master,bridge       two kinds of fault
  ARAKOON_PROGRAM=target/release/arakoon cargo test --test chaos -- --seconds 600

A seed gives the same faults in the same order. It does not give the same run: processes, kernel
and clients take their own time.

Needs root, and from Debian: iproute2, nftables, faketime, util-linux. Everything happens in a
network and a mount namespace of the run's own, which are gone with its last process, however it
ends. Where root may not make those, ARAKOON_NO_MOUNT=1 skips the run. Exit code 0: no violation, or SKIPPED; 1: a violation; 2: wrong arguments; 130: interrupted.";

/// Real nodes under faults: kills, stalls, partitions, full disks, wrong clocks, lost disks, while
/// clients write and read and every answer is checked.
#[derive(Parser, Clone, Debug)]
#[command(name = "chaos", after_help = EXAMPLES, disable_version_flag = true)]
pub struct Arguments {
    /// How long faults strike. Start, recovery and the checks at the end come on top.
    #[arg(long, default_value_t = 600, value_name = "N")]
    pub seconds: u64,
    /// Decides which faults strike, when, whom and for how long. At random when not given; printed.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How many nodes: 3 or 5.
    #[arg(long, default_value_t = 3, value_parser = odd)]
    pub nodes: usize,
    /// How many clients read and write on the master; a quarter as many read in READONLY mode.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=200))]
    pub clients: u16,
    /// Writes a page that shows operations and faults over time.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Only these kinds of fault, separated by commas; `none` for no fault at all.
    #[arg(long, value_name = "KINDS", value_parser = kinds)]
    pub only: Option<Kinds>,
    /// Keeps logs, data and history of a run that went well too.
    #[arg(long)]
    pub keep: bool,
}

/// A choice of faults.
#[derive(Clone, Debug)]
pub struct Kinds(pub Vec<Kind>);

fn odd(text: &str) -> Result<usize, String> {
    match text {
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("write 3 or 5".to_string()),
    }
}

fn kinds(text: &str) -> Result<Kinds, String> {
    if text == "none" {
        return Ok(Kinds(Vec::new()));
    }
    let find = |name: &str| {
        Kind::ALL.into_iter().find(|kind| kind.option() == name).ok_or_else(|| {
            let all: Vec<String> = Kind::ALL.iter().map(|kind| kind.option()).collect();
            format!("no fault \"{name}\"; there are {}", all.join(", "))
        })
    };
    text.split(',').map(find).collect::<Result<Vec<_>, _>>().map(Kinds)
}

/// What to do.
pub enum Task {
    Run(Arguments),
    /// `cargo test` asks for the names of the tests.
    List,
    /// `cargo test NAME` wants other tests.
    NotMeant,
}

impl Arguments {
    /// From the command line; ends the process after help or an error.
    pub fn read() -> Task {
        let given: Vec<OsString> = std::env::args_os().skip(1).collect();
        let texts: Vec<String> = given.iter().map(|word| word.to_string_lossy().into()).collect();
        if !texts.iter().any(|word| is_ours(word)) {
            return smoke(&texts);
        }
        let program = OsString::from("chaos");
        let mut arguments = Arguments::parse_from(std::iter::once(program).chain(given));
        arguments.seed.get_or_insert_with(|| fastrand::u64(..1_000_000));
        Task::Run(arguments)
    }

    pub fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    pub fn seed(&self) -> u64 {
        self.seed.expect("read() always sets one")
    }

    /// Which kinds of fault strike.
    pub fn kinds(&self) -> Vec<Kind> {
        self.only.as_ref().map_or_else(|| Kind::ALL.to_vec(), |only| only.0.clone())
    }

    /// The command that strikes the same faults.
    pub fn command(&self) -> String {
        let mut text = format!(
            "cargo test --test chaos -- --seconds {} --seed {} --nodes {} --clients {}",
            self.seconds,
            self.seed(),
            self.nodes,
            self.clients
        );
        if let Some(Kinds(only)) = &self.only {
            let names: Vec<String> = only.iter().map(|kind| kind.option()).collect();
            let names = if names.is_empty() { "none".to_string() } else { names.join(",") };
            text += &format!(" --only {names}");
        }
        text
    }
}

/// Arguments of this runner, which the ones that `cargo test` hands to every test are not.
fn is_ours(word: &str) -> bool {
    const OURS: [&str; 7] =
        ["--seconds", "--seed", "--nodes", "--clients", "--html", "--only", "--keep"];
    let name = word.split('=').next().unwrap_or_default();
    OURS.contains(&name) || matches!(word, "--help" | "-h")
}

/// Started as one of all tests: with a test harness's options, perhaps with the names of tests.
fn smoke(words: &[String]) -> Task {
    const WITH_VALUE: [&str; 6] =
        ["--test-threads", "--color", "--format", "--logfile", "--shuffle-seed", "-Z"];
    let named = |name: &String| "chaos".contains(name.as_str());
    let mut names = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "--list" => return Task::List,
            "--ignored" => return Task::NotMeant,
            "--skip" if rest.next().is_some_and(named) => return Task::NotMeant,
            option if WITH_VALUE.contains(&option) => drop(rest.next()),
            option if option.starts_with('-') => {}
            _ => names.push(word),
        }
    }
    if !names.is_empty() && !names.into_iter().any(named) {
        return Task::NotMeant;
    }
    let mut arguments = Arguments::parse_from(["chaos"]);
    arguments.seconds = SMOKE_SECONDS;
    arguments.seed = Some(fastrand::u64(..1_000_000));
    Task::Run(arguments)
}
