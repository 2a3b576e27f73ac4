use super::*;

fn file(disk: &SimulatedDisk, path: &str) -> Arc<dyn DiskFile> {
    let file = disk.open(Path::new(path), Open::CreateNew).unwrap();
    file.write_at(&[1; 8 * SECTOR_BYTES], 0).unwrap();
    file
}

#[test]
fn a_power_cut_loses_unsynced_sectors_in_any_order() {
    let mut holes = 0;
    for seed in 0..50 {
        let disk = SimulatedDisk::new(seed);
        let open = file(&disk, "d/a");
        open.sync().unwrap();
        disk.sync_directory(Path::new("d")).unwrap();
        open.write_at(&[2; 8 * SECTOR_BYTES], 0).unwrap();
        disk.crash(true);
        assert!(open.read_at(&mut [0], 0).is_err(), "a file outlived its process");
        let bytes = disk.contents(Path::new("d/a")).unwrap();
        let sectors: Vec<u8> = bytes.chunks(SECTOR_BYTES).map(|sector| sector[0]).collect();
        assert!(bytes.chunks(SECTOR_BYTES).all(|sector| sector.iter().all(|b| *b == sector[0])));
        assert!(sectors.iter().all(|byte| matches!(byte, 1 | 2)), "{sectors:?}");
        holes += usize::from(sectors.windows(2).any(|pair| pair == [1, 2]));
    }
    assert!(holes > 10, "only {holes} of 50 cuts left a hole");
}

#[test]
fn a_process_kill_loses_nothing() {
    let disk = SimulatedDisk::new(1);
    file(&disk, "d/a");
    disk.crash(false);
    assert_eq!(disk.contents(Path::new("d/a")).unwrap(), [1; 8 * SECTOR_BYTES]);
}

#[test]
fn a_power_cut_keeps_directory_changes_from_the_start() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let disk = SimulatedDisk::new(seed);
        file(&disk, "d/a").sync().unwrap();
        disk.rename(Path::new("d/a"), Path::new("d/b")).unwrap();
        file(&disk, "d/c");
        disk.crash(true);
        seen.insert(disk.list(Path::new("d")).unwrap().join(","));
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["", "a", "b", "b,c"]);
}

#[test]
fn a_failed_sync_is_not_made_good_by_the_next_one() {
    let mut lost = 0;
    for seed in 0..20 {
        let disk = SimulatedDisk::new(seed);
        let open = file(&disk, "d/a");
        disk.sync_directory(Path::new("d")).unwrap();
        disk.fail_next_sync();
        assert!(open.sync().is_err());
        open.sync().unwrap();
        disk.crash(true);
        lost += usize::from(disk.contents(Path::new("d/a")).unwrap().contains(&0));
    }
    assert!(lost > 10, "only {lost} of 20 lost something");
}

#[test]
fn a_full_disk_refuses_growth_but_not_overwriting() {
    let disk = SimulatedDisk::new(1);
    let open = file(&disk, "d/a");
    disk.set_capacity(Some(8 * SECTOR_BYTES as u64));
    open.write_at(&[3; 4], 0).unwrap();
    let error = open.write_at(&[3; 4], 8 * SECTOR_BYTES as u64).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.bytes_free(Path::new("d")).unwrap(), 0);
}
