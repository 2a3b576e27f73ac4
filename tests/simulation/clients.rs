//! Closed-loop clients: each sends some operations together, waits, notes what it heard, thinks,
//! and goes on, like a library with a pool of one connection.

use std::collections::VecDeque;

use arakoon::node::Outcome;
use arakoon::store::keyspace::View;
use bytes::{Bytes, BytesMut};
use resp::Reply;

use crate::answers::Ticket;
use crate::checker::history::Op;
use crate::checker::operation::{elements, heard, list_key, requests};
use crate::checker::{Conversation, Heard, Kind, Role, Violation};
use crate::machine::node_of_address;
use crate::world::{Event, World};

/// After this long a client waits no more.
const PATIENCE_US: u64 = 8_000_000;

/// What replies are waited for.
struct Pending {
    /// `None`: of the connection's beginning.
    op: Option<usize>,
    replies: Vec<Reply>,
    expected: usize,
}

/// One client.
pub struct Client {
    /// Where it thinks the master is.
    node: usize,
    pub connection: Option<usize>,
    conversation: Conversation,
    pending: VecDeque<Pending>,
    /// Where to go once all pending is heard.
    go_to: Option<usize>,
    /// Counts its rounds, so that the patience of an earlier one is recognized.
    round: u64,
    /// Its next round is planned.
    thinks: bool,
    pub stopped: bool,
}

impl Client {
    pub fn new(node: usize, role: Role) -> Client {
        Client {
            node,
            connection: None,
            conversation: Conversation::new(role),
            pending: VecDeque::new(),
            go_to: None,
            round: 0,
            thinks: true,
            stopped: false,
        }
    }

    pub fn waits(&self) -> bool {
        !self.pending.is_empty()
    }
}

/// Always an update: service is back when these are acknowledged.
fn is_append(kind: &Kind) -> bool {
    matches!(kind, Kind::Append { .. } | Kind::AppendBoth { .. } | Kind::ReadAppend { .. })
}

fn encode(requests: &[Vec<Bytes>], out: &mut BytesMut) {
    for request in requests {
        resp::encode_request(request, out);
    }
}

impl World {
    /// A client sends its next operations.
    pub fn next_ops(&mut self, client: usize) {
        self.clients[client].thinks = false;
        if self.clients[client].stopped || self.clients[client].waits() {
            return;
        }
        let mut out = BytesMut::new();
        let connection = match self.clients[client].connection {
            Some(connection) => connection,
            None => self.open_connection(client, &mut out),
        };
        for _ in 0..[1, 1, 1, 1, 2, 4][self.rng.usize(..6)] {
            let World { plan, now_us, clients, history, rng, .. } = self;
            let conversation = &mut clients[client].conversation;
            let kind = plan.workload.choose(*now_us, conversation, history, rng);
            // What follows depends on the reply.
            let ends = matches!(kind, Kind::Watch { .. } | Kind::Scan { .. });
            let op = self.history.ask(client, kind, self.now_us);
            let requests = requests(op, &self.history.ops[op].kind);
            encode(&requests, &mut out);
            let pending = Pending { op: Some(op), replies: Vec::new(), expected: requests.len() };
            self.clients[client].pending.push_back(pending);
            if ends {
                break;
            }
        }
        self.send_to_server(connection, out.freeze());
        self.clients[client].round += 1;
        let round = self.clients[client].round;
        self.after(PATIENCE_US, Event::ClientTimeout { client, round });
    }

    fn open_connection(&mut self, client: usize, out: &mut BytesMut) -> usize {
        let connection = self.connect(client, self.clients[client].node);
        let speaks_resp3 = self.rng.u8(..3) == 0;
        let client = &mut self.clients[client];
        client.connection = Some(connection);
        client.conversation.reconnected();
        let mut first = Vec::new();
        if speaks_resp3 {
            first.push(vec![Bytes::from_static(b"HELLO"), Bytes::from_static(b"3")]);
        }
        if client.conversation.role == Role::Stale {
            first.push(vec![Bytes::from_static(b"READONLY")]);
        }
        encode(&first, out);
        let pending = || Pending { op: None, replies: Vec::new(), expected: 1 };
        client.pending.extend(first.iter().map(|_| pending()));
        connection
    }

