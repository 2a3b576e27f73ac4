//! What clients did and heard, and whether that can have come from one order of all operations.
//!
//! Most objects have versions that count up: a list its length, a counter its value, a guarded key
//! the number of its swaps, a key that is set once 0 or 1. So what an operation saw or made says
//! where it stands among the others; `graph.rs` checks all of it together with real time. What is
//! overwritten has no such version and is searched for an order key by key (`registers.rs`).

use std::collections::{BTreeMap, BTreeSet};

use resp::Reply;

use super::expiry::{Expiring, Get};
use super::graph::{Access, Graph, Object};
use super::operation::{self, Heard, Kind, ONCE_MEMBERS, list_of, number};
use super::registers::{self, Registers};
use super::scans::Scans;
use super::{Checked, violation};

/// What came of an operation.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Still waited for, UNCERTAIN, or the connection broke.
    Unknown,
    /// It certainly did nothing.
    Refused,
    Reply(Reply),
}

/// One operation.
#[derive(Clone, Debug)]
pub struct Op {
    pub client: usize,
    pub kind: Kind,
    pub asked_us: u64,
    pub heard_us: u64,
    pub outcome: Outcome,
    /// The latest time of the log that anyone had heard of when it was asked, in ms.
    pub clock_asked_ms: u64,
}

/// All operations of a run.
#[derive(Default)]
pub struct History {
    pub ops: Vec<Op>,
    /// Operations that set a key with a lifetime.
    pub expiring: Vec<usize>,
    pub scans: Scans,
    /// The longest list that anyone saw.
    lists: BTreeMap<u32, Vec<usize>>,
    once: BTreeMap<u32, usize>,
    brief: Expiring,
    pub registers: Registers,
    graph: Graph,
    /// The last operation that was answered on each connection: the next one comes behind it, also
    /// when both were sent together.
    before: BTreeMap<u64, usize>,
}

impl History {
    /// A client asks for something; returns the operation's number.
    pub fn ask(&mut self, client: usize, kind: Kind, now_us: u64) -> usize {
        let op = self.ops.len();
        match kind {
            Kind::SetExpiring { .. } => self.expiring.push(op),
            Kind::SetScanned { group, member } => self.scans.ask_set(group, member, now_us),
            Kind::DeleteScanned { group, member } => self.scans.ask_delete(group, member, now_us),
            _ => {}
        }
        self.ops.push(Op {
            client,
            kind,
            asked_us: now_us,
            heard_us: u64::MAX,
            outcome: Outcome::Unknown,
            clock_asked_ms: self.brief.clock_heard_ms(),
        });
        op
    }

    /// A client hears what came of an operation. `clock_ms`: the furthest that the log's clock may
    /// be. `connection`: a number that no other connection has.
    pub fn hear(
        &mut self,
        op: usize,
        now_us: u64,
        heard: Heard,
        clock_ms: u64,
        connection: u64,
    ) -> Checked<()> {
        self.ops[op].heard_us = now_us;
        self.ops[op].outcome = match heard {
            Heard::Unknown => Outcome::Unknown,
            Heard::Refused { .. } => Outcome::Refused,
            Heard::Reply(reply) => Outcome::Reply(reply),
        };
        self.take(op, clock_ms, connection)?;
        if self.graph.knows(op)
            && let Some(before) = self.before.insert(connection, op)
        {
            self.graph.order(before, op);
        }
        Ok(())
    }

