//! SET and its older relatives.

use bytes::Bytes;
use resp::Reply;

use super::compare::{CompareKind, Comparison};
use super::outcome::{Failure, Outcome};
use super::parse::{DeadlineOptions, SYNTAX, Time, TimeForm, check_pair, is};
use super::strings::string_of;
use super::table::{Keys, Spec, write_kind};
use crate::store::keyspace::{Header, Keyspace};

/// The rows of this file.
pub static COMMANDS: &[Spec] = &[
    Spec {
        name: "set",
        arity: -3,
        kind: write_kind!(SetCall::parse_set, set),
        keys: Keys::FIRST,
        flags: &["write", "denyoom"],
        group: "string",
        since: "1.0.0",
        summary: "Sets a key to a string, on conditions and with a deadline if asked.",
        complexity: "O(1)",
    },
    Spec {
        name: "setnx",
        arity: 3,
        kind: write_kind!(SetCall::parse_setnx, setnx),
        keys: Keys::FIRST,
        flags: &["write", "denyoom", "fast"],
        group: "string",
        since: "1.0.0",
        summary: "Sets a key that does not exist yet.",
        complexity: "O(1)",
    },
    Spec {
        name: "setex",
        arity: 4,
        kind: write_kind!(SetCall::parse_setex, set),
        keys: Keys::FIRST,
        flags: &["write", "denyoom"],
        group: "string",
        since: "2.0.0",
        summary: "Sets a key and its lifetime in seconds.",
        complexity: "O(1)",
    },
    Spec {
        name: "psetex",
        arity: 4,
        kind: write_kind!(SetCall::parse_psetex, set),
        keys: Keys::FIRST,
        flags: &["write", "denyoom"],
        group: "string",
        since: "2.6.0",
        summary: "Sets a key and its lifetime in milliseconds.",
        complexity: "O(1)",
    },
    Spec {
        name: "getset",
        arity: 3,
        kind: write_kind!(SetCall::parse_getset, set),
        keys: Keys::FIRST,
        flags: &["write", "denyoom", "fast"],
        group: "string",
        since: "1.0.0",
        summary: "Sets a key and answers what it was.",
        complexity: "O(1)",
    },
];

/// The level (see [`super::batch`]) that a node must know to apply this call: a node of the first
/// would refuse a comparison, and its keys would differ from the others'.
pub fn level_of_set(args: &[Bytes]) -> u8 {
    let compares = args.iter().skip(3).any(|option| CompareKind::of_option(option).is_some());
    if compares { 2 } else { 1 }
}

/// When to set.
#[derive(Clone, Copy)]
enum Condition<'a> {
    Absent,
    Present,
    If(Comparison<'a>),
}

impl<'a> Condition<'a> {
    /// The condition that an option announces, with its argument; `None`: it is another option.
    fn parse(
        option: &Bytes,
        options: &mut std::slice::Iter<'a, Bytes>,
    ) -> Result<Option<Condition<'a>>, Reply> {
        if is(option, "NX") {
            return Ok(Some(Condition::Absent));
        }
        if is(option, "XX") {
            return Ok(Some(Condition::Present));
        }
        let Some(kind) = CompareKind::of_option(option) else { return Ok(None) };
        let operand = options.next().ok_or(SYNTAX)?;
        Ok(Some(Condition::If(Comparison { kind, operand })))
    }

    /// Two of one kind may be given, and the last one counts; two kinds contradict each other.
    fn kind(&self) -> (u8, Option<CompareKind>) {
        match self {
            Condition::Absent => (0, None),
            Condition::Present => (1, None),
            Condition::If(comparison) => (2, Some(comparison.kind)),
        }
    }
}

/// SET and its older relatives.
struct SetCall<'a> {
    name: &'static str,
    key: &'a Bytes,
    value: &'a Bytes,
    condition: Option<Condition<'a>>,
    /// Answer the old value.
    get: bool,
    keep_deadline: bool,
    time: Option<Time>,
}

