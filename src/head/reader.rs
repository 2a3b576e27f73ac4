//! Reading a head: its footer, its rows in order or from a row on, and the check of the whole.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

use super::format::{
    BLOCK_BYTES, BLOCK_HEADER_BYTES, Fields, HEADER_BYTES, TAIL_BYTES, block_checksum,
    check_header, damaged, decode_footer, decode_tail,
};
use super::{HeadError, HeadFooter, ROW_BYTES_MAX};

/// What rows of one block take at most, uncompressed.
const RAW_BYTES_MAX: usize = BLOCK_BYTES + ROW_BYTES_MAX + 8;

/// An immutable file.
pub trait ReadAt {
    /// Reads at `offset`; returns how many bytes, 0 only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Bytes in the file.
    fn length(&self) -> io::Result<u64>;
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|start| self.get(start..));
        let rest = rest.unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

fn read_exact(file: &impl ReadAt, buffer: &mut [u8], offset: u64) -> Result<(), HeadError> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => return damaged("the file is cut short"),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// An open head whose footer is checked; its rows are checked as they are read.
#[derive(Debug)]
pub struct HeadReader<F> {
    file: F,
    footer: HeadFooter,
}

impl<F: ReadAt> HeadReader<F> {
    /// Opens a head and checks header and footer.
    pub fn open(file: F) -> Result<Self, HeadError> {
        let length = file.length()?;
        let Some(after_header) = length.checked_sub((HEADER_BYTES + TAIL_BYTES) as u64) else {
            return damaged(format!("a file of {length} bytes"));
        };
        let mut header = [0; HEADER_BYTES];
        read_exact(&file, &mut header, 0)?;
        check_header(&header)?;
        let mut tail = [0; TAIL_BYTES];
        read_exact(&file, &mut tail, length - TAIL_BYTES as u64)?;
        let (footer_bytes, checksum) = decode_tail(&tail)?;
        if footer_bytes as u64 > after_header {
            return damaged("a footer longer than the file");
        }
        let footer_offset = length - (TAIL_BYTES + footer_bytes) as u64;
        let mut bytes = vec![0; footer_bytes];
        read_exact(&file, &mut bytes, footer_offset)?;
        let footer = decode_footer(&bytes, checksum)?;
        let index_end = footer.index_offset.checked_add(footer.index_bytes);
        if footer.index_offset < HEADER_BYTES as u64 || index_end != Some(footer_offset) {
            return damaged("the index does not lie before the footer");
        }
        Ok(HeadReader { file, footer })
    }

    /// The head's last part.
    pub fn footer(&self) -> &HeadFooter {
        &self.footer
    }

    /// All rows, ascending. After an error it ends.
    pub fn rows(&self) -> HeadRows<'_, F> {
        self.rows_at(HEADER_BYTES as u64, Some(self.footer.rows))
    }

    /// The rows from `first` on, ascending. Reads the index to find them.
    pub fn rows_from(&self, first: &[u8]) -> Result<HeadRows<'_, F>, HeadError> {
        let index = self.read_index()?;
        // The last block that begins at or before `first` may hold it.
        let mut start = (HEADER_BYTES as u64, 0);
        let mut rows = 0;
        let mut fields = Fields(&index);
        while !fields.0.is_empty() {
            let (offset, block_rows, block_first) = index_entry(&mut fields)?;
            if block_first > first {
                break;
            }
            start = (offset, rows);
            rows += u64::from(block_rows);
        }
        let Some(left) = self.footer.rows.checked_sub(start.1) else {
            return damaged("the index counts more rows than the footer");
        };
        let mut found = self.rows_at(start.0, Some(left));
        found.skip_before = Some(Bytes::copy_from_slice(first));
        Ok(found)
    }

    fn rows_at(&self, offset: u64, left: Option<u64>) -> HeadRows<'_, F> {
        HeadRows {
            head: self,
            offset,
            block: Bytes::new(),
            last: None,
            rows_left: left,
            skip_before: None,
            checks: None,
        }
    }

    fn read_index(&self) -> Result<Vec<u8>, HeadError> {
        // Within the file, as opening has checked: this allocates no more than there is.
        let Ok(index_bytes) = usize::try_from(self.footer.index_bytes) else {
            return damaged("an index that no memory holds");
        };
        let mut index = vec![0; index_bytes];
        read_exact(&self.file, &mut index, self.footer.index_offset)?;
        if crc32c::crc32c(&index) != self.footer.index_checksum {
            return damaged("the index fails its checksum");
        }
        Ok(index)
    }

    /// Reads the whole file: every checksum, order, counts, the index, and the hash must be right.
    pub fn verify(&self) -> Result<(), HeadError> {
        let index = self.read_index()?;
        let mut bytes = 0;
        let mut rows = self.rows();
        rows.checks = Some(Checks { index: &index, hasher: blake3::Hasher::new() });
        for row in &mut rows {
            let (row, value) = row?;
            bytes += (row.len() + value.len()) as u64;
        }
        let Checks { index, hasher } = rows.checks.expect("it was put there");
        if !index.is_empty() {
            return damaged("the index names blocks that are not there");
        }
        if bytes != self.footer.bytes {
            return damaged(format!("{bytes} bytes of rows, not {}", self.footer.bytes));
        }
        if *hasher.finalize().as_bytes() != self.footer.hash {
            return damaged("the rows do not have the footer's hash");
        }
        Ok(())
    }
}

/// Offset, rows and first row of the next block in the index.
fn index_entry<'a>(fields: &mut Fields<'a>) -> Result<(u64, u32, &'a [u8]), HeadError> {
    let (offset, rows, first_bytes) = (fields.u64()?, fields.u32()?, fields.u32()? as usize);
    Ok((offset, rows, fields.take(first_bytes)?))
}

