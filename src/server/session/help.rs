//! What the subcommands HELP answer.

use resp::Reply;

/// The reply of a subcommand HELP.
pub(super) fn help(lines: &[&'static str]) -> Reply {
    Reply::Array(lines.iter().map(|line| Reply::Simple((*line).into())).collect())
}

pub(super) const ACL: &[&str] = &[
    "ACL <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CAT [<category>]",
    "    Name the categories, or the commands of one.",
    "DRYRUN <username> <command> [<arg> ...]",
    "    Answer whether that user may run the command.",
    "GENPASS [<bits>]",
    "    Make a password.",
    "GETUSER <username>",
    "    Describe a user.",
    "LIST",
    "    Describe all users, one a line.",
    "LOG [<count> | RESET]",
    "    Answer that nothing was denied.",
    "USERS",
    "    Name all users: default.",
    "WHOAMI",
    "    Name this connection's user: default.",
    "HELP",
    "    Print this help.",
];

pub(super) const CONFIG: &[&str] = &[
    "CONFIG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GET <pattern> [<pattern> ...]",
    "    Answer the settings whose names match.",
    "SET <name> <value> [<name> <value> ...]",
    "    Change settings of this node until it stops: all of them, or none.",
    "RESETSTAT",
    "    Begin the numbers of INFO anew.",
    "REWRITE",
    "    Fail: nobody but its owner writes the config file.",
    "HELP",
    "    Print this help.",
];

pub(super) const DEBUG: &[&str] = &[
    "DEBUG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "ERROR <text>",
    "    Answer this error.",
    "LOADAOF",
    "    Do nothing: all that was acknowledged is on disk.",
    "LOG <text>",
    "    Write this to the node's log of events.",
    "OBJECT <key>",
    "    Describe how a key is kept.",
    "PAUSE-CRON (0|1)",
    "    Do nothing; for test suites.",
    "PROTOCOL <type>",
    "    Answer a value of this type.",
    "QUICKLIST-PACKED-THRESHOLD <bytes>",
    "    Do nothing; for test suites.",
    "RELOAD [<option> ...]",
    "    Do nothing: all that was acknowledged is on disk.",
    "SET-ACTIVE-EXPIRE (0|1)",
    "    1: delete expired keys, as always.",
    "SLEEP <seconds>",
    "    Hold this connection up; others go on.",
    "HELP",
    "    Print this help.",
];

pub(super) const LATENCY: &[&str] = &[
    "LATENCY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "DOCTOR",
    "    Say what there is to say about the events.",
    "GRAPH <event>",
    "    Draw the samples of an event.",
    "HISTOGRAM [<command> ...]",
    "    Answer how many calls took less than which time.",
    "HISTORY <event>",
    "    Answer the samples of an event.",
    "LATEST",
    "    Answer the last sample of each event, and the longest.",
    "RESET [<event> ...]",
    "    Forget these events, or all.",
    "HELP",
    "    Print this help.",
];

pub(super) const MEMORY: &[&str] = &[
    "MEMORY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "DOCTOR",
    "    Say whether there is memory enough.",
    "MALLOC-STATS",
    "    Answer that the allocator keeps no statistics.",
    "PURGE",
    "    Do nothing: the allocator gives memory back by itself.",
    "STATS",
    "    Answer what uses memory.",
    "USAGE <key> [SAMPLES <count>]",
    "    Answer the bytes of a key with its value.",
    "HELP",
    "    Print this help.",
];

pub(super) const MODULE: &[&str] = &[
    "MODULE <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "LIST",
    "    Answer that there are none.",
    "HELP",
    "    Print this help.",
];

pub(super) const SLOWLOG: &[&str] = &[
    "SLOWLOG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GET [<count>]",
    "    Answer the newest entries: 10, or so many, or all for -1. Each is a number, the time, the",
    "    duration in microseconds, the arguments, the client's address and its name.",
    "LEN",
    "    Answer how many entries there are.",
    "RESET",
    "    Forget them.",
    "HELP",
    "    Print this help.",
];
