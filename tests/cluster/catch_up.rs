//! A node that was away finds its way back by itself while clients are served.

use resp::Reply;

use crate::harness::{Cluster, eventually};
use crate::load::Load;

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
    cluster.kill(replica);
    std::fs::remove_dir_all(cluster.dir(replica)).expect("it can be deleted");
    load.wait_for(200);
    cluster.start_node(replica);
    cluster.wait_until_current(replica);
    assert_ne!(incarnation(&cluster), before, "the node without its log is a new one");
    leave_it_with_one_other(&mut cluster, replica);
    load.wait_for(100);
    load.stop().check(&cluster);
}

#[test]
fn a_node_whose_log_is_gone_on_the_others_is_sent_a_head() {
    let mut cluster =
        Cluster::start_with("head_every = \"256KiB\"\nlog_segment = \"256KiB\"\nlog_keep = \"0B\"");
    let load = Load::start(&cluster);
    load.wait_for(100);
    let replica = cluster.replica();
    let last = eventually("its last index", || cluster.report(replica)?.number("last_index"));
    cluster.kill(replica);
    let value = "v".repeat(64 * 1024);
    let mut number = 0;
    // The log is dropped below the older of the two newest heads.
    let mut heads = std::collections::BTreeSet::new();
    eventually("three heads above what it has", || {
        for _ in 0..16 {
            number += 1;
            let key = format!("big:{}", number % 50);
            let answer = cluster.call(cluster.master_now()?, &["SET", &key, &value]).ok()?;
            assert_eq!(answer, Reply::OK);
        }
        heads.insert(cluster.report(cluster.master_now()?)?.number("head_index")?);
        (heads.iter().filter(|head| **head > last).count() >= 3).then_some(())
    });
    cluster.start_node(replica);
    cluster.wait_until_current(replica);
    let head = eventually("its head", || cluster.report(replica)?.number("head_index"));
    assert!(head > last, "head {head} of a node that had the log up to {last}");
    leave_it_with_one_other(&mut cluster, replica);
    load.wait_for(100);
    load.stop().check(&cluster);
    let mismatch =
        eventually("a report", || Some(cluster.report(replica)?.text("head_mismatch").to_string()));
    assert!(matches!(mismatch.as_str(), "" | "0"), "heads differ: {mismatch}");
}
