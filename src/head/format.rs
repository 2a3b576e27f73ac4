//! The fixed parts of a head file, and how the footer becomes bytes and back.

use super::{HeadBallot, HeadError, HeadFooter, HeadMeta};

/// The format this version writes, and the highest it reads.
pub const VERSION: u32 = 1;

const HEADER_MAGIC: [u8; 8] = *b"ARKAHEAD";
const TAIL_MAGIC: [u8; 8] = *b"DAEHAKRA";

/// Header: magic, version u32.
pub(super) const HEADER_BYTES: usize = 12;
/// Tail: footer length u32, footer checksum u32, magic.
pub(super) const TAIL_BYTES: usize = 16;
/// Block header: stored length u32, raw length u32, checksum u32.
pub(super) const BLOCK_HEADER_BYTES: usize = 12;
/// A block is ended once its raw rows take this much.
pub(super) const BLOCK_BYTES: usize = 64 << 10;
/// No footer is longer.
pub(super) const FOOTER_BYTES_MAX: usize = 128 << 10;

pub(super) fn damaged<T>(what: impl Into<String>) -> Result<T, HeadError> {
    Err(HeadError::Damaged(what.into()))
}

/// The file's first bytes.
pub(super) fn header() -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(&HEADER_MAGIC);
    bytes[8..].copy_from_slice(&VERSION.to_le_bytes());
    bytes
}

/// Checks the file's first bytes.
pub(super) fn check_header(bytes: &[u8; HEADER_BYTES]) -> Result<(), HeadError> {
    let mut fields = Fields(bytes);
    if fields.array::<8>()? != HEADER_MAGIC {
        return damaged("this is no head: wrong first bytes");
    }
    match fields.u32()? {
        VERSION => Ok(()),
        version if version > VERSION => Err(HeadError::Version(version)),
        version => damaged(format!("there is no format {version}")),
    }
}

/// The checksum of a block: its lengths, then its stored bytes.
pub(super) fn block_checksum(stored_bytes: u32, raw_bytes: u32, stored: &[u8]) -> u32 {
    let mut lengths = [0; 8];
    lengths[..4].copy_from_slice(&stored_bytes.to_le_bytes());
    lengths[4..].copy_from_slice(&raw_bytes.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&lengths), stored)
}

/// Footer and tail.
pub(super) fn encode_footer(footer: &HeadFooter) -> Vec<u8> {
    let HeadMeta { cluster_id, index, ballot, members, keys, stamp_ms } = &footer.meta;
    let mut bytes = Vec::new();
    let cluster_id_bytes = u16::try_from(cluster_id.len()).expect("asserted by the writer");
    bytes.extend_from_slice(&cluster_id_bytes.to_le_bytes());
    bytes.extend_from_slice(cluster_id.as_bytes());
    bytes.extend_from_slice(&index.to_le_bytes());
    bytes.extend_from_slice(&ballot.round.to_le_bytes());
    bytes.push(ballot.node);
    bytes.extend_from_slice(&ballot.incarnation.to_le_bytes());
    bytes.push(u8::try_from(members.len()).expect("asserted by the writer"));
    for incarnation in members {
        bytes.extend_from_slice(&incarnation.to_le_bytes());
    }
    for number in [*keys, *stamp_ms, footer.rows, footer.bytes] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&footer.hash);
    bytes.extend_from_slice(&footer.index_offset.to_le_bytes());
    bytes.extend_from_slice(&footer.index_bytes.to_le_bytes());
    bytes.extend_from_slice(&footer.index_checksum.to_le_bytes());
    let footer_bytes = u32::try_from(bytes.len()).expect("its parts are bounded");
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&footer_bytes.to_le_bytes());
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes.extend_from_slice(&TAIL_MAGIC);
    bytes
}

/// The footer's length and checksum.
pub(super) fn decode_tail(bytes: &[u8; TAIL_BYTES]) -> Result<(usize, u32), HeadError> {
    let mut fields = Fields(bytes);
    let (footer_bytes, checksum) = (fields.u32()? as usize, fields.u32()?);
    if fields.array::<8>()? != TAIL_MAGIC {
        return damaged("wrong last bytes: the file is cut short");
    }
    if footer_bytes > FOOTER_BYTES_MAX {
        return damaged(format!("a footer of {footer_bytes} bytes"));
    }
    Ok((footer_bytes, checksum))
}

/// The footer, from the bytes before the tail.
pub(super) fn decode_footer(bytes: &[u8], checksum: u32) -> Result<HeadFooter, HeadError> {
    if crc32c::crc32c(bytes) != checksum {
        return damaged("the footer fails its checksum");
    }
    let mut fields = Fields(bytes);
    let cluster_id_bytes = usize::from(u16::from_le_bytes(fields.array()?));
    let Ok(cluster_id) = String::from_utf8(fields.take(cluster_id_bytes)?.to_vec()) else {
        return damaged("the cluster id is not UTF-8");
    };
    let index = fields.u64()?;
    let ballot = HeadBallot {
        round: fields.u64()?,
        node: fields.array::<1>()?[0],
        incarnation: fields.u64()?,
    };
    let members = (0..fields.array::<1>()?[0]).map(|_| fields.u64()).collect::<Result<_, _>>()?;
    let (keys, stamp_ms) = (fields.u64()?, fields.u64()?);
    let footer = HeadFooter {
        meta: HeadMeta { cluster_id, index, ballot, members, keys, stamp_ms },
        rows: fields.u64()?,
        bytes: fields.u64()?,
        hash: fields.array()?,
        index_offset: fields.u64()?,
        index_bytes: fields.u64()?,
        index_checksum: fields.u32()?,
    };
    if !fields.0.is_empty() {
        return damaged("bytes after the footer's last field");
    }
    Ok(footer)
}

/// Bytes that are read field by field, each length checked.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], HeadError> {
        let Some((taken, rest)) = self.0.split_at_checked(count) else {
            return damaged(format!("{count} bytes wanted where {} are left", self.0.len()));
        };
        self.0 = rest;
        Ok(taken)
    }

    pub fn array<const COUNT: usize>(&mut self) -> Result<[u8; COUNT], HeadError> {
        let mut array = [0; COUNT];
        array.copy_from_slice(self.take(COUNT)?);
        Ok(array)
    }

    pub fn u32(&mut self) -> Result<u32, HeadError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, HeadError> {
        Ok(u64::from_le_bytes(self.array()?))
    }
}
