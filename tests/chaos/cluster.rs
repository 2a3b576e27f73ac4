//! All nodes of a run, their network, and what they say of themselves.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::monitor::Monitor;
use crate::network::{self, Network};
use crate::node::Node;

/// The lease of the cluster, in ms: the default.
pub const LEASE_MS: u64 = 500;

/// Small sizes, so that every few seconds segments fill, heads are made and logs are cut off, and a
/// node that was down has to be sent a head.
const SETTINGS: &str = "\
lease = \"500ms\"
log_segment = \"128KiB\"
log_keep = \"64KiB\"
head_every = \"64KiB\"
disk_reserve = \"32MiB\"
";
/// [`SETTINGS`], the reserve: with less than this free, a master refuses updates.
pub const DISK_RESERVE_BYTES: u64 = 32 << 20;

/// A cluster of real processes; they end with it.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub network: Network,
    pub monitor: Monitor,
    program: PathBuf,
    config: PathBuf,
}

impl Cluster {
    /// Nothing runs yet.
    pub fn make(
        count: usize,
        directory: &Path,
        rng: &mut fastrand::Rng,
    ) -> anyhow::Result<Cluster> {
        let network = Network::make(count).context("the network")?;
        let mut text = format!("[cluster]\nid = \"chaos\"\n{SETTINGS}\n");
        let mut nodes = Vec::new();
        for seat in 0..count {
            let node = Node::new(seat, directory, rng)?;
            text += &format!(
                "[[node]]\nname = \"{}\"\nclient = \"{}\"\npeer = \"{}\"\ndir = \"{}\"\n\
                 cache = \"4MiB\"\nengine = \"{}\"\n\n",
                node.name,
                network::client_address(seat),
                network::peer_address(seat),
                node.data().display(),
                // A node's own choice, so they mix.
                if seat % 2 == 1 { "fjall" } else { "sled" },
            );
            nodes.push(node);
        }
        let config = directory.join("cluster.toml");
        std::fs::write(&config, text)?;
        let monitor = Monitor::start((0..count).map(network::client_address).collect());
        Ok(Cluster { nodes, network, monitor, program: program(), config })
    }

    /// Starts a node that does not run; says how its clock drifts.
    pub fn start(&mut self, seat: usize, rng: &mut fastrand::Rng) -> anyhow::Result<i64> {
        self.nodes[seat].start(&self.program, &self.config, rng)
    }

    /// What is wrong with a process, its log lines or what it says.
    pub fn poll(&mut self) -> Result<(), String> {
        for node in &mut self.nodes {
            node.poll()?;
        }
        self.monitor.complaint().map_or(Ok(()), Err)
    }

    /// Looks for log lines that must not be there.
    pub fn read_logs(&mut self) -> Result<(), String> {
        self.nodes.iter_mut().try_for_each(Node::read_log)
    }
}

/// The program under test: `ARAKOON_PROGRAM`, or the one that was built with the tests.
fn program() -> PathBuf {
    let built = || PathBuf::from(env!("CARGO_BIN_EXE_arakoon"));
    let given = std::env::var_os("ARAKOON_PROGRAM").map(PathBuf::from);
    // The nodes start elsewhere.
    given.map_or_else(built, |path| std::path::absolute(&path).unwrap_or(path))
}
