//! Clients' connections: bytes both ways, in order, and the node's sessions at their ends.
//!
//! Stands in for `server::connection` and its sockets; the session, its backend and both codecs are
//! the node's own. What a client has sent still arrives after it has gone to another node.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arakoon::config::Config;
use arakoon::node::{Handle, Input, Outcome, Submission};
use arakoon::paxos::NodeId;
use arakoon::server::node::NodeBackend;
use arakoon::server::{
    Backend, HandOver, HandOverRefused, NodeInfo, Refusal, Session, Shared, Step, Synced,
};
use arakoon::store::{FrozenView, Rows, Store, StoreError};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use resp::{ReplyDecoder, Request, RequestDecoder, RequestLimits};

use crate::answers::Ticket;
use crate::machine::client_address;
use crate::world::{Event, World};

/// One connection, as the network and the client know it.
pub struct Connection {
    pub client: usize,
    pub node: usize,
    /// The client still listens.
    pub open: bool,
    /// The node accepted it, or will.
    accepted: bool,
    /// Bytes arrive in order.
    to_server_us: u64,
    to_client_us: u64,
    received: BytesMut,
    decoder: ReplyDecoder,
}

/// The node's end.
pub struct ServerEnd {
    session: Session,
    decoder: RequestDecoder,
    buffer: BytesMut,
    requests: VecDeque<Request>,
    /// A submission is out.
    waiting: bool,
    /// A turn is about to come.
    serving: bool,
    /// To be closed once what was begun is answered.
    finish: bool,
}

/// What the sessions of one process share.
pub struct Sessions {
    shared: Arc<Shared>,
    backend: NodeBackend,
    pub handle: Handle,
    clock_us: Arc<AtomicU64>,
    fatal: Arc<Mutex<Option<String>>>,
    /// By the number of the connection.
    pub ends: std::collections::BTreeMap<usize, ServerEnd>,
}

impl Sessions {
    pub fn new(node: usize, seats: usize, store: Store, seed: u64) -> Sessions {
        let clock_us = Arc::new(AtomicU64::new(0));
        let clock = clock_us.clone();
        let clock = Arc::new(move || clock.load(Ordering::SeqCst));
        let handle = Handle::new(Arc::default(), store, clock);
        let fatal = Arc::new(Mutex::new(None));
        let failed = fatal.clone();
        let fail = Arc::new(move |why: &str| {
            failed.lock().get_or_insert(why.to_owned());
        });
        let config = config(seats);
        let backend = NodeBackend::new(handle.clone(), config, NodeId(node as u8), 1000, fail);
        let shared = Arc::new(Shared::new(seed));
        Sessions { shared, backend, handle, clock_us, fatal, ends: Default::default() }
    }

    /// What a session said that makes the node stop.
    pub fn failure(&self) -> Option<String> {
        self.fatal.lock().take()
    }
}

fn config(seats: usize) -> Config {
    let mut text = "[cluster]\nid = \"simulated\"\n".to_owned();
    for node in 0..seats {
        let (name, client) = (node + 1, client_address(node));
        text += &format!(
            "[[node]]\nname = \"n{name}\"\nclient = \"{client}\"\npeer = \"10.0.0.{name}:4500\"\n\
             dir = \"n{name}\"\n"
        );
    }
    Config::parse("simulated.toml".as_ref(), &text).expect("a config made here is right")
}

/// A state that was read a while ago, and the log's clock then.
pub struct EarlierView {
    view: FrozenView,
    stamp_ms: u64,
    /// So many requests had arrived by then.
    requests: usize,
}

/// The node as a session sees it in one turn: perhaps by a view from a while ago. The lease is
/// asked for now: between the two a real node may stand still.
struct Turn<'a> {
    node: &'a NodeBackend,
    earlier: Option<&'a EarlierView>,
}

