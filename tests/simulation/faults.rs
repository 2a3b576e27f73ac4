//! What goes wrong, and how nodes come back.

use std::path::PathBuf;

use arakoon::disk::Disk;
use arakoon::node::recovery::StartError;
use arakoon::node::{HandOverOrder, Input, NodeMessage};
use arakoon::paxos::{Incarnation, Message, NodeId};
use arakoon::store::MemoryEngine;
use arakoon::transaction_log::LogError;

use crate::machine::{BootClock, directory};
use crate::plan::Fault;
use crate::world::{Event, World};

impl World {
    /// The next stroke of a fault, in a memoryless way.
    pub fn plan_fault(&mut self, fault: Fault, rate: f64) {
        let seconds = -(1.0 - self.rng.f64()).ln() / rate;
        let at_us = self.now_us + (seconds * 1e6) as u64;
        if at_us < self.plan.faults_us {
            self.at(at_us, Event::Fault(fault));
        }
    }

    pub fn strike(&mut self, fault: Fault) {
        let rate = self.plan.rates.iter().find(|(known, _)| *known == fault).map_or(0.0, |r| r.1);
        self.plan_fault(fault, rate);
        let node = match self.rng.bool() {
            true => self.master().unwrap_or(0),
            false => self.rng.usize(..self.plan.seats),
        };
        self.note(node, name(fault), (0, 0));
        match fault {
            Fault::Kill => match self.rng.u8(..4) {
                0 => self.input(node, Input::Stop),
                _ => self.crash(node, false),
            },
            Fault::KillAll => (0..self.plan.seats).for_each(|node| self.crash(node, false)),
            Fault::PowerOne => self.crash(node, true),
            Fault::PowerAll => (0..self.plan.seats).for_each(|node| self.crash(node, true)),
            Fault::WriteError => match self.rng.bool() {
                true => self.machines[node].disk.fail_next_write(),
                false => {
                    let from = self.machines[node].disk.changes() + self.rng.u64(..40);
                    self.machines[node].disk.fail_from_change(from);
                }
            },
            Fault::SyncError => self.machines[node].disk.fail_next_sync(),
            Fault::Wipe => {
                if self.may_lose(node) {
                    self.crash(node, false);
                    self.machines[node].wipe();
                }
            }
            Fault::EmptyStore | Fault::FlipStoreBit if !self.may_lose_store(node) => {}
            Fault::EmptyStore => {
                self.crash(node, false);
                self.machines[node].engine = MemoryEngine::new();
                if self.rng.bool() {
                    self.machines[node].journal.set(None);
                }
            }
            Fault::FlipStoreBit => {
                if self.rng.bool() {
                    self.crash(node, false);
                }
                let (row, bit) = (self.rng.usize(..1 << 20), self.rng.usize(..1 << 20));
                self.machines[node].engine.damage(row, bit);
            }
            Fault::DamageLog => self.damage_log(node),
            Fault::Pause => {
                let us = self.plan.lease_us / 2 + self.rng.u64(..4 * self.plan.lease_us);
                self.pause(node, us);
            }
            Fault::Partition => self.partition(node),
            Fault::WallJump => {
                let jump_ms = match self.rng.bool() {
                    true => self.rng.i64(-3_600_000..3_600_000),
                    false => self.rng.i64(-1_500..1_500),
                };
                self.machines[node].wall_offset_ms = jump_ms;
                let full = self.rng.u8(..8) == 0;
                self.input(node, Input::DiskNearlyFull(full));
            }
            Fault::SlowDisk => {
                let us = self.rng.u64(..4_000_000);
                self.machines[node].slow_until_us = self.now_us + us;
            }
            Fault::FullDisk => self.fill_disk(node),
            Fault::LoseDirectory => self.lose_directory(node),
            Fault::DiskStall => {
                let us = self.rng.u64(..self.plan.stall_us_max);
                self.machines[node].stalled_until_us = self.now_us + us;
            }
            Fault::HandOver => self.hand_over(node),
            Fault::Forgery => self.forge(node),
            Fault::CutClient => {
                let client = self.rng.usize(..self.clients.len());
                self.cut_client(client);
            }
        }
    }

