//! Guards: what must hold for a transaction to be run, and what makes it so.
//!
//! In a transaction an assertion that does not hold undoes everything before it, and EXEC answers
//! its error; so does one that answers any other error. A malformed one is not queued. Alone it is
//! a read.

use bytes::Bytes;
use resp::Reply;

use super::outcome::{ASSERT_FAILED, Failure, Outcome};
use super::parse::{SYNTAX, check_pair, integer_argument, is, shown};
use super::ranges::bounds;
use super::strings::string_of;
use super::table::{Keys, Spec, read_kind, write_kind};
use crate::store::keyspace::{KeyRange, Keyspace, Stored, Type, Version, View};

/// The rows of this file.
pub static COMMANDS: &[Spec] = &[
    Spec {
        name: "ak.assert",
        arity: -3,
        kind: read_kind!(assert_key),
        keys: Keys::FIRST,
        flags: &["readonly", "fast"],
        group: "arakoon",
        since: "0.1.0",
        summary: "Fails, and undoes its transaction, unless a key has a VALUE or VERSION, or is PRESENT or ABSENT.",
        complexity: "O(1)",
    },
    Spec {
        name: "ak.assertrange",
        arity: -5,
        kind: read_kind!(assert_range),
        keys: Keys::NONE,
        flags: &["readonly"],
        group: "arakoon",
        since: "0.1.0",
        summary: "Fails, and undoes its transaction, unless exactly these keys are in a range.",
        complexity: "O(N log N), N: the keys given",
    },
    Spec {
        name: "ak.confirm",
        arity: 3,
        kind: write_kind!(key_and_value, confirm),
        keys: Keys::FIRST,
        flags: &["write", "denyoom", "fast"],
        group: "arakoon",
        since: "0.1.0",
        summary: "Sets a key unless it is this string already; then nothing changes, its version neither.",
        complexity: "O(1)",
    },
    Spec {
        name: "ak.mget",
        arity: -2,
        kind: read_kind!(mget),
        keys: Keys::ALL,
        flags: &["readonly", "fast"],
        group: "arakoon",
        since: "0.1.0",
        summary: "Answers the strings at several keys; fails, naming the first, if one is not there.",
        complexity: "O(N), N: the keys",
    },
    Spec {
        name: "ak.version",
        arity: 2,
        kind: read_kind!(version),
        keys: Keys::FIRST,
        flags: &["readonly", "fast"],
        group: "arakoon",
        since: "0.1.0",
        summary: "Answers where in the log a key last changed, as index-place; 0-0: it is not there.",
        complexity: "O(1)",
    },
    Spec {
        name: "ak.nop",
        arity: 1,
        kind: write_kind!(nothing, nop),
        keys: Keys::NONE,
        flags: &["write", "fast"],
        group: "arakoon",
        since: "0.1.0",
        summary: "Does nothing, by way of the log: it answers when a majority has it on disk.",
        complexity: "O(1)",
    },
];

/// Whether a command undoes its transaction when it answers an error, whatever error it is.
pub fn is_assertion(spec: &Spec) -> bool {
    matches!(spec.name, "ak.assert" | "ak.assertrange")
}

/// Refuses an assertion that is malformed, before its transaction is run. Other commands pass.
pub fn check_assertion(spec: &Spec, args: &[Bytes]) -> Result<(), Reply> {
    match spec.name {
        "ak.assert" => Expected::parse(&args[2..]).map(drop),
        "ak.assertrange" => range_of_call(args).map(drop),
        _ => Ok(()),
    }
}

fn failed(key: &[u8]) -> Failure {
    Failure::Refused(Reply::error(format!("{ASSERT_FAILED} {}", shown(key))))
}

enum Expected<'a> {
    Value(&'a Bytes),
    Version(Version),
    Present,
    Absent,
}

