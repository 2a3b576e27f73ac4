//! The longest common subsequence of two strings.

use bytes::Bytes;
use resp::Reply;

use super::outcome::Outcome;
use super::parse::{SYNTAX, integer_argument, is};
use super::strings::STRING_BYTES_MAX;
use super::table::{Keys, Spec, read_kind};
use crate::store::keyspace::{ReadError, Type, View};

/// The rows of this file.
pub static COMMANDS: &[Spec] = &[Spec {
    name: "lcs",
    arity: -3,
    kind: read_kind!(lcs),
    keys: Keys::FIRST_TWO,
    flags: &["readonly"],
    group: "string",
    since: "7.0.0",
    summary: "Answers the longest common subsequence of two strings, its length or its places.",
    complexity: "O(N*M), N and M: bytes of the strings",
}];

/// So much of the table is filled in one step of an allowance.
const TABLE_BYTES_OF_STEP: u64 = 1024;

#[derive(Default)]
struct Options {
    length: bool,
    places: bool,
    match_length_min: u32,
    with_match_length: bool,
}

impl Options {
    fn parse(options: &[Bytes]) -> Result<Options, Reply> {
        let mut parsed = Options::default();
        let mut options = options.iter();
        while let Some(option) = options.next() {
            match () {
                () if is(option, "IDX") => parsed.places = true,
                () if is(option, "LEN") => parsed.length = true,
                () if is(option, "WITHMATCHLEN") => parsed.with_match_length = true,
                () if is(option, "MINMATCHLEN") => {
                    let least = integer_argument(options.next().ok_or(SYNTAX)?)?.max(0);
                    parsed.match_length_min = u32::try_from(least).unwrap_or(u32::MAX);
                }
                () => return Err(SYNTAX),
            }
        }
        match parsed.length && parsed.places {
            true => Err(Reply::error(
                "ERR If you want both the length and indexes, please just use IDX.",
            )),
            false => Ok(parsed),
        }
    }
}

fn lcs(view: &View, args: &[Bytes]) -> Outcome {
    let mut strings = [Bytes::new(), Bytes::new()];
    for (key, string) in args[1..3].iter().zip(&mut strings) {
        match view.find(key)? {
            Some(stored) if stored.header.kind == Type::String => *string = stored.content(),
            Some(_) => {
                let text = "ERR The specified keys must contain string values";
                return Err(Reply::error(text).into());
            }
            None => (),
        }
    }
    let [a, b] = strings;
    let options = Options::parse(&args[3..])?;
    let table_bytes = (a.len() as u64 + 1) * (b.len() as u64 + 1) * 4;
    if table_bytes > STRING_BYTES_MAX {
        let text = "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len";
        return Err(Reply::error(text).into());
    }
    view.spend(table_bytes / TABLE_BYTES_OF_STEP)?;
    let table = Table::new(&a, &b, view)?;
    if options.length {
        return Ok(Reply::Integer(i64::from(table.length())));
    }
    let (common, runs) = table.trace(&a, &b);
    if !options.places {
        return Ok(Reply::Bulk(common.into()));
    }
    let long_enough = |run: &&Run| run.length >= options.match_length_min;
    let matches = runs.iter().filter(long_enough).map(|run| run.reply(options.with_match_length));
    Ok(Reply::Map(vec![
        (Reply::bulk("matches"), Reply::Array(matches.collect())),
        (Reply::bulk("len"), Reply::Integer(i64::from(table.length()))),
    ]))
}

/// The lengths of the subsequences common to each beginning of one string and each of the other.
struct Table {
    lengths: Vec<u32>,
    width: usize,
}

impl Table {
    /// What it costs is paid already; but its reader may be told to stop meanwhile.
    fn new(a: &[u8], b: &[u8], view: &View) -> Result<Table, ReadError> {
        let width = b.len() + 1;
        let mut lengths = vec![0; (a.len() + 1) * width];
        for (row, byte) in a.iter().enumerate() {
            view.spend(0)?;
            let (above, below) = lengths[row * width..(row + 2) * width].split_at_mut(width);
            for (column, other) in b.iter().enumerate() {
                below[column + 1] = match byte == other {
                    true => above[column] + 1,
                    false => above[column + 1].max(below[column]),
                };
            }
        }
        Ok(Table { lengths, width })
    }

    fn at(&self, a: usize, b: usize) -> u32 {
        self.lengths[a * self.width + b]
    }

    fn length(&self) -> u32 {
        self.lengths.last().copied().unwrap_or(0)
    }

    /// The common subsequence and the runs it consists of, the last one first. Where several are
    /// equally long, the same choice as Redis makes.
    fn trace(&self, a: &[u8], b: &[u8]) -> (Vec<u8>, Vec<Run>) {
        let mut common = Vec::with_capacity(self.length() as usize);
        let mut runs: Vec<Run> = Vec::new();
        let (mut row, mut column) = (a.len(), b.len());
        while row > 0 && column > 0 {
            if a[row - 1] == b[column - 1] {
                common.push(a[row - 1]);
                match runs.last_mut().filter(|run| (run.a, run.b) == (row, column)) {
                    Some(run) => {
                        (run.a, run.b) = (row - 1, column - 1);
                        run.length += 1;
                    }
                    None => runs.push(Run { a: row - 1, b: column - 1, length: 1 }),
                }
                (row, column) = (row - 1, column - 1);
            } else if self.at(row - 1, column) > self.at(row, column - 1) {
                row -= 1;
            } else {
                column -= 1;
            }
        }
        common.reverse();
        (common, runs)
    }
}

/// Bytes that follow each other in both strings.
struct Run {
    /// Place of the first in the one string.
    a: usize,
    /// Place of the first in the other.
    b: usize,
    length: u32,
}

impl Run {
    fn reply(&self, with_length: bool) -> Reply {
        let range = |first: usize| {
            let last = first + self.length as usize - 1;
            Reply::Array([first, last].map(|place| Reply::Integer(place as i64)).to_vec())
        };
        let mut parts = vec![range(self.a), range(self.b)];
        if with_length {
            parts.push(Reply::Integer(i64::from(self.length)));
        }
        Reply::Array(parts)
    }
}
