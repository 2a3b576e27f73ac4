//! Makes the next segment's file ahead of time: filled with zeros and synced, so that its blocks
//! are allocated and its length is durable before the first record needs them.
//!
//! Filled in slices with a sync each, so that the log's own syncs wait for one slice at most. The
//! log takes the file when it needs it, finished or not, and finishes it itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::LogError;
use super::segment::PREPARING_NAME;
use crate::disk::{BLOCK_BYTES, Disk, DiskFile, Open};

const SLICE_BYTES: u64 = 1 << 20;
/// From half of the segment in use on, so many bytes are filled for each that is appended: the
/// next segment is there when three quarters are used, and the disk is busy with it evenly.
const FILLED_PER_APPENDED: u64 = 4;

/// Prepares segments beside the log; a clone works on the same file.
#[derive(Clone)]
pub struct SegmentPreparer {
    shared: Arc<Shared>,
}

struct Shared {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    path: PathBuf,
    segment_bytes: u64,
    /// Held for one slice at a time.
    next: Mutex<Option<Preparing>>,
    active_end: AtomicU64,
    active_bytes: AtomicU64,
}

/// A file under the name [`PREPARING_NAME`] whose first `filled_bytes` are synced zeros.
pub(super) struct Preparing {
    pub file: Arc<dyn DiskFile>,
    pub filled_bytes: u64,
}

impl SegmentPreparer {
    /// The file of an interrupted preparation must have been removed.
    pub(super) fn new(disk: Arc<dyn Disk>, directory: &Path, segment_bytes: u64) -> Self {
        SegmentPreparer {
            shared: Arc::new(Shared {
                disk,
                directory: directory.to_owned(),
                path: directory.join(PREPARING_NAME),
                segment_bytes,
                next: Mutex::new(None),
                active_end: AtomicU64::new(0),
                active_bytes: AtomicU64::new(u64::MAX),
            }),
        }
    }

    /// Prepares the next segment once the one in use is half full; does nothing when that is done.
    ///
    /// # Errors
    /// [`LogError::Full`] when the disk has no room for it: announce it; appending goes on into
    /// the segment in use, and a later call tries again. Any other error is a failing disk.
    #[cfg(test)]
    pub fn prepare_if_needed(&self) -> Result<(), LogError> {
        if self.appended_past_half() > 0 {
            while self.fill_slice(&mut self.shared.next.lock(), self.shared.segment_bytes)? {}
        }
        Ok(())
    }

    /// One slice of the next segment, at the pace at which the one in use fills up; true when
    /// another is due now.
    ///
    /// # Errors
    /// [`LogError::Full`] when the disk has no room for it: announce it; appending goes on into
    /// the segment in use, and a later call tries again. Any other error is a failing disk.
    pub fn prepare_step(&self) -> Result<bool, LogError> {
        let due = self.appended_past_half().saturating_mul(FILLED_PER_APPENDED);
        let bytes = due.min(self.shared.segment_bytes).next_multiple_of(BLOCK_BYTES);
        if due == 0 || self.bytes_on_disk() >= bytes {
            return Ok(false);
        }
        self.fill_slice(&mut self.shared.next.lock(), bytes)
    }

    /// Bytes in the second half of the segment in use.
    fn appended_past_half(&self) -> u64 {
        let half = self.shared.active_bytes.load(Ordering::Relaxed) / 2;
        self.shared.active_end.load(Ordering::Relaxed).saturating_sub(half)
    }

    /// Bytes of the prepared file so far.
    pub(super) fn bytes_on_disk(&self) -> u64 {
        self.shared.next.lock().as_ref().map_or(0, |next| next.filled_bytes)
    }

    /// Tells how full the segment in use is.
    pub(super) fn note_active(&self, end: u64, bytes: u64) {
        self.shared.active_end.store(end, Ordering::Relaxed);
        self.shared.active_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Hands the prepared file, with at least `bytes` of synced zeros, to `rename`, which must take
    /// it away from its name: until that is done no other file can be made there.
    pub(super) fn take<T>(
        &self,
        bytes: u64,
        rename: impl FnOnce(Preparing) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        let mut next = self.shared.next.lock();
        while self.fill_slice(&mut next, bytes)? {}
        rename(next.take().expect("filled just now under the same lock"))
    }

    pub(super) fn path(&self) -> &Path {
        &self.shared.path
    }

    fn fill_slice(&self, next: &mut Option<Preparing>, bytes: u64) -> Result<bool, LogError> {
        let result = self.try_fill_slice(next, bytes);
        if result.is_err() && next.take().is_some() {
            // Gives the space back; the next attempt starts over with a new file.
            let _ = self.shared.disk.remove(&self.shared.path);
        }
        result
    }

    fn try_fill_slice(&self, next: &mut Option<Preparing>, bytes: u64) -> Result<bool, LogError> {
        let Shared { disk, directory, path, segment_bytes, .. } = &*self.shared;
        let preparing = match next {
            Some(preparing) => preparing,
            None => {
                let free = disk
                    .bytes_free(directory)
                    .map_err(|e| LogError::io("ask for the free space of", directory, e))?;
                if free < bytes.max(*segment_bytes) {
                    return Err(LogError::Full { action: "create", path: path.clone() });
                }
                let file = disk
                    .open(path, Open::CreateNew)
                    .map_err(|e| LogError::io("create", path, e))?;
                next.insert(Preparing { file, filled_bytes: 0 })
            }
        };
        if preparing.filled_bytes >= bytes {
            return Ok(false);
        }
        let count = (bytes - preparing.filled_bytes).min(SLICE_BYTES);
        preparing
            .file
            .fill_with_zeros(preparing.filled_bytes, count)
            .map_err(|e| LogError::io("fill", path, e))?;
        preparing.file.sync().map_err(|e| LogError::io("sync", path, e))?;
        preparing.filled_bytes += count;
        Ok(preparing.filled_bytes < bytes)
    }
}
