//! Appending a batch to the transaction log: into memory, which is what encoding and checksums
//! cost, and to a file with a sync after each.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use parking_lot::Mutex;

use arakoon::disk::{Disk, DiskFile, Open, RealDisk};
use arakoon::paxos::{Ballot, Entry, Incarnation, Index, NodeId, Save, Value};
use arakoon::transaction_log::{Identity, Options, TransactionLog};

use super::{BATCH_SETS, set_batch};

/// After so many appends what is below is dropped, as heads allow it in a node.
const COLLAPSE_EVERY: u64 = 4096;

/// One batch at a time.
pub fn run(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log append");
    group.throughput(Throughput::Elements(u64::from(BATCH_SETS)));
    let memory = Arc::new(MemoryDisk::default());
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let real = Arc::new(RealDisk);
    let places: [(&str, Arc<dyn Disk>, PathBuf, bool); 2] = [
        ("memory", memory, PathBuf::from("log"), false),
        ("disk, with sync", real, directory.path().join("log"), true),
    ];
    for (name, disk, path, syncs) in places {
        let mut log = create(disk, &path);
        let batch = set_batch(0..u64::from(BATCH_SETS));
        let mut index = 0;
        group.bench_function(format!("{BATCH_SETS} SETs, {name}"), |bencher| {
            bencher.iter(|| {
                index += 1;
                log.append(&save(index, &batch)).expect("the disk takes it");
                if syncs {
                    log.sync().expect("the disk syncs");
                }
                if index % COLLAPSE_EVERY == 0 {
                    log.sync().expect("the disk syncs");
                    log.collapse(Index(index)).expect("old segments can be removed");
                }
            });
        });
    }
    group.finish();
}

fn create(disk: Arc<dyn Disk>, path: &Path) -> TransactionLog {
    let identity = Identity {
        cluster_id: "microbenchmark".to_owned(),
        node_name: "n1".to_owned(),
        incarnation: Incarnation(1),
    };
    TransactionLog::create(disk, path, &Options::default(), identity).expect("a new log")
}

fn save(index: u64, batch: &Bytes) -> Save {
    let ballot = Ballot { round: 1, node: NodeId(0), incarnation: Incarnation(1) };
    let entry = Entry { index: Index(index), ballot, value: Value::Batch(batch.clone()) };
    Save { entries: vec![entry], chosen: Index(index - 1), ..Save::default() }
}

/// Files in memory, for which a sync is nothing.
#[derive(Default)]
struct MemoryDisk {
    files: Mutex<BTreeMap<PathBuf, Arc<MemoryDiskFile>>>,
}

#[derive(Default)]
struct MemoryDiskFile {
    bytes: Mutex<Vec<u8>>,
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut files = self.files.lock();
        match (how, files.get(path)) {
            (Open::CreateNew, _) => {
                let file = Arc::new(MemoryDiskFile::default());
                files.insert(path.to_owned(), file.clone());
                Ok(file)
            }
            (_, Some(file)) => Ok(file.clone()),
            (_, None) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.files.lock();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.files.lock().remove(path).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let files = self.files.lock();
        let names = files.keys().filter_map(|path| path.strip_prefix(directory).ok());
        Ok(names.map(|name| name.display().to_string()).collect())
    }

    fn create_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn bytes_free(&self, _: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

impl DiskFile for MemoryDiskFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.bytes.lock();
        let from = bytes.get(offset as usize..).unwrap_or_default();
        let length = from.len().min(buffer.len());
        buffer[..length].copy_from_slice(&from[..length]);
        Ok(length)
    }

    fn write_at(&self, new: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = self.bytes.lock();
        let (offset, end) = (offset as usize, offset as usize + new.len());
        let longer = end.max(bytes.len());
        bytes.resize(longer, 0);
        bytes[offset..end].copy_from_slice(new);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
