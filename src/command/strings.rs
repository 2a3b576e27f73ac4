//! Strings: setting, getting, and both at once.

use bytes::Bytes;
use resp::Reply;

use super::outcome::Outcome;
use super::parse::{SYNTAX, Time, TimeForm, WRONG_TYPE, check_pair, is, wrong_arity};
use super::table::{Keys, Spec, read_kind, write_kind};
use crate::store::keyspace::{Keyspace, Stored, Type, View};

/// The rows of this file.
pub static COMMANDS: &[Spec] = &[
    Spec {
        name: "get",
        arity: 2,
        kind: read_kind!(get),
        keys: Keys::FIRST,
        flags: &["readonly", "fast"],
        group: "string",
        since: "1.0.0",
        summary: "Answers the string at a key.",
        complexity: "O(1)",
    },
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
    Spec {
        name: "getdel",
        arity: 2,
        kind: write_kind!(first_key, getdel),
        keys: Keys::FIRST,
        flags: &["write", "fast"],
        group: "string",
        since: "6.2.0",
        summary: "Deletes a key and answers what it was.",
        complexity: "O(1)",
    },
    Spec {
        name: "getex",
        arity: -2,
        kind: write_kind!(GetexCall::parse, getex),
        keys: Keys::FIRST,
        flags: &["write", "fast"],
        group: "string",
        since: "6.2.0",
        summary: "Answers the string at a key and changes its deadline.",
        complexity: "O(1)",
    },
    Spec {
        name: "mget",
        arity: -2,
        kind: read_kind!(mget),
        keys: Keys::ALL,
        flags: &["readonly", "fast"],
        group: "string",
        since: "1.0.0",
        summary: "Answers the strings at several keys, as of one moment.",
        complexity: "O(N), N: the keys",
    },
    Spec {
        name: "mset",
        arity: -3,
        kind: write_kind!(pairs_of_mset, mset),
        keys: Keys::PAIRS,
        flags: &["write", "denyoom"],
        group: "string",
        since: "1.0.1",
        summary: "Sets several keys, all or none.",
        complexity: "O(N), N: the keys",
    },
    Spec {
        name: "msetnx",
        arity: -3,
        kind: write_kind!(pairs_of_msetnx, msetnx),
        keys: Keys::PAIRS,
        flags: &["write", "denyoom"],
        group: "string",
        since: "1.0.1",
        summary: "Sets several keys if none of them exists.",
        complexity: "O(N), N: the keys",
    },
    Spec {
        name: "append",
        arity: 3,
        kind: write_kind!(key_and_value, append),
        keys: Keys::FIRST,
        flags: &["write", "denyoom", "fast"],
        group: "string",
        since: "2.0.0",
        summary: "Adds bytes to the end of a string, or sets it.",
        complexity: "O(N), N: bytes of the result",
    },
    Spec {
        name: "strlen",
        arity: 2,
        kind: read_kind!(strlen),
        keys: Keys::FIRST,
        flags: &["readonly", "fast"],
        group: "string",
        since: "2.2.0",
        summary: "Answers the bytes of a string; 0 when the key does not exist.",
        complexity: "O(1)",
    },
];

/// The bytes of a key that must be a string.
pub(super) fn string_of(stored: &Stored) -> Result<Bytes, Reply> {
    match stored.header.kind {
        Type::String => Ok(stored.content()),
    }
}

fn get(view: &View, args: &[Bytes]) -> Outcome {
    match view.find(&args[1])? {
        Some(stored) => Ok(Reply::Bulk(string_of(&stored)?)),
        None => Ok(Reply::Null),
    }
}

fn mget(view: &View, args: &[Bytes]) -> Outcome {
    let mut values = Vec::with_capacity(args.len() - 1);
    for key in &args[1..] {
        let value = view.find(key)?.and_then(|stored| string_of(&stored).ok());
        values.push(value.map_or(Reply::Null, Reply::Bulk));
    }
    Ok(Reply::Array(values))
}

fn strlen(view: &View, args: &[Bytes]) -> Outcome {
    match view.find(&args[1])? {
        Some(stored) if stored.header.kind == Type::String => {
            Ok(Reply::Integer(stored.header.size as i64))
        }
        Some(_) => Err(WRONG_TYPE.into()),
        None => Ok(Reply::Integer(0)),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Absent,
    Present,
}

/// SET and its older relatives.
struct SetCall<'a> {
    name: &'static str,
    key: &'a Bytes,
    value: &'a Bytes,
    condition: Option<Condition>,
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
        let mut time = None;
        let mut options = args[3..].iter();
        while let Some(option) = options.next() {
            if is(option, "NX") && call.condition.is_none_or(|old| old == Condition::Absent) {
                call.condition = Some(Condition::Absent);
            } else if is(option, "XX") && call.condition.is_none_or(|old| old == Condition::Present)
            {
                call.condition = Some(Condition::Present);
            } else if is(option, "GET") {
                call.get = true;
            } else if is(option, "KEEPTTL") && time.is_none() {
                call.keep_deadline = true;
            } else if let (Some(form), false) = (TimeForm::of_option(option), call.keep_deadline) {
                time = Some((next_time(&mut options, form, time)?, form));
            } else {
                return Err(SYNTAX);
            }
        }
        if let Some((text, form)) = time {
            call.time = Some(Time::parse(text, form, true, "set")?);
        }
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
    fn run(&self, keyspace: &mut Keyspace) -> Result<SetResult, super::outcome::Failure> {
        // Refused even when the condition would fail.
        let deadline_ms = match self.time {
            Some(time) => time.deadline_ms(keyspace.clock_ms(), self.name)?,
            None => 0,
        };
        let old = keyspace.find(self.key)?;
        let value = match (&old, self.get) {
            (Some(old), true) => Some(string_of(old)?),
            _ => None,
        };
        let allowed = match self.condition {
            None => true,
            Some(Condition::Absent) => old.is_none(),
            Some(Condition::Present) => old.is_some(),
        };
        if allowed {
            let old = old.as_ref().map(|old| &old.header);
            let deadline_ms = match old {
                Some(old) if self.keep_deadline => old.deadline_ms,
                _ => deadline_ms,
            };
            keyspace.put_string(self.key, self.value, deadline_ms, old);
        }
        Ok(SetResult { done: allowed, old: value })
    }
}

