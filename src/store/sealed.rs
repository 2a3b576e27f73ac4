//! The form of a value inside the engine: a CRC32C of row and value, then the value.
//!
//! The row is covered too, so that a value found under the wrong row is damage, not data.

use bytes::{BufMut, Bytes, BytesMut};

use super::StoreError;

const CHECKSUM_BYTES: usize = 4;

fn checksum(row: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(row), value)
}

/// The bytes to keep in the engine.
pub(super) fn seal(row: &[u8], value: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(CHECKSUM_BYTES + value.len());
    bytes.put_u32_le(checksum(row, value));
    bytes.put_slice(value);
    bytes.freeze()
}

/// The value in bytes read from the engine.
pub(super) fn unseal(row: &[u8], sealed: &Bytes) -> Result<Bytes, StoreError> {
    let expected = sealed
        .first_chunk::<CHECKSUM_BYTES>()
        .map(|bytes| u32::from_le_bytes(*bytes))
        .ok_or_else(|| damaged(row, "is cut short"))?;
    let value = sealed.slice(CHECKSUM_BYTES..);
    if checksum(row, &value) != expected {
        return Err(damaged(row, "fails its checksum"));
    }
    Ok(value)
}

fn damaged(row: &[u8], what: &str) -> StoreError {
    let shown = &row[..row.len().min(64)];
    StoreError::Damaged(format!("the engine's value of row {} {what}", shown.escape_ascii()))
}
