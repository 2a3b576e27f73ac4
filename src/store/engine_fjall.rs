//! fjall 3 as the engine.
//!
//! A log-structured tree: batches go to its journal and to a table in memory, and from there to
//! sorted files that are merged in the background. A batch reaches the operating system with
//! [`Engine::flush`] and the disk with [`Engine::sync`]. Its keys are shorter than ours may be, so
//! the few rows longer than [`PLAIN_BYTES`] are kept under their beginning and a hash; they lie
//! together, behind all that sorts before them, and are put in order when they are visited.

use std::fs;
use std::io;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use fjall::compaction::Leveled;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use parking_lot::RwLock;

use super::StoreError;
use super::engine::{Change, Engine, Ingest, delete_directory, sync_tree};
use super::engine_fence;

/// The longest row that is its own key; fjall's limit is 65,535 bytes.
const PLAIN_BYTES: usize = 60_000;
const HASH_BYTES: usize = blake3::OUT_LEN;

/// One fjall database; its only keyspace holds the rows.
pub struct FjallEngine {
    directory: PathBuf,
    cache_capacity_bytes: u64,
    /// `None` once closed, and when opening again after a wipe failed.
    files: RwLock<Option<Files>>,
    /// So many times there may be room to give back.
    to_give_back: AtomicU8,
}

#[derive(Clone)]
struct Files {
    // Before the database: the database waits for what still works on its keyspaces.
    rows: Keyspace,
    database: Database,
}

/// Threads that flush and compact. One of them only flushes, and as long as all others compact it turns
/// without end, with a processor to itself: with as many threads as processors, if those are two, it did
/// so during each compaction. There are hardly ever so many compactions at once. A single thread may
/// wait for itself.
const WORKERS: usize = 6;

/// No row of ours: what removes it changes nothing.
const NO_ROW: &[u8] = &[u8::MAX; 5];
/// So many tables that overlap are merged with what lies below. Less merging with more of them, and
/// more tables that a read looks at.
const OVERLAPPING_MERGED: u8 = 8;
/// With so many, compactions are behind.
const OVERLAPPING_MANY: usize = 12;
/// With so many, what is ingested waits for compactions, a while; what is in batches waits by itself.
const OVERLAPPING_MAX: usize = 24;
/// A journal begins with half of it. Batches that ingestions come between would let it grow for ever.
const JOURNAL_BYTES_MAX: u64 = 128 << 20;
/// What was ingested leads to compactions, each of which removes what the one before replaced.
const GIVEN_BACK_TIMES: u8 = 2;
const COMPACTION_WAIT: Duration = Duration::from_millis(10);
const COMPACTION_WAITS_MAX: usize = 1000;

impl FjallEngine {
    /// Files it may keep open, beside clients and peers.
    pub const OPEN_FILES_MAX: usize = 256;

    /// Opens or creates the database in `directory`.
    pub fn open(directory: PathBuf, cache_capacity_bytes: u64) -> Result<Self, StoreError> {
        let engine = FjallEngine {
            directory,
            cache_capacity_bytes,
            files: RwLock::new(None),
            to_give_back: AtomicU8::new(0),
        };
        *engine.files.write() = Some(engine.open_files()?);
        Ok(engine)
    }

    fn open_files(&self) -> Result<Files, StoreError> {
        fs::create_dir_all(&self.directory)?;
        fenced(|| {
            let database = Database::builder(&self.directory)
                .cache_size(self.cache_capacity_bytes)
                .max_cached_files(Some(FjallEngine::OPEN_FILES_MAX))
                .worker_threads(WORKERS)
                .open()?;
            let rows = database.keyspace("rows", || {
                let strategy = Leveled::default().with_l0_threshold(OVERLAPPING_MERGED);
                KeyspaceCreateOptions::default().compaction_strategy(Arc::new(strategy))
            })?;
            Ok(Files { rows, database })
        })
    }

    /// The handles are cloned out, so that no lock is held while visitors run.
    fn files(&self) -> Result<Files, StoreError> {
        self.files.read().clone().ok_or_else(|| StoreError::Engine("fjall is closed".into()))
    }

    /// Has compactions looked for, and files removed that are needed no longer: what is flushed asks for
    /// that, with as many compactions as there are workers. What is ingested asks for one compaction only,
    /// in vain while another one has its tables, and the journal and the tables that the last compaction
    /// replaced stay.
    fn ask_for_compactions(rows: &Keyspace) -> fjall::Result<()> {
        rows.remove(NO_ROW)?;
        rows.rotate_memtable().map(drop)
    }

