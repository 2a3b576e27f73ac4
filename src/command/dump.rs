//! Values as Redis writes them to its own files: DUMP and RESTORE.
//!
//! ```text
//! dump:    type u8 (0: a string), string, version u16 little-endian,
//!          CRC-64 of all before (Jones' polynomial), little-endian
//! string:  length, bytes            or one of
//!          0xc0, i8                 a number in decimal
//!          0xc1, i16 little-endian  likewise
//!          0xc2, i32 little-endian  likewise
//!          0xc3, length of what follows, length of the string, LZF-compressed bytes
//! length:  00xxxxxx                 6 bits
//!          01xxxxxx and a byte      14 bits, big-endian
//!          0x80, u32 big-endian
//!          0x81, u64 big-endian
//! ```
//!
//! All of it is read; strings are written plain or as numbers. The version written is the oldest
//! that has this form, so that every Redis since 2.6 reads it.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use crc::{CRC_64_REDIS, Crc};
use resp::Reply;

use super::outcome::Outcome;
use super::parse::{
    NOT_AN_INTEGER, PAIR_BYTES_LIMIT, SYNTAX, check_pair, integer, integer_argument, is,
};
use super::table::{Keys, Spec, read_kind, write_kind};
use crate::store::keyspace::{Keyspace, Type, View};

/// The rows of this file.
pub static COMMANDS: &[Spec] = &[
    Spec {
        name: "dump",
        arity: 2,
        kind: read_kind!(dump),
        keys: Keys::FIRST,
        flags: &["readonly"],
        group: "generic",
        since: "2.6.0",
        summary: "Answers a value in the form in which Redis writes it to its files.",
        complexity: "O(N), N: bytes of the value",
    },
    Spec {
        name: "restore",
        arity: -4,
        kind: write_kind!(RestoreCall::parse, restore),
        keys: Keys::FIRST,
        flags: &["write", "denyoom"],
        group: "generic",
        since: "2.6.0",
        summary: "Sets a key to what DUMP answered, here or in Redis; strings only.",
        complexity: "O(N), N: bytes of the value",
    },
];

const CRC: Crc<u64> = Crc::<u64>::new(&CRC_64_REDIS);

/// Since Redis 2.6.
const VERSION_WRITTEN: u16 = 6;
/// Of Redis 7.4 and 8.0; what they write of strings has not changed since.
const VERSION_MAX: u16 = 12;
const FOOTER_BYTES: usize = 2 + 8;

const TYPE_STRING: u8 = 0;
/// Longest text that is tried as a number.
const NUMBER_BYTES_MAX: usize = 11;

fn dump(view: &View, args: &[Bytes]) -> Outcome {
    let Some(stored) = view.find(&args[1])? else { return Ok(Reply::Null) };
    match stored.header.kind {
        Type::String => Ok(Reply::Bulk(dump_string(&stored.content()))),
    }
}

fn dump_string(value: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + 9 + value.len() + FOOTER_BYTES);
    out.put_u8(TYPE_STRING);
    let number = integer(value).filter(|_| value.len() <= NUMBER_BYTES_MAX);
    match number.and_then(|number| i32::try_from(number).ok()) {
        Some(number) => put_number(&mut out, number),
        None => {
            put_length(&mut out, value.len());
            out.put_slice(value);
        }
    }
    out.put_u16_le(VERSION_WRITTEN);
    let checksum = CRC.checksum(&out);
    out.put_u64_le(checksum);
    out.freeze()
}

fn put_number(out: &mut BytesMut, number: i32) {
    if let Ok(number) = i8::try_from(number) {
        out.put_u8(0xc0);
        out.put_i8(number);
    } else if let Ok(number) = i16::try_from(number) {
        out.put_u8(0xc1);
        out.put_i16_le(number);
    } else {
        out.put_u8(0xc2);
        out.put_i32_le(number);
    }
}

fn put_length(out: &mut BytesMut, length: usize) {
    match length {
        0..0x40 => out.put_u8(length as u8),
        0x40..0x4000 => out.put_u16(0x4000 | length as u16),
        // A value is below 16 MiB.
        _ => {
            out.put_u8(0x80);
            out.put_u32(length as u32);
        }
    }
}

