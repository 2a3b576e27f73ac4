//! SENTINEL: each node answers as a Redis Sentinel would that watches this cluster, under the
//! cluster's id and under the name `mymaster`.
//!
//! Without a master the address is nil and the tables show the last one as down. Nothing here can be
//! configured: who is in the cluster stands in the config file.

use resp::Reply;

use super::NodeInfo;
use super::topology::{Member, Topology, node_id};
use crate::command::glob;
use crate::command::parse::{integer, shown};

/// The name that Sentinel clients use when nobody tells them another.
const USUAL_NAME: &str = "mymaster";

pub(super) const HELP: &[&str] = &[
    "SENTINEL <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CKQUORUM <master-name>",
    "    Say whether a majority of the nodes can be reached from here.",
    "FAILOVER <master-name>",
    "    Hand the mastership over, in order and without loss.",
    "GET-MASTER-ADDR-BY-NAME <master-name>",
    "    Answer host and port of the master, or nil when none is known.",
    "IS-MASTER-DOWN-BY-ADDR <ip> <port> <current-epoch> <runid>",
    "    Say whether the master at that place is lost.",
    "MASTER <master-name>",
    "    Describe the master.",
    "MASTERS",
    "    Describe the master under each of its names.",
    "MYID",
    "    Answer this node's id.",
    "REPLICAS <master-name>",
    "    Describe the replicas.",
    "RESET <pattern>",
    "    Answer how many names match; there is nothing to reset.",
    "SENTINELS <master-name>",
    "    Describe the other nodes.",
    "HELP",
    "    Print this help.",
];

/// The names under which the master is known.
pub fn names(cluster_id: &str) -> impl Iterator<Item = &str> {
    let usual = (cluster_id != USUAL_NAME).then_some(USUAL_NAME);
    std::iter::once(cluster_id).chain(usual)
}

/// Refuses a name that is not the master's.
pub(super) fn check_name(node: &NodeInfo, name: &[u8]) -> Result<(), Reply> {
    match names(&node.cluster_id).any(|known| known.as_bytes() == name) {
        true => Ok(()),
        false => Err(Reply::error("ERR No such master with that name")),
    }
}

/// SENTINEL GET-MASTER-ADDR-BY-NAME
pub(super) fn master_address(node: &NodeInfo, name: &[u8]) -> Reply {
    let topology = Topology::of(node);
    match (check_name(node, name), topology.master()) {
        (Ok(()), Some(master)) => {
            Reply::Array(vec![text(master.host), text(&master.port.to_string())])
        }
        _ => Reply::NullArray,
    }
}

/// SENTINEL MASTERS
pub(super) fn masters(node: &NodeInfo) -> Reply {
    Reply::Array(names(&node.cluster_id).map(|name| describe_master(node, name)).collect())
}

/// SENTINEL MASTER
pub(super) fn master(node: &NodeInfo, name: &[u8]) -> Reply {
    match check_name(node, name) {
        Ok(()) => describe_master(node, &String::from_utf8_lossy(name)),
        Err(unknown) => unknown,
    }
}

fn describe_master(node: &NodeInfo, name: &str) -> Reply {
    let topology = Topology::of(node);
    let flags = match topology.master {
        Some(_) => "master",
        None => "s_down,o_down,master,disconnected",
    };
    let others = topology.members.len() - 1;
    let shown = topology.shown_master();
    let silent_ms = shown.map_or(0, |master| master.silent_ms);
    let mut fields = common_fields(node, name.to_owned(), shown, flags);
    fields.extend([
        ("info-refresh", silent_ms.to_string()),
        ("role-reported", "master".to_owned()),
        ("config-epoch", node.epoch.to_string()),
        ("num-slaves", others.to_string()),
        ("num-other-sentinels", others.to_string()),
        ("quorum", majority(&topology).to_string()),
        ("failover-timeout", (2 * node.lease_ms).to_string()),
        ("parallel-syncs", others.to_string()),
    ]);
    map(fields)
}

/// SENTINEL REPLICAS and SLAVES
pub(super) fn replicas(node: &NodeInfo, name: &[u8]) -> Reply {
    if let Err(unknown) = check_name(node, name) {
        return unknown;
    }
    let topology = Topology::of(node);
    let master = topology.shown_master();
    let describe = |member: &Member| {
        let flags = if member.reachable { "slave" } else { "s_down,slave,disconnected" };
        let link = if topology.master.is_some() && member.reachable { "ok" } else { "err" };
        let mut fields = common_fields(node, member.place(), Some(member), flags);
        fields.extend([
            ("info-refresh", member.silent_ms.to_string()),
            ("role-reported", "slave".to_owned()),
            ("master-link-status", link.to_owned()),
            ("master-host", master.map_or(String::new(), |master| master.host.to_owned())),
            ("master-port", master.map_or(0, |master| master.port).to_string()),
            // Fixed: any replica may become master as well as another.
            ("slave-priority", "100".to_owned()),
            ("slave-repl-offset", member.offset.to_string()),
            ("replica-announced", "1".to_owned()),
        ]);
        map(fields)
    };
    Reply::Array(topology.replicas().map(describe).collect())
}

