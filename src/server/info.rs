//! HELLO, and what INFO and others tell: the rest of INFO is in `report`, ROLE and INFO's
//! replication in `replication`.

use resp::{Protocol, Reply};

use super::{NodeInfo, NodeRole};

/// The version of Redis whose commands and replies these are; clients look at it to know what they
/// may send.
pub const REDIS_VERSION: &str = "7.2.6";

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
