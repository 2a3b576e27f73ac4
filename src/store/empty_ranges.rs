//! Ranges of rows that are empty for good, so that scans need not step over what was removed from
//! them.

use bytes::Bytes;

/// At most one range for each space.
#[derive(Default)]
pub(super) struct EmptyRanges {
    /// From the first row to the last one, both included.
    ranges: Vec<(Bytes, Bytes)>,
}

impl EmptyRanges {
    /// There is no row in `first..=last` and never will be, as long as the space is not retired.
    /// Takes the place of what was said of this space before.
    pub fn note(&mut self, first: Bytes, last: Bytes) {
        assert!(first <= last, "from {} to {}", first.escape_ascii(), last.escape_ascii());
        self.forget(space_of(&first));
        self.ranges.push((first, last));
    }

    /// Where a scan that is to begin at `first` may begin.
    pub fn first<'a>(&'a self, first: &'a [u8]) -> &'a [u8] {
        let range = self.ranges.iter().find(|(from, to)| *from <= *first && *first < *to);
        range.map_or(first, |(_, to)| to)
    }

    /// A row is put.
    pub fn check(&self, row: &[u8]) {
        let within = self.ranges.iter().any(|(from, to)| *from <= *row && *row <= *to);
        assert!(!within, "row {} comes again", row.escape_ascii());
    }

    /// Forgets what was said of a space.
    pub fn forget(&mut self, space: [u8; 4]) {
        self.ranges.retain(|(from, _)| space_of(from) != space);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.ranges.clear();
    }

    /// Takes over what an entry said.
    pub fn extend(&mut self, of_entry: EmptyRanges) {
        of_entry.ranges.into_iter().for_each(|(first, last)| self.note(first, last));
    }
}

fn space_of(row: &[u8]) -> [u8; 4] {
    *row.first_chunk().expect("a row begins with its space")
}

#[test]
fn a_scan_begins_behind_what_is_gone() {
    let mut empty = EmptyRanges::default();
    assert_eq!(empty.first(b"0001Da"), b"0001Da");
    empty.note(Bytes::from_static(b"0001D"), Bytes::from_static(b"0001Dk"));
    empty.note(Bytes::from_static(b"0002D"), Bytes::from_static(b"0002Db"));
    for (first, begins) in [
        ("0001C", "0001C"),
        ("0001D", "0001Dk"),
        ("0001Dc", "0001Dk"),
        ("0001Dk", "0001Dk"),
        ("0001Dl", "0001Dl"),
        ("0002D", "0002Db"),
    ] {
        assert_eq!(empty.first(first.as_bytes()), begins.as_bytes());
    }
    empty.note(Bytes::from_static(b"0001D"), Bytes::from_static(b"0001Dm"));
    assert_eq!(empty.first(b"0001Dl"), b"0001Dm");
    empty.forget(*b"0001");
    assert_eq!(empty.first(b"0001Dl"), b"0001Dl");
}

#[test]
#[should_panic(expected = "comes again")]
fn a_row_that_comes_again_is_a_bug() {
    let mut empty = EmptyRanges::default();
    empty.note(Bytes::from_static(b"0001D"), Bytes::from_static(b"0001Dk"));
    empty.check(b"0001Dl");
    empty.check(b"0001Db");
}