/// SENTINEL SENTINELS: every node is one; the one that answers is left out, as Redis does.
pub(super) fn sentinels(node: &NodeInfo, name: &[u8]) -> Reply {
    if let Err(unknown) = check_name(node, name) {
        return unknown;
    }
    let topology = Topology::of(node);
    let describe = |member: &Member| {
        let flags = if member.reachable { "sentinel" } else { "s_down,sentinel,disconnected" };
        let mut fields = common_fields(node, member.id.clone(), Some(member), flags);
        fields.extend([
            ("last-hello-message", member.silent_ms.to_string()),
            // Fixed: nobody votes as a Sentinel does.
            ("voted-leader", "?".to_owned()),
            ("voted-leader-epoch", "0".to_owned()),
        ]);
        map(fields)
    };
    let others = topology.members.iter().filter(|member| !member.own);
    Reply::Array(others.map(describe).collect())
}

type Fields = Vec<(&'static str, String)>;

/// What a description begins with, whatever it describes. `member` is not there before the first
/// master is known.
fn common_fields(node: &NodeInfo, name: String, member: Option<&Member>, flags: &str) -> Fields {
    let (host, port) = member.map_or(("", 0), |member| (member.host, member.port));
    let id = member.map_or(String::new(), |member| member.id.clone());
    let silent_ms = member.map_or(0, |member| member.silent_ms).to_string();
    vec![
        ("name", name),
        ("ip", host.to_owned()),
        ("port", port.to_string()),
        ("runid", id),
        ("flags", flags.to_owned()),
        // Fixed: nodes hear of each other all the time, and nothing of it waits on a link.
        ("link-pending-commands", "0".to_owned()),
        ("link-refcount", "1".to_owned()),
        ("last-ping-sent", "0".to_owned()),
        ("last-ok-ping-reply", silent_ms.clone()),
        ("last-ping-reply", silent_ms),
        ("down-after-milliseconds", node.lease_ms.to_string()),
    ]
}

/// SENTINEL CKQUORUM
pub(super) fn check_quorum(node: &NodeInfo, name: &[u8]) -> Reply {
    if let Err(unknown) = check_name(node, name) {
        return unknown;
    }
    let topology = Topology::of(node);
    let usable = topology.members.iter().filter(|member| member.reachable).count();
    match usable >= majority(&topology) {
        true => Reply::Simple(
            format!(
                "OK {usable} usable Sentinels. Quorum and failover authorization can be reached"
            )
            .into(),
        ),
        false => Reply::error(format!(
            "NOQUORUM {usable} usable Sentinels. Not enough available Sentinels to reach the \
             majority and authorize a failover"
        )),
    }
}

/// SENTINEL IS-MASTER-DOWN-BY-ADDR, with its four arguments. No vote is given: the nodes elect a
/// master in their own way.
pub(super) fn is_master_down(node: &NodeInfo, args: &[bytes::Bytes]) -> Reply {
    let (Some(port), Some(_)) = (integer(&args[1]), integer(&args[2])) else {
        return crate::command::parse::NOT_AN_INTEGER;
    };
    let topology = Topology::of(node);
    let down = topology.master.is_none()
        && topology.shown_master().is_some_and(|master| {
            master.host.as_bytes() == args[0] && i64::from(master.port) == port
        });
    Reply::Array(vec![Reply::Integer(i64::from(down)), text("*"), Reply::Integer(0)])
}

/// SENTINEL MYID
pub(super) fn my_id(node: &NodeInfo) -> Reply {
    Reply::bulk(node_id(&node.cluster_id, &node.name))
}

/// SENTINEL RESET
pub(super) fn reset(node: &NodeInfo, pattern: &[u8]) -> Reply {
    let matching = names(&node.cluster_id).filter(|name| glob::matches_name(pattern, name)).count();
    Reply::Integer(matching as i64)
}

/// Sentinel's error when there is nobody to hand over to.
pub(super) fn no_good_replica(reason: &str) -> Reply {
    Reply::error(format!(
        "NOGOODSLAVE No suitable replica to promote: {}",
        shown(reason.as_bytes())
    ))
}

fn majority(topology: &Topology) -> usize {
    topology.members.len() / 2 + 1
}

fn text(text: &str) -> Reply {
    Reply::bulk(text.to_owned())
}

fn map(fields: Fields) -> Reply {
    let pair = |(name, value)| (Reply::bulk(name), Reply::bulk(value));
    Reply::Map(fields.into_iter().map(pair).collect())
}