impl<'a> Expected<'a> {
    fn parse(args: &'a [Bytes]) -> Result<Expected<'a>, Reply> {
        match args {
            [what] if is(what, "PRESENT") => Ok(Expected::Present),
            [what] if is(what, "ABSENT") => Ok(Expected::Absent),
            [what, value] if is(what, "VALUE") => Ok(Expected::Value(value)),
            [what, version] if is(what, "VERSION") => parse_version(version).map(Expected::Version),
            _ => Err(SYNTAX),
        }
    }
}

/// A version as AK.VERSION answers it.
fn parse_version(text: &[u8]) -> Result<Version, Reply> {
    let invalid = || Reply::error("ERR version is not of the form index-place");
    let text = std::str::from_utf8(text).map_err(|_| invalid())?;
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts = text.split_once('-').filter(|(index, place)| digits(index) && digits(place));
    let (index, place) = parts.ok_or_else(invalid)?;
    let index = index.parse().map_err(|_| invalid())?;
    Ok(Version { index, place: place.parse().map_err(|_| invalid())? })
}

fn assert_key(view: &View, args: &[Bytes]) -> Outcome {
    let key = &args[1];
    let expected = Expected::parse(&args[2..])?;
    let stored = view.find(key)?;
    let holds = match (expected, &stored) {
        (Expected::Present, stored) => stored.is_some(),
        (Expected::Absent, stored) => stored.is_none(),
        (Expected::Value(value), Some(stored)) => {
            stored.header.kind == Type::String && stored.content() == value
        }
        (Expected::Value(_), None) => false,
        (Expected::Version(version), stored) => {
            let found = stored.as_ref().map_or(Version::ABSENT, |stored| stored.header.version);
            found == version
        }
    };
    if holds { Ok(Reply::OK) } else { Err(failed(key)) }
}

fn range_of_call(args: &[Bytes]) -> Result<KeyRange, Reply> {
    let range = bounds(&args[1], &args[2])?;
    let count = integer_argument(&args[4])?;
    match is(&args[3], "KEYS") && usize::try_from(count) == Ok(args.len() - 5) {
        true => Ok(range),
        false => Err(SYNTAX),
    }
}

fn assert_range(view: &View, args: &[Bytes]) -> Outcome {
    let range = range_of_call(args)?;
    let mut expected: Vec<&Bytes> = args[5..].iter().collect();
    expected.sort_unstable();
    expected.dedup();
    // One outside the range cannot be found in it.
    if let Some(outside) = expected.iter().find(|key| !range.contains(key)) {
        return Err(failed(outside));
    }
    let mut expected = expected.into_iter();
    let mut wrong = None;
    view.scan(&range, false, &mut |key, _, _| {
        match expected.next() {
            Some(next) if next == key => (),
            // Either the expected key is missing or the found one is too much: the lower of both.
            Some(next) => wrong = Some(Bytes::copy_from_slice(key.min(next))),
            None => wrong = Some(Bytes::copy_from_slice(key)),
        }
        wrong.is_none()
    })?;
    match wrong.or_else(|| expected.next().cloned()) {
        Some(key) => Err(failed(&key)),
        None => Ok(Reply::OK),
    }
}

fn key_and_value(args: &[Bytes]) -> Result<(&Bytes, &Bytes), Reply> {
    check_pair(&args[1], args[2].len())?;
    Ok((&args[1], &args[2]))
}

fn confirm(keyspace: &mut Keyspace, (key, value): (&Bytes, &Bytes)) -> Outcome {
    let stored = keyspace.find(key)?;
    let same = |stored: &Stored| stored.header.kind == Type::String && stored.content() == value;
    if !stored.as_ref().is_some_and(same) {
        keyspace.put_string(key, value, 0, stored.as_ref().map(|stored| &stored.header));
    }
    Ok(Reply::OK)
}

fn mget(view: &View, args: &[Bytes]) -> Outcome {
    let mut values = Vec::with_capacity(args.len() - 1);
    for key in &args[1..] {
        let stored = view.find(key)?;
        let missing = || Reply::error(format!("ERR no such key: {}", shown(key)));
        let value = string_of(&stored.ok_or_else(missing)?)?;
        view.answer(value.len())?;
        values.push(Reply::Bulk(value));
    }
    Ok(Reply::Array(values))
}

fn version(view: &View, args: &[Bytes]) -> Outcome {
    let Version { index, place } = view.version(&args[1])?;
    Ok(Reply::bulk(format!("{index}-{place}")))
}

fn nothing(_: &[Bytes]) -> Result<(), Reply> {
    Ok(())
}

fn nop(_: &mut Keyspace, (): ()) -> Outcome {
    Ok(Reply::OK)
}
