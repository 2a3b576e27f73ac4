//! A replica's picture of its own log: which ballot each kept entry has, and the newest entries
//! themselves. The entries on disk are the transaction log's business.
//!
//! Invariants: no holes; `base.index <= last`; the cache, when not empty, ends at `last`; two logs
//! that agree on the ballot at an index agree on everything before it.

use std::collections::VecDeque;

use super::types::{Ballot, Entry, Incarnation, Index, NodeId, Position, Value};

/// Whether a log holds a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// That entry, and so everything before it; or it lies in the dropped, chosen part.
    Yes,
    /// Another entry, or none.
    No,
}

#[derive(Debug)]
pub(super) struct Log {
    base: Position,
    last: Index,
    /// The first index of each run of equal ballots after `base`.
    runs: Vec<(Index, Ballot)>,
    cache: VecDeque<Entry>,
    cache_bytes: usize,
    /// Admissions in the kept part, in order.
    admissions: Vec<(Index, NodeId, Incarnation)>,
}

impl Log {
    pub fn new(
        base: Position,
        last: Index,
        runs: Vec<(Index, Ballot)>,
        admissions: Vec<(Index, NodeId, Incarnation)>,
    ) -> Log {
        assert!(base.index <= last, "last {last} below base {}", base.index);
        assert!(runs.windows(2).all(|pair| pair[0].0 < pair[1].0), "ballot runs out of order");
        assert_eq!(runs.is_empty(), base.index == last, "ballot runs do not fit the entries");
        Log { base, last, runs, cache: VecDeque::new(), cache_bytes: 0, admissions }
    }

    pub fn base(&self) -> Position {
        self.base
    }

    pub fn last(&self) -> Position {
        Position { index: self.last, ballot: self.runs.last().map_or(self.base.ballot, |r| r.1) }
    }

    /// The ballot at an index; `None` when it is below the base or past the end.
    pub fn ballot_at(&self, index: Index) -> Option<Ballot> {
        if index == self.base.index {
            return Some(self.base.ballot);
        }
        if index < self.base.index || index > self.last {
            return None;
        }
        let run = self.runs.partition_point(|(first, _)| *first <= index);
        assert!(run > 0, "no ballot run at {index}");
        Some(self.runs[run - 1].1)
    }

    pub fn position_at(&self, index: Index) -> Option<Position> {
        self.ballot_at(index).map(|ballot| Position { index, ballot })
    }

    pub fn holds(&self, position: Position) -> Holds {
        // Below the base everything is chosen, and every leader's log has what is chosen.
        let same = position.index < self.base.index
            || self.ballot_at(position.index) == Some(position.ballot);
        if same { Holds::Yes } else { Holds::No }
    }

    pub fn append(&mut self, entry: Entry) {
        assert_eq!(entry.index, self.last.next(), "a hole in the log");
        if self.last().ballot != entry.ballot || self.runs.is_empty() {
            self.runs.push((entry.index, entry.ballot));
        }
        if let Value::Admit { node, incarnation } = entry.value {
            self.admissions.push((entry.index, node, incarnation));
        }
        self.last = entry.index;
        self.cache_bytes += entry.value.size_bytes();
        self.cache.push_back(entry);
    }

    /// Drops the entries at and above `from`.
    pub fn truncate(&mut self, from: Index) {
        assert!(from > self.base.index, "truncation at {from}, base {}", self.base.index);
        self.runs.retain(|(first, _)| *first < from);
        self.admissions.retain(|(index, ..)| *index < from);
        while let Some(entry) = self.cache.pop_back_if(|entry| entry.index >= from) {
            self.cache_bytes -= entry.value.size_bytes();
        }
        self.last = self.last.min(from.previous());
    }

    /// Drops everything; the log now starts after `position`.
    pub fn reset(&mut self, position: Position) {
        *self = Log::new(position, position.index, Vec::new(), Vec::new());
    }

