//! How each command's arguments are written, for COMMAND DOCS.
//!
//! Small words are values, capitals are tokens; a token stands before the values that belong to it.
//! `[ ]` may be left out, `|` separates what excludes each other, `( )` groups, and `...` behind
//! something: it may come several times. The type of a value follows from its name, or stands
//! behind it after a colon.

/// Names of values that are whole numbers.
const INTEGERS: &[&str] = &[
    "arity",
    "bit",
    "bits",
    "clientid",
    "count",
    "db",
    "decrement",
    "end",
    "increment",
    "index",
    "index1",
    "index2",
    "len",
    "local",
    "maxage",
    "maxlen",
    "milliseconds",
    "numkeys",
    "numreplicas",
    "offset",
    "port",
    "protover",
    "samples",
    "seconds",
    "start",
    "timeout",
    "ttl",
    "value-offset",
    "version",
];

/// The arguments of commands and of parts of containers; those that are left out have none.
const SYNTAX: &[(&str, &str)] = &[
    ("acl|cat", "[category]"),
    ("acl|deluser", "username ..."),
    ("acl|dryrun", "username command [arg ...]"),
    ("acl|genpass", "[bits]"),
    ("acl|getuser", "username"),
    ("acl|log", "[count | RESET]"),
    ("acl|setuser", "username [rule ...]"),
    ("ak.assert", "key (VALUE value | ABSENT | PRESENT | VERSION version:string)"),
    ("ak.assertrange", "first last KEYS count [expected ...]"),
    ("ak.atleast", "index"),
    ("ak.confirm", "key value"),
    ("ak.delprefix", "prefix"),
    ("ak.delrange", "first last"),
    ("ak.mget", "key ..."),
    ("ak.prefix", "prefix [REV] [LIMIT count] [WITHVALUES]"),
    ("ak.range", "first last [REV] [LIMIT count] [WITHVALUES]"),
    ("ak.version", "key"),
    ("append", "key value"),
    ("auth", "[username] password"),
    ("bgsave", "[SCHEDULE]"),
    ("bitcount", "key [start end [BYTE | BIT]]"),
    (
        "bitfield",
        "key [GET encoding offset | [OVERFLOW (WRAP | SAT | FAIL)] (SET encoding offset value:integer | INCRBY encoding offset increment)] ...",
    ),
    ("bitfield_ro", "key [GET encoding offset ...]"),
    ("bitop", "(AND | OR | XOR | NOT) destkey:key key ..."),
    ("bitpos", "key bit [start [end [BYTE | BIT]]]"),
    (
        "client|kill",
        "(ip:port | [ID clientid | TYPE (NORMAL | MASTER | SLAVE | REPLICA | PUBSUB) | USER username | ADDR ip:port | LADDR ip:port | SKIPME (YES | NO) | MAXAGE maxage] ...)",
    ),
    ("client|list", "[TYPE (NORMAL | MASTER | REPLICA | PUBSUB)] [ID clientid ...]"),
    ("client|no-evict", "(ON | OFF)"),
    ("client|no-touch", "(ON | OFF)"),
    ("client|pause", "timeout [WRITE | ALL]"),
    ("client|reply", "(ON | OFF | SKIP)"),
    ("client|setinfo", "(LIB-NAME libname | LIB-VER libver)"),
    ("client|setname", "name"),
    ("client|unblock", "clientid [TIMEOUT | ERROR]"),
    ("command|docs", "[command-name ...]"),
    ("command|getkeys", "command [arg ...]"),
    ("command|getkeysandflags", "command [arg ...]"),
    ("command|info", "[command-name ...]"),
    ("command|list", "[FILTERBY (MODULE name | ACLCAT category | PATTERN pattern)]"),
    ("config|get", "parameter ..."),
    ("config|set", "(parameter value) ..."),
    ("copy", "source:key destination:key [DB db] [REPLACE]"),
    ("decr", "key"),
    ("decrby", "key decrement"),
    ("del", "key ..."),
    ("delex", "key [IFEQ value | IFNE value | IFDEQ digest | IFDNE digest]"),
    ("delifeq", "key value"),
    ("digest", "key"),
    ("dump", "key"),
    ("echo", "message"),
    ("exists", "key ..."),
    ("expire", "key seconds [NX | XX | GT | LT]"),
    ("expireat", "key unix-time-seconds [NX | XX | GT | LT]"),
    ("expiretime", "key"),
    ("flushall", "[ASYNC | SYNC]"),
    ("flushdb", "[ASYNC | SYNC]"),
    ("get", "key"),
    ("getbit", "key offset"),
    ("getdel", "key"),
    (
        "getex",
        "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST]",
    ),
    ("getrange", "key start end"),
    ("getset", "key value"),
    ("hello", "[protover [AUTH username password] [SETNAME clientname]]"),
    ("incr", "key"),
    ("incrby", "key increment"),
    ("incrbyfloat", "key increment:double"),
    ("info", "[section ...]"),
    ("keys", "pattern"),
    ("latency|graph", "event"),
    ("latency|histogram", "[command ...]"),
    ("latency|history", "event"),
    ("latency|reset", "[event ...]"),
    ("lcs", "key1:key key2:key [LEN] [IDX] [MINMATCHLEN len] [WITHMATCHLEN]"),
    ("lolwut", "[VERSION version]"),
    ("memory|usage", "key [SAMPLES count]"),
    ("mget", "key ..."),
    ("module|load", "path [arg ...]"),
    ("module|loadex", "path [CONFIG name value] [ARGS arg ...]"),
    ("module|unload", "name"),
    ("move", "key db"),
    ("mset", "(key value) ..."),
    (
        "msetex",
        "numkeys (key value) ... [NX | XX] [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL]",
    ),
    ("msetnx", "(key value) ..."),
    ("object|encoding", "key"),
    ("object|freq", "key"),
    ("object|idletime", "key"),
    ("object|refcount", "key"),
    ("persist", "key"),
    ("pexpire", "key milliseconds [NX | XX | GT | LT]"),
    ("pexpireat", "key unix-time-milliseconds [NX | XX | GT | LT]"),
    ("pexpiretime", "key"),
    ("ping", "[message]"),
    ("psetex", "key milliseconds value"),
    ("pttl", "key"),
    ("rename", "key newkey:key"),
    ("renamenx", "key newkey:key"),
    ("restore", "key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ count]"),
    ("scan", "cursor:integer [MATCH pattern] [COUNT count] [TYPE type]"),
    ("select", "index"),
    (
        "set",
        "key value [NX | XX | IFEQ value | IFNE value | IFDEQ digest | IFDNE digest] [GET] [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL]",
    ),
    ("setbit", "key offset value:integer"),
    ("setex", "key seconds value"),
    ("setnx", "key value"),
    ("setrange", "key offset value"),
    ("shutdown", "[NOSAVE | SAVE] [NOW] [FORCE] [ABORT]"),
    ("slowlog|get", "[count]"),
    ("strlen", "key"),
    ("substr", "key start end"),
    ("swapdb", "index1 index2"),
    ("touch", "key ..."),
    ("ttl", "key"),
    ("type", "key"),
    ("unlink", "key ..."),
    ("wait", "numreplicas timeout"),
    ("waitaof", "numlocal:integer numreplicas timeout"),
    ("watch", "key ..."),
];

