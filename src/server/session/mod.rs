//! One client's conversation.
//!
//! Requests are taken in order. Writes are encoded into a submission, and consecutive ones share
//! it; whatever cannot be answered before they are waits in the caller's queue until the outcome is
//! there. So replies leave strictly in order, and a client reads its own writes.
//!
//! Invariants: while a submission is out, nothing is taken up; a reply is encoded at once only when
//! nothing is gathered, otherwise it joins the line behind the writes before it.
//!
//! Left out: sockets and time limits; they are the connection's.

mod accounting;
mod administration;
mod ahead;
mod arakoon;
mod client;
mod counting;
mod debug;
mod discovery;
mod help;
mod local;
mod monitor;
mod outcomes;
mod own_replies;
mod read;
mod replies;
mod saving;
mod transaction;
mod users;
mod waiting;
mod watches;
mod write;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use resp::{Protocol, Reply, Request};

use self::accounting::{Account, Fate};
use self::ahead::Ahead;
use self::counting::Counting;
use self::debug::Sleep;
use self::outcomes::{for_a_read, unknown_command};
use self::replies::Replies;
use self::transaction::Transaction;
use self::waiting::Waiting;
use self::watches::Watches;
use super::limits::OUTPUT_TURN_BYTES;
use super::monitors::Monitor;
use super::registry::Client;
use super::shared::{ClientInfo, Signals};
use super::{Backend, Refusal, Shared, Submission};
use crate::command::charge::ENTRY_CHARGE_MAX;
use crate::command::connection::Connection;
use crate::command::server::Server;
use crate::command::table::{self, Kind, Spec};

/// A submission is handed out when it has this many bytes; one command may make it larger.
const SUBMISSION_BYTES_MAX: usize = 1 << 20;
/// A session whose submissions are not larger keeps no room for them.
const OWN_ROOM_BYTES_MIN: usize = 512;
/// Replies that wait for one submission at most.
const GATHERED_MAX: usize = 16_384;
/// How soon a command that CLIENT PAUSE holds back is looked at again, at most.
const HELD_MS_MAX: u64 = 10;

/// What the connection does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send what was encoded and read more. Requests are left over only when the replies so far
    /// are many bytes: handle them after those were sent.
    Idle,
    /// Propose this, then call [`Session::complete`] with the outcome, then [`Session::handle`].
    Submit(Submission),
    /// Send what was encoded, let this much time pass, then call [`Session::handle`] again.
    Pause(Duration),
    /// Send what was encoded, then close.
    Close,
}

/// What became of one request.
enum Taken {
    /// It was answered, queued or encoded.
    Done,
    /// It must wait for what is gathered; it stays the first of the queue.
    Later,
    /// It was encoded, and what is gathered must be submitted before anything else.
    Submit,
    /// It must wait for something that happens by itself; it stays the first of the queue.
    Pause(Duration),
    /// The conversation is over.
    Close,
}

/// A reply in line, behind a submission.
enum Gathered {
    /// Known already.
    Known(Reply),
    /// The reply of the submission's next item, a command with this place in the table.
    Item(usize),
    /// The next item is a transaction, begun by a command with this place.
    Transaction(transaction::Layout, usize),
    /// The next item is a clock item that a waiting read needs; nobody sees its reply.
    Clock,
}

/// One client's side of the conversation.
pub struct Session {
    shared: Arc<Shared>,
    id: u64,
    signals: Arc<Signals>,
    /// The last command's place in the table, and one more.
    last: usize,
    replies: Replies,
    protocol: Protocol,
    db: u8,
    /// READONLY: reads this node's own state.
    read_only: bool,
    /// CLIENT CAPA redirect: it follows REDIRECT.
    redirects: bool,
    /// AK.ATLEAST: no state of an earlier index is read.
    at_least: u64,
    transaction: Option<Transaction>,
    watches: Watches,
    items: BytesMut,
    count: u32,
    /// What the results of the items may come to.
    charge: usize,
    /// The largest of the results, and of the items.
    largest: usize,
    gathered: Vec<Gathered>,
    /// The submission that is out.
    submitted: Option<Submission>,
    /// The request at the head of the queue met a due key and is being read again.
    retry: Option<Retry>,
    /// What reads further behind in the queue answer.
    ahead: Ahead,
    /// What the request at the head of the queue waits for.
    waiting: Option<Waiting>,
    /// The last reply of the submission before, if it lacks counts. It is the next to be encoded.
    counting: Option<Counting>,
    /// DEBUG SLEEP
    sleep: Option<Sleep>,
    /// SAVE
    saving: Option<saving::Saving>,
    account: Account,
    /// MONITOR
    monitor: Option<Monitor>,
    /// For reads that answer something random.
    random: fastrand::Rng,
}