impl<'a> SetCall<'a> {
    fn plain(name: &'static str, key: &'a Bytes, value: &'a Bytes) -> Result<SetCall<'a>, Reply> {
        check_pair(key, value.len())?;
        let (condition, time) = (None, None);
        Ok(SetCall { name, key, value, condition, get: false, keep_deadline: false, time })
    }

    fn parse_set(args: &'a [Bytes]) -> Result<SetCall<'a>, Reply> {
        let mut call = SetCall::plain("set", &args[1], &args[2])?;
        let mut deadline = DeadlineOptions::default();
        let mut options = args[3..].iter();
        while let Some(option) = options.next() {
            if let Some(condition) = Condition::parse(option, &mut options)? {
                let same = |old: Condition| old.kind() == condition.kind();
                if !call.condition.is_none_or(same) {
                    return Err(SYNTAX);
                }
                call.condition = Some(condition);
            } else if is(option, "GET") {
                call.get = true;
            } else if !deadline.take(option, &mut options)? {
                return Err(SYNTAX);
            }
        }
        (call.keep_deadline, call.time) = (deadline.keep, deadline.time("set")?);
        Ok(call)
    }

    fn parse_setnx(args: &'a [Bytes]) -> Result<SetCall<'a>, Reply> {
        let call = SetCall::plain("setnx", &args[1], &args[2])?;
        Ok(SetCall { condition: Some(Condition::Absent), ..call })
    }

    fn parse_setex(args: &'a [Bytes]) -> Result<SetCall<'a>, Reply> {
        SetCall::parse_timed("setex", args, TimeForm::EX)
    }

    fn parse_psetex(args: &'a [Bytes]) -> Result<SetCall<'a>, Reply> {
        SetCall::parse_timed("psetex", args, TimeForm::PX)
    }

    fn parse_timed(
        name: &'static str,
        args: &'a [Bytes],
        form: TimeForm,
    ) -> Result<SetCall<'a>, Reply> {
        let call = SetCall::plain(name, &args[1], &args[3])?;
        Ok(SetCall { time: Some(Time::parse(&args[2], form, true, name)?), ..call })
    }

    fn parse_getset(args: &'a [Bytes]) -> Result<SetCall<'a>, Reply> {
        Ok(SetCall { get: true, ..SetCall::plain("getset", &args[1], &args[2])? })
    }

    /// Sets the key unless its condition fails; `Some(old)` with the old key if it was set.
    fn run(&self, keyspace: &mut Keyspace) -> Result<SetResult, Failure> {
        // Refused even when the condition would fail.
        let deadline_ms = match self.time {
            Some(time) => time.deadline_ms(keyspace.clock_ms(), self.name)?,
            None => 0,
        };
        if !self.get && !matches!(self.condition, Some(Condition::If(_))) {
            return self.run_unread(keyspace, deadline_ms);
        }
        let old = keyspace.find(self.key)?;
        let value = match (&old, self.get) {
            (Some(old), true) => Some(string_of(old)?),
            _ => None,
        };
        let allowed = match (self.condition, &old) {
            (None, _) => true,
            (Some(Condition::Absent), old) => old.is_none(),
            (Some(Condition::Present), old) => old.is_some(),
            (Some(Condition::If(comparison)), Some(old)) => comparison.holds(&string_of(old)?)?,
            (Some(Condition::If(comparison)), None) => comparison.holds_for_none(),
        };
        if allowed {
            self.put(keyspace, old.map(|old| old.header), deadline_ms);
        }
        Ok(SetResult { done: allowed, old: value })
    }

    /// When nobody asks for the old value.
    fn run_unread(&self, keyspace: &mut Keyspace, deadline_ms: u64) -> Result<SetResult, Failure> {
        let old = keyspace.find_header(self.key)?;
        let done = match self.condition {
            Some(Condition::Absent) => old.is_none(),
            Some(Condition::Present) => old.is_some(),
            Some(Condition::If(_)) | None => true,
        };
        if done {
            self.put(keyspace, old, deadline_ms);
        }
        Ok(SetResult { done, old: None })
    }

    fn put(&self, keyspace: &mut Keyspace, old: Option<Header>, deadline_ms: u64) {
        let deadline_ms = match old {
            Some(old) if self.keep_deadline => old.deadline_ms,
            _ => deadline_ms,
        };
        keyspace.put_string(self.key, self.value, deadline_ms, old.as_ref());
    }
}

struct SetResult {
    done: bool,
    old: Option<Bytes>,
}

fn set(keyspace: &mut Keyspace, call: SetCall) -> Outcome {
    let result = call.run(keyspace)?;
    Ok(match (call.get, result.done) {
        (true, _) => result.old.map_or(Reply::Null, Reply::Bulk),
        (false, true) => Reply::OK,
        (false, false) => Reply::Null,
    })
}

fn setnx(keyspace: &mut Keyspace, call: SetCall) -> Outcome {
    Ok(Reply::Integer(i64::from(call.run(keyspace)?.done)))
}
