//! The work of one node's threads: log, apply, heads, draining, sessions' reads, sending.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use arakoon::node::environment::{ApplyJob, HeadJob, ReadPurpose};
use arakoon::node::heads::HeadFileError;
use arakoon::node::{Attempt, HeadName, Input, NodeMessage};
use arakoon::paxos::{Entry, Index, Save};
use arakoon::store::StoreError;
use arakoon::transaction_log::LogError;

use crate::machine::{ApplyWork, HeadWork, PendingSave};
use crate::world::{Event, World};

impl World {
    pub fn fail(&mut self, node: usize, why: String) {
        if let Some(process) = self.process(node) {
            process.failed.get_or_insert(why);
        }
    }

    /// Into the page cache at once, or once the sync before has ended; on disk some time later, in order.
    pub fn save(&mut self, node: usize, saves: Vec<Save>) {
        let Some(process) = self.process(node) else { return };
        if process.failed.is_some() {
            return;
        }
        let entries = saves.iter().flat_map(|save| &save.entries);
        let largest = entries.map(|entry| entry.value.size_bytes()).max().unwrap_or(0);
        // Before it fails: what it sent counts all the same.
        self.entry_bytes_max = self.entry_bytes_max.max(largest);
        let Some(process) = self.process(node) else { return };
        process.queued.extend(saves);
        if !self.plan.saves_wait && !self.write_queued(node) {
            return;
        }
        self.begin_sync(node);
    }

    /// Whether it could.
    fn write_queued(&mut self, node: usize) -> bool {
        let Some(process) = self.process(node) else { return false };
        let queued = std::mem::take(&mut process.queued);
        if queued.is_empty() {
            return true;
        }
        if let Err(error) = process.log.append_all(&queued) {
            self.fail(node, error.to_string());
            return false;
        }
        for save in queued {
            process.saves.push_back(PendingSave {
                id: save.id,
                truncate_from: save.truncate_from,
                entries: save.entries.iter().map(Entry::position).collect(),
                state: save.state,
            });
        }
        true
    }

    fn begin_sync(&mut self, node: usize) {
        let (now_us, max_us) = (self.now_us, self.plan.sync_us_max);
        let Some(process) = self.process(node) else { return };
        let idle = process.queued.is_empty() && process.saves.is_empty();
        if process.syncing || idle || !self.write_queued(node) {
            return;
        }
        let machine = &mut self.machines[node];
        let (life, stalled_until_us) = (machine.life, machine.stalled_until_us);
        let Some(process) = &mut machine.process else { return };
        process.syncing = true;
        let count = process.saves.len();
        let max_us = if machine.slow_until_us > now_us { max_us.max(100_000) } else { max_us };
        let delay_us = self.delay_us(max_us);
        self.at(stalled_until_us.max(now_us) + delay_us, Event::Synced { node, life, count });
    }

    pub fn synced(&mut self, node: usize, count: usize) {
        let machine = &mut self.machines[node];
        if machine.stalled_until_us > self.now_us {
            let (at_us, life) = (machine.stalled_until_us, machine.life);
            return self.at(at_us, Event::Synced { node, life, count });
        }
        let Some(process) = &mut machine.process else { return };
        process.syncing = false;
        if let Err(error) = process.log.sync() {
            self.fail(node, error.to_string());
            return self.end_if_failed(node);
        }
        let done: Vec<PendingSave> = process.saves.drain(..count).collect();
        let Some(last) = done.last() else { return };
        let id = last.id;
        for save in done {
            if let Some(state) = save.state {
                machine.durable = state;
            }
            if let Some(from) = save.truncate_from {
                self.durable[node].split_off(&from.0);
            }
            for entry in save.entries {
                self.durable[node].insert(entry.index.0, entry.ballot);
            }
        }
        self.note(node, "synced", (id.0, count as u64));
        self.input(node, Input::Saved(id));
        self.begin_sync(node);
    }

