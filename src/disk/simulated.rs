//! A disk in memory that forgets what was not synced, as hardware may: sectors one by one in any
//! order, directory changes from the end. Deterministic under a seed.
//!
//! Of each file the present bytes are kept, and for each sector written since the last sync what a
//! power cut would leave there instead. Directory changes wait in a list until their directory is
//! synced; a power cut keeps a random part from its start, as a journal does.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Disk, DiskFile, Open};

#[cfg(test)]
mod tests;

const SECTOR_BYTES: usize = 512;
type Sector = [u8; SECTOR_BYTES];
static ZERO_SECTOR: Sector = [0; SECTOR_BYTES];

/// A disk to be crashed. A clone is the same disk.
#[derive(Clone)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    rng: fastrand::Rng,
    /// What a process sees.
    names: BTreeMap<PathBuf, Arc<Mutex<Content>>>,
    /// What a power cut leaves, before any of `unsynced`.
    durable_names: BTreeMap<PathBuf, Arc<Mutex<Content>>>,
    unsynced: Vec<NameChange>,
    /// Files opened before a crash are gone with their process.
    generation: u64,
    /// Writes, syncs and directory changes so far.
    changes: u64,
    capacity_bytes: Option<u64>,
    fail_next_write: bool,
    fail_next_sync: bool,
    fail_from_change: Option<u64>,
}

#[derive(Clone)]
enum NameChange {
    Create(PathBuf, Arc<Mutex<Content>>),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

#[derive(Default)]
struct Content {
    bytes: Vec<u8>,
    durable_length: usize,
    /// By number, the sectors written since the last sync.
    unsynced: BTreeMap<usize, Unsynced>,
}

struct Unsynced {
    /// What was last synced there; None: zeros.
    durable: Option<Box<Sector>>,
    /// A sync that failed dropped it: later syncs do not write it, unless it is written again.
    dropped: bool,
}

struct SimulatedFile {
    disk: SimulatedDisk,
    content: Arc<Mutex<Content>>,
    generation: u64,
    writable: bool,
}

impl SimulatedDisk {
    /// An empty disk whose chances come from `seed`.
    pub fn new(seed: u64) -> Self {
        SimulatedDisk {
            state: Arc::new(Mutex::new(State {
                rng: fastrand::Rng::with_seed(seed),
                names: BTreeMap::new(),
                durable_names: BTreeMap::new(),
                unsynced: Vec::new(),
                generation: 0,
                changes: 0,
                capacity_bytes: None,
                fail_next_write: false,
                fail_next_sync: false,
                fail_from_change: None,
            })),
        }
    }

    /// Ends the process that used this disk: files opened so far fail from now on. With `power`
    /// also the machine: what was not synced may be lost. Ends planned failures, not a capacity.
    pub fn crash(&self, power: bool) {
        let mut state = self.state.lock();
        state.generation += 1;
        state.fail_next_write = false;
        state.fail_next_sync = false;
        state.fail_from_change = None;
        if !power {
            return;
        }
        let unsynced = std::mem::take(&mut state.unsynced);
        let kept = state.rng.usize(0..=unsynced.len());
        for change in &unsynced[..kept] {
            change.apply(&mut state.durable_names);
        }
        state.names = state.durable_names.clone();
        let State { rng, names, .. } = &mut *state;
        for content in names.values() {
            content.lock().lose_power(rng);
        }
    }

    /// The next write fails with EIO; a random part of it is done.
    pub fn fail_next_write(&self) {
        self.state.lock().fail_next_write = true;
    }

    /// The next sync fails with EIO; random sectors will not be written by later syncs either,
    /// though reads show them until the power goes.
    pub fn fail_next_sync(&self) {
        self.state.lock().fail_next_sync = true;
    }

    /// Writes, syncs and directory changes done since the disk was made.
    pub fn changes(&self) -> u64 {
        self.state.lock().changes
    }

    /// Every change from number `changes` (counted as [`SimulatedDisk::changes`]) on fails with
    /// EIO, until [`SimulatedDisk::crash`]: a way to stop a program at each of its steps.
    pub fn fail_from_change(&self, changes: u64) {
        self.state.lock().fail_from_change = Some(changes);
    }

