//! The table as clients see it: COMMAND.
//!
//! What every command has stands in its row. What only COMMAND tells is here: the parts of
//! containers (`parts`), which keys are read or written and tips for clients (`keys`), and how
//! arguments are written (`syntax`).

mod docs;
mod keys;
mod parts;
mod syntax;

use bytes::Bytes;
use resp::Reply;

use self::keys::{KeySpec, key_specs};
use self::parts::{Part, parts};
use super::glob;
use super::parse::{SYNTAX, is};
use super::table::{self, Keys, Kind, Spec};

const HELP: [&str; 17] = [
    "COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "(no subcommand)",
    "    Describe all commands.",
    "COUNT",
    "    Answer how many commands there are.",
    "DOCS [<command-name> ...]",
    "    Explain these commands, or all.",
    "GETKEYS <full-command>",
    "    Answer which arguments of a call are keys.",
    "GETKEYSANDFLAGS <full-command>",
    "    The same, and what becomes of each key.",
    "INFO [<command-name> ...]",
    "    Describe these commands, or all.",
    "LIST [FILTERBY (MODULE <name>|ACLCAT <category>|PATTERN <pattern>)]",
    "    Name all commands, or those that the filter picks.",
    "HELP",
    "    Print this help.",
];

/// All categories that Redis sorts commands into, in its order.
pub const CATEGORIES: [&str; 21] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

/// COMMAND, whatever its subcommand. The table has checked that and its arity.
pub fn command(args: &[Bytes]) -> Reply {
    let Some(subcommand) = args.get(1) else {
        return Reply::Array(table::all().map(info).collect());
    };
    let rest = &args[2..];
    let name = String::from_utf8_lossy(subcommand).to_ascii_lowercase();
    match name.as_str() {
        "count" => Reply::Integer(table::all().count() as i64),
        "list" => list(rest),
        "info" if rest.is_empty() => Reply::Array(table::all().map(info).collect()),
        "info" => Reply::Array(rest.iter().map(info_of).collect()),
        "docs" if rest.is_empty() => Reply::Map(table::all().map(docs::docs).collect()),
        "docs" => Reply::Map(rest.iter().filter_map(docs::docs_of).collect()),
        "getkeys" => getkeys(rest, |_, key, _| Reply::Bulk(key.clone())),
        "getkeysandflags" => getkeys(rest, |spec, key, flags| {
            let flags = keys::flags_in_call(spec, rest, flags);
            Reply::Array(vec![Reply::Bulk(key.clone()), statuses(flags)])
        }),
        _ => help(),
    }
}

fn help() -> Reply {
    Reply::Array(HELP.iter().map(|line| Reply::Simple((*line).into())).collect())
}

/// A command, or a part of a container: `get`, `config|get`.
#[derive(Clone, Copy)]
enum Named {
    Whole(&'static Spec),
    Part(&'static Spec, Part),
}

impl Named {
    fn find(name: &[u8]) -> Option<Named> {
        let Some(at) = name.iter().position(|byte| *byte == b'|') else {
            return table::find(name).map(Named::Whole);
        };
        let spec = table::find(&name[..at])?;
        let part = parts(spec).find(|part| is(&name[at + 1..], part.name))?;
        Some(Named::Part(spec, part))
    }

    fn all() -> impl Iterator<Item = Named> {
        table::all().flat_map(|spec| {
            [Named::Whole(spec)]
                .into_iter()
                .chain(parts(spec).map(move |part| Named::Part(spec, part)))
        })
    }

    fn full_name(&self) -> String {
        match self {
            Named::Whole(spec) => spec.name.to_owned(),
            Named::Part(spec, part) => format!("{}|{}", spec.name, part.name),
        }
    }

    fn arity(&self) -> i32 {
        match self {
            Named::Whole(spec) => spec.arity,
            Named::Part(_, part) => part.arity,
        }
    }

    fn flags(&self) -> &'static [&'static str] {
        match self {
            Named::Whole(spec) => spec.flags,
            Named::Part(_, part) => part.flags,
        }
    }

    fn spec(&self) -> &'static Spec {
        match self {
            Named::Whole(spec) | Named::Part(spec, _) => spec,
        }
    }

