//! The encoding of batches: what one entry of the log holds.
//!
//! ```text
//! batch:       version u8 = 1, stamp_ms u64, seed u64, count u32, then `count` items
//! item:        kind u8, then
//!   1 command:     db u8, arguments
//!   2 transaction: number of watches, each {db u8, key string, version index u64, place u32};
//!                  number of commands, each {db u8, arguments}
//!   3 clock:       nothing
//!   4 head:        nothing
//!   5 level:       level u8, then an item of one of the other kinds
//!   6 short clock: expired_keys_max u16
//! arguments:   number, then as many strings; the first is the command's name
//! string:      number of bytes, then the bytes
//! ```
//!
//! Numbers without a width are LEB128, at most five bytes; those with one are big-endian. A node
//! that meets a version or kind it does not know must stop: to skip it would make its store differ
//! from the others'. So must one that meets a level above its own: the item holds a command that it
//! knows under that name, but with another meaning. Items without a level have level 1. Items are encoded one after the other without the header, so that sessions
//! write them and the master only puts the header in front.
//!
//! Decoding copies nothing: every key and argument is a slice of the batch.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::store::keyspace::{DATABASES, Version};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 1 + 8 + 8 + 4;

const COMMAND: u8 = 1;
const TRANSACTION: u8 = 2;
const CLOCK: u8 = 3;
const HEAD: u8 = 4;
const LEVEL: u8 = 5;
const SHORT_CLOCK: u8 = 6;

/// Expired keys that a clock item deletes, unless it says fewer.
pub const EXPIRED_PER_CLOCK_MAX: u16 = 1000;

/// The highest level of items that this version applies. 2: SET with IFEQ, IFNE, IFDEQ, IFDNE. 3:
/// see [`LEVEL_BOUNDED`].
pub const LEVEL_MAX: u8 = 3;
/// From this level on results are bounded ([`super::charge::RESULTS_MAX`]), large removals as well
/// (`store::keyspace::removals`), each call of a transaction has a place of its own among
/// versions, and any error of an assertion undoes its transaction.
pub const LEVEL_BOUNDED: u8 = 3;

/// A key and the version it must still have when the transaction is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Logical database.
    pub db: u8,
    /// The key.
    pub key: Bytes,
    /// What WATCH saw.
    pub version: Version,
}

/// One command as it was sent, and the database its connection had selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Logical database.
    pub db: u8,
    /// Name and arguments; never empty.
    pub args: Vec<Bytes>,
}

/// What is applied as a whole and has one reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// One command.
    Command(Call),
    /// MULTI/EXEC.
    Transaction {
        /// All of these must hold, or nothing is done.
        watches: Vec<Watch>,
        /// Run in order, nothing in between.
        calls: Vec<Call>,
    },
    /// Advance the log's clock to the stamp and delete expired keys.
    Clock {
        /// At most so many.
        expired_keys_max: u16,
    },
    /// Freeze the state after this entry and export it as a head.
    Head,
}

/// Bytes that are not a batch of a version this node knows. Ends the node: an entry of the log
/// must be applied, or everything after it would differ from the other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Written by a newer version.
    #[error("batch of version {0}; this node knows version {VERSION}: upgrade it")]
    UnknownVersion(u8),
    /// Written by a newer version.
    #[error("batch item of unknown kind {0}: upgrade this node")]
    UnknownKind(u8),
    /// Written by a newer version.
    #[error("batch item of level {0}; this node knows level {LEVEL_MAX}: upgrade it")]
    UnknownLevel(u8),
    /// Not what `seal` and the encoders write.
    #[error("damaged batch: {0}")]
    Damaged(&'static str),
}

/// Appends the level of the item that follows, unless it is the first.
pub fn encode_level(out: &mut BytesMut, level: u8) {
    assert!(level <= LEVEL_MAX, "level {level} of {LEVEL_MAX}");
    if level > 1 {
        out.put_u8(LEVEL);
        out.put_u8(level);
    }
}

/// Appends a command.
pub fn encode_command(out: &mut BytesMut, db: u8, args: &[Bytes]) {
    out.put_u8(COMMAND);
    put_call(out, db, args);
}

