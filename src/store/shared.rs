//! What all handles on a store share, and how a store is opened, frozen, synced and closed.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::changes::{ChangeRef, Sought, hash_of};
use super::drain::{Drainer, is_full_disk};
use super::engine::{Engine, EngineChoice};
use super::layers::Layers;
use super::row_cache::RowCache;
use super::rows::{RowList, StoreError};
use super::sealed::unseal;
use super::small_file::SmallFile;
use super::trust::{Distrust, TrustRead, TrustState};
use super::{belief, entry};

/// Sizes of a store. The defaults are right unless memory is scarce.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// A layer that takes this much memory is frozen, to be drained.
    pub layer_bytes: usize,
    /// Above this much memory in all layers, [`Store::over_bound`] asks for slower updates.
    pub layers_bytes_max: usize,
    /// Where layers that wait for a long-lived view go when memory runs out; emptied by the
    /// operating system. `None`: they stay in memory, and [`Store::over_bound`] holds updates up.
    pub spill_directory: Option<PathBuf>,
    /// Memory for the row cache; 0: none.
    pub cache_bytes: u64,
    /// Rows in one batch for the engine, at most.
    pub drain_batch_rows: usize,
    /// So many rows go to the engine at once instead, if it can do that.
    pub ingest_rows_min: usize,
}

/// Memory for layers, whatever the row cache takes,
const LAYERS_BYTES_MIN: usize = 512 << 20;
/// and the most that is of use: a restart must not have to replay much more log.
const LAYERS_BYTES_MAX: usize = 2 << 30;
/// So many full layers have room there.
const LAYERS: usize = 8;

/// Draining begins when layers take this part of the memory that they may take,
const DRAINED_PART: f64 = 3.0 / 8.0;
/// and has no time to lose once they take this part of it. Nor has a head that keeps them from it then:
/// what waits for it is moved to files from here on.
pub(super) const HASTY_PART: f64 = 5.0 / 8.0;

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions::with_cache(64 << 20)
    }
}

impl StoreOptions {
    /// With a row cache of so many bytes. Layers may take half as much, if that is more than they may
    /// take anyway: whoever has many rows in memory changes many of them, and they reach the engine in
    /// fewer and larger pieces.
    pub fn with_cache(cache_bytes: u64) -> StoreOptions {
        let half = usize::try_from(cache_bytes / 2).unwrap_or(usize::MAX);
        let layers_bytes_max = half.clamp(LAYERS_BYTES_MIN, LAYERS_BYTES_MAX);
        StoreOptions {
            layer_bytes: layers_bytes_max / LAYERS,
            layers_bytes_max,
            spill_directory: None,
            cache_bytes,
            drain_batch_rows: 256,
            ingest_rows_min: 16 << 10,
        }
    }
}

/// Where a store keeps things, and on which boot of the machine.
pub struct StorePlace {
    /// The engine and its own directory.
    pub engine: EngineChoice,
    /// The drain journal; beside the engine's directory, not in it.
    pub journal: Box<dyn SmallFile>,
    /// The trust file `store.trust`; in the directory of the transaction log.
    pub trust: Box<dyn SmallFile>,
    /// The machine's boot id, see [`super::boot_id`].
    pub boot_id: String,
}

#[cfg(test)]
impl StorePlace {
    /// In memory, and new.
    pub fn in_memory() -> StorePlace {
        let file = || Box::new(super::MemoryFile::new());
        StorePlace {
            engine: EngineChoice::Memory(super::MemoryEngine::new()),
            journal: file(),
            trust: file(),
            boot_id: "boot".to_owned(),
        }
    }
}

/// What opening a store found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The log is to be replayed from the entry after this one.
    pub applied: u64,
    /// Why the engine was wiped; then the store is empty, `applied` is 0, and the caller first
    /// loads the newest head, if there is one, with [`Store::rebuild`].
    pub distrust: Option<Distrust>,
}

pub(super) struct Shared {
    pub options: StoreOptions,
    pub engine: Box<dyn Engine>,
    pub journal: Box<dyn SmallFile>,
    trust_file: Box<dyn SmallFile>,
    trust: Mutex<TrustState>,
    /// Values and absences of rows as the engine has them, but for rows that a layer holds: those
    /// are set right when the layer goes. Changed only under a lock of `layers`.
    cache: Option<RowCache>,
    pub layers: RwLock<Layers>,
    /// Memory that the layers take.
    layers_bytes: Arc<AtomicUsize>,
    /// Locked before `layers`, never after.
    pub drainer: Mutex<Drainer>,
    /// How many wait for it who should not wait long.
    pub drain_awaited: AtomicUsize,
    pub entry_open: AtomicBool,
    /// Rows in the next batches for the engine.
    pub batch_rows: AtomicUsize,
}

