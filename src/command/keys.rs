//! Keys of any type: existence, deletion, whole databases.

use bytes::Bytes;
use resp::Reply;

use super::outcome::Outcome;
use super::parse::{SYNTAX, is};
use super::table::{Keys, Spec, read_kind, write_kind};
use crate::store::keyspace::{KeyRange, Keyspace, ReadError, View};

/// The rows of this file.
pub static COMMANDS: &[Spec] = &[
    Spec {
        name: "del",
        arity: -2,
        kind: write_kind!(all_keys, delete),
        keys: Keys::ALL,
        flags: &["write"],
        group: "generic",
        since: "1.0.0",
        summary: "Deletes keys, all or none, and answers how many there were.",
        complexity: "O(N), N: the keys",
    },
    Spec {
        name: "unlink",
        arity: -2,
        kind: write_kind!(all_keys, delete),
        keys: Keys::ALL,
        flags: &["write", "fast"],
        group: "generic",
        since: "4.0.0",
        summary: "Deletes keys, as DEL does.",
        complexity: "O(N), N: the keys",
    },
    Spec {
        name: "exists",
        arity: -2,
        kind: read_kind!(exists),
        keys: Keys::ALL,
        flags: &["readonly", "fast"],
        group: "generic",
        since: "1.0.0",
        summary: "Answers how many of the keys exist; one named twice counts twice.",
        complexity: "O(N), N: the keys",
    },
    Spec {
        name: "touch",
        arity: -2,
        kind: read_kind!(exists),
        keys: Keys::ALL,
        flags: &["readonly", "fast"],
        group: "generic",
        since: "3.2.1",
        summary: "Answers how many of the keys exist; no time of last use is kept.",
        complexity: "O(N), N: the keys",
    },
    Spec {
        name: "type",
        arity: 2,
        kind: read_kind!(type_of),
        keys: Keys::FIRST,
        flags: &["readonly", "fast"],
        group: "generic",
        since: "1.0.0",
        summary: "Answers the type of the value at a key.",
        complexity: "O(1)",
    },
    Spec {
        name: "randomkey",
        arity: 1,
        kind: read_kind!(randomkey),
        keys: Keys::NONE,
        flags: &["readonly"],
        group: "generic",
        since: "1.0.0",
        summary: "Answers some key; in large databases not all are equally likely.",
        complexity: "O(1)",
    },
    Spec {
        name: "dbsize",
        arity: 1,
        kind: read_kind!(dbsize),
        keys: Keys::NONE,
        flags: &["readonly", "fast"],
        group: "server",
        since: "1.0.0",
        summary: "Answers the number of keys in the selected database.",
        complexity: "O(1)",
    },
    Spec {
        name: "flushdb",
        arity: -1,
        kind: write_kind!(flush_mode, flushdb),
        keys: Keys::NONE,
        flags: &["write"],
        group: "server",
        since: "1.0.0",
        summary: "Deletes all keys of the selected database.",
        complexity: "O(1)",
    },
    Spec {
        name: "flushall",
        arity: -1,
        kind: write_kind!(flush_mode, flushall),
        keys: Keys::NONE,
        flags: &["write"],
        group: "server",
        since: "1.0.0",
        summary: "Deletes all keys of all databases.",
        complexity: "O(1)",
    },
];

fn all_keys(args: &[Bytes]) -> Result<&[Bytes], Reply> {
    Ok(&args[1..])
}

fn delete(keyspace: &mut Keyspace, keys: &[Bytes]) -> Outcome {
    let mut deleted = 0;
    for key in keys {
        if let Some(header) = keyspace.find_header(key)? {
            keyspace.delete(key, &header);
            deleted += 1;
        }
    }
    Ok(Reply::Integer(deleted))
}

fn exists(view: &View, args: &[Bytes]) -> Outcome {
    let mut found = 0;
    for key in &args[1..] {
        found += i64::from(view.find(key)?.is_some());
    }
    Ok(Reply::Integer(found))
}

fn type_of(view: &View, args: &[Bytes]) -> Outcome {
    let stored = view.find(&args[1])?;
    Ok(Reply::Simple(stored.map_or("none", |stored| stored.header.kind.name()).into()))
}

/// Up to this many keys, RANDOMKEY counts to one of them; each is equally likely.
const COUNTED_KEYS_MAX: u64 = 256;

fn randomkey(view: &View, _: &[Bytes]) -> Outcome {
    let mut random = fastrand::Rng::with_seed(view.seed());
    let mut range = KeyRange::all();
    if view.keys() > COUNTED_KEYS_MAX {
        let bounds = (first_key(view, false)?, first_key(view, true)?);
        let (Some(least), Some(greatest)) = bounds else { return Ok(Reply::Null) };
        range.first = between(&least, &greatest, &mut random);
    }
    let mut skip = random.u64(..view.keys().clamp(1, COUNTED_KEYS_MAX));
    let mut found = None;
    // Expired keys count but are not there, and there may be few keys behind a place in between:
    // what is last then must do.
    view.scan(&range, false, &mut |key, _, _| {
        found = Some(Bytes::copy_from_slice(key));
        skip = skip.wrapping_sub(1);
        skip != u64::MAX
    })?;
    Ok(found.map_or(Reply::Null, Reply::Bulk))
}

/// The least key, or the greatest.
fn first_key(view: &View, greatest: bool) -> Result<Option<Bytes>, ReadError> {
    let mut found = None;
    view.scan(&KeyRange::all(), greatest, &mut |key, _, _| {
        found = Some(Bytes::copy_from_slice(key));
        false
    })?;
    Ok(found)
}

/// A byte string that is not above `greatest` and, but for what the two have in common, random.
fn between(least: &[u8], greatest: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let common = least.iter().zip(greatest).take_while(|(one, other)| one == other).count();
    let low = least.get(common).copied().unwrap_or(0);
    let high = greatest.get(common).copied().unwrap_or(u8::MAX);
    let mut key = least[..common].to_vec();
    key.push(random.u8(low..=high));
    key.extend((0..8).map(|_| random.u8(..)));
    if key[..] > *greatest { greatest.to_vec() } else { key }
}

fn dbsize(view: &View, _: &[Bytes]) -> Outcome {
    Ok(Reply::Integer(view.keys() as i64))
}

/// Both modes are the same here: the keys are gone at once, the room is freed later.
fn flush_mode(args: &[Bytes]) -> Result<(), Reply> {
    match &args[1..] {
        [] => Ok(()),
        [mode] if is(mode, "ASYNC") || is(mode, "SYNC") => Ok(()),
        _ => Err(SYNTAX),
    }
}

fn flushdb(keyspace: &mut Keyspace, (): ()) -> Outcome {
    keyspace.flush_database();
    Ok(Reply::OK)
}

fn flushall(keyspace: &mut Keyspace, (): ()) -> Outcome {
    keyspace.flush_all();
    Ok(Reply::OK)
}
