//! The parts of containers: flags, age and meaning of each subcommand. A part that is not in this
//! table has its container's.

use super::super::table::Spec;

/// A subcommand.
#[derive(Clone, Copy)]
pub(super) struct Part {
    /// Without the container's.
    pub(super) name: &'static str,
    pub(super) arity: i32,
    pub(super) flags: &'static [&'static str],
    pub(super) since: &'static str,
    pub(super) summary: &'static str,
}

type Row = (&'static str, &'static [&'static str], &'static str, &'static str);

const PLAIN: &[&str] = &["noscript", "loading", "stale"];
const ADMIN: &[&str] = &["admin", "noscript", "loading", "stale"];
const ALWAYS: &[&str] = &["loading", "stale"];
const LOADS: &[&str] = &["admin", "noscript", "no_async_loading", "protected"];
const LOGS: &[&str] = &["admin", "loading", "stale"];

/// Full name, flags, the version of Redis that introduced it, one sentence.
const ROWS: &[Row] = &[
    ("acl|cat", PLAIN, "6.0.0", "Names the categories of commands, or the commands of one."),
    ("acl|deluser", ADMIN, "6.0.0", "Fails: the only user stays."),
    ("acl|dryrun", ADMIN, "7.0.0", "Answers whether a user may run a command."),
    ("acl|genpass", PLAIN, "6.0.0", "Answers random hexadecimal digits."),
    ("acl|getuser", ADMIN, "6.0.0", "Describes a user."),
    ("acl|list", ADMIN, "6.0.0", "Describes all users, one a line."),
    ("acl|load", ADMIN, "6.0.0", "Fails: there is no file of users."),
    ("acl|log", ADMIN, "6.0.0", "Answers what was denied: nothing."),
    ("acl|save", ADMIN, "6.0.0", "Fails: there is no file of users."),
    ("acl|setuser", ADMIN, "6.0.0", "Fails: there is only one user."),
    ("acl|users", ADMIN, "6.0.0", "Names all users."),
    ("acl|whoami", PLAIN, "6.0.0", "Names this connection's user."),
    ("client|getname", PLAIN, "2.6.9", "Answers this connection's name."),
    ("client|getredir", PLAIN, "6.0.0", "Answers -1: there is no tracking to redirect."),
    ("client|id", PLAIN, "5.0.0", "Answers this connection's number."),
    ("client|info", PLAIN, "6.2.0", "Describes this connection."),
    ("client|kill", ADMIN, "2.4.0", "Closes connections."),
    ("client|list", ADMIN, "2.4.0", "Describes connections, one a line."),
    ("client|no-evict", ADMIN, "7.0.0", "Sets what LIST shows; no connection is evicted."),
    ("client|no-touch", PLAIN, "7.2.0", "Sets what LIST shows; no read leaves a trace."),
    ("client|pause", ADMIN, "3.0.0", "Holds commands back for a while."),
    ("client|reply", PLAIN, "3.2.0", "Chooses whether this connection is answered."),
    ("client|setinfo", PLAIN, "7.2.0", "Names the client's library."),
    ("client|setname", PLAIN, "2.6.9", "Names this connection."),
    ("client|trackinginfo", PLAIN, "6.2.0", "Answers that there is no tracking."),
    ("client|unblock", ADMIN, "5.0.0", "Ends the waiting of a connection."),
    ("client|unpause", ADMIN, "6.2.0", "Ends CLIENT PAUSE."),
    ("command|count", ALWAYS, "2.8.13", "Answers how many commands there are."),
    ("command|docs", ALWAYS, "7.0.0", "Explains commands."),
    ("command|getkeys", ALWAYS, "2.8.13", "Answers which arguments of a call are keys."),
    (
        "command|getkeysandflags",
        ALWAYS,
        "7.0.0",
        "Answers which arguments of a call are keys, and what becomes of each.",
    ),
    ("command|info", ALWAYS, "2.8.13", "Describes commands."),
    ("command|list", ALWAYS, "7.0.0", "Names commands."),
    ("config|get", ADMIN, "2.0.0", "Answers settings whose names match."),
    ("config|resetstat", ADMIN, "2.0.0", "Begins the numbers of INFO anew."),
    ("config|rewrite", ADMIN, "2.8.0", "Fails: nobody but its owner writes the config file."),
    ("config|set", ADMIN, "2.0.0", "Changes settings until the node stops: all, or none."),
    ("latency|doctor", ADMIN, "2.8.13", "Says what there is to say about slow events."),
    ("latency|graph", ADMIN, "2.8.13", "Draws the samples of an event."),
    ("latency|histogram", ADMIN, "7.0.0", "Answers how many calls took less than which time."),
    ("latency|history", ADMIN, "2.8.13", "Answers the samples of an event."),
    ("latency|latest", ADMIN, "2.8.13", "Answers the last sample of each event."),
    ("latency|reset", ADMIN, "2.8.13", "Forgets events."),
    ("memory|doctor", &[], "4.0.0", "Says whether there is memory enough."),
    ("memory|malloc-stats", &[], "4.0.0", "Answers that the allocator keeps no statistics."),
    ("memory|purge", &[], "4.0.0", "Does nothing: the allocator gives memory back by itself."),
    ("memory|stats", &[], "4.0.0", "Answers what uses memory."),
    ("memory|usage", &["readonly"], "4.0.0", "Answers the bytes of a key with its value."),
    ("module|list", &["admin", "noscript"], "4.0.0", "Answers that there are no modules."),
    ("module|load", LOADS, "4.0.0", "Fails: modules cannot be loaded."),
    ("module|loadex", LOADS, "7.0.0", "Fails: modules cannot be loaded."),
    ("module|unload", LOADS, "4.0.0", "Fails: there are no modules."),
    ("object|encoding", &["readonly"], "2.2.3", "Answers how Redis would keep a value."),
    ("object|freq", &["readonly"], "4.0.0", "Fails: no use of keys is counted."),
    ("object|idletime", &["readonly"], "2.2.3", "Answers 0: reads leave no trace."),
    ("object|refcount", &["readonly"], "2.2.3", "Answers 1 for a key that exists."),
    ("slowlog|get", LOGS, "2.2.12", "Answers the newest slow commands."),
    ("slowlog|len", LOGS, "2.2.12", "Answers how many slow commands are kept."),
    ("slowlog|reset", LOGS, "2.2.12", "Forgets the slow commands."),
];

/// The parts of a container; of another command none.
pub(super) fn parts(spec: &'static Spec) -> impl Iterator<Item = Part> {
    spec.subcommands().unwrap_or_default().iter().map(|(name, arity)| {
        let is_it = |(full, ..): &&Row| {
            let (container, part) = full.split_once('|').unwrap_or_default();
            container == spec.name && part == *name
        };
        let (_, flags, since, summary) = match ROWS.iter().find(is_it) {
            Some(row) => *row,
            None if *name == "help" => ("", ALWAYS, spec.since, "Lists the subcommands."),
            None => ("", spec.flags, spec.since, spec.summary),
        };
        Part { name, arity: *arity, flags, since, summary }
    })
}
