//! A network namespace per node, all on one bridge, where the clients are too; and links that can
//! be cut, each direction by itself.
//!
//! A cut direction drops what arrives, in the receiver's namespace: as with a broken cable, nobody
//! is told. Left out: delay and loss, which need a kernel module that is not everywhere.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::enclosure::run;

/// Nodes have the addresses 1 and up, the clients this.
const CLIENTS_HOST: usize = 254;
const CLIENT_PORT: u16 = 4000;
const PEER_PORT: u16 = 4500;

/// One end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    Node(usize),
    Clients,
}

/// A direction: what the first sends to the second.
pub type Link = (End, End);

/// Both directions.
pub fn both_ways(a: End, b: End) -> [Link; 2] {
    [(a, b), (b, a)]
}

fn ip(end: End) -> String {
    let host = match end {
        End::Node(seat) => seat + 1,
        End::Clients => CLIENTS_HOST,
    };
    format!("10.77.0.{host}")
}

/// Where clients reach a node.
pub fn client_address(seat: usize) -> String {
    format!("{}:{CLIENT_PORT}", ip(End::Node(seat)))
}

/// Where other nodes reach a node.
pub fn peer_address(seat: usize) -> String {
    format!("{}:{PEER_PORT}", ip(End::Node(seat)))
}

/// The name of a node's network namespace, and its file.
pub fn namespace_file(seat: usize) -> String {
    format!("/run/netns/{}", namespace(seat))
}

fn namespace(seat: usize) -> String {
    format!("n{}", seat + 1)
}

/// The bridge and the nodes' namespaces; gone with the enclosure.
pub struct Network {
    /// How many faults cut each direction now.
    cut: BTreeMap<Link, usize>,
}

impl Network {
    pub fn make(nodes: usize) -> anyhow::Result<Network> {
        run(&["ip", "link", "set", "lo", "up"])?;
        run(&["ip", "link", "add", "bridge", "type", "bridge"])?;
        let clients = format!("{}/24", ip(End::Clients));
        run(&["ip", "address", "add", &clients, "dev", "bridge"])?;
        run(&["ip", "link", "set", "bridge", "up"])?;
        for seat in 0..nodes {
            let name = namespace(seat);
            let cable = format!("to-{name}");
            let address = format!("{}/24", ip(End::Node(seat)));
            run(&["ip", "netns", "add", &name])?;
            run(&[
                "ip", "link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &name,
            ])?;
            run(&["ip", "link", "set", &cable, "master", "bridge", "up"])?;
            run(&["ip", "-n", &name, "address", "add", &address, "dev", "eth0"])?;
            run(&["ip", "-n", &name, "link", "set", "eth0", "up"])?;
            run(&["ip", "-n", &name, "link", "set", "lo", "up"])?;
            filter(
                seat,
                "add table ip chaos\n\
                 add chain ip chaos arrives { type filter hook input priority 0; }\n\
                 add chain ip chaos leaves { type filter hook output priority 0; }\n",
            )?;
        }
        Ok(Network { cut: BTreeMap::new() })
    }

    /// One more fault cuts these directions.
    pub fn cut(&mut self, links: &[Link]) -> anyhow::Result<()> {
        for link in links {
            *self.cut.entry(*link).or_default() += 1;
        }
        self.apply(links)
    }

    /// One fault fewer cuts them.
    pub fn mend(&mut self, links: &[Link]) -> anyhow::Result<()> {
        for link in links {
            let faults = self.cut.get_mut(link).expect("what is mended was cut");
            *faults -= 1;
            if *faults == 0 {
                self.cut.remove(link);
            }
        }
        self.apply(links)
    }

    fn apply(&self, changed: &[Link]) -> anyhow::Result<()> {
        let mut ends: Vec<End> = changed.iter().flat_map(|(from, to)| [*from, *to]).collect();
        ends.sort_unstable();
        ends.dedup();
        for end in ends {
            let End::Node(seat) = end else { continue };
            // In one transaction: there is no moment at which old cuts are open.
            let mut rules =
                "flush chain ip chaos arrives\nflush chain ip chaos leaves\n".to_string();
            for (from, _) in self.cut.keys().filter(|(_, to)| *to == end) {
                rules += &format!("add rule ip chaos arrives ip saddr {} drop\n", ip(*from));
            }
            // The clients have no filter: what a node sends them is dropped as it leaves.
            if self.cut.contains_key(&(end, End::Clients)) {
                let clients = ip(End::Clients);
                rules += &format!("add rule ip chaos leaves ip daddr {clients} drop\n");
            }
            filter(seat, &rules)?;
        }
        Ok(())
    }
}

/// Changes a node's filter, all or nothing.
fn filter(seat: usize, rules: &str) -> anyhow::Result<()> {
    let mut nft = Command::new("ip")
        .args(["netns", "exec", &namespace(seat), "nft", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("nft does not start")?;
    nft.stdin.take().expect("it is piped").write_all(rules.as_bytes())?;
    let output = nft.wait_with_output()?;
    if !output.status.success() {
        bail!("nft: {}\n{rules}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
