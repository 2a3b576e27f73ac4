//! Deadlines of keys. Relative times count from the stamp of the log entry, so that all nodes
//! agree; remaining lifetimes from the log's current time.

use bytes::Bytes;
use resp::Reply;

use super::outcome::Outcome;
use super::parse::{Time, TimeForm, is};
use super::table::{Keys, Spec, read_kind, write_kind};
use crate::store::keyspace::{Keyspace, View};

/// The rows of this file.
pub static COMMANDS: &[Spec] = &[
    Spec {
        name: "expire",
        arity: -3,
        kind: write_kind!(ExpireCall::parse_expire, expire),
        keys: Keys::FIRST,
        flags: &["write", "fast"],
        group: "generic",
        since: "1.0.0",
        summary: "Sets a key's lifetime in seconds.",
        complexity: "O(1)",
    },
    Spec {
        name: "pexpire",
        arity: -3,
        kind: write_kind!(ExpireCall::parse_pexpire, expire),
        keys: Keys::FIRST,
        flags: &["write", "fast"],
        group: "generic",
        since: "2.6.0",
        summary: "Sets a key's lifetime in milliseconds.",
        complexity: "O(1)",
    },
    Spec {
        name: "expireat",
        arity: -3,
        kind: write_kind!(ExpireCall::parse_expireat, expire),
        keys: Keys::FIRST,
        flags: &["write", "fast"],
        group: "generic",
        since: "1.2.0",
        summary: "Sets a key's deadline, in seconds since the epoch.",
        complexity: "O(1)",
    },
    Spec {
        name: "pexpireat",
        arity: -3,
        kind: write_kind!(ExpireCall::parse_pexpireat, expire),
        keys: Keys::FIRST,
        flags: &["write", "fast"],
        group: "generic",
        since: "2.6.0",
        summary: "Sets a key's deadline, in milliseconds since the epoch.",
        complexity: "O(1)",
    },
    Spec {
        name: "persist",
        arity: 2,
        kind: write_kind!(first_key, persist),
        keys: Keys::FIRST,
        flags: &["write", "fast"],
        group: "generic",
        since: "2.2.0",
        summary: "Removes a key's deadline.",
        complexity: "O(1)",
    },
    Spec {
        name: "ttl",
        arity: 2,
        kind: read_kind!(ttl),
        keys: Keys::FIRST,
        flags: &["readonly", "fast"],
        group: "generic",
        since: "1.0.0",
        summary: "Answers a key's remaining seconds; -1: no deadline, -2: no such key.",
        complexity: "O(1)",
    },
    Spec {
        name: "pttl",
        arity: 2,
        kind: read_kind!(pttl),
        keys: Keys::FIRST,
        flags: &["readonly", "fast"],
        group: "generic",
        since: "2.6.0",
        summary: "Answers a key's remaining milliseconds; -1: no deadline, -2: no such key.",
        complexity: "O(1)",
    },
    Spec {
        name: "expiretime",
        arity: 2,
        kind: read_kind!(expiretime),
        keys: Keys::FIRST,
        flags: &["readonly", "fast"],
        group: "generic",
        since: "7.0.0",
        summary: "Answers a key's deadline in seconds since the epoch; -1: none, -2: no such key.",
        complexity: "O(1)",
    },
    Spec {
        name: "pexpiretime",
        arity: 2,
        kind: read_kind!(pexpiretime),
        keys: Keys::FIRST,
        flags: &["readonly", "fast"],
        group: "generic",
        since: "7.0.0",
        summary: "Answers a key's deadline in ms since the epoch; -1: none, -2: no such key.",
        complexity: "O(1)",
    },
];

/// When to change the deadline. Any combination that does not contradict itself.
#[derive(Clone, Copy, Debug, Default)]
struct Conditions {
    /// Only if there is none.
    absent: bool,
    /// Only if there is one.
    present: bool,
    /// Only to a later one; none counts as infinitely late.
    greater: bool,
    /// Only to an earlier one.
    less: bool,
}