/// What an argument is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A value of this type.
    Value(String),
    /// A word by itself.
    Token,
    /// One of these.
    OneOf(Vec<Argument>),
    /// These together.
    Block(Vec<Argument>),
}

/// One argument, as COMMAND DOCS describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Argument {
    pub(super) name: String,
    pub(super) form: Form,
    pub(super) token: Option<String>,
    pub(super) optional: bool,
    pub(super) multiple: bool,
}

/// The arguments of a command, or of a part of a container by its full name.
pub(super) fn arguments(name: &str) -> Vec<Argument> {
    let found = SYNTAX.iter().find(|(other, _)| *other == name);
    found.map_or(Vec::new(), |(_, text)| parse(text))
}

fn parse(text: &str) -> Vec<Argument> {
    let text = text.replace('[', " [ ").replace(']', " ] ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut at = 0;
    let mut alternatives = alternatives(&words, &mut at);
    assert!(at == words.len() && alternatives.len() == 1, "{text}");
    alternatives.remove(0)
}

/// Up to a closing bracket: what `|` separates.
fn alternatives(words: &[&str], at: &mut usize) -> Vec<Vec<Argument>> {
    let mut all = vec![Vec::new()];
    // The token whose values come next.
    let mut token: Option<(String, Vec<Argument>)> = None;
    loop {
        let word = words.get(*at).copied().unwrap_or("]");
        let ends = matches!(word, "]" | ")" | "|");
        let is_token = word.bytes().any(|byte| byte.is_ascii_uppercase());
        if (ends || is_token || word == "[")
            && let Some((token, values)) = token.take()
        {
            last_of(&mut all).push(with_token(token, values));
        }
        *at += 1;
        match word {
            "]" | ")" => {
                *at = (*at).min(words.len() + 1) - 1;
                return all;
            }
            "|" => all.push(Vec::new()),
            "[" | "(" => {
                let inner = alternatives(words, at);
                *at += 1;
                let mut argument = grouped(inner);
                argument.optional |= word == "[";
                match &mut token {
                    Some((_, values)) => values.push(argument),
                    None => last_of(&mut all).push(argument),
                }
            }
            "..." => {
                let values = token.as_mut().map(|(_, values)| values);
                let of = values.filter(|values| !values.is_empty());
                let of = of.unwrap_or_else(|| last_of(&mut all));
                if let Some(argument) = of.last_mut() {
                    argument.multiple = true;
                }
            }
            word if is_token => token = Some((word.to_owned(), Vec::new())),
            word => match &mut token {
                Some((_, values)) => values.push(value(word)),
                None => last_of(&mut all).push(value(word)),
            },
        }
    }
}

fn last_of(all: &mut [Vec<Argument>]) -> &mut Vec<Argument> {
    all.last_mut().expect("there is one from the start")
}

fn argument(name: String, form: Form) -> Argument {
    Argument { name, form, token: None, optional: false, multiple: false }
}

fn value(word: &str) -> Argument {
    let (name, kind) = match word {
        "ip:port" => (word, "string"),
        _ => word.split_once(':').unwrap_or((word, "")),
    };
    let kind = match kind {
        "" if name == "key" || name == "pattern" => name,
        "" if name.starts_with("unix-time") => "unix-time",
        "" if INTEGERS.contains(&name) => "integer",
        "" => "string",
        kind => kind,
    };
    argument(name.to_owned(), Form::Value(kind.to_owned()))
}

fn with_token(token: String, mut values: Vec<Argument>) -> Argument {
    let name = token.to_ascii_lowercase();
    let mut whole = match values.len() {
        0 => argument(name, Form::Token),
        1 => values.remove(0),
        _ => argument(name, Form::Block(values)),
    };
    whole.token = Some(token);
    whole
}

fn grouped(mut alternatives: Vec<Vec<Argument>>) -> Argument {
    const NAMES_MAX: usize = 3;
    let named = |arguments: &[Argument]| {
        if arguments.len() > NAMES_MAX {
            return "options".to_owned();
        }
        arguments.iter().map(|argument| argument.name.as_str()).collect::<Vec<_>>().join("-")
    };
    if alternatives.len() == 1 {
        let mut only = alternatives.remove(0);
        return match only.len() {
            1 => only.remove(0),
            _ => argument(named(&only), Form::Block(only)),
        };
    }
    let one_of: Vec<Argument> =
        alternatives.into_iter().map(|alternative| grouped(vec![alternative])).collect();
    argument(named(&one_of), Form::OneOf(one_of))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::table;

    #[test]
    fn a_syntax_becomes_arguments() {
        let parsed = parse("key [NX | XX] [LIMIT offset count] (a b) ... [EX seconds]");
        let names: Vec<&str> = parsed.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["key", "nx-xx", "limit", "a-b", "seconds"]);
        assert!(matches!(&parsed[1].form, Form::OneOf(tokens) if tokens.len() == 2));
        assert!(matches!(&parsed[2].form, Form::Block(values) if values.len() == 2));
        assert_eq!(parsed[2].token.as_deref(), Some("LIMIT"));
        assert!(parsed[3].multiple && !parsed[3].optional);
        assert_eq!(parsed[4].form, Form::Value("integer".to_owned()));
        assert!(parsed[4].optional && parsed[4].token.as_deref() == Some("EX"));
    }

    #[test]
    fn every_line_is_of_a_command_and_can_be_parsed() {
        for (name, text) in SYNTAX {
            let command = name.split('|').next().unwrap_or_default();
            assert!(table::find(command.as_bytes()).is_some(), "{name} is not in the table");
            assert!(!parse(text).is_empty(), "{name}");
        }
    }

    #[test]
    fn a_command_that_takes_arguments_says_which() {
        for spec in table::all().filter(|spec| spec.subcommands().is_none()) {
            let takes = spec.arity > 1 || spec.arity < -1;
            let known = !arguments(spec.name).is_empty();
            let told = known || spec.name == "debug" || !takes;
            assert!(told, "{} takes arguments", spec.name);
        }
    }
}
