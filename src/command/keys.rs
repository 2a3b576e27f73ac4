//! Keys of any type: existence, deletion, whole databases.

use bytes::Bytes;
use resp::Reply;

use super::outcome::Outcome;
use super::parse::{SYNTAX, is};
use super::table::{Keys, Spec, read_kind, write_kind};
use crate::store::keyspace::{Keyspace, View};

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
        if let Some(stored) = keyspace.find(key)? {
            keyspace.delete(key, &stored.header);
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
