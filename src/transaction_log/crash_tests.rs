//! Stops the log at each of its steps and at random ones, by a kill or by a power cut, and compares
//! what comes back with a plain model: everything synced, and no part of a save.

use super::tests::{
    DIRECTORY, ballot, create, identity, open, options, position, read_all, save, state, try_open,
};
use super::{LogError, Recovered, TransactionLog};
use crate::disk::SimulatedDisk;
use crate::paxos::{DurableState, Entry, Index, Position, Save};

/// What a log holds, done plainly.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    state: DurableState,
    /// The log starts after this; a collapse may have moved it up.
    base: Position,
    entries: Vec<Entry>,
    chosen: Index,
}

impl Model {
    fn apply(&mut self, save: &Save) {
        if let Some(position) = save.reset_to {
            self.base = position;
            self.entries.clear();
        }
        if let Some(from) = save.truncate_from {
            self.entries.retain(|entry| entry.index < from);
        }
        self.entries.extend(save.entries.iter().cloned());
        if let Some(state) = &save.state {
            self.state = state.clone();
        }
        self.chosen = self.chosen.max(save.chosen);
    }

    fn last(&self) -> Index {
        self.entries.last().map_or(self.base.index, |entry| entry.index)
    }

    /// Whether this is what was recovered, apart from entries that a collapse up to `collapsed`
    /// may have dropped.
    fn agrees(&self, recovered: &Recovered, entries: &[Entry], collapsed: Index) -> bool {
        let dropped = self.entries.len().saturating_sub(entries.len());
        let base = match dropped {
            0 => self.base,
            _ => self.entries[dropped - 1].position(),
        };
        self.state == recovered.state
            && self.last() == recovered.last
            && self.entries[dropped..] == *entries
            && base == recovered.base
            && (dropped == 0 || base.index < collapsed)
            && self.chosen.min(self.last()).max(base.index) == recovered.chosen
    }
}

/// A save as a replica might make it: mostly appends, some truncations, rarely an installed head.
fn random_save(rng: &mut fastrand::Rng, model: &Model, collapsed: Index) -> Save {
    let round = rng.u64(1..5);
    let bytes = if rng.u8(..) < 10 { rng.usize(..20_000) } else { rng.usize(..1500) };
    let mut first = model.last().0 + 1;
    let mut made = Save::default();
    match rng.u8(..20) {
        0 => {
            first += rng.u64(1..50);
            made.reset_to = Some(position(first - 1, round));
        }
        1..=4 => {
            let lowest = model.base.index.max(collapsed).0 + 1;
            if lowest < first {
                first = rng.u64(lowest..first);
                made.truncate_from = Some(Index(first));
            }
        }
        _ => {}
    }
    let count = rng.u64(..4);
    let appended = save(first, (first + count).saturating_sub(1), round, bytes);
    made.entries = appended.entries;
    made.chosen = model.chosen.max(model.base.index);
    if rng.u8(..) < 80 {
        made.state = Some(state(rng.u64(1..1000)));
    }
    made
}

/// Runs a log until the disk breaks or the script ends; what was appended, in order, and how many
/// of those were synced.
struct Run {
    states: Vec<Model>,
    synced: usize,
    collapsed: Index,
}

fn run(disk: &SimulatedDisk, log: &mut TransactionLog, from: Model, seed: u64, steps: u32) -> Run {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut run = Run { collapsed: from.base.index, states: vec![from], synced: 0 };
    let preparer = log.preparer();
    for _ in 0..steps {
        let result = match rng.u8(..12) {
            0..=6 => {
                let mut saves = Vec::new();
                for _ in 0..rng.usize(1..4) {
                    let model = run.states.last().unwrap();
                    let made = random_save(&mut rng, model, run.collapsed);
                    let mut next = model.clone();
                    next.apply(&made);
                    run.states.push(next);
                    saves.push(made);
                }
                log.append_all(&saves)
            }
            7..=9 => log.sync().map(|()| run.synced = run.states.len() - 1),
            10 => preparer.prepare_if_needed(),
            _ => {
                // Only what is synced may be collapsed: it is chosen and in a head.
                let model = &run.states[run.synced];
                let newest = run.states.last().unwrap();
                let common = model.entries.iter().zip(&newest.entries);
                let same = common.take_while(|(a, b)| a == b).count();
                if model.base == newest.base && same > 0 {
                    run.collapsed =
                        run.collapsed.max(Index(model.base.index.0 + rng.u64(..same as u64)));
                }
                log.collapse(run.collapsed)
            }
        };
        if let Err(error) = result {
            assert!(matches!(error, LogError::Io { .. }), "{error}");
            break;
        }
    }
    assert!(disk.changes() > 0);
    run
}

