//! Rows of layers are put in order when somebody asks for it, and not while all others wait.

use super::super::changes::{Changes, Sought};
use super::super::layers::LayerRef;
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
        entry.put(row(1, &format!("K{:06}", name * 7 % 100_003)), Bytes::from("v"));
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
    // So it is for a while; then come layers that nobody scans.
    let mut index = 3;
    for _ in 0..70 {
        store.freeze_for_drain();
        put(&store, index, 0..1);
        index += 1;
    }
    put(&store, index, 10_000..30_000);
    assert!(matches!(brief(&store), Err(StoreError::WouldWait)));
    assert!(matches!(brief(&store), Err(StoreError::WouldWait)), "it was only asked for");
    let frozen = store.frozen_layers();
    for _ in 0..3 {
        store.put_in_order();
        assert_eq!(brief(&store).expect("in order").len(), 30_000);
    }
    assert_eq!(store.frozen_layers(), frozen + 1, "frozen once");
    put(&store, index + 1, 30_000..50_000);
    let all = brief(&store).expect("in order from the start");
    assert!(all.len() == 50_000 && all.is_sorted());
}

#[test]
fn an_entry_scans_what_was_in_no_order() {
    let options = StoreOptions { layer_bytes: 1 << 30, ..options() };
    let (store, _) = Remains::default().open_with(options, "boot 1");
    put(&store, 1, 0..10_000);
    store.freeze_for_drain();
    put(&store, 2, 10_000..20_000);
    let mut entry = store.entry();
    entry.put(row(1, "first"), Bytes::new());
    let found = scan(&entry).expect("scans");
    assert!(found.len() == 20_001 && found.is_sorted());
    let found = std::cell::RefCell::new(Vec::new());
    // A scan within a scan.
    entry
        .scan(&[], None, false, &mut |_, _| {
            *found.borrow_mut() = scan(&entry).expect("scans");
            false
        })
        .expect("scans");
    assert_eq!(found.borrow().len(), 20_001);
    entry.commit(3);
    assert_eq!(brief(&store).expect("in order").len(), 20_001);
}

#[test]
fn frozen_layers_are_put_in_order_beside() {
    let options = StoreOptions { layer_bytes: 1 << 30, ..options() };
    let (store, _) = Remains::default().open_with(options, "boot 1");
    put(&store, 1, 0..10_000);
    store.put_frozen_in_order();
    assert!(matches!(brief(&store), Err(StoreError::WouldWait)), "it still grows");
    store.freeze_for_drain();
    assert!(matches!(brief(&store), Err(StoreError::WouldWait)));
    store.put_frozen_in_order();
    assert_eq!(brief(&store).expect("in order").len(), 10_000);
}

#[test]
fn few_rows_of_many_bytes_are_many() {
    let options = StoreOptions { layer_bytes: 1 << 30, ..options() };
    let (store, _) = Remains::default().open_with(options, "boot 1");
    let mut entry = store.entry();
    for name in 0..100 {
        entry.put(row(1, &format!("{name:060000}")), Bytes::new());
    }
    entry.commit(1);
    assert!(matches!(brief(&store), Err(StoreError::WouldWait)));
}

#[test]
fn a_layer_that_was_sorted_says_what_it_says_anyway() {
    let name = |n: usize| Bytes::from(format!("{n:04}"));
    let changes: Changes = (0..500).map(|n| (name(n * 2), (n % 3 > 0).then(|| name(n)))).collect();
    let sorted = changes.sorted();
    let layers = [LayerRef::Memory(&changes), LayerRef::Sorted(&sorted)];
    for n in [0, 1, 2, 499, 998, 999, 1000] {
        let [one, other] = layers.map(|layer| layer.get(Sought::new(&name(n))).expect("in memory"));
        assert_eq!((&one, one.is_some()), (&other, n % 2 == 0 && n < 1000), "{n}");
    }
    for (first, end) in [("", None), ("0100", Some("0167")), ("0101", Some("0102")), ("0998", None)]
    {
        for reverse in [false, true] {
            let [one, other] = layers.map(|layer| {
                let end = end.map(str::as_bytes);
                let rows = layer.scan(first.as_bytes(), end, reverse);
                rows.collect::<Result<Vec<_>, _>>().expect("in memory")
            });
            assert_eq!(one, other, "from {first} to {end:?}, reverse: {reverse}");
        }
    }
}

#[test]
fn an_entry_that_scans_few_rows_asks_for_no_order_of_the_many() {
    let options = StoreOptions { layer_bytes: 1 << 30, ..options() };
    let (store, _) = Remains::default().open_with(options, "boot 1");
    put(&store, 1, 0..10_000);
    let mut entry = store.entry();
    [3, 1, 2].iter().for_each(|n| entry.put(row(1, &format!("D{n}")), Bytes::new()));
    entry.commit(2);
    store.freeze_for_drain();
    put(&store, 3, 10_000..20_000);
    let few = |rows: &dyn Rows| {
        let mut found = Vec::new();
        let visit = &mut |row: &[u8], _: &Bytes| {
            found.push(Bytes::copy_from_slice(row));
            true
        };
        rows.scan(&row(1, "D1"), Some(&row(1, "E")), false, visit).expect("scans");
        found
    };
    let mut entry = store.entry();
    entry.delete(row(1, "D2"));
    assert_eq!(few(&entry), [row(1, "D1"), row(1, "D3")]);
    entry.commit(4);
    let view = store.read();
    view.refuse_to_put_in_order();
    assert_eq!(few(&view), [row(1, "D1"), row(1, "D3")]);
    drop(view);
    assert_eq!(store.frozen_layers(), 1, "nothing was frozen for it");
    assert!(matches!(brief(&store), Err(StoreError::WouldWait)), "the many are in no order");
    store.put_in_order();
    assert_eq!(brief(&store).expect("in order").len(), 20_002);
}
