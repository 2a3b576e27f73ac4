//! Rows of layers are put in order when somebody asks for it, and not while all others wait.

use super::*;

fn scan(rows: &dyn Rows) -> Result<Vec<Bytes>, StoreError> {
    let mut found = Vec::new();
    rows.scan(&[], None, false, &mut |row, _| {
        found.push(Bytes::copy_from_slice(row));
        true
    })?;
    Ok(found)
}

/// What a brief read finds, which holds up everyone.
fn brief(store: &Store) -> Result<Vec<Bytes>, StoreError> {
    let view = store.read();
    view.refuse_to_put_in_order();
    scan(&view)
}

fn put(store: &Store, index: u64, names: std::ops::Range<usize>) {
    let mut entry = store.entry();
    for name in names {
        entry.put(row(1, &format!("{:06}", name * 7 % 100_003)), Bytes::from("v"));
    }
    entry.commit(index);
}

#[test]
fn a_brief_scan_of_many_rows_without_order_is_refused_and_the_next_layer_has_it() {
    let options = StoreOptions { layer_bytes: 1 << 30, ..options() };
    let (store, _) = Remains::default().open_with(options, "boot 1");
    put(&store, 1, 0..100);
    assert_eq!(brief(&store).expect("few rows").len(), 100);
    // It was asked for, so the next ones are put where they belong.
    put(&store, 2, 100..10_000);
    assert_eq!(brief(&store).expect("in order").len(), 10_000);
    // A layer that nobody scans.
    store.freeze_for_drain();
    put(&store, 3, 10_000..10_001);
    store.freeze_for_drain();
    put(&store, 4, 10_001..30_000);
    assert!(matches!(brief(&store), Err(StoreError::WouldWait)));
    // For long, or where nothing else will do, it is put in order.
    let view = store.freeze();
    put(&store, 5, 30_000..50_000);
    let long = scan(&view).expect("scans");
    assert!(long.len() == 30_000 && long.is_sorted());
    // After the refusal the layer that followed has its order from the start.
    assert_eq!(brief(&store).expect("in order").len(), 50_000);
    assert_eq!(scan(&store.read()).expect("scans").len(), 50_000);
}

#[test]
fn frozen_layers_are_put_in_order_beside() {
    let options = StoreOptions { layer_bytes: 1 << 30, ..options() };
    let (store, _) = Remains::default().open_with(options, "boot 1");
    put(&store, 1, 0..10_000);
    assert!(!store.put_in_order(), "it still grows");
    store.freeze_for_drain();
    assert!(matches!(brief(&store), Err(StoreError::WouldWait)));
    assert!(store.put_in_order());
    assert!(!store.put_in_order());
    assert_eq!(brief(&store).expect("in order").len(), 10_000);
}
