//! CLUSTER, SENTINEL, FAILOVER and SUBSCRIBE.

use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use redis_protocol::redis_keyslot;
use resp::{Protocol, Reply};

use super::help::help;
use super::read::{BRIEF, LONG};
use super::{Session, Taken};
use crate::command::connection::Connection;
use crate::command::parse::{SYNTAX, integer, integer_argument, is};
use crate::command::table::{Kind, Spec};
use crate::server::cluster::{self, SLOTS};
use crate::server::monitors::Monitor;
use crate::server::subscriptions::{By, is_channel, is_pattern};
use crate::server::topology::Topology;
use crate::server::{Backend, HandOver, HandOverRefused, NodeRole, Refusal, Target, sentinel};
use crate::store::keyspace::{Exceeded, KeyRange, ReadError, View};
use crate::store::{Rows, StoreError};

impl Session {
    /// CLUSTER. The table has checked the subcommand and its arity.
    pub(super) fn cluster(&mut self, args: &[Bytes], backend: &dyn Backend) -> Reply {
        let rest = &args[2..];
        let subcommand = String::from_utf8_lossy(&args[1]).to_ascii_lowercase();
        match subcommand.as_str() {
            "keyslot" => Reply::Integer(i64::from(redis_keyslot(&rest[0]))),
            "countkeysinslot" => self.count_keys_in_slot(rest, backend),
            "getkeysinslot" => self.keys_in_slot(rest, backend),
            "failover" => cluster_failover(rest, backend),
            "slots" => cluster::slots(&backend.info()),
            "shards" => cluster::shards(&backend.info()),
            "nodes" => cluster::nodes(&backend.info()),
            "info" => cluster::info(&backend.info()),
            "myid" => cluster::my_id(&backend.info()),
            "myshardid" => cluster::my_shard_id(&backend.info()),
            "links" => Reply::Array(Vec::new()),
            "replicas" | "slaves" => cluster::replicas(&backend.info(), &rest[0]),
            "count-failure-reports" => cluster::failure_reports(&backend.info(), &rest[0]),
            _ => help(cluster::HELP),
        }
    }

    fn count_keys_in_slot(&self, rest: &[Bytes], backend: &dyn Backend) -> Reply {
        let slot = match integer_argument(&rest[0]) {
            Err(error) => return error,
            Ok(slot) => u16::try_from(slot).ok().filter(|slot| *slot < SLOTS),
        };
        let Some(slot) = slot else { return Reply::error("ERR Invalid slot") };
        match self.read_slot(slot, usize::MAX, false, backend) {
            Ok((count, _)) => Reply::Integer(count as i64),
            Err(error) => error,
        }
    }

    fn keys_in_slot(&self, rest: &[Bytes], backend: &dyn Backend) -> Reply {
        let (slot, count) = match (integer_argument(&rest[0]), integer_argument(&rest[1])) {
            (Ok(slot), Ok(count)) => (u16::try_from(slot), usize::try_from(count)),
            (Err(error), _) | (_, Err(error)) => return error,
        };
        let (Ok(slot @ 0..SLOTS), Ok(count)) = (slot, count) else {
            return Reply::error("ERR Invalid slot or number of keys");
        };
        match self.read_slot(slot, count, true, backend) {
            Ok((_, keys)) => Reply::Array(keys),
            Err(error) => error,
        }
    }

    /// Counts keys of a slot in one view, up to `count_max`, and returns them if asked. Keys that
    /// are due stay until the log's clock has passed them, as in DBSIZE.
    fn read_slot(
        &self,
        slot: u16,
        count_max: usize,
        with_keys: bool,
        backend: &dyn Backend,
    ) -> Result<(usize, Vec<Reply>), Reply> {
        let (db, killed) = (self.db, &self.signals.killed);
        let mut found = Err(ReadError::Exceeded(Exceeded::Steps));
        let mut read = |rows: &dyn Rows, allowance| {
            let (mut count, mut keys) = (0, Vec::new());
            let scanned = View::open(rows, db, 0, 0).map_err(ReadError::Store).and_then(|view| {
                let view = view.until(killed).allowing(allowance);
                view.scan(&KeyRange::all(), false, &mut |key, _, _| {
                    if count < count_max && redis_keyslot(key) == slot {
                        count += 1;
                        if with_keys {
                            keys.push(Reply::Bulk(Bytes::copy_from_slice(key)));
                        }
                    }
                    count < count_max
                })
            });
            found = scanned.map(|()| (count, keys));
            // `WouldWait`: to put the rows in order here would hold up all others.
            matches!(found, Err(ReadError::Exceeded(_) | ReadError::Store(StoreError::WouldWait)))
        };
        let mut exceeded = false;
        let mut viewed = backend.with_rows(&mut |rows| {
            rows.refuse_to_put_in_order();
            exceeded = read(rows, BRIEF);
        });
        if exceeded && !killed.load(Ordering::Relaxed) {
            viewed = backend.with_rows_for_long(&mut |rows| {
                read(rows, LONG);
            });
        }
        let permitted = viewed.and_then(|index| {
            if !self.read_only {
                backend.lease(index)?;
            }
            self.check_at_least(index)
        });
        permitted.map_err(|refusal| self.refuse(&super::for_a_read(refusal), None))?;
        found.map_err(|error| match error {
            ReadError::Exceeded(_) => Reply::error("ERR too many keys"),
            ReadError::Store(StoreError::Replaced) => Refusal::Loading.reply(None),
            ReadError::Store(error) => {
                backend.store_failed(error);
                Refusal::Loading.reply(None)
            }
        })
    }

