//! A sorted map of changes that is mostly written and read by key.
//!
//! Keys are in a hash table for points and, once somebody has asked for their order, in a sorted set
//! for scans: to put each new row where it belongs costs as much as all else that is done for it, and
//! a layer that is never scanned while it grows is put in order at once when it is drained. Changing a
//! row that is there touches only the table. Invariant: table and set hold the same keys, once there is
//! a set. Those that are not many ([`super::bulk`]) are always in a set of their own.
//!
//! The table is many small ones. Rows are added while all readers wait, and a table that grows moves
//! all that it holds: as one, a layer's quarter of a million rows held everyone up for a tenth of a
//! second. A row's hash is computed once for all that look for it, and kept beside it.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, OnceLock};

use bytes::Bytes;
use hashbrown::HashTable;

use super::bulk::{is_bulk, may_be_bulk};

/// Values up to this size are copied to where the old one was; the processor's caches get all of them.
pub(super) const COPIED_BYTES_MAX: usize = 512;
/// So many rows are brought into the processor's caches beside each other.
pub(super) const FETCHED_AT_ONCE: usize = 32;
/// What the processor's caches take at once.
const LINE_BYTES: usize = 64;

/// How many tables a layer's rows are spread over.
const PARTS: usize = 256;

/// Random, so that nobody can choose keys that meet; the same for all tables of this process.
static HASHER: LazyLock<foldhash::fast::RandomState> = LazyLock::new(Default::default);

/// A row to look for, with its hash.
#[derive(Clone, Copy)]
pub(super) struct Sought<'a> {
    row: &'a [u8],
    hash: u64,
}

impl<'a> Sought<'a> {
    pub fn new(row: &'a [u8]) -> Sought<'a> {
        Sought { row, hash: HASHER.hash_one(row) }
    }

    /// Its hash.
    pub fn known_hash(self) -> u64 {
        self.hash
    }

    /// The row itself.
    pub fn row(self) -> &'a [u8] {
        self.row
    }

    /// Whether this is that row.
    pub fn is(&self, changed: &Changed) -> bool {
        // The hash first: it is here, the row elsewhere in memory.
        changed.hash == self.hash && changed.row == self.row
    }
}

/// A row's hash alone: enough to find where it is in memory.
pub(super) fn hash_of(row: &[u8]) -> u64 {
    Sought::new(row).hash
}

/// Touches a value, or its beginning.
pub(super) fn touch_value(value: &[u8]) {
    let value = &value[..value.len().min(COPIED_BYTES_MAX)];
    let lines = value.iter().step_by(LINE_BYTES).chain(value.last());
    std::hint::black_box(lines.fold(0, |all, byte| all ^ byte));
}

/// A row and what became of it; `None` means removed.
pub(super) struct Changed {
    hash: u64,
    /// The row.
    pub row: Bytes,
    /// What became of it.
    pub value: Option<Bytes>,
}

impl Changed {
    pub fn new(row: Bytes, value: Option<Bytes>) -> Changed {
        Changed { hash: Sought::new(&row).hash, row, value }
    }

    /// Touches the row and its value, as whoever looks for the row does.
    pub fn touch(&self) {
        self.place().touch();
    }

    /// The same row with another value, if it has one.
    pub fn map_value(self, change: impl FnOnce(Bytes) -> Bytes) -> Changed {
        Changed { value: self.value.map(change), ..self }
    }

    pub fn sought(&self) -> Sought<'_> {
        Sought { row: &self.row, hash: self.hash }
    }

    fn place(&self) -> ChangeRef<'_> {
        ChangeRef { hash: self.hash, row: &self.row, value: self.value.as_ref() }
    }
}

/// A row and what became of it, where they are. Compared by the row.
#[derive(Clone, Copy)]
pub(super) struct ChangeRef<'a> {
    hash: u64,
    /// The row.
    pub row: &'a Bytes,
    /// What became of it.
    pub value: Option<&'a Bytes>,
}

