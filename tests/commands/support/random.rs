//! Random commands for the comparison with Redis.

use bytes::Bytes;

fn pick<'a>(random: &mut fastrand::Rng, words: &[&'a str]) -> &'a str {
    words[random.usize(..words.len())]
}

const KEYS: &[&str] = &["a", "b", "c", "{x}y", "long key", ""];
const VALUES: &[&str] = &[
    "1",
    "0",
    "-1",
    "10",
    "abc",
    "",
    "9223372036854775807",
    "-9223372036854775808",
    "007",
    "1.5",
    " 1",
    "+1",
    "-0",
    "99999999999999999999",
];
/// Far enough apart from now that the moment of asking does not matter.
const TIMES: &[&str] = &[
    "100000",
    "200000",
    "0",
    "-1",
    "x",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775",
    "4102444800",
    "4102444800000",
    "",
];
const OPTIONS: &[&str] = &[
    "NX",
    "XX",
    "GT",
    "LT",
    "GET",
    "EX",
    "PX",
    "EXAT",
    "PXAT",
    "KEEPTTL",
    "persist",
    "nx",
    "foo",
    "",
    "100000",
    "4102444800000",
];
const PATTERNS: &[&str] =
    &["*", "a", "?", "[a-b]", "[^a]", "*x*", "\\a", "[", "", "long*", "[b-a]", "*[", "{*"];
const NAMES: &[&str] = &[
    "get",
    "SET",
    "set",
    "set",
    "setnx",
    "setex",
    "psetex",
    "getset",
    "getdel",
    "getex",
    "mget",
    "mset",
    "msetnx",
    "append",
    "strlen",
    "incr",
    "decr",
    "incrby",
    "decrby",
    "del",
    "unlink",
    "exists",
    "type",
    "touch",
    "expire",
    "pexpire",
    "expireat",
    "pexpireat",
    "expiretime",
    "pexpiretime",
    "persist",
    "keys",
    "flushdb",
    "select",
    "multi",
    "exec",
    "exec",
    "discard",
    "watch",
    "unwatch",
    "ping",
    "echo",
    "nosuch",
    "getrange",
    "substr",
    "setrange",
    "incrbyfloat",
    "lcs",
    "setbit",
    "getbit",
    "bitcount",
    "bitpos",
    "bitop",
    "bitfield",
    "bitfield_ro",
    "rename",
    "renamenx",
    "copy",
    "move",
    "swapdb",
    "object",
    "restore",
];
const PLACES: &[&str] =
    &["0", "1", "-1", "2", "-2", "3", "-3", "5", "100", "-100", "9223372036854775807", "x"];
const FLOATS: &[&str] = &[
    "1.1",
    "0.1",
    "-3.25",
    "1e3",
    "5.0e-5",
    "123456789.123",
    "1e20",
    "nan",
    "inf",
    "-inf",
    ".5",
    "1.",
    "",
    " 1",
    "1x",
    "1e4931",
];
const BIT_OFFSETS: &[&str] =
    &["0", "1", "7", "8", "13", "100", "#1", "#3", "-1", "4294967296", "x", "#x", ""];
const FIELDS: &[&str] =
    &["u1", "u8", "i8", "i16", "u63", "i64", "u64", "i1", "i0", "x", "u5", "i33"];
const NUMBERS: &[&str] =
    &["0", "1", "-1", "127", "128", "255", "-300", "9223372036854775807", "70000", "x"];
/// What Redis answered to DUMP: a number and text, and two that are damaged.
const DUMPS: &[&[u8]] = &[
    b"\x00\xc0\n\x06\x00\xf8r?\xc5\xfb\xfb_(",
    b"\x00\x03bar\x06\x00pS!\xe0\x1b3\xc1\x84",
    b"\x00\xc0\n\x06\x00\xf8r?\xc5\xfb\xfb_)",
    b"x",
];

