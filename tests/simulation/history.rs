//! What clients did and heard, and whether that can have come from one order of all operations.
//!
//! Every object has versions that count up: a list its length, a counter its value, a guarded key
//! the number of its swaps, a key that is set once 0 or 1. So what an operation saw or made says
//! where it stands among the others; `graph.rs` checks all of it together with real time.

use std::collections::{BTreeMap, BTreeSet};

use arakoon::store::keyspace::Version;
use resp::Reply;

use crate::clients::list_of;
use crate::graph::{Access, Graph};
use crate::world::Violation;

/// What a client asked for.
#[derive(Clone, Debug)]
pub enum Kind {
    Append {
        key: u32,
    },
    AppendBoth {
        keys: (u32, u32),
    },
    Get {
        key: u32,
    },
    GetBoth {
        keys: (u32, u32),
    },
    Increment {
        key: u32,
    },
    Count {
        key: u32,
    },
    /// GET and WATCH.
    Watch {
        key: u32,
    },
    /// EXEC of a SET that is guarded by what WATCH saw.
    Swap {
        key: u32,
        seen: u64,
        version: Version,
    },
    SetAbsent {
        key: u32,
    },
    GetOnce {
        key: u32,
    },
    SetExpiring {
        ttl_ms: u64,
    },
    GetExpiring {
        set: usize,
    },
}

