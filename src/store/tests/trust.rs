//! Each reason not to believe the engine, and the cases in which it is believed.

use super::*;

#[test]
fn trusted_after_a_killed_process() {
    let (store, opened) = synced_remains().open();
    assert_eq!(opened, Opened { applied: 5, distrust: None });
    assert_eq!(store.read().get(&row(1, "a")).expect("reads"), Some("5".into()));
}

#[test]
fn distrusted_below_the_floor() {
    let remains = synced_remains();
    let old = remains.fork();
    let (store, _) = remains.open();
    apply(&store, &["a"]);
    drain(&store);
    store.sync().expect("syncs");
    remains.engine.wipe().expect("wipes");
    // The engine of an older time, as if the disk had lost what it had said is synced.
    let older = Remains { engine: old.engine, ..remains };
    assert_wiped(&older, "boot 1", &Distrust::BelowFloor { applied: 5, floor: 6 });
}

#[test]
fn distrusted_when_emptied() {
    let remains = synced_remains();
    remains.engine.wipe().expect("wipes");
    assert_wiped(&remains, "boot 1", &Distrust::Emptied { floor: 5 });
}

#[test]
fn distrusted_on_another_boot_without_a_clean_stop() {
    assert_wiped(&synced_remains(), "boot 2", &Distrust::BootChanged);
}

#[test]
fn trusted_on_another_boot_after_a_clean_stop() {
    let remains = synced_remains();
    let (store, _) = remains.open();
    apply(&store, &["c"]);
    store.close(u64::MAX).expect("closes");
    assert_eq!(remains.open_on("boot 2").1, Opened { applied: 6, distrust: None });
}

#[test]
fn distrusted_without_its_trust_file() {
    let remains = synced_remains();
    remains.trust.set(None);
    assert_wiped(&remains, "boot 1", &Distrust::NoTrustFile("missing"));
}

#[test]
fn distrusted_with_any_flipped_bit_in_the_trust_file() {
    let remains = synced_remains();
    let bytes = remains.trust.bytes().expect("is there");
    for bit in 0..bytes.len() * 8 {
        let remains = remains.fork();
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        remains.trust.set(Some(damaged));
        assert_eq!(remains.open().1.distrust, Some(Distrust::NoTrustFile("damaged")));
    }
}

#[test]
fn distrusted_after_another_engine() {
    let remains = synced_remains();
    let directory = tempfile::tempdir().expect("a directory");
    let place = StorePlace {
        engine: EngineChoice::sled(directory.path().join("sled")),
        journal: Box::new(remains.journal.clone()),
        trust: Box::new(remains.trust.clone()),
        boot_id: "boot 1".into(),
    };
    let (_, opened) = Store::open(options(), place).expect("opens");
    assert_eq!(opened.distrust, Some(Distrust::OtherEngine { before: "memory".into() }));
}

#[test]
fn distrusted_after_a_read_met_flipped_bits() {
    let clean = synced_remains();
    for bit in 0..40 {
        let remains = clean.fork();
        remains.engine.damage(0, bit);
        let (store, opened) = remains.open();
        assert_eq!(opened.distrust, None);
        let read = store.read().get(&row(1, "a"));
        assert!(matches!(read, Err(StoreError::Damaged(_))), "bit {bit}: {read:?}");
        drop(store);
        let (_, opened) = remains.open();
        assert!(matches!(opened.distrust, Some(Distrust::Marked(_))), "{opened:?}");
    }
}

#[test]
fn distrusted_when_the_journal_of_a_half_drained_layer_is_gone_or_damaged() {
    let remains = synced_remains();
    let (store, _) = remains.open();
    apply(&store, &["a", "b", "c", "d", "e"]);
    store.freeze_for_drain();
    for _ in 0..2 {
        assert_eq!(store.drain_step(&|| 6).expect("drains"), DrainProgress::Worked);
    }
    drop(store);
    remains.engine.flush().expect("flushes");
    let bytes = remains.journal.bytes().expect("is there");
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    for journal in [None, Some(bytes[..bytes.len() - 1].to_vec()), Some(flipped)] {
        let remains = remains.fork();
        remains.journal.set(journal);
        let distrust = remains.open().1.distrust;
        assert!(matches!(distrust, Some(Distrust::HalfDrained(_))), "{distrust:?}");
    }
    assert_eq!(remains.open().1, Opened { applied: 6, distrust: None });
}

#[test]
fn an_interrupted_rebuild_starts_again_and_a_finished_one_is_trusted() {
    let remains = synced_remains();
    let (store, _) = remains.open();
    let mut rebuild = store.rebuild().expect("starts");
    for name in ["a", "b", "c", "d", "e"] {
        rebuild.push(row(1, name), b"head").expect("takes a row");
        assert!(matches!(store.read().get(&row(1, "a")), Err(StoreError::Replaced)));
    }
    let half = remains.fork();
    assert_wiped(&half, "boot 1", &Distrust::Marked("a rebuild was interrupted".into()));
    rebuild.finish(40).expect("finishes");
    assert_eq!((store.applied(), store.synced()), (40, 40));
    assert_eq!(apply(&store, &["b"]), 41);
    drop(store);
    let (store, opened) = remains.open();
    assert_eq!(opened, Opened { applied: 40, distrust: None });
    assert_eq!(all(&store.read()).len(), 5);
}

#[test]
fn distrusted_when_the_journal_lies_over_another_state() {
    let remains = Remains::default();
    let (store, _) = remains.open();
    apply(&store, &["a"]);
    drain(&store);
    apply(&store, &["b"]);
    store.freeze_for_drain();
    store.drain_step(&|| 2).expect("journals");
    drop(store);
    // Nothing was synced, so no floor tells that the engine is emptied; the journal alone does.
    remains.engine.wipe().expect("wipes");
    let distrust = Distrust::HalfDrained("it leads from 1 on, not 0".into());
    assert_wiped(&remains, "boot 1", &distrust);
}
