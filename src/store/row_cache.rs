//! Rows as the engine has them, kept in memory up to a bound.
//!
//! With millions of rows nearly every place in memory that a read looks at is one that the processor
//! has to wait for, and that costs more than all else the read does. So there are few of them: most
//! rows' keys are in the cache's own table, and a short value is one piece of memory that nobody
//! shares, without a counter elsewhere; who reads it gets a copy. And who knows several rows that will
//! be looked at has them fetched beside each other ([`RowCache::touch`]), which no cache that is a
//! library offers.
//!
//! What makes room is found by a clock: a hand goes round all rows, takes a use off each that was
//! used since, and forgets those that were not.

use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use hashbrown::HashTable;
use parking_lot::RwLock;

use super::changes::{COPIED_BYTES_MAX, Sought, in_place_of, touch_value};

/// Values above this size are not kept.
pub(super) const CACHED_VALUE_BYTES_MAX: usize = 64 << 10;
/// What a row costs beside its value, about: its place in a table that grows by a quarter, in the
/// index, and what the allocator rounds up.
const OVERHEAD_BYTES: usize = 120;
/// Rows up to this length are in the table.
const SHORT_BYTES: usize = 30;
/// Uses that are remembered of a row.
const USES_MAX: u8 = 3;
/// The hand passes so many rows at most for one that is to come.
const PASSED_MAX: usize = 64;
/// Parts have their own locks and their own tables. What a table holds moves when it grows, while all
/// others wait, so there are as many as are needed to keep each below twice this.
const PART_BYTES: usize = 2 << 20;
/// A table that has room for so many times the rows in it gives it back.
const ROOM_MAX: usize = 4;
/// One that is full gets this part more of it.
const GROWN_PART: usize = 4;
/// No table has less room.
const ROOM_MIN: usize = 256;

/// A row.
enum Row {
    Short { length: u8, bytes: [u8; SHORT_BYTES] },
    Long(Box<[u8]>),
}

impl Row {
    fn new(row: &[u8]) -> Row {
        match row.len() {
            ..=SHORT_BYTES => {
                let mut bytes = [0; SHORT_BYTES];
                bytes[..row.len()].copy_from_slice(row);
                Row::Short { length: row.len() as u8, bytes }
            }
            _ => Row::Long(row.into()),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Row::Short { length, bytes } => &bytes[..usize::from(*length)],
            Row::Long(row) => row,
        }
    }
}

/// What is known of a row.
struct Slot {
    hash: u64,
    row: Row,
    /// `None`: there is no such row.
    value: Option<Bytes>,
    uses: AtomicU8,
}

impl Slot {
    fn is(&self, sought: Sought) -> bool {
        self.hash == sought.known_hash() && self.row.bytes() == sought.row()
    }

    /// The memory it takes.
    fn bytes(&self) -> usize {
        let row_bytes = match &self.row {
            Row::Short { .. } => 0,
            Row::Long(row) => row.len(),
        };
        row_bytes + self.value.as_ref().map_or(0, Bytes::len) + OVERHEAD_BYTES
    }
}

/// The same value in memory of its own, if it is short.
fn own(value: Option<&Bytes>) -> Option<Bytes> {
    value.map(|value| match value.len() {
        ..=COPIED_BYTES_MAX => Bytes::copy_from_slice(value),
        _ => value.clone(),
    })
}

#[derive(Default)]
struct Part {
    /// Places in `slots`.
    index: HashTable<u32>,
    slots: Vec<Slot>,
    /// The next place that the hand comes to.
    hand: usize,
    bytes: usize,
}

impl Part {
    fn place(&self, sought: Sought) -> Option<usize> {
        let is = |at: &u32| self.slots[*at as usize].is(sought);
        self.index.find(sought.known_hash(), is).map(|at| *at as usize)
    }

    fn remove(&mut self, place: usize) {
        let slot = self.slots.swap_remove(place);
        self.bytes -= slot.bytes();
        let at = |place: usize| move |at: &u32| *at as usize == place;
        let found = self.index.find_entry(slot.hash, at(place));
        found.expect("a row is in the index").remove();
        if let Some(moved) = self.slots.get(place) {
            let last = self.slots.len();
            let found = self.index.find_mut(moved.hash, at(last));
            *found.expect("a row is in the index") = place as u32;
        }
        let rows = self.slots.len().max(ROOM_MIN);
        if self.slots.capacity() / ROOM_MAX > rows {
            self.slots.shrink_to(rows * 2);
            self.index.shrink_to(rows * 2, |at| self.slots[*at as usize].hash);
        }
    }

