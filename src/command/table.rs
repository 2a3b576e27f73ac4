//! The command table: what each command is called, takes and does, as data.
//!
//! The rows stand in the files of the commands' kinds. Arity errors, COMMAND and
//! `docs/commands.md` come from here.

use std::sync::OnceLock;

use bytes::Bytes;
use resp::Reply;

use super::connection::Connection;
use super::{
    assertions, batch, bitfield, bits, charge, compare, connection, counters, discovery, dump,
    expiry, keys, lcs, moving, multiple, object, parse, ranges, scan, server, set, strings,
};
use crate::store::StoreError;
use crate::store::keyspace::{Keyspace, View};

/// Runs a read.
pub type Read = fn(&View, &[Bytes]) -> Result<Reply, StoreError>;
/// Refuses a write that is malformed, before it enters the log. Looks at the arguments only.
pub type Check = fn(&[Bytes]) -> Result<(), Reply>;
/// Runs a write from the log.
pub type Apply = fn(&mut Keyspace, &[Bytes]) -> Result<Reply, StoreError>;

/// Who runs a command.
#[derive(Clone, Copy)]
pub enum Kind {
    /// The master, on a view of the applied state.
    Read(Read),
    /// Every node, from the log.
    Write {
        /// Before it enters the log.
        check: Check,
        /// When it is applied.
        apply: Apply,
    },
    /// The connection's session, on this node alone.
    Connection(Connection),
}

/// Which arguments are keys. All 0: none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Place of the first key; the command's name is at 0.
    pub first: i32,
    /// Place of the last key; negative counts from the end.
    pub last: i32,
    /// From one key to the next.
    pub step: i32,
    /// Place of the argument that says how many keys there are; 0: `last` says it.
    pub counted_at: i32,
}

impl Keys {
    /// No argument is a key.
    pub const NONE: Keys = Keys::range(0, 0, 0);
    /// The first argument.
    pub const FIRST: Keys = Keys::range(1, 1, 1);
    /// The second argument, behind a subcommand.
    pub const SECOND: Keys = Keys::range(2, 2, 1);
    /// The first two arguments.
    pub const FIRST_TWO: Keys = Keys::range(1, 2, 1);
    /// All arguments.
    pub const ALL: Keys = Keys::range(1, -1, 1);
    /// All arguments but the first.
    pub const ALL_BUT_FIRST: Keys = Keys::range(2, -1, 1);
    /// Every second argument: key, value, key, value.
    pub const PAIRS: Keys = Keys::range(1, -1, 2);
    /// A number, then as many pairs of key and value.
    pub const COUNTED_PAIRS: Keys = Keys { first: 2, last: 0, step: 2, counted_at: 1 };

    const fn range(first: i32, last: i32, step: i32) -> Keys {
        Keys { first, last, step, counted_at: 0 }
    }

    /// Place of the last key in this call; before the first when there is none.
    fn last_in(&self, args: &[Bytes]) -> i32 {
        if self.counted_at != 0 {
            let count = args.get(self.counted_at as usize).and_then(|count| parse::integer(count));
            let count = count.unwrap_or(0).clamp(0, args.len() as i64) as i32;
            return self.first + (count - 1) * self.step;
        }
        if self.last < 0 { args.len() as i32 + self.last } else { self.last }
    }
}

/// One row of the table.
#[derive(Clone, Copy)]
pub struct Spec {
    /// In lower case.
    pub name: &'static str,
    /// Number of arguments, the name included; negative: at least as many.
    pub arity: i32,
    /// Who runs it, and how.
    pub kind: Kind,
    /// Its keys.
    pub keys: Keys,
    /// As COMMAND INFO answers them.
    pub flags: &'static [&'static str],
    /// As COMMAND DOCS answers it.
    pub group: &'static str,
    /// The version of Redis that introduced it.
    pub since: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// What it costs.
    pub complexity: &'static str,
}

impl Spec {
    /// Whether it changes the keyspace.
    pub fn is_write(&self) -> bool {
        matches!(self.kind, Kind::Write { .. })
    }

    /// The level that a node must know to apply this call, see [`super::batch`].
    pub fn level(&self, args: &[Bytes]) -> u8 {
        match self.name {
            _ if charge::is_bounded(self, args) || ranges::answers_later(self) => {
                batch::LEVEL_BOUNDED
            }
            "set" => set::level_of_set(args),
            _ => 1,
        }
    }

    /// Refuses a wrong number of arguments.
    pub fn check_arity(&self, args: &[Bytes]) -> Result<(), Reply> {
        let wanted = self.arity.unsigned_abs() as usize;
        let right = if self.arity < 0 { args.len() >= wanted } else { args.len() == wanted };
        if !right {
            return Err(parse::wrong_arity(self.name));
        }
        if args.len() == 1 {
            return Ok(());
        }
        let container = self.subcommands();
        container.map_or(Ok(()), |subcommands| check_subcommand(self.name, subcommands, args))
    }

