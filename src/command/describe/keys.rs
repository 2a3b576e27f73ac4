//! What becomes of a command's keys, in the form that came with Redis 7, and tips for clients that
//! spread commands over several servers.

use bytes::Bytes;
use resp::Reply;

use super::super::parse::{integer, is};
use super::super::table::{Keys, Spec};
use super::{pairs, statuses};

type Flags = &'static [&'static str];

/// Some keys of a command, and what becomes of them.
pub(super) struct KeySpec {
    keys: Keys,
    pub(super) flags: Flags,
}

const READ: Flags = &["RO", "access"];
const LOOK: Flags = &["RO"];
const CHANGE: Flags = &["RW", "access", "update"];
const CHANGE_UNSEEN: Flags = &["RW", "update"];
const INSERT: Flags = &["OW", "insert"];
const OVERWRITE: Flags = &["OW", "update"];
const REMOVE: Flags = &["RM", "delete"];
const TAKE: Flags = &["RW", "access", "delete"];

/// How an access differs from what reads and writes do for the most part.
const FLAGS: &[(Flags, &[&str])] = &[
    (&["RW", "insert"], &["append"]),
    (&["RW", "access", "update", "variable_flags"], &["bitfield", "set"]),
    (REMOVE, &["del", "delex", "delifeq", "unlink"]),
    (
        LOOK,
        &[
            "ak.version",
            "exists",
            "memory|usage",
            "object|encoding",
            "object|freq",
            "object|idletime",
            "object|refcount",
            "strlen",
            "touch",
            "type",
            "watch",
        ],
    ),
    (READ, &["bitfield_ro"]),
    (CHANGE_UNSEEN, &["expire", "expireat", "persist", "pexpire", "pexpireat", "setrange"]),
    (TAKE, &["getdel"]),
    (OVERWRITE, &["ak.confirm", "mset", "msetex", "psetex", "restore", "setex"]),
    (INSERT, &["msetnx", "setnx"]),
];

/// Commands whose first key fares otherwise than those behind it.
const FLAGS_OF_TWO: &[(&str, Flags, Flags)] = &[
    ("copy", READ, OVERWRITE),
    ("bitop", OVERWRITE, READ),
    ("rename", TAKE, OVERWRITE),
    ("renamenx", TAKE, INSERT),
];

/// The keys of a part of a container.
pub(super) fn of_part(spec: &Spec, part: &str) -> Keys {
    match (spec.name, part) {
        ("memory", "usage") => Keys::SECOND,
        (_, "help") => Keys::NONE,
        _ => spec.keys,
    }
}

pub(super) fn key_specs(name: &str, keys: Keys, is_write: bool) -> Vec<KeySpec> {
    if keys == Keys::NONE {
        return Vec::new();
    }
    if let Some((_, first, others)) = FLAGS_OF_TWO.iter().find(|(other, ..)| *other == name) {
        let one = Keys { last: keys.first, ..keys };
        let rest = Keys { first: keys.first + 1, ..keys };
        return vec![KeySpec { keys: one, flags: first }, KeySpec { keys: rest, flags: others }];
    }
    let special = FLAGS.iter().find(|(_, names)| names.contains(&name));
    let flags = special.map_or(if is_write { CHANGE } else { READ }, |(flags, _)| flags);
    vec![KeySpec { keys, flags }]
}

impl KeySpec {
    /// Which arguments of a call whose arity is right are these keys.
    pub(super) fn places(&self, call: &[Bytes]) -> Vec<usize> {
        let Keys { first, last, step, counted_at } = self.keys;
        let last = match (counted_at, last) {
            (0, ..0) => call.len() as i32 + last,
            (0, _) => last,
            _ => {
                let count = integer(&call[counted_at as usize]).unwrap_or(0);
                first + (count.clamp(0, call.len() as i64) as i32 - 1) * step
            }
        };
        let places = (first..=last).step_by(step.max(1) as usize).map(|place| place as usize);
        places.filter(|place| *place < call.len()).collect()
    }