impl Kind {
    pub fn is_read(&self) -> bool {
        matches!(
            self,
            Kind::Get { .. }
                | Kind::GetBoth { .. }
                | Kind::Count { .. }
                | Kind::Watch { .. }
                | Kind::GetOnce { .. }
                | Kind::GetExpiring { .. }
        )
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub enum Result {
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
    /// True times.
    pub asked_us: u64,
    pub heard_us: u64,
    pub result: Result,
    /// The log's clock where it was applied, if it was acknowledged; else 0.
    pub stamp_ms: u64,
}

#[derive(Clone, Copy, Default)]
struct Expiring {
    /// A reader or the writer knew before this time that it was there.
    there_us: Option<u64>,
    /// A reader knew before this time that it was gone.
    gone_us: Option<u64>,
}

/// An object with versions.
pub type Object = (char, u32);

/// All operations of a run.
#[derive(Default)]
pub struct History {
    pub ops: Vec<Op>,
    pub expiring: Vec<usize>,
    /// The longest list that anyone saw.
    lists: BTreeMap<u32, Vec<usize>>,
    once: BTreeMap<u32, usize>,
    brief: BTreeMap<usize, Expiring>,
    graph: Graph,
}

fn violation(check: &'static str, what: String) -> std::result::Result<(), Violation> {
    Err(Violation { check, what })
}

fn number(reply: &Reply) -> Option<u64> {
    match reply {
        Reply::Null => Some(0),
        Reply::Integer(number) => u64::try_from(*number).ok(),
        Reply::Bulk(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
        _ => None,
    }
}

impl History {
    /// Looks at what an operation heard. `clock_ms` is the furthest log clock applied anywhere.
    pub fn take(&mut self, op: usize, clock_ms: u64) -> std::result::Result<(), Violation> {
        let Op { kind, result, asked_us, heard_us, stamp_ms, .. } = self.ops[op].clone();
        let Result::Reply(reply) = result else { return Ok(()) };
        if let Kind::GetExpiring { set } = kind {
            return self.take_expiring(op, set, &reply, clock_ms);
        }
        if let Kind::SetExpiring { .. } = kind {
            let brief = self.brief.entry(op).or_default();
            brief.there_us = Some(heard_us);
            return match stamp_ms {
                0 => violation("answered once", format!("{op} was acknowledged, not applied")),
                _ => Ok(()),
            };
        }
        let Some(accesses) = self.accesses(op, &kind, &reply)? else {
            return violation("replies", format!("operation {op}, {kind:?}, got {reply:?}"));
        };
        for (object, access) in accesses {
            self.graph.access(op, object, access)?;
        }
        self.graph.time(op, asked_us, Some(heard_us));
        Ok(())
    }

    /// What an operation saw and made; `None` when the reply makes no sense.
    #[allow(clippy::type_complexity)]
    fn accesses(
        &mut self,
        op: usize,
        kind: &Kind,
        reply: &Reply,
    ) -> std::result::Result<Option<Vec<(Object, Access)>>, Violation> {
        let length = |reply: &Reply| Some(Access::Write(number(reply)? / 8));
        Ok(match (kind, reply) {
            (Kind::Append { key }, reply) => {
                length(reply).map(|access| vec![(('l', *key), access)])
            }
            (Kind::AppendBoth { keys }, Reply::Array(both)) if both.len() == 2 => length(&both[0])
                .zip(length(&both[1]))
                .map(|(first, second)| vec![(('l', keys.0), first), (('l', keys.1), second)]),
            (Kind::Get { key }, reply) => {
                let list = list_of(reply);
                list.map(|list| self.see_list(op, *key, list)).transpose()?.map(|seen| vec![seen])
            }
            (Kind::GetBoth { keys }, Reply::Array(both)) if both.len() == 2 => {
                let lists = list_of(&both[0]).zip(list_of(&both[1]));
                match lists {
                    None => None,
                    Some((first, second)) => Some(vec![
                        self.see_list(op, keys.0, first)?,
                        self.see_list(op, keys.1, second)?,
                    ]),
                }
            }
            (Kind::Increment { key }, Reply::Integer(value)) => {
                Some(vec![(('c', *key), Access::Write(*value as u64))])
            }
            (Kind::Count { key }, reply) => {
                number(reply).map(|value| vec![(('c', *key), Access::Read(value))])
            }
            (Kind::Watch { key }, Reply::Array(parts)) => {
                number(&parts[0]).map(|value| vec![(('g', *key), Access::Read(value))])
            }
            (Kind::Swap { key, seen, .. }, Reply::Array(replies)) if *replies == [Reply::OK] => {
                Some(vec![(('g', *key), Access::Write(seen + 1))])
            }
            (Kind::Swap { .. }, Reply::NullArray) => Some(Vec::new()),
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
            _ => None,
        })
    }

    fn see_once(&mut self, key: u32, winner: usize) -> std::result::Result<(), Violation> {
        let known = *self.once.entry(key).or_insert(winner);
        if known != winner {
            let what = format!("the key once{key} was set by {known} and by {winner}");
            return violation("set once", what);
        }
        Ok(())
    }

    /// All that anyone sees of a list are beginnings of one list.
    fn see_list(
        &mut self,
        op: usize,
        key: u32,
        list: Vec<usize>,
    ) -> std::result::Result<(Object, Access), Violation> {
        let longest = self.lists.entry(key).or_default();
        let common = longest.len().min(list.len());
        if longest[..common] != list[..common] {
            let place = (0..common).find(|i| longest[*i] != list[*i]).unwrap_or(0);
            let what = format!(
                "operation {op} sees {} at place {place} of list {key}, another saw {}",
                list[place], longest[place]
            );
            return Err(Violation { check: "one order of appends", what });
        }
        let length = list.len() as u64;
        if list.len() > longest.len() {
            *longest = list;
        }
        Ok((('l', key), Access::Read(length)))
    }

    /// An expired key never comes back, and is not gone before its time by the log's clock.
    fn take_expiring(
        &mut self,
        op: usize,
        set: usize,
        reply: &Reply,
        clock_ms: u64,
    ) -> std::result::Result<(), Violation> {
        let Op { asked_us, heard_us, .. } = self.ops[op];
        let Kind::SetExpiring { ttl_ms } = self.ops[set].kind else { return Ok(()) };
        let stamp_ms = self.ops[set].stamp_ms;
        let brief = self.brief.entry(set).or_default();
        match reply {
            Reply::Bulk(_) => {
                if brief.gone_us.is_some_and(|gone_us| gone_us < asked_us) {
                    let what = format!("{op} sees what {set} set after it was seen to be gone");
                    return violation("expiry", what);
                }
                brief.there_us = Some(brief.there_us.map_or(heard_us, |us| us.min(heard_us)));
            }
            Reply::Null if brief.there_us.is_some_and(|there_us| there_us < asked_us) => {
                if stamp_ms > 0 && clock_ms < stamp_ms + ttl_ms {
                    let what = format!(
                        "{op} does not see what {set} set at {stamp_ms} for {ttl_ms} ms; the \
                         log's clock is {clock_ms}"
                    );
                    return violation("expiry", what);
                }
                brief.gone_us = Some(brief.gone_us.map_or(heard_us, |us| us.min(heard_us)));
            }
            Reply::Null => {}
            other => return violation("replies", format!("operation {op} got {other:?}")),
        }
        Ok(())
    }

    /// What a WATCH saw, for its EXEC.
    pub fn watched(&self, op: usize) -> Option<(u32, u64, Version)> {
        let Op { kind: Kind::Watch { key }, result: Result::Reply(Reply::Array(parts)), .. } =
            &self.ops[op]
        else {
            return None;
        };
        let Reply::Array(version) = &parts[1] else { return None };
        let version = Version { index: number(&version[0])?, place: number(&version[1])? as u32 };
        Some((*key, number(&parts[0])?, version))
    }

    pub fn list_keys(&self) -> Vec<u32> {
        let mut keys = BTreeSet::new();
        for op in &self.ops {
            match op.kind {
                Kind::Append { key } | Kind::Get { key } => {
                    keys.insert(key);
                }
                Kind::AppendBoth { keys: both } | Kind::GetBoth { keys: both } => {
                    keys.extend([both.0, both.1]);
                }
                _ => {}
            }
        }
        keys.into_iter().collect()
    }

    /// A list as it is in the end.
    pub fn final_list(&mut self, key: u32, list: Vec<usize>) -> std::result::Result<(), Violation> {
        let seen = self.lists.get(&key).map_or(0, Vec::len);
        if list.len() < seen {
            let what = format!("list {key} had {seen} elements and has {} now", list.len());
            return violation("nothing lost", what);
        }
        self.see_list(usize::MAX, key, list.clone())?;
        for (place, op) in list.iter().enumerate() {
            let known = self.ops.get(*op).map(|op| (op.kind.clone(), op.result.clone()));
            let (mine, refused) = match known {
                Some((Kind::Append { key: wanted }, result)) => {
                    (wanted == key, matches!(result, Result::Refused))
                }
                Some((Kind::AppendBoth { keys }, result)) => {
                    (keys.0 == key || keys.1 == key, matches!(result, Result::Refused))
                }
                _ => (false, false),
            };
            if !mine {
                let what = format!("{op} in list {key} was not appended to it");
                return violation("final state", what);
            }
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
    pub fn check(&mut self) -> std::result::Result<(), Violation> {
        for (op, Op { kind, result, .. }) in self.ops.iter().enumerate() {
            let keys = match kind {
                Kind::Append { key } => vec![*key],
                Kind::AppendBoth { keys } => vec![keys.0, keys.1],
                _ => continue,
            };
            let there = |key: &&u32| self.graph.wrote(op, ('l', **key));
            let found = keys.iter().filter(|key| {
                there(key) && self.lists.get(*key).is_some_and(|list| list.contains(&op))
            });
            let found = found.count();
            let acknowledged = matches!(result, Result::Reply(_));
            if found != keys.len() && (found > 0 || acknowledged) {
                let what = format!("operation {op}, {kind:?}, {result:?}: in {found} lists");
                return violation("nothing lost", what);
            }
        }
        self.graph.check(|op| format!("{:?}", self.ops[op]))
    }
}
