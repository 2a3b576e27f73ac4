//! The store beside a plain map, under random use.

use super::*;

/// A store under random use, beside plain maps.
#[test]
fn random_use_matches_a_plain_map() {
    let spilled = tempfile::tempdir().expect("a directory");
    for seed in 0..90 {
        let mut random = fastrand::Rng::with_seed(seed);
        let remains = if seed % 3 == 0 { Remains::ingesting() } else { Remains::default() };
        let (mut store, _) = remains.open_spilling(spilled.path());
        // The state at each index, and views with the state they must keep showing.
        let mut states = vec![Model::new()];
        let mut views: Vec<(FrozenView, Model)> = Vec::new();
        for _ in 0..150 {
            match random.u8(0..20) {
                0..12 => random_entry(&store, &mut states, &mut random),
                12..15 => {
                    let durable = random.u64(0..=store.applied());
                    store.drain_step(&|| durable).expect("drains");
                }
                15 => store.freeze_for_drain(),
                16 => views.push((store.freeze(), states[states.len() - 1].clone())),
                17 if !views.is_empty() => {
                    views.swap_remove(random.usize(0..views.len()));
                }
                18 => {
                    store.sync().expect("syncs");
                }
                19 => {
                    views.clear();
                    drop(store);
                    remains.engine.lose_unflushed(random.usize(0..5));
                    let opened;
                    (store, opened) = remains.open_spilling(spilled.path());
                    assert_eq!(opened.distrust, None, "seed {seed}");
                    states.truncate(opened.applied as usize + 1);
                }
                _ => {}
            }
            let state = &states[states.len() - 1];
            assert_eq!(store.applied() as usize, states.len() - 1, "seed {seed}");
            compare(&store.read(), state, &mut random, seed);
            for (view, state) in &views {
                compare(view, state, &mut random, seed);
            }
        }
    }
}

fn random_entry(store: &Store, states: &mut Vec<Model>, random: &mut fastrand::Rng) {
    let mut state = states[states.len() - 1].clone();
    let mut entry = store.entry();
    for _ in 0..random.usize(0..4) {
        let undone = random.u8(0..3) == 0;
        let before = state.clone();
        entry.begin_part();
        for _ in 0..random.usize(0..6) {
            let row = random_row(random);
            if random.bool() {
                let value = Bytes::from(vec![random.u8(..); random.usize(0..60)]);
                entry.put(row.clone(), value.clone());
                state.insert(row, value);
            } else {
                entry.delete(row.clone());
                state.remove(&row);
            }
            compare(&entry, &state, random, 0);
        }
        if undone {
            entry.undo_part();
            state = before;
        } else {
            entry.keep_part();
        }
    }
    compare(&entry, &state, random, 0);
    entry.commit(store.applied() + 1);
    states.push(state);
}
