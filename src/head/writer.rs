//! Writing a head as a stream, in memory for one block and a short index entry per block.

use std::io::Write;

use super::format::{BLOCK_BYTES, block_checksum, encode_footer, header};
use super::{HeadError, HeadFooter, HeadMeta, ROW_BYTES_MAX};

/// What a finished head adds up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadSummary {
    /// BLAKE3 over the logical rows; equal on every node for the same index.
    pub hash: [u8; 32],
    /// Bytes of all rows and values, uncompressed.
    pub bytes: u64,
    /// Rows written.
    pub rows: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
}

/// Writes one head. The caller syncs and renames the file once it is finished.
pub struct HeadWriter<W: Write> {
    file: W,
    meta: HeadMeta,
    /// Bytes written to `file`.
    offset: u64,
    /// The raw rows of the block that is being filled.
    block: Vec<u8>,
    block_first: Vec<u8>,
    block_rows: u32,
    index: Vec<u8>,
    last: Option<Vec<u8>>,
    hasher: blake3::Hasher,
    rows: u64,
    bytes: u64,
}

impl<W: Write> HeadWriter<W> {
    /// Starts a head. Writes come in pieces of a block, about 64 KiB before compression.
    pub fn new(mut file: W, meta: HeadMeta) -> Result<Self, HeadError> {
        let cluster_id_bytes = meta.cluster_id.len();
        assert!(cluster_id_bytes <= 0xffff, "a cluster id of {cluster_id_bytes} bytes");
        assert!(meta.members.len() <= 255, "{} members", meta.members.len());
        let header = header();
        file.write_all(&header)?;
        Ok(HeadWriter {
            file,
            meta,
            offset: header.len() as u64,
            block: Vec::with_capacity(BLOCK_BYTES * 2),
            block_first: Vec::new(),
            block_rows: 0,
            index: Vec::new(),
            last: None,
            hasher: blake3::Hasher::new(),
            rows: 0,
            bytes: 0,
        })
    }

    /// Adds a row. Rows ascend strictly, and a row with its value is at most [`ROW_BYTES_MAX`].
    pub fn push(&mut self, row: &[u8], value: &[u8]) -> Result<(), HeadError> {
        assert!(
            self.last.as_deref().is_none_or(|last| last < row),
            "row {} does not ascend after {}",
            row.escape_ascii(),
            self.last.as_deref().unwrap_or_default().escape_ascii()
        );
        let row_bytes = row.len() + value.len();
        assert!(row_bytes <= ROW_BYTES_MAX, "a row of {row_bytes} bytes");
        self.block.extend_from_slice(&(row.len() as u32).to_le_bytes());
        self.block.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.block.extend_from_slice(row);
        self.block.extend_from_slice(value);
        if self.block_rows == 0 {
            self.block_first.clear();
            self.block_first.extend_from_slice(row);
        }
        self.block_rows += 1;
        self.rows += 1;
        self.bytes += row_bytes as u64;
        let last = self.last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(row);
        if self.block.len() >= BLOCK_BYTES {
            self.end_block()?;
        }
        Ok(())
    }

    fn end_block(&mut self) -> Result<(), HeadError> {
        // As a whole: many pieces of one input are hashed beside each other, single rows are not.
        self.hasher.update(&self.block);
        let stored = lz4_flex::block::compress(&self.block);
        let (stored_bytes, raw_bytes) = (stored.len() as u32, self.block.len() as u32);
        let checksum = block_checksum(stored_bytes, raw_bytes, &stored);
        self.index.extend_from_slice(&self.offset.to_le_bytes());
        self.index.extend_from_slice(&self.block_rows.to_le_bytes());
        self.index.extend_from_slice(&(self.block_first.len() as u32).to_le_bytes());
        self.index.extend_from_slice(&self.block_first);
        for number in [stored_bytes, raw_bytes, checksum] {
            self.write(&number.to_le_bytes())?;
        }
        self.write(&stored)?;
        self.block.clear();
        self.block.shrink_to(BLOCK_BYTES * 2);
        self.block_rows = 0;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), HeadError> {
        self.file.write_all(bytes)?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// Writes index and footer and flushes the writer.
    pub fn finish(mut self) -> Result<HeadSummary, HeadError> {
        if self.block_rows > 0 {
            self.end_block()?;
        }
        let index = std::mem::take(&mut self.index);
        let footer = HeadFooter {
            meta: std::mem::take(&mut self.meta),
            rows: self.rows,
            bytes: self.bytes,
            hash: *self.hasher.finalize().as_bytes(),
            index_offset: self.offset,
            index_bytes: index.len() as u64,
            index_checksum: crc32c::crc32c(&index),
        };
        self.write(&index)?;
        self.write(&encode_footer(&footer))?;
        self.file.flush()?;
        Ok(HeadSummary {
            hash: footer.hash,
            bytes: footer.bytes,
            rows: footer.rows,
            file_bytes: self.offset,
        })
    }
}
