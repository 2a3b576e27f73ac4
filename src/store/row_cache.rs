//! Rows as the engine has them, kept in memory up to a bound.
//!
//! With millions of rows nearly every place that a read looks at is one that the processor has to
//! wait for, and that costs more than all else the read does. So there are few of them: most rows'
//! keys are in the cache's own table, and a short value is one piece of memory that nobody shares,
//! without a counter elsewhere. Who reads it gets a copy.

use std::hash::{BuildHasher, Hash, Hasher};

use bytes::Bytes;
use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};

use super::changes::{Sought, hash_of};

/// Values above this size are not kept.
pub(super) const CACHED_VALUE_BYTES_MAX: usize = 64 << 10;
/// Values up to this size are copied.
const COPIED_BYTES_MAX: usize = 512;
/// What a row costs beside its value, about: its place in a table that grows by doubling, in the
/// index, and what the allocator rounds up.
const OVERHEAD_BYTES: usize = 120;
/// Rows up to this length are in the table.
const SHORT_BYTES: usize = 30;

/// A row.
#[derive(Clone)]
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

impl PartialEq for Row {
    fn eq(&self, other: &Row) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Row {}

impl Hash for Row {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(hash_of(self.bytes()));
    }
}

impl Hash for Sought<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.known_hash());
    }
}

impl Equivalent<Row> for Sought<'_> {
    fn equivalent(&self, row: &Row) -> bool {
        self.row() == row.bytes()
    }
}

/// Takes the hash that a row has anyway.
#[derive(Clone, Default)]
struct SameHash(u64);

impl BuildHasher for SameHash {
    type Hasher = SameHash;

    fn build_hasher(&self) -> SameHash {
        SameHash(0)
    }
}

impl Hasher for SameHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("a row has one hash");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// A row's value; `None`: there is no such row.
struct Value(Option<Bytes>);

impl Value {
    fn new(value: Option<&Bytes>) -> Value {
        Value(value.map(|value| match value.len() {
            ..=COPIED_BYTES_MAX => Bytes::copy_from_slice(value),
            _ => value.clone(),
        }))
    }
}

impl Clone for Value {
    fn clone(&self) -> Value {
        Value::new(self.0.as_ref())
    }
}

#[derive(Clone)]
struct Weight;

impl Weighter<Row, Value> for Weight {
    fn weight(&self, row: &Row, value: &Value) -> u64 {
        let long_bytes = match row {
            Row::Short { .. } => 0,
            Row::Long(row) => row.len(),
        };
        (long_bytes + value.0.as_ref().map_or(0, Bytes::len) + OVERHEAD_BYTES) as u64
    }
}

/// Values and absences of rows.
pub(super) struct RowCache {
    rows: Cache<Row, Value, Weight, SameHash>,
}

impl RowCache {
    /// One that takes so much memory.
    pub fn new(bytes_max: u64) -> RowCache {
        let rows = bytes_max / 256 + 1;
        RowCache {
            rows: Cache::with(rows as usize, bytes_max, Weight, SameHash(0), Default::default()),
        }
    }

    /// What is known of a row: nothing, that there is none, or its value.
    pub fn get(&self, sought: Sought) -> Option<Option<Bytes>> {
        self.rows.get(&sought).map(|value| value.0)
    }

    /// Remembers a row's value, or its absence; forgets the row if that is too large.
    pub fn insert(&self, row: &[u8], value: Option<&Bytes>) {
        match value {
            Some(value) if value.len() > CACHED_VALUE_BYTES_MAX => {
                self.rows.remove(&Sought::new(row));
            }
            _ => self.rows.insert(Row::new(row), Value::new(value)),
        }
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.rows.clear();
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
            cache.insert(&row(length), Some(&value(length)));
        }
        for length in lengths {
            assert_eq!(cache.get(Sought::new(&row(length))), Some(Some(value(length))), "{length}");
        }
        assert_eq!(cache.get(Sought::new(&row(2))), None);
        cache.insert(&row(1), None);
        assert_eq!(cache.get(Sought::new(&row(1))), Some(None));
        // Zeros are no filling.
        assert_eq!(cache.get(Sought::new(b"x\0")), None);
        cache.insert(&row(1), Some(&value(CACHED_VALUE_BYTES_MAX + 1)));
        assert_eq!(cache.get(Sought::new(&row(1))), None);
        cache.clear();
        assert_eq!(cache.get(Sought::new(&row(300))), None);
    }

    #[test]
    fn short_values_are_copied_and_long_ones_shared() {
        let cache = RowCache::new(1 << 20);
        for (length, shared) in [(COPIED_BYTES_MAX, false), (COPIED_BYTES_MAX + 1, true)] {
            let value = Bytes::from(vec![b'v'; length]);
            cache.insert(b"row", Some(&value));
            let found = cache.get(Sought::new(b"row")).flatten().expect("is there");
            assert_eq!((found.len(), found.as_ptr() == value.as_ptr()), (length, shared));
        }
    }

    #[test]
    fn it_keeps_its_bound() {
        let cache = RowCache::new(1 << 20);
        for n in 0..100_000_u32 {
            cache.insert(&n.to_be_bytes(), Some(&Bytes::from(vec![0; 100])));
        }
        let kept = (0..100_000_u32).filter(|n| cache.get(Sought::new(&n.to_be_bytes())).is_some());
        let rows = (1 << 20) / (100 + OVERHEAD_BYTES);
        let kept = kept.count();
        assert!((rows / 2..=rows).contains(&kept), "{kept} of {rows}");
    }
}