    /// A container has no keys itself: its parts may.
    fn keys(&self) -> Keys {
        match self {
            Named::Whole(spec) if spec.subcommands().is_some() => Keys::NONE,
            Named::Whole(spec) => spec.keys,
            Named::Part(spec, part) => keys::of_part(spec, part.name),
        }
    }

    fn key_specs(&self) -> Vec<KeySpec> {
        key_specs(&self.full_name(), self.keys(), self.spec().is_write())
    }

    /// Implied by flags, by group, and a few that nothing implies; in Redis' order.
    fn categories(&self) -> Vec<&'static str> {
        let (spec, name, flags) = (self.spec(), self.full_name(), self.flags());
        let container = matches!(self, Named::Whole(spec) if spec.subcommands().is_some());
        let by_node = matches!(spec.kind, Kind::Connection(_));
        let group = match (spec.name, spec.group) {
            ("command", _) => "connection",
            _ if container => "",
            ("wait" | "waitaof", _) | (_, "connection" | "cluster") => "connection",
            (_, "string") => "string",
            (_, "bitmap") => "bitmap",
            (_, "transactions") => "transaction",
            (_, "arakoon") if by_node => "connection",
            ("dbsize" | "flushall" | "flushdb" | "swapdb", _) | (_, "generic" | "arakoon") => {
                "keyspace"
            }
            _ => "",
        };
        let dangerous = ["flushall", "flushdb", "info", "keys", "lastsave", "restore", "role"];
        let more = ["swapdb", "ak.delrange", "ak.delprefix"];
        let admin = flags.contains(&"admin") || ["lastsave", "role"].contains(&spec.name);
        let has = |category: &str| match category {
            "read" => flags.contains(&"readonly"),
            "write" => flags.contains(&"write"),
            "admin" => admin,
            "fast" => flags.contains(&"fast"),
            "slow" => !flags.contains(&"fast"),
            "dangerous" => admin || dangerous.contains(&&*name) || more.contains(&&*name),
            category => category == group,
        };
        CATEGORIES.into_iter().filter(|category| has(category)).collect()
    }
}

/// Whether a call is an administrator's: MONITOR does not show it.
pub fn is_administration(spec: &'static Spec, args: &[Bytes]) -> bool {
    let part = args.get(1).filter(|_| spec.subcommands().is_some());
    let part = part.and_then(|name| parts(spec).find(|part| is(name, part.name)));
    part.map_or(spec.flags, |part| part.flags).contains(&"admin")
}

fn list(rest: &[Bytes]) -> Reply {
    let (by, value) = match rest {
        [] => return names_where(|_| true),
        [option, by, value] if is(option, "FILTERBY") => (by, value),
        _ => return SYNTAX,
    };
    match () {
        // There are none.
        () if is(by, "MODULE") => Reply::Array(Vec::new()),
        () if is(by, "ACLCAT") => {
            list_category(&String::from_utf8_lossy(value).to_ascii_lowercase())
        }
        () if is(by, "PATTERN") => {
            let pattern = value.to_ascii_lowercase();
            names_where(|named| glob::matches_name(&pattern, &named.full_name()))
        }
        () => SYNTAX,
    }
}

/// The names of all commands of a category, without its `@`.
pub fn list_category(category: &str) -> Reply {
    names_where(|named| named.categories().contains(&category))
}

fn names_where(picks: impl Fn(&Named) -> bool) -> Reply {
    Reply::Array(Named::all().filter(picks).map(|it| Reply::bulk(it.full_name())).collect())
}