    pub fn send(&mut self, from: usize, to: usize, message: NodeMessage) {
        let network = self.plan.network;
        let Some(incarnation) = self.process(from).map(|process| process.incarnation) else {
            return;
        };
        let numbers = (to as u64 + 1, 0);
        if self.blocked_until_us[from][to] > self.now_us || self.chance(network.loss) {
            return self.note(from, "lost", numbers);
        }
        let message = match self.rng.u8(..16) {
            0 => match NodeMessage::decode(&message.encode()) {
                Some(read) if read == message => read,
                read => {
                    return self.violate("codec", format!("{message:?} came back as {read:?}"));
                }
            },
            _ => message,
        };
        if let NodeMessage::Paxos(message) = &message {
            self.note(from, message.name(), numbers);
        }
        let copies = if self.chance(network.repeat) { 2 } else { 1 };
        for _ in 0..copies {
            let mut delay_us = 50 + self.delay_us(network.delay_us_max);
            if self.chance(network.late) {
                delay_us += self.rng.u64(..=network.late_us_max);
            }
            let message = message.clone();
            self.after(delay_us, Event::Deliver { to, from, incarnation, message });
        }
    }

    pub fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && self.rng.f64() < share
    }

    pub fn read_log(&mut self, node: usize, purpose: ReadPurpose) {
        let (from, to) = match purpose {
            ReadPurpose::Replica(request) => (request.from, request.to),
            ReadPurpose::Apply { from, to } => (from, to),
        };
        let bytes_max = self.plan.chunk_bytes;
        let Some(process) = self.process(node) else { return };
        let entries = match process.log.reader().read(from, to, bytes_max) {
            Ok(entries) => entries,
            Err(LogError::Gone { .. }) => Vec::new(),
            Err(error) => {
                self.fail(node, error.to_string());
                return self.end_if_failed(node);
            }
        };
        self.note(node, "log read", (from.0, entries.len() as u64));
        self.input(node, Input::Read(purpose, entries));
    }

    /// One entry at a time, so that readers come in between.
    pub fn queue_apply(&mut self, node: usize, job: ApplyJob) {
        for entry in job.entries {
            self.queue_apply_work(node, ApplyWork::Job(ApplyJob { entries: vec![entry] }));
        }
    }

    fn queue_apply_work(&mut self, node: usize, work: ApplyWork) {
        let (max_us, life) = (self.plan.apply_us_max, self.machines[node].life);
        let Some(process) = self.process(node) else { return };
        process.applying.push_back(work);
        if process.applying.len() == 1 {
            let delay_us = self.delay_us(max_us);
            self.after(delay_us, Event::Apply { node, life });
        }
    }

    pub fn apply_next(&mut self, node: usize) {
        let Some(process) = self.process(node) else { return };
        let Some(work) = process.applying.pop_front() else { return };
        let more = !process.applying.is_empty();
        match work {
            ApplyWork::Job(job) => self.apply(node, job),
            ApplyWork::Install(name) => self.install(node, name),
        }
        // What a failed store leaves unanswered, its process takes with it.
        self.ending = self.process(node).is_some_and(|process| process.failed.is_some());
        self.settle_answers(node);
        self.ending = false;
        self.end_if_failed(node);
        if more {
            let (max_us, life) = (self.plan.apply_us_max, self.machines[node].life);
            let delay_us = self.delay_us(max_us);
            self.after(delay_us, Event::Apply { node, life });
        }
    }

    fn apply(&mut self, node: usize, mut job: ApplyJob) {
        assert_eq!(job.entries.len(), 1, "an event for each entry");
        let Some((entry, waiters)) = job.entries.pop() else { return };
        let apply_us_max = self.plan.apply_us_max;
        let Some(process) = self.process(node) else { return };
        let before = process.applier.applied();
        let new = entry.index > before.index;
        // A real node does this for some entries, and which ones must not matter.
        let attempt = match entry.index.0.is_multiple_of(2) {
            true => process.applier.apply_in_memory(&entry, waiters),
            false => Ok(Attempt::WouldWait(waiters)),
        };
        let frozen = attempt.and_then(|attempt| match attempt {
            Attempt::Applied => Ok(Vec::new()),
            Attempt::WouldWait(waiters) | Attempt::NotInMemory(waiters) => {
                process.applier.apply(ApplyJob { entries: vec![(entry.clone(), waiters)] })
            }
        });
        let frozen = match frozen {
            Ok(frozen) => frozen,
            Err(error) => return self.fail(node, error.to_string()),
        };
        if process.applier.applied().expired_keys > before.expired_keys {
            // Now quick, now slow.
            process.applier.note_expiry(entry.index.0 % 4 * apply_us_max);
        }
        let applied = process.applier.applied();
        for frozen in frozen {
            // One that waits is not written any more: only the newest matters.
            process.heading.retain(|work| !matches!(work, HeadWork::Write(_)));
            process.heading.push_back(HeadWork::Write(Box::new(frozen)));
        }
        self.begin_head(node);
        if new {
            self.check_applied(node, &entry);
            self.clock_ms = self.clock_ms.max(applied.stamp_ms);
        }
        self.acknowledge(node, &entry);
        self.input(node, Input::Applied(applied));
    }

    /// Every node applies the same at one index.
    fn check_applied(&mut self, node: usize, entry: &Entry) {
        let mut hasher = DefaultHasher::new();
        postcard::to_stdvec(&entry.value).expect("writing to memory cannot fail").hash(&mut hasher);
        let mine = (entry.ballot, hasher.finish());
        let place = entry.index.0 as usize - 1;
        if place == self.applied.len() {
            self.applied.push(mine);
        }
        match self.applied.get(place) {
            Some(known) if *known == mine => {}
            known => {
                let what =
                    format!("n{} applied {mine:?} at {}, another {known:?}", node + 1, entry.index);
                self.violate("chosen once", what);
            }
        }
    }

    /// What was just answered is on the disks of an accept quorum.
    fn acknowledge(&mut self, node: usize, entry: &Entry) {
        let answered = self.answers.take();
        if answered.iter().any(|(_, outcome)| matches!(outcome, Some(Ok(_)))) {
            let holds = |seat: &u8| {
                self.durable[usize::from(*seat)].get(&entry.index.0) == Some(&entry.ballot)
            };
            let set: Vec<u8> = (0..self.plan.seats as u8).filter(holds).collect();
            // Not asked of the node's own code.
            let zones = &self.plan.zones;
            let in_zone = |zone: &String| set.iter().any(|seat| zones[usize::from(*seat)] == *zone);
            if 2 * set.len() <= self.plan.seats || !zones.iter().all(in_zone) {
                let what = format!("{} is durable on {set:?} only", entry.index);
                self.violate("durable before acknowledged", what);
            }
        }
        for (ticket, outcome) in answered {
            self.take_answer(node, ticket, outcome);
        }
    }

    fn install(&mut self, node: usize, name: HeadName) {
        if self.interrupt_head(node) {
            return;
        }
        let Some(process) = self.process(node) else { return };
        let done = process.applier.install(&process.heads, name);
        match done {
            Ok(installed) => {
                self.note(node, "head installed", (name.index.0, 0));
                self.machines[node].headless &= installed.is_none();
                self.input(node, Input::HeadInstalled(installed));
            }
            Err(error) => self.fail(node, error.to_string()),
        }
    }

    pub fn queue_head(&mut self, node: usize, job: HeadJob) {
        if let HeadJob::Install(name) = job {
            return self.queue_apply_work(node, ApplyWork::Install(name));
        }
        let Some(process) = self.process(node) else { return };
        process.heading.push_back(HeadWork::Job(job));
        self.begin_head(node);
    }

    /// The first in the queue is at work.
    fn begin_head(&mut self, node: usize) {
        let (max_us, life) = (self.plan.head_us_max, self.machines[node].life);
        let Some(process) = self.process(node) else { return };
        if process.heading.is_empty() || std::mem::replace(&mut process.head_busy, true) {
            return;
        }
        let delay_us = self.delay_us(max_us);
        self.after(delay_us, Event::Head { node, life });
    }

    pub fn head_next(&mut self, node: usize) {
        let Some(process) = self.process(node) else { return };
        process.head_busy = false;
        let Some(work) = process.heading.pop_front() else { return };
        if let Err(error) = self.do_head_work(node, work) {
            self.fail(node, error.to_string());
        }
        self.end_if_failed(node);
        self.begin_head(node);
    }

    fn do_head_work(&mut self, node: usize, work: HeadWork) -> Result<(), HeadFileError> {
        if matches!(work, HeadWork::Job(_)) && self.interrupt_head(node) {
            return Ok(());
        }
        let chunk_bytes = self.plan.head_chunk_bytes;
        let Some(process) = self.process(node) else { return Ok(()) };
        match work {
            HeadWork::Write(frozen) => match process.heads.write(&frozen, |_| Ok(())) {
                Ok(info) => {
                    self.note(node, "head written", (info.name.index.0, info.size.file_bytes));
                    let size = info.size;
                    self.machines[node].headless = false;
                    self.input(node, Input::HeadWritten { name: info.name, size });
                }
                Err(HeadFileError::Store(StoreError::Replaced)) => {
                    self.input(node, Input::HeadFailed(frozen.entry.index));
                }
                // The log stays as long as it is.
                Err(error) if error.is_full_disk() => {
                    self.input(node, Input::HeadFailed(frozen.entry.index));
                }
                Err(error) => return Err(error),
            },
            HeadWork::Job(HeadJob::Serve { to, partial, offset_bytes }) => {
                if let Some(mut chunk) = process.heads.serve(partial, offset_bytes)? {
                    chunk.bytes.truncate(chunk_bytes);
                    self.send(node, usize::from(to.0), NodeMessage::HeadChunk(chunk));
                }
            }
            HeadWork::Job(HeadJob::Keep(chunk)) => {
                let kept_bytes = process.heads.keep(&chunk)?;
                let (name, size_bytes) = (chunk.name, chunk.size_bytes);
                self.input(node, Input::HeadChunkKept { name, kept_bytes, size_bytes });
            }
            HeadWork::Job(HeadJob::Install(_)) => unreachable!("goes to the apply queue"),
        }
        Ok(())
    }

    pub fn collapse(&mut self, node: usize, below: Index) {
        let kept = self.rng.u64(..=self.plan.kept_entries_max);
        // What was to be saved before comes first.
        if !self.write_queued(node) {
            return;
        }
        let Some(process) = self.process(node) else { return };
        let safe = below.0.min(process.store.synced() + 1).saturating_sub(kept);
        match process.log.collapse(Index(safe)) {
            Ok(()) => {
                let base = process.log.base().index;
                self.input(node, Input::Collapsed(base));
            }
            Err(error) => self.fail(node, error.to_string()),
        }
    }

    /// The thread that drains: it rests when there is nothing to do, and hurries when memory fills.
    pub fn drain(&mut self, node: usize) {
        let life = self.machines[node].life;
        let (steps, choice) = (self.rng.u8(..6), self.rng.u8(..20));
        let bound_bytes = self.plan.layers_bytes_max;
        let Some(process) = self.process(node) else { return };
        let durable = process.driver.status().durable;
        let full = process.store.layers_bytes() > bound_bytes / 2;
        let done = (|| {
            if choice < 4 {
                process.store.freeze_for_drain();
            }
            for _ in 0..if full { 100 } else { steps } {
                process.store.drain_step(&|| durable.0)?;
            }
            if choice % 4 == 0 {
                process.store.sync()?;
            }
            Ok::<_, StoreError>(())
        })();
        if let Err(error) = done {
            self.fail(node, error.to_string());
            return self.end_if_failed(node);
        }
        self.note(node, "drained", (steps.into(), full.into()));
        let delay_us = self.delay_us(if full { 20_000 } else { 200_000 });
        self.after(delay_us, Event::Drain { node, life });
    }

    /// Restarts nodes that cannot read all their rows: a flipped bit shows only when it is read.
    /// Says whether all could.
    pub fn restart_damaged_stores(&mut self) -> bool {
        let mut whole = true;
        for node in 0..self.plan.seats {
            let Some(process) = self.process(node) else { continue };
            let exported = process.store.freeze().export_rows(&[], &mut |_, _| true);
            if let Err(error) = exported {
                whole = false;
                process.failed = Some(error.to_string());
                self.end_if_failed(node);
            }
        }
        whole
    }

    /// Equal rows, and a history that fits them.
    pub fn check_final_state(&mut self) {
        let mut states = VecDeque::new();
        for machine in &self.machines {
            let Some(process) = &machine.process else { continue };
            let mut rows = Vec::new();
            let exported = process.store.freeze().export_rows(&[], &mut |row, value| {
                rows.push((row.to_vec(), value.to_vec()));
                true
            });
            if let Err(error) = exported {
                let what = format!("n{} cannot be read: {error}", machine.node + 1);
                return self.violate("equal stores", what);
            }
            states.push_back((machine.node, rows));
        }
        let Some((first, rows)) = states.pop_front() else { return };
        for (node, other) in states {
            if other != rows {
                let different = rows.iter().zip(&other).find(|(a, b)| a != b);
                let what = format!("n{} and n{} differ: {different:?}", first + 1, node + 1);
                return self.violate("equal stores", what);
            }
        }
        let read = self.read_final_lists(first);
        if let Err(violation) = read.and_then(|()| self.history.check()) {
            self.violation.get_or_insert(violation);
        }
    }
}
