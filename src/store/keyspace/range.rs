//! Ranges of keys, in the order of their bytes.

use super::{TAG_KEY, prefix};

/// The keys from one on up to before another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key that may be in it.
    pub first: Vec<u8>,
    /// The key before which it ends; `None`: it ends with the last key.
    pub end: Option<Vec<u8>>,
}

impl KeyRange {
    /// All keys.
    pub fn all() -> KeyRange {
        KeyRange { first: Vec::new(), end: None }
    }

    /// The keys that begin with `prefix`.
    pub fn of_prefix(prefix: &[u8]) -> KeyRange {
        KeyRange { first: prefix.to_vec(), end: after_prefix(prefix) }
    }

    /// The same without what is at or before `key`.
    pub fn after(self, key: &[u8]) -> KeyRange {
        KeyRange { first: self.first.max(next_key(key)), ..self }
    }

    /// Whether a key is in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.first[..] && self.end.as_ref().is_none_or(|end| key < &end[..])
    }

    /// The first row of the range in a space, and the row before which it ends; `None`: no key can
    /// be in it.
    pub(super) fn rows(&self, space: u32) -> Option<(Vec<u8>, Vec<u8>)> {
        let from = [&prefix(space, TAG_KEY), &self.first[..]].concat();
        let to = match &self.end {
            Some(end) => [&prefix(space, TAG_KEY), &end[..]].concat(),
            None => prefix(space, TAG_KEY + 1).to_vec(),
        };
        (from < to).then_some((from, to))
    }
}

/// The smallest key above `key`.
pub fn next_key(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// The smallest byte string above all that begin with `prefix`; `None`: there is none.
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut after = prefix[..=kept].to_vec();
    after[kept] += 1;
    Some(after)
}
