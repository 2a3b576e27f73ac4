//! A node that was away finds its way back by itself while clients are served.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use resp::Reply;

use crate::harness::{Cluster, eventually};
use crate::load::{Load, Written};

/// Keys of 64 KiB in a head, so that sending it takes a while.
const KEYS: usize = 200;

/// After this only `seat` and one other are left, so what is acknowledged has its vote.
fn leave_it_with_one_other(cluster: &mut Cluster, seat: usize) {
    let master = cluster.master();
    let other = (0..3).find(|other| *other != seat && *other != master);
    // With `seat` as the master, either of the others may go.
    cluster.kill(other.expect("three nodes less at most two"));
    let answer = eventually("the rest answers", || {
        let answer = cluster.call(cluster.master_now()?, &["SET", "rest", "1"]).ok()?;
        (answer == Reply::OK).then_some(answer)
    });
    assert_eq!(answer, Reply::OK);
}

/// Between `killed_at` and `current_at` a replica was away and came back.
fn clients_noticed_nothing(
    written: &Written,
    undisturbed_at: Instant,
    killed_at: Instant,
    current_at: Instant,
) {
    assert_eq!(written.not_acknowledged(killed_at, current_at), 0, "writes failed meanwhile");
    let gap = written.longest_gap(killed_at, current_at);
    let before = written.per_second(undisturbed_at, killed_at);
    let meanwhile = written.per_second(killed_at, current_at);
    eprintln!(
        "{meanwhile:.0} writes/s for {:?} while a node came back, {before:.0} before; gap {gap:?}",
        current_at - killed_at
    );
    assert!(gap < Duration::from_secs(1), "a returning node cost {gap:?}");
    assert!(meanwhile > before / 5.0, "{meanwhile:.0} writes/s instead of {before:.0}");
}

#[test]
fn a_node_that_lags_catches_up_and_counts_again() {
    let mut cluster = Cluster::start();
    let replica = cluster.replica();
    cluster.kill(replica);
    let load = Load::start(&cluster);
    load.wait_for(2000);
    cluster.start_node(replica);
    cluster.wait_until_current(replica);
    leave_it_with_one_other(&mut cluster, replica);
    load.wait_for(100);
    load.stop().check(&cluster);
}

#[test]
fn a_wiped_node_comes_back_under_load_as_a_new_incarnation() {
    let mut cluster = Cluster::start();
    let load = Load::start(&cluster);
    load.wait_for(500);
    let replica = cluster.replica();
    let incarnation = |cluster: &Cluster| {
        eventually("its incarnation", || {
            let text = cluster.report(replica)?.text("incarnation").to_string();
            (!text.is_empty()).then_some(text)
        })
    };
    let before = incarnation(&cluster);
    let undisturbed_at = Instant::now();
    load.wait_for(500);
    cluster.kill(replica);
    let killed_at = Instant::now();
    std::fs::remove_dir_all(cluster.dir(replica)).expect("it can be deleted");
    load.wait_for(200);
    cluster.start_node(replica);
    cluster.wait_until_current(replica);
    load.wait_for(100);
    let current_at = Instant::now();
    assert_ne!(incarnation(&cluster), before, "the node without its log is a new one");
    leave_it_with_one_other(&mut cluster, replica);
    load.wait_for(100);
    let written = load.stop();
    written.check(&cluster);
    clients_noticed_nothing(&written, undisturbed_at, killed_at, current_at);
}

#[test]
fn a_node_whose_log_is_gone_on_the_others_is_sent_a_head() {
    let mut cluster =
        Cluster::start_with("head_every = \"256KiB\"\nlog_segment = \"256KiB\"\nlog_keep = \"0B\"");
    let load = Load::start(&cluster);
    load.wait_for(100);
    let replica = cluster.replica();
    let last = eventually("its last index", || cluster.report(replica)?.number("last_index"));
    let undisturbed_at = Instant::now();
    load.wait_for(500);
    cluster.kill(replica);
    let killed_at = Instant::now();
    // Random, so that a head cannot compress it and takes its time.
    let value: String = (0..64 * 1024).map(|_| fastrand::alphanumeric()).collect();
    let mut number = 0;
    let others: Vec<usize> = (0..3).filter(|seat| *seat != replica).collect();
    eventually("the others have dropped what it needs next", || {
        for _ in 0..16 {
            number += 1;
            let key = format!("big:{}", number % KEYS);
            let answer = cluster.call(cluster.master_now()?, &["SET", &key, &value]).ok()?;
            assert_eq!(answer, Reply::OK);
        }
        let base = |seat: &usize| cluster.report(*seat)?.number("log_base_index");
        others.iter().all(|seat| base(seat).is_some_and(|base| base > last)).then_some(())
    });
    cluster.start_node(replica);
    let (mut progress, mut chosen) = (BTreeSet::new(), None);
    eventually("it is up to date", || {
        let report = cluster.report(replica)?;
        progress.insert(report.text("catch_up").to_string());
        let votes = report.text("part") == "replica";
        (votes && cluster.has_applied(&report, &mut chosen)?).then_some(())
    });
    load.wait_for(100);
    let current_at = Instant::now();
    assert!(progress.iter().any(|text| text.starts_with("head, ")), "progress: {progress:?}");
    let head = eventually("its head", || cluster.report(replica)?.number("head_index"));
    assert!(head > last, "head {head} of a node that had the log up to {last}");
    eprintln!("its progress as status shows it: {progress:?}");
    leave_it_with_one_other(&mut cluster, replica);
    load.wait_for(100);
    let written = load.stop();
    written.check(&cluster);
    clients_noticed_nothing(&written, undisturbed_at, killed_at, current_at);
    let mismatch =
        eventually("a report", || Some(cluster.report(replica)?.text("head_mismatch").to_string()));
    assert!(matches!(mismatch.as_str(), "" | "0"), "heads differ: {mismatch}");
}
