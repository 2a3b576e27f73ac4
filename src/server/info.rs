//! INFO and HELLO: what a node tells about itself. ROLE and INFO's replication: [`super::replication`].

use bytes::Bytes;
use resp::{Protocol, Reply};

use super::{NodeInfo, NodeRole, Shared, replication};
use crate::command::parse::is;
use crate::store::keyspace::Meta;

/// The version of Redis whose commands and replies these are; clients look at it to know what they
/// may send.
pub const REDIS_VERSION: &str = "7.0.15";

/// Host and port of an address as the configuration writes it.
pub fn host_and_port(address: &str) -> (&str, &str) {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "0"));
    (host.trim_start_matches('[').trim_end_matches(']'), port)
}

/// HELLO's reply.
pub(super) fn hello(node: &NodeInfo, client: u64, protocol: Protocol) -> Reply {
    let protocol = if protocol == Protocol::Resp3 { 3 } else { 2 };
    let role = if node.role == NodeRole::Master { "master" } else { "replica" };
    let pairs = [
        ("server", Reply::bulk("redis")),
        ("version", Reply::bulk(REDIS_VERSION)),
        ("proto", Reply::Integer(protocol)),
        ("id", Reply::Integer(client as i64)),
        ("mode", Reply::bulk("standalone")),
        ("role", Reply::bulk(role)),
        ("modules", Reply::Array(Vec::new())),
    ];
    Reply::Map(pairs.map(|(name, value)| (Reply::bulk(name), value)).to_vec())
}

const SECTIONS: [&str; 9] = [
    "server",
    "clients",
    "memory",
    "stats",
    "replication",
    "cpu",
    "cluster",
    "keyspace",
    "arakoon",
];

/// INFO's text. `sections`: those asked for; none: all. `meta`: the keyspace, if the node has one.
pub(super) fn text(
    sections: &[Bytes],
    node: &NodeInfo,
    shared: &Shared,
    meta: Option<&Meta>,
) -> String {
    let everything = ["default", "all", "everything"];
    let all = sections.is_empty()
        || sections.iter().any(|section| everything.iter().any(|name| is(section, name)));
    let mut text = String::new();
    for section in SECTIONS {
        if !all && !sections.iter().any(|asked| is(asked, section)) {
            continue;
        }
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        let (first, rest) = section.split_at(1);
        line(&mut text, &format!("# {}{rest}", first.to_ascii_uppercase()));
        for (name, value) in lines(section, node, shared, meta) {
            line(&mut text, &format!("{name}:{value}"));
        }
    }
    text
}

fn line(text: &mut String, line: &str) {
    // A line break inside would let one value pass for another line.
    text.extend(line.chars().filter(|character| !matches!(character, '\r' | '\n')));
    text.push_str("\r\n");
}

type Lines = Vec<(String, String)>;

fn lines(section: &str, node: &NodeInfo, shared: &Shared, meta: Option<&Meta>) -> Lines {
    let mut lines = Lines::new();
    let mut add = |name: &str, value: &dyn std::fmt::Display| {
        lines.push((name.to_owned(), value.to_string()));
    };
    match section {
        "server" => {
            add("redis_version", &REDIS_VERSION);
            add("redis_mode", &"standalone");
            add("arakoon_version", &env!("CARGO_PKG_VERSION"));
            add("os", &std::env::consts::OS);
            add("arch_bits", &usize::BITS);
            add("process_id", &std::process::id());
            add("tcp_port", &host_and_port(&node.address).1);
            add("uptime_in_seconds", &(node.uptime_ms / 1000));
            add("uptime_in_days", &(node.uptime_ms / 86_400_000));
        }
        "clients" => {
            add("connected_clients", &shared.clients_connected());
            add("maxclients", &node.clients_max);
        }
        "memory" => {
            add("used_memory", &node.memory_bytes);
            add("used_memory_rss", &node.memory_bytes);
            add("maxmemory", &0);
            add("maxmemory_policy", &"noeviction");
        }
        "stats" => {
            add("total_connections_received", &shared.clients_ever());
            add("total_commands_processed", &shared.commands());
        }
        "replication" => replication::section(node, &mut add),
        "cluster" => add("cluster_enabled", &1),
        "cpu" => {
            add("used_cpu_sys", &seconds(node.cpu_system_us));
            add("used_cpu_user", &seconds(node.cpu_user_us));
        }
        "keyspace" => {
            let databases = meta.iter().flat_map(|meta| meta.databases.iter().enumerate());
            for (number, database) in databases.filter(|(_, database)| database.keys > 0) {
                let (keys, expires) = (database.keys, database.keys_with_deadline);
                let value = format!("keys={keys},expires={expires},avg_ttl=0");
                add(&format!("db{number}"), &value);
            }
        }
        _ => {
            add("cluster_id", &node.cluster_id);
            add("node", &node.name);
            add("node_role", &node.role.name());
            add("ballot", &node.ballot);
            add("last_index", &node.last_index);
            add("chosen_index", &node.chosen_index);
            add("applied_index", &node.applied_index);
            add("head_index", &node.head_index);
            add("lease_left_ms", &node.lease_left_ms);
            add("disk_used_bytes", &node.disk_used_bytes);
            add("disk_free_bytes", &node.disk_free_bytes);
            add("read_only", &node.read_only.as_deref().unwrap_or("no"));
            node.more.iter().for_each(|(name, value)| add(name, value));
        }
    }
    lines
}

fn seconds(microseconds: u64) -> String {
    format!("{}.{:06}", microseconds / 1_000_000, microseconds % 1_000_000)
}
