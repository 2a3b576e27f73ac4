//! Rows in a map.

use std::collections::BTreeMap;

use arakoon::store::{Rows, RowsMut, StoreError};
use bytes::Bytes;

/// A store that forgets everything at the end of the test.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MapRows {
    rows: BTreeMap<Bytes, Bytes>,
    before_part: Option<BTreeMap<Bytes, Bytes>>,
}

impl Rows for MapRows {
    fn get(&self, row: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.rows.get(row).cloned())
    }

    fn scan(
        &self,
        first: &[u8],
        end: Option<&[u8]>,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &Bytes) -> bool,
    ) -> Result<(), StoreError> {
        let from = self.rows.range(Bytes::copy_from_slice(first)..);
        let within = from.take_while(|(row, _)| end.is_none_or(|end| &row[..] < end));
        let mut within: Vec<_> = within.collect();
        if reverse {
            within.reverse();
        }
        within.into_iter().all(|(row, value)| visit(row, value));
        Ok(())
    }
}

impl RowsMut for MapRows {
    fn put(&mut self, row: Bytes, value: Bytes) {
        self.rows.insert(row, value);
    }

    fn delete(&mut self, row: Bytes) {
        self.rows.remove(&row);
    }

    fn retire_space(&mut self, space: u32) {
        self.rows.retain(|row, _| row[..4] != space.to_be_bytes());
    }

    fn begin_part(&mut self) {
        assert!(self.before_part.is_none(), "parts do not nest");
        self.before_part = Some(self.rows.clone());
    }

    fn keep_part(&mut self) {
        self.before_part = None;
    }

    fn undo_part(&mut self) {
        self.rows = self.before_part.take().expect("a part was begun");
    }
}
