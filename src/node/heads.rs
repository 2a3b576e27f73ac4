//! The head files of one node: written aside, checked, renamed; served to others and taken from
//! them; two are kept.
//!
//! Names in the directory: `INDEX.head` for heads, `INDEX.HASH.part` for one being fetched,
//! `writing` for one being written (INDEX: 16 hexadecimal digits).

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::applier::{Frozen, members};
use super::head_plan::HeadSize;
use super::message::{HeadChunk, HeadName};
use crate::disk::{Disk, DiskFile, Open};
use crate::head::{HeadBallot, HeadError, HeadMeta, HeadReader, HeadWriter, ReadAt};
use crate::paxos::{Ballot, Incarnation, Index, NodeId, Position};
use crate::planted::{Bug, plants};
use crate::store::keyspace::Meta;
use crate::store::{Store, StoreError};

/// Bytes of a head in one message.
pub const CHUNK_BYTES: usize = 512 << 10;
const WRITING: &str = "writing";
const PART: &str = ".part";
/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 256 << 10;

/// A head file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HeadFileError {
    /// Its content.
    #[error("{path}: {error}")]
    Head {
        /// Which file.
        path: PathBuf,
        /// Why not.
        error: HeadError,
    },
    /// The file system.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// The store that it came from, or that it goes to.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node stops; the head is not needed.
    #[error("the node stops")]
    Stopped,
    /// The disk is nearly full, and the head could come later.
    #[error("the disk is nearly full")]
    NoRoom,
    /// It belongs to another cluster.
    #[error("{path} is a head of the cluster {cluster_id:?}")]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// Whose.
        cluster_id: String,
    },
}

impl HeadFileError {
    /// There was no room for it.
    pub fn is_full_disk(&self) -> bool {
        match self {
            HeadFileError::Io { error, .. } => {
                matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            HeadFileError::NoRoom => true,
            _ => false,
        }
    }
}

/// A head that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadInfo {
    /// Index and hash.
    pub name: HeadName,
    /// The entry whose state it is.
    pub position: Position,
    /// The life of each seat then.
    pub members: Vec<Incarnation>,
    /// The log's clock then.
    pub stamp_ms: u64,
    /// Of file and state.
    pub size: HeadSize,
}

/// All heads of one node. Clones share them; usable from several threads.
#[derive(Clone)]
pub struct HeadDirectory {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    cluster_id: String,
    /// Oldest first.
    heads: Arc<Mutex<Vec<HeadInfo>>>,
    writing: Arc<AtomicBool>,
    /// The last one that was begun could not be written.
    failed: Arc<AtomicBool>,
    /// Changes since the node began that the newest head has.
    saved: Arc<AtomicU64>,
}

