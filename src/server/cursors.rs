//! SCAN's cursors: numbers for clients, keys for us.
//!
//! A cursor can be sent again and continues from the same key, as long as the table has it; the
//! table is bounded, and the oldest cursors go first. A cursor carries a tag of this node and start
//! in its upper bits, so that one of another node is refused instead of mistaken. All cursors stay
//! below 2^53, which every client can keep in a floating point number.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::planted::{Bug, plants};

const COUNTER_BITS: u32 = 32;
/// Tags take 21 bits: 1 to this.
const TAG_MAX: u64 = (1 << 21) - 1;

/// Cursors kept at most.
const CURSORS_MAX: usize = 65_536;
/// Bytes of keys kept at most; the newest cursor is kept even when it alone is larger.
const KEY_BYTES_MAX: usize = 16 << 20;

/// The table of one node, shared by its sessions.
#[derive(Debug)]
pub struct Cursors {
    tag: u64,
    /// Keys of the cursors numbered `first` and following.
    keys: VecDeque<Bytes>,
    first: u64,
    key_bytes: usize,
}

impl Cursors {
    /// An empty table. `seed` should differ from node to node and start to start.
    pub fn new(seed: u64) -> Cursors {
        Cursors { tag: 1 + seed % TAG_MAX, keys: VecDeque::new(), first: 0, key_bytes: 0 }
    }

    /// A new cursor that continues behind `key`.
    pub fn insert(&mut self, key: Bytes) -> u64 {
        self.key_bytes += key.len();
        self.keys.push_back(key);
        while self.keys.len() > CURSORS_MAX || self.key_bytes > KEY_BYTES_MAX && self.keys.len() > 1
        {
            let oldest = self.keys.pop_front().unwrap_or_default();
            self.key_bytes -= oldest.len();
            self.first += 1;
        }
        let number = self.first + self.keys.len() as u64 - 1;
        (self.tag << COUNTER_BITS) | (number & u64::from(u32::MAX))
    }

    /// The key behind which a cursor continues; `None`: not of this table, or no longer.
    pub fn find(&self, cursor: u64) -> Option<Bytes> {
        if cursor >> COUNTER_BITS != self.tag && !plants(Bug::CursorOfAnotherNode) {
            return None;
        }
        let place = (cursor as u32).wrapping_sub(self.first as u32);
        self.keys.get(place as usize).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_found_again_until_it_is_evicted() {
        let mut cursors = Cursors::new(u64::MAX);
        let first = cursors.insert(Bytes::from("a"));
        assert!(first < 1 << 53);
        assert_eq!(cursors.find(first), Some(Bytes::from("a")));
        assert_eq!(cursors.find(first), Some(Bytes::from("a")));
        for _ in 0..CURSORS_MAX {
            cursors.insert(Bytes::from("b"));
        }
        assert_eq!(cursors.find(first), None);
        assert_eq!(cursors.find(first + 1), Some(Bytes::from("b")));
    }

    #[test]
    fn a_cursor_of_another_start_is_unknown() {
        let cursor = Cursors::new(1).insert(Bytes::from("a"));
        let mut other = Cursors::new(2);
        other.insert(Bytes::from("z"));
        assert_eq!(other.find(cursor), None);
        assert_eq!(other.find(0), None);
    }

    #[test]
    fn long_keys_push_out_old_cursors() {
        let mut cursors = Cursors::new(3);
        let first = cursors.insert(Bytes::from("a"));
        let large = cursors.insert(Bytes::from(vec![0; KEY_BYTES_MAX + 1]));
        assert_eq!(cursors.find(first), None);
        assert!(cursors.find(large).is_some());
    }
}
