//! A file that is read and written as a whole: the drain journal and the trust file.
//!
//! A trait of the store's own, because the store knows nothing of the node's disk.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

/// One file, read and written as a whole.
pub trait SmallFile: Send + Sync {
    /// All bytes; `None` when there is no such file.
    fn read(&self) -> io::Result<Option<Vec<u8>>>;
    /// Writes the file, over an old one in place: a killed process may leave a part of it.
    fn write(&self, bytes: &[u8]) -> io::Result<()>;
    /// Replaces the file as a whole and durably.
    fn replace(&self, bytes: &[u8]) -> io::Result<()>;
    /// Removes the file, if it is there. Not durable.
    fn remove(&self) -> io::Result<()>;
}

/// A [`SmallFile`] of the operating system.
#[derive(Clone, Debug)]
pub struct RealFile {
    path: PathBuf,
}

impl RealFile {
    /// The file at `path`; its directory must exist when it is written.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        RealFile { path: path.into() }
    }
}

impl SmallFile for RealFile {
    fn read(&self) -> io::Result<Option<Vec<u8>>> {
        match fs::read(&self.path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        File::create(&self.path)?.write_all(bytes)
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let mut aside = self.path.clone().into_os_string();
        aside.push(".new");
        let mut file = File::create(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&aside, &self.path)?;
        match self.path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => File::open(parent)?.sync_all(),
            None => File::open(".")?.sync_all(),
        }
    }

    fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// A [`SmallFile`] in memory; clones share it. For simulation and tests.
#[derive(Clone, Debug, Default)]
pub struct MemoryFile {
    bytes: Arc<Mutex<Option<Vec<u8>>>>,
}

impl MemoryFile {
    /// A file that is not there yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes as they are.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        self.bytes.lock().clone()
    }

    /// Puts other bytes (or none) in place, as a fault would.
    pub fn set(&self, bytes: Option<Vec<u8>>) {
        *self.bytes.lock() = bytes;
    }
}

impl SmallFile for MemoryFile {
    fn read(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.bytes())
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.set(Some(bytes.to_vec()));
        Ok(())
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        self.write(bytes)
    }

    fn remove(&self) -> io::Result<()> {
        self.set(None);
        Ok(())
    }
}