    /// A reply reaches a client.
    pub fn client_gets(&mut self, client: usize, reply: Reply) {
        let Some(pending) = self.clients[client].pending.front_mut() else {
            let what = format!("client {client} got {reply:?} and had asked for nothing");
            return self.violate("answered once", what);
        };
        pending.replies.push(reply);
        if pending.replies.len() < pending.expected {
            return;
        }
        let Some(Pending { op, replies, .. }) = self.clients[client].pending.pop_front() else {
            return;
        };
        match op {
            Some(op) => {
                let heard = heard(&self.history.ops[op].kind, replies);
                self.client_hears(op, heard);
            }
            None if matches!(replies[0], Reply::Error(_)) => {
                // LOADING: the next place may be ready.
                self.clients[client].go_to = Some(self.rng.usize(..self.plan.seats));
            }
            None => {}
        }
        if !self.clients[client].waits() {
            self.end_round(client);
        }
    }

    fn client_hears(&mut self, op: usize, heard: Heard) {
        let client = self.history.ops[op].client;
        let seats = self.plan.seats;
        let result = match &heard {
            Heard::Reply(_) => {
                let Op { kind, asked_us, .. } = &self.history.ops[op];
                let after = self.healed && *asked_us > self.plan.faults_us;
                self.acknowledged_since_heal += u64::from(after && is_append(kind));
                2
            }
            Heard::Refused { master: Some(address) } => {
                match node_of_address(address) {
                    Some(node) if node < seats => self.clients[client].go_to = Some(node),
                    _ => self.violate("redirect", format!("MOVED to {address}")),
                }
                1
            }
            Heard::Refused { master: None } => {
                self.clients[client].go_to = Some(self.rng.usize(..seats));
                1
            }
            Heard::Unknown => 0,
        };
        self.note(254, "client hears", (op as u64, result));
        let connection = self.clients[client].connection.unwrap_or(usize::MAX) as u64;
        let told = self.history.hear(op, self.now_us, heard, self.clock_ms, connection);
        if let Err(violation) = told {
            self.violation.get_or_insert(violation);
        }
        let World { clients, history, rng, .. } = self;
        clients[client].conversation.heard(history, op, rng);
    }

    /// All is answered.
    fn end_round(&mut self, client: usize) {
        let mut pause_us = self.plan.think_us;
        if let Some(node) = self.clients[client].go_to.take() {
            pause_us = if node == self.clients[client].node { 20_000 } else { 2_000 };
            if let Some(connection) = self.clients[client].connection.take() {
                self.close_by_client(connection);
            }
            self.clients[client].node = node;
        }
        let delay_us = self.rng.u64(..=2 * pause_us);
        if !std::mem::replace(&mut self.clients[client].thinks, true) {
            self.after(delay_us, Event::ClientNext { client });
        }
    }

    /// The connection is gone. `sent`: what was asked for may have reached the node.
    pub fn client_disconnected(&mut self, client: usize, sent: bool) {
        self.clients[client].connection = None;
        self.clients[client].go_to = None;
        for Pending { op, .. } in std::mem::take(&mut self.clients[client].pending) {
            if let Some(op) = op {
                let heard = if sent { Heard::Unknown } else { Heard::Refused { master: None } };
                self.client_hears(op, heard);
            }
        }
        self.clients[client].conversation.reconnected();
        self.clients[client].go_to = Some(self.rng.usize(..self.plan.seats));
        self.end_round(client);
    }

    pub fn client_gives_up(&mut self, client: usize, round: u64) {
        if self.clients[client].waits() && self.clients[client].round == round {
            self.cut_client(client);
        }
    }

    /// The connection breaks; the node's end notices later.
    pub fn cut_client(&mut self, client: usize) {
        if let Some(connection) = self.clients[client].connection {
            self.close_by_client(connection);
            self.client_disconnected(client, true);
        }
    }

    /// Looks at what drivers and appliers answered.
    pub fn settle_answers(&mut self, node: usize) {
        for (ticket, outcome) in self.answers.take() {
            self.take_answer(node, ticket, outcome);
        }
    }

    pub fn take_answer(&mut self, node: usize, ticket: Ticket, outcome: Option<Outcome>) {
        self.check_bound(node, &ticket, &outcome);
        match outcome {
            None if self.ending => {}
            None => {
                let what = format!("connection {} was left without an answer", ticket.connection);
                self.violate("answered once", what);
            }
            Some(outcome) => self.resume(ticket.connection, outcome),
        }
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
            let what = format!("connection {} was answered after {took_us} us", ticket.connection);
            self.violate("answered in time", what);
        }
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
            let stored = view.find(&list_key(key));
            let stored = stored.map_err(|error| damaged(error.of_unlimited()))?;
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
