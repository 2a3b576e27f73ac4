//! ROLE, HELLO and INFO's replication: what a node tells about itself and its peers. The rest of
//! INFO is in `report`.

use std::fmt::Write;

use bytes::Bytes;
use resp::{Protocol, Reply};

use super::{NodeInfo, NodeRole, PeerInfo};

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

/// ROLE's reply, with Redis' words for clients that act on them. Offsets are applied indexes.
pub(super) fn role(node: &NodeInfo) -> Reply {
    let text = |text: &str| Reply::Bulk(Bytes::copy_from_slice(text.as_bytes()));
    if node.role == NodeRole::Master {
        let peers = node.peers.iter().filter(|peer| peer.reachable).map(|peer| {
            let (host, port) = host_and_port(&peer.address);
            Reply::Array(vec![text(host), text(port), text(&peer.applied_index.to_string())])
        });
        let offset = Reply::Integer(node.applied_index as i64);
        return Reply::Array(vec![text("master"), offset, Reply::Array(peers.collect())]);
    }
    let (host, port) = node.master_address.as_deref().map_or(("", "0"), host_and_port);
    let state = if node.master_address.is_some() { "connected" } else { "connect" };
    Reply::Array(vec![
        text("slave"),
        text(host),
        Reply::Integer(port.parse().unwrap_or(0)),
        text(state),
        Reply::Integer(node.applied_index as i64),
    ])
}

/// INFO's section `replication`.
pub(super) fn replication(node: &NodeInfo, add: &mut dyn FnMut(&str, &dyn std::fmt::Display)) {
    if node.role == NodeRole::Master {
        add("role", &"master");
        let reachable = node.peers.iter().filter(|peer| peer.reachable);
        add("connected_slaves", &reachable.clone().count());
        for (number, peer) in reachable.enumerate() {
            let (host, port) = host_and_port(&peer.address);
            let PeerInfo { applied_index, lag_entries, .. } = peer;
            let mut value = format!("ip={host},port={port},state=online,offset={applied_index}");
            // Writing to a string cannot fail.
            let _ = write!(value, ",lag={lag_entries}");
            add(&format!("slave{number}"), &value);
        }
    } else {
        let (host, port) = node.master_address.as_deref().map_or(("", "0"), host_and_port);
        add("role", &"slave");
        add("master_host", &host);
        add("master_port", &port);
        add("master_link_status", &if node.master_address.is_some() { "up" } else { "down" });
        add("slave_repl_offset", &node.applied_index);
        add("slave_read_only", &1);
        add("connected_slaves", &0);
    }
    add("master_repl_offset", &node.applied_index);
}
