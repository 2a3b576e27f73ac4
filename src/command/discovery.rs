//! Commands by which clients find the master, hear of a new one, and ask for one; what they do is in
//! `server::session`.

use super::connection::Connection;
use super::table::{Keys, Kind, Spec, Subcommand};

const ADMIN: &[&str] = &["admin", "noscript", "loading", "stale"];
const PUBSUB: &[&str] = &["pubsub", "noscript", "loading", "stale"];

const fn row(
    name: &'static str,
    arity: i32,
    command: Connection,
    flags: &'static [&'static str],
    (group, since): (&'static str, &'static str),
    summary: &'static str,
) -> Spec {
    let kind = Kind::Connection(command);
    let complexity = "O(1)";
    Spec { name, arity, kind, keys: Keys::NONE, flags, group, since, summary, complexity }
}

/// What CLUSTER can be asked.
pub static CLUSTER: &[Subcommand] = &[
    ("count-failure-reports", 3),
    ("countkeysinslot", 3),
    ("failover", -2),
    ("getkeysinslot", 4),
    ("help", 2),
    ("info", 2),
    ("keyslot", 3),
    ("links", 2),
    ("myid", 2),
    ("myshardid", 2),
    ("nodes", 2),
    ("replicas", 3),
    ("shards", 2),
    ("slaves", 3),
    ("slots", 2),
];

/// What SENTINEL can be asked.
pub static SENTINEL: &[Subcommand] = &[
    ("ckquorum", 3),
    ("failover", 3),
    ("get-master-addr-by-name", 3),
    ("help", 2),
    ("is-master-down-by-addr", 6),
    ("master", 3),
    ("masters", 2),
    ("myid", 2),
    ("replicas", 3),
    ("reset", 3),
    ("sentinels", 3),
    ("slaves", 3),
];

/// The rows of this file.
pub static COMMANDS: &[Spec] = &[
    row(
        "cluster",
        -2,
        Connection::Cluster,
        ADMIN,
        ("cluster", "3.0.0"),
        "Describes the nodes to cluster clients: all slots belong to the master; CLUSTER HELP lists how.",
    ),
    row(
        "asking",
        1,
        Connection::Asking,
        &["fast"],
        ("cluster", "3.0.0"),
        "Does nothing: no slot ever migrates.",
    ),
    row(
        "sentinel",
        -2,
        Connection::Sentinel,
        ADMIN,
        ("sentinel", "2.8.4"),
        "Names the master to Sentinel clients, as the cluster's id and as mymaster; SENTINEL HELP lists how.",
    ),
    row(
        "failover",
        -1,
        Connection::Failover,
        &["admin", "noscript", "stale"],
        ("server", "6.2.0"),
        "Hands the mastership over to another node, in order and without loss.",
    ),
    row(
        "subscribe",
        -2,
        Connection::Subscribe,
        PUBSUB,
        ("pubsub", "2.0.0"),
        "Asks for Sentinel's events by name: +switch-master when there is another master.",
    ),
    row(
        "psubscribe",
        -2,
        Connection::PSubscribe,
        PUBSUB,
        ("pubsub", "2.0.0"),
        "Asks for Sentinel's events by pattern.",
    ),
    row(
        "unsubscribe",
        -1,
        Connection::Unsubscribe,
        PUBSUB,
        ("pubsub", "2.0.0"),
        "Ends SUBSCRIBE, of all names or of those given.",
    ),
    row(
        "punsubscribe",
        -1,
        Connection::PUnsubscribe,
        PUBSUB,
        ("pubsub", "2.0.0"),
        "Ends PSUBSCRIBE, of all patterns or of those given.",
    ),
];
