//! The patterns of KEYS, SCAN and CONFIG GET: `*`, `?`, `[a-c]`, `[^a]`, and `\` before a byte to
//! mean just it. Bytes, not characters.

/// A pattern with more stars than this, adjacent ones counted once and those at its end not at all,
/// matches nothing; so it is in Redis, which would call itself too deeply.
const STARS_MAX: usize = 1000;

/// Whether the whole of `text` matches.
///
/// Only the last `*` met is ever tried again, so the time is at most pattern times text.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern_at, mut text_at) = (0, 0);
    // Where to go on when what follows the last star does not match here.
    let mut retry: Option<(usize, usize)> = None;
    let mut stars = 0;
    loop {
        if pattern.get(pattern_at) == Some(&b'*') {
            pattern_at += pattern[pattern_at..].iter().take_while(|it| **it == b'*').count();
            if pattern_at == pattern.len() {
                return true;
            }
            stars += 1;
            if stars > STARS_MAX {
                return false;
            }
            retry = Some((pattern_at, text_at));
            continue;
        }
        if pattern_at == pattern.len() && text_at == text.len() {
            return true;
        }
        if pattern_at < pattern.len() && text_at < text.len() {
            let (matched, length) = one(&pattern[pattern_at..], text[text_at]);
            if matched {
                pattern_at += length;
                text_at += 1;
                continue;
            }
        }
        match retry {
            Some((after_star, from)) if from < text.len() => {
                retry = Some((after_star, from + 1));
                (pattern_at, text_at) = (after_star, from + 1);
            }
            _ => return false,
        }
    }
}

/// Whether the first element of a pattern (not a star, not empty) matches the byte, and how many
/// bytes of the pattern the element takes.
fn one(pattern: &[u8], byte: u8) -> (bool, usize) {
    match pattern[0] {
        b'?' => (true, 1),
        b'[' => class(pattern, byte),
        b'\\' if pattern.len() > 1 => (pattern[1] == byte, 2),
        literal => (literal == byte, 1),
    }
}

/// A class; one that is not closed ends with the pattern.
fn class(pattern: &[u8], byte: u8) -> (bool, usize) {
    let negated = pattern.get(1) == Some(&b'^');
    let mut at = if negated { 2 } else { 1 };
    let mut matched = false;
    loop {
        match pattern[at.min(pattern.len())..] {
            [] => return (matched != negated, pattern.len()),
            [b']', ..] => return (matched != negated, at + 1),
            [b'\\', literal, ..] => {
                matched |= literal == byte;
                at += 2;
            }
            [first, b'-', last, ..] => {
                matched |= (first.min(last)..=first.max(last)).contains(&byte);
                at += 3;
            }
            [literal, ..] => {
                matched |= literal == byte;
                at += 1;
            }
        }
    }
}

/// The bytes that every match begins with.
pub fn literal_prefix(pattern: &[u8]) -> Vec<u8> {
    let mut prefix = Vec::new();
    let mut rest = pattern;
    loop {
        match rest {
            [] | [b'*' | b'?' | b'[', ..] => return prefix,
            [b'\\', literal, tail @ ..] | [literal, tail @ ..] => {
                prefix.push(*literal);
                rest = tail;
            }
        }
    }
}

/// Patterns for names of the server's own, all of them short, are no longer than this.
const NAME_PATTERN_BYTES_MAX: usize = 1024;

/// Whether a pattern matches the name of a command, a setting, an event or the cluster. One that is
/// longer than any use of it matches nothing: each is tried on many names, and on all of its bytes.
pub fn matches_name(pattern: &[u8], name: &str) -> bool {
    pattern.len() <= NAME_PATTERN_BYTES_MAX && matches(pattern, name.as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::keyspace::after_prefix;

    #[test]
    fn a_pattern_for_names_is_short() {
        assert!(matches_name(b"max[a-m]*", "maxmemory"));
        let long = |bytes: usize| format!("[{}]*", "m".repeat(bytes - 3)).into_bytes();
        assert!(matches_name(&long(NAME_PATTERN_BYTES_MAX), "maxmemory"));
        assert!(!matches_name(&long(NAME_PATTERN_BYTES_MAX + 1), "maxmemory"));
    }

    #[test]
    fn too_many_stars_match_nothing() {
        let text = "a".repeat(5000);
        let matches = |stars: usize, end: &str| {
            matches(format!("{}{end}", "*?".repeat(stars)).as_bytes(), text.as_bytes())
        };
        assert!(matches(STARS_MAX, ""));
        assert!(matches(STARS_MAX, "**"), "those at the end do not count");
        assert!(!matches(STARS_MAX + 1, ""));
        assert!(super::matches("*".repeat(5000).as_bytes(), text.as_bytes()));
    }

    #[test]
    fn patterns_match_as_in_redis() {
        let yes = [
            ("*", ""),
            ("h?llo", "hallo"),
            ("h*llo", "heeeello"),
            ("h[ae]llo", "hallo"),
            ("h[^e]llo", "hbllo"),
            ("h[a-b]llo", "hbllo"),
            ("h[b-a]llo", "hallo"),
            (r"h\*llo", "h*llo"),
            (r"[\]]", "]"),
            ("a*b*c", "aXbYbZc"),
            ("[abc", "c"),
            ("**a**", "bab"),
            (r"a\", r"a\"),
        ];
        for (pattern, text) in yes {
            assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        let no = [
            ("", "a"),
            ("h?llo", "hllo"),
            ("h[^e]llo", "hello"),
            (r"h\*llo", "hxllo"),
            ("a*b", "aXbY"),
            ("[]", "a"),
            ("?", ""),
            ("abc", "ab"),
            ("a*a", "a"),
        ];
        for (pattern, text) in no {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_do_not_take_exponential_time() {
        let pattern = "a*".repeat(30) + "b";
        assert!(!matches(pattern.as_bytes(), "a".repeat(10_000).as_bytes()));
    }

    /// The same by plain recursion.
    fn plain(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], _) => text.is_empty(),
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|skip| plain(rest, &text[skip..])),
            (_, []) => false,
            (_, [byte, after @ ..]) => {
                let (matched, length) = one(pattern, *byte);
                matched && plain(&pattern[length..], after)
            }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_plain_recursion(pattern in r"[ab*?\[\]\\^-]{0,10}", text in "[ab]{0,10}") {
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(matches(pattern, text), plain(pattern, text));
        }

        #[test]
        fn every_match_begins_with_the_literal_prefix(
            pattern in r"[ab]{0,3}[ab*?\\]{0,5}", text in "[ab]{0,8}",
        ) {
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            if matches(pattern, text) {
                let prefix = literal_prefix(pattern);
                prop_assert!(text.starts_with(&prefix));
                prop_assert!(after_prefix(&prefix).is_none_or(|after| text < &after[..]));
            }
        }
    }
}