/// A read that waits for the log's clock.
struct Retry {
    /// The time it reads at.
    now_ms: u64,
    attempts: u32,
    refusal: Option<Refusal>,
}

impl Session {
    /// A session for a client that has just connected from `address` to `local_address`. No other
    /// client of the node ever has the same `id`.
    pub fn new(shared: Arc<Shared>, id: u64, address: String, local_address: String) -> Session {
        let client = ClientInfo { address, local_address, protocol: 2, ..ClientInfo::default() };
        let signals = client.signals.clone();
        shared.enter(id, client);
        let random = fastrand::Rng::with_seed(shared.seed.wrapping_add(id));
        Session {
            shared,
            id,
            signals,
            last: 0,
            replies: Replies::Sent,
            protocol: Protocol::Resp2,
            db: 0,
            read_only: false,
            redirects: false,
            at_least: 0,
            transaction: None,
            watches: Watches::default(),
            items: BytesMut::new(),
            count: 0,
            charge: 0,
            largest: 0,
            gathered: Vec::new(),
            submitted: None,
            retry: None,
            ahead: Ahead::default(),
            waiting: None,
            counting: None,
            sleep: None,
            saving: None,
            account: Account::new(),
            monitor: None,
            random,
        }
    }

    /// The socket behind it, for CLIENT LIST and CLIENT KILL.
    pub fn connected(self, connection: Arc<Client>) -> Session {
        self.shared.update(self.id, |client| client.connection = Some(connection));
        self
    }

    /// The protocol that replies are encoded in from now on.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The client's number, as CLIENT ID answers it.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// READONLY is on: the connection may stay when the node is no longer master.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Takes requests from the front of the queue and encodes replies, until the queue is empty, a
    /// submission is to be made, or the conversation ends. A request that must wait stays queued.
    pub fn handle(
        &mut self,
        requests: &mut VecDeque<Request>,
        out: &mut BytesMut,
        backend: &dyn Backend,
    ) -> Step {
        assert!(self.submitted.is_none(), "client {} has a submission out", self.id);
        let before = requests.len();
        self.begin_account();
        let step = self.take(requests, out, backend);
        self.ahead.clear();
        self.end_account();
        self.shared.count_commands((before - requests.len()) as u64);
        self.signals.last.store(self.last, Ordering::Relaxed);
        let queued = self.transaction.as_ref().map_or(0, |transaction| transaction.len() + 1);
        self.signals.queued.store(queued, Ordering::Relaxed);
        step
    }

    fn take(
        &mut self,
        requests: &mut VecDeque<Request>,
        out: &mut BytesMut,
        backend: &dyn Backend,
    ) -> Step {
        if self.signals.killed.load(Ordering::Relaxed) {
            requests.clear();
            return Step::Close;
        }
        if let Some(step) = self.go_on_counting(out, backend) {
            return step;
        }
        while let Some(request) = requests.front() {
            self.begin_replies();
            self.account.fate = Fate::Unknown;
            self.ahead.next();
            let watched = self.shared.monitors.any();
            let shown = watched.then(|| self.to_show(&request.arguments));
            let taken = self.one(requests, out, backend);
            if matches!(taken, Taken::Done | Taken::Submit | Taken::Close) {
                if let Some(shown) = shown {
                    self.show(shown);
                }
                self.end_command(&request.arguments, requests.len() == 1);
            }
            match taken {
                Taken::Done => {
                    self.retry = None;
                    if self.waiting.take().is_some() {
                        self.signals.blocked.store(0, Ordering::SeqCst);
                    }
                    requests.pop_front();
                    if self.end_replies() {
                        return self.submit();
                    }
                }
                Taken::Later => return self.submit(),
                Taken::Submit => {
                    requests.pop_front();
                    self.end_replies();
                    return self.submit();
                }
                Taken::Pause(pause) => return Step::Pause(pause),
                Taken::Close => {
                    requests.clear();
                    return Step::Close;
                }
            }
            if self.count == 0 && out.len() >= OUTPUT_TURN_BYTES {
                return Step::Idle;
            }
            let large = self.items.len() >= SUBMISSION_BYTES_MAX || self.charge >= ENTRY_CHARGE_MAX;
            if large || self.gathered.len() >= GATHERED_MAX {
                return self.submit();
            }
            if out.len() >= OUTPUT_TURN_BYTES {
                break;
            }
        }
        if self.count > 0 { self.submit() } else { Step::Idle }
    }

