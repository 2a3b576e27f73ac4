//! Reading arguments, as strictly as Redis does, and the errors for what cannot be read.

use bytes::Bytes;
use resp::Reply;

use crate::store::keyspace::DATABASES;

/// A key and its value together must stay below this many bytes.
pub const PAIR_BYTES_LIMIT: usize = 16 << 20;

/// A command with all its arguments, and a transaction with all its commands, must stay below this
/// many bytes: it becomes part of one log entry.
pub const COMMAND_BYTES_LIMIT: usize = 32 << 20;

/// The argument is no option of the command, or contradicts another.
pub const SYNTAX: Reply = Reply::Error(std::borrow::Cow::Borrowed("ERR syntax error"));
/// An argument or a stored value is not a number.
pub const NOT_AN_INTEGER: Reply =
    Reply::Error(std::borrow::Cow::Borrowed("ERR value is not an integer or out of range"));
/// The key holds another type than the command works on.
pub const WRONG_TYPE: Reply = Reply::Error(std::borrow::Cow::Borrowed(
    "WRONGTYPE Operation against a key holding the wrong kind of value",
));

/// A decimal number exactly as Redis prints it: no plus, no leading zeros, no spaces, no `-0`.
pub fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => (),
        _ => return None,
    }
    let mut magnitude = 0u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        magnitude = magnitude * 10 + u64::from(digit - b'0');
    }
    match negative {
        true => 0i64.checked_sub_unsigned(magnitude),
        false => i64::try_from(magnitude).ok(),
    }
}

/// A number argument.
pub fn integer_argument(text: &[u8]) -> Result<i64, Reply> {
    integer(text).ok_or(NOT_AN_INTEGER)
}

/// Whether an argument is this option, which is given in capitals.
pub fn is(argument: &[u8], option: &str) -> bool {
    argument.eq_ignore_ascii_case(option.as_bytes())
}

/// The range that a first and a last place mean among `length` of something: negative places count
/// from the end. `None`: nothing.
pub fn places(first: i64, last: i64, length: u64) -> Option<(u64, u64)> {
    match first < 0 && last < 0 && first > last {
        true => None,
        false => clamped_places(first, last, length),
    }
}

/// The same where two places before the beginning mean the first one, as in BITPOS.
pub fn clamped_places(first: i64, last: i64, length: u64) -> Option<(u64, u64)> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let from_start = |place: i64| if place < 0 { place.saturating_add(length) } else { place };
    let (first, last) = (from_start(first).max(0), from_start(last).max(0).min(length - 1));
    (first <= last).then_some((first as u64, last as u64))
}

/// What a key is called in the text of an error: the beginning of a long one, and no line breaks.
pub fn shown(key: &[u8]) -> String {
    const SHOWN_BYTES: usize = 128;
    let text = String::from_utf8_lossy(&key[..key.len().min(SHOWN_BYTES)]).into_owned();
    text.replace(['\r', '\n'], " ")
}

/// The error for a command with too few or too many arguments; `name` in lower case.
pub fn wrong_arity(name: &str) -> Reply {
    Reply::error(format!("ERR wrong number of arguments for '{name}' command"))
}

/// The error for a subcommand that a container does not have, or not with so many arguments;
/// `container` in capitals.
pub fn unknown_subcommand(container: &str, args: &[Bytes]) -> Reply {
    let subcommand = shown(&args[1]);
    Reply::error(format!("ERR unknown subcommand '{subcommand}'. Try {container} HELP."))
}

/// Refuses a key that is too long, alone or with its value.
pub fn check_pair(key: &[u8], value_bytes: usize) -> Result<(), Reply> {
    let bytes = key.len().saturating_add(value_bytes);
    match bytes < PAIR_BYTES_LIMIT {
        true => Ok(()),
        false => Err(Reply::error(format!(
            "ERR key and value are {bytes} bytes together, the limit is below {PAIR_BYTES_LIMIT}"
        ))),
    }
}

/// Refuses a command or transaction of too many bytes.
pub fn check_command(bytes: usize) -> Result<(), Reply> {
    match bytes < COMMAND_BYTES_LIMIT {
        true => Ok(()),
        false => Err(Reply::error(format!(
            "ERR command of {bytes} bytes, the limit is below {COMMAND_BYTES_LIMIT}"
        ))),
    }
}

/// Bytes of a command's arguments.
pub fn command_bytes(args: &[Bytes]) -> usize {
    args.iter().map(Bytes::len).sum()
}

/// How a time is written: in seconds or milliseconds, from now or since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeForm {
    /// 1000 for seconds, 1 for milliseconds.
    pub unit_ms: i64,
    /// From now on, not since the epoch.
    pub relative: bool,
}

impl TimeForm {
    /// `EX`
    pub const EX: TimeForm = TimeForm { unit_ms: 1000, relative: true };
    /// `PX`
    pub const PX: TimeForm = TimeForm { unit_ms: 1, relative: true };
    /// `EXAT`
    pub const EXAT: TimeForm = TimeForm { unit_ms: 1000, relative: false };
    /// `PXAT`
    pub const PXAT: TimeForm = TimeForm { unit_ms: 1, relative: false };

