//! Which node is where and what, in the form in which Redis clients ask for it.
//!
//! Clients know three kinds of place to ask: a replica (ROLE, INFO), a cluster (CLUSTER) and a
//! Sentinel (SENTINEL). All are answered from one [`Topology`], so that they never contradict each
//! other. Where no master is known, the last one stays in the tables, marked as failed.

use super::NodeInfo;
use super::info::host_and_port;

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// 40 hexadecimal digits, the same for this node at any time.
    pub id: String,
    /// Host name or address, without brackets.
    pub host: &'a str,
    /// Of clients.
    pub port: u16,
    /// It is the one that answers.
    pub own: bool,
    /// It can be reached from the one that answers.
    pub reachable: bool,
    /// The last entry that it is known to have.
    pub offset: u64,
    /// Milliseconds since it was heard; 0: just now, or not known.
    pub silent_ms: u64,
}

impl Member<'_> {
    /// As Redis writes it: host and port, an IPv6 address without brackets.
    pub fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// All nodes, the one that answers first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology<'a> {
    /// The nodes.
    pub members: Vec<Member<'a>>,
    /// The master's place in `members`, if one is known now.
    pub master: Option<usize>,
    /// The same, or that of the last one known.
    pub last_master: Option<usize>,
}

impl<'a> Topology<'a> {
    /// As the node knows it.
    pub fn of(node: &'a NodeInfo) -> Topology<'a> {
        let own = Member {
            id: node_id(&node.cluster_id, &node.name),
            own: true,
            reachable: true,
            offset: node.applied_index,
            silent_ms: 0,
            ..at(&node.address)
        };
        let others = node.peers.iter().map(|peer| Member {
            id: node_id(&node.cluster_id, &peer.name),
            own: false,
            reachable: peer.reachable,
            offset: peer.applied_index,
            silent_ms: peer.silent_ms,
            ..at(&peer.address)
        });
        let addresses: Vec<&str> = std::iter::once(node.address.as_str())
            .chain(node.peers.iter().map(|peer| peer.address.as_str()))
            .collect();
        let find = |wanted: &Option<String>| {
            let wanted = wanted.as_deref()?;
            addresses.iter().position(|address| *address == wanted)
        };
        let master = find(&node.master_address);
        let last_master = master.or_else(|| find(&node.last_master_address));
        Topology { members: std::iter::once(own).chain(others).collect(), master, last_master }
    }

    /// The master that the tables show: the present one, or the last.
    pub fn shown_master(&self) -> Option<&Member<'a>> {
        self.last_master.map(|at| &self.members[at])
    }

    /// The present master.
    pub fn master(&self) -> Option<&Member<'a>> {
        self.master.map(|at| &self.members[at])
    }

    /// All but the master that the tables show.
    pub fn replicas(&self) -> impl Iterator<Item = &Member<'a>> {
        let members = self.members.iter().enumerate();
        members.filter(|(at, _)| Some(*at) != self.last_master).map(|(_, member)| member)
    }

    /// Whether the master that the tables show is the present one and can be reached.
    pub fn is_up(&self, member: &Member) -> bool {
        let is_shown = self.shown_master().is_some_and(|master| master.id == member.id);
        if is_shown { self.master.is_some() } else { member.reachable }
    }
}

fn at(address: &str) -> Member<'_> {
    let (host, port) = host_and_port(address);
    Member {
        id: String::new(),
        host,
        port: port.parse().unwrap_or(0),
        own: false,
        reachable: false,
        offset: 0,
        silent_ms: 0,
    }
}

/// The id of a node, for ever: the config refuses to change its name.
pub fn node_id(cluster_id: &str, name: &str) -> String {
    digits(&["node", cluster_id, name])
}

/// The id of the one shard that all nodes are.
pub fn shard_id(cluster_id: &str) -> String {
    digits(&["shard", cluster_id])
}

/// The id of the one history that all nodes replicate.
pub fn replication_id(cluster_id: &str) -> String {
    digits(&["replication", cluster_id])
}

/// 40 hexadecimal digits that stand for these parts.
fn digits(parts: &[&str]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex()[..40].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::PeerInfo;

    fn node(address: &str) -> NodeInfo {
        let peer = |name: &str, address: &str| PeerInfo {
            name: name.to_owned(),
            address: address.to_owned(),
            reachable: true,
            ..PeerInfo::default()
        };
        NodeInfo {
            cluster_id: "demo".to_owned(),
            name: "n1".to_owned(),
            address: address.to_owned(),
            peers: vec![peer("n2", "db2.example:4000"), peer("n3", "[::2]:4000")],
            ..NodeInfo::default()
        }
    }

    #[test]
    fn ids_are_of_40_digits_and_stay() {
        assert_eq!(node_id("demo", "n1"), node_id("demo", "n1"));
        let ids = [node_id("demo", "n1"), node_id("demo", "n2"), node_id("other", "n1")];
        let ids = ids.into_iter().chain([shard_id("demo"), replication_id("demo")]);
        let ids: std::collections::BTreeSet<String> = ids.collect();
        assert_eq!(ids.len(), 5);
        assert!(ids.iter().all(|id| id.len() == 40 && id.bytes().all(|b| b.is_ascii_hexdigit())));
    }

    #[test]
    fn hosts_may_be_names_and_ipv6_addresses() {
        let node =
            NodeInfo { master_address: Some("[::2]:4000".to_owned()), ..node("[fe80::1]:4000") };
        let topology = Topology::of(&node);
        let places: Vec<String> = topology.members.iter().map(Member::place).collect();
        assert_eq!(places, ["fe80::1:4000", "db2.example:4000", "::2:4000"]);
        assert_eq!(topology.master().map(Member::place), Some("::2:4000".to_owned()));
        assert_eq!(topology.replicas().count(), 2);
    }

    #[test]
    fn the_last_master_stays_shown() {
        let mut node = node("h:1");
        assert_eq!(Topology::of(&node).shown_master(), None);
        node.last_master_address = Some("h:1".to_owned());
        let topology = Topology::of(&node);
        assert_eq!((topology.master, topology.last_master), (None, Some(0)));
        assert!(!topology.is_up(&topology.members[0]) && topology.is_up(&topology.members[1]));
    }
}
