//! The table as clients and readers see it: COMMAND and `docs/commands.md`.

use bytes::Bytes;
use resp::Reply;

use super::parse::{is, wrong_arity};
use super::table::{self, Keys, Kind, Spec};

/// COMMAND, whatever its subcommand.
pub fn command(args: &[Bytes]) -> Reply {
    let Some(subcommand) = args.get(1) else {
        return Reply::Array(table::all().map(info).collect());
    };
    let rest = &args[2..];
    if is(subcommand, "COUNT") {
        return match rest {
            [] => Reply::Integer(table::all().count() as i64),
            _ => wrong_arity("command|count"),
        };
    }
    if is(subcommand, "LIST") {
        return match rest {
            [] => Reply::Array(table::all().map(|spec| Reply::bulk(spec.name)).collect()),
            _ => Reply::error("ERR syntax error"),
        };
    }
    if is(subcommand, "INFO") {
        let one = |name: &Bytes| table::find(name).map_or(Reply::Null, info);
        return Reply::Array(match rest {
            [] => table::all().map(info).collect(),
            names => names.iter().map(one).collect(),
        });
    }
    if is(subcommand, "DOCS") {
        return Reply::Map(match rest {
            [] => table::all().map(docs).collect(),
            names => names.iter().filter_map(|name| table::find(name)).map(docs).collect(),
        });
    }
    if is(subcommand, "GETKEYS") {
        return getkeys(rest);
    }
    let subcommand = String::from_utf8_lossy(subcommand);
    Reply::error(format!("ERR unknown subcommand '{subcommand}'. Try COMMAND HELP."))
}

fn getkeys(call: &[Bytes]) -> Reply {
    if call.len() < 2 {
        return wrong_arity("command|getkeys");
    }
    let Some(spec) = table::find(&call[0]) else {
        return Reply::error("ERR Invalid command specified");
    };
    if spec.keys == Keys::NONE {
        return Reply::error("ERR The command has no key arguments");
    }
    if spec.check_arity(call).is_err() {
        return Reply::error("ERR Invalid number of arguments specified for command");
    }
    Reply::Array(spec.keys_of(call).cloned().map(Reply::Bulk).collect())
}

fn names<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Reply {
    let simple = |name: S| Reply::Simple(name.as_ref().to_owned().into());
    Reply::Set(names.into_iter().map(simple).collect())
}

