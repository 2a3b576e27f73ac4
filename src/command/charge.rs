//! What the result of a write may come to, which its arguments' bytes do not tell.
//!
//! A few bytes can ask for a value of 16 MiB, and all results of an entry are in memory together.
//! Where a result depends on the values that are there, the master looks at them before it
//! proposes: that decides how much is gathered into an entry, and may be wrong. What must not fail
//! is decided when the entry is applied, by the same measure, see [`RESULTS_MAX`].

use bytes::Bytes;

use super::bitfield::bytes_written;
use super::bits::bit_offset;
use super::parse::{PAIR_BYTES_LIMIT, integer, is};
use super::table::{Kind, Spec};
use crate::store::keyspace::{ReadError, View};

/// No more is gathered into a submission or an entry when the charges reach this many bytes.
pub const ENTRY_CHARGE_MAX: usize = 64 << 20;
/// The results of one transaction may be this many bytes.
pub const TRANSACTION_CHARGE_MAX: usize = 512 << 20;
/// The results of one entry's items of a level from [`super::batch::LEVEL_BOUNDED`] may be this many
/// bytes; what would exceed it is not done. All nodes must have the same number.
pub const RESULTS_MAX: usize = TRANSACTION_CHARGE_MAX + ENTRY_CHARGE_MAX;
/// The replies to the reads of one transaction in the log may be this many bytes,
pub const TRANSACTION_REPLY_BYTES_MAX: u64 = 64 << 20;
/// and so many in one entry.
pub const ENTRY_REPLY_BYTES_MAX: u64 = 512 << 20;
/// Rows that the reads of one transaction in the log may look at,
pub const TRANSACTION_STEPS_MAX: u64 = 100_000;
/// and so many in one entry.
pub const ENTRY_STEPS_MAX: u64 = 200_000;

/// Rows that one assertion in the log may look at; also those of keys that are gone. Past it the
/// assertion fails. All nodes must have the same number.
pub const ASSERTION_STEPS_MAX: u64 = 100_000;

/// What LZF makes of a byte at most: 264 bytes of 3.
const LZF_FACTOR: usize = 88;
/// What a compressed string begins with, behind its type.
const LZF: u8 = 0xc3;

/// Whether the result can be long because of what is there already.
pub fn depends_on_values(spec: &Spec, args: &[Bytes]) -> bool {
    let names = matches!(
        spec.name,
        "setrange" | "setbit" | "append" | "bitfield" | "bitop" | "copy" | "move" | "rename"
            | "renamenx" | "expire" | "pexpire" | "expireat" | "pexpireat" | "persist" | "getex"
            | "getdel" | "getset"
            // Reads are in the log when they are in a transaction that writes.
            | "get" | "getrange" | "substr" | "dump"
    );
    names || spec.name == "set" && args[3..].iter().any(|option| is(option, "GET"))
}

/// What the arguments alone ask for. Arity is right.
pub fn of_arguments(spec: &Spec, args: &[Bytes]) -> usize {
    let bytes = match spec.name {
        "setrange" if !args[3].is_empty() => {
            let offset = integer(&args[2]).and_then(|offset| usize::try_from(offset).ok());
            offset.map_or(0, |offset| offset.saturating_add(args[3].len()))
        }
        "setbit" => bit_offset(&args[2], 0).map_or(0, |offset| (offset / 8 + 1) as usize),
        "bitfield" => bytes_written(args),
        "restore" if args[3].get(1) == Some(&LZF) => args[3].len().saturating_mul(LZF_FACTOR),
        _ => 0,
    };
    bytes.min(PAIR_BYTES_LIMIT)
}

/// What a command's row and reply come to when it is run on this view, in bytes, but for what is
/// about as long as its arguments. Arity is right.
pub fn of_values(spec: &Spec, args: &[Bytes], view: &View) -> Result<usize, ReadError> {
    let asked = of_arguments(spec, args);
    let size = |key: &Bytes| -> Result<usize, ReadError> {
        Ok(view.find(key)?.map_or(0, |stored| stored.header.size as usize))
    };
    Ok(match spec.name {
        "setrange" | "setbit" => asked.max(size(&args[1])?),
        "bitfield" if asked > 0 => asked.max(size(&args[1])?),
        "bitop" => {
            let mut longest = 0;
            for key in &args[3..] {
                longest = longest.max(size(key)?);
            }
            longest
        }
        // The value is answered and written anew.
        "getex" if args.len() > 2 => 2 * size(&args[1])?,
        _ if depends_on_values(spec, args) => size(&args[1])?,
        _ => asked,
    })
}

/// The same when no view can be had: the worst case.
pub fn worst(spec: &Spec, args: &[Bytes]) -> usize {
    if depends_on_values(spec, args) { PAIR_BYTES_LIMIT } else { of_arguments(spec, args) }
}

/// What a read may answer that names many keys or a range, when it is in the log.
pub fn of_many(spec: &Spec) -> usize {
    let many = matches!(spec.name, "mget" | "ak.mget" | "ak.range" | "ak.prefix" | "keys" | "scan");
    match spec.kind {
        Kind::Read(_) if many => ENTRY_CHARGE_MAX,
        _ => 0,
    }
}

/// Whether a short command can make or answer a long value, over and over: its results are bounded
/// when it is applied. A view from before cannot tell, since others' updates are on their way.
pub fn is_bounded(spec: &Spec, args: &[Bytes]) -> bool {
    spec.is_write() && depends_on_values(spec, args)
}

/// Whether it makes more of a value that a command before it in the same transaction has made.
pub fn multiplies(spec: &Spec, args: &[Bytes]) -> bool {
    matches!(spec.name, "copy" | "bitop") || spec.name == "getex" && args.len() > 2
}
