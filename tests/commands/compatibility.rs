//! The table of all Redis commands in `docs/compatibility.md`: what is done comes from the command
//! table, the rest from here. `UPDATE_PAGES=1 cargo test --test commands` writes it anew.

use std::fmt::Write;

use arakoon::command::table;

/// Names by group: data, not text of Redis' documentation.
const NAMES: &str = include_str!("redis_commands.txt");

const BEGIN: &str = "<!-- The table of commands begins; a test writes it. -->\n";
const END: &str = "<!-- The table of commands ends. -->\n";

/// Of what is not done: whole groups that come later.
const PLANNED_GROUPS: &[(&str, &str)] = &[
    ("geo", "on sorted sets"),
    ("hash", "hashes"),
    ("hyperloglog", "as strings of Redis' format"),
    ("list", "lists, with blocking"),
    ("pubsub", "publish and subscribe"),
    ("scripting", "scripts and functions run from the log"),
    ("set", "sets"),
    ("sorted_set", "sorted sets"),
    ("stream", "streams"),
];

/// Of what is not done: single ones that come later.
const PLANNED: &[(&str, &str)] = &[
    ("client|caching", "tracking"),
    ("client|tracking", "tracking"),
    ("sort", "with lists"),
    ("sort_ro", "with lists"),
];

const MEMBERSHIP: &str = "who belongs to the cluster is in the config file";
const SLOTS: &str = "one master has all hash slots";

/// What will not come, and why.
const NOT_PLANNED: &[(&str, &str)] = &[
    ("cluster|addslots", SLOTS),
    ("cluster|addslotsrange", SLOTS),
    ("cluster|bumpepoch", MEMBERSHIP),
    ("cluster|delslots", SLOTS),
    ("cluster|delslotsrange", SLOTS),
    ("cluster|flushslots", SLOTS),
    ("cluster|forget", MEMBERSHIP),
    ("cluster|meet", MEMBERSHIP),
    ("cluster|replicate", MEMBERSHIP),
    ("cluster|reset", MEMBERSHIP),
    ("cluster|saveconfig", MEMBERSHIP),
    ("cluster|set-config-epoch", MEMBERSHIP),
    ("cluster|setslot", SLOTS),
    ("migrate", "keys stay in their cluster; DUMP and RESTORE move them"),
    ("pfdebug", "for Redis' own tests"),
    ("pfselftest", "for Redis' own tests"),
    ("psync", "nodes have a protocol of their own"),
    ("replconf", "nodes have a protocol of their own"),
    ("replicaof", MEMBERSHIP),
    ("restore-asking", SLOTS),
    ("slaveof", MEMBERSHIP),
    ("sync", "nodes have a protocol of their own"),
];

/// What is done, but not all that Redis does.
const LIMITS: &[(&str, &str)] = &[
    ("acl|deluser", "an error: the only user stays"),
    ("acl|load", "an error: there is no file of users"),
    ("acl|save", "an error: there is no file of users"),
    ("acl|setuser", "an error: there is no other user"),
    ("auth", "as without a password"),
    ("bgrewriteaof", "asks for a head"),
    ("bgsave", "asks for a head"),
    ("client|no-evict", "shown only"),
    ("client|no-touch", "shown only"),
    ("config|rewrite", "an error"),
    ("config|set", "see above"),
    ("debug", "HELP tells what; only where the config file enables it"),
    ("memory|malloc-stats", "answers that there are none"),
    ("memory|purge", "does nothing: the allocator gives memory back by itself"),
    ("module|load", "an error"),
    ("module|loadex", "an error"),
    ("module|unload", "an error"),
    ("object|freq", "an error, as without LFU"),
    ("object|idletime", "0"),
    ("psubscribe", "Sentinel's events; other channels come later"),
    ("punsubscribe", "as PSUBSCRIBE"),
    ("save", "asks for a head and waits for it"),
    ("subscribe", "Sentinel's events; other channels come later"),
    ("unsubscribe", "as SUBSCRIBE"),
];

fn is_done(name: &str) -> bool {
    let (command, part) = name.split_once('|').unwrap_or((name, ""));
    table::find(command.as_bytes()).is_some_and(|spec| {
        part.is_empty()
            || spec.subcommands().unwrap_or_default().iter().any(|(known, _)| *known == part)
    })
}

fn find(rows: &[(&'static str, &'static str)], name: &str) -> Option<&'static str> {
    rows.iter().find(|(other, _)| *other == name).map(|(_, text)| *text)
}

/// Done, planned or not planned, and a note.
fn state(group: &str, name: &str) -> (&'static str, &'static str) {
    if is_done(name) {
        return ("done", find(LIMITS, name).unwrap_or(""));
    }
    if let Some(why) = find(NOT_PLANNED, name) {
        return ("not planned", why);
    }
    let container = name.split('|').next().unwrap_or_default();
    let planned = find(PLANNED, name).or_else(|| find(PLANNED, container));
    let planned = planned.or_else(|| find(PLANNED_GROUPS, group));
    ("planned", planned.unwrap_or_else(|| panic!("{name}: planned, or not planned and why?")))
}

fn groups() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in NAMES.lines().filter(|line| !line.starts_with('#')) {
        match (line.strip_suffix(':'), groups.last_mut()) {
            (Some(group), _) => groups.push((group, Vec::new())),
            (None, Some((_, names))) => names.extend(line.split_whitespace()),
            (None, None) => (),
        }
    }
    groups
}

fn section() -> String {
    let mut text = String::from(BEGIN);
    let all: Vec<&str> = groups()
        .iter()
        .flat_map(|(group, names)| {
            names.iter().map(|name| state(group, name).0).collect::<Vec<_>>()
        })
        .collect();
    let count = |state: &str| all.iter().filter(|other| **other == state).count();
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "\n{} commands, parts of containers counted one by one: {} done, {} planned, {} not \
         planned.\n\n| Command | Group | State | Note |\n|---|---|---|---|\n",
        all.len(),
        count("done"),
        count("planned"),
        count("not planned")
    );
    for (group, names) in groups() {
        for name in names {
            let (state, note) = state(group, name);
            let shown = name.to_ascii_uppercase().replace('|', " ");
            let _ = writeln!(text, "| {shown} | {group} | {state} | {note} |");
        }
    }
    text.push('\n');
    text.push_str(END);
    text
}

#[test]
fn the_page_lists_all_commands_of_redis() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/compatibility.md");
    let found = std::fs::read_to_string(&path).expect("the page is there");
    let begin = found.find(BEGIN).expect("the page has a place for the table");
    let end = found.find(END).expect("the page has an end of the table") + END.len();
    let page = format!("{}{}{}", &found[..begin], section(), &found[end..]);
    if std::env::var_os("UPDATE_PAGES").is_some() {
        std::fs::write(&path, &page).expect("the page can be written");
        return;
    }
    assert!(found == page, "{} is stale: see above how to update", path.display());
}

#[test]
fn every_command_of_ours_that_redis_has_is_listed() {
    let listed: Vec<&str> = groups().into_iter().flat_map(|(_, names)| names).collect();
    for spec in table::all().filter(|spec| spec.group != "arakoon") {
        assert!(listed.contains(&spec.name), "{} is not listed", spec.name);
    }
    for rows in [PLANNED, NOT_PLANNED, LIMITS] {
        for (name, _) in rows {
            assert!(listed.contains(name), "{name} is no command of Redis");
        }
    }
}
