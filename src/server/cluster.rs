//! CLUSTER: the nodes as a Redis cluster of one shard. All slots belong to the master, the other
//! nodes are its replicas.
//!
//! There is no Redis cluster bus: its port is shown as 0, LINKS is empty, and nobody reports failures
//! over it. Subcommands that would change the cluster are unknown.

use bytes::Bytes;
use resp::Reply;

use super::NodeInfo;
use super::topology::{Member, Topology, shard_id};

/// Hash slots of a Redis cluster.
pub const SLOTS: u16 = 16_384;

pub(super) const HELP: &[&str] = &[
    "CLUSTER <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "COUNT-FAILURE-REPORTS <node-id>",
    "    Answer 0: nodes do not report each other.",
    "COUNTKEYSINSLOT <slot>",
    "    Answer the number of keys in a slot; looks at every key.",
    "FAILOVER [FORCE|TAKEOVER]",
    "    Ask the master to hand over to this replica.",
    "GETKEYSINSLOT <slot> <count>",
    "    Answer keys in a slot; looks at every key.",
    "INFO",
    "    Describe the cluster.",
    "KEYSLOT <key>",
    "    Answer the slot of a key.",
    "LINKS",
    "    Answer no links: there is no cluster bus.",
    "MYID",
    "    Answer this node's id.",
    "MYSHARDID",
    "    Answer the id of the only shard.",
    "NODES",
    "    Describe the nodes, one a line.",
    "REPLICAS <node-id>",
    "    Describe the replicas of a master.",
    "SHARDS",
    "    Describe slots and nodes.",
    "SLOTS",
    "    Describe which nodes have which slots.",
    "HELP",
    "    Print this help.",
];

/// CLUSTER SLOTS. Nodes that cannot be reached are left out, but not the last master.
pub(super) fn slots(node: &NodeInfo) -> Reply {
    let topology = Topology::of(node);
    let Some(master) = topology.shown_master() else { return Reply::Array(Vec::new()) };
    let replicas = topology.replicas().filter(|member| member.reachable);
    let place = |member: &Member| {
        Reply::Array(vec![
            Reply::bulk(member.host.to_owned()),
            Reply::Integer(i64::from(member.port)),
            Reply::bulk(member.id.clone()),
            Reply::Array(Vec::new()),
        ])
    };
    let range = [Reply::Integer(0), Reply::Integer(i64::from(SLOTS) - 1)];
    let nodes = std::iter::once(master).chain(replicas).map(place);
    Reply::Array(vec![Reply::Array(range.into_iter().chain(nodes).collect())])
}

/// CLUSTER SHARDS
pub(super) fn shards(node: &NodeInfo) -> Reply {
    let topology = Topology::of(node);
    let shown = topology.shown_master();
    let slots = match shown {
        Some(_) => vec![Reply::Integer(0), Reply::Integer(i64::from(SLOTS) - 1)],
        None => Vec::new(),
    };
    let describe = |member: &Member| {
        let is_master = shown.is_some_and(|master| master.id == member.id);
        let health = if topology.is_up(member) { "online" } else { "fail" };
        map([
            ("id", Reply::bulk(member.id.clone())),
            ("port", Reply::Integer(i64::from(member.port))),
            ("ip", Reply::bulk(member.host.to_owned())),
            ("endpoint", Reply::bulk(member.host.to_owned())),
            ("role", Reply::bulk(if is_master { "master" } else { "replica" })),
            ("replication-offset", Reply::Integer(member.offset as i64)),
            ("health", Reply::bulk(health)),
        ])
    };
    let nodes = shown.into_iter().chain(topology.replicas()).map(describe).collect();
    let shard = map([("slots", Reply::Array(slots)), ("nodes", Reply::Array(nodes))]);
    Reply::Array(vec![shard])
}

