//! Strings as rows of bits; bit 0 is the highest of the first byte.

use bytes::Bytes;
use resp::Reply;

use super::outcome::Outcome;
use super::parse::{SYNTAX, check_pair, clamped_places, integer, integer_argument, is};
use super::strings::{STRING_BYTES_MAX, string_of};
use super::table::{Keys, Spec, read_kind, write_kind};
use crate::store::keyspace::{Keyspace, View};

/// The rows of this file.
pub static COMMANDS: &[Spec] = &[
    Spec {
        name: "setbit",
        arity: 4,
        kind: write_kind!(SetbitCall::parse, setbit),
        keys: Keys::FIRST,
        flags: &["write", "denyoom"],
        group: "bitmap",
        since: "2.2.0",
        summary: "Sets or clears a bit of a string and answers what it was.",
        complexity: "O(N), N: bytes of the string",
    },
    Spec {
        name: "getbit",
        arity: 3,
        kind: read_kind!(getbit),
        keys: Keys::FIRST,
        flags: &["readonly", "fast"],
        group: "bitmap",
        since: "2.2.0",
        summary: "Answers a bit of a string; those behind its end are 0.",
        complexity: "O(1)",
    },
    Spec {
        name: "bitcount",
        arity: -2,
        kind: read_kind!(bitcount),
        keys: Keys::FIRST,
        flags: &["readonly"],
        group: "bitmap",
        since: "2.6.0",
        summary: "Answers how many bits of a string or of a part of it are set.",
        complexity: "O(N), N: bytes of the part",
    },
    Spec {
        name: "bitpos",
        arity: -3,
        kind: read_kind!(bitpos),
        keys: Keys::FIRST,
        flags: &["readonly"],
        group: "bitmap",
        since: "2.8.7",
        summary: "Answers the place of the first set or clear bit of a string or of a part of it.",
        complexity: "O(N), N: bytes of the part",
    },
    Spec {
        name: "bitop",
        arity: -4,
        kind: write_kind!(BitopCall::parse, bitop),
        keys: Keys::ALL_BUT_FIRST,
        flags: &["write", "denyoom"],
        group: "bitmap",
        since: "2.6.0",
        summary: "Combines strings bit by bit (AND, OR, XOR, NOT) and stores the result.",
        complexity: "O(N), N: bytes of all strings",
    },
];

const OFFSET: Reply =
    Reply::Error(std::borrow::Cow::Borrowed("ERR bit offset is not an integer or out of range"));

/// The place of a bit. `#N` means N times `width`, where `width` is not 0.
pub(super) fn bit_offset(argument: &[u8], width: u32) -> Result<u64, Reply> {
    let (text, factor) = match argument {
        [b'#', text @ ..] if width > 0 => (text, i64::from(width)),
        text => (text, 1),
    };
    let offset = integer(text).and_then(|offset| offset.checked_mul(factor));
    let offset = offset.and_then(|offset| u64::try_from(offset).ok());
    offset.filter(|offset| offset / 8 < STRING_BYTES_MAX).ok_or(OFFSET)
}

struct SetbitCall<'a> {
    key: &'a Bytes,
    offset: u64,
    bit: bool,
}

