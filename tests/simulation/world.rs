//! The run of one seed: events in order of true time, and what each does.
//!
//! One thread, one source of chance. A node's own threads (driver, log, apply, heads, sessions)
//! are queues here whose work is done at random later times, each queue in order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use arakoon::node::environment::ReadPurpose;
use arakoon::node::{Input, NodeMessage};
use arakoon::paxos::{Ballot, Incarnation};
use bytes::Bytes;
use fastrand::Rng;

use crate::answers::Answers;
use crate::checker::{History, Role, Violation};
use crate::clients::Client;
use crate::connections::{Connection, EarlierView};
use crate::machine::{Collector, Effect, Machine, Process};
use crate::plan::{Fault, Plan};
use crate::trace::Trace;

/// What happens at some time.
pub enum Event {
    Deliver {
        to: usize,
        from: usize,
        incarnation: Incarnation,
        message: NodeMessage,
    },
    Wake {
        node: usize,
        life: u64,
    },
    Tick {
        node: usize,
        life: u64,
    },
    Synced {
        node: usize,
        life: u64,
        count: usize,
    },
    Apply {
        node: usize,
        life: u64,
    },
    Head {
        node: usize,
        life: u64,
    },
    LogRead {
        node: usize,
        life: u64,
        purpose: ReadPurpose,
    },
    Drain {
        node: usize,
        life: u64,
    },
    Start {
        node: usize,
        life: u64,
    },
    Fault(Fault),
    /// A full disk has room again.
    DiskFreed {
        node: usize,
    },
    /// A pause ends, if no later one goes on.
    PauseEnds {
        node: usize,
    },
    ClientNext {
        client: usize,
    },
    ClientTimeout {
        client: usize,
        round: u64,
    },
    Connect {
        node: usize,
        connection: usize,
    },
    ToServer {
        node: usize,
        connection: usize,
        bytes: Bytes,
    },
    ClosedToServer {
        node: usize,
        connection: usize,
    },
    /// A session's turn; what it reads may have been there earlier.
    Serve {
        node: usize,
        life: u64,
        connection: usize,
        earlier: Option<Box<EarlierView>>,
    },
    ToClient {
        connection: usize,
        bytes: Bytes,
    },
    ClosedToClient {
        connection: usize,
    },
}

struct Scheduled {
    at_us: u64,
    sequence: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at_us, self.sequence) == (other.at_us, other.sequence)
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.sequence).cmp(&(other.at_us, other.sequence))
    }
}

/// A cluster, its clients, and everything around them.
pub struct World {
    pub plan: Plan,
    pub rng: Rng,
    pub now_us: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    sequence: u64,
    /// The sequence number of the event that happens now.
    current: u64,
    pub machines: Vec<Machine>,
    /// Until when messages from one node to another are lost.
    pub blocked_until_us: Vec<Vec<u64>>,
    pub clients: Vec<Client>,
    pub connections: Vec<Connection>,
    pub history: History,
    pub answers: Answers,
    /// Entries that waited for more (`Driver::gathers`).
    pub gathered: u64,
    /// A process is being ended: its answers may be dropped.
    pub ending: bool,
    pub healed: bool,
    pub trace: Trace,
    pub violation: Option<Violation>,
    /// By index, ballot and hash of what any node applied there.
    pub applied: Vec<(Ballot, u64)>,
    /// The furthest log clock applied anywhere.
    pub clock_ms: u64,
    /// By how much the log's clock was ahead of true time when a master last may have set it, and
    /// when that was, in ms.
    pub clock_base: Option<(i64, i64)>,
    /// The log's clock and true time, in ms, when the present master was first seen.
    pub reign_clock: Option<(Ballot, i64, i64)>,
    /// The ballots whose leaders may have set the clock by their own: nobody who must have elected
    /// them had kept time. Whether they were established.
    pub timeless: std::collections::BTreeMap<Ballot, bool>,
    /// By seat and index, what was ever durable there and not truncated since.
    pub durable: Vec<std::collections::BTreeMap<u64, Ballot>>,
    pub incarnations: std::collections::BTreeSet<u64>,
    pub acknowledged_since_heal: u64,
    /// The largest entry that any node ever logged.
    pub entry_bytes_max: usize,
    /// Of layers that were spilled; gone with this.
    _spilled: Option<tempfile::TempDir>,
}

