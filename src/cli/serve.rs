//! `arakoon serve`: one node in this process.

use std::process::ExitCode;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use super::ServeArgs;
use crate::config::Config;
use crate::paxos::NodeId;

/// What a node needs to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeOptions {
    /// All nodes and what holds for them.
    pub config: Config,
    /// Which of them this process is.
    pub seat: NodeId,
    /// Without a config file: no peers to listen for.
    pub alone: bool,
}

/// Checks the arguments and reads the config file. With `--exit-with-parent` it also ties this
/// process to its parent, before anything is started that would have to be stopped.
pub fn options(args: &ServeArgs) -> anyhow::Result<ServeOptions> {
    if let Some(parent) = args.exit_with_parent {
        exit_with_parent(parent)?;
    }
    let (Some(file), Some(name)) = (&args.config, &args.node) else {
        let config = Config::single(args.bind, args.port, &args.dir);
        return Ok(ServeOptions { config, seat: NodeId(0), alone: true });
    };
    let config = Config::load(file)?;
    let Some(seat) = config.seat(name) else {
        let names: Vec<&str> = config.nodes.iter().map(|node| node.name.as_str()).collect();
        bail!("--node {name}: {} has the nodes {}", file.display(), names.join(", "));
    };
    Ok(ServeOptions { config, seat, alone: false })
}

/// Runs a node until SIGTERM or Ctrl-C, then stops it in order.
pub fn run(options: ServeOptions) -> anyhow::Result<ExitCode> {
    for warning in options.config.warnings() {
        tracing::warn!("{warning}");
    }
    let node = options.config.node(options.seat);
    tracing::info!(
        node = node.name,
        cluster = options.config.cluster.id,
        client = node.client,
        dir = %node.dir.display(),
        "starting"
    );
    bail!("not built yet: the node itself")
}

/// Has the kernel kill this process when the thread of the parent that started it ends.
///
/// SIGKILL, not SIGTERM: what remains of a killed `dev` must go at once, and a node bears a kill
/// at any time. The parent may have died before the request: then its pid is not ours any more.
fn exit_with_parent(parent: i32) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .context("cannot ask to end with the parent process")?;
    if Pid::as_raw(getppid()) != parent {
        bail!("the process {parent} that started this node is gone already");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn args(config: Option<PathBuf>, node: Option<&str>) -> ServeArgs {
        ServeArgs {
            config,
            node: node.map(str::to_string),
            bind: "127.0.0.1".parse().expect("an address"),
            port: 4000,
            dir: "arakoon-data".into(),
            exit_with_parent: None,
        }
    }

    #[test]
    fn without_arguments_a_node_runs_alone() {
        let options = options(&args(None, None)).expect("defaults are right");
        assert!(options.alone);
        assert_eq!(options.config.node(options.seat).client, "127.0.0.1:4000");
    }

    #[test]
    fn a_name_that_the_file_lacks_is_refused_with_those_it_has() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("c.toml");
        let text = "[cluster]\nid = \"c\"\n[[node]]\nname = \"a\"\nclient = \"h:1\"\n\
                    peer = \"h:2\"\ndir = \"a\"\n";
        std::fs::write(&file, text).expect("the file is written");
        assert_eq!(
            options(&args(Some(file.clone()), Some("a"))).expect("a is there").seat,
            NodeId(0)
        );
        let error = options(&args(Some(file.clone()), Some("b"))).expect_err("no b");
        assert_eq!(error.to_string(), format!("--node b: {} has the nodes a", file.display()));
    }
}
