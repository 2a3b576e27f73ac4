//! The files of one node, behind a trait, so that the simulator can stand in for the disk.
//!
//! Paths are absolute or relative to the process; callers join them. Every error of these calls is
//! a storage error: the node stops, and a failed sync is never retried (design rule 11).

use std::io;
use std::path::Path;
use std::sync::Arc;

mod real;
mod simulated;

pub use real::RealDisk;
pub use simulated::SimulatedDisk;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// Must exist; for reading only.
    Read,
    /// Must exist; for reading and writing.
    Write,
    /// Must not exist yet; for reading and writing.
    CreateNew,
}

/// What a file system writes at once; files that are filled ahead are used in pieces of it.
pub const BLOCK_BYTES: u64 = 4096;

/// Aligned like a block, which direct writes need.
#[repr(align(4096))]
struct Zeros([u8; ZEROS_BYTES]);

const ZEROS_BYTES: usize = 1 << 20;
static ZEROS: Zeros = Zeros([0; ZEROS_BYTES]);

/// A directory tree on which a power cut forgets what was not synced.
pub trait Disk: Send + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>>;
    /// Replaces `to` by `from`. Durable only after [`Disk::sync_directory`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Durable only after [`Disk::sync_directory`].
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The names (not paths) of the files in a directory, sorted; empty when it does not exist.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;
    /// Creates a directory and its parents, durably.
    fn create_directory(&self, directory: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in a directory durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
    /// Bytes that can still be written to the file system that holds `directory`.
    fn bytes_free(&self, directory: &Path) -> io::Result<u64>;
}

/// An open file. Positioned reads and writes, so that readers need no lock.
pub trait DiskFile: Send + Sync {
    /// Reads up to `buffer.len()` bytes at `offset`; less only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Writes whole blocks, from memory that is aligned like a block; past the page cache, if the file
    /// system can do that. Readers see what was written.
    fn write_blocks(&self, blocks: &[u8], offset: u64) -> io::Result<()> {
        self.write_at(blocks, offset)
    }
    /// Writes so many zeros at `offset`, which were never written before. Whole blocks may go past
    /// the page cache: the first write to a block should then be of all of it, since any other has
    /// to read it first.
    fn fill_with_zeros(&self, offset: u64, bytes: u64) -> io::Result<()> {
        write_zeros(&|zeros, at| self.write_at(zeros, at), offset, bytes)
    }
    /// Bytes in the file.
    fn length(&self) -> io::Result<u64>;
    /// Makes data and length durable (fdatasync).
    fn sync(&self) -> io::Result<()>;
}

/// Writes zeros at `offset`, in pieces that are aligned in memory.
pub fn write_zeros(
    write: &dyn Fn(&[u8], u64) -> io::Result<()>,
    offset: u64,
    bytes: u64,
) -> io::Result<()> {
    let (mut at, end) = (offset, offset + bytes);
    while at < end {
        let count = (end - at).min(ZEROS_BYTES as u64);
        write(&ZEROS.0[..count as usize], at)?;
        at += count;
    }
    Ok(())
}
