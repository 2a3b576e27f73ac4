//! A small disk of a node's own, which can be filled: a file system in memory.
//!
//! What was written stays when the node is killed. Left out: power cuts and lost syncs; the
//! simulator has those.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::enclosure::run;

const DISK_MIB: u64 = 512;

/// Mounted in the enclosure, and gone with it.
pub struct SmallDisk {
    mount_point: PathBuf,
}

impl SmallDisk {
    pub fn mount(mount_point: PathBuf) -> anyhow::Result<SmallDisk> {
        std::fs::create_dir_all(&mount_point)?;
        let size = format!("size={DISK_MIB}m");
        let place = mount_point.to_str().context("a path in UTF-8")?;
        run(&["mount", "-t", "tmpfs", "-o", &size, "tmpfs", place])?;
        Ok(SmallDisk { mount_point })
    }

    pub fn path(&self) -> &Path {
        &self.mount_point
    }

    fn ballast(&self) -> PathBuf {
        self.mount_point.join("ballast")
    }

    /// Leaves so many bytes free.
    pub fn fill(&self, left_bytes: u64) -> anyhow::Result<()> {
        let usage = statvfs(&self.mount_point)?;
        let ballast_bytes = (usage.f_bavail * usage.f_frsize).saturating_sub(left_bytes);
        let file = File::create(self.ballast())?;
        match fallocate(&file, FallocateFlags::empty(), 0, ballast_bytes.max(1)) {
            // The node was faster: the disk is full as well.
            Ok(()) | Err(rustix::io::Errno::NOSPC) => Ok(()),
            Err(error) => Err(error).context("cannot fill the disk"),
        }
    }

    pub fn free(&self) -> anyhow::Result<()> {
        std::fs::remove_file(self.ballast()).context("cannot free the disk")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the node is gone, but the kernel may not have noticed yet.
        if let Some(place) = self.mount_point.to_str()
            && let Err(error) = run(&["umount", "--lazy", place])
        {
            eprintln!("{error:#}");
        }
    }
}
