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

/// Rows that a SCAN looks at although it is asked for fewer keys: where many were deleted or are
/// expired and their rows are still there, a page may be empty, but the pages do not get many.
const ROWS_MIN: usize = 1000;
/// So many places of a pattern in a key are tried in one step of an allowance.
const PLACES_OF_STEP: u64 = 1024;

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
    let mut found = Vec::new();
    let rows_max = call.count.max(ROWS_MIN);
    let next = view.scan_some(&range, rows_max, &mut |key, header, _| {
        if looked_at == call.count {
            return false;
        }
        looked_at += 1;
        if call.kind.is_none_or(|kind| is(kind, header.kind.name()))
            && call.pattern.is_none_or(|pattern| matches(view, pattern, key))
            && view.answer(key.len()).is_ok()
        {
            found.push(Reply::Bulk(Bytes::copy_from_slice(key)));
        }
        view.exceeded().is_none()
    })?;
    Ok(Reply::Array(vec![next.map_or(Reply::Null, Reply::Bulk), Reply::Array(found)]))
}

/// Whether a key matches, at a price: a long pattern can take long.
fn matches(view: &View, pattern: &[u8], key: &[u8]) -> bool {
    let steps = (pattern.len() as u64).saturating_mul(key.len() as u64) / PLACES_OF_STEP;
    view.spend(steps).is_ok() && glob::matches(pattern, key)
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
        if matches(view, pattern, key) && view.answer(key.len()).is_ok() {
            found.push(Reply::Bulk(Bytes::copy_from_slice(key)));
        }
        view.exceeded().is_none()
    })?;
    Ok(Reply::Array(found))
}