    /// What its first argument may be, if that says which command it is.
    pub fn subcommands(&self) -> Option<&'static [Subcommand]> {
        // Asked for every command: most are told by their arity.
        if !matches!(self.arity, -1 | -2) {
            return None;
        }
        let container = CONTAINERS.iter().find(|(name, _)| *name == self.name);
        container.map(|(_, subcommands)| *subcommands)
    }

    /// The keys among the arguments of a call whose arity is right.
    pub fn keys_of<'a>(&self, args: &'a [Bytes]) -> impl Iterator<Item = &'a Bytes> + use<'a> {
        let last = self.keys.last_in(args);
        let count = if self.keys.first == 0 { 0 } else { (last + 1 - self.keys.first).max(0) };
        let first = self.keys.first as usize;
        let step = self.keys.step.max(1) as usize;
        args.iter().skip(first).take(count as usize).step_by(step)
    }
}

/// A subcommand's name in lower case, and its arity with the container's name counted.
pub type Subcommand = (&'static str, i32);

/// The commands whose first argument says which command it is. Their arity is -1 or -2.
static CONTAINERS: &[(&str, &[Subcommand])] = &[
    ("client", connection::CLIENT),
    ("cluster", discovery::CLUSTER),
    ("object", object::SUBCOMMANDS),
    ("sentinel", discovery::SENTINEL),
    ("command", server::COMMAND),
    ("config", server::CONFIG),
    ("slowlog", server::SLOWLOG),
    ("latency", server::LATENCY),
    ("memory", server::MEMORY),
    ("module", server::MODULE),
    ("acl", server::ACL),
];

fn check_subcommand(
    container: &str,
    subcommands: &[Subcommand],
    args: &[Bytes],
) -> Result<(), Reply> {
    let found = args.get(1).and_then(|name| subcommands.iter().find(|it| parse::is(name, it.0)));
    let Some((name, arity)) = found else {
        return Err(parse::unknown_subcommand(&container.to_ascii_uppercase(), args));
    };
    let wanted = arity.unsigned_abs() as usize;
    let right = if *arity < 0 { args.len() >= wanted } else { args.len() == wanted };
    if right { Ok(()) } else { Err(parse::wrong_arity(&format!("{container}|{name}"))) }
}

/// A write's kind from its parser and what runs on what was parsed: one parser for check and
/// application, so that they cannot disagree.
macro_rules! write_kind {
    ($parse:path, $run:path) => {
        $crate::command::table::Kind::Write {
            check: |args| $parse(args).map(drop),
            apply: |keyspace, args| match $parse(args) {
                Ok(parsed) => $crate::command::outcome::settle($run(keyspace, parsed)),
                Err(reply) => Ok(reply),
            },
        }
    };
}
pub(crate) use write_kind;

/// A read's kind from its function.
macro_rules! read_kind {
    ($run:path) => {
        $crate::command::table::Kind::Read(|view, args| {
            $crate::command::outcome::settle($run(view, args))
        })
    };
}
pub(crate) use read_kind;

/// All rows, by kind.
pub fn all() -> impl Iterator<Item = &'static Spec> {
    let files = [
        strings::COMMANDS,
        set::COMMANDS,
        multiple::COMMANDS,
        compare::COMMANDS,
        counters::COMMANDS,
        lcs::COMMANDS,
        bits::COMMANDS,
        bitfield::COMMANDS,
        keys::COMMANDS,
        moving::COMMANDS,
        object::COMMANDS,
        dump::COMMANDS,
        ranges::COMMANDS,
        assertions::COMMANDS,
        expiry::COMMANDS,
        scan::COMMANDS,
        connection::COMMANDS,
        server::COMMANDS,
        discovery::COMMANDS,
    ];
    files.into_iter().flatten()
}

/// Longest name a command may have, in bytes.
const NAME_BYTES_MAX: usize = 24;
/// A power of two several times the number of commands, so that probing ends soon.
const PLACES: usize = 512;

static INDEX: OnceLock<Box<[Option<&'static Spec>]>> = OnceLock::new();

/// The command with this name in any case.
pub fn find(name: &[u8]) -> Option<&'static Spec> {
    find_place(name).map(|(_, spec)| spec)
}

/// The command at a place that [`find_place`] answered.
pub fn at(place: usize) -> Option<&'static Spec> {
    INDEX.get_or_init(build_index).get(place).copied().flatten()
}

/// The place of what a call asks for: a subcommand has one of its own, beyond those of commands.
/// `place` is the command's; its arity is right.
pub fn place_of_call(place: usize, spec: &Spec, args: &[Bytes]) -> usize {
    let Some(subcommands) = spec.subcommands() else { return place };
    let mut first = PLACES;
    for (container, others) in CONTAINERS {
        if *container == spec.name {
            let asked = args.get(1);
            let at = asked.and_then(|name| subcommands.iter().position(|it| parse::is(name, it.0)));
            return at.map_or(place, |at| first + at);
        }
        first += others.len();
    }
    place
}