    /// The master is asked to hand over, in any of the ways there are; or a replica wants to be it; or
    /// what was begun is broken off. Several may meet.
    fn hand_over(&mut self, node: usize) {
        let seats = self.plan.seats as u8;
        let target = match self.rng.bool() {
            true => None,
            // Also itself, one that is down, and one that has no vote.
            false => Some(NodeId(self.rng.u8(..seats))),
        };
        let timeout_us = match self.rng.u8(..4) {
            0 => None,
            1 => Some(0),
            _ => Some(self.rng.u64(..2_000_000)),
        };
        let force = self.rng.u8(..3) == 0;
        match self.rng.u8(..8) {
            0 => self.input(node, Input::AbortHandOver),
            1 | 2 => {
                let asking = self.rng.usize(..self.plan.seats);
                self.input(asking, Input::AskForMastership { force });
            }
            _ => {
                let order = HandOverOrder { target, force, timeout_us };
                self.input(node, Input::HandOver(order));
            }
        }
    }

    /// What is left is little: the node says so in time, or runs into it.
    fn fill_disk(&mut self, node: usize) {
        let free = [0, 2_000, 100_000][self.rng.usize(..3)];
        let machine = &self.machines[node];
        machine.disk.set_capacity(None);
        let used = u64::MAX - machine.disk.bytes_free(&directory()).unwrap_or(u64::MAX);
        machine.disk.set_capacity(Some(used + free));
        if self.rng.bool() {
            self.input(node, Input::DiskNearlyFull(true));
        }
        let us = self.rng.u64(..5_000_000);
        self.after(us, Event::DiskFreed { node });
    }

    pub fn free_disk(&mut self, node: usize) {
        self.machines[node].disk.set_capacity(None);
        self.input(node, Input::DiskNearlyFull(false));
    }

    /// Without its log a node is another one; without its heads it may have to become another.
    fn lose_directory(&mut self, node: usize) {
        if !self.may_lose(node) {
            return;
        }
        let power = self.rng.bool();
        self.crash(node, power);
        let machine = &mut self.machines[node];
        if self.rng.bool() {
            machine.disk.delete_directory(&directory().join("heads"));
            machine.headless = true;
        } else {
            machine.disk.delete_directory(&directory().join("log"));
            machine.durable = arakoon::paxos::DurableState::default();
            machine.damaged = false;
        }
    }

    /// That the leader's ballot is over, from one who cannot know, or from nobody.
    fn forge(&mut self, to: usize) {
        let Some(process) = self.process(to) else { return };
        let ballot = process.driver.replica().state().promised;
        let from = self.rng.usize(..=self.plan.seats);
        if from == to || from == usize::from(ballot.node.0) {
            return;
        }
        let machine = self.machines.get(from).and_then(|machine| machine.process.as_ref());
        let incarnation = machine.map_or(Incarnation(1), |process| process.incarnation);
        let message = match self.rng.u8(..3) {
            0 => NodeMessage::Paxos(Message::Release { ballot }),
            1 => NodeMessage::Paxos(Message::Nominate { ballot }),
            _ => NodeMessage::AskForMastership { ballot },
        };
        self.after(1, Event::Deliver { to, from, incarnation, message });
    }

    /// A step of a head's way is this process's last, perhaps halfway through.
    pub fn interrupt_head(&mut self, node: usize) -> bool {
        if self.healed || !self.chance(self.plan.head_interrupts) {
            return false;
        }
        self.note(node, "FAULT head interrupted", (0, 0));
        match self.rng.u8(..3) {
            0 => self.crash(node, false),
            1 => self.crash(node, true),
            _ => {
                let from = self.machines[node].disk.changes() + self.rng.u64(..8);
                self.machines[node].disk.fail_from_change(from);
                return false;
            }
        }
        true
    }