impl World {
    pub fn new(plan: Plan) -> World {
        let mut rng = Rng::with_seed(plan.seed);
        let mut machines: Vec<Machine> =
            (0..plan.seats).map(|node| Machine::new(node, &plan, &mut rng)).collect();
        let spilled = plan.spills.then(|| tempfile::tempdir().expect("a temporary directory"));
        if let Some(directory) = &spilled {
            machines.iter_mut().for_each(|machine| machine.spill_to(directory.path()));
        }
        let role = |client| if client < plan.stale_clients { Role::Stale } else { Role::Main };
        let clients = (0..plan.clients + plan.stale_clients)
            .map(|client| Client::new(rng.usize(..plan.seats), role(client)))
            .collect();
        let mut world = World {
            rng,
            now_us: 0,
            queue: BinaryHeap::new(),
            sequence: 0,
            current: 0,
            blocked_until_us: vec![vec![0; plan.seats]; plan.seats],
            durable: vec![Default::default(); plan.seats],
            machines,
            clients,
            connections: Vec::new(),
            history: History::default(),
            answers: Answers::default(),
            gathered: 0,
            ending: false,
            healed: false,
            trace: Trace::new(),
            violation: None,
            applied: Vec::new(),
            clock_ms: 0,
            clock_base: None,
            reign_clock: None,
            timeless: Default::default(),
            incarnations: Default::default(),
            acknowledged_since_heal: 0,
            entry_bytes_max: 0,
            _spilled: spilled,
            plan,
        };
        for node in 0..world.plan.seats {
            let after_us = world.rng.u64(..200_000);
            world.after(after_us, Event::Start { node, life: 0 });
        }
        for client in 0..world.clients.len() {
            let after_us = world.rng.u64(..500_000);
            world.after(after_us, Event::ClientNext { client });
        }
        for (fault, rate) in world.plan.rates.clone() {
            world.plan_fault(fault, rate);
        }
        world
    }