/// How many places there are, those of subcommands included.
pub fn places() -> usize {
    PLACES + CONTAINERS.iter().map(|(_, subcommands)| subcommands.len()).sum::<usize>()
}

/// The full name at a place that [`place_of_call`] answered: `get`, `config|get`.
pub fn name_at(place: usize) -> Option<String> {
    let Some(mut left) = place.checked_sub(PLACES) else {
        return at(place).map(|spec| spec.name.to_owned());
    };
    for (container, subcommands) in CONTAINERS {
        if let Some((name, _)) = subcommands.get(left) {
            return Some(format!("{container}|{name}"));
        }
        left -= subcommands.len();
    }
    None
}

/// As [`find`], with the command's place: the same as long as the process lives.
pub fn find_place(name: &[u8]) -> Option<(usize, &'static Spec)> {
    let index = INDEX.get_or_init(build_index);
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let mut buffer = [0; NAME_BYTES_MAX];
    let lower = &mut buffer[..name.len()];
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let mut place = hash(lower);
    while let Some(spec) = index[place % PLACES] {
        if spec.name.as_bytes() == lower {
            return Some((place % PLACES, spec));
        }
        place += 1;
    }
    None
}

fn build_index() -> Box<[Option<&'static Spec>]> {
    let mut index = vec![None; PLACES].into_boxed_slice();
    for spec in all() {
        assert!(spec.name.len() <= NAME_BYTES_MAX, "{} is too long a name", spec.name);
        let mut place = hash(spec.name.as_bytes());
        while index[place % PLACES].is_some() {
            place += 1;
        }
        index[place % PLACES] = Some(spec);
    }
    index
}

/// FNV-1a, folded.
fn hash(name: &[u8]) -> usize {
    let hash = name
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    (hash ^ (hash >> 16)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_command_in_any_case_and_nothing_else() {
        let mut names = std::collections::BTreeSet::new();
        for spec in all() {
            assert!(names.insert(spec.name), "{} stands there twice", spec.name);
            assert_eq!(spec.name, spec.name.to_ascii_lowercase());
            let upper = spec.name.to_ascii_uppercase();
            assert_eq!(find(upper.as_bytes()).map(|found| found.name), Some(spec.name));
        }
        for name in ["", "ge", "gett", "a name far longer than that of any command"] {
            assert!(find(name.as_bytes()).is_none(), "{name:?}");
        }
    }

    #[test]
    fn every_subcommand_has_a_place_and_its_name() {
        let mut places_seen = std::collections::BTreeSet::new();
        for (container, subcommands) in CONTAINERS {
            let (place, spec) = find_place(container.as_bytes()).expect("it is in the table");
            assert!(spec.subcommands().is_some(), "{container} has arity {}", spec.arity);
            for (name, _) in *subcommands {
                let args = [Bytes::from(*container), Bytes::from(name.to_ascii_uppercase())];
                let place = place_of_call(place, spec, &args);
                assert!((PLACES..places()).contains(&place) && places_seen.insert(place));
                assert_eq!(name_at(place), Some(format!("{container}|{name}")));
            }
        }
        let (place, spec) = find_place(b"get").expect("it is in the table");
        assert_eq!(place_of_call(place, spec, &[Bytes::from("get"), Bytes::from("a")]), place);
        assert_eq!(name_at(place).as_deref(), Some("get"));
        assert_eq!(name_at(places()), None);
    }

    #[test]
    fn flags_say_what_the_kind_says() {
        for spec in all() {
            assert_eq!(spec.flags.contains(&"write"), spec.is_write(), "{}", spec.name);
            let read = matches!(spec.kind, Kind::Read(_));
            // What the node answers itself may be flagged so as well.
            assert!(!read || spec.flags.contains(&"readonly"), "{}", spec.name);
            assert!(!(spec.is_write() && spec.flags.contains(&"readonly")), "{}", spec.name);
        }
    }

    #[test]
    fn keys_are_found_by_their_places() {
        let args: Vec<Bytes> = ["mset", "a", "1", "b", "2"].map(Bytes::from).to_vec();
        let keys: Vec<_> = find(b"mset").unwrap().keys_of(&args).collect();
        assert_eq!(keys, ["a", "b"]);
        assert_eq!(find(b"ping").unwrap().keys_of(&args[..1]).count(), 0);
        assert_eq!(find(b"get").unwrap().keys_of(&args[..2]).collect::<Vec<_>>(), ["a"]);
        let args: Vec<Bytes> =
            ["msetex", "2", "a", "1", "b", "2", "NX", "x"].map(Bytes::from).to_vec();
        let msetex = find(b"msetex").unwrap();
        assert_eq!(msetex.keys_of(&args).collect::<Vec<_>>(), ["a", "b"]);
        for count in ["0", "-1", "x"] {
            let args: Vec<Bytes> = ["msetex", count, "a", "1"].map(Bytes::from).to_vec();
            assert_eq!(msetex.keys_of(&args).count(), 0, "{count}");
        }
    }
}
