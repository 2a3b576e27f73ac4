//! sled 0.34 as the engine.
//!
//! What was measured shapes it: sled's own `flush` writes without fsync, so [`Engine::sync`] also
//! syncs the file `db`; sled panics on damage, at open and later, so every call is fenced; clearing
//! a tree removes row by row, so [`Engine::wipe`] deletes the files and opens new ones. The
//! background flush stays on and compression off.

use std::fs::{self, File};
use std::ops::Bound;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::RwLock;

use super::StoreError;
use super::engine::{Change, Engine, delete_directory, sync_tree};
use super::engine_fence;

/// A database that was dropped holds its file until sled's own threads have noticed, a moment later.
/// Another process that has it open is told of after this time.
const FORMER_LETS_GO: Duration = Duration::from_secs(2);

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
        let deadline = Instant::now() + FORMER_LETS_GO;
        loop {
            match fenced(|| config.open()) {
                Err(StoreError::Io(error))
                    if error.to_string().starts_with("could not acquire lock")
                        && Instant::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(5));
                }
                opened => return opened,
            }
        }
    }

    /// The handle is cloned out, so that no lock is held while visitors run.
    fn db(&self) -> Result<sled::Db, StoreError> {
        self.db.read().clone().ok_or_else(|| StoreError::Engine("sled is closed".into()))
    }
}

/// Runs a call into sled; its panics mean damage.
fn fenced<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    engine_fence::fenced("sled", || {
        call().map_err(|error| match error {
            sled::Error::Io(error) => StoreError::Io(error),
            sled::Error::Corruption { .. } | sled::Error::ReportableBug(_) => {
                StoreError::Damaged(format!("sled: {error}"))
            }
            _ => StoreError::Engine(format!("sled: {error}")),
        })
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_held_by_another_is_no_damage() {
        let directory = tempfile::tempdir().expect("a directory");
        let open = || SledEngine::open(directory.path().join("sled"), 1 << 20, 500);
        let _first = open().expect("opens");
        assert!(matches!(open(), Err(StoreError::Io(_))));
    }
}
