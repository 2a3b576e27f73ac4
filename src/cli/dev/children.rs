//! The processes of a `dev` cluster. Signals go to exact pids only, and a pid is ours until its
//! exit has been collected, which only this module does.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use crate::config::Config;

/// One process per node, by seat. Dropping it kills those that still run.
pub struct Children {
    nodes: Vec<Node>,
}

struct Node {
    process: Child,
    exit: Option<ExitStatus>,
}

impl Children {
    /// Starts every node. Must be called from a thread that lives as long as they shall.
    pub fn start(config: &Config, file: &Path, log: Option<&str>) -> anyhow::Result<Children> {
        let program = std::env::current_exe().context("cannot find the arakoon program itself")?;
        let mut children = Children { nodes: Vec::new() };
        for node in &config.nodes {
            let mut command = Command::new(&program);
            command.arg("serve").arg("--config").arg(file).args(["--node", &node.name]);
            command.args(["--exit-with-parent", &std::process::id().to_string()]);
            if let Some(log) = log {
                command.args(["--log", log]);
            }
            // A group of its own: Ctrl-C reaches `dev` alone, which then stops them in order.
            let process = command
                .process_group(0)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .with_context(|| format!("cannot start node {}", node.name))?;
            children.nodes.push(Node { process, exit: None });
        }
        Ok(children)
    }

    /// What each node writes, with its seat; once.
    pub fn take_outputs(&mut self) -> Vec<(usize, Box<dyn Read + Send>)> {
        let mut outputs: Vec<(usize, Box<dyn Read + Send>)> = Vec::new();
        for (seat, node) in self.nodes.iter_mut().enumerate() {
            if let Some(output) = node.process.stdout.take() {
                outputs.push((seat, Box::new(output)));
            }
            if let Some(output) = node.process.stderr.take() {
                outputs.push((seat, Box::new(output)));
            }
        }
        outputs
    }

    /// The process id of a seat.
    pub fn pid(&self, seat: usize) -> u32 {
        self.nodes[seat].process.id()
    }

    /// Collects the exits since the last call.
    pub fn exited(&mut self) -> io::Result<Vec<(usize, ExitStatus)>> {
        let mut exits = Vec::new();
        for (seat, node) in self.nodes.iter_mut().enumerate() {
            if node.exit.is_none()
                && let Some(exit) = node.process.try_wait()?
            {
                node.exit = Some(exit);
                exits.push((seat, exit));
            }
        }
        Ok(exits)
    }

    /// No process is left.
    pub fn are_gone(&self) -> bool {
        self.nodes.iter().all(|node| node.exit.is_some())
    }

    /// Asks every remaining process to stop in order.
    pub fn terminate(&self) {
        for node in self.nodes.iter().filter(|node| node.exit.is_none()) {
            // It may have ended by itself just now.
            let _ = kill_process(Pid::from_child(&node.process), Signal::TERM);
        }
    }

    /// Kills every remaining process and waits for its end; their seats.
    pub fn kill(&mut self) -> io::Result<Vec<usize>> {
        let mut killed = Vec::new();
        for (seat, node) in self.nodes.iter_mut().enumerate() {
            if node.exit.is_none() {
                node.process.kill()?;
                node.exit = Some(node.process.wait()?);
                killed.push(seat);
            }
        }
        Ok(killed)
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        // The kernel kills what this cannot, as soon as the main thread ends.
        let _ = self.kill();
    }
}