impl<'a> ChangeRef<'a> {
    /// Of a row whose hash is not known.
    pub fn new(row: &'a Bytes, value: Option<&'a Bytes>) -> ChangeRef<'a> {
        ChangeRef { hash: hash_of(row), row, value }
    }

    /// Its row, to look for.
    pub fn sought(&self) -> Sought<'a> {
        Sought { row: self.row, hash: self.hash }
    }

    /// What they take without anything beside.
    pub fn bytes(&self) -> usize {
        self.row.len() + self.value.map_or(0, Bytes::len)
    }

    /// Touches the row and its value.
    pub fn touch(&self) {
        touch_value(self.row);
        touch_value(self.value.map(|value| &value[..]).unwrap_or_default());
    }
}

/// How much of a row [`InOrder`] keeps: prefix and a common length of keys.
const HEAD_BYTES: usize = 24;

/// A row's beginning, big-endian, with zeros where the row is shorter; so of two that differ, the lesser
/// belongs to the lesser row.
type Head = [u64; HEAD_BYTES / 8];

fn head_of(row: &[u8]) -> Head {
    let mut bytes = [0; HEAD_BYTES];
    let kept = row.len().min(HEAD_BYTES);
    bytes[..kept].copy_from_slice(&row[..kept]);
    let (words, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|at| u64::from_be_bytes(words[at]))
}

/// A row among others in order, which is that of its bytes. Its beginning is kept where it is
/// compared, and most rows differ there: the rows themselves are all over the memory.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct InOrder {
    head: Head,
    row: Bytes,
}

impl InOrder {
    pub fn new(row: Bytes) -> InOrder {
        InOrder { head: head_of(&row), row }
    }
}

impl Borrow<[u8]> for InOrder {
    fn borrow(&self) -> &[u8] {
        &self.row
    }
}

/// Rows in no order.
type Unordered = HashTable<Changed>;

pub(super) fn rehash(changed: &Changed) -> u64 {
    changed.hash
}

/// Rows in parts that grow one by one.
#[derive(Default)]
struct Table {
    /// None until there is a row.
    parts: Vec<Unordered>,
    len: usize,
}

impl Table {
    /// Which part a row is in: by bits that the parts themselves do not look at.
    fn part_of(hash: u64) -> usize {
        (hash >> 40) as usize % PARTS
    }

    fn get(&self, sought: Sought) -> Option<&Changed> {
        let part = self.parts.get(Table::part_of(sought.hash))?;
        part.find(sought.hash, |changed| sought.is(changed))
    }

    fn get_mut(&mut self, sought: Sought) -> Option<&mut Changed> {
        let part = self.parts.get_mut(Table::part_of(sought.hash))?;
        part.find_mut(sought.hash, |changed| sought.is(changed))
    }

    /// Adds a row that is not there.
    fn add(&mut self, changed: Changed) {
        if self.parts.is_empty() {
            self.parts.resize_with(PARTS, Unordered::default);
        }
        let part = &mut self.parts[Table::part_of(changed.hash)];
        part.insert_unique(changed.hash, changed, rehash);
        self.len += 1;
    }
}

/// Rows and what became of them; `None` means removed.
#[derive(Default)]
pub(super) struct Changes {
    table: Table,
    /// All rows, once somebody has asked.
    order: OnceLock<BTreeSet<InOrder>>,
    /// Somebody has asked for the order.
    asked: AtomicBool,
    /// Rows that are not many.
    few: BTreeSet<InOrder>,
}

impl Changes {
    /// None, and each that comes is put where it belongs.
    pub fn in_order() -> Changes {
        Changes { order: OnceLock::from(BTreeSet::new()), ..Changes::default() }
    }

    /// Puts the rows in order, if they are not; they stay so.
    pub fn put_in_order(&self) {
        self.order();
    }

    /// Whether the rows are in order.
    pub fn is_in_order(&self) -> bool {
        self.order.get().is_some()
    }

    /// How many rows had to be put in order for a scan. That is to come, so what comes after them had
    /// better be in order from the start.
    pub fn ask_for_order(&self) -> usize {
        self.asked.store(true, Ordering::Relaxed);
        if self.is_in_order() { 0 } else { self.len() }
    }