impl Shared {
    /// The visible value of a row.
    pub fn get(&self, layers: &Layers, row: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.get_from_memory(layers, row) {
            Err(StoreError::NotInMemory) => {
                let value = self.get_from_engine(row)?;
                self.remember(row, value.as_ref());
                Ok(value)
            }
            known => known,
        }
    }

    /// The visible value, or [`StoreError::NotInMemory`] if only the engine knows it.
    pub fn get_from_memory(
        &self,
        layers: &Layers,
        row: &[u8],
    ) -> Result<Option<Bytes>, StoreError> {
        self.get_known(layers, Sought::new(row))
    }

    fn get_known(&self, layers: &Layers, sought: Sought) -> Result<Option<Bytes>, StoreError> {
        if !layers.ready {
            return Err(StoreError::Replaced);
        }
        match layers.get(sought)? {
            Some(value) => Ok(value),
            None => self.cached(sought).ok_or(StoreError::NotInMemory),
        }
    }

    /// Puts all rows in order, which may take a while; only who needs that order waits for it. The
    /// caller has no lock of `layers`.
    pub fn put_in_order(&self) {
        let frozen = {
            let mut layers = self.layers.write();
            if layers.ready { layers.freeze_out_of_order() } else { Vec::new() }
        };
        frozen.iter().for_each(|layer| layer.put_in_order());
    }

    /// Brings rows into the processor's caches, see [`Layers::touch`].
    pub fn touch(&self, layers: &Layers, rows: &RowList) {
        self.touch_values(layers, rows, usize::MAX);
    }

    /// The same for rows that are about to be changed: of what they were only a header is looked at.
    pub fn touch_to_change(&self, layers: &Layers, rows: &RowList) {
        self.touch_values(layers, rows, 1);
    }

    fn touch_values(&self, layers: &Layers, rows: &RowList, cached_value_bytes: usize) {
        let hashes: Vec<u64> = rows.iter().map(hash_of).collect();
        let left = layers.touch(&hashes);
        if let Some(cache) = &self.cache {
            cache.touch(&left, cached_value_bytes);
        }
    }

    fn cached(&self, sought: Sought) -> Option<Option<Bytes>> {
        self.cache.as_ref().and_then(|cache| cache.get(sought))
    }

    /// Shows the visible value to who is about to change the row. It is not remembered: soon a layer
    /// holds the row, and what it was would only take another one's place. `fetch` asks the engine,
    /// see [`Shared::get_from_engine`], or fails.
    pub fn peek_to_change<R>(
        &self,
        layers: &Layers,
        sought: Sought,
        fetch: impl FnOnce(&[u8]) -> Result<Option<Bytes>, StoreError>,
        mut look: impl FnMut(Option<&Bytes>) -> R,
    ) -> Result<R, StoreError> {
        if !layers.ready {
            return Err(StoreError::Replaced);
        }
        if let Some(result) = layers.peek(sought, &mut look)? {
            return Ok(result);
        }
        if let Some(result) = self.cache.as_ref().and_then(|cache| cache.peek(sought, &mut look)) {
            return Ok(result);
        }
        Ok(look(fetch(sought.row())?.as_ref()))
    }

    /// The visible value, for who is about to change the row.
    pub fn get_to_change(
        &self,
        layers: &Layers,
        sought: Sought,
        fetch: impl FnOnce(&[u8]) -> Result<Option<Bytes>, StoreError>,
    ) -> Result<Option<Bytes>, StoreError> {
        match self.get_known(layers, sought) {
            Err(StoreError::NotInMemory) => fetch(sought.row()),
            known => known,
        }
    }

    /// The engine's value of a row.
    pub fn get_from_engine(&self, row: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let sealed = self.distrust_damage(self.engine.get(row))?;
        self.distrust_damage(sealed.map(|sealed| unseal(row, &sealed)).transpose())
    }

    /// Remembers a visible value. The caller holds a lock of `layers`.
    pub fn remember(&self, row: &[u8], value: Option<&Bytes>) {
        if let Some(cache) = &self.cache {
            cache.insert(Sought::new(row), value);
        }
    }

    /// Remembers visible values. The caller holds a lock of `layers`.
    pub fn remember_all(&self, rows: &[ChangeRef]) {
        let Some(cache) = &self.cache else { return };
        let hashes: Vec<u64> = rows.iter().map(|change| change.sought().known_hash()).collect();
        cache.touch(&hashes, usize::MAX);
        rows.iter().for_each(|change| cache.insert(change.sought(), change.value));
    }

