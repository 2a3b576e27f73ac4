//! What a cluster costs that nobody uses.

use std::time::{Duration, Instant};

use rustix::param::clock_ticks_per_second;

use crate::harness::Cluster;

/// The time that a process has used the processor.
fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, rest) = stat.rsplit_once(") ").expect("the name is in parentheses");
    let field = |number: usize| -> u64 {
        let text = rest.split_whitespace().nth(number - 3).expect("a process has these fields");
        text.parse().expect("times are numbers")
    };
    let (user, system) = (field(14), field(15));
    Duration::from_secs(user + system) / clock_ticks_per_second() as u32
}

#[test]
fn an_idle_node_hardly_uses_the_processor() {
    let cluster = Cluster::start();
    // Until the first head, layer and segment are through.
    std::thread::sleep(Duration::from_secs(1));
    let used =
        || -> Vec<Duration> { (0..3).map(|seat| processor_time(cluster.pid(seat))).collect() };
    let (before, started) = (used(), Instant::now());
    std::thread::sleep(Duration::from_secs(5));
    let (after, elapsed) = (used(), started.elapsed());
    for (before, after) in before.into_iter().zip(after) {
        let share = (after - before).as_secs_f64() / elapsed.as_secs_f64();
        eprintln!("idle: {:.1} % of a processor", share * 100.0);
        // Two are wanted, of a release on a machine that does nothing else.
        assert!(share < 0.06, "an idle node uses {:.1} % of a processor", share * 100.0);
    }
}
