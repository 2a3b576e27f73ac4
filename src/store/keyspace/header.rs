//! What each key's own row begins with.

use bytes::{BufMut, Bytes, BytesMut};

use crate::store::StoreError;

/// When a key last changed: the entry's index in the log, and the item's place in the entry's
/// batch. Ordered as the log is; also of use to clients as a fencing token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Index of the log entry, from 1.
    pub index: u64,
    /// Place of the item in its batch, from 0.
    pub place: u32,
}

impl Version {
    /// The version of a key that is not there.
    pub const ABSENT: Version = Version { index: 0, place: 0 };
}

/// The type of a key's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A string of bytes, kept behind the header.
    String,
}

impl Type {
    /// The name that TYPE answers and SCAN takes.
    pub fn name(self) -> &'static str {
        match self {
            Type::String => "string",
        }
    }
}

/// Bytes of an encoded [`Header`].
pub const HEADER_BYTES: usize = 1 + 8 + 4 + 8 + 8;

/// What the row of a key begins with, whatever its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Type of the value.
    pub kind: Type,
    /// Last change.
    pub version: Version,
    /// The key is absent once the log's clock reaches this, in ms since the epoch; 0: never.
    pub deadline_ms: u64,
    /// Bytes of a string, elements of a collection.
    pub size: u64,
}

impl Header {
    /// Header and, for a string, its bytes.
    pub fn encode(&self, content: &[u8]) -> Bytes {
        let mut row = BytesMut::with_capacity(HEADER_BYTES + content.len());
        row.put_u8(match self.kind {
            Type::String => 1,
        });
        row.put_u64(self.version.index);
        row.put_u32(self.version.place);
        row.put_u64(self.deadline_ms);
        row.put_u64(self.size);
        row.put_slice(content);
        row.freeze()
    }

    /// The header of a key's row.
    pub fn decode(row: &[u8]) -> Result<Header, StoreError> {
        let damaged = || StoreError::Damaged(format!("key row of {} bytes", row.len()));
        let header = row.first_chunk::<HEADER_BYTES>().ok_or_else(damaged)?;
        let u64_at = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&header[at..at + 8]);
            u64::from_be_bytes(bytes)
        };
        let kind = match header[0] {
            1 => Type::String,
            other => return Err(StoreError::Damaged(format!("key of unknown type {other}"))),
        };
        let place = u32::from_be_bytes([header[9], header[10], header[11], header[12]]);
        let version = Version { index: u64_at(1), place };
        Ok(Header { kind, version, deadline_ms: u64_at(13), size: u64_at(21) })
    }

    /// Whether the key is gone when the log's clock shows `clock_ms`.
    pub fn gone_at(&self, clock_ms: u64) -> bool {
        self.deadline_ms != 0 && self.deadline_ms <= clock_ms
    }
}

/// A key that is there: its header and its whole row.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The decoded header.
    pub header: Header,
    row: Bytes,
}

impl Stored {
    pub(super) fn decode(row: Bytes) -> Result<Stored, StoreError> {
        Ok(Stored { header: Header::decode(&row)?, row })
    }

    /// The bytes behind the header: a string's value.
    pub fn content(&self) -> Bytes {
        self.row.slice(HEADER_BYTES..)
    }
}
