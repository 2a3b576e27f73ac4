//! Strings as rows of numbers of any width, at any bit.

use bytes::Bytes;
use resp::Reply;

use super::bits::bit_offset;
use super::outcome::Outcome;
use super::parse::{SYNTAX, check_pair, integer, integer_argument, is};
use super::strings::string_of;
use super::table::{Keys, Spec, read_kind, write_kind};
use crate::store::keyspace::{Keyspace, View};

/// The rows of this file.
pub static COMMANDS: &[Spec] = &[
    Spec {
        name: "bitfield",
        arity: -2,
        kind: write_kind!(BitfieldCall::parse, bitfield),
        keys: Keys::FIRST,
        flags: &["write", "denyoom"],
        group: "bitmap",
        since: "3.2.0",
        summary: "Reads, sets and adds to numbers of any width in a string (GET, SET, INCRBY).",
        complexity: "O(N), N: bytes of the string",
    },
    Spec {
        name: "bitfield_ro",
        arity: -2,
        kind: read_kind!(bitfield_ro),
        keys: Keys::FIRST,
        flags: &["readonly", "fast"],
        group: "bitmap",
        since: "6.0.0",
        summary: "Reads numbers of any width in a string (GET).",
        complexity: "O(N), N: the numbers",
    },
];

/// What to do with a number that does not fit.
#[derive(Clone, Copy)]
enum Overflow {
    /// Keep its lower bits.
    Wrap,
    /// Take the nearest that fits.
    Saturate,
    /// Do nothing and answer null.
    Fail,
}

/// Where a number is and how it is written.
#[derive(Clone, Copy)]
struct Field {
    signed: bool,
    /// 1 to 64, for unsigned ones to 63.
    bits: u32,
    /// Place of its first bit.
    offset: u64,
}

#[derive(Clone, Copy)]
enum Operation {
    Get,
    Set(i64, Overflow),
    Add(i64, Overflow),
}

struct BitfieldCall<'a> {
    key: &'a Bytes,
    operations: Vec<(Field, Operation)>,
    /// Bytes that the string must have for what is written; 0: nothing is.
    bytes: usize,
}

impl<'a> BitfieldCall<'a> {
    fn parse(args: &'a [Bytes]) -> Result<BitfieldCall<'a>, Reply> {
        let mut call = BitfieldCall { key: &args[1], operations: Vec::new(), bytes: 0 };
        let mut overflow = Overflow::Wrap;
        let mut rest = &args[2..];
        loop {
            rest = match rest {
                [] => break,
                [name, kind, offset, rest @ ..] if is(name, "GET") => {
                    call.operations.push((Field::parse(kind, offset)?, Operation::Get));
                    rest
                }
                [name, kind, offset, number, rest @ ..]
                    if is(name, "SET") || is(name, "INCRBY") =>
                {
                    let field = Field::parse(kind, offset)?;
                    let number = integer_argument(number)?;
                    let operation = match is(name, "SET") {
                        true => Operation::Set(number, overflow),
                        false => Operation::Add(number, overflow),
                    };
                    call.operations.push((field, operation));
                    let last_bit = field.offset + u64::from(field.bits) - 1;
                    call.bytes = call.bytes.max((last_bit / 8 + 1) as usize);
                    rest
                }
                [name, kind, rest @ ..] if is(name, "OVERFLOW") => {
                    overflow = match () {
                        () if is(kind, "WRAP") => Overflow::Wrap,
                        () if is(kind, "SAT") => Overflow::Saturate,
                        () if is(kind, "FAIL") => Overflow::Fail,
                        () => return Err(Reply::error("ERR Invalid OVERFLOW type specified")),
                    };
                    rest
                }
                _ => return Err(SYNTAX),
            };
        }
        check_pair(call.key, call.bytes)?;
        Ok(call)
    }
}

impl Field {
    fn parse(kind: &[u8], offset: &[u8]) -> Result<Field, Reply> {
        let invalid = "ERR Invalid bitfield type. Use something like i16 u8. \
                       Note that u64 is not supported but i64 is.";
        let (signed, bits) = match kind {
            [b'i', bits @ ..] => (true, integer(bits).filter(|bits| (1..=64).contains(bits))),
            [b'u', bits @ ..] => (false, integer(bits).filter(|bits| (1..=63).contains(bits))),
            _ => (false, None),
        };
        let bits = bits.ok_or_else(|| Reply::error(invalid))? as u32;
        Ok(Field { signed, bits, offset: bit_offset(offset, bits)? })
    }

