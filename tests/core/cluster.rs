//! A cluster of replicas under full control: one bag of messages, one clock, disks that can be
//! held, and nothing that happens by itself.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use arakoon::paxos::{
    DurableState, Entry, Incarnation, Index, Message, NodeId, Position, ReadRequest, Ready,
    Recovered, Replica, Save, Settings, Value,
};

use crate::text;

/// What a node's disk holds.
#[derive(Clone, Default)]
pub struct Disk {
    state: DurableState,
    base: Position,
    entries: Vec<Entry>,
    chosen: Index,
}

impl Disk {
    fn apply(&mut self, save: &Save) {
        if let Some(position) = save.reset_to {
            self.base = position;
            self.entries.clear();
        }
        if let Some(from) = save.truncate_from {
            self.entries.retain(|entry| entry.index < from);
        }
        for entry in &save.entries {
            let last = self.entries.last().map_or(self.base.index, |entry| entry.index);
            assert_eq!(entry.index, last.next(), "a save leaves a hole");
            self.entries.push(entry.clone());
        }
        if let Some(state) = &save.state {
            self.state = state.clone();
        }
        self.chosen = self.chosen.max(save.chosen);
    }

    fn recovered(&self) -> Recovered {
        let mut runs: Vec<(Index, arakoon::paxos::Ballot)> = Vec::new();
        for entry in &self.entries {
            if runs.last().is_none_or(|(_, ballot)| *ballot != entry.ballot) {
                runs.push((entry.index, entry.ballot));
            }
        }
        let admissions = self.entries.iter().filter_map(|entry| match entry.value {
            Value::Admit { node, incarnation } => Some((entry.index, node, incarnation)),
            _ => None,
        });
        Recovered {
            state: self.state.clone(),
            base: self.base,
            last: self.entries.last().map_or(self.base.index, |entry| entry.index),
            chosen: self.chosen,
            runs,
            admissions: admissions.collect(),
        }
    }
}

pub struct Node {
    pub replica: Option<Replica>,
    pub life: Incarnation,
    pub disk: Disk,
    /// Handed out by the replica, not on disk yet.
    unsynced: Vec<Save>,
    /// Reads of the transaction log to be answered.
    reads: Vec<ReadRequest>,
    pub disk_held: bool,
}

pub struct Envelope {
    pub from: NodeId,
    life: Incarnation,
    pub to: NodeId,
    pub message: Message,
}

pub struct Cluster {
    pub nodes: Vec<Node>,
    pub bag: Vec<Envelope>,
    pub now_us: u64,
    settings: Settings,
    /// Nodes whose messages are lost, both ways.
    pub isolated: BTreeSet<NodeId>,
    /// Links whose messages wait in the bag.
    pub slow: BTreeSet<(NodeId, NodeId)>,
    /// Nodes whose process does not run.
    pub stalled: BTreeSet<NodeId>,
    /// Show heartbeats, too.
    pub show_heartbeats: bool,
    pub trace: String,
}

impl Cluster {
    /// `founded`: every seat knows the others' first lives and votes.
    pub fn new(settings: Settings, founded: bool) -> Cluster {
        let seats = settings.seats;
        let mut disk = Disk::default();
        if founded {
            disk.state.members = vec![Incarnation(1); seats];
            disk.state.voting = true;
        }
        let node = || Node {
            replica: None,
            life: Incarnation(1),
            disk: disk.clone(),
            unsynced: Vec::new(),
            reads: Vec::new(),
            disk_held: false,
        };
        let mut cluster = Cluster {
            nodes: (0..seats).map(|_| node()).collect(),
            bag: Vec::new(),
            now_us: 1_000_000,
            settings,
            isolated: BTreeSet::new(),
            slow: BTreeSet::new(),
            stalled: BTreeSet::new(),
            show_heartbeats: false,
            trace: String::new(),
        };
        for seat in 0..seats {
            cluster.start(NodeId(seat as u8));
        }
        cluster
    }

    pub fn note(&mut self, line: impl AsRef<str>) {
        writeln!(self.trace, "{}", line.as_ref()).expect("a string takes any text");
    }

    fn node(&mut self, node: NodeId) -> &mut Node {
        &mut self.nodes[usize::from(node.0)]
    }

    pub fn replica(&mut self, node: NodeId) -> Result<&mut Replica, String> {
        self.node(node).replica.as_mut().ok_or_else(|| format!("{node} is down"))
    }

    pub fn start(&mut self, node: NodeId) {
        let (now_us, settings) = (self.now_us, self.settings.clone());
        let state = self.node(node);
        let settings = Settings { node, incarnation: state.life, ..settings };
        let seed = u64::from(node.0) + 1;
        state.replica = Some(Replica::new(settings, state.disk.recovered(), seed, now_us));
        self.flush(node);
    }

    /// The process is gone, and with it what was not synced.
    pub fn crash(&mut self, node: NodeId) {
        let state = self.node(node);
        state.replica = None;
        state.unsynced.clear();
        state.reads.clear();
    }

    /// The disk is gone, too; the node starts as another life.
    pub fn wipe(&mut self, node: NodeId, life: Incarnation) {
        self.crash(node);
        let state = self.node(node);
        state.disk = Disk::default();
        state.life = life;
    }