    fn persist(&self, mode: PersistMode) -> Result<(), StoreError> {
        let files = self.files()?;
        fenced(|| files.database.persist(mode))
    }

    fn drop_files(&self) -> Result<(), StoreError> {
        let files = self.files.write().take();
        fenced(|| {
            drop(files);
            Ok(())
        })
    }
}

/// Runs a call into fjall; its panics mean damage.
fn fenced<T>(call: impl FnOnce() -> fjall::Result<T>) -> Result<T, StoreError> {
    engine_fence::fenced("fjall", || {
        call().map_err(|error| match error {
            fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => {
                match is_of_content(&error) {
                    true => StoreError::Damaged(format!("fjall: {error}")),
                    false => StoreError::Io(error),
                }
            }
            fjall::Error::Poisoned | fjall::Error::KeyspaceDeleted | fjall::Error::Locked => {
                StoreError::Engine(format!("fjall: {error}"))
            }
            error => StoreError::Damaged(format!("fjall: {error}")),
        })
    })
}

/// Whether it is what stands in the files that is wrong, or which of them are there, and not the
/// device or the system: a flipped bit in a name, a place or a length comes back as such an error.
fn is_of_content(error: &io::Error) -> bool {
    use io::ErrorKind::{
        AlreadyExists, InvalidData, InvalidInput, IsADirectory, NotADirectory, NotFound,
        UnexpectedEof,
    };
    let kinds = [
        AlreadyExists,
        InvalidData,
        InvalidInput,
        IsADirectory,
        NotADirectory,
        NotFound,
        UnexpectedEof,
    ];
    error.raw_os_error().is_none() || kinds.contains(&error.kind())
}

/// A row as it is kept: its key and what stands before its value.
fn stored(row: &[u8]) -> (Bytes, &[u8]) {
    match row.split_at_checked(PLAIN_BYTES) {
        None | Some((_, [])) => (Bytes::copy_from_slice(row), &[]),
        Some((beginning, rest)) => {
            (Bytes::from([beginning, blake3::hash(row).as_bytes()].concat()), rest)
        }
    }
}

/// A long row's value, and the rest of the row that stands before it, in one piece.
fn join(rest: &[u8], value: &[u8]) -> Vec<u8> {
    [&(rest.len() as u32).to_le_bytes(), rest, value].concat()
}

/// The rest of a long row, and its value.
fn split(kept: &[u8]) -> Result<(&[u8], &[u8]), StoreError> {
    let cut = || StoreError::Damaged("fjall: a long row is cut short".into());
    let (length, kept) = kept.split_first_chunk::<4>().ok_or_else(cut)?;
    kept.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(cut)
}

fn is_long(key: &[u8]) -> bool {
    key.len() > PLAIN_BYTES
}

impl Ingest for FjallEngine {
    fn row_bytes_max(&self) -> usize {
        PLAIN_BYTES
    }

    fn ingest(&self, changes: &mut dyn Iterator<Item = Change>) -> Result<(), StoreError> {
        let Files { rows, database } = self.files()?;
        fenced(|| {
            let mut ingestion = rows.start_ingestion()?;
            for (row, value) in changes {
                match value {
                    Some(value) => ingestion.write(&row[..], &value[..])?,
                    None => ingestion.write_tombstone(&row[..])?,
                }
            }
            // Once killed, fjall takes from its journal what is newer than all its tables. A value that
            // stays, the marker, keeps these tables from vanishing with all that they removed.
            ingestion.finish()?;
            self.to_give_back.store(GIVEN_BACK_TIMES, Ordering::Relaxed);
            let journal_grows = database.journal_disk_space()? > JOURNAL_BYTES_MAX;
            if journal_grows || rows.l0_table_count() >= OVERLAPPING_MANY {
                FjallEngine::ask_for_compactions(&rows)?;
            }
            let waits = |_: &usize| rows.l0_table_count() >= OVERLAPPING_MAX;
            (0..COMPACTION_WAITS_MAX)
                .take_while(waits)
                .for_each(|_| thread::sleep(COMPACTION_WAIT));
            Ok(())
        })
    }
}