    fn add(&mut self, slot: Slot) {
        self.bytes += slot.bytes();
        let place = u32::try_from(self.slots.len()).expect("fewer rows than memory has bytes / 80");
        let hash = slot.hash;
        if self.slots.len() == self.slots.capacity() {
            // Not twice as much: slots are most of what a row costs.
            self.slots.reserve_exact((self.slots.len() / GROWN_PART).max(ROOM_MIN));
        }
        self.slots.push(slot);
        self.index.insert_unique(hash, place, |at| self.slots[*at as usize].hash);
    }

    /// Another value, where the old one was if it fits there.
    fn set(&mut self, place: usize, value: Option<&Bytes>) {
        let slot = &mut self.slots[place];
        self.bytes -= slot.bytes();
        slot.value = in_place_of(slot.value.take(), value).or_else(|| own(value));
        self.bytes += slot.bytes();
    }

    /// Forgets a row that was not used of late; there is one.
    fn make_room(&mut self) {
        for _ in 0..PASSED_MAX {
            self.hand %= self.slots.len();
            let uses = self.slots[self.hand].uses.get_mut();
            match uses.checked_sub(1) {
                Some(less) => *uses = less,
                None => break,
            }
            self.hand += 1;
        }
        self.hand %= self.slots.len();
        self.remove(self.hand);
        // Past the row that took its place: that may be the newest.
        self.hand += 1;
    }
}

/// Values and absences of rows.
pub(super) struct RowCache {
    /// A power of two.
    parts: Vec<RwLock<Part>>,
    part_bytes_max: usize,
}

impl RowCache {
    /// One that takes so much memory.
    pub fn new(bytes_max: u64) -> RowCache {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let parts = 1 << (bytes_max / PART_BYTES).max(1).ilog2();
        let part_bytes_max = bytes_max / parts;
        let parts = std::iter::repeat_with(RwLock::default).take(parts).collect();
        RowCache { parts, part_bytes_max }
    }

    /// By bits that the parts themselves do not look at.
    fn part(&self, hash: u64) -> &RwLock<Part> {
        &self.parts[(hash >> 40) as usize & (self.parts.len() - 1)]
    }

    /// What is known of a row: nothing, that there is none, or its value.
    pub fn get(&self, sought: Sought) -> Option<Option<Bytes>> {
        self.peek(sought, own)
    }

    /// The same, looked at where it is. Its lock is held meanwhile.
    pub fn peek<R>(&self, sought: Sought, look: impl FnOnce(Option<&Bytes>) -> R) -> Option<R> {
        let part = self.part(sought.known_hash()).read();
        let slot = &part.slots[part.place(sought)?];
        let uses = slot.uses.load(Ordering::Relaxed);
        if uses < USES_MAX {
            slot.uses.store(uses + 1, Ordering::Relaxed);
        }
        Some(look(slot.value.as_ref()))
    }

    /// Brings the rows with these hashes, and so many bytes of their values, into the processor's caches. Like
    /// `Layers::touch`: first all indices, then all slots, then all values, so that no step waits for
    /// what another one finds.
    pub fn touch(&self, hashes: &[u64], value_bytes: usize) {
        // Tried, since somebody may wait to write while another one's part is held.
        let part_of = |hash: &u64| Some((*hash, self.part(*hash).try_read_recursive()?));
        let parts: Vec<_> = hashes.iter().filter_map(part_of).collect();
        let places = parts.iter().filter_map(|(hash, part)| {
            // The first whose tag fits, which most likely is the one.
            part.index.find(*hash, |_| true).map(|at| (&part.slots, *at as usize))
        });
        let places: Vec<_> = places.collect();
        // The hash and the value are at both ends of a slot, which may lie across two lines.
        let slots = places.iter().map(|(slots, at)| &slots[*at]);
        let values = slots.filter(|slot| slot.hash != 0).filter_map(|slot| slot.value.as_deref());
        let values: Vec<_> = values.collect();
        values.into_iter().for_each(|value| touch_value(&value[..value.len().min(value_bytes)]));
    }