    /// Forgets all cached values. The caller holds the write lock of `layers`.
    pub fn clear_cache(&self) {
        if let Some(cache) = &self.cache {
            cache.clear();
        }
    }

    /// Notes damage outside of the engine, so that the next start rebuilds; passes `result` on.
    pub fn distrust_damage<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(StoreError::Damaged(what)) = &result {
            self.change_trust(|trust| trust.mark = format!("an earlier run found damage: {what}"))?;
        }
        result
    }

    /// Changes the trust file durably.
    pub fn change_trust(&self, change: impl FnOnce(&mut TrustState)) -> Result<(), StoreError> {
        let mut trust = self.trust.lock();
        let mut changed = trust.clone();
        change(&mut changed);
        if changed != *trust {
            changed.write(&*self.trust_file)?;
            *trust = changed;
        }
        Ok(())
    }

    fn floor(&self) -> u64 {
        self.trust.lock().floor
    }
}

/// The rows of one node. Clones are handles on the same store.
#[derive(Clone)]
pub struct Store {
    pub(super) shared: Arc<Shared>,
}

impl Store {
    /// Opens the store, or creates it. An engine that cannot be believed is wiped; that is told in
    /// [`Opened::distrust`]. Errors are for what rebuilding would not mend: the file system, or
    /// another process that has the engine open.
    pub fn open(options: StoreOptions, place: StorePlace) -> Result<(Store, Opened), StoreError> {
        assert!(options.drain_batch_rows > 0, "a drain batch of no rows");
        let StorePlace { engine: choice, journal, trust: trust_file, boot_id } = place;
        let (found, mut against, missing) = match TrustState::read(&*trust_file)? {
            TrustRead::Missing => (TrustState::default(), None, true),
            TrustRead::Damaged => {
                (TrustState::default(), Some(Distrust::NoTrustFile("damaged")), false)
            }
            TrustRead::Found(state) => {
                let against = state.against(choice.name(), &boot_id);
                (state, against, false)
            }
        };
        let running = TrustState {
            floor: found.floor,
            clean_stop: false,
            engine: choice.name().to_owned(),
            boot_id,
            mark: String::new(),
        };
        if against.is_none() && choice.has_leftovers()? {
            against = Some(Distrust::Leftover);
        }
        let mut opened = None;
        if against.is_none() {
            // Before the engine is touched: from here on only a close makes a clean stop. A missing
            // file stays missing until the engine proves empty, so that a kill here hides nothing.
            // Marked until it is open: a damaged length may make an engine ask for more memory than
            // there is, which ends the process, and would end the next one as well.
            if !missing {
                let mark = Distrust::Leftover.to_string();
                TrustState { mark, ..running.clone() }.write(&*trust_file)?;
            }
            match belief::believe(&choice, &*journal, running.floor, missing) {
                Ok(Ok(believed)) => {
                    running.write(&*trust_file)?;
                    opened = Some(believed);
                }
                Ok(Err(distrust)) => against = Some(distrust),
                Err(error) => {
                    if !missing {
                        running.write(&*trust_file)?;
                    }
                    return Err(error);
                }
            }
        }
        let (trust, engine, drainer, applied) = match (opened, &against) {
            (Some((engine, drainer, applied)), _) => (running, engine, drainer, applied),
            (None, distrust) => {
                let reason = distrust.as_ref().map(Distrust::to_string).unwrap_or_default();
                let marked = TrustState { mark: reason, ..running.clone() };
                marked.write(&*trust_file)?;
                choice.delete_files()?;
                journal.remove()?;
                let engine = choice.open()?;
                // Empty is a true state at index 0, so the floor starts again.
                let empty = TrustState { floor: 0, ..running };
                empty.write(&*trust_file)?;
                (empty, engine, Drainer::default(), 0)
            }
        };
        let cache = (options.cache_bytes > 0).then(|| RowCache::new(options.cache_bytes));
        let batch_rows = AtomicUsize::new(options.drain_batch_rows);
        let layers = Layers::new(applied);
        let layers_bytes = layers.told_bytes();
        let shared = Shared {
            options,
            engine,
            journal,
            trust_file,
            trust: Mutex::new(trust),
            cache,
            layers: RwLock::new(layers),
            layers_bytes,
            drainer: Mutex::new(drainer),
            drain_awaited: AtomicUsize::new(0),
            entry_open: AtomicBool::new(false),
            batch_rows,
        };
        Ok((Store { shared: Arc::new(shared) }, Opened { applied, distrust: against }))
    }

