//! Values that go to another key, keys that go to another database, and databases that change places.

use bytes::Bytes;
use resp::Reply;

use super::outcome::{Failure, Outcome};
use super::parse::{SYNTAX, check_pair, integer, is, parse_db};
use super::table::{Keys, Spec, write_kind};
use crate::store::keyspace::Keyspace;

/// The rows of this file.
pub static COMMANDS: &[Spec] = &[
    Spec {
        name: "rename",
        arity: 3,
        kind: write_kind!(two_keys, rename),
        keys: Keys::FIRST_TWO,
        flags: &["write"],
        group: "generic",
        since: "1.0.0",
        summary: "Gives a key another name; what had it is gone.",
        complexity: "O(N), N: bytes of the value",
    },
    Spec {
        name: "renamenx",
        arity: 3,
        kind: write_kind!(two_keys, renamenx),
        keys: Keys::FIRST_TWO,
        flags: &["write", "fast"],
        group: "generic",
        since: "1.0.0",
        summary: "Gives a key another name that no key has yet.",
        complexity: "O(N), N: bytes of the value",
    },
    Spec {
        name: "copy",
        arity: -3,
        kind: write_kind!(CopyCall::parse, copy),
        keys: Keys::FIRST_TWO,
        flags: &["write", "denyoom"],
        group: "generic",
        since: "6.2.0",
        summary: "Copies a value and its deadline to another key or database.",
        complexity: "O(N), N: bytes of the value",
    },
    Spec {
        name: "move",
        arity: 3,
        kind: write_kind!(key_and_db, move_key),
        keys: Keys::FIRST,
        flags: &["write", "fast"],
        group: "generic",
        since: "1.0.0",
        summary: "Moves a key to another database that does not have it.",
        complexity: "O(N), N: bytes of the value",
    },
    Spec {
        name: "swapdb",
        arity: 3,
        kind: write_kind!(two_databases, swapdb),
        keys: Keys::NONE,
        flags: &["write", "fast"],
        group: "server",
        since: "4.0.0",
        summary: "Lets two databases change places.",
        complexity: "O(1)",
    },
];

const SAME_OBJECT: Reply =
    Reply::Error(std::borrow::Cow::Borrowed("ERR source and destination objects are the same"));

fn two_keys(args: &[Bytes]) -> Result<(&Bytes, &Bytes), Reply> {
    Ok((&args[1], &args[2]))
}

fn rename(keyspace: &mut Keyspace, (from, to): (&Bytes, &Bytes)) -> Outcome {
    move_value(keyspace, from, to, true)?;
    Ok(Reply::OK)
}

fn renamenx(keyspace: &mut Keyspace, (from, to): (&Bytes, &Bytes)) -> Outcome {
    Ok(Reply::Integer(i64::from(move_value(keyspace, from, to, false)?)))
}

/// Whether the value was moved.
fn move_value(
    keyspace: &mut Keyspace,
    from: &Bytes,
    to: &Bytes,
    replace: bool,
) -> Result<bool, Failure> {
    let Some(stored) = keyspace.find(from)? else {
        return Err(Reply::error("ERR no such key").into());
    };
    if from == to {
        return Ok(false);
    }
    let old = keyspace.find(to)?.map(|old| old.header);
    if old.is_some() && !replace {
        return Ok(false);
    }
    check_pair(to, stored.content().len())?;
    keyspace.put_copy(to, &stored, old.as_ref());
    keyspace.delete(from, &stored.header);
    Ok(true)
}

struct CopyCall<'a> {
    from: &'a Bytes,
    to: &'a Bytes,
    db: Option<u8>,
    replace: bool,
}

impl<'a> CopyCall<'a> {
    fn parse(args: &'a [Bytes]) -> Result<CopyCall<'a>, Reply> {
        let mut call = CopyCall { from: &args[1], to: &args[2], db: None, replace: false };
        let mut options = args[3..].iter();
        while let Some(option) = options.next() {
            if is(option, "REPLACE") {
                call.replace = true;
            } else if is(option, "DB") {
                call.db = Some(parse_db(options.next().ok_or(SYNTAX)?)?);
            } else {
                return Err(SYNTAX);
            }
        }
        Ok(call)
    }
}

fn copy(keyspace: &mut Keyspace, call: CopyCall) -> Outcome {
    let from_db = keyspace.selected();
    let to_db = call.db.unwrap_or(from_db);
    if to_db == from_db && call.from == call.to {
        return Err(SAME_OBJECT.into());
    }
    let Some(stored) = keyspace.find(call.from)? else { return Ok(Reply::Integer(0)) };
    keyspace.select(to_db);
    let old = keyspace.find(call.to)?.map(|old| old.header);
    if old.is_some() && !call.replace {
        return Ok(Reply::Integer(0));
    }
    check_pair(call.to, stored.content().len())?;
    keyspace.put_copy(call.to, &stored, old.as_ref());
    Ok(Reply::Integer(1))
}

fn key_and_db(args: &[Bytes]) -> Result<(&Bytes, u8), Reply> {
    Ok((&args[1], parse_db(&args[2])?))
}

fn move_key(keyspace: &mut Keyspace, (key, to_db): (&Bytes, u8)) -> Outcome {
    let from_db = keyspace.selected();
    if from_db == to_db {
        return Err(SAME_OBJECT.into());
    }
    let Some(stored) = keyspace.find(key)? else { return Ok(Reply::Integer(0)) };
    keyspace.select(to_db);
    if keyspace.find(key)?.is_some() {
        return Ok(Reply::Integer(0));
    }
    keyspace.put_copy(key, &stored, None);
    keyspace.select(from_db);
    keyspace.delete(key, &stored.header);
    Ok(Reply::Integer(1))
}

fn two_databases(args: &[Bytes]) -> Result<(u8, u8), Reply> {
    let number = |argument: &Bytes, which: &str| {
        let number = integer(argument).and_then(|number| i32::try_from(number).ok());
        number.ok_or_else(|| Reply::error(format!("ERR invalid {which} DB index")))
    };
    // Both must be numbers before one may be out of range.
    number(&args[1], "first")?;
    number(&args[2], "second")?;
    Ok((parse_db(&args[1])?, parse_db(&args[2])?))
}

fn swapdb(keyspace: &mut Keyspace, (one, other): (u8, u8)) -> Outcome {
    keyspace.swap_databases(one, other);
    Ok(Reply::OK)
}
