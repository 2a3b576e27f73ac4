//! Commands about the server itself. The session answers them; what they do is in
//! `server::session`.

use super::connection::Connection;
use super::table::{Keys, Kind, Spec, Subcommand};

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the command of its name")]
pub enum Server {
    Acl,
    BgRewriteAof,
    BgSave,
    Debug,
    LastSave,
    Latency,
    Lolwut,
    Memory,
    Module,
    Monitor,
    Save,
    Shutdown,
    Slowlog,
}

/// What ACL can be asked.
pub static ACL: &[Subcommand] = &[
    ("cat", -2),
    ("deluser", -3),
    ("dryrun", -4),
    ("genpass", -2),
    ("getuser", 3),
    ("help", 2),
    ("list", 2),
    ("load", 2),
    ("log", -2),
    ("save", 2),
    ("setuser", -3),
    ("users", 2),
    ("whoami", 2),
];

/// What COMMAND can be asked.
pub static COMMAND: &[Subcommand] = &[
    ("count", 2),
    ("docs", -2),
    ("getkeys", -3),
    ("getkeysandflags", -3),
    ("help", 2),
    ("info", -2),
    ("list", -2),
];

/// What CONFIG can be asked.
pub static CONFIG: &[Subcommand] =
    &[("get", -3), ("help", 2), ("resetstat", 2), ("rewrite", 2), ("set", -4)];

/// What LATENCY can be asked.
pub static LATENCY: &[Subcommand] = &[
    ("doctor", 2),
    ("graph", 3),
    ("help", 2),
    ("histogram", -2),
    ("history", 3),
    ("latest", 2),
    ("reset", -2),
];

/// What MEMORY can be asked.
pub static MEMORY: &[Subcommand] =
    &[("doctor", 2), ("help", 2), ("malloc-stats", 2), ("purge", 2), ("stats", 2), ("usage", -3)];

/// What MODULE can be asked.
pub static MODULE: &[Subcommand] =
    &[("help", 2), ("list", 2), ("load", -3), ("loadex", -3), ("unload", 3)];

/// What SLOWLOG can be asked.
pub static SLOWLOG: &[Subcommand] = &[("get", -2), ("help", 2), ("len", 2), ("reset", 2)];

const fn row(
    name: &'static str,
    arity: i32,
    command: Server,
    flags: &'static [&'static str],
    since: &'static str,
    summary: &'static str,
) -> Spec {
    let kind = Kind::Connection(Connection::Server(command));
    let (keys, group, complexity) = (Keys::NONE, "server", "O(1)");
    Spec { name, arity, kind, keys, flags, group, since, summary, complexity }
}

/// The rows of this file.
pub static COMMANDS: &[Spec] = &[
    row(
        "acl",
        -2,
        Server::Acl,
        &[],
        "6.0.0",
        "Describes the only user, `default`, who may do everything.",
    ),
    row(
        "bgrewriteaof",
        1,
        Server::BgRewriteAof,
        &["admin", "noscript", "no_async_loading"],
        "1.0.0",
        "Asks for a head, after which the log before it can be dropped.",
    ),
    row(
        "bgsave",
        -1,
        Server::BgSave,
        &["admin", "noscript", "no_async_loading"],
        "1.0.0",
        "Asks for a head: each node writes the whole state to a file.",
    ),
    row(
        "debug",
        -2,
        Server::Debug,
        &["admin", "noscript", "loading", "stale"],
        "1.0.0",
        "What test suites need; only where the config file enables it.",
    ),
    row(
        "lastsave",
        1,
        Server::LastSave,
        &["loading", "stale", "fast"],
        "1.0.0",
        "Answers the time of this node's newest head, in seconds since the epoch.",
    ),
    row(
        "latency",
        -2,
        Server::Latency,
        &[],
        "2.8.13",
        "Answers how long commands took: events above a threshold, and histograms.",
    ),
    row(
        "lolwut",
        -1,
        Server::Lolwut,
        &["readonly", "fast"],
        "5.0.0",
        "Draws something, and answers the version.",
    ),
    row("memory", -2, Server::Memory, &[], "4.0.0", "Answers what uses memory."),
    row("module", -2, Server::Module, &[], "4.0.0", "Answers that there are no modules."),
    row(
        "monitor",
        1,
        Server::Monitor,
        &["admin", "noscript", "loading", "stale"],
        "1.0.0",
        "Sends a line for each command that this node's clients run, from now on.",
    ),
    row(
        "save",
        1,
        Server::Save,
        &["admin", "noscript", "no_async_loading", "no_multi"],
        "1.0.0",
        "Asks for a head and waits until this node has it.",
    ),
    row(
        "shutdown",
        -1,
        Server::Shutdown,
        &["admin", "noscript", "loading", "stale", "no_multi", "allow_busy"],
        "1.0.0",
        "Stops this node in order; a master hands its lease back first.",
    ),
    row("slowlog", -2, Server::Slowlog, &[], "2.2.12", "Answers the commands that took long."),
];
