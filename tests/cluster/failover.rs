//! The master dies, or is stopped, while clients write.

use std::time::{Duration, Instant};

use crate::harness::Cluster;
use crate::load::Load;

fn kills() -> usize {
    match std::env::var("ARAKOON_KILLS") {
        Ok(text) => text.parse().expect("ARAKOON_KILLS is a number"),
        Err(_) => 3,
    }
}

#[test]
fn acknowledged_writes_survive_kills_of_the_master() {
    let mut cluster = Cluster::start();
    let load = Load::start(&cluster);
    let mut killed_at = Vec::new();
    for _ in 0..kills() {
        load.wait_for(200);
        let master = cluster.master();
        killed_at.push(Instant::now());
        cluster.kill(master);
        load.wait_for(200);
        cluster.start_node(master);
        cluster.wait_until_whole();
    }
    load.wait_for(200);
    let written = load.stop();
    written.check(&cluster);

    // Writes went on between any two kills, so each pause ended before the next kill.
    killed_at.push(Instant::now());
    let mut gaps: Vec<Duration> =
        killed_at.windows(2).map(|kills| written.longest_gap(kills[0], kills[1])).collect();
    gaps.sort();
    let (median, longest) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
    eprintln!("{} kills: median gap {median:?}, longest {longest:?}", gaps.len());
    assert!(median < Duration::from_secs(1), "median gap {median:?}");
    assert!(longest < Duration::from_secs(2), "longest gap {longest:?}");
}

#[test]
fn a_planned_stop_of_the_master_costs_clients_little() {
    let mut cluster = Cluster::start();
    let load = Load::start(&cluster);
    load.wait_for(200);
    let master = cluster.master();
    let stopped_at = Instant::now();
    let exit = cluster.stop(master);
    assert!(exit.success(), "a stop in order is a success, not {exit}");
    load.wait_for(200);
    let written = load.stop();
    let gap = written.longest_gap(stopped_at, Instant::now());
    eprintln!("planned stop: longest gap {gap:?}");
    // 200 ms are promised; the rest is for a busy machine that builds and tests at once. It stays
    // below the lease, so it still shows that the lease was handed back.
    assert!(gap < Duration::from_millis(400), "a planned stop cost {gap:?}");
    written.check(&cluster);
}
