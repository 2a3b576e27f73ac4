//! The `arakoon` program: its subcommands and what `--help` teaches.
//!
//! Here are the arguments; what they do is in a module per subcommand. An error ends the program
//! with exit code 1 and one line on stderr; wrong arguments end it with 2.

use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

mod allocator;
pub mod bench;
pub mod client;
pub mod dev;
pub mod info;
pub mod logging;
mod open_files;
pub mod serve;
pub mod status;
mod table;

const EXAMPLES: &str = "\
Examples:
  Three nodes on this machine, clients on ports 4000 to 4002:
    arakoon dev
    redis-cli -p 4000 set greeting hello
    redis-cli -c -p 4001 get greeting        (-c follows MOVED to the master)

  One node, clients on 127.0.0.1:4000, data in ./arakoon-data:
    arakoon serve

  One node of a cluster; the same file on every machine:
    arakoon serve --config cluster.toml --node n1

  How is the cluster? Exit code 0 only with a master and a quorum:
    arakoon status --config cluster.toml
    arakoon status --connect 127.0.0.1:4000 --json

  How fast is it?
    arakoon bench --connect 127.0.0.1:4000 --clients 50 --mix set=50,get=50

The smallest config file for three nodes:
    [cluster]
    id = \"demo\"

    [[node]]
    name = \"n1\"
    client = \"10.0.0.1:4000\"   # where Redis clients connect
    peer = \"10.0.0.1:4500\"     # where the other nodes connect
    dir = \"data/n1\"            # relative to this file
    # ... and the same for n2 and n3";

/// A replicated, strictly serializable key-value store that speaks the Redis protocol.
#[derive(Parser, Debug)]
#[command(name = "arakoon", version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Program {
    /// What to log: error, warn, info, debug, trace, or a filter such as `arakoon::node=debug`.
    /// Without it, RUST_LOG decides; without that, info.
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run one node: alone, or a node of the cluster in a config file.
    Serve(ServeArgs),
    /// Run a whole cluster on this machine, each node a process of its own.
    Dev(DevArgs),
    /// Show each node's role and progress; exit code 0 only with a master and a quorum.
    Status(StatusArgs),
    /// Put load on a server and measure throughput and latency.
    Bench(bench::BenchArgs),
}

/// Arguments of `arakoon serve`.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// The cluster's config file.
    #[arg(long, value_name = "FILE", requires = "node")]
    pub config: Option<PathBuf>,
    /// Which node of the config file this is.
    #[arg(long, value_name = "NAME", requires = "config")]
    pub node: Option<String>,
    /// Address for clients of a node that runs alone.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", conflicts_with = "config")]
    pub bind: IpAddr,
    /// Port for clients of a node that runs alone.
    #[arg(long, default_value_t = 4000, conflicts_with = "config")]
    pub port: u16,
    /// Data directory of a node that runs alone.
    #[arg(long, default_value = "arakoon-data", conflicts_with = "config")]
    pub dir: PathBuf,
    /// End when this process, the parent, is gone; how `dev` keeps nodes from staying behind.
    #[arg(long, value_name = "PID", hide = true)]
    pub exit_with_parent: Option<i32>,
}

/// Arguments of `arakoon dev`.
#[derive(Args, Debug)]
pub struct DevArgs {
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=7))]
    pub nodes: u16,
    /// Client port of the first node; the others follow. Peer ports are 500 above.
    #[arg(long, default_value_t = 4000)]
    pub port: u16,
    /// Where config and data are; kept when the cluster stops.
    #[arg(long, default_value = "arakoon-dev")]
    pub dir: PathBuf,
}

/// Arguments of `arakoon status`.
#[derive(Args, Debug)]
#[group(required = true, multiple = false, id = "target")]
pub struct StatusTarget {
    /// The cluster's config file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Any node of the cluster; it names the others.
    #[arg(long, value_name = "HOST:PORT")]
    pub connect: Option<String>,
}

/// Arguments of `arakoon status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Which cluster.
    #[command(flatten)]
    pub target: StatusTarget,
    /// For programs: one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Runs the program.
pub fn main() -> ExitCode {
    let program = Program::parse();
    if matches!(program.command, Command::Serve(_)) {
        allocator::keep_freed_memory();
    }
    let result = match program.command {
        Command::Serve(args) => logging::start(program.log.as_deref())
            .and_then(|()| serve::options(&args))
            .and_then(serve::run),
        Command::Dev(args) => dev::run(&args, program.log.as_deref()),
        Command::Status(args) => status::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    result.unwrap_or_else(|error| {
        // Nobody is left to tell when stderr is closed.
        let _ = writeln!(std::io::stderr(), "arakoon: {error:#}");
        ExitCode::FAILURE
    })
}

/// Writes to stdout; an error, not a panic, when nobody reads it any more.
fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("cannot write the output")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Program::command().debug_assert();
    }

    #[test]
    fn a_node_of_a_cluster_takes_no_settings_of_a_single_node() {
        let parse = |line: &str| Program::try_parse_from(line.split(' ')).map(|_| ());
        assert!(parse("arakoon serve").is_ok());
        assert!(parse("arakoon serve --config c.toml --node n1").is_ok());
        assert!(parse("arakoon serve --config c.toml").is_err());
        assert!(parse("arakoon serve --node n1").is_err());
        assert!(parse("arakoon serve --config c.toml --node n1 --port 4000").is_err());
        assert!(parse("arakoon status").is_err());
        assert!(parse("arakoon status --config c.toml --connect h:1").is_err());
        assert!(parse("arakoon dev --nodes 8").is_err());
    }
}