    /// Whether somebody has asked for the order.
    pub fn was_asked_for_order(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    fn order(&self) -> &BTreeSet<InOrder> {
        self.asked.store(true, Ordering::Relaxed);
        self.order.get_or_init(|| {
            let rows = self.table.parts.iter().flatten();
            let mut rows: Vec<_> = rows.map(|changed| InOrder::new(changed.row.clone())).collect();
            rows.sort_unstable();
            rows.into_iter().collect()
        })
    }

    /// Sets a row; returns how long the value was if the row was there.
    pub fn insert(&mut self, changed: Changed) -> Option<usize> {
        if let Some(old) = self.table.get_mut(changed.sought()) {
            return Some(overwrite(&mut old.value, changed.value));
        }
        if let Some(order) = self.order.get_mut() {
            order.insert(InOrder::new(changed.row.clone()));
        }
        if !is_bulk(&changed.row) {
            self.few.insert(InOrder::new(changed.row.clone()));
        }
        self.table.add(changed);
        None
    }

    pub fn get(&self, sought: Sought) -> Option<&Option<Bytes>> {
        self.table.get(sought).map(|changed| &changed.value)
    }

    /// The first row with this hash, which most likely is the only one. Looks at the table alone.
    pub fn with_hash(&self, hash: u64) -> Option<&Changed> {
        let part = self.table.parts.get(Table::part_of(hash))?;
        part.find(hash, |changed| changed.hash == hash)
    }

    pub fn is_empty(&self) -> bool {
        self.table.len == 0
    }

    pub fn len(&self) -> usize {
        self.table.len
    }

    pub fn clear(&mut self) {
        *self = Changes::default();
    }

    /// Rows with `first <= row < end`, ascending.
    pub fn range<'a>(
        &'a self,
        first: &[u8],
        end: Option<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&'a Bytes, &'a Option<Bytes>)> + 'a {
        let order = if may_be_bulk(first, end) { self.order() } else { &self.few };
        range_of(|sought| self.get(sought), order, first, end)
    }

    /// All rows, ascending, without an order for who comes after.
    pub fn sorted(&self) -> Vec<ChangeRef<'_>> {
        let all = self.table.parts.iter().flatten();
        let mut all: Vec<_> = all.map(|changed| (head_of(&changed.row), changed)).collect();
        all.sort_unstable_by(|(head, one), (other_head, other)| {
            head.cmp(other_head).then_with(|| one.row.cmp(&other.row))
        });
        all.into_iter().map(|(_, changed)| changed.place()).collect()
    }

    /// All rows, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&Bytes, &Option<Bytes>)> {
        self.range(&[], None)
    }

    /// All keys, ascending.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.order().iter().map(|place| &place.row)
    }
}

/// Sets a value; returns how long it was.
fn overwrite(place: &mut Option<Bytes>, value: Option<Bytes>) -> usize {
    let old = place.take();
    let old_bytes = old.as_ref().map_or(0, Bytes::len);
    *place = in_place_of(old, value.as_ref()).or(value);
    old_bytes
}

/// A short value in the memory of the old one, which was just looked at, if that is just as long and
/// nobody else reads it: new places are far away ones.
pub(super) fn in_place_of(old: Option<Bytes>, new: Option<&Bytes>) -> Option<Bytes> {
    let (old, new) = old.zip(new)?;
    if old.len() != new.len() || new.len() > COPIED_BYTES_MAX {
        return None;
    }
    let mut room = old.try_into_mut().ok()?;
    room.copy_from_slice(new);
    Some(room.freeze())
}

