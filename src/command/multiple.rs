//! Several keys set at once, all or none.

use bytes::Bytes;
use resp::Reply;

use super::outcome::Outcome;
use super::parse::{DeadlineOptions, SYNTAX, Time, check_pair, integer, is, wrong_arity};
use super::table::{Keys, Spec, write_kind};
use crate::store::keyspace::Keyspace;

/// The rows of this file.
pub static COMMANDS: &[Spec] = &[
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
        name: "msetex",
        arity: -4,
        kind: write_kind!(MsetexCall::parse, msetex),
        keys: Keys::COUNTED_PAIRS,
        flags: &["write", "denyoom", "movablekeys"],
        group: "string",
        since: "8.4.0",
        summary: "Sets several keys with one deadline, if all or none of them exist when asked.",
        complexity: "O(N), N: the keys",
    },
];

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
        let old = keyspace.find_header(&pair[0])?;
        keyspace.put_string(&pair[0], &pair[1], 0, old.as_ref());
    }
    Ok(Reply::OK)
}

fn msetnx(keyspace: &mut Keyspace, pairs: &[Bytes]) -> Outcome {
    for pair in pairs.chunks_exact(2) {
        if keyspace.find_header(&pair[0])?.is_some() {
            return Ok(Reply::Integer(0));
        }
    }
    mset(keyspace, pairs)?;
    Ok(Reply::Integer(1))
}

struct MsetexCall<'a> {
    pairs: &'a [Bytes],
    /// `Some(true)`: only if all exist; `Some(false)`: only if none does.
    present: Option<bool>,
    keep_deadline: bool,
    time: Option<Time>,
}

impl<'a> MsetexCall<'a> {
    fn parse(args: &'a [Bytes]) -> Result<MsetexCall<'a>, Reply> {
        let count = integer(&args[1]).and_then(|count| i32::try_from(count).ok());
        let count = count.filter(|count| *count > 0).map(|count| count as usize);
        let count = count.ok_or_else(|| Reply::error("ERR invalid numkeys value"))?;
        let Some(pairs) = args.get(2..2 + 2 * count) else {
            return Err(Reply::error("ERR wrong number of key-value pairs"));
        };
        let mut call = MsetexCall { pairs, present: None, keep_deadline: false, time: None };
        let mut deadline = DeadlineOptions::default();
        let mut options = args[2 + 2 * count..].iter();
        while let Some(option) = options.next() {
            if is(option, "NX") && call.present != Some(true) {
                call.present = Some(false);
            } else if is(option, "XX") && call.present != Some(false) {
                call.present = Some(true);
            } else if !deadline.take(option, &mut options)? {
                return Err(SYNTAX);
            }
        }
        (call.keep_deadline, call.time) = (deadline.keep, deadline.time("msetex")?);
        pairs.chunks_exact(2).try_for_each(|pair| check_pair(&pair[0], pair[1].len()))?;
        Ok(call)
    }
}

fn msetex(keyspace: &mut Keyspace, call: MsetexCall) -> Outcome {
    let deadline_ms = match call.time {
        Some(time) => time.deadline_ms(keyspace.clock_ms(), "msetex")?,
        None => 0,
    };
    if let Some(present) = call.present {
        for pair in call.pairs.chunks_exact(2) {
            if keyspace.find_header(&pair[0])?.is_some() != present {
                return Ok(Reply::Integer(0));
            }
        }
    }
    for pair in call.pairs.chunks_exact(2) {
        let old = keyspace.find_header(&pair[0])?;
        let deadline_ms = match old {
            Some(old) if call.keep_deadline => old.deadline_ms,
            _ => deadline_ms,
        };
        keyspace.put_string(&pair[0], &pair[1], deadline_ms, old.as_ref());
    }
    Ok(Reply::Integer(1))
}
