//! Which rows are many. Behind its space each row has a tag, see [`super::keyspace`], and those with one
//! certain tag are the keys themselves. Hardly ever must somebody who holds up others scan these, so they
//! are in no order until somebody does. Entries scan all other rows again and again, such as the index by
//! deadline, and mostly there are few of them: they are in order from the start.

/// The tag of the rows that are many.
pub const BULK_TAG: u8 = b'K';

/// Where the tag is.
const TAG_AT: usize = 4;

/// Whether it is one of many.
pub(super) fn is_bulk(row: &[u8]) -> bool {
    row.get(TAG_AT) == Some(&BULK_TAG)
}

/// Whether one of many may be a row with `first <= row < end`.
pub(super) fn may_be_bulk(first: &[u8], end: Option<&[u8]>) -> bool {
    if is_bulk(first) {
        return true;
    }
    let kept = first.len().min(TAG_AT);
    let mut space = [0; TAG_AT];
    space[..kept].copy_from_slice(&first[..kept]);
    let space = u32::from_be_bytes(space);
    let behind = first.get(TAG_AT).is_some_and(|tag| *tag > BULK_TAG);
    let Some(space) = space.checked_add(u32::from(behind)) else { return false };
    let [a, b, c, d] = space.to_be_bytes();
    end.is_none_or(|end| [a, b, c, d, BULK_TAG][..] < *end)
}

#[test]
fn ranges_without_rows_that_are_many_are_known() {
    let is = |first: &[u8], end: &[u8]| may_be_bulk(first, Some(end));
    assert!(!is(b"\0\0\0\x01D", b"\0\0\0\x01E") && !is(b"\0\0\0\x01D123", b"\0\0\0\x01D124"));
    assert!(!is(b"\0\0\0\x01D", b"\0\0\0\x01K"), "before the first of them");
    assert!(is(b"\0\0\0\x01D", b"\0\0\0\x01K\0") && is(b"\0\0\0\x01", b"\0\0\0\x02"));
    assert!(is(b"\0\0\0\x01K", b"\0\0\0\x01L") && is(b"\0\0\0\x01Kx", b"\0\0\0\x01Kx\0"));
    assert!(!is(b"\0\0\0\0R", b"\0\0\0\0S") && !is(b"\0\0\0\0R", b"\0\0\0\x01K"));
    assert!(is(b"\0\0\0\0R", b"\0\0\0\x01L") && is(b"", b"\0\0\0\x01L"));
    assert!(!is(b"\0\0\0\x01L", b"\0\0\0\x02") && is(b"\0\0\0\x01L", b"\0\0\0\x02M"));
    assert!(may_be_bulk(b"", None) && may_be_bulk(b"\0\0\0\x01D", None));
    assert!(
        !may_be_bulk(b"\xff\xff\xff\xffretired", None) && may_be_bulk(b"\xff\xff\xff\xff", None)
    );
    assert!(is_bulk(b"\0\0\0\x01K") && !is_bulk(b"\0\0\0\x01") && !is_bulk(b"\0\0\0\x01DK"));
}
