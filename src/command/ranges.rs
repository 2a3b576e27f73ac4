//! Ranges of keys in the order of their bytes.
//!
//! Bounds are written as in ZRANGEBYLEX: `-` and `+` are before and behind all keys, `[a` includes
//! the key `a`, `(a` does not.

use bytes::Bytes;
use resp::Reply;

use super::outcome::Outcome;
use super::parse::{SYNTAX, integer_argument, is};
use super::table::{Keys, Spec, read_kind, write_kind};
use crate::store::keyspace::{
    BOUND_BYTES_MAX, KeyRange, Keyspace, REMOVALS_MAX, Removed, Type, Version, View, next_key,
};

/// The rows of this file.
pub static COMMANDS: &[Spec] = &[
    Spec {
        name: "ak.range",
        arity: -3,
        kind: read_kind!(range),
        keys: Keys::NONE,
        flags: &["readonly"],
        group: "arakoon",
        since: "0.1.0",
        summary: "Answers the keys from one to another, in order, with their values if asked.",
        complexity: "O(N), N: the keys answered",
    },
    Spec {
        name: "ak.prefix",
        arity: -2,
        kind: read_kind!(prefix),
        keys: Keys::NONE,
        flags: &["readonly"],
        group: "arakoon",
        since: "0.1.0",
        summary: "Answers the keys that begin with these bytes, in order, with their values if asked.",
        complexity: "O(N), N: the keys answered",
    },
    Spec {
        name: "ak.delrange",
        arity: 3,
        kind: write_kind!(bounds_of_call, delete_range),
        keys: Keys::NONE,
        flags: &["write"],
        group: "arakoon",
        since: "0.1.0",
        summary: "Deletes the keys from one to another, all at one moment, and answers how many.",
        complexity: "O(N), N: the keys; others are not held up",
    },
    Spec {
        name: "ak.delprefix",
        arity: 2,
        kind: write_kind!(prefix_of_call, delete_range),
        keys: Keys::NONE,
        flags: &["write"],
        group: "arakoon",
        since: "0.1.0",
        summary: "Deletes the keys that begin with these bytes, all at one moment; answers how many.",
        complexity: "O(N), N: the keys; others are not held up",
    },
];

/// The range between two bounds.
pub(super) fn bounds(first: &[u8], last: &[u8]) -> Result<KeyRange, Reply> {
    let invalid = || Reply::error("ERR min or max not valid string range item");
    let nothing = KeyRange { first: Vec::new(), end: Some(Vec::new()) };
    let first = match first {
        b"-" => Some(Vec::new()),
        b"+" => None,
        [b'[', key @ ..] => Some(key.to_vec()),
        [b'(', key @ ..] => Some(next_key(key)),
        _ => return Err(invalid()),
    };
    let end = match last {
        b"-" => return Ok(nothing),
        b"+" => None,
        [b'[', key @ ..] => Some(next_key(key)),
        [b'(', key @ ..] => Some(key.to_vec()),
        _ => return Err(invalid()),
    };
    Ok(first.map_or(nothing, |first| KeyRange { first, end }))
}

fn range(view: &View, args: &[Bytes]) -> Outcome {
    list(view, &bounds(&args[1], &args[2])?, &args[3..])
}

fn prefix(view: &View, args: &[Bytes]) -> Outcome {
    list(view, &KeyRange::of_prefix(&args[1]), &args[2..])
}

fn list(view: &View, range: &KeyRange, options: &[Bytes]) -> Outcome {
    let (mut reverse, mut with_values, mut limit) = (false, false, u64::MAX);
    let mut options = options.iter();
    while let Some(option) = options.next() {
        match () {
            () if is(option, "REV") => reverse = true,
            () if is(option, "WITHVALUES") => with_values = true,
            () if is(option, "LIMIT") => {
                let number = integer_argument(options.next().ok_or(SYNTAX)?)?;
                let text = "ERR value is out of range, must be positive";
                limit = u64::try_from(number).map_err(|_| Reply::error(text))?;
            }
            () => return Err(SYNTAX.into()),
        }
    }
    let mut found = Vec::new();
    if limit == 0 {
        return Ok(Reply::Array(found));
    }
    view.scan(range, reverse, &mut |key, header, value| {
        if view.answer(key.len()).is_err() || with_values && view.answer(value.len()).is_err() {
            return false;
        }
        found.push(Reply::Bulk(Bytes::copy_from_slice(key)));
        if with_values {
            found.push(match header.kind {
                Type::String => Reply::Bulk(value.clone()),
            });
        }
        limit -= 1;
        limit > 0
    })?;
    Ok(Reply::Array(found))
}

fn bounds_of_call(args: &[Bytes]) -> Result<KeyRange, Reply> {
    bounds(&args[1], &args[2])
}

fn prefix_of_call(args: &[Bytes]) -> Result<KeyRange, Reply> {
    Ok(KeyRange::of_prefix(&args[1]))
}

/// Rows that are deleted within the entry that asks for it; more are removed by later ones. All
/// nodes must have the same number.
const AT_ONCE_ROWS_MAX: usize = 1000;

fn delete_range(keyspace: &mut Keyspace, range: KeyRange) -> Outcome {
    match keyspace.remove_range(range, AT_ONCE_ROWS_MAX)? {
        Removed::Now(count) => Ok(Reply::Integer(count as i64)),
        Removed::Later(version) => Ok(counted_later(version)),
        Removed::BoundTooLong => Err(Reply::error(format!(
            "ERR the range is large, so its bounds must be at most {BOUND_BYTES_MAX} bytes each"
        ))
        .into()),
        Removed::Refused => Err(Reply::error(format!(
            "TRYAGAIN {REMOVALS_MAX} large ranges are being deleted already"
        ))
        .into()),
    }
}

/// Whether it may look at many keys in their order, also when it runs from the log.
pub fn scans(spec: &Spec) -> bool {
    answers_later(spec) || SCANS.contains(&spec.name)
}

const SCANS: &[&str] = &["scan", "keys", "randomkey", "ak.range", "ak.prefix", "ak.assertrange"];

#[test]
fn the_commands_that_scan_are_commands() {
    let found = |name: &&str| super::table::find(name.as_bytes()).is_some_and(scans);
    assert!(SCANS.iter().all(found));
    assert!(!super::table::find(b"set").is_some_and(scans));
}

/// Whether a command's answer may come only after its entry: its session must wait for it.
pub fn answers_later(spec: &Spec) -> bool {
    matches!(spec.name, "ak.delrange" | "ak.delprefix")
}

/// What stands for a count that is not known yet. No command answers anything like it.
fn counted_later(version: Version) -> Reply {
    let (index, place) = (version.index as i64, i64::from(version.place));
    Reply::Push(vec![Reply::bulk("removal"), Reply::Integer(index), Reply::Integer(place)])
}

/// The removal whose count a reply stands for, if it does.
pub fn removal_of(reply: &Reply) -> Option<Version> {
    let Reply::Push(parts) = reply else { return None };
    let [_, Reply::Integer(index), Reply::Integer(place)] = parts[..] else { return None };
    Some(Version { index: index as u64, place: u32::try_from(place).ok()? })
}