    /// Limits the bytes of all files together; None: no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity_bytes = bytes;
    }

    /// Flips one bit, durably. False when the file is shorter or absent.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> bool {
        self.alter(path, |bytes| {
            bytes.get_mut(offset as usize).map(|byte| *byte ^= 1 << (bit % 8)).is_some()
        })
    }

    /// Cuts a file to `length` bytes, durably. False when it is absent.
    pub fn truncate(&self, path: &Path, length: u64) -> bool {
        self.alter(path, |bytes| {
            bytes.truncate(length as usize);
            true
        })
    }

    /// A file's bytes; None when it is absent.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        self.state.lock().names.get(path).map(|content| content.lock().bytes.clone())
    }

    /// Replaces or makes a file, durably.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state.lock();
        let durable_length = bytes.len();
        let content = Content { bytes, durable_length, unsynced: BTreeMap::new() };
        let content = Arc::new(Mutex::new(content));
        state.names.insert(path.to_owned(), content.clone());
        state.durable_names.insert(path.to_owned(), content);
    }

    /// Removes a directory with all in it, durably.
    pub fn delete_directory(&self, directory: &Path) {
        let mut state = self.state.lock();
        state.names.retain(|path, _| !path.starts_with(directory));
        state.durable_names.retain(|path, _| !path.starts_with(directory));
        state.unsynced.retain(|change| !change.directory_is(|path| path.starts_with(directory)));
    }

    /// Works on all a file's bytes as if they had been synced like that.
    fn alter(&self, path: &Path, work: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        let state = self.state.lock();
        let Some(content) = state.names.get(path) else { return false };
        let mut content = content.lock();
        let done = work(&mut content.bytes);
        content.unsynced.clear();
        content.durable_length = content.bytes.len();
        done
    }

    fn change_name(&self, change: NameChange) -> io::Result<()> {
        let mut state = self.state.lock();
        state.count_change()?;
        change.apply(&mut state.names);
        state.unsynced.push(change);
        Ok(())
    }
}

impl State {
    fn count_change(&mut self) -> io::Result<()> {
        let fails = self.fail_from_change.is_some_and(|from| self.changes >= from);
        self.changes += 1;
        if fails { Err(broken()) } else { Ok(()) }
    }

    fn used_bytes(&self) -> u64 {
        self.names.values().map(|content| content.lock().bytes.len() as u64).sum()
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, Arc<Mutex<Content>>>) {
        match self {
            NameChange::Create(path, content) => {
                names.insert(path.clone(), content.clone());
            }
            NameChange::Rename(from, to) => {
                if let Some(content) = names.remove(from) {
                    names.insert(to.clone(), content);
                }
            }
            NameChange::Remove(path) => {
                names.remove(path);
            }
        }
    }

    fn directory_is(&self, holds: impl Fn(&Path) -> bool) -> bool {
        let (NameChange::Create(path, _) | NameChange::Rename(_, path) | NameChange::Remove(path)) =
            self;
        path.parent().is_some_and(holds)
    }
}

impl Content {
    fn write(&mut self, bytes: &[u8], offset: usize) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        for sector in offset / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES {
            let durable_length = self.durable_length;
            let unsynced = self.unsynced.entry(sector).or_insert_with(|| Unsynced {
                durable: durable_sector(&self.bytes, sector, durable_length),
                dropped: false,
            });
            unsynced.dropped = false;
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset..end].copy_from_slice(bytes);
    }

    fn sync(&mut self) {
        self.unsynced.retain(|_, unsynced| unsynced.dropped);
        self.durable_length = self.bytes.len();
    }

    fn fail_sync(&mut self, rng: &mut fastrand::Rng) {
        for unsynced in self.unsynced.values_mut() {
            unsynced.dropped |= rng.bool();
        }
    }

    fn lose_power(&mut self, rng: &mut fastrand::Rng) {
        for (sector, unsynced) in std::mem::take(&mut self.unsynced) {
            if unsynced.dropped || rng.bool() {
                let start = sector * SECTOR_BYTES;
                let end = self.bytes.len().min(start + SECTOR_BYTES);
                let durable = unsynced.durable.as_deref().unwrap_or(&ZERO_SECTOR);
                self.bytes[start..end].copy_from_slice(&durable[..end - start]);
            }
        }
        let length = rng.usize(self.durable_length..=self.bytes.len());
        self.bytes.truncate(length);
        self.durable_length = length;
    }
}

