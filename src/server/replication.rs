//! ROLE and the section `replication` of INFO, in Redis' form, for whatever watches Redis: HAProxy's
//! tcp-check, exporters, and clients that ask a server whether it is the master.
//!
//! Offsets are indexes of the log. A replica's lag is in seconds since it was heard, as in Redis.

use std::fmt::Display;

use bytes::Bytes;
use resp::Reply;

use super::topology::{Topology, replication_id};
use super::{NodeInfo, NodeRole};

/// ROLE's reply, with Redis' words for clients that act on them.
pub(super) fn role(node: &NodeInfo) -> Reply {
    let text = |text: &str| Reply::Bulk(Bytes::copy_from_slice(text.as_bytes()));
    let topology = Topology::of(node);
    if node.role == NodeRole::Master {
        let replicas = topology.replicas().filter(|member| member.reachable).map(|member| {
            let (port, offset) = (member.port.to_string(), member.offset.to_string());
            Reply::Array(vec![text(member.host), text(&port), text(&offset)])
        });
        let offset = Reply::Integer(node.applied_index as i64);
        return Reply::Array(vec![text("master"), offset, Reply::Array(replicas.collect())]);
    }
    let shown = topology.shown_master();
    let (host, port) = shown.map_or(("", 0), |master| (master.host, master.port));
    let state = if topology.master.is_some() { "connected" } else { "connect" };
    Reply::Array(vec![
        text("slave"),
        text(host),
        Reply::Integer(i64::from(port)),
        text(state),
        Reply::Integer(node.applied_index as i64),
    ])
}

/// The lines of INFO's section.
pub(super) fn section(node: &NodeInfo, add: &mut dyn FnMut(&str, &dyn Display)) {
    let topology = Topology::of(node);
    if node.role == NodeRole::Master {
        add("role", &"master");
        let replicas: Vec<_> = topology.replicas().filter(|member| member.reachable).collect();
        add("connected_slaves", &replicas.len());
        for (number, member) in replicas.iter().enumerate() {
            let (host, port, offset) = (member.host, member.port, member.offset);
            let lag = member.silent_ms / 1000;
            let value = format!("ip={host},port={port},state=online,offset={offset},lag={lag}");
            add(&format!("slave{number}"), &value);
        }
    } else {
        let shown = topology.shown_master();
        add("role", &"slave");
        add("master_host", &shown.map_or("", |master| master.host));
        add("master_port", &shown.map_or(0, |master| master.port));
        let up = topology.master.is_some();
        add("master_link_status", &if up { "up" } else { "down" });
        match topology.master() {
            Some(master) => add("master_last_io_seconds_ago", &(master.silent_ms / 1000)),
            None => add("master_last_io_seconds_ago", &-1),
        }
        add("master_sync_in_progress", &u8::from(node.catching_up));
        add("slave_read_repl_offset", &node.last_index);
        add("slave_repl_offset", &node.applied_index);
        if !up {
            add("master_link_down_since_seconds", &(node.master_lost_ms / 1000));
        }
        add("slave_priority", &100);
        add("slave_read_only", &1);
        add("replica_announced", &1);
        add("connected_slaves", &0);
    }
    add("master_failover_state", &node.handover);
    add("master_replid", &replication_id(&node.cluster_id));
    add("master_replid2", &"0".repeat(40));
    add("master_repl_offset", &node.applied_index);
    add("second_repl_offset", &-1);
    // A replica is caught up from the log and from heads; there is no buffer of its own for that.
    add("repl_backlog_active", &0);
    add("repl_backlog_size", &0);
    add("repl_backlog_first_byte_offset", &0);
    add("repl_backlog_histlen", &0);
}
