//! Typed keys with versions and deadlines, on top of rows.
//!
//! A row is `[space: u32 big-endian][tag][rest]`:
//!
//! | space | tag | rest | value |
//! |---|---|---|---|
//! | 0 | `M` | | [`Meta`]: the log's clock, the databases and their counts |
//! | 0 | `R` | version | [`Removal`]: a range of keys that are gone, their rows not yet |
//! | 1.. | `K` | key | [`Header`], then a string's bytes |
//! | 1.. | `D` | deadline (u64 big-endian), key | nothing: the index by deadline |
//! | u32::MAX | | | belongs to the store below |
//!
//! Byte order of rows is byte order of keys. Tags `E` and above are kept for the elements of
//! collections: `[space]['E'][key length][key][element]`.
//!
//! A logical database is a space; emptying one gives it a new space and retires the old, in
//! constant time. A key whose deadline is not after the log's clock is absent, whether its row is
//! still there or not; its row goes when a write meets it or a clock entry finds it in the index.
//! The same holds for a key that a removal hides.
//!
//! Invariants: a key with a deadline has exactly one row in the index, any other none; a database's
//! counts are those of its `K` and `D` rows; its `earliest_ms` is not after its first `D` row.
//!
//! Everything here depends on rows and arguments only, so it is the same on every node.

mod allowance;
mod header;
mod meta;
mod range;
mod removals;
mod removing;
mod view;
mod writer;

pub use allowance::{Allowance, Exceeded, ReadError};
pub use header::{HEADER_BYTES, Header, Stored, Type, Version};
pub use meta::{DATABASES, Database, Meta, earliest_deadline};
pub use range::{KeyRange, after_prefix, next_key};
pub use removals::{BOUND_BYTES_MAX, REMOVALS_MAX, Removal};
pub use removing::Removed;
pub use view::View;
pub use writer::Keyspace;

use bytes::{BufMut, Bytes, BytesMut};

const TAG_KEY: u8 = super::BULK_TAG;
const TAG_DEADLINE: u8 = b'D';

/// Bytes of a row before its rest: space and tag.
const PREFIX_BYTES: usize = 5;

fn prefix(space: u32, tag: u8) -> [u8; PREFIX_BYTES] {
    let [a, b, c, d] = space.to_be_bytes();
    [a, b, c, d, tag]
}

/// The row of a key.
fn key_row(space: u32, key: &[u8]) -> Bytes {
    let mut row = BytesMut::with_capacity(PREFIX_BYTES + key.len());
    row.put_slice(&prefix(space, TAG_KEY));
    row.put_slice(key);
    row.freeze()
}

/// The row of a key in the index by deadline.
fn deadline_row(space: u32, deadline_ms: u64, key: &[u8]) -> Bytes {
    let mut row = BytesMut::with_capacity(PREFIX_BYTES + 8 + key.len());
    row.put_slice(&prefix(space, TAG_DEADLINE));
    row.put_u64(deadline_ms);
    row.put_slice(key);
    row.freeze()
}

/// Calls `with` with the row of a key, built on the stack when the key is short.
fn with_key_row<R>(space: u32, key: &[u8], with: impl FnOnce(&[u8]) -> R) -> R {
    let mut buffer = [0u8; 128];
    let length = PREFIX_BYTES + key.len();
    if length > buffer.len() {
        return with(&key_row(space, key));
    }
    buffer[..PREFIX_BYTES].copy_from_slice(&prefix(space, TAG_KEY));
    buffer[PREFIX_BYTES..length].copy_from_slice(key);
    with(&buffer[..length])
}

#[cfg(test)]
mod removal_tests;
#[cfg(test)]
mod tests;
