//! Closed-loop clients: each sends one operation, waits, notes what it heard, thinks, and goes on.

use arakoon::command::batch::{self, Watch};
use arakoon::command::table::{self, Kind as TableKind};
use arakoon::node::{Input, Outcome, Refusal, Submission};
use arakoon::store::keyspace::{Version, View};
use bytes::{Bytes, BytesMut};
use resp::Reply;

use crate::answers::{Answered, Ticket};
use crate::history::{Kind, Op, Result as OpResult};
use crate::machine::node_of_address;
use crate::world::{Event, Violation, World};

/// After this long a client waits no more.
const PATIENCE_US: u64 = 8_000_000;

/// One client.
pub struct Client {
    /// Where it thinks the master is.
    node: usize,
    /// The operation it waits for.
    pub waits_for: Option<usize>,
    /// What a WATCH saw, to be followed by its EXEC.
    watched: Option<(u32, u64, Version)>,
    pub stopped: bool,
}

impl Client {
    pub fn new(node: usize) -> Client {
        Client { node, waits_for: None, watched: None, stopped: false }
    }
}

fn text(value: impl ToString) -> Bytes {
    Bytes::from(value.to_string())
}

/// A list's element is its operation's number in eight digits.
fn element(op: usize) -> Bytes {
    Bytes::from(format!("{op:08}"))
}

fn elements(value: &[u8]) -> Option<Vec<usize>> {
    if !value.len().is_multiple_of(8) {
        return None;
    }
    value.chunks(8).map(|chunk| std::str::from_utf8(chunk).ok()?.parse().ok()).collect()
}

pub fn list_key(key: u32) -> Bytes {
    Bytes::from(format!("list{key}"))
}

/// The commands of an operation; several are a transaction.
fn commands(op: usize, kind: &Kind) -> Vec<Vec<Bytes>> {
    let word = Bytes::from_static;
    match kind {
        Kind::Append { key } => vec![vec![word(b"APPEND"), list_key(*key), element(op)]],
        Kind::AppendBoth { keys } => {
            let append = |key: u32| vec![word(b"APPEND"), list_key(key), element(op)];
            vec![append(keys.0), append(keys.1)]
        }
        Kind::Get { key } => vec![vec![word(b"GET"), list_key(*key)]],
        Kind::GetBoth { keys } => {
            vec![vec![word(b"MGET"), list_key(keys.0), list_key(keys.1)]]
        }
        Kind::Increment { key } => vec![vec![word(b"INCR"), text(format!("count{key}"))]],
        Kind::Count { key } => vec![vec![word(b"GET"), text(format!("count{key}"))]],
        Kind::Watch { key } => vec![vec![word(b"GET"), text(format!("guard{key}"))]],
        Kind::Swap { key, seen, .. } => {
            vec![vec![word(b"SET"), text(format!("guard{key}")), text(seen + 1)]]
        }
        Kind::SetAbsent { key } => {
            vec![vec![word(b"SET"), text(format!("once{key}")), text(op), word(b"NX")]]
        }
        Kind::GetOnce { key } => vec![vec![word(b"GET"), text(format!("once{key}"))]],
        Kind::SetExpiring { ttl_ms } => {
            let key = text(format!("brief{op}"));
            vec![vec![word(b"SET"), key, text(op), word(b"PX"), text(ttl_ms)]]
        }
        Kind::GetExpiring { set } => vec![vec![word(b"GET"), text(format!("brief{set}"))]],
    }
}

impl World {
    pub fn next_op(&mut self, client: usize) {
        if self.clients[client].stopped || self.clients[client].waits_for.is_some() {
            return;
        }
        let watched = self.clients[client].watched.take();
        let kind = match watched {
            Some((key, seen, version)) => Kind::Swap { key, seen, version },
            None => self.choose_kind(),
        };
        let op = self.history.ops.len();
        if let Kind::SetExpiring { .. } = kind {
            self.history.expiring.push(op);
        }
        self.history.ops.push(Op {
            client,
            kind,
            asked_us: self.now_us,
            heard_us: u64::MAX,
            result: OpResult::Unknown,
            stamp_ms: 0,
        });
        self.clients[client].waits_for = Some(op);
        let node = self.clients[client].node;
        let delay_us = 20 + self.delay_us(1_000);
        self.after(delay_us, Event::Request { node, op });
        self.after(PATIENCE_US, Event::ClientTimeout { client, op });
    }

    fn choose_kind(&mut self) -> Kind {
        // Keys change over time, so that values stay small.
        let epoch = (self.now_us / 5_000_000) as u32 * 100;
        let lists = self.plan.lists;
        let key = epoch + self.rng.u32(..lists);
        let other = epoch + (key - epoch + 1) % lists;
        let keys = if key < other { (key, other) } else { (other, key) };
        match self.rng.u8(..20) {
            0..4 => Kind::Append { key },
            4..7 => Kind::AppendBoth { keys },
            7..9 => Kind::Get { key },
            9..12 => Kind::GetBoth { keys },
            12 => Kind::Increment { key: self.rng.u32(..2) },
            13 => Kind::Count { key: self.rng.u32(..2) },
            14..16 => Kind::Watch { key: self.rng.u32(..2) },
            16 => Kind::SetAbsent { key: (self.now_us / 300_000) as u32 },
            17 => Kind::GetOnce { key: (self.now_us / 300_000) as u32 },
            18 => Kind::SetExpiring { ttl_ms: self.rng.u64(1..3_000) },
            _ => match self.history.expiring.len() {
                0 => Kind::SetExpiring { ttl_ms: self.rng.u64(1..3_000) },
                count => {
                    let set = self.rng.usize(count.saturating_sub(10)..count);
                    Kind::GetExpiring { set: self.history.expiring[set] }
                }
            },
        }
    }