    /// Remembers a row's value, or its absence; forgets the row if that is too large.
    pub fn insert(&self, sought: Sought, value: Option<&Bytes>) {
        let value_bytes = value.map_or(0, Bytes::len);
        // No less than the slot says of itself: so there is room for it once all others are gone.
        let bytes_max = sought.row().len() + value_bytes + OVERHEAD_BYTES;
        let mut part = self.part(sought.known_hash()).write();
        let place = part.place(sought);
        if value_bytes > CACHED_VALUE_BYTES_MAX || bytes_max > self.part_bytes_max {
            return place.into_iter().for_each(|place| part.remove(place));
        }
        if let Some(place) = place {
            part.set(place, value);
            while part.bytes > self.part_bytes_max {
                part.make_room();
            }
            return;
        }
        let slot = Slot {
            hash: sought.known_hash(),
            row: Row::new(sought.row()),
            value: own(value),
            uses: AtomicU8::default(),
        };
        while part.bytes + slot.bytes() > self.part_bytes_max {
            part.make_room();
        }
        part.add(slot);
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.parts.iter().for_each(|part| *part.write() = Part::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_all_lengths_are_found_and_no_others() {
        let cache = RowCache::new(1 << 20);
        let row = |length: usize| vec![b'x'; length];
        let value = |length: usize| Bytes::from(vec![b'v'; length]);
        let lengths = [0, 1, SHORT_BYTES - 1, SHORT_BYTES, SHORT_BYTES + 1, 300];
        for length in lengths {
            cache.insert(Sought::new(&row(length)), Some(&value(length)));
        }
        for length in lengths {
            assert_eq!(cache.get(Sought::new(&row(length))), Some(Some(value(length))), "{length}");
        }
        assert_eq!(cache.get(Sought::new(&row(2))), None);
        cache.insert(Sought::new(&row(1)), None);
        assert_eq!(cache.get(Sought::new(&row(1))), Some(None));
        // Zeros are no filling.
        assert_eq!(cache.get(Sought::new(b"x\0")), None);
        cache.insert(Sought::new(&row(1)), Some(&value(CACHED_VALUE_BYTES_MAX + 1)));
        assert_eq!(cache.get(Sought::new(&row(1))), None);
        cache.clear();
        assert_eq!(cache.get(Sought::new(&row(300))), None);
    }

    #[test]
    fn rows_longer_than_a_part_are_not_kept() {
        let cache = RowCache::new(1 << 20);
        let value = Bytes::from_static(b"v");
        for _ in ["an empty part", "a full one"] {
            for length in [(1 << 20) - OVERHEAD_BYTES, 1 << 20, 3 << 20] {
                let row = vec![b'x'; length];
                for value in [None, Some(&value)] {
                    cache.insert(Sought::new(&row), value);
                    let fits = length < 1 << 20 && value.is_none();
                    assert_eq!(cache.get(Sought::new(&row)), fits.then_some(None));
                }
            }
            for n in 0..10_000_u32 {
                cache.insert(Sought::new(&n.to_be_bytes()), Some(&Bytes::from(vec![0; 100])));
            }
        }
    }

    #[test]
    fn short_values_are_copied_and_long_ones_shared() {
        let cache = RowCache::new(1 << 20);
        for (length, shared) in [(COPIED_BYTES_MAX, false), (COPIED_BYTES_MAX + 1, true)] {
            let value = Bytes::from(vec![b'v'; length]);
            cache.insert(Sought::new(b"row"), Some(&value));
            let found = cache.get(Sought::new(b"row")).flatten().expect("is there");
            assert_eq!((found.len(), found.as_ptr() == value.as_ptr()), (length, shared));
        }
    }

    #[test]
    fn it_keeps_its_bound() {
        let cache = RowCache::new(1 << 20);
        for n in 0..100_000_u32 {
            cache.insert(Sought::new(&n.to_be_bytes()), Some(&Bytes::from(vec![0; 100])));
        }
        let kept = (0..100_000_u32).filter(|n| cache.get(Sought::new(&n.to_be_bytes())).is_some());
        let rows = (1 << 20) / (100 + OVERHEAD_BYTES);
        let kept = kept.count();
        assert!((rows / 2..=rows).contains(&kept), "{kept} of {rows}");
    }
}
