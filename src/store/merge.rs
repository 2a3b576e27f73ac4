//! The merged scan over layers and engine, where the newest that knows a row decides.

use bytes::Bytes;

use super::engine::{Change, Engine};
use super::layers::{ChangeIterator, LayerRef};
use super::rows::StoreError;
use super::sealed::unseal;

struct Source<'a> {
    next: Option<Change>,
    rest: ChangeIterator<'a>,
}

/// Several layers as one.
struct Merged<'a> {
    /// Newest first.
    sources: Vec<Source<'a>>,
    reverse: bool,
}

impl<'a> Merged<'a> {
    fn new(
        layers: impl Iterator<Item = LayerRef<'a>>,
        first: &[u8],
        end: Option<&[u8]>,
        reverse: bool,
    ) -> Result<Self, StoreError> {
        let mut sources = Vec::new();
        for layer in layers {
            let mut rest = layer.scan(first, end, reverse);
            if let Some(next) = rest.next() {
                sources.push(Source { next: Some(next?), rest });
            }
        }
        Ok(Merged { sources, reverse })
    }

    /// The next row.
    fn peek(&self) -> Option<Bytes> {
        let rows = self.sources.iter().filter_map(|source| Some(&source.next.as_ref()?.0));
        if self.reverse { rows.max() } else { rows.min() }.cloned()
    }

    /// Takes `row`, the one [`Merged::peek`] named, out of every layer; the newest one's word on it.
    fn take(&mut self, row: &Bytes) -> Result<Option<Bytes>, StoreError> {
        let mut newest = None;
        for source in &mut self.sources {
            if let Some((_, value)) = source.next.take_if(|(next, _)| next == row) {
                newest = newest.or(Some(value));
                source.next = source.rest.next().transpose()?;
            }
        }
        Ok(newest.flatten())
    }
}

/// A visit of one scan, and how it ended.
struct Visits<'a> {
    visit: &'a mut dyn FnMut(&[u8], Option<&Bytes>) -> bool,
    stopped: bool,
}

impl Visits<'_> {
    fn call(&mut self, row: &[u8], value: Option<&Bytes>) {
        self.stopped = !(self.visit)(row, value);
    }
}

/// Visits the rows that `layers` (newest first) over `engine` show, as
/// [`super::Rows::scan_with_removed`] says.
pub(super) fn scan_merged<'a>(
    layers: impl Iterator<Item = LayerRef<'a>>,
    engine: &dyn Engine,
    first: &[u8],
    end: Option<&[u8]>,
    reverse: bool,
    visit: &mut dyn FnMut(&[u8], Option<&Bytes>) -> bool,
) -> Result<(), StoreError> {
    if end.is_some_and(|end| end <= first) {
        return Ok(());
    }
    let mut merged = Merged::new(layers, first, end, reverse)?;
    let mut visits = Visits { visit, stopped: false };
    let mut result = Ok(());
    engine.scan(first, end, reverse, &mut |row, sealed| {
        result = visit_to(&mut merged, row, &sealed, &mut visits);
        result.is_ok() && !visits.stopped
    })?;
    result?;
    while !visits.stopped
        && let Some(next) = merged.peek()
    {
        let value = merged.take(&next)?;
        visits.call(&next, value.as_ref());
    }
    Ok(())
}

/// Visits the layers' rows before an engine's row, then that row as the layers have it.
fn visit_to(
    merged: &mut Merged<'_>,
    row: &[u8],
    sealed: &Bytes,
    visits: &mut Visits<'_>,
) -> Result<(), StoreError> {
    while let Some(next) = merged.peek() {
        let same = next[..] == *row;
        if !same && (next[..] < *row) == merged.reverse {
            break;
        }
        let value = merged.take(&next)?;
        visits.call(&next, value.as_ref());
        if same || visits.stopped {
            return Ok(());
        }
    }
    visits.call(row, Some(&unseal(row, sealed)?));
    Ok(())
}