    pub(super) fn reply(&self) -> Reply {
        let Keys { first, last, step, counted_at } = self.keys;
        // There, places count from where the search begins, here from the command's name.
        let begin = if counted_at == 0 { first } else { counted_at };
        let last = if last < 0 { last } else { last - first };
        let integer = |number: i32| Reply::Integer(i64::from(number));
        let index = pairs([("index", integer(begin))]);
        let (find, found) = match counted_at {
            0 => {
                let (step, limit) = (integer(step), integer(0));
                let range = [("lastkey", integer(last)), ("keystep", step), ("limit", limit)];
                ("range", pairs(range))
            }
            _ => {
                let (first, step) = (integer(first - counted_at), integer(step));
                let counted = [("keynumidx", integer(0)), ("firstkey", first), ("keystep", step)];
                ("keynum", pairs(counted))
            }
        };
        pairs([
            ("flags", statuses(self.flags)),
            ("begin_search", pairs([("type", Reply::bulk("index")), ("spec", index)])),
            ("find_keys", pairs([("type", Reply::bulk(find)), ("spec", found)])),
        ])
    }
}

/// What a call really does with its keys, where that depends on its options.
pub(super) fn flags_in_call(spec: &Spec, call: &[Bytes], flags: Flags) -> Flags {
    let has = |name: &str| call.iter().skip(2).any(|option| is(option, name));
    match spec.name {
        "set" => {
            let reads = ["GET", "IFEQ", "IFNE", "IFDEQ", "IFDNE"].iter().any(|name| has(name));
            if reads { CHANGE } else { OVERWRITE }
        }
        "bitfield" => {
            if has("SET") || has("INCRBY") {
                CHANGE
            } else {
                READ
            }
        }
        _ => flags,
    }
}

const ALL_NODES: [&str; 2] = ["request_policy:all_nodes", "response_policy:all_succeeded"];
const UNSTABLE: &str = "nondeterministic_output";
const UNORDERED: &str = "nondeterministic_output_order";

/// As Redis tells clients of its own commands.
pub(super) fn tips(name: &str) -> impl Iterator<Item = &'static str> {
    let tips: &'static [&'static str] = match name {
        "client|info" | "client|list" | "dump" | "lastsave" | "pttl" | "ttl" | "time"
        | "object|encoding" | "object|freq" | "object|idletime" | "object|refcount" => &[UNSTABLE],
        "command" | "command|docs" | "command|info" | "command|list" | "module|list" => {
            &[UNORDERED]
        }
        "acl|deluser" | "acl|save" | "acl|setuser" | "client|setinfo" | "client|setname"
        | "config|resetstat" | "config|rewrite" | "config|set" | "slowlog|reset" => &ALL_NODES,
        "dbsize" => &["request_policy:all_shards", "response_policy:agg_sum"],
        "del" | "exists" | "touch" | "unlink" => {
            &["request_policy:multi_shard", "response_policy:agg_sum"]
        }
        "flushall" | "flushdb" | "memory|purge" | "ping" => {
            &["request_policy:all_shards", "response_policy:all_succeeded"]
        }
        "info" | "memory|doctor" | "memory|malloc-stats" | "memory|stats" => {
            &[UNSTABLE, "request_policy:all_shards", "response_policy:special"]
        }
        "keys" => &["request_policy:all_shards", UNORDERED],
        "latency|doctor" | "latency|graph" | "latency|histogram" | "latency|history"
        | "latency|latest" => &[UNSTABLE, "request_policy:all_nodes", "response_policy:special"],
        "latency|reset" => &["request_policy:all_nodes", "response_policy:agg_sum"],
        "mget" => &["request_policy:multi_shard"],
        "mset" => &["request_policy:multi_shard", "response_policy:all_succeeded"],
        "randomkey" => &["request_policy:all_shards", "response_policy:special", UNSTABLE],
        "scan" => &[UNSTABLE, "request_policy:special", "response_policy:special"],
        "slowlog|get" => &["request_policy:all_nodes", UNSTABLE],
        "slowlog|len" => &["request_policy:all_nodes", "response_policy:agg_sum", UNSTABLE],
        "wait" | "waitaof" => &["request_policy:all_shards", "response_policy:agg_min"],
        _ => &[],
    };
    tips.iter().copied()
}
