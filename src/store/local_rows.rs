//! The rows of the local space: what the store itself has to remember inside the engine. No view
//! shows them, no head contains them.

use bytes::{BufMut, Bytes, BytesMut};

/// The space of the store's own rows, above every other.
pub const LOCAL_SPACE: u32 = u32::MAX;

/// The first byte string of the local space; every other row is below it.
pub(super) const LOCAL_FIRST: [u8; 4] = LOCAL_SPACE.to_be_bytes();

/// Holds the marker: the index whose state the engine holds, u64 little-endian.
pub(super) const MARKER: &[u8] = b"\xff\xff\xff\xffapplied";

/// There while a layer is being drained: the index that leads to, u64 little-endian.
pub(super) const DRAINING: &[u8] = b"\xff\xff\xff\xffdraining";

const RETIRED: &[u8] = b"\xff\xff\xff\xffretired";

/// The end of the rows made by [`retired`]: the prefix with its last byte raised.
pub(super) const RETIRED_END: &[u8] = b"\xff\xff\xff\xffretiree";

/// The first row that [`retired`] can make.
pub(super) const RETIRED_FIRST: &[u8] = RETIRED;

/// The row that says that a space is retired and not yet purged.
pub(super) fn retired(space: u32) -> Bytes {
    let mut row = BytesMut::with_capacity(RETIRED.len() + 4);
    row.put_slice(RETIRED);
    row.put_u32(space);
    row.freeze()
}

/// The space in a row made by [`retired`].
pub(super) fn retired_space(row: &[u8]) -> Option<u32> {
    let space = row.strip_prefix(RETIRED)?;
    Some(u32::from_be_bytes(space.try_into().ok()?))
}

/// The rows of a space: from this one up to the second one, or to the last row.
pub(super) fn space_range(space: u32) -> ([u8; 4], Option<[u8; 4]>) {
    (space.to_be_bytes(), space.checked_add(1).map(u32::to_be_bytes))
}

/// The index in a value of [`MARKER`] or [`DRAINING`].
pub(super) fn index_of(value: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(value.try_into().ok()?))
}
