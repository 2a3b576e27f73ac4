//! Which record holds which entries: the log as it stands after all its truncations, in memory.
//!
//! 24 bytes per record that holds entries. Entries of a record that were truncated later stay in
//! its bytes; the next place's first index hides them.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::DiskFile;
use crate::paxos::{Ballot, Entry, Index, Position};

/// A segment in use.
#[derive(Clone)]
pub(super) struct Segment {
    pub file: Arc<dyn DiskFile>,
    pub path: PathBuf,
    /// Seeds the checksums of its records.
    pub seed: u32,
    pub length_bytes: u64,
    /// Where its records end.
    pub end: u64,
}

/// A record that holds entries from `first` on; up to where, the next place tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub first: Index,
    pub segment: u64,
    pub offset: u32,
    /// With its header.
    pub length: u32,
}

/// What one record changes, in the order of the fields.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub reset_to: Option<Position>,
    pub truncate_from: Option<Index>,
    /// The last position before appending.
    pub after: Position,
    /// How many entries follow `after`.
    pub count: u64,
    /// The ballots of those, by first index.
    pub runs: Vec<(Index, Ballot)>,
    pub segment: u64,
    pub offset: u64,
    pub length: u64,
}

/// Adds an entry's ballot to runs of equal ballots.
pub(super) fn extend_runs(runs: &mut Vec<(Index, Ballot)>, index: Index, ballot: Ballot) {
    if runs.last().is_none_or(|(_, last)| *last != ballot) {
        runs.push((index, ballot));
    }
}

pub(super) fn runs_of(entries: &[Entry]) -> Vec<(Index, Ballot)> {
    let mut runs = Vec::new();
    for entry in entries {
        extend_runs(&mut runs, entry.index, entry.ballot);
    }
    runs
}

/// The kept entries. Places and runs are ordered by index, places also by segment.
pub(super) struct LogIndex {
    pub base: Position,
    pub last: Index,
    pub segments: BTreeMap<u64, Segment>,
    places: VecDeque<Place>,
    runs: VecDeque<(Index, Ballot)>,
}

impl LogIndex {
    pub fn new(base: Position) -> Self {
        LogIndex {
            base,
            last: base.index,
            segments: BTreeMap::new(),
            places: VecDeque::new(),
            runs: VecDeque::new(),
        }
    }

    /// None: dropped, or not there yet.
    pub fn position_at(&self, index: Index) -> Option<Position> {
        if index == self.base.index {
            return Some(self.base);
        }
        if index < self.base.index || index > self.last {
            return None;
        }
        let run = self.runs.partition_point(|(first, _)| *first <= index);
        let (_, ballot) = self.runs[run - 1];
        Some(Position { index, ballot })
    }

    pub fn last_position(&self) -> Position {
        self.position_at(self.last).expect("the last index is the base or has a run")
    }

    /// Runs of the kept entries.
    pub fn ballots(&self) -> Vec<(Index, Ballot)> {
        self.runs.iter().copied().collect()
    }

    /// Takes over what a record says; the reason when it does not fit this log. Then the index is
    /// not to be used any more.
    pub fn apply(&mut self, change: &Change) -> Result<(), String> {
        if let Some(position) = change.reset_to {
            self.reset(position);
        }
        match change.truncate_from {
            // Written when segments that are dropped by now still held the entries up to the base.
            Some(from) if from <= self.base.index => self.reset(change.after),
            Some(from) => self.truncate(from),
            None => {}
        }
        let last = self.last_position();
        if change.after != last {
            return Err(format!("it continues {:?}, but the log ends at {last:?}", change.after));
        }
        if change.count > 0 {
            self.places.push_back(Place {
                first: last.index.next(),
                segment: change.segment,
                offset: u32::try_from(change.offset).map_err(|_| "it lies past 4 GiB")?,
                length: u32::try_from(change.length).map_err(|_| "it has over 4 GiB")?,
            });
            for (first, ballot) in &change.runs {
                if self.runs.back().is_none_or(|(_, last)| last != ballot) {
                    self.runs.push_back((*first, *ballot));
                }
            }
            self.last = Index(last.index.0 + change.count);
        }
        Ok(())
    }

    fn reset(&mut self, base: Position) {
        self.places.clear();
        self.runs.clear();
        self.base = base;
        self.last = base.index;
    }

    fn truncate(&mut self, from: Index) {
        if from > self.last {
            return;
        }
        while self.places.back().is_some_and(|place| place.first >= from) {
            self.places.pop_back();
        }
        while self.runs.back().is_some_and(|(first, _)| *first >= from) {
            self.runs.pop_back();
        }
        self.last = from.previous();
    }

    /// The places of `from..=to`, until their records have `bytes_max` bytes; one at least, if the
    /// log has `from`. With each the last index it holds.
    pub fn places(&self, from: Index, to: Index, bytes_max: usize) -> Vec<(Place, Index)> {
        let mut found = Vec::new();
        let mut bytes = 0;
        if from <= self.base.index || from > self.last {
            return found;
        }
        let start = self.places.partition_point(|place| place.first <= from) - 1;
        for at in start..self.places.len() {
            let place = self.places[at];
            if place.first > to || (bytes >= bytes_max && !found.is_empty()) {
                break;
            }
            let last = self.places.get(at + 1).map_or(self.last, |next| next.first.previous());
            // The first record may hold much that lies before `from`: not counted, so that the
            // next one is offered as well.
            bytes += if place.first < from { 0 } else { place.length as usize };
            found.push((place, last));
        }
        found
    }

    /// The ids of the segments, oldest first, that hold no entry at or above `below`; never the
    /// newest segment.
    pub fn droppable(&self, below: Index) -> Vec<u64> {
        let newest = self.segments.keys().next_back().copied().unwrap_or(0);
        let at = self.places.partition_point(|place| place.first <= below).saturating_sub(1);
        let keep_from = if below > self.last {
            newest
        } else {
            self.places.get(at).map_or(newest, |place| place.segment)
        };
        self.segments.range(..keep_from.min(newest)).map(|(id, _)| *id).collect()
    }

    /// Forgets a segment (the oldest) and the entries in it.
    pub fn drop_oldest(&mut self, id: u64) {
        let oldest = self.segments.keys().next().copied();
        assert!(oldest == Some(id), "drops segment {id}, the oldest is {oldest:?}");
        self.segments.remove(&id);
        while self.places.front().is_some_and(|place| place.segment == id) {
            self.places.pop_front();
        }
        let base = self.places.front().map_or(self.last, |place| place.first.previous());
        self.base = self.position_at(base).expect("the base moves within the log");
        while self.runs.get(1).is_some_and(|(first, _)| *first <= base.next()) {
            self.runs.pop_front();
        }
        match self.runs.front_mut() {
            Some(_) if base == self.last => self.runs.clear(),
            Some((first, _)) => *first = (*first).max(base.next()),
            None => {}
        }
    }

    /// Bytes of the segment files.
    pub fn bytes_on_disk(&self) -> u64 {
        self.segments.values().map(|segment| segment.length_bytes).sum()
    }

    /// Bytes of the records from the one that holds `index` on.
    pub fn bytes_since(&self, index: Index) -> u64 {
        let at = self.places.partition_point(|place| place.first <= index).saturating_sub(1);
        let Some(place) = self.places.get(at).filter(|_| index <= self.last) else { return 0 };
        let ends: u64 = self.segments.range(place.segment..).map(|(_, segment)| segment.end).sum();
        ends - u64::from(place.offset)
    }
}