    fn take(&mut self, op: usize, clock_ms: u64, connection: u64) -> Checked<()> {
        let Op { kind, outcome, asked_us, heard_us, clock_asked_ms, .. } = self.ops[op].clone();
        let times = (asked_us, heard_us);
        match (&kind, &outcome) {
            (Kind::SetScanned { group, member }, outcome) => {
                return self.scans.heard_set(*group, *member, outcome, heard_us);
            }
            (Kind::DeleteScanned { group, member }, outcome) => {
                return self.scans.heard_delete(*group, *member, outcome, heard_us);
            }
            (Kind::Scan { scan, .. }, outcome) => {
                return self.scans.heard_step(*scan, outcome, heard_us, connection);
            }
            (kind, Outcome::Reply(reply)) if let Some(register) = registers::register(kind) => {
                let Some(action) = registers::action(kind, op, reply) else {
                    return self.nonsense(op);
                };
                self.registers.add(register, op, action, asked_us, Some(heard_us));
                return Ok(());
            }
            // No real time: it may be as old as the cluster.
            (Kind::StaleRange { key }, Outcome::Reply(reply)) => {
                return match operation::range_value(*key, false, reply) {
                    Some(_) => Ok(()),
                    None => self.nonsense(op),
                };
            }
            _ => {}
        }
        let Outcome::Reply(reply) = outcome else { return Ok(()) };
        if let Kind::GetExpiring { set } = kind {
            let get = Get { op, set, times, clock_asked_ms, clock_ms };
            return self.brief.take_get(get, &reply);
        }
        if let Kind::SetExpiring { ttl_ms } = kind {
            return self.brief.take_set(op, ttl_ms, &reply, heard_us);
        }
        let Some(accesses) = self.accesses(op, &kind, &reply)? else {
            return self.nonsense(op);
        };
        for (object, access) in accesses {
            self.graph.access(op, object, access)?;
        }
        // Real time says nothing of a stale read: what it sees may be as old as the cluster, and may
        // be chosen and not yet known to the master.
        match kind {
            Kind::Stale { .. } => self.graph.time(op, 0, None),
            _ => self.graph.time(op, asked_us, Some(heard_us)),
        }
        Ok(())
    }

    fn nonsense(&self, op: usize) -> Checked<()> {
        violation("replies", format!("operation {op}: {:?}", self.ops[op]))
    }

    /// What an operation saw and made; `None` when the reply makes no sense.
    fn accesses(
        &mut self,
        op: usize,
        kind: &Kind,
        reply: &Reply,
    ) -> Checked<Option<Vec<(Object, Access)>>> {
        let length = |reply: &Reply| Some(Access::Write(number(reply)? / 8));
        Ok(match (kind, reply) {
            (Kind::Append { key }, reply) => {
                length(reply).map(|access| vec![(('l', *key), access)])
            }
            (Kind::AppendBoth { keys }, Reply::Array(both)) if both.len() == 2 => length(&both[0])
                .zip(length(&both[1]))
                .map(|(first, second)| vec![(('l', keys.0), first), (('l', keys.1), second)]),
            (Kind::ReadAppend { keys }, Reply::Array(both)) if both.len() == 2 => {
                match list_of(&both[0]).zip(length(&both[1])) {
                    None => None,
                    Some((list, made)) => {
                        Some(vec![self.see_list(op, keys.0, list)?, (('l', keys.1), made)])
                    }
                }
            }
            (Kind::Get { key }, reply) => {
                let list = list_of(reply);
                list.map(|list| self.see_list(op, *key, list)).transpose()?.map(|seen| vec![seen])
            }
            (
                Kind::GetBoth { keys } | Kind::GetBothInTransaction { keys } | Kind::Stale { keys },
                Reply::Array(both),
            ) if both.len() == 2 => match list_of(&both[0]).zip(list_of(&both[1])) {
                None => None,
                Some((first, second)) => Some(vec![
                    self.see_list(op, keys.0, first)?,
                    self.see_list(op, keys.1, second)?,
                ]),
            },
            (Kind::Increment { key }, Reply::Integer(value)) => {
                Some(vec![(('c', *key), Access::Write(*value as u64))])
            }
            (Kind::Count { key }, reply) => {
                number(reply).map(|value| vec![(('c', *key), Access::Read(value))])
            }
            (Kind::Watch { key }, reply) => {
                number(reply).map(|value| vec![(('g', *key), Access::Read(value))])
            }
            (Kind::Swap { key, seen }, Reply::Array(replies)) if *replies == [Reply::OK] => {
                Some(vec![(('g', *key), Access::Write(seen + 1))])
            }
            (Kind::Swap { .. }, Reply::NullArray | Reply::Null) => Some(Vec::new()),
            (Kind::SetAbsent { key }, reply) if *reply == Reply::OK => {
                self.see_once(*key, op)?;
                Some(vec![(('o', *key), Access::Write(1))])
            }
            (Kind::SetAbsent { key }, Reply::Null) => Some(vec![(('o', *key), Access::Read(1))]),
            (Kind::GetOnce { key }, Reply::Null) => Some(vec![(('o', *key), Access::Read(0))]),
            (Kind::GetOnce { key }, Reply::Bulk(_)) => match number(reply) {
                None => None,
                Some(winner) => {
                    self.see_once(*key, winner as usize)?;
                    Some(vec![(('o', *key), Access::Read(1))])
                }
            },
            (Kind::Keys { group } | Kind::Range { group }, Reply::Array(keys)) => {
                once_seen(*group, keys)
            }
            _ => None,
        })
    }