/// The string in a dump.
fn load(dump: &Bytes) -> Result<Bytes, Reply> {
    let wrong = || Reply::error("ERR DUMP payload version or checksum are wrong");
    let body = dump.len().checked_sub(FOOTER_BYTES).ok_or_else(wrong)?;
    let mut footer = &dump[body..];
    let version = footer.get_u16_le();
    // A checksum of 0 means that there is none.
    let checksum = footer.get_u64_le();
    if version > VERSION_MAX || checksum != 0 && checksum != CRC.checksum(&dump[..body + 2]) {
        return Err(wrong());
    }
    let mut rest = dump.slice(..body);
    let bad = || Reply::error("ERR Bad data format");
    match take_u8(&mut rest) {
        // What follows the string is not looked at, as in Redis.
        Some(TYPE_STRING) => load_string(&mut rest).ok_or_else(bad),
        _ => Err(bad()),
    }
}

fn load_string(rest: &mut Bytes) -> Option<Bytes> {
    let first = take_u8(rest)?;
    Some(match first {
        0xc0 => take(rest, 1).map(|mut bytes| decimal(i32::from(bytes.get_i8())))?,
        0xc1 => take(rest, 2).map(|mut bytes| decimal(i32::from(bytes.get_i16_le())))?,
        0xc2 => take(rest, 4).map(|mut bytes| decimal(bytes.get_i32_le()))?,
        0xc3 => {
            let stored = load_length(take_u8(rest)?, rest)?;
            let length = load_length(take_u8(rest)?, rest)?;
            // Longer ones are refused anyway; a made-up length must not reserve much.
            if length == 0 || length > PAIR_BYTES_LIMIT {
                return None;
            }
            let bytes = lzf::decompress(&take(rest, stored)?, length).ok()?;
            (bytes.len() == length).then(|| Bytes::from(bytes))?
        }
        first => {
            let length = load_length(first, rest)?;
            take(rest, length)?
        }
    })
}

fn decimal(number: i32) -> Bytes {
    Bytes::from(number.to_string())
}

fn load_length(first: u8, rest: &mut Bytes) -> Option<usize> {
    match first {
        0x00..0x40 => Some(usize::from(first)),
        0x40..0x80 => Some(usize::from(first & 0x3f) << 8 | usize::from(take_u8(rest)?)),
        0x80 => take(rest, 4).map(|mut bytes| bytes.get_u32() as usize),
        0x81 => take(rest, 8).and_then(|mut bytes| usize::try_from(bytes.get_u64()).ok()),
        _ => None,
    }
}

fn take(rest: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= rest.len()).then(|| rest.split_to(length))
}

fn take_u8(rest: &mut Bytes) -> Option<u8> {
    take(rest, 1).map(|byte| byte[0])
}

struct RestoreCall<'a> {
    key: &'a Bytes,
    time: &'a Bytes,
    dump: &'a Bytes,
    replace: bool,
    absolute: bool,
}