    /// Takes what the replica wants done, until it wants nothing more.
    pub fn flush(&mut self, node: NodeId) {
        loop {
            let life = self.node(node).life;
            let Some(replica) = self.node(node).replica.as_mut() else { return };
            let Ready { saves, messages, reads, events } = replica.take_ready();
            if saves.is_empty() && messages.is_empty() && reads.is_empty() && events.is_empty() {
                return;
            }
            for event in events {
                self.note(format!("{node}: {}", text::event(&event)));
            }
            self.node(node).unsynced.extend(saves);
            for (to, message) in messages {
                assert_ne!(to, node, "{node} talks to itself: {message:?}");
                self.bag.push(Envelope { from: node, life, to, message });
            }
            self.node(node).reads.extend(reads);
            if !self.node(node).disk_held {
                self.sync(node);
                self.read(node);
            }
        }
    }

    /// Everything handed out reaches the disk.
    pub fn sync(&mut self, node: NodeId) {
        let now_us = self.now_us;
        let state = self.node(node);
        let saves = std::mem::take(&mut state.unsynced);
        let Some(last) = saves.last().map(|save| save.id) else { return };
        for save in &saves {
            state.disk.apply(save);
        }
        state.replica.as_mut().expect("saves come from a running replica").saved(now_us, last);
        self.flush(node);
    }

    fn read(&mut self, node: NodeId) {
        let now_us = self.now_us;
        for request in std::mem::take(&mut self.node(node).reads) {
            let state = self.node(node);
            let entries = state.disk.entries.iter();
            let wanted = entries.filter(|e| e.index >= request.from && e.index <= request.to);
            let entries: Vec<Entry> = wanted.take(2).cloned().collect();
            let Some(replica) = state.replica.as_mut() else { return };
            replica.entries_read(now_us, request, entries);
        }
    }

    pub fn tick(&mut self, node: NodeId) {
        let now_us = self.now_us;
        let Some(replica) = self.node(node).replica.as_mut() else { return };
        replica.tick(now_us);
        self.flush(node);
    }

    /// Whether an envelope would be lost now.
    fn lost(&self, envelope: &Envelope) -> bool {
        self.isolated.contains(&envelope.from) || self.isolated.contains(&envelope.to)
    }

    /// Takes the envelope at `place` out of the bag and gives it to its receiver.
    pub fn deliver(&mut self, place: usize, copy: bool) {
        let Envelope { from, life, to, message } = self.bag.remove(place);
        if copy {
            let message = message.clone();
            self.bag.insert(place, Envelope { from, life, to, message });
        }
        let heartbeat =
            matches!(message, Message::Heartbeat { .. } | Message::HeartbeatReply { .. });
        if self.show_heartbeats || !heartbeat {
            let life = if life == Incarnation(1) { String::new() } else { format!("/{life}") };
            self.note(format!("{from}{life} -> {to} {}", text::message(&message)));
        }
        let now_us = self.now_us;
        let Some(replica) = self.node(to).replica.as_mut() else { return };
        let before = replica.chosen();
        replica.receive(now_us, from, life, message);
        let after = replica.chosen();
        if after > before {
            self.note(format!("{to}: chosen {after}"));
        }
        self.flush(to);
    }

    /// Delivers all there is, and what follows from it, but for slow links. No time passes.
    pub fn settle(&mut self) {
        loop {
            self.bag = {
                let bag = std::mem::take(&mut self.bag);
                bag.into_iter().filter(|envelope| !self.lost(envelope)).collect()
            };
            let slow = &self.slow;
            let next = self.bag.iter().position(|e| !slow.contains(&(e.from, e.to)));
            let Some(place) = next else { return };
            self.deliver(place, false);
        }
    }

    /// Time passes for all, by the millisecond.
    pub fn run(&mut self, span_us: u64) {
        let end_us = self.now_us + span_us;
        while self.now_us < end_us {
            self.now_us += 1_000;
            for node in (0..self.nodes.len() as u8).map(NodeId) {
                if !self.stalled.contains(&node) {
                    self.tick(node);
                }
            }
            self.settle();
        }
    }

    pub fn collapse(&mut self, node: NodeId, index: Index) -> Result<(), String> {
        let position = self.replica(node)?.position_at(index).ok_or("no such entry")?;
        self.replica(node)?.collapse(index);
        let disk = &mut self.node(node).disk;
        disk.base = position;
        disk.entries.retain(|entry| entry.index > index);
        Ok(())
    }

    /// A head of `from`'s chosen state reaches `node`.
    pub fn install_head(&mut self, node: NodeId, from: NodeId) -> Result<bool, String> {
        let now_us = self.now_us;
        let giver = self.replica(from)?;
        let position = giver.position_at(giver.chosen()).ok_or("nothing is chosen")?;
        let members = giver.state().members.clone();
        let taken = self.replica(node)?.head_installed(now_us, position, &members);
        self.flush(node);
        Ok(taken)
    }

    pub fn lease_us(&self) -> u64 {
        self.settings.lease_us
    }

    pub fn log_text(&self, node: NodeId) -> String {
        let disk = &self.nodes[usize::from(node.0)].disk;
        let base = match disk.base.index {
            Index(0) => String::new(),
            index => format!("starts after {index} "),
        };
        format!("{node} on disk: {base}{}", text::entries(&disk.entries))
    }

    pub fn state_text(&self, node: NodeId) -> String {
        let now_us = self.now_us;
        let state = &self.nodes[usize::from(node.0)];
        let Some(replica) = &state.replica else { return format!("{node} down") };
        let role = match (replica.is_leader(), now_us < replica.lease_until_us()) {
            (true, true) => "leader with a lease",
            (true, false) => "leader without a lease",
            _ if replica.state().members.is_empty() => "empty",
            _ if !replica.state().voting => "learner",
            _ => "replica",
        };
        format!(
            "{node} {role}: promised={} accepted={} chosen={} last={}",
            text::ballot(replica.state().promised),
            text::ballot(replica.state().accepted),
            replica.chosen(),
            replica.last().index,
        )
    }
}