    fn submit(&mut self) -> Step {
        assert!(self.count > 0, "client {} waits for nothing", self.id);
        let charge = std::mem::take(&mut self.charge);
        self.largest = 0;
        let items = match self.items.len() {
            // Memory that was just freed is nearer to the processor than room of its own.
            ..=OWN_ROOM_BYTES_MIN => std::mem::take(&mut self.items),
            _ => self.items.split(),
        };
        let items = items.freeze();
        let submission = Submission { items, count: self.count, charge };
        self.count = 0;
        self.submitted = Some(submission.clone());
        Step::Submit(submission)
    }

    /// Takes the first of these.
    fn one(
        &mut self,
        requests: &VecDeque<Request>,
        out: &mut BytesMut,
        backend: &dyn Backend,
    ) -> Taken {
        let args = &requests[0].arguments[..];
        let Some(name) = args.first() else {
            // The decoder skips empty requests, as Redis does.
            return Taken::Done;
        };
        let Some((place, spec)) = table::find_place(name) else {
            return self.reject(None, unknown_command(args), out);
        };
        self.last = place + 1;
        if let Err(reply) = spec.check_arity(args) {
            self.count_rejected(place, spec, args);
            return self.reject(Some(spec), reply, out);
        }
        if self.only_listens() && !discovery::may_listener_say(spec) {
            return self.emit(discovery::listener_may_not(spec), out);
        }
        if let Some(left_ms) = self.held_ms(spec, backend) {
            if !self.gathered.is_empty() {
                return Taken::Later;
            }
            return Taken::Pause(Duration::from_millis(left_ms.min(HELD_MS_MAX)));
        }
        self.begin_command(place, spec, args);
        let refused = self.monitor.as_ref().and_then(|_| monitor::monitor_may_not(spec));
        if let Some(refused) = refused.or_else(|| self.refused(spec, args, backend)) {
            self.count_rejected(place, spec, args);
            return self.reject(Some(spec), refused, out);
        }
        if self.transaction.is_some() && discovery::is_subscription(spec) {
            let text = format!("ERR {} is not allowed in transactions", spec.name.to_uppercase());
            return self.reject(Some(spec), Reply::error(text), out);
        }
        if self.transaction.is_some() && !transaction::runs_at_once(spec) {
            return self.queue(spec, args, out, backend);
        }
        match spec.kind {
            Kind::Write { check, .. } => self.write(spec, check, args, out, backend),
            Kind::Read(read) => self.read(spec, read, requests, out, backend),
            Kind::Connection(Connection::Exec) => self.exec(out, backend),
            Kind::Connection(Connection::Watch) => self.watch(args, out, backend),
            Kind::Connection(Connection::Wait) => self.wait(args, false, out, backend),
            Kind::Connection(Connection::WaitAof) => self.wait(args, true, out, backend),
            Kind::Connection(Connection::Server(Server::Debug)) => self.debug(args, out, backend),
            Kind::Connection(Connection::Server(Server::Save)) => self.save(out, backend),
            Kind::Connection(Connection::Server(Server::Monitor)) => self.begin_monitor(out),
            Kind::Connection(command) if discovery::is_subscription(spec) => {
                self.subscription(command, args, out)
            }
            Kind::Connection(command) => self.local(command, args, out, backend),
        }
    }

    /// For how many ms CLIENT PAUSE still holds a command back. One that was begun goes on.
    fn held_ms(&self, spec: &Spec, backend: &dyn Backend) -> Option<u64> {
        if self.waiting.is_some() || self.retry.is_some() {
            return None;
        }
        let is_exec = matches!(spec.kind, Kind::Connection(Connection::Exec));
        let transaction = self.transaction.as_ref().filter(|_| is_exec);
        let is_write = spec.is_write() || transaction.is_some_and(Transaction::has_write);
        self.shared.pause.left_ms(is_write, || backend.stamp_ms())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.leave(self.id);
    }
}