fn getkeys(
    call: &[Bytes],
    describe: impl Fn(&Spec, &Bytes, &'static [&'static str]) -> Reply,
) -> Reply {
    let Some(spec) = table::find(&call[0]) else {
        return Reply::error("ERR Invalid command specified");
    };
    let named = match (spec.subcommands(), call.get(1)) {
        (Some(_), Some(part)) => {
            let part = parts(spec).find(|it| is(part, it.name));
            let Some(part) = part else {
                return Reply::error("ERR Invalid command specified");
            };
            Named::Part(spec, part)
        }
        _ => Named::Whole(spec),
    };
    if named.keys() == Keys::NONE {
        return Reply::error("ERR The command has no key arguments");
    }
    if spec.check_arity(call).is_err() {
        return Reply::error("ERR Invalid number of arguments specified for command");
    }
    let mut found = Vec::new();
    for key_spec in named.key_specs() {
        for place in key_spec.places(call) {
            found.push(describe(spec, &call[place], key_spec.flags));
        }
    }
    match found.is_empty() {
        true => Reply::error("ERR Invalid arguments specified for command"),
        false => Reply::Array(found),
    }
}

fn statuses<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Reply {
    let simple = |name: S| Reply::Simple(name.as_ref().to_owned().into());
    Reply::Set(names.into_iter().map(simple).collect())
}

fn pairs<const N: usize>(pairs: [(&'static str, Reply); N]) -> Reply {
    Reply::Map(pairs.map(|(name, value)| (Reply::bulk(name), value)).to_vec())
}

fn info_of(name: &Bytes) -> Reply {
    Named::find(name).map_or(Reply::Null, |named| match named {
        Named::Whole(spec) => info(spec),
        Named::Part(..) => info_of_named(named),
    })
}

fn info(spec: &'static Spec) -> Reply {
    info_of_named(Named::Whole(spec))
}

fn info_of_named(named: Named) -> Reply {
    let keys = named.keys();
    let counted = keys.counted_at != 0;
    // Keys that a number announces have no fixed places.
    let Keys { first, last, step, .. } = if counted { Keys::NONE } else { keys };
    let [first, last, step] = [first, last, step].map(|it| Reply::Integer(i64::from(it)));
    let subcommands = match named {
        Named::Whole(spec) => {
            parts(spec).map(|part| info_of_named(Named::Part(spec, part))).collect()
        }
        Named::Part(..) => Vec::new(),
    };
    let movable = (counted && !named.flags().contains(&"movablekeys")).then_some("movablekeys");
    let categories = named.categories().into_iter().map(|category| format!("@{category}"));
    Reply::Array(vec![
        Reply::bulk(named.full_name()),
        Reply::Integer(i64::from(named.arity())),
        statuses(named.flags().iter().copied().chain(movable)),
        first,
        last,
        step,
        statuses(categories),
        Reply::Set(keys::tips(&named.full_name()).map(Reply::bulk).collect()),
        Reply::Set(named.key_specs().iter().map(KeySpec::reply).collect()),
        Reply::Set(subcommands),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_container_is_explained() {
        for spec in table::all() {
            for part in parts(spec) {
                assert!(!part.summary.is_empty(), "{}|{}", spec.name, part.name);
                assert!(part.summary.ends_with('.'), "{}", part.summary);
            }
        }
    }

    #[test]
    fn keys_of_specs_are_the_keys_of_the_row() {
        let call = |line: &str| -> Vec<Bytes> {
            line.split(' ').map(|word| Bytes::from(word.to_owned())).collect()
        };
        for line in ["mset a 1 b 2", "copy a b", "bitop and a b c", "get a", "del a b", "echo a"] {
            let call = call(line);
            let spec = table::find(&call[0]).expect("it is in the table");
            let specs = Named::Whole(spec).key_specs();
            let mut places: Vec<usize> = specs.iter().flat_map(|it| it.places(&call)).collect();
            places.sort_unstable();
            let keys: Vec<&Bytes> = places.iter().map(|place| &call[*place]).collect();
            assert_eq!(keys, spec.keys_of(&call).collect::<Vec<_>>(), "{line}");
        }
    }
}
