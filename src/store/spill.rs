//! A frozen layer in a file: what waits for a long-lived view must not fill the memory.
//!
//! The file has no name once it is written to, so that nothing is left of it after a kill; what it
//! holds is also in the transaction log. It is blocks of changes, encoded as in the drain journal;
//! in memory stay each block's place and checksum, and a short hash of each row, so that looking up
//! a row that is not here reads nothing.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;

use super::changes::Changes;
use super::engine::Change;
use super::journal::{decode_changes, encode_change};
use super::rows::StoreError;

const BLOCK_BYTES: usize = 32 << 10;

struct Block {
    first: Bytes,
    offset: u64,
    bytes: usize,
    checksum: u32,
}

/// A layer's changes in a file.
pub(super) struct SpilledLayer {
    file: fs::File,
    blocks: Vec<Block>,
    /// Sorted.
    row_hashes: Vec<u32>,
}

impl SpilledLayer {
    /// Writes changes to a nameless file in `directory`.
    pub fn write(directory: &Path, changes: &Changes) -> Result<Self, StoreError> {
        fs::create_dir_all(directory)?;
        let path = directory.join("spilled-layer");
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        fs::remove_file(&path)?;
        let mut blocks = Vec::new();
        let mut row_hashes: Vec<u32> = changes.keys().map(|row| crc32c::crc32c(row)).collect();
        row_hashes.sort_unstable();
        let mut offset = 0;
        let mut block = Vec::with_capacity(BLOCK_BYTES * 2);
        let mut first = None;
        let mut rows = changes.iter().peekable();
        while let Some((row, value)) = rows.next() {
            first.get_or_insert(row);
            encode_change(&mut block, row, value.as_ref());
            if block.len() < BLOCK_BYTES && rows.peek().is_some() {
                continue;
            }
            file.write_all(&block)?;
            blocks.push(Block {
                first: first.take().unwrap_or(row).clone(),
                offset,
                bytes: block.len(),
                checksum: crc32c::crc32c(&block),
            });
            offset += block.len() as u64;
            block.clear();
        }
        Ok(SpilledLayer { file, blocks, row_hashes })
    }

    /// Memory still taken, about.
    pub fn memory_bytes(&self) -> usize {
        self.row_hashes.len() * 4
            + self.blocks.iter().map(|block| block.first.len() + 64).sum::<usize>()
    }

    fn read(&self, block: &Block) -> Result<Vec<Change>, StoreError> {
        let mut bytes = vec![0; block.bytes];
        self.file.read_exact_at(&mut bytes, block.offset)?;
        (crc32c::crc32c(&bytes) == block.checksum)
            .then(|| decode_changes(bytes.into()))
            .flatten()
            .ok_or_else(|| StoreError::Damaged("a spilled layer fails its checksum".into()))
    }

    /// The number of blocks that begin at or before `row`.
    fn blocks_to(&self, row: &[u8]) -> usize {
        self.blocks.partition_point(|block| block.first[..] <= *row)
    }

    /// What this layer says about a row.
    pub fn get(&self, row: &[u8]) -> Result<Option<Option<Bytes>>, StoreError> {
        if self.row_hashes.binary_search(&crc32c::crc32c(row)).is_err() {
            return Ok(None);
        }
        let Some(block) = self.blocks[..self.blocks_to(row)].last() else { return Ok(None) };
        let mut changes = self.read(block)?;
        let found = changes.binary_search_by(|(other, _)| other[..].cmp(row));
        Ok(found.ok().map(|place| changes.swap_remove(place).1))
    }

    /// The changes with `first <= row < end`, ascending or descending.
    pub fn scan<'a>(
        &'a self,
        first: &[u8],
        end: Option<&[u8]>,
        reverse: bool,
    ) -> impl Iterator<Item = Result<Change, StoreError>> + 'a {
        let low = self.blocks_to(first).saturating_sub(1);
        let high = end.map_or(self.blocks.len(), |end| self.blocks_to(end)).max(low);
        let first = Bytes::copy_from_slice(first);
        let end = end.map(Bytes::copy_from_slice);
        let count = high - low;
        (0..count).map(move |step| if reverse { high - 1 - step } else { low + step }).flat_map(
            move |place| match self.read(&self.blocks[place]) {
                Ok(mut changes) => {
                    changes.retain(|(row, _)| {
                        *row >= first && end.as_ref().is_none_or(|end| row < end)
                    });
                    if reverse {
                        changes.reverse();
                    }
                    changes.into_iter().map(Ok).collect::<Vec<_>>()
                }
                Err(error) => vec![Err(error)],
            },
        )
    }
}