    /// A request reaches a node's session.
    pub fn request(&mut self, node: usize, op: usize) {
        if self.history.ops[op].kind.is_read() {
            return self.read(node, op);
        }
        let mut items = BytesMut::new();
        let commands = commands(op, &self.history.ops[op].kind);
        match &self.history.ops[op].kind {
            Kind::Swap { key, version, .. } => {
                let watch = Watch { db: 0, key: text(format!("guard{key}")), version: *version };
                let calls = commands.iter().map(|call| (0, &call[..]));
                batch::encode_transaction(&mut items, &[watch], calls);
            }
            Kind::AppendBoth { .. } => {
                let calls = commands.iter().map(|call| (0, &call[..]));
                batch::encode_transaction(&mut items, &[], calls);
            }
            _ => batch::encode_command(&mut items, 0, &commands[0]),
        }
        self.submit(node, op, items, false);
    }

    fn submit(&mut self, node: usize, op: usize, items: BytesMut, clock_only: bool) {
        let asked_at_us = self.now_us;
        let read_at_us = self.machines[node].clock.now_us(asked_at_us);
        let ticket = Ticket { op, clock_only, read_at_us, asked_at_us };
        let respond = self.answers.respond(ticket);
        let submission = Submission { items: items.freeze(), count: 1, read_at_us, respond };
        self.input(node, Input::Submission(submission));
    }

    /// As a session reads: take a view, read, then check the lease, then reply.
    fn read(&mut self, node: usize, op: usize) {
        let clock_us = self.machines[node].clock.now_us(self.now_us);
        let life = self.machines[node].life;
        let kind = self.history.ops[op].kind.clone();
        let Some(process) = self.process(node) else { return };
        let stamp_ms = (clock_us / 1000).saturating_add_signed(process.status.stamp_offset_ms);
        let args = commands(op, &kind).remove(0);
        let done = (|| {
            let rows = process.store.read();
            let view = View::open(&rows, 0, stamp_ms, 0)?;
            let spec = table::find(&args[0]).expect("GET and MGET are commands");
            let TableKind::Read(read) = spec.kind else { unreachable!("a read") };
            let mut reply = read(&view, &args)?;
            if let Kind::Watch { .. } = kind {
                let Version { index, place } = view.version(&args[1])?;
                let version = vec![Reply::Integer(index as i64), Reply::Integer(i64::from(place))];
                reply = Reply::Array(vec![reply, Reply::Array(version)]);
            }
            Ok::<_, arakoon::store::StoreError>((reply, view.met_due(), rows.applied()))
        })();
        match done {
            Ok((_, true, _)) => {
                // Neither surely there nor surely gone: the log's clock decides, then once more.
                let mut items = BytesMut::new();
                batch::encode_clock(&mut items);
                self.submit(node, op, items, true);
            }
            Ok((reply, false, view)) => {
                let delay_us = self.delay_us(2_000);
                self.after(delay_us, Event::ReadCheck { node, life, op, reply, view });
            }
            Err(error) => {
                process.failed.get_or_insert(error.to_string());
                self.after(0, Event::Answer { op, answer: Answered::Closed });
                self.end_if_failed(node);
            }
        }
    }

    /// The lease must hold after reading, and the view must be one of this mastership.
    pub fn check_read(&mut self, node: usize, op: usize, reply: Reply, view: u64) {
        let clock_us = self.machines[node].clock.now_us(self.now_us);
        let Some(process) = self.process(node) else { return };
        let status = &process.status;
        let serves = clock_us < status.serving_until_us && view >= status.serving_from.0;
        let answer = match serves {
            true => Answered::Reply(reply),
            false => Answered::Refused(process.status.refusal.clone()),
        };
        let delay_us = 20 + self.delay_us(1_000);
        self.after(delay_us, Event::Answer { op, answer });
    }

    /// Looks at what drivers and appliers answered.
    pub fn settle_answers(&mut self, node: usize) {
        for (ticket, outcome) in self.answers.take() {
            self.take_answer(node, ticket, outcome);
        }
    }