    /// The form that this option of SET and GETEX announces.
    pub fn of_option(option: &[u8]) -> Option<TimeForm> {
        let forms =
            [("EX", Self::EX), ("PX", Self::PX), ("EXAT", Self::EXAT), ("PXAT", Self::PXAT)];
        forms.into_iter().find(|(name, _)| is(option, name)).map(|(_, form)| form)
    }
}

/// A time argument, not yet absolute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    milliseconds: i64,
    relative: bool,
}

impl Time {
    /// Reads a time; `positive`: zero and below are refused. `name`: the command, for the error.
    pub fn parse(text: &[u8], form: TimeForm, positive: bool, name: &str) -> Result<Time, Reply> {
        let number = integer_argument(text)?;
        if positive && number <= 0 {
            return Err(invalid_expire_time(name));
        }
        let milliseconds = number.checked_mul(form.unit_ms);
        let milliseconds = milliseconds.ok_or_else(|| invalid_expire_time(name))?;
        Ok(Time { milliseconds, relative: form.relative })
    }

    /// The absolute time in ms since the epoch, when the log's clock shows `clock_ms`. Everything
    /// at or before the epoch becomes 1, which is long past but not "never".
    pub fn deadline_ms(self, clock_ms: u64, name: &str) -> Result<u64, Reply> {
        let start_ms = if self.relative { clock_ms } else { 0 };
        let start_ms = i64::try_from(start_ms).unwrap_or(i64::MAX);
        let deadline_ms = start_ms.checked_add(self.milliseconds);
        let deadline_ms = deadline_ms.ok_or_else(|| invalid_expire_time(name))?;
        Ok(u64::try_from(deadline_ms).unwrap_or(0).max(1))
    }
}

/// The argument of a time option. It may come again in the same form, and the last one counts.
pub fn next_time<'a>(
    options: &mut std::slice::Iter<'a, Bytes>,
    form: TimeForm,
    before: Option<(&Bytes, TimeForm)>,
) -> Result<&'a Bytes, Reply> {
    match before {
        Some((_, other)) if other != form => Err(SYNTAX),
        _ => options.next().ok_or(SYNTAX),
    }
}

/// The options of a command that sets keys with a deadline, or keeps the one they have.
#[derive(Default)]
pub struct DeadlineOptions<'a> {
    /// KEEPTTL
    pub keep: bool,
    time: Option<(&'a Bytes, TimeForm)>,
}

impl<'a> DeadlineOptions<'a> {
    /// Whether this is one of them, and does not contradict those before.
    pub fn take(
        &mut self,
        option: &Bytes,
        options: &mut std::slice::Iter<'a, Bytes>,
    ) -> Result<bool, Reply> {
        if is(option, "KEEPTTL") && self.time.is_none() {
            self.keep = true;
            return Ok(true);
        }
        let (Some(form), false) = (TimeForm::of_option(option), self.keep) else {
            return Ok(false);
        };
        self.time = Some((next_time(options, form, self.time)?, form));
        Ok(true)
    }

    /// The time that was given, once all options are right; `name`: the command, for the error.
    pub fn time(&self, name: &str) -> Result<Option<Time>, Reply> {
        self.time.map(|(text, form)| Time::parse(text, form, true, name)).transpose()
    }
}

/// A database's number.
pub fn parse_db(argument: &[u8]) -> Result<u8, Reply> {
    let number = integer_argument(argument)?;
    if i32::try_from(number).is_err() {
        let (least, most) = (i32::MIN, i32::MAX);
        return Err(Reply::error(format!(
            "ERR value is out of range, value must between {least} and {most}"
        )));
    }
    let db = u8::try_from(number).ok().filter(|db| usize::from(*db) < DATABASES);
    db.ok_or_else(|| Reply::error("ERR DB index is out of range"))
}

fn invalid_expire_time(name: &str) -> Reply {
    Reply::error(format!("ERR invalid expire time in '{name}' command"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_only_as_they_are_printed() {
        for number in [0, 1, -1, 42, i64::MAX, i64::MIN] {
            assert_eq!(integer(number.to_string().as_bytes()), Some(number));
        }
        let bad = ["", "-", "-0", "+1", "01", " 1", "1 ", "1.0", "9223372036854775808"];
        for text in bad.into_iter().chain(["-9223372036854775809", "99999999999999999999"]) {
            assert_eq!(integer(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn places_count_from_both_ends() {
        for (first, last, expected) in [
            (0, -1, Some((0, 4))),
            (-3, -2, Some((2, 3))),
            (-100, 100, Some((0, 4))),
            (0, -100, Some((0, 0))),
            (-1, -2, None),
            (3, 2, None),
            (5, 9, None),
            (i64::MIN, i64::MAX, Some((0, 4))),
        ] {
            assert_eq!(places(first, last, 5), expected, "{first} {last}");
        }
        assert_eq!(places(0, -1, 0), None);
    }

    #[test]
    fn a_pair_must_stay_below_the_limit() {
        assert!(check_pair(b"k", PAIR_BYTES_LIMIT - 2).is_ok());
        assert!(check_pair(b"k", PAIR_BYTES_LIMIT - 1).is_err());
    }
}
