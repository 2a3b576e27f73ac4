//! Segment files: their names and their header block.

use std::path::{Path, PathBuf};

use super::{Identity, LogError};
use crate::disk::{Disk, DiskFile};
use crate::paxos::Incarnation;

/// Bytes of the header block; the first record follows it.
pub(super) const SEGMENT_HEADER_BYTES: usize = 4096;
/// The file that becomes the next segment has this name until its first record is synced.
pub(super) const PREPARING_NAME: &str = "next.preparing";

const MAGIC: [u8; 8] = *b"arakolog";
const VERSION: u32 = 1;
const NAME_BYTES_MAX: usize = 1024;
const CRC: std::ops::Range<usize> = 12..16;

/// What the header block of a segment says.
#[derive(Clone, Debug)]
pub(super) struct SegmentHeader {
    /// From 1, one more than the previous segment's.
    pub id: u64,
    /// Bytes of the whole file.
    pub length_bytes: u64,
    pub identity: Identity,
}

pub(super) fn segment_path(directory: &Path, id: u64) -> PathBuf {
    directory.join(format!("{id:016}.log"))
}

/// The ids of the segments in a directory, in order. Files with other names are not ours.
pub(super) fn segment_ids(disk: &dyn Disk, directory: &Path) -> Result<Vec<u64>, LogError> {
    let names = disk.list(directory).map_err(|e| LogError::io("list", directory, e))?;
    let mut ids: Vec<u64> = names
        .iter()
        .filter_map(|name| {
            let digits = name.strip_suffix(".log")?;
            let id: u64 = digits.parse().ok()?;
            (id > 0 && segment_path(Path::new(""), id).to_str() == Some(name.as_str()))
                .then_some(id)
        })
        .collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Removes what an interrupted preparation left behind.
pub(super) fn remove_unfinished(disk: &dyn Disk, directory: &Path) -> Result<(), LogError> {
    let names = disk.list(directory).map_err(|e| LogError::io("list", directory, e))?;
    if names.iter().any(|name| name == PREPARING_NAME) {
        let path = directory.join(PREPARING_NAME);
        disk.remove(&path).map_err(|e| LogError::io("remove", &path, e))?;
    }
    Ok(())
}

impl SegmentHeader {
    /// The block and its checksum, which seeds those of the segment's records.
    pub fn encode(&self) -> Result<(Vec<u8>, u32), LogError> {
        let Identity { cluster_id, node_name, incarnation } = &self.identity;
        if cluster_id.len() > NAME_BYTES_MAX || node_name.len() > NAME_BYTES_MAX {
            return Err(LogError::IdentityTooLong);
        }
        let mut block = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        block.extend_from_slice(&MAGIC);
        block.extend_from_slice(&VERSION.to_le_bytes());
        block.extend_from_slice(&[0; 4]);
        block.extend_from_slice(&self.id.to_le_bytes());
        block.extend_from_slice(&self.length_bytes.to_le_bytes());
        block.extend_from_slice(&incarnation.0.to_le_bytes());
        for name in [cluster_id, node_name] {
            block.extend_from_slice(&(name.len() as u16).to_le_bytes());
            block.extend_from_slice(name.as_bytes());
        }
        block.resize(SEGMENT_HEADER_BYTES, 0);
        let crc = crc32c::crc32c(&block);
        block[CRC].copy_from_slice(&crc.to_le_bytes());
        Ok((block, crc))
    }

    /// Reads and checks the header block of `file`; also returns its checksum.
    pub fn read(file: &dyn DiskFile, path: &Path) -> Result<(SegmentHeader, u32), LogError> {
        let mut block = vec![0; SEGMENT_HEADER_BYTES];
        let count = file.read_at(&mut block, 0).map_err(|e| LogError::io("read", path, e))?;
        if count < SEGMENT_HEADER_BYTES {
            return Err(LogError::damaged(path, count as u64, "the file ends in its header"));
        }
        let crc = u32_at(&block, CRC.start);
        block[CRC].fill(0);
        if block[..8] != MAGIC || crc32c::crc32c(&block) != crc {
            return Err(LogError::damaged(path, 0, "the segment's header is not valid"));
        }
        let version = u32_at(&block, 8);
        if version != VERSION {
            return Err(LogError::Version {
                file: path.to_owned(),
                found: version,
                known: VERSION,
            });
        }
        let mut at = 40;
        let mut name = || {
            let length = usize::from(u16::from_le_bytes([block[at], block[at + 1]]));
            let bytes = block.get(at + 2..at + 2 + length.min(NAME_BYTES_MAX))?;
            at += 2 + bytes.len();
            (bytes.len() == length).then(|| String::from_utf8(bytes.to_vec()).ok())?
        };
        let (Some(cluster_id), Some(node_name)) = (name(), name()) else {
            return Err(LogError::damaged(path, 40, "the names in the header are not valid"));
        };
        let identity =
            Identity { cluster_id, node_name, incarnation: Incarnation(u64_at(&block, 32)) };
        let header =
            SegmentHeader { id: u64_at(&block, 16), length_bytes: u64_at(&block, 24), identity };
        Ok((header, crc))
    }
}

fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(block[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(block: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(block[at..at + 8].try_into().expect("eight bytes"))
}