    fn master(&self) -> Option<usize> {
        let leads = |machine: &&crate::machine::Machine| {
            machine.process.as_ref().is_some_and(|process| process.status.serving_until_us > 0)
        };
        self.machines.iter().find(leads).map(|machine| machine.node)
    }

    /// A node may lose its disk while the others that vote, durably, are a majority: an entry must be
    /// chosen to admit it again.
    fn may_lose(&self, node: usize) -> bool {
        let votes = |seat: usize| {
            let machine = &self.machines[seat];
            seat != node && machine.durable.voting && !machine.damaged && !machine.headless
        };
        let others: Vec<usize> = (0..self.plan.seats).filter(|seat| votes(*seat)).collect();
        others.len() > self.plan.seats / 2
    }

    /// A store can be rebuilt, unless the heads that it would be rebuilt from are gone as well.
    fn may_lose_store(&self, node: usize) -> bool {
        !self.machines[node].headless || self.may_lose(node)
    }

    /// Flips a bit of what was certainly synced, or cuts the file there.
    fn damage_log(&mut self, node: usize) {
        // The same bit flipped twice would be as before.
        if self.machines[node].damaged || !self.may_lose(node) {
            return;
        }
        self.crash(node, false);
        let disk = self.machines[node].disk.clone();
        let path = directory().join("log");
        let Ok(names) = disk.list(&path) else { return };
        let segments: Vec<PathBuf> = names
            .iter()
            .filter(|name| name.ends_with(".log"))
            .map(|name| path.join(name))
            .collect();
        let Some(at) = segments.len().checked_sub(1) else { return };
        let chosen = self.rng.usize(..=at);
        let Some(bytes) = disk.contents(&segments[chosen]) else { return };
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64;
        // In the last segment only what a later record calls synced must be there.
        let (first, end) = match chosen == at {
            true => (4096, stated_synced(&bytes)),
            false => (4096, used),
        };
        if end <= first {
            return;
        }
        let (offset, bit) = (self.rng.u64(first..end), self.rng.u8(..8));
        let cut = self.rng.u8(..4) == 0;
        let done = match cut {
            true => disk.truncate(&segments[chosen], offset),
            false => disk.flip_bit(&segments[chosen], offset, bit),
        };
        self.machines[node].damaged |= done;
        self.note(node, "log damaged", (offset, u64::from(bit)));
    }

    fn partition(&mut self, node: usize) {
        let until_us = self.now_us + self.rng.u64(..4 * self.plan.lease_us + 1_000_000);
        let seats = self.plan.seats;
        let other = self.rng.usize(..seats);
        let kind = self.rng.u8(..6);
        for from in 0..seats {
            for to in 0..seats {
                let cut = match kind {
                    // One link, one way.
                    0 => from == node && to == other,
                    // One link: with three nodes both still see the third.
                    1 => (from == node && to == other) || (from == other && to == node),
                    // One node is heard by nobody.
                    2 => from == node,
                    // One node hears nobody.
                    3 => to == node,
                    // A bridge: both sides see it, but not each other.
                    4 => (from < node && node < to) || (to < node && node < from),
                    // Halves.
                    _ => (from <= node) != (to <= node),
                };
                if cut {
                    self.blocked_until_us[from][to] = until_us;
                }
            }
        }
    }

