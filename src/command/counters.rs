//! Strings that are decimal numbers.

use bytes::Bytes;
use resp::Reply;

use super::long_double::LongDouble;
use super::outcome::Outcome;
use super::parse::{NOT_AN_INTEGER, check_pair, integer, integer_argument};
use super::strings::string_of;
use super::table::{Keys, Spec, write_kind};
use crate::store::keyspace::Keyspace;

/// The rows of this file.
pub static COMMANDS: &[Spec] = &[
    Spec {
        name: "incr",
        arity: 2,
        kind: write_kind!(Step::parse_incr, add),
        keys: Keys::FIRST,
        flags: &["write", "denyoom", "fast"],
        group: "string",
        since: "1.0.0",
        summary: "Adds one to a number; a key that does not exist counts as 0.",
        complexity: "O(1)",
    },
    Spec {
        name: "decr",
        arity: 2,
        kind: write_kind!(Step::parse_decr, add),
        keys: Keys::FIRST,
        flags: &["write", "denyoom", "fast"],
        group: "string",
        since: "1.0.0",
        summary: "Takes one from a number; a key that does not exist counts as 0.",
        complexity: "O(1)",
    },
    Spec {
        name: "incrby",
        arity: 3,
        kind: write_kind!(Step::parse_incrby, add),
        keys: Keys::FIRST,
        flags: &["write", "denyoom", "fast"],
        group: "string",
        since: "1.0.0",
        summary: "Adds to a number; a key that does not exist counts as 0.",
        complexity: "O(1)",
    },
    Spec {
        name: "decrby",
        arity: 3,
        kind: write_kind!(Step::parse_decrby, add),
        keys: Keys::FIRST,
        flags: &["write", "denyoom", "fast"],
        group: "string",
        since: "1.0.0",
        summary: "Takes from a number; a key that does not exist counts as 0.",
        complexity: "O(1)",
    },
    Spec {
        name: "incrbyfloat",
        arity: 3,
        kind: write_kind!(key_and_amount, add_float),
        keys: Keys::FIRST,
        flags: &["write", "denyoom", "fast"],
        group: "string",
        since: "2.6.0",
        summary: "Adds to a floating point number; a key that does not exist counts as 0.",
        complexity: "O(1)",
    },
];

/// What to add to which key.
struct Step<'a> {
    key: &'a Bytes,
    amount: i64,
}

impl<'a> Step<'a> {
    fn new(key: &'a Bytes, amount: i64) -> Result<Step<'a>, Reply> {
        check_pair(key, 20)?;
        Ok(Step { key, amount })
    }

    fn parse_incr(args: &'a [Bytes]) -> Result<Step<'a>, Reply> {
        Step::new(&args[1], 1)
    }

    fn parse_decr(args: &'a [Bytes]) -> Result<Step<'a>, Reply> {
        Step::new(&args[1], -1)
    }

    fn parse_incrby(args: &'a [Bytes]) -> Result<Step<'a>, Reply> {
        Step::new(&args[1], integer_argument(&args[2])?)
    }

    fn parse_decrby(args: &'a [Bytes]) -> Result<Step<'a>, Reply> {
        let amount = integer_argument(&args[2])?.checked_neg();
        let amount = amount.ok_or_else(|| Reply::error("ERR decrement would overflow"))?;
        Step::new(&args[1], amount)
    }
}

fn add(keyspace: &mut Keyspace, step: Step) -> Outcome {
    let stored = keyspace.find(step.key)?;
    let old = match &stored {
        Some(stored) => integer(&string_of(stored)?).ok_or(NOT_AN_INTEGER)?,
        None => 0,
    };
    let new = old.checked_add(step.amount);
    let new = new.ok_or_else(|| Reply::error("ERR increment or decrement would overflow"))?;
    let header = stored.as_ref().map(|stored| &stored.header);
    let deadline_ms = header.map_or(0, |header| header.deadline_ms);
    keyspace.put_string(step.key, new.to_string().as_bytes(), deadline_ms, header);
    Ok(Reply::Integer(new))
}

/// Longer than any sum is printed.
const FLOAT_BYTES_MAX: usize = 5 * 1024;

fn key_and_amount(args: &[Bytes]) -> Result<(&Bytes, &Bytes), Reply> {
    check_pair(&args[1], FLOAT_BYTES_MAX)?;
    Ok((&args[1], &args[2]))
}

fn add_float(keyspace: &mut Keyspace, (key, amount): (&Bytes, &Bytes)) -> Outcome {
    let invalid = || Reply::error("ERR value is not a valid float");
    let stored = keyspace.find(key)?;
    let old = match &stored {
        Some(stored) => LongDouble::parse(&string_of(stored)?).ok_or_else(invalid)?,
        None => LongDouble::ZERO,
    };
    // Refused only here, because the type of the key comes first.
    let amount = LongDouble::parse(amount).ok_or_else(invalid)?;
    let infinite = || Reply::error("ERR increment would produce NaN or Infinity");
    let text = old.add(&amount).ok_or_else(infinite)?.print();
    let header = stored.as_ref().map(|stored| &stored.header);
    let deadline_ms = header.map_or(0, |header| header.deadline_ms);
    keyspace.put_string(key, text.as_bytes(), deadline_ms, header);
    Ok(Reply::bulk(text))
}