    pub fn take_answer(&mut self, node: usize, ticket: Ticket, outcome: Option<Outcome>) {
        self.check_bound(node, &ticket, &outcome);
        let op = ticket.op;
        let answer = match outcome {
            None if self.ending => Answered::Closed,
            None => {
                let what = format!("operation {op} was dropped without an answer");
                return self.violate("answered once", what);
            }
            Some(Ok(_)) if ticket.clock_only => {
                let delay_us = self.delay_us(100);
                return self.after(delay_us, Event::Request { node, op });
            }
            Some(Ok(mut replies)) if replies.len() == 1 => Answered::Reply(replies.remove(0)),
            Some(Ok(replies)) => {
                let what = format!("operation {op} got {} replies", replies.len());
                return self.violate("answered once", what);
            }
            Some(Err(refusal)) => Answered::Refused(refusal),
        };
        let answer = match self.rng.u16(..500) {
            0 => Answered::Closed,
            _ => answer,
        };
        let delay_us = 20 + self.delay_us(1_000);
        self.after(delay_us, Event::Answer { op, answer });
    }

    /// Refusals come within the promised time by the node's clock, unless it stood still.
    fn check_bound(&mut self, node: usize, ticket: &Ticket, outcome: &Option<Outcome>) {
        let machine = &self.machines[node];
        let paused = machine.paused_lately_us >= ticket.asked_at_us;
        let took_us = machine.clock.now_us(self.now_us).saturating_sub(ticket.read_at_us);
        // A tick is at most 10 ms; execution comes on top.
        let limit_us = match outcome {
            Some(Err(_)) => self.plan.answer_within_us() + 12_000,
            Some(Ok(_)) => self.plan.answer_within_us() + 3_000_000,
            None => return,
        };
        if !paused && took_us > limit_us {
            let what = format!("operation {} was answered after {took_us} us", ticket.op);
            self.violate("answered in time", what);
        }
    }

    /// A node that lost mastership closes its clients' connections, at times before the answers.
    pub fn close_clients(&mut self, node: usize) {
        if self.rng.bool() {
            return;
        }
        let at_node = |client: &Client| if client.node == node { client.waits_for } else { None };
        let open: Vec<usize> = self.clients.iter().filter_map(at_node).collect();
        for op in open {
            let delay_us = self.delay_us(500);
            self.after(delay_us, Event::Answer { op, answer: Answered::Closed });
        }
    }

    pub fn client_gives_up(&mut self, client: usize, op: usize) {
        if self.clients[client].waits_for == Some(op) {
            self.client_hears(op, Answered::Closed);
        }
    }

    pub fn client_hears(&mut self, op: usize, answer: Answered) {
        let now_us = self.now_us;
        let client = self.history.ops[op].client;
        if self.clients[client].waits_for != Some(op) {
            return;
        }
        self.clients[client].waits_for = None;
        self.history.ops[op].heard_us = now_us;
        let seats = self.plan.seats;
        let (result, pause_us) = match answer {
            Answered::Reply(reply) => {
                self.acknowledged_since_heal += u64::from(self.healed);
                (OpResult::Reply(reply), self.plan.think_us)
            }
            Answered::Refused(Refusal::Uncertain) => (OpResult::Unknown, 10_000),
            Answered::Refused(Refusal::Moved { address }) => {
                match node_of_address(&address) {
                    Some(node) if node < seats => self.clients[client].node = node,
                    _ => self.violate("redirect", format!("MOVED to {address}")),
                }
                (OpResult::Refused, 2_000)
            }
            Answered::Refused(_) | Answered::NotConnected => {
                self.clients[client].node = self.rng.usize(..seats);
                (OpResult::Refused, 20_000)
            }
            Answered::Closed => {
                self.clients[client].node = self.rng.usize(..seats);
                (OpResult::Unknown, 20_000)
            }
        };
        let numbers = (op as u64, matches!(result, OpResult::Reply(_)).into());
        self.note(254, "client hears", numbers);
        self.history.ops[op].result = result;
        if let Err(violation) = self.history.take(op, self.clock_ms) {
            self.violation.get_or_insert(violation);
        }
        if let Some(seen) = self.history.watched(op) {
            self.clients[client].watched = (self.rng.u8(..10) < 8).then_some(seen);
        }
        let delay_us = self.rng.u64(..=2 * pause_us);
        self.after(delay_us, Event::ClientNext { client });
    }

    /// The lists as they are in the end, which every history must fit.
    pub fn read_final_lists(&mut self, node: usize) -> Result<(), Violation> {
        let Some(process) = self.machines[node].process.as_mut() else { return Ok(()) };
        let keys: Vec<u32> = self.history.list_keys();
        let rows = process.store.read();
        let damaged = |error: arakoon::store::StoreError| Violation {
            check: "final state",
            what: error.to_string(),
        };
        let view = View::open(&rows, 0, 0, 0).map_err(damaged)?;
        for key in keys {
            let stored = view.find(&list_key(key)).map_err(damaged)?;
            let value = stored.map(|stored| stored.content()).unwrap_or_default();
            let Some(list) = elements(&value) else {
                let what = format!("list {key} is {:?}", Bytes::copy_from_slice(&value));
                return Err(Violation { check: "final state", what });
            };
            self.history.final_list(key, list)?;
        }
        Ok(())
    }
}

/// The elements in a reply to GET; none for a key that is not there.
pub fn list_of(reply: &Reply) -> Option<Vec<usize>> {
    match reply {
        Reply::Null => Some(Vec::new()),
        Reply::Bulk(value) => elements(value),
        _ => None,
    }
}