    /// Ends a process, or cuts the power of its machine.
    pub fn crash(&mut self, node: usize, power: bool) {
        // Without a head, a power cut may cost a node all it has.
        let power = power && self.may_lose_store(node);
        let lost = self.rng.u8(..3);
        let (row, bit) = (self.rng.usize(..1 << 20), self.rng.usize(..1 << 20));
        let start_us = self.rng.u64(1_000..20_000_000);
        let kept = self.rng.usize(..=self.machines[node].engine.unflushed());
        self.end_pause(node);
        let machine = &mut self.machines[node];
        self.ending = true;
        let ends = machine.process.take().map(|process| process.sessions.ends);
        let mut ends: Vec<usize> = ends.into_iter().flatten().map(|(end, _)| end).collect();
        machine.life += 1;
        machine.paused_lately_us = self.now_us;
        machine.disk.crash(power);
        machine.engine.lose_unflushed(kept);
        if power {
            machine.boots += 1;
            let ppm = machine.clock.ppm();
            machine.clock = BootClock::new(self.now_us, start_us, ppm);
            match lost {
                0 => machine.engine = MemoryEngine::new(),
                1 => machine.engine.damage(row, bit),
                _ => {}
            }
        }
        let life = machine.life;
        self.settle_answers(node);
        self.ending = false;
        // A machine without power says nothing: clients find out when their patience ends.
        ends.retain(|_| !power || self.rng.bool());
        self.end_connections(ends);
        self.note(node, "ended", (u64::from(power), life));
        let delay_us = match self.healed {
            true => 1_000,
            false => self.delay_us(self.plan.restart_us_max),
        };
        self.after(delay_us, Event::Start { node, life });
    }

    pub fn start(&mut self, node: usize) {
        let fresh = loop {
            let wall_ms = self.machines[node].wall_ms(self.now_us);
            let fresh = wall_ms * 1000 + self.rng.u64(..1000);
            if self.incarnations.insert(fresh) {
                break Incarnation(fresh);
            }
        };
        let seed = self.rng.u64(..);
        let machine = &mut self.machines[node];
        machine.life += 1;
        let life = machine.life;
        let damaged = machine.damaged;
        match machine.start(&self.plan, fresh, seed, self.now_us) {
            Ok(()) if damaged => {
                let what = format!("n{} started on a log with damage in its middle", node + 1);
                self.violate("damage is refused", what);
            }
            Ok(()) => self.started(node, life),
            Err(StartError::Log(LogError::Damaged { .. })) if damaged => {
                machine.wipe();
                self.note(node, "refuses damaged log", (0, 0));
                self.after(1_000, Event::Start { node, life });
            }
            Err(StartError::NoHead { .. }) if machine.headless => {
                machine.wipe();
                self.note(node, "has no head left", (0, 0));
                self.after(1_000, Event::Start { node, life });
            }
            Err(error) if is_disk_failure(&error.to_string()) => {
                // A planned failure of the disk struck while opening.
                machine.disk.crash(false);
                self.after(50_000, Event::Start { node, life });
            }
            Err(error) => {
                let what = format!("n{} does not start: {error}", node + 1);
                self.violate("start", what);
            }
        }
    }

    fn started(&mut self, node: usize, life: u64) {
        let Some(process) = &self.machines[node].process else { return };
        let log = process.log.reader();
        let (base, last) = (log.base().index.0, log.last().index.0);
        let held = (base + 1..=last)
            .filter_map(|index| log.position_at(arakoon::paxos::Index(index)))
            .map(|position| (position.index.0, position.ballot));
        self.durable[node].extend(held);
        let incarnation = process.incarnation;
        self.incarnations.insert(incarnation.0);
        self.note(node, "started", (last, incarnation.0));
        self.after(0, Event::Tick { node, life });
        let delay_us = self.delay_us(100_000);
        self.after(delay_us, Event::Drain { node, life });
    }

    /// A node whose disk or store failed stops.
    pub fn end_if_failed(&mut self, node: usize) {
        let failed = self.process(node).and_then(|process| process.failed.take());
        if let Some(why) = failed {
            if !is_disk_failure(&why) && !why.contains("damaged") {
                self.violate("storage", format!("n{} failed: {why}", node + 1));
            }
            self.note(node, "stopped by its disk", (0, 0));
            let power = self.rng.u8(..4) == 0;
            self.crash(node, power);
        }
    }