/// A command that is usually right in form, sometimes with a word too many or too few.
pub fn random_command(random: &mut fastrand::Rng) -> Vec<Bytes> {
    let name = pick(random, NAMES);
    let mut words = vec![name];
    let key = |random: &mut fastrand::Rng, words: &mut Vec<&'static str>| {
        words.push(pick(random, KEYS));
    };
    match name.to_ascii_lowercase().as_str() {
        "get" | "getdel" | "strlen" | "incr" | "decr" | "type" | "expiretime" | "pexpiretime"
        | "persist" => key(random, &mut words),
        "mget" | "del" | "unlink" | "exists" | "touch" | "watch" => {
            (0..random.usize(1..4)).for_each(|_| key(random, &mut words));
        }
        "mset" | "msetnx" => {
            for _ in 0..random.usize(1..4) {
                key(random, &mut words);
                words.push(pick(random, VALUES));
            }
        }
        "set" => {
            key(random, &mut words);
            words.push(pick(random, VALUES));
            while random.bool() {
                words.push(pick(random, OPTIONS));
            }
        }
        "setnx" | "getset" | "append" | "incrby" | "decrby" => {
            key(random, &mut words);
            words.push(pick(random, VALUES));
        }
        "setex" | "psetex" => {
            key(random, &mut words);
            words.push(pick(random, TIMES));
            words.push(pick(random, VALUES));
        }
        "getex" => {
            key(random, &mut words);
            while random.bool() {
                words.push(pick(random, OPTIONS));
            }
        }
        "expire" | "pexpire" => {
            key(random, &mut words);
            words.push(pick(random, TIMES));
            // Not GT and LT: with equal lifetimes they depend on the moment.
            while random.u8(..3) == 0 {
                words.push(pick(random, &["NX", "xx", "foo"]));
            }
        }
        "expireat" | "pexpireat" => {
            key(random, &mut words);
            words.push(pick(random, TIMES));
            while random.u8(..3) == 0 {
                words.push(pick(random, OPTIONS));
            }
        }
        "getrange" | "substr" => {
            key(random, &mut words);
            words.extend([pick(random, PLACES), pick(random, PLACES)]);
        }
        "setrange" => {
            key(random, &mut words);
            words.extend([pick(random, PLACES), pick(random, VALUES)]);
            if let Some(offset) = words.get_mut(2).filter(|offset| offset.len() > 4) {
                // Between 16 and 512 MiB the limits differ.
                *offset = "600000000";
            }
        }
        "incrbyfloat" => {
            key(random, &mut words);
            let words_of = if random.bool() { FLOATS } else { VALUES };
            words.push(pick(random, words_of));
        }
        "lcs" => {
            key(random, &mut words);
            key(random, &mut words);
            while random.bool() {
                words.push(pick(random, &["LEN", "idx", "WITHMATCHLEN", "MINMATCHLEN", "2", "x"]));
            }
        }
        "setbit" => {
            key(random, &mut words);
            words.extend([pick(random, BIT_OFFSETS), pick(random, &["0", "1", "2", "x"])]);
        }
        "getbit" => {
            key(random, &mut words);
            words.push(pick(random, BIT_OFFSETS));
        }
        "bitcount" | "bitpos" => {
            key(random, &mut words);
            if name == "bitpos" {
                words.push(pick(random, &["0", "1", "1", "0", "2", "x"]));
            }
            for _ in 0..random.usize(0..4) {
                words.push(pick(random, PLACES));
            }
            if random.bool() {
                words.push(pick(random, &["BIT", "byte", "x"]));
            }
        }
        "bitop" => {
            words.push(pick(random, &["AND", "or", "XOR", "NOT", "x"]));
            (0..random.usize(1..5)).for_each(|_| key(random, &mut words));
        }
        "bitfield" | "bitfield_ro" => {
            key(random, &mut words);
            for _ in 0..random.usize(0..4) {
                let operation = pick(random, &["GET", "GET", "set", "INCRBY", "OVERFLOW", "x"]);
                words.push(operation);
                if operation == "OVERFLOW" {
                    words.push(pick(random, &["WRAP", "sat", "FAIL", "FAIL", "x"]));
                    continue;
                }
                words.extend([pick(random, FIELDS), pick(random, BIT_OFFSETS)]);
                if operation == "set" || operation == "INCRBY" {
                    words.push(pick(random, NUMBERS));
                }
            }
        }
        "rename" | "renamenx" => (0..2).for_each(|_| key(random, &mut words)),
        "copy" => {
            (0..2).for_each(|_| key(random, &mut words));
            while random.u8(..3) == 0 {
                words.push(pick(random, &["REPLACE", "db", "1", "0", "16", "x"]));
            }
        }
        "move" => {
            key(random, &mut words);
            words.push(pick(random, &["0", "1", "16", "-1", "x"]));
        }
        "swapdb" => {
            words.extend((0..2).map(|_| pick(random, &["0", "1", "0", "1", "16", "-1", "x"])));
        }
        "object" => {
            words.push(pick(random, &["freq", "freq", "x"]));
            if random.u8(..4) > 0 {
                key(random, &mut words);
            }
        }
        "restore" => {
            key(random, &mut words);
            words.push(pick(random, TIMES));
            let mut words: Vec<Bytes> =
                words.into_iter().map(|word| Bytes::from_static(word.as_bytes())).collect();
            words.push(Bytes::from_static(DUMPS[random.usize(..DUMPS.len())]));
            while random.bool() {
                let options = ["REPLACE", "absttl", "IDLETIME", "FREQ", "5", "-1", "300", "x"];
                words.push(Bytes::from(pick(random, &options).to_owned()));
            }
            return words;
        }
        "keys" => words.push(pick(random, PATTERNS)),
        "select" => words.push(pick(random, &["0", "1", "15", "16", "-1", "x"])),
        "echo" => words.push(pick(random, VALUES)),
        _ => (),
    }
    match random.u8(..40) {
        0 => words.push(pick(random, OPTIONS)),
        1 if words.len() > 1 => drop(words.pop()),
        _ => (),
    }
    words.into_iter().map(|word| Bytes::from_static(word.as_bytes())).collect()
}