impl<'a> RestoreCall<'a> {
    fn parse(args: &'a [Bytes]) -> Result<RestoreCall<'a>, Reply> {
        let (key, time, dump) = (&args[1], &args[2], &args[3]);
        let mut call = RestoreCall { key, time, dump, replace: false, absolute: false };
        // No time or frequency of use is kept; the two contradict each other all the same.
        let (mut idle, mut frequency) = (false, false);
        let mut options = args[4..].iter();
        while let Some(option) = options.next() {
            if is(option, "REPLACE") {
                call.replace = true;
            } else if is(option, "ABSTTL") {
                call.absolute = true;
            } else if is(option, "IDLETIME") && !frequency {
                let seconds = integer_argument(options.next().ok_or(SYNTAX)?)?;
                if seconds < 0 {
                    return Err(Reply::error("ERR Invalid IDLETIME value, must be >= 0"));
                }
                idle = true;
            } else if is(option, "FREQ") && !idle {
                let value = integer_argument(options.next().ok_or(SYNTAX)?)?;
                if !(0..=255).contains(&value) {
                    let text = "ERR Invalid FREQ value, must be >= 0 and <= 255";
                    return Err(Reply::error(text));
                }
                frequency = true;
            } else {
                return Err(SYNTAX);
            }
        }
        Ok(call)
    }

    /// 0: never. What is past becomes a deadline that has passed.
    fn deadline_ms(&self, clock_ms: u64) -> Result<u64, Reply> {
        let time_ms = integer(self.time).ok_or(NOT_AN_INTEGER)?;
        let time_ms = u64::try_from(time_ms);
        let time_ms = time_ms.map_err(|_| Reply::error("ERR Invalid TTL value, must be >= 0"))?;
        Ok(match time_ms {
            0 => 0,
            time_ms if self.absolute => time_ms,
            // Redis' sum wraps: what it cannot hold is past.
            time_ms => match time_ms.checked_add(clock_ms) {
                Some(deadline_ms) if deadline_ms <= i64::MAX as u64 => deadline_ms,
                _ => 1,
            },
        })
    }
}

fn restore(keyspace: &mut Keyspace, call: RestoreCall) -> Outcome {
    let old = keyspace.find(call.key)?.map(|old| old.header);
    if old.is_some() && !call.replace {
        return Err(Reply::error("BUSYKEY Target key name already exists.").into());
    }
    let deadline_ms = call.deadline_ms(keyspace.clock_ms())?;
    let value = load(call.dump)?;
    check_pair(call.key, value.len())?;
    keyspace.put_string(call.key, &value, deadline_ms, old.as_ref());
    Ok(Reply::OK)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// A dump of these bytes, with a right footer.
    fn sealed(body: &[u8], version: u16) -> Bytes {
        let mut out = BytesMut::from(body);
        out.put_u16_le(version);
        let checksum = CRC.checksum(&out);
        out.put_u64_le(checksum);
        out.freeze()
    }

    #[test]
    fn the_bytes_are_those_of_redis() {
        // DUMP of "foo" set to 10 in Redis 2.6.
        let dump = b"\x00\xc0\n\x06\x00\xf8r?\xc5\xfb\xfb_(";
        assert_eq!(dump_string(b"10"), &dump[..]);
        assert_eq!(load(&Bytes::from_static(dump)).unwrap(), "10");
    }

    #[test]
    fn every_form_of_a_string_is_read() {
        let long = [&b"\x00\x81\0\0\0\0\0\0\0\x03abc"[..], b"\x00\x80\0\0\0\x03abc"];
        for body in long.into_iter().chain([&b"\x00\x40\x03abc"[..], b"\x00\x03abc"]) {
            assert_eq!(load(&sealed(body, 11)).unwrap(), "abc", "{body:?}");
        }
        // LZF: a literal, then a copy of eight bytes from one back.
        let compressed = b"\x00\xc3\x05\x0a\x00a\xe0\x00\x00";
        assert_eq!(load(&sealed(compressed, 9)).unwrap(), "aaaaaaaaaa");
        assert_eq!(load(&sealed(b"\x00\xc1\x2e\xfb", 9)).unwrap(), "-1234");
    }

    #[test]
    fn what_is_damaged_or_newer_is_refused() {
        let text = |dump: Bytes| match load(&dump) {
            Err(Reply::Error(text)) => text.into_owned(),
            other => panic!("{other:?}"),
        };
        let wrong = "ERR DUMP payload version or checksum are wrong";
        assert_eq!(text(sealed(b"\x00\x03abc", VERSION_MAX + 1)), wrong);
        assert_eq!(text(Bytes::from_static(b"short")), wrong);
        let mut flipped = sealed(b"\x00\x03abc", 9).to_vec();
        flipped[2] ^= 1;
        assert_eq!(text(flipped.into()), wrong);
        for body in
            [&b""[..], b"\x00", b"\x00\x04abc", b"\x01\x03abc", b"\x00\xc4", b"\x00\xc3\x01"]
        {
            assert_eq!(text(sealed(body, 9)), "ERR Bad data format", "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn reads_what_was_written(value in vec(any::<u8>(), 0..20_000)) {
            prop_assert_eq!(load(&dump_string(&value)).unwrap(), value);
        }

        #[test]
        fn numbers_are_read_as_they_were(number in any::<i64>()) {
            let text = number.to_string();
            prop_assert_eq!(load(&dump_string(text.as_bytes())).unwrap(), text);
        }

        #[test]
        fn garbage_never_panics(body in vec(any::<u8>(), 0..40)) {
            let _ = load(&sealed(&body, 9));
        }
    }
}
