//! What Redis tells about how it keeps a value.
//!
//! Values here have no such representations, no counts of references and no time of last use; the
//! answers are those that Redis gives for a value that was just set.

use bytes::Bytes;
use resp::Reply;

use super::outcome::Outcome;
use super::parse::{integer, is, unknown_subcommand};
use super::table::{Keys, Spec, Subcommand, read_kind};
use crate::store::keyspace::{Stored, Type, View};

/// The rows of this file.
pub static COMMANDS: &[Spec] = &[Spec {
    name: "object",
    arity: -2,
    kind: read_kind!(object),
    keys: Keys::SECOND,
    flags: &["readonly"],
    group: "generic",
    since: "2.2.3",
    summary: "Answers how Redis would keep a value: ENCODING, FREQ, IDLETIME (always 0), REFCOUNT.",
    complexity: "O(1)",
}];

/// What OBJECT can be asked.
pub static SUBCOMMANDS: &[Subcommand] =
    &[("encoding", 3), ("freq", 3), ("help", 2), ("idletime", 3), ("refcount", 3)];

const HELP: [&str; 11] = [
    "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "ENCODING <key>",
    "    Answer how Redis would keep the value at <key> if it were set now.",
    "FREQ <key>",
    "    Fail: how often a key is used is not counted.",
    "IDLETIME <key>",
    "    Answer 0: reads leave no trace.",
    "REFCOUNT <key>",
    "    Answer 1: no value is shared.",
    "HELP",
    "    Print this help.",
];

/// Longest string that Redis keeps beside its object.
const EMBEDDED_BYTES_MAX: usize = 44;

fn object(view: &View, args: &[Bytes]) -> Outcome {
    let subcommand = &args[1];
    let answer: fn(&Stored) -> Reply = match () {
        () if is(subcommand, "HELP") => return Ok(help()),
        () if is(subcommand, "ENCODING") => |stored| Reply::bulk(encoding(stored)),
        () if is(subcommand, "REFCOUNT") => |_| Reply::Integer(1),
        () if is(subcommand, "IDLETIME") => |_| Reply::Integer(0),
        () if is(subcommand, "FREQ") => |_| {
            Reply::error(
                "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please \
                 note that when switching between policies at runtime LRU and LFU data will take \
                 some time to adjust.",
            )
        },
        () => return Err(unknown_subcommand("OBJECT", args).into()),
    };
    Ok(view.find(&args[2])?.as_ref().map_or(Reply::Null, answer))
}

/// As OBJECT ENCODING answers it.
pub fn encoding(stored: &Stored) -> &'static str {
    match stored.header.kind {
        Type::String => {
            let value = stored.content();
            match () {
                () if integer(&value).is_some() => "int",
                () if value.len() <= EMBEDDED_BYTES_MAX => "embstr",
                () => "raw",
            }
        }
    }
}

fn help() -> Reply {
    Reply::Array(HELP.iter().map(|line| Reply::Simple((*line).into())).collect())
}