    /// The number in a string that counts as followed by zeros.
    fn get(&self, string: &[u8]) -> i64 {
        let mut number = 0u64;
        for place in self.offset..self.offset + u64::from(self.bits) {
            let byte = string.get((place / 8) as usize).copied().unwrap_or(0);
            number = number << 1 | u64::from(byte >> (7 - place % 8) & 1);
        }
        self.cut(i128::from(number))
    }

    /// Writes the lower bits of a number. The string is long enough.
    fn set(&self, string: &mut [u8], number: i64) {
        for place in 0..u64::from(self.bits) {
            let at = self.offset + place;
            let mask = 0x80 >> (at % 8);
            let bit = number >> (u64::from(self.bits) - 1 - place) & 1;
            let byte = &mut string[(at / 8) as usize];
            *byte = if bit == 1 { *byte | mask } else { *byte & !mask };
        }
    }

    /// The number that the lower bits of another are in this field.
    fn cut(&self, number: i128) -> i64 {
        let unused = 128 - self.bits;
        let shifted = number << unused;
        (if self.signed { shifted >> unused } else { (shifted as u128 >> unused) as i128 }) as i64
    }

    /// The number as far as the field can hold it; `None`: it cannot, and that fails.
    fn fit(&self, number: i128, overflow: Overflow) -> Option<i64> {
        let (least, greatest) = match self.signed {
            true => (-(1i128 << (self.bits - 1)), (1i128 << (self.bits - 1)) - 1),
            false => (0, (1i128 << self.bits) - 1),
        };
        if (least..=greatest).contains(&number) {
            return Some(number as i64);
        }
        match overflow {
            Overflow::Wrap => Some(self.cut(number)),
            Overflow::Saturate => Some(number.clamp(least, greatest) as i64),
            Overflow::Fail => None,
        }
    }
}

/// How long a BITFIELD makes its string at least; 0: it writes nothing.
pub(super) fn bytes_written(args: &[Bytes]) -> usize {
    BitfieldCall::parse(args).map_or(0, |call| call.bytes)
}

fn bitfield(keyspace: &mut Keyspace, call: BitfieldCall) -> Outcome {
    let stored = keyspace.find(call.key)?;
    let old = stored.as_ref().map(string_of).transpose()?.unwrap_or_default();
    let mut value = old.to_vec();
    // As in Redis, room is made even for what then fails.
    value.resize(value.len().max(call.bytes), 0);
    let replies = call.operations.iter().map(|(field, operation)| {
        let before = field.get(&value);
        let (after, overflow) = match *operation {
            Operation::Get => return Reply::Integer(before),
            // Unsigned fields take a negative number for the great one with the same bits.
            Operation::Set(number, overflow) if !field.signed => {
                (i128::from(number as u64), overflow)
            }
            Operation::Set(number, overflow) => (i128::from(number), overflow),
            Operation::Add(number, overflow) => (i128::from(before) + i128::from(number), overflow),
        };
        let Some(after) = field.fit(after, overflow) else { return Reply::Null };
        field.set(&mut value, after);
        Reply::Integer(if let Operation::Set(..) = operation { before } else { after })
    });
    let replies = Reply::Array(replies.collect());
    if value != old {
        let header = stored.as_ref().map(|stored| &stored.header);
        let deadline_ms = header.map_or(0, |header| header.deadline_ms);
        keyspace.put_string(call.key, &value, deadline_ms, header);
    }
    Ok(replies)
}

fn bitfield_ro(view: &View, args: &[Bytes]) -> Outcome {
    let call = BitfieldCall::parse(args)?;
    if call.bytes > 0 {
        return Err(Reply::error("ERR BITFIELD_RO only supports the GET subcommand").into());
    }
    let value = view.find(call.key)?.as_ref().map(string_of).transpose()?.unwrap_or_default();
    let get = |(field, _): &(Field, Operation)| Reply::Integer(field.get(&value));
    Ok(Reply::Array(call.operations.iter().map(get).collect()))
}