/// The argument of a time option. It may come again in the same form, and the last one counts.
fn next_time<'a>(
    options: &mut std::slice::Iter<'a, Bytes>,
    form: TimeForm,
    before: Option<(&Bytes, TimeForm)>,
) -> Result<&'a Bytes, Reply> {
    match before {
        Some((_, other)) if other != form => Err(SYNTAX),
        _ => options.next().ok_or(SYNTAX),
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

fn first_key(args: &[Bytes]) -> Result<&Bytes, Reply> {
    Ok(&args[1])
}

fn getdel(keyspace: &mut Keyspace, key: &Bytes) -> Outcome {
    let Some(stored) = keyspace.find(key)? else { return Ok(Reply::Null) };
    let value = string_of(&stored)?;
    keyspace.delete(key, &stored.header);
    Ok(Reply::Bulk(value))
}

enum Deadline {
    Keep,
    Remove,
    /// A time that cannot be read is an error only when the key exists, as in Redis.
    Set(Result<Time, Reply>),
}

struct GetexCall<'a> {
    key: &'a Bytes,
    deadline: Deadline,
}

impl<'a> GetexCall<'a> {
    fn parse(args: &'a [Bytes]) -> Result<GetexCall<'a>, Reply> {
        let mut time = None;
        let mut persist = false;
        let mut options = args[2..].iter();
        while let Some(option) = options.next() {
            if is(option, "PERSIST") && time.is_none() {
                persist = true;
            } else if let (Some(form), false) = (TimeForm::of_option(option), persist) {
                time = Some((next_time(&mut options, form, time)?, form));
            } else {
                return Err(SYNTAX);
            }
        }
        let deadline = match time {
            Some((text, form)) => Deadline::Set(Time::parse(text, form, true, "getex")),
            None if persist => Deadline::Remove,
            None => Deadline::Keep,
        };
        Ok(GetexCall { key: &args[1], deadline })
    }
}

fn getex(keyspace: &mut Keyspace, call: GetexCall) -> Outcome {
    let Some(stored) = keyspace.find(call.key)? else { return Ok(Reply::Null) };
    let value = string_of(&stored)?;
    let deadline_ms = match call.deadline {
        Deadline::Keep => stored.header.deadline_ms,
        Deadline::Remove => 0,
        Deadline::Set(time) => time?.deadline_ms(keyspace.clock_ms(), "getex")?,
    };
    if deadline_ms != stored.header.deadline_ms {
        keyspace.set_deadline(call.key, &stored, deadline_ms);
    }
    Ok(Reply::Bulk(value))
}

fn pairs_of_mset(args: &[Bytes]) -> Result<&[Bytes], Reply> {
    pairs_of("mset", args)
}

fn pairs_of_msetnx(args: &[Bytes]) -> Result<&[Bytes], Reply> {
    pairs_of("msetnx", args)
}

fn pairs_of<'a>(name: &str, args: &'a [Bytes]) -> Result<&'a [Bytes], Reply> {
    if args.len().is_multiple_of(2) {
        return Err(wrong_arity(name));
    }
    args[1..].chunks_exact(2).try_for_each(|pair| check_pair(&pair[0], pair[1].len()))?;
    Ok(&args[1..])
}

fn mset(keyspace: &mut Keyspace, pairs: &[Bytes]) -> Outcome {
    for pair in pairs.chunks_exact(2) {
        let old = keyspace.find(&pair[0])?;
        keyspace.put_string(&pair[0], &pair[1], 0, old.as_ref().map(|old| &old.header));
    }
    Ok(Reply::OK)
}

fn msetnx(keyspace: &mut Keyspace, pairs: &[Bytes]) -> Outcome {
    for pair in pairs.chunks_exact(2) {
        if keyspace.find(&pair[0])?.is_some() {
            return Ok(Reply::Integer(0));
        }
    }
    mset(keyspace, pairs)?;
    Ok(Reply::Integer(1))
}

fn key_and_value(args: &[Bytes]) -> Result<(&Bytes, &Bytes), Reply> {
    check_pair(&args[1], args[2].len())?;
    Ok((&args[1], &args[2]))
}

fn append(keyspace: &mut Keyspace, (key, tail): (&Bytes, &Bytes)) -> Outcome {
    let Some(stored) = keyspace.find(key)? else {
        keyspace.put_string(key, tail, 0, None);
        return Ok(Reply::Integer(tail.len() as i64));
    };
    let value = [string_of(&stored)?, tail.clone()].concat();
    check_pair(key, value.len())?;
    keyspace.put_string(key, &value, stored.header.deadline_ms, Some(&stored.header));
    Ok(Reply::Integer(value.len() as i64))
}
