//! The scripts' commands.
//!
//! - `cluster nodes=3 [lease=500ms] [zones="a,a,b"] [leader=n1] [chunk=BYTES] [cache=BYTES] [empty]`:
//!   starts anew; founded, unless `empty`; with `leader` that node has been elected.
//! - `run 500ms`: time passes for all; messages arrive at once. `settle`: messages arrive, no time.
//! - `tick n1 10ms`: time passes, but only that node looks at its clock.
//! - `elect n3`: time passes for that node only until it canvasses; what it sends stays in the bag.
//! - `deliver n1 n2 [Kind]`, `drop n1 n2 [Kind]`, `repeat n1 n2 [Kind]`: what is in the bag from one
//!   to the other arrives, is lost, or arrives and stays. `bag`: what is there.
//! - `slow n1 n2`: messages of that link wait in the bag, until `fast n1 n2`.
//!   `cut-off n2`: all links of a node are slow. `mend`: no link is slow.
//! - `stall n1`, `wake n1`: that process does not look at its clock meanwhile.
//! - `isolate n3 ...`, `heal`: the network loses all messages of a node.
//! - `hold-disk n2`, `sync n2`, `free-disk n2`: saves wait, reach the disk once, or at once again.
//! - `crash n2` (what was not synced is lost), `restart n2`, `wipe n2 [life]`.
//! - `propose n1 a b`, `step-down n1`, `hand-over n1`, `collapse n1 5`, `head n2 from=n1`.
//! - `state`, `log n2`, `heartbeats on`.

use std::error::Error;

use arakoon::paxos::{Incarnation, Index, NodeId, Settings, Value};
use goldenscript::{Command, Context};

use crate::cluster::Cluster;
use crate::text;

#[derive(Default)]
pub struct ScriptRunner {
    cluster: Option<Cluster>,
}

type Failure = Box<dyn Error>;

impl goldenscript::Runner for ScriptRunner {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Failure> {
        if command.name == "cluster" {
            self.cluster = Some(start(command)?);
            return Ok(String::new());
        }
        let cluster = self.cluster.as_mut().ok_or("no cluster yet")?;
        act(cluster, command)?;
        Ok(std::mem::take(&mut cluster.trace))
    }
}

fn start(command: &Command) -> Result<Cluster, Failure> {
    let mut arguments = command.consume_args();
    let seats = arguments.take_key("nodes").unwrap_or("3").parse()?;
    let lease_us = span_us(arguments.take_key("lease").unwrap_or("500ms"))?;
    let mut settings = Settings::new(NodeId(0), Incarnation(1), seats, lease_us);
    if let Some(zones) = arguments.take_key("zones") {
        settings.zones = zones.split(',').map(String::from).collect();
    }
    if let Some(bytes) = arguments.take_key("chunk") {
        settings.chunk_bytes_max = bytes.parse()?;
    }
    if let Some(bytes) = arguments.take_key("cache") {
        settings.cache_bytes_max = bytes.parse()?;
    }
    let leader = arguments.take_key("leader").map(text::node).transpose()?;
    let founded = arguments.next_pos() != Some("empty");
    arguments.reject_next()?;
    let mut cluster = Cluster::new(settings, founded);
    if let Some(leader) = leader {
        elect(&mut cluster, leader)?;
        cluster.settle();
        if !cluster.replica(leader)?.is_leader() {
            return Err(format!("{leader} was not elected").into());
        }
        cluster.run(1_000);
    }
    cluster.trace.clear();
    Ok(cluster)
}