impl HeadDirectory {
    /// Lists what is there; a file that is no head of this version is left alone, with a warning.
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        cluster_id: &str,
    ) -> Result<HeadDirectory, HeadFileError> {
        let at = |error| HeadFileError::Io { path: directory.to_path_buf(), error };
        disk.create_directory(directory).map_err(at)?;
        // A head may have got its name in a run that ended before the name was on disk. The log is
        // about to rely on it, and would then start after a head that the next power cut takes away.
        if !plants(Bug::HeadNameNotSynced) {
            disk.sync_directory(directory).map_err(at)?;
        }
        let this = HeadDirectory {
            disk,
            directory: directory.to_path_buf(),
            cluster_id: cluster_id.to_string(),
            heads: Arc::default(),
            writing: Arc::default(),
            failed: Arc::default(),
            saved: Arc::default(),
        };
        let mut heads = Vec::new();
        for name in this.disk.list(directory).map_err(at)? {
            if !name.ends_with(".head") {
                // What was being written or fetched when the node stopped.
                this.disk.remove(&directory.join(&name)).map_err(at)?;
                continue;
            }
            match this.read_info(&directory.join(&name)) {
                Ok(info) => heads.push(info),
                Err(error @ HeadFileError::Foreign { .. }) => return Err(error),
                Err(error) => tracing::error!(%error, "this head cannot be used"),
            }
        }
        heads.sort_by_key(|head: &HeadInfo| head.name.index);
        *this.heads.lock() = heads;
        Ok(this)
    }

    /// Oldest first.
    pub fn list(&self) -> Vec<HeadInfo> {
        self.heads.lock().clone()
    }

    /// The one with the highest index.
    pub fn newest(&self) -> Option<HeadInfo> {
        self.heads.lock().last().cloned()
    }

    /// Whether one is being written now.
    pub fn is_writing(&self) -> bool {
        self.writing.load(Ordering::Relaxed)
    }

    /// Whether the last one that was begun could not be written, for want of room. A head that came
    /// from another node in between, or a stop, is no failure.
    pub fn last_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// How many changes since the node began the newest head has.
    pub fn saved_changes(&self) -> u64 {
        self.saved.load(Ordering::Relaxed)
    }

    /// See [`HeadDirectory::saved_changes`].
    pub(super) fn note_saved(&self, changes: u64) {
        self.saved.store(changes, Ordering::Relaxed);
    }

    /// Bytes of all heads.
    pub fn bytes_on_disk(&self) -> u64 {
        self.heads.lock().iter().map(|head| head.size.file_bytes).sum()
    }

    /// Writes a head, reads it back and checks it, and only then gives it its name. `pace` is
    /// called now and then with the bytes done, to slow the work down, or to end it.
    pub fn write(
        &self,
        frozen: &Frozen,
        pace: impl FnMut(u64) -> Result<(), HeadFileError>,
    ) -> Result<HeadInfo, HeadFileError> {
        self.writing.store(true, Ordering::Relaxed);
        let written = self.try_write(frozen, pace);
        match &written {
            Err(HeadFileError::Stopped | HeadFileError::Store(StoreError::Replaced)) => (),
            written => self.failed.store(written.is_err(), Ordering::Relaxed),
        }
        if written.is_ok() {
            self.note_saved(frozen.changes);
        }
        self.writing.store(false, Ordering::Relaxed);
        if written.as_ref().is_err_and(HeadFileError::is_full_disk) {
            self.remove_if_there(&self.directory.join(WRITING))?;
        }
        written
    }

    fn try_write(
        &self,
        frozen: &Frozen,
        mut pace: impl FnMut(u64) -> Result<(), HeadFileError>,
    ) -> Result<HeadInfo, HeadFileError> {
        let path = self.directory.join(WRITING);
        let keys = Meta::read(&frozen.view)?.databases.iter().map(|database| database.keys).sum();
        let Position { index, ballot } = frozen.entry.position();
        let meta = HeadMeta {
            cluster_id: self.cluster_id.clone(),
            index: index.0 + u64::from(plants(Bug::HeadAheadOfItsRows))
                - 2 * u64::from(plants(Bug::HeadBehindItsRows)),
            ballot: HeadBallot {
                round: ballot.round,
                node: ballot.node.0,
                incarnation: ballot.incarnation.0,
            },
            members: members(&frozen.view)?,
            keys,
            stamp_ms: frozen.stamp_ms,
        };
        self.remove_if_there(&path)?;
        let file = self.disk.open(&path, Open::CreateNew).map_err(io_at(&path))?;
        let sink = FileSink { file: file.clone(), offset: 0, buffer: Vec::new() };
        let mut writer = HeadWriter::new(sink, meta).map_err(head_at(&path))?;
        let mut result = Ok(());
        let mut paced = Ok(());
        let mut done_bytes = 0;
        frozen.view.export_rows(&[], &mut |row, value| {
            result = writer.push(row, value);
            done_bytes += (row.len() + value.len()) as u64;
            paced = pace(done_bytes);
            paced.is_ok() && result.is_ok()
        })?;
        result.map_err(head_at(&path))?;
        paced?;
        writer.finish().map_err(head_at(&path))?;
        file.sync().map_err(io_at(&path))?;
        self.reader(&path)?.verify().map_err(head_at(&path))?;
        self.name_it(&path)
    }

    /// Gives a checked file its place among the heads, durably, and drops all but two.
    fn name_it(&self, path: &Path) -> Result<HeadInfo, HeadFileError> {
        let info = self.read_info(path)?;
        let to = self.path(info.name.index);
        self.disk.rename(path, &to).map_err(io_at(&to))?;
        self.disk.sync_directory(&self.directory).map_err(io_at(&to))?;
        let mut heads = self.heads.lock();
        heads.retain(|head| head.name.index != info.name.index);
        heads.push(info.clone());
        heads.sort_by_key(|head| head.name.index);
        while heads.len() > 2 {
            let oldest = heads.remove(0);
            let path = self.path(oldest.name.index);
            self.disk.remove(&path).map_err(io_at(&path))?;
        }
        Ok(info)
    }

    /// The part at `offset_bytes` of the head that `partial` names, or, if that is not here, the
    /// first part of the newest one. `None`: there is none.
    pub fn serve(
        &self,
        partial: Option<HeadName>,
        offset_bytes: u64,
    ) -> Result<Option<HeadChunk>, HeadFileError> {
        let (head, offset_bytes) = {
            let heads = self.heads.lock();
            let known = heads.iter().find(|head| Some(head.name) == partial);
            match (known, heads.last()) {
                (Some(head), _) if offset_bytes < head.size.file_bytes => {
                    (head.clone(), offset_bytes)
                }
                (_, Some(newest)) => (newest.clone(), 0),
                (_, None) => return Ok(None),
            }
        };
        let path = self.path(head.name.index);
        let file = self.disk.open(&path, Open::Read).map_err(io_at(&path))?;
        let rest = (head.size.file_bytes - offset_bytes) as usize;
        let mut bytes = vec![0; rest.min(CHUNK_BYTES)];
        let read = file.read_at(&mut bytes, offset_bytes).map_err(io_at(&path))?;
        bytes.truncate(read);
        Ok(Some(HeadChunk {
            name: head.name,
            size_bytes: head.size.file_bytes,
            offset_bytes,
            bytes: bytes.into(),
        }))
    }

    /// Adds a part to a head that is being fetched. Returns how much of it is here: 0 when there is
    /// nothing for the part to follow.
    pub fn keep(&self, chunk: &HeadChunk) -> Result<u64, HeadFileError> {
        let path = self.part_path(chunk.name);
        if chunk.offset_bytes == 0 {
            // Of others too, which were given up: one is fetched at a time, and none of them is adopted
            // meanwhile.
            self.remove_parts()?;
            self.disk.open(&path, Open::CreateNew).map_err(io_at(&path))?;
        }
        let file = match self.disk.open(&path, Open::Write) {
            Ok(file) => file,
            // Adopted or removed meanwhile: the part was repeated.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(io_at(&path)(error)),
        };
        file.write_at(&chunk.bytes, chunk.offset_bytes).map_err(io_at(&path))?;
        Ok(chunk.offset_bytes + chunk.bytes.len() as u64)
    }

    /// Checks a fetched head as a whole and makes it one of this node's. `Ok(None)`: it is damaged,
    /// or not what it was called; it was removed.
    pub fn adopt(&self, name: HeadName) -> Result<Option<HeadInfo>, HeadFileError> {
        let path = self.part_path(name);
        let checked = self.reader(&path).and_then(|reader| {
            reader.verify().map_err(head_at(&path))?;
            self.read_info(&path)
        });
        match checked {
            Ok(info) if info.name == name => {
                let file = self.disk.open(&path, Open::Write).map_err(io_at(&path))?;
                file.sync().map_err(io_at(&path))?;
                self.name_it(&path).map(Some)
            }
            Ok(_) | Err(HeadFileError::Head { .. } | HeadFileError::Foreign { .. }) => {
                tracing::warn!(index = %name.index, "a fetched head is damaged: fetches it again");
                self.remove_if_there(&path)?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// A head that was fetched is not needed any more.
    pub fn discard(&self, name: HeadName) -> Result<(), HeadFileError> {
        self.remove_if_there(&self.part_path(name))
    }

    /// Reads one of this node's heads as a whole and checks it.
    pub fn verify(&self, name: HeadName) -> Result<(), HeadFileError> {
        let path = self.path(name.index);
        self.reader(&path)?.verify().map_err(head_at(&path))
    }

    /// Makes the store's state that of a head.
    pub fn load(&self, name: HeadName, store: &Store) -> Result<(), HeadFileError> {
        let path = self.path(name.index);
        let reader = self.reader(&path)?;
        let mut rebuild = store.rebuild()?;
        for row in reader.rows() {
            let (row, value) = row.map_err(head_at(&path))?;
            rebuild.push(row, &value)?;
            if rebuild.rows() % 1_000_000 == 0 {
                tracing::info!(rows = rebuild.rows(), of = reader.footer().rows, "rebuilding");
            }
        }
        rebuild.finish(name.index.0)?;
        Ok(())
    }

    fn path(&self, index: Index) -> PathBuf {
        self.directory.join(format!("{:016x}.head", index.0))
    }

    fn part_path(&self, name: HeadName) -> PathBuf {
        let hash = u64::from_be_bytes(name.hash[..8].try_into().expect("a hash has 32 bytes"));
        self.directory.join(format!("{:016x}.{hash:016x}{PART}", name.index.0))
    }

    fn reader(&self, path: &Path) -> Result<HeadReader<FileSource>, HeadFileError> {
        let file = self.disk.open(path, Open::Read).map_err(io_at(path))?;
        HeadReader::open(FileSource(file)).map_err(head_at(path))
    }

    fn read_info(&self, path: &Path) -> Result<HeadInfo, HeadFileError> {
        let reader = self.reader(path)?;
        let (footer, meta) = (reader.footer(), &reader.footer().meta);
        if meta.cluster_id != self.cluster_id {
            let cluster_id = meta.cluster_id.clone();
            return Err(HeadFileError::Foreign { path: path.to_path_buf(), cluster_id });
        }
        let file = self.disk.open(path, Open::Read).map_err(io_at(path))?;
        Ok(HeadInfo {
            name: HeadName { index: Index(meta.index), hash: footer.hash },
            position: Position {
                index: Index(meta.index),
                ballot: Ballot {
                    round: meta.ballot.round,
                    node: NodeId(meta.ballot.node),
                    incarnation: Incarnation(meta.ballot.incarnation),
                },
            },
            members: meta.members.iter().copied().map(Incarnation).collect(),
            stamp_ms: meta.stamp_ms,
            size: HeadSize {
                file_bytes: file.length().map_err(io_at(path))?,
                state_bytes: footer.bytes,
            },
        })
    }

    fn remove_parts(&self) -> Result<(), HeadFileError> {
        for name in self.disk.list(&self.directory).map_err(io_at(&self.directory))? {
            if name.ends_with(PART) {
                self.remove_if_there(&self.directory.join(name))?;
            }
        }
        Ok(())
    }

    fn remove_if_there(&self, path: &Path) -> Result<(), HeadFileError> {
        match self.disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_at(path)(error)),
            _ => Ok(()),
        }
    }
}