/// The rows of a head, ascending, one block in memory at a time.
pub struct HeadRows<'a, F> {
    head: &'a HeadReader<F>,
    /// Where the next block begins.
    offset: u64,
    /// The rest of the current block's raw rows.
    block: Bytes,
    last: Option<Bytes>,
    /// Rows that must still come; `None` once it has ended.
    rows_left: Option<u64>,
    skip_before: Option<Bytes>,
    checks: Option<Checks<'a>>,
}

/// What blocks are compared with when a whole head is checked.
struct Checks<'a> {
    /// The rest of the index.
    index: &'a [u8],
    /// Takes in the rows, which are what blocks consist of.
    hasher: blake3::Hasher,
}

impl<F: ReadAt> HeadRows<'_, F> {
    fn next_row(&mut self) -> Result<Option<(Bytes, Bytes)>, HeadError> {
        if self.block.is_empty() && !self.next_block()? {
            return match self.rows_left {
                Some(0) | None => Ok(None),
                Some(left) => damaged(format!("{left} rows are missing")),
            };
        }
        let mut fields = Fields(&self.block);
        let (row_bytes, value_bytes) = (fields.u32()? as usize, fields.u32()? as usize);
        fields.take(row_bytes)?;
        fields.take(value_bytes)?;
        let row = self.block.slice(8..8 + row_bytes);
        let value = self.block.slice(8 + row_bytes..8 + row_bytes + value_bytes);
        self.block = self.block.slice(8 + row_bytes + value_bytes..);
        if self.last.as_ref().is_some_and(|last| *last >= row) {
            return damaged("rows do not ascend");
        }
        self.last = Some(row.clone());
        self.rows_left = match self.rows_left.map(|left| left.checked_sub(1)) {
            Some(None) => return damaged("more rows than the footer counts"),
            Some(left) => left,
            None => None,
        };
        Ok(Some((row, value)))
    }

    /// Reads the next block; false at the end.
    fn next_block(&mut self) -> Result<bool, HeadError> {
        let end = self.head.footer.index_offset;
        if self.offset == end {
            return Ok(false);
        }
        let stored_max = end
            .checked_sub(self.offset)
            .and_then(|left| left.checked_sub(BLOCK_HEADER_BYTES as u64));
        let Some(stored_max) = stored_max else {
            return damaged(format!("no whole block at {}", self.offset));
        };
        let mut header = [0; BLOCK_HEADER_BYTES];
        read_exact(&self.head.file, &mut header, self.offset)?;
        let mut fields = Fields(&header);
        let (stored_bytes, raw_bytes, checksum) = (fields.u32()?, fields.u32()?, fields.u32()?);
        if u64::from(stored_bytes) > stored_max
            || stored_bytes as usize > lz4_flex::block::get_maximum_output_size(RAW_BYTES_MAX)
        {
            return damaged(format!("a block of {stored_bytes} bytes at {}", self.offset));
        }
        let mut stored = vec![0; stored_bytes as usize];
        read_exact(&self.head.file, &mut stored, self.offset + BLOCK_HEADER_BYTES as u64)?;
        if block_checksum(stored_bytes, raw_bytes, &stored) != checksum {
            return damaged(format!("the block at {} fails its checksum", self.offset));
        }
        let raw_bytes = raw_bytes as usize;
        // lz4 cannot expand a byte to more than 255.
        if raw_bytes == 0 || raw_bytes > RAW_BYTES_MAX.min(stored.len() * 255) {
            return damaged(format!("a block of {raw_bytes} raw bytes at {}", self.offset));
        }
        let raw = match lz4_flex::block::decompress(&stored, raw_bytes) {
            Ok(raw) if raw.len() == raw_bytes => raw,
            Ok(raw) => return damaged(format!("{} raw bytes, not {raw_bytes}", raw.len())),
            Err(error) => return damaged(format!("the block at {}: {error}", self.offset)),
        };
        if let Some(Checks { index, hasher }) = &mut self.checks {
            hasher.update(&raw);
            let mut entries = Fields(index);
            let (offset, rows, first) = index_entry(&mut entries)?;
            *index = entries.0;
            check_indexed(&raw, offset == self.offset, rows, first)?;
        }
        self.block = raw.into();
        self.offset += BLOCK_HEADER_BYTES as u64 + u64::from(stored_bytes);
        Ok(true)
    }
}

/// Compares a block with what the index says of it.
fn check_indexed(raw: &[u8], offset_fits: bool, rows: u32, first: &[u8]) -> Result<(), HeadError> {
    let mut fields = Fields(raw);
    let mut count = 0;
    let mut first_found = None;
    while !fields.0.is_empty() {
        let (row_bytes, value_bytes) = (fields.u32()? as usize, fields.u32()? as usize);
        let row = fields.take(row_bytes)?;
        fields.take(value_bytes)?;
        first_found.get_or_insert(row);
        count += 1;
    }
    if !offset_fits || count != rows || first_found != Some(first) {
        return damaged("the index does not fit the blocks");
    }
    Ok(())
}

impl<F: ReadAt> Iterator for HeadRows<'_, F> {
    type Item = Result<(Bytes, Bytes), HeadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.rows_left?;
        loop {
            match self.next_row() {
                Ok(Some((row, value))) => {
                    if self.skip_before.as_ref().is_some_and(|first| row < *first) {
                        continue;
                    }
                    self.skip_before = None;
                    return Some(Ok((row, value)));
                }
                Ok(None) => {
                    self.rows_left = None;
                    return None;
                }
                Err(error) => {
                    self.rows_left = None;
                    return Some(Err(error));
                }
            }
        }
    }
}
