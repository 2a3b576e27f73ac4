//! Comparing a string before something is done to it: the options IFEQ, IFNE, IFDEQ and IFDNE, and
//! deleting under them.
//!
//! A digest is XXH3 with 64 bits over the string's bytes, as 16 hexadecimal digits.

use bytes::Bytes;
use resp::Reply;
use xxhash_rust::xxh3::xxh3_64;

use super::outcome::Outcome;
use super::parse::{is, wrong_arity};
use super::strings::string_of;
use super::table::{Keys, Spec, read_kind, write_kind};
use crate::store::keyspace::{Keyspace, Type, View};

/// The rows of this file.
pub static COMMANDS: &[Spec] = &[
    Spec {
        name: "delifeq",
        arity: 3,
        kind: write_kind!(key_and_value, delifeq),
        keys: Keys::FIRST,
        flags: &["write", "fast"],
        group: "string",
        since: "9.0.0",
        summary: "Deletes a key if its string is this one.",
        complexity: "O(N), N: bytes of the string",
    },
    Spec {
        name: "delex",
        arity: -2,
        kind: write_kind!(DelexCall::parse, delex),
        keys: Keys::FIRST,
        flags: &["write", "fast"],
        group: "string",
        since: "8.4.0",
        summary: "Deletes a key if its string or the string's digest compares as asked.",
        complexity: "O(N), N: bytes of the string",
    },
    Spec {
        name: "digest",
        arity: 2,
        kind: read_kind!(digest),
        keys: Keys::FIRST,
        flags: &["readonly", "fast"],
        group: "string",
        since: "8.4.0",
        summary: "Answers the XXH3 digest of a string, as 16 hexadecimal digits.",
        complexity: "O(N), N: bytes of the string",
    },
];

const DIGEST_DIGITS: usize = 16;

/// How to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CompareKind {
    Equal,
    NotEqual,
    DigestEqual,
    DigestNotEqual,
}

impl CompareKind {
    /// What the option of SET and DELEX with this name means.
    pub fn of_option(option: &[u8]) -> Option<CompareKind> {
        let kinds = [
            ("IFEQ", CompareKind::Equal),
            ("IFNE", CompareKind::NotEqual),
            ("IFDEQ", CompareKind::DigestEqual),
            ("IFDNE", CompareKind::DigestNotEqual),
        ];
        kinds.into_iter().find(|(name, _)| is(option, name)).map(|(_, kind)| kind)
    }
}

/// A comparison with what the client gave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Comparison<'a> {
    pub kind: CompareKind,
    pub operand: &'a Bytes,
}

impl Comparison<'_> {
    /// Whether a string compares as asked. A digest of a wrong length is refused only here, when
    /// there is something to compare it with, as in Redis.
    pub fn holds(&self, value: &[u8]) -> Result<bool, Reply> {
        let equal = match self.kind {
            CompareKind::Equal | CompareKind::NotEqual => value == &self.operand[..],
            CompareKind::DigestEqual | CompareKind::DigestNotEqual => {
                if self.operand.len() != DIGEST_DIGITS {
                    return Err(Reply::error(format!(
                        "ERR must be exactly {DIGEST_DIGITS} hexadecimal characters"
                    )));
                }
                digest_of(value).as_bytes().eq_ignore_ascii_case(self.operand)
            }
        };
        Ok(equal == matches!(self.kind, CompareKind::Equal | CompareKind::DigestEqual))
    }

    /// What a key that does not exist compares as: different from everything.
    pub fn holds_for_none(&self) -> bool {
        matches!(self.kind, CompareKind::NotEqual | CompareKind::DigestNotEqual)
    }
}

fn digest_of(value: &[u8]) -> String {
    format!("{:0DIGEST_DIGITS$x}", xxh3_64(value))
}

fn digest(view: &View, args: &[Bytes]) -> Outcome {
    Ok(match view.find(&args[1])? {
        Some(stored) => Reply::bulk(digest_of(&string_of(&stored)?)),
        None => Reply::Null,
    })
}

fn key_and_value(args: &[Bytes]) -> Result<(&Bytes, &Bytes), Reply> {
    Ok((&args[1], &args[2]))
}

fn delifeq(keyspace: &mut Keyspace, (key, value): (&Bytes, &Bytes)) -> Outcome {
    match keyspace.find(key)? {
        Some(stored) if string_of(&stored)? == value => {
            keyspace.delete(key, &stored.header);
            Ok(Reply::Integer(1))
        }
        _ => Ok(Reply::Integer(0)),
    }
}

struct DelexCall<'a> {
    key: &'a Bytes,
    /// `None`: delete whatever it is. An option that is none is an error only when the key exists.
    condition: Option<(Option<CompareKind>, &'a Bytes)>,
}

impl<'a> DelexCall<'a> {
    fn parse(args: &'a [Bytes]) -> Result<DelexCall<'a>, Reply> {
        match args {
            [_, key] => Ok(DelexCall { key, condition: None }),
            [_, key, option, operand] => {
                let condition = Some((CompareKind::of_option(option), operand));
                Ok(DelexCall { key, condition })
            }
            _ => Err(wrong_arity("delex")),
        }
    }
}

fn delex(keyspace: &mut Keyspace, call: DelexCall) -> Outcome {
    let Some(stored) = keyspace.find(call.key)? else { return Ok(Reply::Integer(0)) };
    if let Some((kind, operand)) = call.condition {
        if stored.header.kind != Type::String {
            return Err(Reply::error(
                "ERR Key should be of string type if conditions are specified",
            )
            .into());
        }
        let invalid = "ERR Invalid condition. Use IFEQ, IFNE, IFDEQ, or IFDNE";
        let kind = kind.ok_or_else(|| Reply::error(invalid))?;
        if !(Comparison { kind, operand }).holds(&stored.content())? {
            return Ok(Reply::Integer(0));
        }
    }
    keyspace.delete(call.key, &stored.header);
    Ok(Reply::Integer(1))
}