fn io_at(path: &Path) -> impl Fn(io::Error) -> HeadFileError + '_ {
    |error| HeadFileError::Io { path: path.to_path_buf(), error }
}

fn head_at(path: &Path) -> impl Fn(HeadError) -> HeadFileError + '_ {
    |error| match error {
        HeadError::Io(error) => HeadFileError::Io { path: path.to_path_buf(), error },
        error => HeadFileError::Head { path: path.to_path_buf(), error },
    }
}

struct FileSource(Arc<dyn DiskFile>);

impl ReadAt for FileSource {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }
}

struct FileSink {
    file: Arc<dyn DiskFile>,
    offset: u64,
    buffer: Vec<u8>,
}

impl Write for FileSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_at(&self.buffer, self.offset)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// For the protocol: what an adopted head says.
impl From<&HeadInfo> for super::environment::InstalledHead {
    fn from(head: &HeadInfo) -> Self {
        super::environment::InstalledHead {
            name: head.name,
            position: head.position,
            members: head.members.clone(),
            stamp_ms: head.stamp_ms,
            size: head.size,
        }
    }
}

/// Bytes as `status` prints them.
impl HeadName {
    /// The first eight bytes of the hash, in hexadecimal.
    pub fn short_hash(&self) -> String {
        Bytes::copy_from_slice(&self.hash[..8]).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