/// Appends a transaction.
pub fn encode_transaction<'a>(
    out: &mut BytesMut,
    watches: &[Watch],
    calls: impl ExactSizeIterator<Item = (u8, &'a [Bytes])>,
) {
    out.put_u8(TRANSACTION);
    put_number(out, watches.len());
    for watch in watches {
        out.put_u8(watch.db);
        put_string(out, &watch.key);
        out.put_u64(watch.version.index);
        out.put_u32(watch.version.place);
    }
    put_number(out, calls.len());
    calls.for_each(|(db, args)| put_call(out, db, args));
}

/// Appends a clock item that deletes so many expired keys at most, and no more than
/// [`EXPIRED_PER_CLOCK_MAX`].
pub fn encode_clock(out: &mut BytesMut, expired_keys_max: u16) {
    if expired_keys_max >= EXPIRED_PER_CLOCK_MAX {
        // What the first version knows.
        out.put_u8(CLOCK);
    } else {
        out.put_u8(SHORT_CLOCK);
        out.put_u16(expired_keys_max);
    }
}

/// Appends a head item.
pub fn encode_head(out: &mut BytesMut) {
    out.put_u8(HEAD);
}

/// Makes a batch of `count` items, encoded in `items` one after the other. `stamp_ms` is the
/// master's time, `seed` what anything random in the batch is derived from.
pub fn seal<B: AsRef<[u8]>>(stamp_ms: u64, seed: u64, count: u32, items: &[B]) -> Bytes {
    let size: usize = items.iter().map(|items| items.as_ref().len()).sum();
    let mut batch = BytesMut::with_capacity(HEADER_BYTES + size);
    batch.put_u8(VERSION);
    batch.put_u64(stamp_ms);
    batch.put_u64(seed);
    batch.put_u32(count);
    items.iter().for_each(|items| batch.put_slice(items.as_ref()));
    batch.freeze()
}

fn put_call(out: &mut BytesMut, db: u8, args: &[Bytes]) {
    let size: usize = args.iter().map(|arg| arg.len() + 5).sum();
    out.reserve(size + 6);
    out.put_u8(db);
    put_number(out, args.len());
    args.iter().for_each(|arg| put_string(out, arg));
}

fn put_string(out: &mut BytesMut, string: &[u8]) {
    put_number(out, string.len());
    out.put_slice(string);
}