/// What is durable of a sector that was not written since the last sync.
fn durable_sector(bytes: &[u8], sector: usize, durable_length: usize) -> Option<Box<Sector>> {
    let start = sector * SECTOR_BYTES;
    let end = durable_length.min(start + SECTOR_BYTES);
    let present = bytes.get(start..end).filter(|bytes| bytes.iter().any(|byte| *byte != 0))?;
    let mut durable = Box::new(ZERO_SECTOR);
    durable[..present.len()].copy_from_slice(present);
    Some(durable)
}

fn broken() -> io::Error {
    // EIO.
    io::Error::from_raw_os_error(5)
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file {}", path.display()))
}

impl Disk for SimulatedDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let generation = self.state.lock().generation;
        let existing = self.state.lock().names.get(path).cloned();
        let content = match (how, existing) {
            (Open::CreateNew, Some(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Open::CreateNew, None) => {
                let content = Arc::new(Mutex::new(Content::default()));
                self.change_name(NameChange::Create(path.to_owned(), content.clone()))?;
                content
            }
            (_, existing) => existing.ok_or_else(|| missing(path))?,
        };
        let writable = how != Open::Read;
        Ok(Arc::new(SimulatedFile { disk: self.clone(), content, generation, writable }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if !self.state.lock().names.contains_key(from) {
            return Err(missing(from));
        }
        self.change_name(NameChange::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if !self.state.lock().names.contains_key(path) {
            return Err(missing(path));
        }
        self.change_name(NameChange::Remove(path.to_owned()))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        let inside = state.names.keys().filter(|path| path.parent() == Some(directory));
        let mut names: Vec<String> = inside
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect();
        names.sort();
        Ok(names)
    }

    fn create_directory(&self, _directory: &Path) -> io::Result<()> {
        self.state.lock().count_change()
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.count_change()?;
        let (synced, unsynced) = std::mem::take(&mut state.unsynced)
            .into_iter()
            .partition(|change: &NameChange| change.directory_is(|path| path == directory));
        state.unsynced = unsynced;
        let synced: Vec<NameChange> = synced;
        for change in &synced {
            change.apply(&mut state.durable_names);
        }
        Ok(())
    }

    fn bytes_free(&self, _directory: &Path) -> io::Result<u64> {
        let state = self.state.lock();
        let capacity_bytes = state.capacity_bytes.unwrap_or(u64::MAX);
        Ok(capacity_bytes.saturating_sub(state.used_bytes()))
    }
}

impl SimulatedFile {
    fn check(&self, state: &State) -> io::Result<()> {
        if state.generation == self.generation { Ok(()) } else { Err(broken()) }
    }
}

impl DiskFile for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.check(&self.disk.state.lock())?;
        let content = self.content.lock();
        let start = content.bytes.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
        let count = buffer.len().min(content.bytes.len() - start);
        buffer[..count].copy_from_slice(&content.bytes[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        self.check(&state)?;
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let offset = usize::try_from(offset).map_err(|_| broken())?;
        let counted = state.count_change();
        if counted.is_err() || std::mem::take(&mut state.fail_next_write) {
            let part = state.rng.usize(0..=bytes.len());
            self.content.lock().write(&bytes[..part], offset);
            return Err(broken());
        }
        let length = self.content.lock().bytes.len();
        let more = (offset + bytes.len()).saturating_sub(length) as u64;
        if more > 0
            && let Some(capacity_bytes) = state.capacity_bytes
            && state.used_bytes() + more > capacity_bytes
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.content.lock().write(bytes, offset);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        self.check(&self.disk.state.lock())?;
        Ok(self.content.lock().bytes.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        self.check(&state)?;
        let counted = state.count_change();
        let mut content = self.content.lock();
        if counted.is_err() || std::mem::take(&mut state.fail_next_sync) {
            content.fail_sync(&mut state.rng);
            return Err(broken());
        }
        content.sync();
        Ok(())
    }
}