    pub fn at(&mut self, at_us: u64, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse(Scheduled { at_us, sequence: self.sequence, event }));
    }

    pub fn after(&mut self, delay_us: u64, event: Event) {
        self.at(self.now_us + delay_us, event);
    }

    /// A delay of at most so much, mostly much less.
    pub fn delay_us(&mut self, max_us: u64) -> u64 {
        let share = self.rng.f64();
        (share * share * share * max_us as f64) as u64 + 1
    }

    pub fn note(&mut self, node: usize, what: &'static str, numbers: (u64, u64)) {
        self.trace.note(self.now_us, node, what, numbers);
    }

    pub fn violate(&mut self, check: &'static str, what: String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { check, what });
        }
    }

    /// Runs all of it: faults, healing, the way back to service and equality, the checks.
    pub fn run(&mut self) {
        let faults_us = self.plan.faults_us;
        self.run_until(faults_us);
        if self.violation.is_some() {
            return;
        }
        self.heal();
        let served_by_us = self.now_us + self.plan.recovery_us();
        while self.acknowledged_since_heal < 5 && self.violation.is_none() {
            if self.now_us >= served_by_us {
                let nodes = self.describe_nodes();
                self.violate("liveness", format!("no service after all was healed\n{nodes}"));
            }
            self.run_until(self.now_us + 50_000);
        }
        let mut equal_by_us = self.now_us + self.plan.recovery_us();
        let (mut applied, limit_us) = (0, self.now_us + 20 * self.plan.recovery_us());
        for client in &mut self.clients {
            client.stopped = true;
        }
        while self.violation.is_none() && !(self.quiet() && self.restart_damaged_stores()) {
            // One that applies slowly may have many entries left: it goes on while it comes nearer.
            let sum = self.applied_sum();
            if sum > std::mem::replace(&mut applied, sum) {
                equal_by_us = limit_us.min(self.now_us + self.plan.recovery_us());
            }
            if self.now_us >= equal_by_us {
                let nodes = self.describe_nodes();
                self.violate("liveness", format!("nodes stay different after healing\n{nodes}"));
            }
            self.run_until(self.now_us + 50_000);
        }
        if self.violation.is_none() {
            self.check_final_state();
        }
    }

    fn applied_sum(&self) -> u64 {
        let processes = self.machines.iter().filter_map(|machine| machine.process.as_ref());
        processes.map(|process| process.store.applied()).sum()
    }

    fn run_until(&mut self, end_us: u64) {
        while self.violation.is_none() {
            match self.queue.peek() {
                Some(Reverse(scheduled)) if scheduled.at_us <= end_us => {}
                _ => break,
            }
            let Some(Reverse(scheduled)) = self.queue.pop() else { break };
            self.now_us = scheduled.at_us;
            self.current = scheduled.sequence;
            self.happen(scheduled.event);
        }
        self.now_us = self.now_us.max(end_us);
    }

    /// The node whose process an event belongs to, and the life it was meant for, if for one.
    fn target(event: &Event) -> Option<(usize, Option<u64>)> {
        match event {
            Event::Deliver { to, .. } => Some((*to, None)),
            Event::Connect { node, .. }
            | Event::ToServer { node, .. }
            | Event::ClosedToServer { node, .. } => Some((*node, None)),
            Event::Wake { node, life }
            | Event::Tick { node, life }
            | Event::Synced { node, life, .. }
            | Event::Apply { node, life }
            | Event::Head { node, life }
            | Event::LogRead { node, life, .. }
            | Event::Drain { node, life }
            | Event::Serve { node, life, .. } => Some((*node, Some(*life))),
            _ => None,
        }
    }

    /// A node stands still; a pause within another does not end it sooner.
    pub fn pause(&mut self, node: usize, us: u64) {
        let machine = &mut self.machines[node];
        let until_us = machine.paused_until_us.max(self.now_us + us);
        machine.paused_until_us = until_us;
        machine.paused_lately_us = until_us;
        self.at(until_us, Event::PauseEnds { node });
    }

    /// A pause ends, perhaps before its time. What was held keeps its place before what comes now:
    /// bytes must not overtake others.
    pub fn end_pause(&mut self, node: usize) {
        let at_us = self.now_us;
        self.machines[node].paused_until_us = 0;
        for (sequence, event) in std::mem::take(&mut self.machines[node].held) {
            self.queue.push(Reverse(Scheduled { at_us, sequence, event }));
        }
    }

    fn happen(&mut self, event: Event) {
        if let Some((node, life)) = World::target(&event) {
            let machine = &self.machines[node];
            let other = life.is_some_and(|life| life != machine.life);
            if machine.process.is_none() || other {
                return self.miss(event);
            }
            if machine.paused_until_us > self.now_us {
                self.machines[node].held.push((self.current, event));
                return;
            }
        }
        match event {
            Event::Deliver { to, from, incarnation, message } => {
                let from = arakoon::paxos::NodeId(from as u8);
                self.input(to, Input::Message { from, incarnation, message });
            }
            Event::Wake { node, .. } => {
                if let Some(process) = &mut self.machines[node].process {
                    process.woken = false;
                }
                self.step(node);
            }
            Event::Tick { node, life } => {
                self.step(node);
                if let Some(process) = &self.machines[node].process {
                    let every_us = match process.driver.is_waiting() {
                        true => process.driver.tick_soon_us(),
                        false => process.driver.tick_every_us(),
                    };
                    self.after(every_us, Event::Tick { node, life });
                }
            }
            Event::Synced { node, count, .. } => self.synced(node, count),
            Event::Apply { node, .. } => self.apply_next(node),
            Event::Head { node, .. } => self.head_next(node),
            Event::LogRead { node, purpose, .. } => self.read_log(node, purpose),
            Event::Drain { node, .. } => self.drain(node),
            Event::Start { node, life } => {
                if self.machines[node].life == life && self.machines[node].process.is_none() {
                    self.start(node);
                }
            }
            Event::Fault(fault) => self.strike(fault),
            Event::DiskFreed { node } => self.free_disk(node),
            Event::PauseEnds { node } if self.machines[node].paused_until_us <= self.now_us => {
                self.end_pause(node);
            }
            Event::PauseEnds { .. } => {}
            Event::ClientNext { client } => self.next_ops(client),
            Event::ClientTimeout { client, round } => self.client_gives_up(client, round),
            Event::Connect { node, connection } => self.accept(node, connection),
            Event::ToServer { node, connection, bytes } => {
                self.receive_at_server(node, connection, &bytes);
            }
            Event::ClosedToServer { node, connection } => self.closed_at_server(node, connection),
            Event::Serve { node, connection, earlier, .. } => self.serve(node, connection, earlier),
            Event::ToClient { connection, bytes } => self.receive_at_client(connection, &bytes),
            Event::ClosedToClient { connection } => self.closed_at_client(connection),
        }
    }

    /// An event for a process that is not there.
    fn miss(&mut self, event: Event) {
        match event {
            Event::Connect { connection, .. } | Event::ToServer { connection, .. } => {
                self.refuse_connection(connection);
            }
            _ => {}
        }
    }

    /// Puts something into the driver's inbox and wakes it soon.
    pub fn input(&mut self, node: usize, input: Input) {
        let machine = &mut self.machines[node];
        let life = machine.life;
        let Some(process) = &mut machine.process else { return };
        process.inbox.push_back(input);
        if !std::mem::replace(&mut process.woken, true) {
            let delay_us = self.delay_us(100);
            self.after(delay_us, Event::Wake { node, life });
        }
    }

    fn step(&mut self, node: usize) {
        let now_us = self.now_us;
        let machine = &mut self.machines[node];
        let (clock_us, wall_ms) = (machine.clock.now_us(now_us), machine.wall_ms(now_us));
        let Some(process) = &mut machine.process else { return };
        let inputs = std::mem::take(&mut process.inbox);
        let over_bound = process.store.over_bound();
        let mut collector = Collector { wall_ms, over_bound, effects: Vec::new() };
        process.driver.step(clock_us, inputs, &mut collector);
        self.gathered += u64::from(process.driver.gathers().is_some());
        let status = process.driver.status().clone();
        let leads = process.driver.replica().is_leader();
        let keeps_time = process.driver.keeps_time();
        let elected = leads && process.led != status.ballot;
        if elected {
            process.led = status.ballot;
            if process.driver.electors_time_ms() == 0 {
                self.timeless.insert(status.ballot, false);
            }
        }
        let stamp_ms = (clock_us / 1000) as i64 + status.stamp_offset_ms;
        // Its first entry is applied: what it made of the clock counts, for others as well.
        if leads && keeps_time && self.timeless.contains_key(&status.ballot) {
            if self.timeless.insert(status.ballot, true) == Some(false) {
                self.check_timeless(node, status.ballot);
            }
            let (ahead_ms, now_ms) = (stamp_ms - (now_us / 1000) as i64, (now_us / 1000) as i64);
            let before_ms = self.clock_base.map_or(i64::MIN, |(before_ms, _)| before_ms);
            self.clock_base = Some((before_ms.max(ahead_ms), now_ms));
        }
        if status.role == arakoon::node::Role::Master {
            self.check_clock(status.ballot, stamp_ms);
        }
        self.trace.mix(status.last.0 << 20 ^ status.chosen.0 ^ status.ballot.round << 40);
        for effect in collector.effects {
            self.perform(node, effect);
        }
        let chunk_bytes = self.plan.chunk_bytes.max(self.entry_bytes_max);
        let limit_bytes = self.plan.window_bytes + chunk_bytes;
        if let Some(over) = status.followers.iter().find(|it| it.in_flight_bytes > limit_bytes) {
            self.violate("bounded window", format!("{over:?}, limit {limit_bytes}"));
        }
        if let Some((index, other)) = status.head_mismatch {
            self.violate("head hashes", format!("n{} differs from {other} at {index}", node + 1));
        }
        self.settle_answers(node);
        self.check_masters();
        self.end_if_failed(node);
        self.restart_if_outlived(node);
        self.end_if_stopped(node);
    }

    /// A leader that set the log's clock by its own is established: none of those who elected it
    /// had kept time. With so many others that do, one of them would have been among them. (Before
    /// that it may be one that stood still since it asked, and whom nobody follows any more.)
    fn check_timeless(&mut self, node: usize, ballot: Ballot) {
        let keeps = |machine: &&Machine| {
            let keeps = machine.process.as_ref().is_some_and(|it| it.driver.keeps_time());
            machine.node != node && keeps
        };
        let keepers = self.machines.iter().filter(keeps).count();
        if keepers + self.plan.seats / 2 >= self.plan.seats {
            let what = format!("{ballot} was elected as if nobody had kept time");
            self.violate("the log's clock", what);
        }
    }

    /// A master's idea of the log's clock keeps to true time but for the slewing towards its wall
    /// clock, by a tenth, which may be wrong by an hour: within each reign, and upwards over all of
    /// them since the last master that may have set it.
    fn check_clock(&mut self, ballot: Ballot, stamp_ms: i64) {
        let now_ms = (self.now_us / 1000) as i64;
        let ahead_ms = stamp_ms - now_ms;
        if self.reign_clock.is_none_or(|(of, ..)| of != ballot) {
            self.reign_clock = Some((ballot, stamp_ms, now_ms));
        }
        let Some((_, first_ms, since_ms)) = self.reign_clock else { return };
        let (passed_ms, gone_ms) = (now_ms - since_ms, stamp_ms - first_ms);
        if (gone_ms - passed_ms).abs() > passed_ms / 8 + 20 {
            let what = format!("it went {gone_ms} ms in {passed_ms} ms under {ballot}");
            self.violate("the log's clock", what);
        }
        let Some((base_ms, since_ms)) = self.clock_base else { return };
        let limit_ms = base_ms + (now_ms - since_ms) / 8 + 1_000;
        if ahead_ms > limit_ms {
            let what = format!("{ballot} has it {} ms too far", ahead_ms - limit_ms);
            self.violate("the log's clock", what);
        }
    }

    fn perform(&mut self, node: usize, effect: Effect) {
        let life = self.machines[node].life;
        match effect {
            Effect::Save(saves) => self.save(node, saves),
            Effect::Send(to, message) => self.send(node, usize::from(to.0), message),
            Effect::Read(purpose) => {
                let delay_us = self.delay_us(3_000);
                self.after(delay_us, Event::LogRead { node, life, purpose });
            }
            Effect::Apply(job) => self.queue_apply(node, job),
            Effect::Head(job) => self.queue_head(node, job),
            Effect::Collapse(below) => self.collapse(node, below),
            Effect::Publish(status) => {
                if let Some(process) = self.process(node) {
                    process.sessions.handle.publish(&status);
                    process.status = status;
                }
            }
            Effect::CloseClients => self.close_clients(node),
        }
    }

    pub fn process(&mut self, node: usize) -> Option<&mut Process> {
        self.machines[node].process.as_mut()
    }

    /// Never two nodes that may answer at one true time, each by its own clock.
    fn check_masters(&mut self) {
        let now_us = self.now_us;
        let serving = self.machines.iter().filter(|machine| {
            let until_us = machine.process.as_ref().map_or(0, |p| p.status.serving_until_us);
            machine.clock.now_us(now_us) < until_us
        });
        let serving: Vec<usize> = serving.map(|machine| machine.node + 1).collect();
        if serving.len() > 1 {
            self.violate("one master", format!("nodes {serving:?} serve at once"));
        }
    }

    fn quiet(&mut self) -> bool {
        let now_us = self.now_us;
        let busy = self.clients.iter().any(Client::waits);
        let mut applied = Vec::new();
        let mut masters = 0;
        for machine in &self.machines {
            let Some(process) = &machine.process else { return false };
            let status = &process.status;
            masters += usize::from(machine.clock.now_us(now_us) < status.serving_until_us);
            applied.push((status.applied, status.last));
            let done =
                process.heading.is_empty() && process.applying.is_empty() && !process.head_busy;
            if !done || status.applied != status.last || status.catch_up.is_some() {
                return false;
            }
            if !process.driver.replica().state().voting {
                return false;
            }
        }
        !busy && masters == 1 && applied.windows(2).all(|pair| pair[0] == pair[1])
    }

    pub fn describe_nodes(&self) -> String {
        let mut text = String::new();
        for machine in &self.machines {
            let clock_us = machine.clock.now_us(self.now_us);
            text += &match &machine.process {
                None => format!("n{}: down\n", machine.node + 1),
                Some(process) => format!(
                    "n{}: clock {clock_us} applied by store {:?}, {} jobs wait, layers {} bytes, over \
                     bound: {}, drained {} durable {:?}, heading {} {:?} {:?}\n",
                    machine.node + 1,
                    process.applier.applied(),
                    process.applying.len(),
                    process.store.layers_bytes(),
                    process.store.over_bound(),
                    process.store.drained(),
                    process.driver.replica().durable(),
                    process.heading.len(),
                    process.status,
                    process.driver.replica().state(),
                ),
            };
        }
        text
    }
}