    fn see_once(&mut self, key: u32, winner: usize) -> Checked<()> {
        let known = *self.once.entry(key).or_insert(winner);
        if known != winner {
            let what = format!("the key once{key} was set by {known} and by {winner}");
            return violation("set once", what);
        }
        match self.ops.get(winner).map(|op| &op.kind) {
            Some(Kind::SetAbsent { key: wanted }) if *wanted == key => Ok(()),
            other => violation("set once", format!("the key once{key} was set by {other:?}")),
        }
    }

    /// All that anyone sees of a list are beginnings of one list.
    fn see_list(&mut self, op: usize, key: u32, list: Vec<usize>) -> Checked<(Object, Access)> {
        let longest = self.lists.entry(key).or_default();
        let common = longest.len().min(list.len());
        if longest[..common] != list[..common] {
            let place = (0..common).find(|i| longest[*i] != list[*i]).unwrap_or(0);
            let what = format!(
                "operation {op} sees {} at place {place} of list {key}, another saw {}",
                list[place], longest[place]
            );
            return violation("one order of appends", what);
        }
        let length = list.len() as u64;
        if list.len() > longest.len() {
            *longest = list;
        }
        Ok((('l', key), Access::Read(length)))
    }

    /// Lists that anyone may have changed.
    pub fn list_keys(&self) -> Vec<u32> {
        let mut keys = BTreeSet::new();
        for op in &self.ops {
            match op.kind {
                Kind::Append { key } | Kind::Get { key } => {
                    keys.insert(key);
                }
                Kind::AppendBoth { keys: both } | Kind::ReadAppend { keys: both } => {
                    keys.extend([both.0, both.1]);
                }
                _ => {}
            }
        }
        keys.into_iter().collect()
    }

    /// A list as it is in the end.
    pub fn final_list(&mut self, key: u32, list: Vec<usize>) -> Checked<()> {
        let seen = self.lists.get(&key).map_or(0, Vec::len);
        if list.len() < seen {
            let what = format!("list {key} had {seen} elements and has {} now", list.len());
            return violation("nothing lost", what);
        }
        self.see_list(usize::MAX, key, list.clone())?;
        for (place, op) in list.iter().enumerate() {
            let refused = match self.ops.get(*op) {
                Some(asked) if appends_to(&asked.kind).contains(&key) => {
                    matches!(asked.outcome, Outcome::Refused)
                }
                _ => {
                    let what = format!("{op} in list {key} was not appended to it");
                    return violation("final state", what);
                }
            };
            if refused {
                let what = format!("{op} was refused, but is in list {key}");
                return violation("refused is not applied", what);
            }
            // Acknowledged ones are known to the graph: this checks that they stand where they
            // were said to be. Others are made known.
            self.graph.access(*op, ('l', key), Access::Write(place as u64 + 1))?;
            self.graph.time(*op, self.ops[*op].asked_us, None);
        }
        Ok(())
    }

