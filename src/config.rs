//! The cluster's config file, and the settings of a node that runs alone.
//!
//! The order of the `[[node]]` tables gives each node its seat, so every node must have the same
//! file up to its own settings (`cache`, `engine`, `keep_awake`); [`Config::fingerprint`] lets peers compare.
//! Every mistake is refused with file, line and what to write instead; nothing is guessed.
//!
//! Left out: reloading while running; a change needs a restart of the node.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::paxos::NodeId;

mod reader;
#[cfg(test)]
mod tests;

/// The lease when the file does not say.
pub const LEASE_DEFAULT: Duration = Duration::from_millis(500);
/// The shortest lease that the file may ask for.
pub const LEASE_MIN: Duration = Duration::from_millis(100);
/// The longest lease that the file may ask for.
pub const LEASE_MAX: Duration = Duration::from_secs(60);
/// The most nodes that a cluster may have.
pub const NODES_MAX: usize = 7;

const MIB: u64 = 1024 * 1024;
/// [`ClusterConfig::head_every_bytes`] when the file does not say.
pub const HEAD_EVERY_BYTES_DEFAULT: u64 = 256 * MIB;
/// [`ClusterConfig::log_segment_bytes`] when the file does not say.
pub const LOG_SEGMENT_BYTES_DEFAULT: u64 = 64 * MIB;
/// [`ClusterConfig::log_keep_bytes`] when the file does not say.
pub const LOG_KEEP_BYTES_DEFAULT: u64 = 256 * MIB;
/// [`ClusterConfig::disk_reserve_bytes`] when the file does not say.
pub const DISK_RESERVE_BYTES_DEFAULT: u64 = 256 * MIB;
/// [`NodeConfig::cache_bytes`] when the file does not say.
pub const CACHE_BYTES_DEFAULT: u64 = 64 * MIB;

/// A checked config: at least one node, names and addresses distinct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What holds for all nodes.
    pub cluster: ClusterConfig,
    /// The nodes by seat: `nodes[0]` is [`NodeId`] 0.
    pub nodes: Vec<NodeConfig>,
}

/// The `[cluster]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Nodes of another id are refused.
    pub id: String,
    /// How long followers promise not to elect another; bounds the pause after a master's death.
    pub lease: Duration,
    /// Log bytes between two heads.
    pub head_every_bytes: u64,
    /// Size of one preallocated log file.
    pub log_segment_bytes: u64,
    /// Log bytes kept below the droppable point for nodes that lag; one further behind is sent a
    /// head.
    pub log_keep_bytes: u64,
    /// Bytes that must stay free on a node's disk; below it, it refuses updates as master.
    pub disk_reserve_bytes: u64,
    /// Who may use DEBUG.
    pub debug_command: Allowed,
}

/// One `[[node]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Unique in the cluster.
    pub name: String,
    /// `host:port` where the node listens for Redis clients.
    pub client: String,
    /// `host:port` that clients are told, if it is another: behind NAT, or in a container.
    pub advertise: Option<String>,
    /// `host:port` where the other nodes connect; empty only in [`Config::single`].
    pub peer: String,
    /// Where the node keeps its log, heads and store.
    pub dir: PathBuf,
    /// Its data center. Some on all nodes, or on none; if some, an update is acknowledged only
    /// when it is on disk in every zone.
    pub zone: Option<String>,
    /// Memory for single rows, in bytes; the engine's own cache and the layers are of sizes that follow.
    pub cache_bytes: u64,
    /// What keeps the rows.
    pub engine: EngineKind,
    /// Processors without work are kept awake while updates are on their way, unless many are.
    pub keep_awake: bool,
}

/// Who may use a command that is dangerous.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Allowed {
    /// Nobody.
    #[default]
    No,
    /// Everybody.
    Yes,
    /// Clients on this machine.
    Local,
}

impl Allowed {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Allowed::No => "no",
            Allowed::Yes => "yes",
            Allowed::Local => "local",
        }
    }
}

impl NodeConfig {
    /// `host:port` where clients reach it: what MOVED and all tables name.
    pub fn advertised(&self) -> &str {
        self.advertise.as_deref().unwrap_or(&self.client)
    }
}

/// The store's engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// sled 0.34.
    Sled,
    /// fjall 3.
    Fjall,
}

/// A config that cannot be used: where, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// As it was given.
    pub file: PathBuf,
    /// From 1; none when the file as a whole is meant.
    pub line: Option<usize>,
    /// One sentence, or two.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file.display(), self.message),
            None => write!(f, "{}: {}", self.file.display(), self.message),
        }
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads and checks a config file. Relative directories in it are relative to the file.
    pub fn load(file: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError {
            file: file.to_path_buf(),
            line: None,
            message: format!("cannot be read: {error}"),
        })?;
        Config::parse(file, &text)
    }

    /// Checks the text of a config file; `file` names it in errors and is where relative
    /// directories start.
    pub fn parse(file: &Path, text: &str) -> Result<Config, ConfigError> {
        reader::read(file, text)
    }

    /// A cluster of one node that has no config file.
    pub fn single(bind: IpAddr, port: u16, dir: &Path) -> Config {
        Config {
            cluster: ClusterConfig {
                id: "single".to_string(),
                lease: LEASE_DEFAULT,
                head_every_bytes: HEAD_EVERY_BYTES_DEFAULT,
                log_segment_bytes: LOG_SEGMENT_BYTES_DEFAULT,
                log_keep_bytes: LOG_KEEP_BYTES_DEFAULT,
                disk_reserve_bytes: DISK_RESERVE_BYTES_DEFAULT,
                debug_command: Allowed::No,
            },
            nodes: vec![NodeConfig {
                name: "n1".to_string(),
                client: std::net::SocketAddr::new(bind, port).to_string(),
                advertise: None,
                peer: String::new(),
                dir: dir.to_path_buf(),
                zone: None,
                cache_bytes: CACHE_BYTES_DEFAULT,
                engine: EngineKind::Sled,
                keep_awake: true,
            }],
        }
    }

    /// The seat of the node of this name.
    pub fn seat(&self, name: &str) -> Option<NodeId> {
        let seat = self.nodes.iter().position(|node| node.name == name)?;
        Some(NodeId(u8::try_from(seat).expect("a config has at most NODES_MAX nodes")))
    }

    /// The settings of one seat, which must be one of this config.
    pub fn node(&self, seat: NodeId) -> &NodeConfig {
        &self.nodes[usize::from(seat.0)]
    }

    /// Whether another node of this config runs on the machine of this seat.
    pub fn shares_machine(&self, seat: NodeId) -> bool {
        let host = |node: &NodeConfig| node.peer.rsplit_once(':').map(|(host, _)| host.to_owned());
        let own = host(self.node(seat));
        let others = self.nodes.iter().enumerate().filter(|(at, _)| *at != usize::from(seat.0));
        others.map(|(_, node)| host(node)).any(|other| other.is_some() && other == own)
    }

    /// The same on all nodes whose files list the same names and zones in the same order: seats
    /// are what ballots and votes refer to.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        for node in &self.nodes {
            for part in [node.name.as_str(), node.zone.as_deref().unwrap_or("")] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part.as_bytes());
            }
        }
        let hash = hasher.finalize();
        u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes"))
    }

    /// What is allowed but probably not meant; one line each, for the log at start.
    pub fn warnings(&self) -> Vec<String> {
        let nodes = self.nodes.len();
        if nodes.is_multiple_of(2) {
            vec![format!(
                "{nodes} nodes bear the loss of no more nodes than {} would; use an odd number",
                nodes - 1
            )]
        } else {
            Vec::new()
        }
    }
}
