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
    /// Bytes in the file.
    fn length(&self) -> io::Result<u64>;
    /// Makes data and length durable (fdatasync).
    fn sync(&self) -> io::Result<()>;
}