fn put_number(out: &mut BytesMut, number: usize) {
    assert!(u32::try_from(number).is_ok(), "{number} is over the limit of any request");
    let mut rest = number;
    while rest >= 0x80 {
        out.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

/// A batch being read.
#[derive(Debug)]
pub struct Batch {
    /// The master's time when it was proposed, in ms since the epoch.
    pub stamp_ms: u64,
    /// What anything random is derived from.
    pub seed: u64,
    /// Items it holds.
    pub count: u32,
    items: Items,
}

impl Batch {
    /// Reads the header; the items follow through [`Batch::next_item`].
    pub fn open(batch: &Bytes) -> Result<Batch, BatchError> {
        let mut header = &batch[..];
        match header.first() {
            Some(&VERSION) if header.len() >= HEADER_BYTES => header.advance(1),
            Some(&VERSION) | None => return Err(BatchError::Damaged("cut short in its header")),
            Some(&other) => return Err(BatchError::UnknownVersion(other)),
        }
        let (stamp_ms, seed, count) = (header.get_u64(), header.get_u64(), header.get_u32());
        if header.len() < count as usize {
            return Err(BatchError::Damaged("more items than bytes"));
        }
        let items = Items::new(batch.slice(HEADER_BYTES..), count);
        Ok(Batch { stamp_ms, seed, count, items })
    }

    /// The next item; `None` after the last.
    pub fn next_item(&mut self) -> Result<Option<Item>, BatchError> {
        self.items.next_item()
    }

    /// The level of the item that was read last.
    pub fn level(&self) -> u8 {
        self.items.level
    }
}

/// Encoded items being read, as a session wrote them.
#[derive(Debug)]
pub struct Items {
    rest: Bytes,
    left: u32,
    level: u8,
}

impl Items {
    /// Reads `count` items without a batch's header.
    pub fn new(items: Bytes, count: u32) -> Items {
        Items { rest: items, left: count, level: 1 }
    }

    /// The next item; `None` after the last.
    pub fn next_item(&mut self) -> Result<Option<Item>, BatchError> {
        if self.left == 0 {
            return match self.rest.is_empty() {
                true => Ok(None),
                false => Err(BatchError::Damaged("bytes behind the last item")),
            };
        }
        self.left -= 1;
        let mut kind = self.u8()?;
        self.level = 1;
        if kind == LEVEL {
            self.level = self.u8()?;
            if self.level > LEVEL_MAX {
                return Err(BatchError::UnknownLevel(self.level));
            }
            kind = self.u8()?;
        }
        let item = match kind {
            COMMAND => Item::Command(self.call()?),
            TRANSACTION => {
                let watches = self.many(|items| items.watch())?;
                let calls = self.many(|items| items.call())?;
                Item::Transaction { watches, calls }
            }
            CLOCK => Item::Clock { expired_keys_max: EXPIRED_PER_CLOCK_MAX },
            SHORT_CLOCK => {
                let said = u16::from_be_bytes([self.u8()?, self.u8()?]);
                Item::Clock { expired_keys_max: said.min(EXPIRED_PER_CLOCK_MAX) }
            }
            HEAD => Item::Head,
            other => return Err(BatchError::UnknownKind(other)),
        };
        Ok(Some(item))
    }

    fn watch(&mut self) -> Result<Watch, BatchError> {
        let (db, key) = (self.db()?, self.string()?);
        if self.rest.len() < 12 {
            return Err(BatchError::Damaged("cut short in a version"));
        }
        let version = Version { index: self.rest.get_u64(), place: self.rest.get_u32() };
        Ok(Watch { db, key, version })
    }

    fn call(&mut self) -> Result<Call, BatchError> {
        let db = self.db()?;
        let args = self.many(|items| items.string())?;
        match args.is_empty() {
            true => Err(BatchError::Damaged("a command without a name")),
            false => Ok(Call { db, args }),
        }
    }

    /// A number, then as many of something that takes at least a byte each.
    fn many<T>(
        &mut self,
        read: impl Fn(&mut Items) -> Result<T, BatchError>,
    ) -> Result<Vec<T>, BatchError> {
        let count = self.number()?;
        if count > self.rest.len() {
            return Err(BatchError::Damaged("more of something than bytes"));
        }
        // A length that damage made up must not reserve more than a few times the batch.
        let mut all = Vec::with_capacity(count.min(1024));
        for _ in 0..count {
            all.push(read(self)?);
        }
        Ok(all)
    }

    fn db(&mut self) -> Result<u8, BatchError> {
        match self.u8()? {
            db if usize::from(db) < DATABASES => Ok(db),
            _ => Err(BatchError::Damaged("no such database")),
        }
    }

    fn string(&mut self) -> Result<Bytes, BatchError> {
        let length = self.number()?;
        if length > self.rest.len() {
            return Err(BatchError::Damaged("cut short in a string"));
        }
        Ok(self.rest.split_to(length))
    }

    fn number(&mut self) -> Result<usize, BatchError> {
        let mut number = 0u64;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.u8()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                let number = u32::try_from(number).ok();
                return number.map(|number| number as usize).ok_or(OVERLONG);
            }
        }
        Err(OVERLONG)
    }

    fn u8(&mut self) -> Result<u8, BatchError> {
        match self.rest.is_empty() {
            true => Err(BatchError::Damaged("cut short")),
            false => Ok(self.rest.get_u8()),
        }
    }
}

