//! What the result of a write may come to, which its arguments' bytes do not tell.
//!
//! A few bytes can ask for a value of 16 MiB, and all results of an entry are in memory together.

use bytes::Bytes;

use super::bits::bit_offset;
use super::parse::{PAIR_BYTES_LIMIT, integer};
use super::table::Spec;

/// No more is gathered into a submission or an entry when the charges reach this many bytes.
pub const ENTRY_CHARGE_MAX: usize = 64 << 20;
/// The commands of one transaction may be charged this many bytes.
pub const TRANSACTION_CHARGE_MAX: usize = 512 << 20;

/// What LZF makes of a byte at most: 264 bytes of 3.
const LZF_FACTOR: usize = 88;

/// The worst case in bytes; 0 where the result is about as long as the arguments. Arity is right.
pub fn charge(spec: &Spec, args: &[Bytes]) -> usize {
    let bytes = match spec.name {
        "setrange" => {
            let offset = integer(&args[2]).and_then(|offset| usize::try_from(offset).ok());
            offset.map_or(0, |offset| offset.saturating_add(args[3].len()))
        }
        "setbit" => bit_offset(&args[2], 0).map_or(0, |offset| (offset / 8 + 1) as usize),
        "restore" => args[3].len().saturating_mul(LZF_FACTOR),
        // APPEND is left out: it is common, and what it rewrites is there already.
        "bitfield" | "bitop" | "copy" | "move" | "rename" | "renamenx" => PAIR_BYTES_LIMIT,
        _ => 0,
    };
    bytes.min(PAIR_BYTES_LIMIT)
}
