//! sled 0.34 as the engine.
//!
//! What was measured shapes it: sled's own `flush` writes without fsync, so [`Engine::sync`] also
//! syncs the file `db`; sled panics on damage, at open and later, so every call is fenced; clearing
//! a tree removes row by row, so [`Engine::wipe`] deletes the files and opens new ones. The
//! background flush stays on and compression off.

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use parking_lot::RwLock;

use super::StoreError;
use super::engine::{Change, Engine, delete_directory};

/// One sled database; its default tree holds the rows.
pub struct SledEngine {
    directory: PathBuf,
    cache_capacity_bytes: u64,
    flush_every_ms: u64,
    /// `None` once closed, and when opening again after a wipe failed.
    db: RwLock<Option<sled::Db>>,
}

impl SledEngine {
    /// Opens or creates the database in `directory`.
    pub fn open(
        directory: PathBuf,
        cache_capacity_bytes: u64,
        flush_every_ms: u64,
    ) -> Result<Self, StoreError> {
        let engine =
            SledEngine { directory, cache_capacity_bytes, flush_every_ms, db: RwLock::new(None) };
        *engine.db.write() = Some(engine.open_files()?);
        Ok(engine)
    }

    fn open_files(&self) -> Result<sled::Db, StoreError> {
        fs::create_dir_all(&self.directory)?;
        let config = sled::Config::new()
            .path(&self.directory)
            .cache_capacity(self.cache_capacity_bytes)
            .flush_every_ms(Some(self.flush_every_ms));
        fenced(|| config.open())
    }

    /// The handle is cloned out, so that no lock is held while visitors run.
    fn db(&self) -> Result<sled::Db, StoreError> {
        self.db.read().clone().ok_or_else(|| StoreError::Engine("sled is closed".into()))
    }
}

thread_local! {
    static CALLS_SLED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic on this thread is about to become an error: for a panic hook, which runs before
/// it is caught.
pub fn engine_panic_is_caught() -> bool {
    CALLS_SLED.with(Cell::get)
}

/// Runs a call into sled; its panics mean damage.
fn fenced<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    let outer = CALLS_SLED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    CALLS_SLED.set(outer);
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) => Err(StoreError::Io(error)),
        Ok(Err(error @ (sled::Error::Corruption { .. } | sled::Error::ReportableBug(_)))) => {
            Err(StoreError::Damaged(format!("sled: {error}")))
        }
        Ok(Err(error)) => Err(StoreError::Engine(format!("sled: {error}"))),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Err(StoreError::Damaged(format!("sled panicked: {text}")))
        }
    }
}

impl Engine for SledEngine {
    fn apply(&self, changes: &[Change]) -> Result<(), StoreError> {
        let db = self.db()?;
        let mut batch = sled::Batch::default();
        for (row, value) in changes {
            match value {
                Some(value) => batch.insert(&row[..], &value[..]),
                None => batch.remove(&row[..]),
            }
        }
        fenced(|| db.apply_batch(batch))
    }

    fn get(&self, row: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let guard = self.db.read();
        let db = guard.as_ref().ok_or_else(|| StoreError::Engine("sled is closed".into()))?;
        // Copied, because a sled value may be a slice that keeps a whole page alive.
        Ok(fenced(|| db.get(row))?.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(
        &self,
        first: &[u8],
        end: Option<&[u8]>,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], Bytes) -> bool,
    ) -> Result<(), StoreError> {
        if end.is_some_and(|end| end <= first) {
            return Ok(());
        }
        let db = self.db()?;
        let high = end.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rows = fenced(|| Ok(db.range::<&[u8], _>((Bound::Included(first), high))))?;
        // Only sled's own steps are fenced: a panic of the visitor is not sled's.
        while let Some((row, value)) =
            fenced(|| if reverse { rows.next_back() } else { rows.next() }.transpose())?
        {
            if !visit(&row, Bytes::copy_from_slice(&value)) {
                break;
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        let db = self.db()?;
        fenced(|| db.flush()).map(|_| ())
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.flush()?;
        Ok(File::open(self.directory.join("db"))?.sync_all()?)
    }

    fn wipe(&self) -> Result<(), StoreError> {
        let mut db = self.db.write();
        let old = db.take();
        fenced(|| {
            drop(old);
            Ok(())
        })?;
        delete_directory(&self.directory)?;
        *db = Some(self.open_files()?);
        Ok(())
    }

    fn close(&self) -> Result<(), StoreError> {
        self.flush()?;
        let old = self.db.write().take();
        fenced(|| {
            drop(old);
            Ok(())
        })?;
        Ok(sync_tree(&self.directory)?)
    }
}

/// Syncs every file and directory at and below `path`.
fn sync_tree(path: &Path) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_inside_sled_is_damage() {
        let result = fenced(|| -> sled::Result<()> { panic!("page {} is torn", 7) });
        assert!(
            matches!(&result, Err(StoreError::Damaged(what)) if what.contains("page 7 is torn"))
        );
    }

    #[test]
    fn a_lock_held_by_another_is_no_damage() {
        let directory = tempfile::tempdir().expect("a directory");
        let open = || SledEngine::open(directory.path().join("sled"), 1 << 20, 500);
        let _first = open().expect("opens");
        assert!(matches!(open(), Err(StoreError::Io(_))));
    }
}
