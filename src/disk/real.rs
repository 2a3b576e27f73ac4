//! The operating system's files.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustix::fs::OFlags;

use super::{BLOCK_BYTES, Disk, DiskFile, Open, write_zeros};

/// The machine's own disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match how {
            Open::Read => {}
            Open::Write => {
                options.write(true);
            }
            Open::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        Ok(Arc::new(RealFile { file: options.open(path)?, direct: OnceLock::new() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        if directory.is_dir() {
            return Ok(());
        }
        if let Some(parent) = directory.parent().filter(|p| !p.as_os_str().is_empty()) {
            self.create_directory(parent)?;
            fs::create_dir(directory)?;
            return self.sync_directory(parent);
        }
        fs::create_dir(directory)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn bytes_free(&self, directory: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(directory)?;
        Ok(stat.f_bavail * stat.f_frsize)
    }
}

/// A file, and the same for writing past the page cache.
struct RealFile {
    file: File,
    /// Opened when it is needed; `None`: the file system cannot do that.
    direct: OnceLock<Option<File>>,
}

impl RealFile {
    fn direct(&self) -> Option<&File> {
        let open = || {
            // Not by its name, which may have changed.
            let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            let flags = OFlags::DIRECT.bits() as i32;
            OpenOptions::new().write(true).custom_flags(flags).open(path).ok()
        };
        self.direct.get_or_init(open).as_ref()
    }

    /// Past the page cache; false: that cannot be done.
    fn write_directly(&self, bytes: &[u8], offset: u64) -> io::Result<bool> {
        let whole = |number: u64| number.is_multiple_of(BLOCK_BYTES);
        let aligned = whole(bytes.as_ptr().addr() as u64) && whole(bytes.len() as u64);
        if !aligned || !whole(offset) {
            return Ok(false);
        }
        let Some(direct) = self.direct() else { return Ok(false) };
        match direct.write_all_at(bytes, offset) {
            // This file system, or its disk, wants another alignment.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(false),
            done => done.map(|()| true),
        }
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match FileExt::read_at(&self.file, &mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn write_blocks(&self, blocks: &[u8], offset: u64) -> io::Result<()> {
        match self.write_directly(blocks, offset)? {
            true => Ok(()),
            false => self.write_at(blocks, offset),
        }
    }

    fn fill_with_zeros(&self, offset: u64, bytes: u64) -> io::Result<()> {
        // Through the page cache the zeros of a segment would be copied, and push out what is used.
        write_zeros(&|zeros, at| self.write_blocks(zeros, at), offset, bytes)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether or not the file system of the test can write past its page cache.
    #[test]
    fn what_was_written_in_blocks_is_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        let file = RealDisk.open(&path, Open::CreateNew).expect("is made");
        let block = BLOCK_BYTES as usize;
        let room: Vec<u8> = (0..4 * block).map(|n| (n % 251) as u8).collect();
        let first = room.as_ptr().align_offset(block);
        file.fill_with_zeros(0, 3 * BLOCK_BYTES + 7).expect("is filled");
        file.write_blocks(&room[first..first + 2 * block], BLOCK_BYTES).expect("is written");
        // Read, so that the page cache has it, then written again.
        let mut read = vec![1; 3 * block + 8];
        assert_eq!(file.read_at(&mut read, 0).expect("is read"), 3 * block + 7);
        file.write_blocks(&room[first..first + block], 2 * BLOCK_BYTES).expect("is written");
        assert_eq!(file.read_at(&mut read, 0).expect("is read"), 3 * block + 7);
        assert_eq!(read[..block], vec![0; block]);
        assert_eq!(read[block..2 * block], room[first..first + block]);
        assert_eq!(read[2 * block..3 * block], room[first..first + block]);
        // Neither aligned nor whole blocks: written all the same, and under another name.
        let renamed = directory.path().join("renamed");
        RealDisk.rename(&path, &renamed).expect("is renamed");
        file.write_blocks(&room[first + 1..first + 11], 5).expect("is written");
        file.write_blocks(&room[first..first + block], 0).expect("is written");
        file.sync().expect("is synced");
        let again = RealDisk.open(&renamed, Open::Read).expect("is there");
        assert_eq!(again.read_at(&mut read, 0).expect("is read"), 3 * block + 7);
        assert_eq!(read[..block], room[first..first + block]);
    }
}