impl Backend for Turn<'_> {
    fn with_rows(&self, read: &mut dyn FnMut(&dyn Rows)) -> Result<u64, Refusal> {
        match self.earlier {
            None => self.node.with_rows(read),
            Some(earlier) => {
                read(&earlier.view);
                Ok(earlier.view.applied())
            }
        }
    }

    fn with_rows_for_long(&self, read: &mut dyn FnMut(&dyn Rows)) -> Result<u64, Refusal> {
        match self.earlier {
            None => self.node.with_rows_for_long(read),
            Some(_) => self.with_rows(read),
        }
    }

    fn put_in_order(&self) {
        self.node.put_in_order();
    }

    fn lease(&self, view_index: u64) -> Result<(), Refusal> {
        self.node.lease(view_index)
    }

    fn may_write(&self) -> Result<(), Refusal> {
        self.node.may_write()
    }

    fn stamp_ms(&self) -> u64 {
        self.earlier.map_or_else(|| self.node.stamp_ms(), |earlier| earlier.stamp_ms)
    }

    fn synced(&self) -> Synced {
        self.node.synced()
    }

    fn info(&self) -> NodeInfo {
        self.node.info()
    }

    fn write_head(&self) -> Result<(), Refusal> {
        self.node.write_head()
    }

    fn shut_down(&self) {
        self.node.shut_down();
    }

    fn hand_over(&self, order: HandOver) -> Result<(), HandOverRefused> {
        self.node.hand_over(order)
    }

    fn abort_hand_over(&self) -> bool {
        self.node.abort_hand_over()
    }

    fn store_failed(&self, error: StoreError) {
        self.node.store_failed(error);
    }
}

impl World {
    /// A client opens a connection; what it sends follows behind.
    pub fn connect(&mut self, client: usize, node: usize) -> usize {
        let connection = self.connections.len();
        self.connections.push(Connection {
            client,
            node,
            open: true,
            accepted: false,
            to_server_us: self.now_us,
            to_client_us: self.now_us,
            received: BytesMut::new(),
            decoder: ReplyDecoder::new(16 << 20, 1 << 20),
        });
        let at_us = self.arrival_at_server(connection);
        self.at(at_us, Event::Connect { node, connection });
        connection
    }

    fn client_delay_us(&mut self) -> u64 {
        let network = self.plan.network;
        let late_us =
            if self.chance(network.late) { self.rng.u64(..=network.late_us_max) } else { 0 };
        20 + self.delay_us(1_000) + late_us
    }

    fn arrival_at_server(&mut self, connection: usize) -> u64 {
        let at_us = self.now_us + self.client_delay_us();
        let last_us = &mut self.connections[connection].to_server_us;
        *last_us = at_us.max(*last_us);
        *last_us
    }

    fn arrival_at_client(&mut self, connection: usize) -> u64 {
        let at_us = self.now_us + self.client_delay_us();
        let last_us = &mut self.connections[connection].to_client_us;
        *last_us = at_us.max(*last_us);
        *last_us
    }

    /// The client sends; at times in two pieces.
    pub fn send_to_server(&mut self, connection: usize, mut bytes: Bytes) {
        let node = self.connections[connection].node;
        if bytes.len() > 1 && self.rng.u8(..4) == 0 {
            let first = bytes.split_to(self.rng.usize(1..bytes.len()));
            let at_us = self.arrival_at_server(connection);
            self.at(at_us, Event::ToServer { node, connection, bytes: first });
        }
        let at_us = self.arrival_at_server(connection);
        self.at(at_us, Event::ToServer { node, connection, bytes });
    }

    /// The client closes: the node hears of it some time, or never if it is gone before.
    pub fn close_by_client(&mut self, connection: usize) {
        if std::mem::replace(&mut self.connections[connection].open, false) {
            let node = self.connections[connection].node;
            let at_us = self.arrival_at_server(connection) + self.rng.u64(..2_000_000);
            self.at(at_us, Event::ClosedToServer { node, connection });
        }
    }