/// CLUSTER NODES
pub(super) fn nodes(node: &NodeInfo) -> Reply {
    let topology = Topology::of(node);
    let lines: String =
        topology.members.iter().map(|member| line(node, &topology, member) + "\n").collect();
    Reply::Verbatim("txt", Bytes::from(lines))
}

/// CLUSTER REPLICAS and SLAVES
pub(super) fn replicas(node: &NodeInfo, id: &[u8]) -> Reply {
    let topology = Topology::of(node);
    if let Err(unknown) = find(&topology, id) {
        return unknown;
    }
    if topology.shown_master().is_none_or(|master| master.id.as_bytes() != id) {
        return Reply::error("ERR The specified node is not a master");
    }
    let line = |member: &Member| Reply::bulk(line(node, &topology, member));
    Reply::Array(topology.replicas().map(line).collect())
}

/// CLUSTER COUNT-FAILURE-REPORTS
pub(super) fn failure_reports(node: &NodeInfo, id: &[u8]) -> Reply {
    match find(&Topology::of(node), id) {
        Ok(()) => Reply::Integer(0),
        Err(unknown) => unknown,
    }
}

/// CLUSTER INFO
pub(super) fn info(node: &NodeInfo) -> Reply {
    let topology = Topology::of(node);
    let assigned = if topology.shown_master().is_some() { SLOTS } else { 0 };
    let (state, ok) = match topology.master {
        Some(_) => ("ok", assigned),
        None => ("fail", 0),
    };
    let text = format!(
        "cluster_state:{state}\r\ncluster_slots_assigned:{assigned}\r\ncluster_slots_ok:{ok}\r\n\
         cluster_slots_pfail:0\r\ncluster_slots_fail:{}\r\ncluster_known_nodes:{}\r\n\
         cluster_size:1\r\ncluster_current_epoch:{epoch}\r\ncluster_my_epoch:{epoch}\r\n\
         cluster_stats_messages_sent:0\r\ncluster_stats_messages_received:0\r\n\
         total_cluster_links_buffer_limit_exceeded:0\r\n",
        assigned - ok,
        topology.members.len(),
        epoch = node.epoch,
    );
    Reply::Verbatim("txt", Bytes::from(text))
}

/// CLUSTER MYID
pub(super) fn my_id(node: &NodeInfo) -> Reply {
    Reply::bulk(Topology::of(node).members.swap_remove(0).id)
}

/// CLUSTER MYSHARDID
pub(super) fn my_shard_id(node: &NodeInfo) -> Reply {
    Reply::bulk(shard_id(&node.cluster_id))
}

fn find(topology: &Topology, id: &[u8]) -> Result<(), Reply> {
    match topology.members.iter().any(|member| member.id.as_bytes() == id) {
        true => Ok(()),
        false => {
            Err(Reply::error(format!("ERR Unknown node {}", crate::command::parse::shown(id))))
        }
    }
}

/// A line of CLUSTER NODES, with Redis' fields in Redis' order.
fn line(node: &NodeInfo, topology: &Topology, member: &Member) -> String {
    let master = topology.shown_master();
    let is_master = master.is_some_and(|master| master.id == member.id);
    let up = topology.is_up(member);
    let mut flags = Vec::new();
    if member.own {
        flags.push("myself");
    }
    flags.push(if is_master { "master" } else { "slave" });
    if !up {
        flags.push("fail");
    }
    let of = match (is_master, master) {
        (false, Some(master)) => master.id.as_str(),
        _ => "-",
    };
    let link = if up || member.own { "connected" } else { "disconnected" };
    let slots = if is_master { format!(" 0-{}", SLOTS - 1) } else { String::new() };
    format!(
        "{} {}@0 {} {of} 0 0 {} {link}{slots}",
        member.id,
        member.place(),
        flags.join(","),
        node.epoch
    )
}

fn map<const N: usize>(pairs: [(&'static str, Reply); N]) -> Reply {
    Reply::Map(pairs.map(|(name, value)| (Reply::bulk(name), value)).to_vec())
}