fn act(cluster: &mut Cluster, command: &Command) -> Result<(), Failure> {
    let mut arguments = command.consume_args();
    match command.name.as_str() {
        "run" => cluster.run(span_us(arguments.next_pos().ok_or("how long?")?)?),
        "settle" => cluster.settle(),
        "tick" => {
            let node = next_node(&mut arguments)?;
            cluster.now_us += span_us(arguments.next_pos().unwrap_or("1ms"))?;
            cluster.tick(node);
        }
        "elect" => elect(cluster, next_node(&mut arguments)?)?,
        "deliver" | "drop" | "repeat" => pick(cluster, &command.name, &mut arguments)?,
        "bag" => {
            let lines: Vec<String> = cluster
                .bag
                .iter()
                .map(|e| format!("{} -> {} {}", e.from, e.to, text::message(&e.message)))
                .collect();
            lines.iter().for_each(|line| cluster.note(line));
        }
        "slow" => {
            let link = (next_node(&mut arguments)?, next_node(&mut arguments)?);
            cluster.slow.insert(link);
        }
        "cut-off" => {
            let node = next_node(&mut arguments)?;
            for other in (0..cluster.nodes.len() as u8).map(NodeId) {
                cluster.slow.insert((node, other));
                cluster.slow.insert((other, node));
            }
        }
        "mend" => cluster.slow.clear(),
        "fast" => {
            let link = (next_node(&mut arguments)?, next_node(&mut arguments)?);
            cluster.slow.remove(&link);
        }
        "isolate" => {
            while let Some(name) = arguments.next_pos() {
                cluster.isolated.insert(text::node(name)?);
            }
        }
        "heal" => cluster.isolated.clear(),
        "stall" => {
            let node = next_node(&mut arguments)?;
            cluster.stalled.insert(node);
        }
        "wake" => {
            let node = next_node(&mut arguments)?;
            cluster.stalled.remove(&node);
        }
        "hold-disk" => set_disk(cluster, next_node(&mut arguments)?, true),
        "free-disk" => {
            let node = next_node(&mut arguments)?;
            set_disk(cluster, node, false);
            cluster.sync(node);
        }
        "sync" => cluster.sync(next_node(&mut arguments)?),
        "crash" => cluster.crash(next_node(&mut arguments)?),
        "restart" => cluster.start(next_node(&mut arguments)?),
        "wipe" => {
            let node = next_node(&mut arguments)?;
            let life = match arguments.next_pos() {
                Some(life) => Incarnation(life.parse()?),
                None => Incarnation(cluster.nodes[usize::from(node.0)].life.0 + 1),
            };
            cluster.wipe(node, life);
        }
        "propose" => {
            let node = next_node(&mut arguments)?;
            while let Some(value) = arguments.next_pos() {
                let value = Value::Batch(value.as_bytes().to_vec().into());
                let position = cluster.replica(node)?.propose(value)?;
                cluster.note(format!("{node}: proposed at {}", position.index));
            }
            cluster.flush(node);
        }
        "step-down" => {
            let node = next_node(&mut arguments)?;
            cluster.replica(node)?.step_down("it was told to");
            cluster.flush(node);
        }
        "hand-over" => {
            let node = next_node(&mut arguments)?;
            cluster.replica(node)?.hand_over("it was told to");
            cluster.flush(node);
        }
        "collapse" => {
            let node = next_node(&mut arguments)?;
            let index = arguments.next_pos().ok_or("to which index?")?.parse()?;
            cluster.collapse(node, Index(index))?;
        }
        "head" => {
            let from = text::node(arguments.take_key("from").ok_or("from=?")?)?;
            let node = next_node(&mut arguments)?;
            let taken = cluster.install_head(node, from)?;
            cluster.note(format!("{node}: head taken={taken}"));
        }
        "state" => {
            for seat in 0..cluster.nodes.len() as u8 {
                let line = cluster.state_text(NodeId(seat));
                cluster.note(line);
            }
        }
        "log" => {
            while let Some(name) = arguments.next_pos() {
                let line = cluster.log_text(text::node(name)?);
                cluster.note(line);
            }
        }
        "heartbeats" => cluster.show_heartbeats = arguments.next_pos() == Some("on"),
        name => return Err(format!("no such command: {name}").into()),
    }
    arguments.reject_next()
}

fn set_disk(cluster: &mut Cluster, node: NodeId, held: bool) {
    cluster.nodes[usize::from(node.0)].disk_held = held;
}

/// Ten leases at most: by then nothing that was granted still runs.
fn elect(cluster: &mut Cluster, node: NodeId) -> Result<(), Failure> {
    for _ in 0..cluster.lease_us() / 100 {
        cluster.now_us += 1_000;
        cluster.tick(node);
        let canvasses =
            |e: &crate::cluster::Envelope| e.from == node && e.message.name() == "Canvass";
        if cluster.bag.iter().any(canvasses) {
            return Ok(());
        }
    }
    Err(format!("{node} does not canvass").into())
}

/// Delivers, drops or repeats what is in the bag now, not what follows from it.
fn pick(
    cluster: &mut Cluster,
    what: &str,
    arguments: &mut goldenscript::ArgumentConsumer<'_>,
) -> Result<(), Failure> {
    let link = (next_node(arguments)?, next_node(arguments)?);
    let kind = arguments.next_pos();
    let fits = |e: &crate::cluster::Envelope| {
        (e.from, e.to) == link && kind.is_none_or(|kind| e.message.name() == kind)
    };
    let mut left = cluster.bag.iter().filter(|e| fits(e)).count();
    if left == 0 {
        cluster.note(format!("nothing like that from {} to {}", link.0, link.1));
        return Ok(());
    }
    let mut place = 0;
    while left > 0 {
        if !fits(&cluster.bag[place]) {
            place += 1;
            continue;
        }
        left -= 1;
        match what {
            "deliver" => cluster.deliver(place, false),
            "repeat" => {
                cluster.deliver(place, true);
                place += 1;
            }
            _ => {
                let lost = cluster.bag.remove(place);
                let (from, to) = link;
                cluster.note(format!("lost: {from} -> {to} {}", text::message(&lost.message)));
            }
        }
    }
    Ok(())
}

fn next_node(arguments: &mut goldenscript::ArgumentConsumer<'_>) -> Result<NodeId, Failure> {
    Ok(text::node(arguments.next_pos().ok_or("which node?")?)?)
}

fn span_us(text: &str) -> Result<u64, Failure> {
    match text.strip_suffix("ms") {
        Some(digits) => Ok(digits.parse::<u64>()? * 1_000),
        None => Err(format!("not a span: {text}").into()),
    }
}