pub(super) fn range_of<'a, G>(
    get: G,
    order: &'a BTreeSet<InOrder>,
    first: &[u8],
    end: Option<&[u8]>,
) -> impl DoubleEndedIterator<Item = (&'a Bytes, &'a Option<Bytes>)> + use<'a, G>
where
    G: Fn(Sought<'a>) -> Option<&'a Option<Bytes>>,
{
    let high = end.map_or(Bound::Unbounded, Bound::Excluded);
    let rows = order.range::<[u8], _>((Bound::Included(first), high));
    rows.map(move |InOrder { row, .. }| {
        (row, get(Sought::new(row)).expect("the table holds what the order holds"))
    })
}

#[cfg(test)]
impl FromIterator<(Bytes, Option<Bytes>)> for Changes {
    fn from_iter<I: IntoIterator<Item = (Bytes, Option<Bytes>)>>(changes: I) -> Self {
        let mut all = Changes::default();
        for (row, value) in changes {
            all.insert(Changed::new(row, value));
        }
        all
    }
}

#[test]
fn no_part_of_the_table_holds_much_more_than_its_share() {
    let name = |n: usize| Bytes::from(n.to_string());
    let mut all = Changes::default();
    assert!(all.is_empty() && all.get(Sought::new(b"0")).is_none());
    for n in 0..100_000 {
        assert_eq!(all.insert(Changed::new(name(n), Some(name(n)))), None);
    }
    assert_eq!(all.insert(Changed::new(name(7), None)), Some(1));
    let get = |row: &'static [u8]| all.get(Sought::new(row));
    assert_eq!((all.len(), get(b"7"), get(b"x")), (100_000, Some(&None), None));
    assert_eq!(get(b"99999"), Some(&Some(name(99_999))));
    // What one addition may move.
    let largest = all.table.parts.iter().map(HashTable::len).max();
    assert!(largest < Some(3 * 100_000 / PARTS), "{largest:?}");
}

#[test]
fn a_value_takes_the_place_of_one_that_nobody_reads() {
    let at = |all: &Changes| {
        let found = all.get(Sought::new(b"row")).expect("is there");
        found.as_ref().map(|value| (value.as_ptr(), value.clone()))
    };
    let set = |all: &mut Changes, value: &'static str| {
        all.insert(Changed::new(Bytes::from("row"), Some(Bytes::from(value.to_owned()))))
    };
    let mut all = Changes::default();
    assert_eq!(set(&mut all, "one"), None);
    let (first_at, read) = at(&all).expect("a value");
    // Whoever reads a value goes on reading it, and what replaces it is somewhere else.
    assert_eq!(set(&mut all, "two"), Some(3));
    let (second_at, two) = at(&all).expect("a value");
    assert_eq!((&read[..], &two[..], first_at == second_at), (&b"one"[..], &b"two"[..], false));
    drop(two);
    assert_eq!(set(&mut all, "six"), Some(3));
    let (third_at, six) = at(&all).expect("a value");
    assert_eq!((&six[..], second_at == third_at), (&b"six"[..], true));
    drop(six);
    assert_eq!(set(&mut all, "seven"), Some(3));
    assert_eq!(all.insert(Changed::new(Bytes::from("row"), None)), Some(5));
    assert_eq!(at(&all), None);
    assert_eq!(set(&mut all, "back"), Some(0));
}

#[test]
fn rows_are_in_the_order_of_their_bytes() {
    let long = [b'x'; HEAD_BYTES + 2];
    let mut rows: Vec<&[u8]> = vec![b"", b"\0", b"\0\0", b"a", b"a\0", b"a\0\0", b"a\0b", b"b"];
    rows.extend((HEAD_BYTES - 2..long.len()).map(|length| &long[..length]));
    let zeros = [0; HEAD_BYTES + 2];
    rows.extend((HEAD_BYTES - 2..zeros.len()).map(|length| &zeros[..length]));
    let place = |row: &[u8]| InOrder::new(Bytes::copy_from_slice(row));
    for one in &rows {
        for other in &rows {
            assert_eq!(place(one).cmp(&place(other)), one.cmp(other), "{one:?} {other:?}");
        }
    }
}

#[test]
fn rows_are_put_in_order_when_somebody_asks() {
    let name = |n: usize| Bytes::from(format!("{:04}", n * 7 % 5000));
    for ask_at in [0, 1, 4_999] {
        let mut all = Changes::default();
        for n in 0..5000 {
            if n == ask_at {
                all.put_in_order();
            }
            assert_eq!(all.insert(Changed::new(name(n), Some(name(n)))), None);
        }
        // Once there, it is kept.
        assert!(all.is_in_order() && all.was_asked_for_order());
        assert!(all.keys().is_sorted() && all.keys().count() == 5000, "asked at {ask_at}");
        let sorted = all.sorted().into_iter().map(|change| (change.row, change.value));
        assert!(sorted.eq(all.iter().map(|(row, value)| (row, value.as_ref()))));
        assert_eq!(all.range(b"0010", Some(b"0012")).count(), 2);
        assert_eq!(all.iter().next_back().map(|(row, _)| &row[..]), Some(&b"4999"[..]));
    }
}