impl<'a> SetbitCall<'a> {
    fn parse(args: &'a [Bytes]) -> Result<SetbitCall<'a>, Reply> {
        let (key, offset) = (&args[1], bit_offset(&args[2], 0)?);
        let bit = match integer(&args[3]) {
            Some(0) => false,
            Some(1) => true,
            _ => return Err(Reply::error("ERR bit is not an integer or out of range")),
        };
        check_pair(key, (offset / 8 + 1) as usize)?;
        Ok(SetbitCall { key, offset, bit })
    }
}

fn setbit(keyspace: &mut Keyspace, call: SetbitCall) -> Outcome {
    let stored = keyspace.find(call.key)?;
    let old = stored.as_ref().map(string_of).transpose()?.unwrap_or_default();
    let mut value = old.to_vec();
    let (byte, mask) = ((call.offset / 8) as usize, 0x80 >> (call.offset % 8));
    value.resize(value.len().max(byte + 1), 0);
    let was = value[byte] & mask != 0;
    if was != call.bit || value.len() != old.len() {
        value[byte] = if call.bit { value[byte] | mask } else { value[byte] & !mask };
        let header = stored.as_ref().map(|stored| &stored.header);
        let deadline_ms = header.map_or(0, |header| header.deadline_ms);
        keyspace.put_string(call.key, &value, deadline_ms, header);
    }
    Ok(Reply::Integer(i64::from(was)))
}

fn getbit(view: &View, args: &[Bytes]) -> Outcome {
    let offset = bit_offset(&args[2], 0)?;
    let Some(stored) = view.find(&args[1])? else { return Ok(Reply::Integer(0)) };
    let value = string_of(&stored)?;
    let byte = value.get((offset / 8) as usize).copied().unwrap_or(0);
    Ok(Reply::Integer(i64::from(byte >> (7 - offset % 8) & 1)))
}

/// The unit of a range: `true` for BIT, `false` for BYTE.
fn counts_bits(unit: &[u8]) -> Result<bool, Reply> {
    match () {
        () if is(unit, "BIT") => Ok(true),
        () if is(unit, "BYTE") => Ok(false),
        () => Err(SYNTAX),
    }
}

/// The first and last bit of a range in bits or bytes.
fn bit_range(value: &[u8], (first, last, in_bits): (i64, i64, bool)) -> Option<(u64, u64)> {
    let bytes = value.len() as u64;
    match in_bits {
        true => clamped_places(first, last, bytes * 8),
        false => clamped_places(first, last, bytes).map(|(first, last)| (first * 8, last * 8 + 7)),
    }
}

/// The bytes that hold these bits, with all bits beside them as `outside` says.
fn masked(value: &[u8], first: u64, last: u64, outside: bool) -> impl Iterator<Item = u8> {
    let (first_byte, last_byte) = ((first / 8) as usize, (last / 8) as usize);
    value[first_byte..=last_byte].iter().enumerate().map(move |(place, byte)| {
        let mut mask = 0xff;
        if place == 0 {
            mask &= 0xff_u8 >> (first % 8);
        }
        if first_byte + place == last_byte {
            mask &= 0xff_u8 << (7 - last % 8);
        }
        if outside { byte | !mask } else { byte & mask }
    })
}

fn bitcount(view: &View, args: &[Bytes]) -> Outcome {
    // Before the range is looked at, as in Redis 7.2.
    let Some(stored) = view.find(&args[1])? else { return Ok(Reply::Integer(0)) };
    let value = string_of(&stored)?;
    let range = match &args[2..] {
        [] => (0, -1, false),
        [first, last, unit @ ..] if unit.len() < 2 => {
            let (first, last) = (integer_argument(first)?, integer_argument(last)?);
            // Before the unit is looked at, too.
            if first < 0 && last < 0 && first > last {
                return Ok(Reply::Integer(0));
            }
            let in_bits = unit.first().map(|unit| counts_bits(unit)).transpose()?;
            (first, last, in_bits.unwrap_or(false))
        }
        _ => return Err(SYNTAX.into()),
    };
    let Some((first, last)) = bit_range(&value, range) else {
        return Ok(Reply::Integer(0));
    };
    let ones = masked(&value, first, last, false).map(|byte| i64::from(byte.count_ones())).sum();
    Ok(Reply::Integer(ones))
}

fn bitpos(view: &View, args: &[Bytes]) -> Outcome {
    let bit = match integer_argument(&args[2])? {
        0 => false,
        1 => true,
        _ => return Err(Reply::error("ERR The bit argument must be 1 or 0.").into()),
    };
    let Some(stored) = view.find(&args[1])? else {
        return Ok(Reply::Integer(if bit { -1 } else { 0 }));
    };
    let value = string_of(&stored)?;
    let (range, has_end) = match &args[3..] {
        [] => ((0, -1, false), false),
        [first] => ((integer_argument(first)?, -1, false), false),
        [first, last, unit @ ..] if unit.len() < 2 => {
            let first = integer_argument(first)?;
            let in_bits = unit.first().map(|unit| counts_bits(unit)).transpose()?;
            ((first, integer_argument(last)?, in_bits.unwrap_or(false)), true)
        }
        _ => return Err(SYNTAX.into()),
    };
    let Some((first, last)) = bit_range(&value, range) else {
        return Ok(Reply::Integer(-1));
    };
    let wanted = |byte: u8| if bit { byte } else { !byte };
    let mut bytes = masked(&value, first, last, !bit).map(wanted).enumerate();
    let found = bytes.find(|(_, byte)| *byte != 0);
    Ok(Reply::Integer(match found {
        Some((place, byte)) => {
            (first / 8 + place as u64) as i64 * 8 + i64::from(byte.leading_zeros())
        }
        // Without an end the string counts as followed by zeros without end.
        None if !bit && !has_end => value.len() as i64 * 8,
        None => -1,
    }))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    And,
    Or,
    Xor,
    Not,
}

struct BitopCall<'a> {
    operation: Operation,
    destination: &'a Bytes,
    sources: &'a [Bytes],
}

impl<'a> BitopCall<'a> {
    fn parse(args: &'a [Bytes]) -> Result<BitopCall<'a>, Reply> {
        let operation = match () {
            () if is(&args[1], "AND") => Operation::And,
            () if is(&args[1], "OR") => Operation::Or,
            () if is(&args[1], "XOR") => Operation::Xor,
            () if is(&args[1], "NOT") => Operation::Not,
            () => return Err(SYNTAX),
        };
        if operation == Operation::Not && args.len() != 4 {
            let text = "ERR BITOP NOT must be called with a single source key.";
            return Err(Reply::error(text));
        }
        Ok(BitopCall { operation, destination: &args[2], sources: &args[3..] })
    }
}

fn bitop(keyspace: &mut Keyspace, call: BitopCall) -> Outcome {
    let mut sources = Vec::with_capacity(call.sources.len());
    for key in call.sources {
        let stored = keyspace.find(key)?;
        sources.push(stored.as_ref().map(string_of).transpose()?.unwrap_or_default());
    }
    let longest = sources.iter().map(Bytes::len).max().unwrap_or(0);
    check_pair(call.destination, longest)?;
    let old = keyspace.find(call.destination)?.map(|stored| stored.header);
    if longest == 0 {
        if let Some(old) = old {
            keyspace.delete(call.destination, &old);
        }
        return Ok(Reply::Integer(0));
    }
    // Shorter strings count as followed by zeros.
    let mut result = sources[0].to_vec();
    result.resize(longest, 0);
    for source in &sources[1..] {
        for (place, byte) in result.iter_mut().enumerate() {
            let other = source.get(place).copied().unwrap_or(0);
            *byte = match call.operation {
                Operation::And => *byte & other,
                Operation::Or => *byte | other,
                Operation::Xor | Operation::Not => *byte ^ other,
            };
        }
    }
    if call.operation == Operation::Not {
        result.iter_mut().for_each(|byte| *byte = !*byte);
    }
    keyspace.put_string(call.destination, &result, 0, old.as_ref());
    Ok(Reply::Integer(longest as i64))
}