    /// Drops the entries up to and including `index`, which must be kept or the base.
    pub fn collapse(&mut self, index: Index) {
        let Some(base) = self.position_at(index) else { return };
        let keep = self.runs.partition_point(|(first, _)| *first <= index.next());
        let mut runs = self.runs.split_off(keep.saturating_sub(1).min(self.runs.len()));
        if index == self.last {
            runs.clear();
        } else if let Some(first) = runs.first_mut() {
            first.0 = first.0.max(index.next());
        }
        self.runs = runs;
        self.base = base;
        self.admissions.retain(|(at, ..)| *at > index);
        while let Some(entry) = self.cache.pop_front_if(|entry| entry.index <= index) {
            self.cache_bytes -= entry.value.size_bytes();
        }
    }

    /// Forgets cached entries up to `durable`, oldest first, until the cache fits `bytes_max`.
    pub fn shrink_cache(&mut self, durable: Index, bytes_max: usize) {
        while self.cache_bytes > bytes_max {
            let Some(entry) = self.cache.pop_front_if(|entry| entry.index <= durable) else {
                break;
            };
            self.cache_bytes -= entry.value.size_bytes();
        }
    }

    /// Entries from `from`, at least one and about `bytes_max`; `None` when they are on disk only
    /// (or not there).
    pub fn cached(&self, from: Index, bytes_max: usize) -> Option<Vec<Entry>> {
        let first = self.cache.front()?.index;
        if from < first || from > self.last {
            return None;
        }
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in self.cache.range((from.0 - first.0) as usize..) {
            bytes += entry.value.size_bytes();
            if !entries.is_empty() && bytes > bytes_max {
                break;
            }
            entries.push(entry.clone());
        }
        Some(entries)
    }

    pub fn admissions(&self) -> &[(Index, NodeId, Incarnation)] {
        &self.admissions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ballot(round: u64) -> Ballot {
        Ballot { round, ..Ballot::ZERO }
    }

    fn establish() -> Value {
        Value::Establish { members: Vec::new() }
    }

    fn log(rounds: &[u64]) -> Log {
        let mut log = Log::new(Position::default(), Index(0), vec![], vec![]);
        for (place, round) in rounds.iter().enumerate() {
            let index = Index(place as u64 + 1);
            log.append(Entry { index, ballot: ballot(*round), value: establish() });
        }
        log
    }

    fn rounds(log: &Log) -> Vec<u64> {
        (log.base.index.0 + 1..=log.last.0)
            .map(|i| log.ballot_at(Index(i)).unwrap().round)
            .collect()
    }

    #[test]
    fn runs_follow_truncation_and_collapse() {
        let mut log = log(&[1, 1, 2, 2, 2, 5]);
        assert_eq!(rounds(&log), [1, 1, 2, 2, 2, 5]);
        for (collapse, rest) in [(1, vec![1, 2, 2, 2, 5]), (2, vec![2, 2, 2, 5]), (4, vec![2, 5])] {
            log.collapse(Index(collapse));
            assert_eq!(rounds(&log), rest, "after {collapse}");
            assert_eq!(log.base.index, Index(collapse));
        }
        log.truncate(Index(6));
        assert_eq!(rounds(&log), [2]);
        log.collapse(Index(5));
        assert_eq!(log.last(), Position { index: Index(5), ballot: ballot(2) });
        log.append(Entry { index: Index(6), ballot: ballot(2), value: establish() });
        assert_eq!(rounds(&log), [2]);
        assert_eq!(log.cached(Index(6), 0).unwrap().len(), 1);
    }

    #[test]
    fn the_cache_forgets_only_what_is_durable() {
        let mut log = log(&[1, 1, 1, 1]);
        log.shrink_cache(Index(2), 0);
        assert_eq!(log.cached(Index(2), usize::MAX), None);
        assert_eq!(log.cached(Index(3), usize::MAX).unwrap().len(), 2);
        assert_eq!(log.cached(Index(3), 1).unwrap().len(), 1, "at least one");
    }
}