    /// The node's end is closed: the client hears of it behind all that was sent to it.
    fn close_by_server(&mut self, node: usize, connection: usize) {
        if let Some(process) = self.process(node) {
            process.sessions.ends.remove(&connection);
        }
        let at_us = self.arrival_at_client(connection);
        self.at(at_us, Event::ClosedToClient { connection });
    }

    pub fn accept(&mut self, node: usize, connection: usize) {
        let Some(process) = self.process(node) else { return };
        let Sessions { shared, ends, .. } = &mut process.sessions;
        let id = connection as u64 + 1;
        let session = Session::new(shared.clone(), id, "client".into(), "node".into());
        let end = ServerEnd {
            session,
            decoder: RequestDecoder::new(RequestLimits::default()),
            buffer: BytesMut::new(),
            requests: VecDeque::new(),
            waiting: false,
            serving: false,
            finish: false,
        };
        ends.insert(connection, end);
        self.connections[connection].accepted = true;
    }

    /// Nobody is there, or the process that accepted is gone.
    pub fn refuse_connection(&mut self, connection: usize) {
        let at_us = self.arrival_at_client(connection);
        self.at(at_us, Event::ClosedToClient { connection });
    }

    pub fn receive_at_server(&mut self, node: usize, connection: usize, bytes: &[u8]) {
        let Some(process) = self.process(node) else { return };
        let Some(end) = process.sessions.ends.get_mut(&connection) else {
            return self.refuse_connection(connection);
        };
        end.buffer.extend_from_slice(bytes);
        loop {
            match end.decoder.decode(&mut end.buffer) {
                Ok(Some(request)) => end.requests.push_back(request),
                Ok(None) => break,
                Err(error) => return self.violate("codec", format!("a request: {error}")),
            }
        }
        self.plan_turn(node, connection);
    }

    pub fn closed_at_server(&mut self, node: usize, connection: usize) {
        if let Some(process) = self.process(node) {
            process.sessions.ends.remove(&connection);
        }
    }

    /// The session goes on soon. What it reads is at times what is there already now.
    fn plan_turn(&mut self, node: usize, connection: usize) {
        let (now_us, life) = (self.now_us, self.machines[node].life);
        let looks_now = self.chance(self.plan.early_views);
        let machine = &mut self.machines[node];
        let clock_us = machine.clock.now_us(now_us);
        let Some(process) = &mut machine.process else { return };
        let Some(end) = process.sessions.ends.get_mut(&connection) else { return };
        if end.waiting || std::mem::replace(&mut end.serving, true) {
            return;
        }
        let earlier = looks_now.then(|| {
            process.sessions.clock_us.store(clock_us, Ordering::SeqCst);
            let stamp_ms = process.sessions.backend.stamp_ms();
            let requests = end.requests.len();
            Box::new(EarlierView { view: process.store.freeze(), stamp_ms, requests })
        });
        let delay_us = self.delay_us(self.plan.turn_us_max);
        self.after(delay_us, Event::Serve { node, life, connection, earlier });
    }

    /// A turn of the session, as `server::connection` gives it.
    pub fn serve(&mut self, node: usize, connection: usize, earlier: Option<Box<EarlierView>>) {
        let machine = &mut self.machines[node];
        let clock_us = machine.clock.now_us(self.now_us);
        let Some(process) = &mut machine.process else { return };
        let sessions = &mut process.sessions;
        sessions.clock_us.store(clock_us, Ordering::SeqCst);
        let Some(end) = sessions.ends.get_mut(&connection) else { return };
        end.serving = false;
        let turn = Turn { node: &sessions.backend, earlier: earlier.as_deref() };
        let arrived = earlier.as_ref().map_or(end.requests.len(), |earlier| earlier.requests);
        let mut later = end.requests.split_off(arrived);
        let mut out = BytesMut::new();
        let step = end.session.handle(&mut end.requests, &mut out, &turn);
        end.requests.append(&mut later);
        end.waiting = matches!(step, Step::Submit(_));
        let (finish, more) = (end.finish, !end.requests.is_empty());
        self.send_to_client(connection, out.freeze());
        match step {
            Step::Idle if finish => self.close_by_server(node, connection),
            Step::Idle if more => self.plan_turn(node, connection),
            Step::Idle => {}
            Step::Pause(pause) => self.pause_turn(node, connection, pause),
            Step::Close => self.close_by_server(node, connection),
            Step::Submit(submission) => self.submit(node, connection, submission, clock_us),
        }
        if let Some(why) = self.process(node).and_then(|process| process.sessions.failure()) {
            self.fail(node, why);
            self.end_if_failed(node);
        }
    }