    /// The index whose state reads show.
    pub fn applied(&self) -> u64 {
        self.shared.layers.read().applied
    }

    /// The index whose state the engine holds; not necessarily synced.
    pub fn drained(&self) -> u64 {
        self.shared.layers.read().drained
    }

    /// The index that the engine is known to have synced: the log before it is not needed here.
    pub fn synced(&self) -> u64 {
        self.shared.floor()
    }

    /// Memory taken by the layers, in bytes. Waits for nothing.
    pub fn layers_bytes(&self) -> usize {
        self.shared.layers_bytes.load(Ordering::Relaxed)
    }

    /// About what the layers will take on disk, those that wait in files included.
    pub fn undrained_bytes(&self) -> usize {
        let layers = self.shared.layers.read();
        let frozen = layers.frozen.iter().map(|layer| layer.changes_bytes);
        layers.active_bytes() + frozen.sum::<usize>()
    }

    /// Whether the layers take more memory than they should: the caller slows updates down until
    /// draining has caught up. Waits for nothing.
    pub fn over_bound(&self) -> bool {
        self.layers_bytes() > self.shared.options.layers_bytes_max
    }

    /// How many layers are frozen that the engine does not have yet.
    pub fn frozen_layers(&self) -> usize {
        self.shared.layers.read().frozen.len()
    }

    /// The part of their memory that layers take.
    fn filled_part(&self) -> f64 {
        self.layers_bytes() as f64 / self.shared.options.layers_bytes_max.max(1) as f64
    }

    /// The layers' memory in parts of that with which draining begins.
    pub fn filled(&self) -> f64 {
        self.filled_part() / DRAINED_PART
    }

    /// Asks for the order of all rows; whether it is there, or soon will be.
    pub fn ask_for_order(&self) -> bool {
        self.shared.layers.read().ask_for_order(&[], None)
    }

    /// Puts all rows in order, which may take a while; only who needs that order waits for it.
    pub fn put_in_order(&self) {
        self.shared.put_in_order();
    }

    /// The same for the rows of frozen layers.
    pub fn put_frozen_in_order(&self) {
        let frozen = self.shared.layers.read().frozen.clone();
        frozen.iter().for_each(|layer| layer.put_in_order());
    }

    /// How much draining has to hurry: 0 until layers take the memory with which it begins, and 1 once
    /// they take five eighths of what they may take.
    pub fn haste(&self) -> f64 {
        ((self.filled_part() - DRAINED_PART) / (HASTY_PART - DRAINED_PART)).clamp(0.0, 1.0)
    }

    /// Starts to apply one log entry. There is one at a time.
    pub fn entry(&self) -> entry::EntryRows {
        self.open_entry(true)
    }

    /// The same for who must not wait, nor take long: what memory does not have is
    /// [`StoreError::NotInMemory`], and what another thread stands in the way of, or long values make
    /// long, is [`StoreError::WouldWait`].
    pub fn entry_in_memory(&self) -> entry::EntryRows {
        self.open_entry(false)
    }

    fn open_entry(&self, may_wait: bool) -> entry::EntryRows {
        let open = self.shared.entry_open.swap(true, Ordering::AcqRel);
        assert!(!open, "two entries applied at once");
        entry::EntryRows::new(self.shared.clone(), may_wait)
    }

    /// Lets everything applied so far be drained, even if it is little.
    pub fn freeze_for_drain(&self) {
        self.shared.layers.write().freeze();
    }

    /// Syncs the engine and raises the floor to what it holds, unless the disk has no room to say so; returns
    /// the floor.
    pub fn sync(&self) -> Result<u64, StoreError> {
        // The engine's files must not be replaced meanwhile.
        let _drainer = self.shared.drainer.lock();
        let drained = self.drained();
        self.shared.distrust_damage(self.shared.engine.sync())?;
        match self.shared.change_trust(|trust| trust.floor = trust.floor.max(drained)) {
            // The old file is whole. The log keeps what it could have let go of, until next time.
            Err(StoreError::Io(error)) if is_full_disk(&error) => {}
            changed => changed?,
        }
        Ok(self.synced())
    }

    /// Stops in order: drains what may be drained, syncs, and notes the clean stop. `log_durable` is
    /// as in [`Store::drain_step`]. The store must not be used afterwards.
    pub fn close(&self, log_durable: u64) -> Result<(), StoreError> {
        self.freeze_for_drain();
        while self.drain_step(&|| log_durable)?.worked() {}
        self.sync()?;
        self.shared.distrust_damage(self.shared.engine.close())?;
        self.shared.change_trust(|trust| trust.clean_stop = true)
    }
}
