//! Walking over the keys, in the order of their bytes.
//!
//! SCAN's place in the keyspace is a key, its cursor a number: the session keeps which is which
//! (`server::cursors`). The function here takes and answers [`Place`]s, so that it depends on the
//! arguments and the keyspace alone and may stand in a transaction.

use bytes::{BufMut, Bytes, BytesMut};
use resp::Reply;

use super::glob;
use super::outcome::Outcome;
use super::parse::{SYNTAX, integer_argument, is};
use super::table::{Keys, Spec, read_kind};
use crate::store::keyspace::{KeyRange, View};

/// The rows of this file.
pub static COMMANDS: &[Spec] = &[
    Spec {
        name: "scan",
        arity: -2,
        kind: read_kind!(scan),
        keys: Keys::NONE,
        flags: &["readonly"],
        group: "generic",
        since: "2.8.0",
        summary: "Answers some keys, in order, and a cursor to go on from.",
        complexity: "O(N), N: the keys looked at, at most COUNT",
    },
    Spec {
        name: "keys",
        arity: 2,
        kind: read_kind!(keys),
        keys: Keys::NONE,
        flags: &["readonly"],
        group: "generic",
        since: "1.0.0",
        summary: "Answers all keys that match a pattern, in order.",
        complexity: "O(N), N: the keys that begin as the pattern does",
    },
];

/// How far a SCAN has come. Encoded, it takes the cursor's place among the arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the first key.
    Start,
    /// Behind this key.
    After(Bytes),
}

impl Place {
    /// As an argument: nothing, or `>` and the key.
    pub fn encode(&self) -> Bytes {
        match self {
            Place::Start => Bytes::new(),
            Place::After(key) => {
                let mut argument = BytesMut::with_capacity(1 + key.len());
                argument.put_u8(b'>');
                argument.put_slice(key);
                argument.freeze()
            }
        }
    }

    fn decode(argument: &Bytes) -> Place {
        match argument.is_empty() {
            true => Place::Start,
            false => Place::After(argument.slice(1..)),
        }
    }
}

/// What SCAN answers before its place becomes a cursor: `[next, keys]`, where `next` is null at the
/// end and otherwise the last key looked at.
fn scan(view: &View, args: &[Bytes]) -> Outcome {
    let call = ScanCall::parse(args)?;
    let prefix = call.pattern.map(|pattern| glob::literal_prefix(pattern)).unwrap_or_default();
    let mut range = KeyRange::of_prefix(&prefix);
    if let Place::After(key) = &call.place {
        range = range.after(key);
    }
    let mut looked_at = 0;
    let mut next = None;
    let mut found = Vec::new();
    let mut last = Bytes::new();
    view.scan(&range, false, &mut |key, header, _| {
        if looked_at == call.count {
            next = Some(std::mem::take(&mut last));
            return false;
        }
        looked_at += 1;
        let key_bytes = Bytes::copy_from_slice(key);
        if call.pattern.is_none_or(|pattern| glob::matches(pattern, key))
            && call.kind.is_none_or(|kind| is(kind, header.kind.name()))
        {
            found.push(Reply::Bulk(key_bytes.clone()));
        }
        last = key_bytes;
        true
    })?;
    Ok(Reply::Array(vec![next.map_or(Reply::Null, Reply::Bulk), Reply::Array(found)]))
}

struct ScanCall<'a> {
    place: Place,
    pattern: Option<&'a Bytes>,
    count: usize,
    kind: Option<&'a Bytes>,
}

impl<'a> ScanCall<'a> {
    fn parse(args: &'a [Bytes]) -> Result<ScanCall<'a>, Reply> {
        let place = Place::decode(&args[1]);
        let mut call = ScanCall { place, pattern: None, count: 10, kind: None };
        for option in args[2..].chunks(2) {
            let [name, value] = option else { return Err(SYNTAX) };
            if is(name, "COUNT") {
                let count = integer_argument(value)?;
                if count < 1 {
                    return Err(SYNTAX);
                }
                call.count = usize::try_from(count).unwrap_or(usize::MAX);
            } else if is(name, "MATCH") {
                call.pattern = Some(value);
            } else if is(name, "TYPE") {
                call.kind = Some(value);
            } else {
                return Err(SYNTAX);
            }
        }
        Ok(call)
    }
}

fn keys(view: &View, args: &[Bytes]) -> Outcome {
    let pattern = &args[1];
    let range = KeyRange::of_prefix(&glob::literal_prefix(pattern));
    let mut found = Vec::new();
    view.scan(&range, false, &mut |key, _, _| {
        if glob::matches(pattern, key) {
            found.push(Reply::Bulk(Bytes::copy_from_slice(key)));
        }
        true
    })?;
    Ok(Reply::Array(found))
}