    /// All operations together. The final lists must have been given.
    pub fn check(&mut self) -> Checked<()> {
        for (op, Op { kind, outcome, asked_us, .. }) in self.ops.iter().enumerate() {
            let unknown = matches!(outcome, Outcome::Unknown);
            if let (true, Some((key, action))) = (unknown, registers::unanswered(kind, op)) {
                self.registers.add(key, op, action, *asked_us, None);
            }
            let keys = appends_to(kind);
            let there = |key: &&u32| self.graph.wrote(op, ('l', **key));
            let found = keys.iter().filter(|key| {
                there(key) && self.lists.get(*key).is_some_and(|list| list.contains(&op))
            });
            let found = found.count();
            let acknowledged = matches!(outcome, Outcome::Reply(_));
            if found != keys.len() && (found > 0 || acknowledged) {
                let what = format!("operation {op}, {kind:?}, {outcome:?}: in {found} lists");
                return violation("nothing lost", what);
            }
        }
        self.check_late_refusals()?;
        self.check_unaccounted()?;
        let describe = |op: usize| format!("{:.400}", format!("{:?}", self.ops[op]));
        self.registers.check(describe)?;
        self.graph.check(describe)
    }

    /// What was seen before its refusal was heard.
    fn check_late_refusals(&self) -> Checked<()> {
        for (key, winner) in &self.once {
            if let Outcome::Refused = self.ops[*winner].outcome {
                let what = format!("{winner} was refused, but set the key once{key}");
                return violation("refused is not applied", what);
            }
        }
        self.scans.check_refused()
    }

    /// Counters and guards: a version that nobody acknowledged was made by an update that was not
    /// answered, and each of those makes one at most.
    fn check_unaccounted(&self) -> Checked<()> {
        let mut unanswered: BTreeMap<Object, u64> = BTreeMap::new();
        for Op { kind, outcome, .. } in &self.ops {
            let object = match kind {
                Kind::Increment { key } => ('c', *key),
                Kind::Swap { key, .. } => ('g', *key),
                _ => continue,
            };
            *unanswered.entry(object).or_default() +=
                u64::from(matches!(outcome, Outcome::Unknown));
        }
        for (object, unanswered) in unanswered {
            let unaccounted = self.graph.unaccounted(object);
            if unaccounted > unanswered {
                let what = format!(
                    "{object:?} has {unaccounted} versions more than acknowledged updates, and \
                     only {unanswered} were not answered"
                );
                return violation("each version made once", what);
            }
        }
        Ok(())
    }
}

/// The lists that an operation appends to.
fn appends_to(kind: &Kind) -> Vec<u32> {
    match kind {
        Kind::Append { key } => vec![*key],
        Kind::AppendBoth { keys } => vec![keys.0, keys.1],
        Kind::ReadAppend { keys } => vec![keys.1],
        _ => Vec::new(),
    }
}

/// Which keys of a group were there, and which not; `None` when another key is among them, or one
/// comes twice or out of order.
fn once_seen(group: u32, keys: &[Reply]) -> Option<Vec<(Object, Access)>> {
    let first = group * ONCE_MEMBERS;
    let mut there = BTreeSet::new();
    for key in keys {
        let Reply::Bulk(key) = key else { return None };
        let number = operation::once_number(key)?;
        let ours = (first..first + ONCE_MEMBERS).contains(&number);
        if !ours || there.last().is_some_and(|last| *last >= number) {
            return None;
        }
        there.insert(number);
    }
    let seen = |key: u32| (('o', key), Access::Read(u64::from(there.contains(&key))));
    Some((first..first + ONCE_MEMBERS).map(seen).collect())
}