    /// The session goes on when this much time has passed.
    fn pause_turn(&mut self, node: usize, connection: usize, pause: Duration) {
        let life = self.machines[node].life;
        let Some(process) = &mut self.machines[node].process else { return };
        let Some(end) = process.sessions.ends.get_mut(&connection) else { return };
        end.serving = true;
        let event = Event::Serve { node, life, connection, earlier: None };
        self.after(pause.as_micros() as u64, event);
    }

    fn submit(
        &mut self,
        node: usize,
        connection: usize,
        submission: arakoon::server::Submission,
        read_at_us: u64,
    ) {
        let ticket = Ticket { connection, read_at_us, asked_at_us: self.now_us };
        let respond = self.answers.respond(ticket);
        let arakoon::server::Submission { items, count, charge } = submission;
        self.input(
            node,
            Input::Submission(Submission { items, count, charge, read_at_us, respond }),
        );
    }

    /// The outcome of a submission reaches its session.
    pub fn resume(&mut self, connection: usize, outcome: Outcome) {
        let node = self.connections[connection].node;
        let Some(process) = self.process(node) else { return };
        let Some(end) = process.sessions.ends.get_mut(&connection) else { return };
        if !std::mem::replace(&mut end.waiting, false) {
            let what = format!("connection {connection} got an answer it did not wait for");
            return self.violate("answered once", what);
        }
        let mut out = BytesMut::new();
        end.session.complete(outcome.map_err(Refusal::from), &mut out);
        if end.finish {
            // Only what was begun is answered.
            end.requests.clear();
        }
        self.send_to_client(connection, out.freeze());
        self.plan_turn(node, connection);
    }

    fn send_to_client(&mut self, connection: usize, bytes: Bytes) {
        if !bytes.is_empty() {
            let at_us = self.arrival_at_client(connection);
            self.at(at_us, Event::ToClient { connection, bytes });
        }
    }

    /// A node that lost mastership parts from its clients, but for those in READONLY mode.
    pub fn close_clients(&mut self, node: usize) {
        let Some(process) = self.process(node) else { return };
        let mut idle = Vec::new();
        for (connection, end) in &mut process.sessions.ends {
            if !end.session.is_read_only() {
                end.finish = true;
                if !end.waiting {
                    idle.push(*connection);
                }
            }
        }
        for connection in idle {
            self.close_by_server(node, connection);
        }
    }

    /// A process ended: its clients hear of it, sooner or later.
    pub fn end_connections(&mut self, ends: Vec<usize>) {
        for connection in ends {
            self.refuse_connection(connection);
        }
    }

    pub fn receive_at_client(&mut self, connection: usize, bytes: &[u8]) {
        let end = &mut self.connections[connection];
        if !end.open {
            return;
        }
        end.received.extend_from_slice(bytes);
        let client = end.client;
        loop {
            let end = &mut self.connections[connection];
            match end.decoder.decode(&mut end.received) {
                Ok(Some(reply)) => self.client_gets(client, reply),
                Ok(None) => return,
                Err(error) => return self.violate("codec", format!("a reply: {error}")),
            }
        }
    }

    pub fn closed_at_client(&mut self, connection: usize) {
        let end = &mut self.connections[connection];
        let (client, sent) = (end.client, end.accepted);
        if std::mem::replace(&mut end.open, false) {
            self.client_disconnected(client, sent);
        }
    }
}
