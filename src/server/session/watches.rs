//! The keys that WATCH named, with what it saw of them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use resp::Reply;

use crate::command::parse::PAIR_BYTES_LIMIT;
use crate::store::keyspace::Version;

/// Keys that a connection may watch. All are looked at when EXEC comes, and that many of the largest
/// are less than a long read may look at.
const WATCHED_MAX: usize = 65_536;
/// Bytes of these keys: they go into the log with the transaction, which takes only so much.
const WATCHED_BYTES_MAX: usize = PAIR_BYTES_LIMIT;

/// Of one connection, in order.
#[derive(Default)]
pub(super) struct Watches {
    versions: BTreeMap<(u8, Bytes), Version>,
    /// Of the keys.
    bytes: usize,
}

impl Watches {
    /// Which of these keys were not watched before. A key watched again keeps the version seen first.
    ///
    /// # Errors
    /// Together with them there would be too many.
    pub fn fresh<'a>(&self, db: u8, keys: &'a [Bytes]) -> Result<BTreeSet<&'a Bytes>, Reply> {
        let (mut fresh, mut bytes) = (BTreeSet::new(), self.bytes);
        for key in keys {
            if self.versions.contains_key(&(db, key.clone())) || !fresh.insert(key) {
                continue;
            }
            bytes += key.len();
            if self.versions.len() + fresh.len() > WATCHED_MAX {
                let text = format!("ERR too many watched keys, the limit is {WATCHED_MAX}");
                return Err(Reply::error(text));
            }
            if bytes > WATCHED_BYTES_MAX {
                let text =
                    format!("ERR watched keys of {bytes} bytes, the limit is {WATCHED_BYTES_MAX}");
                return Err(Reply::error(text));
            }
        }
        Ok(fresh)
    }

    /// This is what was seen of a key that is fresh.
    pub fn add(&mut self, db: u8, key: &[u8], version: Version) {
        self.bytes += key.len();
        // A copy, so that the request's whole buffer is not kept.
        self.versions.insert((db, Bytes::copy_from_slice(key)), version);
    }

    /// Database, key and what was seen of it.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &Bytes, Version)> {
        self.versions.iter().map(|((db, key), version)| (*db, key, *version))
    }

    /// Nothing is watched.
    pub fn clear(&mut self) {
        *self = Watches::default();
    }
}