const OVERLONG: BatchError = BatchError::Damaged("a number of more than 32 bits");

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn read(batch: &Bytes) -> Result<Vec<Item>, BatchError> {
        let mut batch = Batch::open(batch)?;
        let mut items = Vec::new();
        while let Some(item) = batch.next_item()? {
            items.push(item);
        }
        Ok(items)
    }

    fn write(items: &[Item]) -> Bytes {
        let mut out = BytesMut::new();
        for item in items {
            match item {
                Item::Command(call) => encode_command(&mut out, call.db, &call.args),
                Item::Transaction { watches, calls } => {
                    let calls = calls.iter().map(|call| (call.db, &call.args[..]));
                    encode_transaction(&mut out, watches, calls);
                }
                Item::Clock { expired_keys_max } => encode_clock(&mut out, *expired_keys_max),
                Item::Head => encode_head(&mut out),
            }
        }
        seal(7, 9, items.len() as u32, &[out])
    }

    fn any_bytes() -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 0..300).prop_map(Bytes::from)
    }

    fn any_call() -> impl Strategy<Value = Call> {
        (0..16u8, vec(any_bytes(), 1..5)).prop_map(|(db, args)| Call { db, args })
    }

    fn any_item() -> impl Strategy<Value = Item> {
        let watch = (0..16u8, any_bytes(), any::<u64>(), any::<u32>()).prop_map(
            |(db, key, index, place)| Watch { db, key, version: Version { index, place } },
        );
        prop_oneof![
            any_call().prop_map(Item::Command),
            (vec(watch, 0..4), vec(any_call(), 0..4))
                .prop_map(|(watches, calls)| Item::Transaction { watches, calls }),
            Just(Item::Clock { expired_keys_max: EXPIRED_PER_CLOCK_MAX }),
            (0..EXPIRED_PER_CLOCK_MAX).prop_map(|max| Item::Clock { expired_keys_max: max }),
            Just(Item::Head),
        ]
    }

    proptest! {
        #[test]
        fn reads_what_was_written(items in vec(any_item(), 0..8)) {
            let batch = write(&items);
            let header = Batch::open(&batch).unwrap();
            prop_assert_eq!((header.stamp_ms, header.seed), (7, 9));
            prop_assert_eq!(read(&batch), Ok(items));
        }

        #[test]
        fn a_batch_cut_anywhere_is_an_error(items in vec(any_item(), 1..4), cut in any::<usize>()) {
            let batch = write(&items);
            prop_assert!(read(&batch.slice(..cut % batch.len())).is_err());
        }

        #[test]
        fn garbage_never_panics(
            items in vec(any_item(), 0..4),
            changes in vec((any::<usize>(), any::<u8>()), 1..5),
            tail in vec(any::<u8>(), 0..40),
        ) {
            let mut bytes = write(&items).to_vec();
            for (at, byte) in changes {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            bytes.extend(tail);
            let _ = read(&Bytes::from(bytes));
        }
    }

    #[test]
    fn an_unknown_version_or_kind_is_named() {
        assert_eq!(read(&Bytes::from_static(&[9])), Err(BatchError::UnknownVersion(9)));
        assert_eq!(read(&seal(0, 0, 1, &[[77]])), Err(BatchError::UnknownKind(77)));
    }

    #[test]
    fn a_level_is_read_over_and_one_too_high_is_named() {
        let item = |level: u8| {
            let mut out = BytesMut::new();
            out.put_slice(&[LEVEL, level]);
            encode_clock(&mut out, 7);
            seal(0, 0, 1, &[out])
        };
        assert_eq!(read(&item(LEVEL_MAX)), Ok(vec![Item::Clock { expired_keys_max: 7 }]));
        let above = LEVEL_MAX + 1;
        assert_eq!(read(&item(above)), Err(BatchError::UnknownLevel(above)));
        assert_eq!(read(&seal(0, 0, 1, &[[LEVEL, 2, LEVEL]])), Err(BatchError::UnknownKind(LEVEL)));
    }

    #[test]
    fn a_made_up_length_is_refused_before_anything_is_reserved() {
        let huge = [COMMAND, 0, 0xff, 0xff, 0xff, 0xff, 0x0f];
        assert!(matches!(read(&seal(0, 0, 1, &[huge])), Err(BatchError::Damaged(_))));
        assert!(matches!(read(&seal(0, 0, u32::MAX, &[huge])), Err(BatchError::Damaged(_))));
    }
}