    /// SUBSCRIBE, PSUBSCRIBE and their ends: one reply for each name.
    pub(super) fn subscription(
        &mut self,
        command: Connection,
        args: &[Bytes],
        out: &mut BytesMut,
    ) -> Taken {
        if !self.gathered.is_empty() {
            return Taken::Later;
        }
        let names = &args[1..];
        let (by, begins, word) = match command {
            Connection::Subscribe => (By::Name, true, "subscribe"),
            Connection::PSubscribe => (By::Pattern, true, "psubscribe"),
            Connection::Unsubscribe => (By::Name, false, "unsubscribe"),
            _ => (By::Pattern, false, "punsubscribe"),
        };
        if begins {
            let exists = |name: &&Bytes| match by {
                By::Name => is_channel(name),
                By::Pattern => is_pattern(name),
            };
            if let Some(unknown) = names.iter().find(|name| !exists(name)) {
                return self.emit(no_such_channel(unknown), out);
            }
        }
        let mailbox = &self.signals.mailbox;
        let named = if begins || !names.is_empty() { names.to_vec() } else { mailbox.names(by) };
        let mut replies = Vec::new();
        for name in &named {
            let count = match begins {
                true => mailbox.subscribe(by, name),
                false => mailbox.unsubscribe(by, name),
            };
            replies.push((Reply::Bulk(name.clone()), count));
        }
        if replies.is_empty() {
            let (names, patterns) = mailbox.counts();
            replies.push((Reply::Null, names + patterns));
        }
        for (name, count) in replies {
            let parts = vec![Reply::bulk(word), name, Reply::Integer(count as i64)];
            self.emit(Reply::Push(parts), out);
        }
        Taken::Done
    }

    /// Whether it waits for events.
    pub fn is_subscribed(&self) -> bool {
        self.signals.mailbox.counts() != (0, 0)
    }

    /// In RESP2 a client that waits for events can do little else: it could not tell a reply from
    /// an event.
    pub(super) fn only_listens(&self) -> bool {
        self.protocol == Protocol::Resp2 && self.is_subscribed()
    }

    /// Encodes the events and lines that wait. Nothing may be gathered.
    pub fn deliver(&mut self, out: &mut BytesMut) {
        for event in self.signals.mailbox.take() {
            self.send(&event, out);
        }
        for line in self.monitor.iter().flat_map(Monitor::take) {
            self.send(&line, out);
        }
    }
}

/// SUBSCRIBE and the like.
pub(super) fn is_subscription(spec: &Spec) -> bool {
    use Connection::{PSubscribe, PUnsubscribe, Subscribe, Unsubscribe};
    let Kind::Connection(command) = spec.kind else { return false };
    matches!(command, Subscribe | PSubscribe | Unsubscribe | PUnsubscribe)
}

/// What a client in RESP2 that waits for events may say.
pub(super) fn may_listener_say(spec: &Spec) -> bool {
    use Connection::{Ping, Quit, Reset};
    is_subscription(spec) || matches!(spec.kind, Kind::Connection(Ping | Quit | Reset))
}

/// What it hears if it says anything else.
pub(super) fn listener_may_not(spec: &Spec) -> Reply {
    Reply::error(format!(
        "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are \
         allowed in this context",
        spec.name
    ))
}

fn no_such_channel(name: &[u8]) -> Reply {
    let name = crate::command::parse::shown(name);
    Reply::error(format!(
        "ERR there is no channel '{name}' here, only Sentinel's events, such as +switch-master"
    ))
}