impl Conditions {
    fn parse(options: &[Bytes]) -> Result<Conditions, Reply> {
        let mut conditions = Conditions::default();
        for option in options {
            match () {
                () if is(option, "NX") => conditions.absent = true,
                () if is(option, "XX") => conditions.present = true,
                () if is(option, "GT") => conditions.greater = true,
                () if is(option, "LT") => conditions.less = true,
                () => {
                    let option = String::from_utf8_lossy(option);
                    return Err(Reply::error(format!("ERR Unsupported option {option}")));
                }
            }
        }
        let Conditions { absent, present, greater, less } = conditions;
        if absent && (present || greater || less) {
            return Err(Reply::error(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if greater && less {
            return Err(Reply::error("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(conditions)
    }

    /// 0: no deadline.
    fn allow(&self, old_ms: u64, new_ms: u64) -> bool {
        let old = if old_ms == 0 { u64::MAX } else { old_ms };
        !(self.absent && old_ms != 0
            || self.present && old_ms == 0
            || self.greater && new_ms <= old
            || self.less && new_ms >= old)
    }
}

struct ExpireCall<'a> {
    name: &'static str,
    key: &'a Bytes,
    time: Time,
    conditions: Conditions,
}

impl<'a> ExpireCall<'a> {
    fn parse(
        name: &'static str,
        args: &'a [Bytes],
        form: TimeForm,
    ) -> Result<ExpireCall<'a>, Reply> {
        let conditions = Conditions::parse(&args[3..])?;
        let time = Time::parse(&args[2], form, false, name)?;
        Ok(ExpireCall { name, key: &args[1], time, conditions })
    }

    fn parse_expire(args: &'a [Bytes]) -> Result<ExpireCall<'a>, Reply> {
        ExpireCall::parse("expire", args, TimeForm::EX)
    }

    fn parse_pexpire(args: &'a [Bytes]) -> Result<ExpireCall<'a>, Reply> {
        ExpireCall::parse("pexpire", args, TimeForm::PX)
    }

    fn parse_expireat(args: &'a [Bytes]) -> Result<ExpireCall<'a>, Reply> {
        ExpireCall::parse("expireat", args, TimeForm::EXAT)
    }

    fn parse_pexpireat(args: &'a [Bytes]) -> Result<ExpireCall<'a>, Reply> {
        ExpireCall::parse("pexpireat", args, TimeForm::PXAT)
    }
}

fn expire(keyspace: &mut Keyspace, call: ExpireCall) -> Outcome {
    let deadline_ms = call.time.deadline_ms(keyspace.clock_ms(), call.name)?;
    let Some(stored) = keyspace.find(call.key)? else { return Ok(Reply::Integer(0)) };
    if !call.conditions.allow(stored.header.deadline_ms, deadline_ms) {
        return Ok(Reply::Integer(0));
    }
    keyspace.set_deadline(call.key, &stored, deadline_ms);
    Ok(Reply::Integer(1))
}

fn first_key(args: &[Bytes]) -> Result<&Bytes, Reply> {
    Ok(&args[1])
}

fn persist(keyspace: &mut Keyspace, key: &Bytes) -> Outcome {
    match keyspace.find(key)? {
        Some(stored) if stored.header.deadline_ms != 0 => {
            keyspace.set_deadline(key, &stored, 0);
            Ok(Reply::Integer(1))
        }
        _ => Ok(Reply::Integer(0)),
    }
}

const NO_KEY: Reply = Reply::Integer(-2);
const NO_DEADLINE: Reply = Reply::Integer(-1);

/// Answers with what `answer` makes of a key's deadline, in ms since the epoch.
fn with_deadline(view: &View, key: &Bytes, answer: impl FnOnce(u64) -> u64) -> Outcome {
    Ok(match view.find(key)? {
        None => NO_KEY,
        Some(stored) if stored.header.deadline_ms == 0 => NO_DEADLINE,
        Some(stored) => Reply::Integer(answer(stored.header.deadline_ms) as i64),
    })
}

fn rounded_seconds(milliseconds: u64) -> u64 {
    milliseconds.saturating_add(500) / 1000
}

fn ttl(view: &View, args: &[Bytes]) -> Outcome {
    let now_ms = view.now_ms();
    with_deadline(view, &args[1], |deadline_ms| rounded_seconds(deadline_ms.saturating_sub(now_ms)))
}

fn pttl(view: &View, args: &[Bytes]) -> Outcome {
    let now_ms = view.now_ms();
    with_deadline(view, &args[1], |deadline_ms| deadline_ms.saturating_sub(now_ms))
}

fn expiretime(view: &View, args: &[Bytes]) -> Outcome {
    with_deadline(view, &args[1], rounded_seconds)
}

fn pexpiretime(view: &View, args: &[Bytes]) -> Outcome {
    with_deadline(view, &args[1], |deadline_ms| deadline_ms)
}