fn pairs<const N: usize>(pairs: [(&'static str, Reply); N]) -> Reply {
    Reply::Map(pairs.map(|(name, value)| (Reply::bulk(name), value)).to_vec())
}

fn info(spec: &'static Spec) -> Reply {
    // Keys that a number announces have no fixed places.
    let Keys { first, last, step, .. } =
        if spec.keys.counted_at == 0 { spec.keys } else { Keys::NONE };
    let numbers = [first, last, step].map(|number| Reply::Integer(i64::from(number)));
    let [first, last, step] = numbers;
    Reply::Array(vec![
        Reply::bulk(spec.name),
        Reply::Integer(i64::from(spec.arity)),
        names(spec.flags),
        first,
        last,
        step,
        names(categories(spec)),
        Reply::Set(Vec::new()),
        Reply::Set(key_specs(spec)),
        Reply::Set(Vec::new()),
    ])
}

fn categories(spec: &Spec) -> Vec<&'static str> {
    let mut categories = Vec::new();
    match spec.kind {
        Kind::Read(_) => categories.push("@read"),
        Kind::Write { .. } => categories.push("@write"),
        Kind::Connection(_) => (),
    }
    categories.push(match spec.group {
        "string" => "@string",
        "bitmap" => "@bitmap",
        "generic" | "server" | "arakoon" if !matches!(spec.kind, Kind::Connection(_)) => {
            "@keyspace"
        }
        "transactions" => "@transaction",
        _ => "@connection",
    });
    let fast = spec.flags.contains(&"fast");
    categories.push(if fast { "@fast" } else { "@slow" });
    if matches!(spec.name, "keys" | "flushdb" | "flushall" | "config" | "info" | "role") {
        categories.push("@dangerous");
    }
    categories
}

/// Where the keys are, in the form that came with Redis 7.
fn key_specs(spec: &Spec) -> Vec<Reply> {
    let Keys { first, last, step, counted_at } = spec.keys;
    if spec.keys == Keys::NONE {
        return Vec::new();
    }
    // There, places count from where the search begins, here from the command's name.
    let begin = if counted_at == 0 { first } else { counted_at };
    let last = if last < 0 { last } else { last - first };
    let integer = |number: i32| Reply::Integer(i64::from(number));
    let access: &[&str] =
        if spec.is_write() { &["RW", "access", "update"] } else { &["RO", "access"] };
    let index = pairs([("index", integer(begin))]);
    let (find, found) = if counted_at == 0 {
        let range =
            pairs([("lastkey", integer(last)), ("keystep", integer(step)), ("limit", integer(0))]);
        ("range", range)
    } else {
        let first = integer(first - counted_at);
        let counted =
            pairs([("keynumidx", integer(0)), ("firstkey", first), ("keystep", integer(step))]);
        ("keynum", counted)
    };
    vec![pairs([
        ("flags", names(access)),
        ("begin_search", pairs([("type", Reply::bulk("index")), ("spec", index)])),
        ("find_keys", pairs([("type", Reply::bulk(find)), ("spec", found)])),
    ])]
}

fn docs(spec: &'static Spec) -> (Reply, Reply) {
    let docs = pairs([
        ("summary", Reply::bulk(spec.summary)),
        ("since", Reply::bulk(spec.since)),
        ("group", Reply::bulk(spec.group)),
        ("complexity", Reply::bulk(spec.complexity)),
    ]);
    (Reply::bulk(spec.name), docs)
}

/// Arakoon's operations by their old names, and what does the same here.
const OLD_NAMES: &[(&str, &str)] = &[
    ("hello, ping", "PING, HELLO"),
    ("who_master", "AK.MASTER"),
    ("exists, exists_multi", "EXISTS"),
    ("get, multi_get_option", "GET, MGET"),
    ("multi_get", "AK.MGET"),
    ("set", "SET"),
    ("delete", "DEL"),
    ("confirm", "AK.CONFIRM"),
    ("replace", "SET with GET, GETDEL"),
    ("test_and_set", "SET with IFEQ or NX and GET, DELEX with IFEQ"),
    ("assert, assert_exists", "AK.ASSERT with VALUE, ABSENT or PRESENT, in MULTI"),
    ("assert_range", "AK.ASSERTRANGE, in MULTI"),
    ("sequence, synced_sequence", "MULTI and EXEC; every one is synced before it is answered"),
    ("range, range_entries", "AK.RANGE, with WITHVALUES for entries"),
    ("rev_range_entries", "AK.RANGE with REV and WITHVALUES"),
    ("prefix_keys", "AK.PREFIX"),
    ("delete_prefix", "AK.DELPREFIX; AK.DELRANGE for any range"),
    ("nop", "AK.NOP"),
    ("get_txid", "AK.TXID"),
    ("consistency at_least", "READONLY and AK.ATLEAST"),
    ("allow dirty reads", "READONLY"),
    ("expect_progress_possible", "AK.PROGRESS"),
    ("statistics", "AK.STATS, INFO"),
    ("version", "HELLO, INFO"),
    ("user functions", "none"),
];

/// The page `docs/commands.md`; `examples`: a script of Arakoon's own commands with its replies.
pub fn page(examples: &str) -> String {
    let mut page = String::from(
        "# Commands\n\n\
         Made from the command table (`src/command/table.rs`) by\n\
         `UPDATE_PAGES=1 cargo test --test commands`; do not edit by hand.\n\n\
         Arity counts the command's name; a negative one is the least. `log`: goes through the\n\
         replicated log; `read`: answered by the master from its store while its lease holds;\n\
         `node`: answered by the node itself.\n",
    );
    let mut specs: Vec<&Spec> = table::all().collect();
    specs.sort_by_key(|spec| (spec.group, spec.name));
    let mut group = "";
    for spec in specs {
        if spec.group != group {
            group = spec.group;
            page.push_str(&format!(
                "\n## {group}\n\n| Command | Arity | By | What it does | Cost |\n|---|---|---|---|---|\n"
            ));
        }
        let by = match spec.kind {
            Kind::Read(_) => "read",
            Kind::Write { .. } => "log",
            Kind::Connection(_) => "node",
        };
        let Spec { arity, summary, complexity, .. } = spec;
        let name = spec.name.to_ascii_uppercase();
        page.push_str(&format!("| {name} | {arity} | {by} | {summary} | {complexity} |\n"));
    }
    page.push_str("\n## Arakoon's old names\n\n| Arakoon | Here |\n|---|---|\n");
    for (old, new) in OLD_NAMES {
        page.push_str(&format!("| {old} | {new} |\n"));
    }
    page.push_str(
        "\n## Examples of Arakoon's own\n\n\
         A test runs these. Above each line are the commands, below it what they answer: `+` a status,\n\
         `-` an error, `:` a number, in quotes a string, in brackets an array.\n\n```text\n",
    );
    page.push_str(examples);
    page.push_str("```\n");
    page
}