/// SENTINEL. The table has checked the subcommand and its arity.
pub(super) fn sentinel(args: &[Bytes], backend: &dyn Backend) -> Reply {
    let rest = &args[2..];
    let subcommand = String::from_utf8_lossy(&args[1]).to_ascii_lowercase();
    let info = backend.info();
    match subcommand.as_str() {
        "get-master-addr-by-name" => sentinel::master_address(&info, &rest[0]),
        "masters" => sentinel::masters(&info),
        "master" => sentinel::master(&info, &rest[0]),
        "replicas" | "slaves" => sentinel::replicas(&info, &rest[0]),
        "sentinels" => sentinel::sentinels(&info, &rest[0]),
        "ckquorum" => sentinel::check_quorum(&info, &rest[0]),
        "is-master-down-by-addr" => sentinel::is_master_down(&info, rest),
        "myid" => sentinel::my_id(&info),
        "reset" => sentinel::reset(&info, &rest[0]),
        "failover" => match sentinel::check_name(&info, &rest[0]) {
            Err(unknown) => unknown,
            Ok(()) => {
                let order = HandOver::default();
                let done = match backend.hand_over(order.clone()) {
                    // Any Sentinel may be asked. Here only the master can hand over, and a replica
                    // ask it to.
                    Err(HandOverRefused::NotMaster) => {
                        backend.hand_over(HandOver { target: Target::Own, ..order })
                    }
                    done => done,
                };
                match done {
                    Ok(()) => Reply::OK,
                    Err(HandOverRefused::UnderWay) => {
                        Reply::error("INPROG Failover already in progress")
                    }
                    Err(refused) => sentinel::no_good_replica(&refused.to_string()),
                }
            }
        },
        _ => help(sentinel::HELP),
    }
}

/// FAILOVER [TO host port [FORCE]] [ABORT] [TIMEOUT ms]
pub(super) fn failover(args: &[Bytes], backend: &dyn Backend) -> Reply {
    let mut order = HandOver::default();
    let (mut abort, mut place) = (false, None);
    let mut options = &args[1..];
    while let [option, rest @ ..] = options {
        options = match rest {
            [host, port, rest @ ..] if is(option, "TO") && place.is_none() => {
                place = Some((host, port));
                rest
            }
            [timeout, rest @ ..] if is(option, "TIMEOUT") && order.timeout_ms.is_none() => {
                let timeout_ms = match integer_argument(timeout) {
                    Ok(timeout_ms) => u64::try_from(timeout_ms).ok().filter(|it| *it > 0),
                    Err(error) => return error,
                };
                if timeout_ms.is_none() {
                    return Reply::error("ERR FAILOVER timeout must be greater than 0");
                }
                order.timeout_ms = timeout_ms;
                rest
            }
            rest if is(option, "FORCE") && !order.force => {
                order.force = true;
                rest
            }
            rest if is(option, "ABORT") && !abort => {
                abort = true;
                rest
            }
            _ => return SYNTAX,
        };
    }
    if abort {
        if order != HandOver::default() || place.is_some() {
            return SYNTAX;
        }
        return match backend.abort_hand_over() {
            true => Reply::OK,
            false => Reply::error("ERR No failover in progress."),
        };
    }
    if order.force && (place.is_none() || order.timeout_ms.is_none()) {
        return Reply::error(
            "ERR FAILOVER with force option requires both a timeout and target HOST and IP.",
        );
    }
    let info = backend.info();
    if info.role != NodeRole::Master {
        return Reply::error("ERR FAILOVER is not valid when server is a replica.");
    }
    if let Some((host, port)) = place {
        let topology = Topology::of(&info);
        let port = integer(port);
        let mut members = topology.members.iter().filter(|member| !member.own);
        let found = members
            .find(|member| member.host.as_bytes() == host && Some(i64::from(member.port)) == port);
        match found {
            Some(member) => order.target = Target::Node(member.id.clone()),
            None => return not_a_replica(),
        }
    }
    match backend.hand_over(order) {
        Ok(()) => Reply::OK,
        Err(HandOverRefused::UnderWay) => Reply::error("ERR FAILOVER already in progress."),
        Err(HandOverRefused::NotMaster) => {
            Reply::error("ERR FAILOVER is not valid when server is a replica.")
        }
        Err(HandOverRefused::NoReplica) => {
            Reply::error("ERR FAILOVER requires connected replicas.")
        }
        Err(HandOverRefused::NotReplica) => not_a_replica(),
        Err(HandOverRefused::NoMaster) => Reply::error("ERR FAILOVER needs a master."),
    }
}

fn not_a_replica() -> Reply {
    Reply::error("ERR FAILOVER target HOST and PORT is not a replica.")
}

/// CLUSTER FAILOVER [FORCE|TAKEOVER]. A mastership can only be had by a majority, so both words
/// mean: try also when no master is known.
fn cluster_failover(options: &[Bytes], backend: &dyn Backend) -> Reply {
    let force = match options {
        [] => false,
        [option] if is(option, "FORCE") || is(option, "TAKEOVER") => true,
        _ => return SYNTAX,
    };
    match backend.hand_over(HandOver { target: Target::Own, force, timeout_ms: None }) {
        Ok(()) => Reply::OK,
        Err(HandOverRefused::NoMaster) => {
            Reply::error("ERR Master is down or failed, please use CLUSTER FAILOVER FORCE")
        }
        Err(HandOverRefused::NotReplica) => {
            Reply::error("ERR You should send CLUSTER FAILOVER to a replica")
        }
        Err(refused) => Reply::error(format!("ERR {refused}")),
    }
}
