//! Inline commands: a line of words, as a person types it into telnet. Quoting follows Redis'
//! `sdssplitargs`.

use bytes::{Bytes, BytesMut};

/// A quote is left open, or something other than a blank follows a closing one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UnbalancedQuotes;

/// Splits a line, without its line break, into words. Double quotes take the escapes `\n` `\r`
/// `\t` `\b` `\a` and `\xHH`, any other escaped character stands for itself; single quotes take
/// only `\'`.
pub(crate) fn split_words(line: &[u8]) -> Result<Vec<Bytes>, UnbalancedQuotes> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        while let [first, tail @ ..] = rest
            && is_blank(*first)
        {
            rest = tail;
        }
        if rest.is_empty() {
            return Ok(words);
        }
        let mut word = BytesMut::new();
        rest = take_word(rest, &mut word)?;
        words.push(word.freeze());
    }
}

/// What C's `isspace` takes.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn take_word<'a>(mut rest: &'a [u8], word: &mut BytesMut) -> Result<&'a [u8], UnbalancedQuotes> {
    loop {
        match rest {
            // Redis' strings end at a zero byte here.
            [] | [0, ..] => return Ok(&[]),
            [b'"', tail @ ..] => return after_quotes(take_double_quoted(tail, word)?),
            [b'\'', tail @ ..] => return after_quotes(take_single_quoted(tail, word)?),
            [byte, _tail @ ..] if is_blank(*byte) => return Ok(rest),
            [byte, tail @ ..] => {
                word.extend_from_slice(&[*byte]);
                rest = tail;
            }
        }
    }
}

fn after_quotes(rest: &[u8]) -> Result<&[u8], UnbalancedQuotes> {
    match rest {
        [] => Ok(rest),
        [byte, ..] if is_blank(*byte) => Ok(rest),
        _ => Err(UnbalancedQuotes),
    }
}

fn take_double_quoted<'a>(
    mut rest: &'a [u8],
    word: &mut BytesMut,
) -> Result<&'a [u8], UnbalancedQuotes> {
    loop {
        let (byte, tail) = match rest {
            [] => return Err(UnbalancedQuotes),
            [b'"', tail @ ..] => return Ok(tail),
            [b'\\', b'x', high, low, tail @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex_value(*high) * 16 + hex_value(*low), tail)
            }
            [b'\\', escaped, tail @ ..] => {
                let byte = match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                };
                (byte, tail)
            }
            [byte, tail @ ..] => (*byte, tail),
        };
        word.extend_from_slice(&[byte]);
        rest = tail;
    }
}

fn take_single_quoted<'a>(
    mut rest: &'a [u8],
    word: &mut BytesMut,
) -> Result<&'a [u8], UnbalancedQuotes> {
    loop {
        let (byte, tail) = match rest {
            [] => return Err(UnbalancedQuotes),
            [b'\'', tail @ ..] => return Ok(tail),
            [b'\\', b'\'', tail @ ..] => (b'\'', tail),
            [byte, tail @ ..] => (*byte, tail),
        };
        word.extend_from_slice(&[byte]);
        rest = tail;
    }
}

/// The value of a character that is known to be a hexadecimal digit.
fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.to_ascii_uppercase() - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_quotes_as_in_redis() {
        let cases: [(&[u8], &[&[u8]]); 8] = [
            (b"", &[]),
            (b" \t ", &[]),
            (b"  set  a\t1 ", &[b"set", b"a", b"1"]),
            (br#"set "a b" '' "#, &[b"set", b"a b", b""]),
            (br#""\x41\xfF\n\r\t\b\a\\\"\q\xZZ""#, &[b"A\xff\n\r\t\x08\x07\\\"qxZZ"]),
            (br"'it\'s \n'", &[br"it's \n"]),
            (br#"a"b c" d"#, &[b"ab c", b"d"]),
            (b"caf\xc3\xa9", &[b"caf\xc3\xa9"]),
        ];
        for (line, words) in cases {
            assert_eq!(split_words(line).expect("balanced"), words, "{line:?}");
        }
    }

    #[test]
    fn open_quotes_and_text_after_quotes_are_refused() {
        for line in [r#"set "a"#, "set 'a", r#""a"b"#, "'a'b", r#""a\"#, r#"""""#] {
            assert_eq!(split_words(line.as_bytes()), Err(UnbalancedQuotes), "{line:?}");
        }
    }
}
