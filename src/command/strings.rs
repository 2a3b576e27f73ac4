//! Strings: reading them whole or in part, and changing what is there. `set` has what sets them
//! whatever they were.

use bytes::Bytes;
use resp::Reply;

use super::outcome::Outcome;
use super::parse::{
    SYNTAX, Time, TimeForm, WRONG_TYPE, check_pair, integer_argument, is, next_time, places,
};
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
    Spec {
        name: "getrange",
        arity: 4,
        kind: read_kind!(getrange),
        keys: Keys::FIRST,
        flags: &["readonly"],
        group: "string",
        since: "2.4.0",
        summary: "Answers a part of a string; negative places count from the end.",
        complexity: "O(N), N: bytes of the answer",
    },
    Spec {
        name: "substr",
        arity: 4,
        kind: read_kind!(getrange),
        keys: Keys::FIRST,
        flags: &["readonly"],
        group: "string",
        since: "1.0.0",
        summary: "Answers a part of a string, as GETRANGE does.",
        complexity: "O(N), N: bytes of the answer",
    },
    Spec {
        name: "setrange",
        arity: 4,
        kind: write_kind!(SetrangeCall::parse, setrange),
        keys: Keys::FIRST,
        flags: &["write", "denyoom"],
        group: "string",
        since: "2.2.0",
        summary: "Overwrites a part of a string, with zeros up to it if need be.",
        complexity: "O(N), N: bytes of the result",
    },
];

/// The longest string of Redis as it comes; what is longer has its error text. Ours end earlier, see
/// [`check_pair`].
pub(super) const STRING_BYTES_MAX: u64 = 512 << 20;

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
        view.answer(value.as_ref().map_or(0, Bytes::len))?;
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

fn getrange(view: &View, args: &[Bytes]) -> Outcome {
    let (first, last) = (integer_argument(&args[2])?, integer_argument(&args[3])?);
    let Some(stored) = view.find(&args[1])? else { return Ok(Reply::Bulk(Bytes::new())) };
    let value = string_of(&stored)?;
    Ok(Reply::Bulk(match places(first, last, value.len() as u64) {
        Some((first, last)) => value.slice(first as usize..=last as usize),
        None => Bytes::new(),
    }))
}

struct SetrangeCall<'a> {
    key: &'a Bytes,
    offset: u64,
    part: &'a Bytes,
}

impl<'a> SetrangeCall<'a> {
    fn parse(args: &'a [Bytes]) -> Result<SetrangeCall<'a>, Reply> {
        let offset = u64::try_from(integer_argument(&args[2])?);
        let offset = offset.map_err(|_| Reply::error("ERR offset is out of range"))?;
        Ok(SetrangeCall { key: &args[1], offset, part: &args[3] })
    }

    /// Bytes of the string, at least, when the part is in it.
    fn end(&self) -> Result<usize, Reply> {
        let end = self.offset.saturating_add(self.part.len() as u64);
        if end > STRING_BYTES_MAX {
            return Err(Reply::error(
                "ERR string exceeds maximum allowed size (proto-max-bulk-len)",
            ));
        }
        check_pair(self.key, end as usize)?;
        Ok(end as usize)
    }
}

fn setrange(keyspace: &mut Keyspace, call: SetrangeCall) -> Outcome {
    let stored = keyspace.find(call.key)?;
    let old = stored.as_ref().map(string_of).transpose()?.unwrap_or_default();
    if call.part.is_empty() {
        return Ok(Reply::Integer(old.len() as i64));
    }
    let end = call.end()?;
    let mut value = old.to_vec();
    value.resize(value.len().max(end), 0);
    value[call.offset as usize..end].copy_from_slice(call.part);
    let header = stored.as_ref().map(|stored| &stored.header);
    let deadline_ms = header.map_or(0, |header| header.deadline_ms);
    keyspace.put_string(call.key, &value, deadline_ms, header);
    Ok(Reply::Integer(value.len() as i64))
}