impl Engine for FjallEngine {
    fn apply(&self, changes: &[Change]) -> Result<(), StoreError> {
        let Files { rows, database } = self.files()?;
        fenced(|| {
            let mut batch = database.batch();
            for (row, value) in changes {
                let (key, rest) = stored(row);
                match value {
                    Some(value) if is_long(&key) => {
                        batch.insert(&rows, &key[..], join(rest, value))
                    }
                    Some(value) => batch.insert(&rows, &key[..], &value[..]),
                    None => batch.remove(&rows, &key[..]),
                }
            }
            batch.commit()
        })
    }

    fn get(&self, row: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let guard = self.files.read();
        let files = guard.as_ref().ok_or_else(|| StoreError::Engine("fjall is closed".into()))?;
        if row.len() <= PLAIN_BYTES {
            // Copied, because the value may be a slice that keeps a whole block alive.
            return Ok(fenced(|| files.rows.get(row))?.map(|value| Bytes::copy_from_slice(&value)));
        }
        let (key, rest) = stored(row);
        let Some(kept) = fenced(|| files.rows.get(&key))? else { return Ok(None) };
        let (kept_rest, value) = split(&kept)?;
        Ok((kept_rest == rest).then(|| Bytes::copy_from_slice(value)))
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
        let Files { rows, database: _open } = self.files()?;
        let low = &first[..first.len().min(PLAIN_BYTES)];
        let behind_all_long;
        let high = match end {
            None => Bound::Unbounded,
            Some(end) if end.len() <= PLAIN_BYTES => Bound::Excluded(end),
            Some(end) => {
                behind_all_long = [&end[..PLAIN_BYTES], &[u8::MAX; HASH_BYTES]].concat();
                Bound::Included(&behind_all_long[..])
            }
        };
        let mut found = fenced(|| Ok(rows.range::<&[u8], _>((Bound::Included(low), high))))?;
        let within = |row: &[u8]| row >= first && end.is_none_or(|end| row < end);
        // Long rows of one beginning, which come in the order of their hashes.
        let mut long: Vec<Vec<u8>> = Vec::new();
        let visit_long = |long: &mut Vec<Vec<u8>>,
                          visit: &mut dyn FnMut(&[u8], Bytes) -> bool|
         -> Result<bool, StoreError> {
            long.sort_unstable();
            if reverse {
                long.reverse();
            }
            for row in long.drain(..) {
                // Gone meanwhile: as for any row that is changed during the scan.
                if let Some(value) = self.get(&row)?
                    && !visit(&row, value)
                {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        // Only fjall's own steps are fenced: a panic of the visitor is not fjall's.
        while let Some((key, kept)) = fenced(|| {
            let next = if reverse { found.next_back() } else { found.next() };
            next.map(|row| row.into_inner()).transpose()
        })? {
            let beginning = &key[..key.len().min(PLAIN_BYTES)];
            let other = long.first().is_some_and(|row| &row[..PLAIN_BYTES] != beginning);
            if (other || !is_long(&key)) && !visit_long(&mut long, visit)? {
                return Ok(());
            }
            if is_long(&key) {
                let row = [beginning, split(&kept)?.0].concat();
                if within(&row) {
                    long.push(row);
                }
            } else if within(&key) && !visit(&key, Bytes::copy_from_slice(&kept)) {
                return Ok(());
            }
        }
        visit_long(&mut long, visit).map(|_| ())
    }

    fn give_back(&self) -> Result<(), StoreError> {
        let left = self.to_give_back.load(Ordering::Relaxed);
        self.to_give_back.store(left.saturating_sub(1), Ordering::Relaxed);
        match left > 0 {
            true => self
                .files()
                .and_then(|files| fenced(|| FjallEngine::ask_for_compactions(&files.rows))),
            false => Ok(()),
        }
    }

    fn ingest(&self) -> Option<&dyn Ingest> {
        Some(self)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.persist(PersistMode::Buffer)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.persist(PersistMode::SyncAll)
    }

    fn wipe(&self) -> Result<(), StoreError> {
        self.drop_files()?;
        delete_directory(&self.directory)?;
        *self.files.write() = Some(self.open_files()?);
        Ok(())
    }

    fn close(&self) -> Result<(), StoreError> {
        self.sync()?;
        self.drop_files()?;
        Ok(sync_tree(&self.directory)?)
    }
}

#[cfg(test)]
mod tests;