/// Opens after a crash and checks: one of the states from the last synced one on came back.
fn check(disk: &SimulatedDisk, run: &Run, context: &str) -> (TransactionLog, Model) {
    let (log, recovered) = try_open(disk).unwrap_or_else(|error| panic!("{context}: {error}"));
    let entries = read_all(&log);
    let found = run.states[run.synced..]
        .iter()
        .find(|model| model.agrees(&recovered, &entries, run.collapsed));
    let Some(found) = found else {
        panic!(
            "{context}: recovered {recovered:?} with {} entries, which is none of the {} states \
             from the synced one on",
            entries.len(),
            run.states.len() - run.synced
        );
    };
    let model = Model { base: recovered.base, entries, ..found.clone() };
    (log, model)
}

#[test]
fn a_crash_at_any_step_keeps_what_was_synced_and_no_half_save() {
    let mut cuts = 0;
    for seed in 0..40 {
        let total = {
            let disk = SimulatedDisk::new(seed);
            let mut log = create(&disk);
            run(&disk, &mut log, Model::default(), seed, 40);
            disk.changes()
        };
        for step in 0..total {
            for power in [true, false] {
                let context = format!("seed {seed}, step {step}, power cut {power}");
                let disk = SimulatedDisk::new(seed * 1000 + step);
                disk.fail_from_change(step);
                let created = TransactionLog::create(
                    std::sync::Arc::new(disk.clone()),
                    DIRECTORY.as_ref(),
                    &options(),
                    identity(),
                );
                let Ok(mut log) = created else {
                    disk.crash(power);
                    let found =
                        TransactionLog::read_identity(&disk, DIRECTORY.as_ref()).expect(&context);
                    match found {
                        None => drop(create(&disk)),
                        Some(found) => assert_eq!(found, identity()),
                    }
                    assert_eq!(open(&disk).1.last, Index(0), "{context}");
                    continue;
                };
                let first = run(&disk, &mut log, Model::default(), seed, 40);
                disk.crash(power);
                let (log, model) = check(&disk, &first, &context);
                drop(log);
                // What was opened is durable.
                disk.crash(true);
                let again = Run { states: vec![model], synced: 0, collapsed: first.collapsed };
                check(&disk, &again, &format!("{context}, opened twice"));
                cuts += 1;
            }
        }
    }
    assert!(cuts > 2000, "only {cuts} crashes");
}

#[test]
fn many_lives_of_one_log_keep_what_was_synced() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let disk = SimulatedDisk::new(seed);
        let mut log = create(&disk);
        let mut model = Model::default();
        for life in 0..12 {
            let context = format!("seed {seed}, life {life}");
            if rng.bool() {
                disk.fail_from_change(disk.changes() + rng.u64(..60));
            } else if rng.bool() {
                disk.fail_next_sync();
            }
            let done = run(&disk, &mut log, model, seed * 100 + life, 30);
            disk.crash(rng.bool());
            // Opening may be cut short as well, more than once.
            while rng.bool() {
                disk.fail_from_change(disk.changes() + rng.u64(..5));
                match try_open(&disk) {
                    Ok(_) | Err(LogError::Io { .. }) => disk.crash(rng.bool()),
                    Err(error) => panic!("{context}: {error}"),
                }
            }
            (log, model) = check(&disk, &done, &context);
        }
    }
}

#[test]
fn a_truncation_and_its_append_survive_together_or_not_at_all() {
    let (mut whole, mut none) = (0, 0);
    for seed in 0..200 {
        let disk = SimulatedDisk::new(seed);
        let mut log = create(&disk);
        log.append(&save(1, 5, 1, 300)).unwrap();
        log.sync().unwrap();
        let replacement =
            Save { truncate_from: Some(Index(3)), state: Some(state(2)), ..save(3, 8, 2, 300) };
        log.append(&replacement).unwrap();
        disk.crash(true);
        let (log, recovered) = open(&disk);
        if recovered.last == Index(8) {
            assert_eq!(recovered.ballots, [(Index(1), ballot(1)), (Index(3), ballot(2))]);
            assert_eq!(recovered.state, state(2));
            whole += 1;
        } else {
            assert_eq!(recovered.ballots, [(Index(1), ballot(1))]);
            assert_eq!(recovered.state, DurableState::default());
            assert_eq!(read_all(&log), save(1, 5, 1, 300).entries);
            none += 1;
        }
    }
    assert!(whole > 5 && none > 5, "{whole} whole, {none} gone");
}

#[test]
fn after_a_failed_sync_reopening_makes_the_records_durable() {
    for seed in 0..50 {
        let disk = SimulatedDisk::new(seed);
        let mut log = create(&disk);
        log.append(&save(1, 4, 1, 500)).unwrap();
        disk.fail_next_sync();
        assert!(log.sync().is_err());
        disk.crash(false);
        let (log, recovered) = open(&disk);
        assert_eq!(recovered.last, Index(4));
        drop(log);
        disk.crash(true);
        assert_eq!(open(&disk).1.last, Index(4), "seed {seed}");
    }
}