    /// The cluster knows a later life: this one starts again above it.
    pub fn restart_if_outlived(&mut self, node: usize) {
        let outlived = self.process(node).and_then(|process| process.driver.outlived());
        if let Some(above) = outlived {
            self.note(node, "outlived", (above.0, 0));
            self.machines[node].above = above;
            self.crash(node, false);
        }
    }

    /// A planned stop ends in order.
    pub fn end_if_stopped(&mut self, node: usize) {
        let Some(process) = self.process(node) else { return };
        if process.driver.stopped() {
            let durable = process.driver.replica().durable();
            let view_held = !process.heading.is_empty();
            if !view_held && let Err(error) = process.store.close(durable.0) {
                let damaged = error.to_string().contains("damaged");
                if !damaged {
                    self.violate("storage", format!("n{} does not close: {error}", node + 1));
                }
            }
            self.note(node, "stopped in order", (0, 0));
            self.crash(node, false);
        }
    }

    /// From now on nothing fails any more, and what is down starts.
    pub fn heal(&mut self) {
        self.healed = true;
        self.note(255, "healed", (0, 0));
        let network = &mut self.plan.network;
        (network.loss, network.repeat, network.late) = (0.0, 0.0, 0.0);
        // The bound on the way back is for a machine that works.
        self.plan.head_us_max = self.plan.head_us_max.min(20_000);
        for node in 0..self.plan.seats {
            self.blocked_until_us[node].fill(0);
            self.end_pause(node);
            let machine = &mut self.machines[node];
            machine.stalled_until_us = 0;
            machine.slow_until_us = 0;
            machine.disk.set_capacity(None);
            machine.wall_offset_ms = 0;
            if machine.process.is_none() {
                machine.disk.crash(false);
                let life = machine.life;
                self.after(1_000, Event::Start { node, life });
            } else {
                self.input(node, Input::DiskNearlyFull(false));
            }
        }
    }
}

/// The highest synced offset that the records of a segment state; see `docs/formats.md`.
fn stated_synced(segment: &[u8]) -> u64 {
    let number = |at: usize, length: usize| {
        let bytes = segment.get(at..at + length)?;
        Some(bytes.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte)))
    };
    let (mut at, mut stated) = (4096, 0);
    while let (Some(body_bytes), Some(kind @ 1..)) = (number(at + 8, 4), number(at + 12, 1)) {
        if kind == 1 {
            stated = stated.max(number(at + 24, 8).unwrap_or(0));
        }
        at += 32 + body_bytes as usize;
    }
    stated
}

/// What a planned failure of the disk makes of an operation.
fn is_disk_failure(why: &str) -> bool {
    ["os error 5", "disk is full", "no storage space", "failed before"]
        .iter()
        .any(|text| why.contains(text))
}

fn name(fault: Fault) -> &'static str {
    match fault {
        Fault::Kill => "FAULT kill or stop",
        Fault::KillAll => "FAULT kill all",
        Fault::PowerOne => "FAULT power cut",
        Fault::PowerAll => "FAULT power cut of all",
        Fault::WriteError => "FAULT write error",
        Fault::SyncError => "FAULT sync error",
        Fault::Wipe => "FAULT wipe",
        Fault::EmptyStore => "FAULT store emptied",
        Fault::FlipStoreBit => "FAULT store bit flipped",
        Fault::DamageLog => "FAULT log damage",
        Fault::Pause => "FAULT pause",
        Fault::Partition => "FAULT partition",
        Fault::WallJump => "FAULT wall clock jump",
        Fault::DiskStall => "FAULT disk stall",
        Fault::SlowDisk => "FAULT slow disk",
        Fault::FullDisk => "FAULT full disk",
        Fault::LoseDirectory => "FAULT directory lost",
        Fault::HandOver => "FAULT hand over",
        Fault::CutClient => "FAULT client cut off",
        Fault::Forgery => "FAULT forgery",
    }
}
