//! What is written next, in whole blocks: the file is written past the page cache, which takes
//! nothing less. So the block that the records end in is written once more with the next ones.

use super::LogError;
use super::index::Segment;
use crate::disk::BLOCK_BYTES;

const BLOCK: usize = BLOCK_BYTES as usize;

/// Room up to this size is doubled when it grows.
const DOUBLED_BYTES_MAX: usize = 1 << 20;

/// Blocks in memory that is aligned like a block.
#[derive(Default)]
pub(super) struct Blocks {
    room: Vec<u8>,
    /// Where the first block begins in `room`.
    first: usize,
    /// Bytes of the blocks.
    length: usize,
    /// The file and its end that the bytes before `length` belong to; `None`: none.
    of: Option<(u64, u64)>,
}

impl Blocks {
    /// Makes these the bytes of segment `id` from the beginning of the block that `end` is in up to
    /// there.
    pub fn begin(&mut self, id: u64, segment: &Segment, end: u64) -> Result<(), LogError> {
        if self.of == Some((id, end)) {
            return Ok(());
        }
        let begun = (end % BLOCK_BYTES) as usize;
        self.length = 0;
        self.append(&[0; BLOCK][..begun]);
        let read = segment.file.read_at(self.filled_mut(), end - begun as u64);
        let count = read.map_err(|e| LogError::io("read", &segment.path, e))?;
        assert_eq!(count, begun, "segment {id} is shorter than what was written");
        self.of = Some((id, end));
        Ok(())
    }

    /// Adds bytes, then zeros up to the block's end, but not past so many bytes in all.
    pub fn fill(&mut self, bytes: &[u8], length_max: u64) {
        self.append(bytes);
        let padded = self.length.next_multiple_of(BLOCK).min(length_max as usize);
        self.append(&[0; BLOCK][..padded - self.length]);
    }

    /// All of them.
    pub fn filled(&self) -> &[u8] {
        &self.room[self.first..self.first + self.length]
    }

    /// They are written, and the segment ends here now; keeps the block that has room.
    pub fn written(&mut self, end: u64) {
        let Some((id, before)) = self.of else { panic!("blocks of no segment") };
        let begun = (end % BLOCK_BYTES) as usize;
        let start = (end - begun as u64 - (before - before % BLOCK_BYTES)) as usize;
        let start = self.first + start;
        self.room.copy_within(start..start + begun, self.first);
        self.length = begun;
        self.of = Some((id, end));
    }

    /// Gives memory back if it is more than this.
    pub fn shrink(&mut self, kept_bytes: usize) {
        if self.room.len() > kept_bytes {
            *self = Blocks::default();
        }
    }

    fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.room[self.first..self.first + self.length]
    }

    fn append(&mut self, bytes: &[u8]) {
        let length = self.length + bytes.len();
        if self.first + length > self.room.len() {
            self.grow(length);
        }
        let start = self.first + self.length;
        self.room[start..start + bytes.len()].copy_from_slice(bytes);
        self.length = length;
    }

    fn grow(&mut self, length: usize) {
        // Large saves are rare, and the room for one is given back.
        let spare = if length <= DOUBLED_BYTES_MAX { length } else { 0 };
        let mut room = vec![0; length + spare + 2 * BLOCK];
        let first = room.as_ptr().align_offset(BLOCK);
        room[first..first + self.length].copy_from_slice(self.filled());
        (self.room, self.first) = (room, first);
    }
}
