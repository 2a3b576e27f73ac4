//! The engine below the layers: an ordered map of byte strings on disk.
//!
//! An engine is an index, not the truth: what it loses is rebuilt from head and log. It promises
//! three things. A batch is applied as a whole or not at all. After a killed process it holds the
//! effects of a prefix of the batches that includes everything up to the last [`Engine::flush`].
//! After a power cut it promises nothing; [`crate::store::Distrust`] covers that.
//!
//! Values are opaque here: the checksum inside them is made and checked by `sealed.rs`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::StoreError;
use super::engine_fjall::FjallEngine;
use super::engine_memory::MemoryEngine;
use super::engine_sled::SledEngine;

/// A row's new value; `None` removes the row.
pub type Change = (Bytes, Option<Bytes>);

/// An ordered map of byte strings.
pub trait Engine: Send + Sync {
    /// Applies all changes or none. Within a batch a row occurs once.
    fn apply(&self, changes: &[Change]) -> Result<(), StoreError>;

    /// The value of a row.
    fn get(&self, row: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Visits the rows with `first <= row < end`, ascending, or descending when `reverse`, until
    /// `visit` returns false. Rows changed meanwhile may or may not be seen with their change.
    fn scan(
        &self,
        first: &[u8],
        end: Option<&[u8]>,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], Bytes) -> bool,
    ) -> Result<(), StoreError>;

    /// Removes at most `rows_max` rows with `first <= row < end`; returns how many. Less than
    /// `rows_max` means that none is left.
    fn delete_range(
        &self,
        first: &[u8],
        end: Option<&[u8]>,
        rows_max: usize,
    ) -> Result<usize, StoreError> {
        let mut changes = Vec::new();
        self.scan(first, end, false, &mut |row, _| {
            changes.push((Bytes::copy_from_slice(row), None));
            changes.len() < rows_max
        })?;
        if !changes.is_empty() {
            self.apply(&changes)?;
        }
        Ok(changes.len())
    }

    /// Hands what was applied to the operating system: it survives the death of the process.
    fn flush(&self) -> Result<(), StoreError>;

    /// Gives back room on disk that it needs no longer, if it puts that off. Goes on afterwards, and then
    /// there may be more: to be called again some seconds later.
    fn give_back(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// How many changes at once go beside what is there, if the engine knows how to do that.
    fn ingest(&self) -> Option<&dyn Ingest> {
        None
    }

    /// Flushes, and makes it durable as far as the engine can.
    fn sync(&self) -> Result<(), StoreError>;

    /// Removes every row, quickly. Not atomic.
    fn wipe(&self) -> Result<(), StoreError>;

    /// Syncs everything and lets go of the files. Nothing may be called afterwards.
    fn close(&self) -> Result<(), StoreError>;
}

/// An engine that takes any number of changes at once and writes them beside what it has: readers do not
/// wait meanwhile, and none of it is written twice.
pub trait Ingest {
    /// No longer row is taken.
    fn row_bytes_max(&self) -> usize;

    /// Applies all changes, which ascend, or none, and flushes. One of them at least is no removal, and
    /// will never be removed.
    fn ingest(&self, changes: &mut dyn Iterator<Item = Change>) -> Result<(), StoreError>;
}

/// Which engine a node uses, and where. A node's own choice: heads do not depend on it.
#[derive(Clone, Debug)]
pub enum EngineChoice {
    /// sled, alone in a directory of its own.
    Sled {
        /// The directory. Everything in it belongs to the engine and may be deleted by it.
        directory: PathBuf,
        /// sled's page cache; the process grows by up to four times as much.
        cache_capacity_bytes: u64,
        /// How often sled writes its buffers out by itself.
        flush_every_ms: u64,
    },
    /// fjall, alone in a directory of its own.
    Fjall {
        /// The directory. Everything in it belongs to the engine and may be deleted by it.
        directory: PathBuf,
        /// fjall's block cache; the rows not yet in its files come on top.
        cache_capacity_bytes: u64,
    },
    /// Rows in memory that outlive the store, not the process: for simulation and tests.
    Memory(MemoryEngine),
}

impl EngineChoice {
    /// sled with its usual settings.
    pub fn sled(directory: impl Into<PathBuf>) -> Self {
        EngineChoice::Sled {
            directory: directory.into(),
            cache_capacity_bytes: 64 << 20,
            flush_every_ms: 500,
        }
    }

    /// The engine's name, as remembered outside of it.
    pub fn name(&self) -> &'static str {
        match self {
            EngineChoice::Sled { .. } => "sled",
            EngineChoice::Fjall { .. } => "fjall",
            EngineChoice::Memory(_) => "memory",
        }
    }

    /// Opens what is there, or creates it. A panic inside the engine is an error here.
    pub(super) fn open(&self) -> Result<Box<dyn Engine>, StoreError> {
        match self {
            EngineChoice::Sled { directory, cache_capacity_bytes, flush_every_ms } => Ok(Box::new(
                SledEngine::open(directory.clone(), *cache_capacity_bytes, *flush_every_ms)?,
            )),
            EngineChoice::Fjall { directory, cache_capacity_bytes } => {
                Ok(Box::new(FjallEngine::open(directory.clone(), *cache_capacity_bytes)?))
            }
            EngineChoice::Memory(engine) => Ok(Box::new(engine.clone())),
        }
    }

    /// Deletes everything without opening it.
    pub(super) fn delete_files(&self) -> Result<(), StoreError> {
        match self {
            EngineChoice::Sled { directory, .. } | EngineChoice::Fjall { directory, .. } => {
                Ok(delete_directory(directory)?)
            }
            EngineChoice::Memory(engine) => engine.wipe(),
        }
    }

    /// Whether there are files that a kill while opening leaves behind. sled writes its recovery
    /// state to `snap.<number>.generating` and takes a torn one for a good one. They are deleted
    /// with all the rest, once the distrust is on disk.
    pub(super) fn has_leftovers(&self) -> Result<bool, StoreError> {
        let EngineChoice::Sled { directory, .. } = self else { return Ok(false) };
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        for entry in entries {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("snap.") && name.ends_with(".generating") {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Deletes a directory with all that is in it; one that is missing is fine.
pub(super) fn delete_directory(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Syncs every file and directory at and below `path`.
pub(super) fn sync_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(path)?.sync_all()
}
