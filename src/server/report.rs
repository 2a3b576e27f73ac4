//! INFO: a node's numbers as text, under the names that exporters and dashboards read. What has no
//! meaning here is left out, or 0 where tools expect a number.

use std::fmt::Display;

use bytes::Bytes;

use super::{NodeInfo, Shared, info, replication};
use crate::command::parse::is;
use crate::store::keyspace::Meta;

/// What a section is made of.
struct Facts<'a> {
    node: &'a NodeInfo,
    shared: &'a Shared,
    /// The keyspace, if the node has one.
    meta: Option<&'a Meta>,
}

/// Takes a name and a value.
type Add<'a> = &'a mut dyn FnMut(&str, &dyn Display);

/// When a section is shown though its name was not given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// `default`, `all` and `everything`.
    Default,
    /// `all` and `everything`.
    All,
    /// `everything`.
    Everything,
}

type Section = (&'static str, Shown, fn(&Facts, Add));

const SECTIONS: [Section; 14] = [
    ("Server", Shown::Default, server),
    ("Clients", Shown::Default, clients),
    ("Memory", Shown::Default, memory),
    ("Persistence", Shown::Default, persistence),
    ("Stats", Shown::Default, stats),
    ("Replication", Shown::Default, |facts, add| replication::section(facts.node, add)),
    ("CPU", Shown::Default, cpu),
    ("Modules", Shown::Everything, |_, _| ()),
    ("Commandstats", Shown::All, commandstats),
    ("Errorstats", Shown::Default, errorstats),
    ("Latencystats", Shown::All, latencystats),
    ("Cluster", Shown::Default, |_, add| add("cluster_enabled", &1)),
    ("Keyspace", Shown::Default, keyspace),
    ("Arakoon", Shown::Default, arakoon),
];

/// INFO's text. `asked`: the sections' names; none: the default.
pub(super) fn text(
    asked: &[Bytes],
    node: &NodeInfo,
    shared: &Shared,
    meta: Option<&Meta>,
) -> String {
    let facts = Facts { node, shared, meta };
    let names = |name: &str| asked.iter().any(|asked| is(asked, name));
    let shows = |shown| match shown {
        Shown::Default => {
            asked.is_empty() || names("default") || names("all") || names("everything")
        }
        Shown::All => names("all") || names("everything"),
        Shown::Everything => names("everything"),
    };
    let mut text = String::new();
    for (title, shown, section) in SECTIONS {
        if !shows(shown) && !names(title) {
            continue;
        }
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        line(&mut text, &format!("# {title}"));
        section(&facts, &mut |name, value| line(&mut text, &format!("{name}:{value}")));
    }
    text
}

fn line(text: &mut String, line: &str) {
    // A line break inside would let one value pass for another line.
    text.extend(line.chars().filter(|character| !matches!(character, '\r' | '\n')));
    text.push_str("\r\n");
}

fn server(facts: &Facts, add: Add) {
    let Facts { node, shared, .. } = facts;
    add("redis_version", &info::REDIS_VERSION);
    add("redis_mode", &"standalone");
    add("arakoon_version", &env!("CARGO_PKG_VERSION"));
    add("os", &std::env::consts::OS);
    add("arch_bits", &usize::BITS);
    add("monotonic_clock", &"POSIX clock_gettime, boot time");
    add("process_id", &std::process::id());
    add("run_id", &run_id(node));
    add("tcp_port", &info::host_and_port(&node.address).1);
    add("server_time_usec", &shared.wall_us());
    add("uptime_in_seconds", &(node.uptime_ms / 1000));
    add("uptime_in_days", &(node.uptime_ms / 86_400_000));
    add("hz", &shared.parameters.hz());
    add("configured_hz", &shared.parameters.hz());
    let executable = std::env::current_exe();
    add("executable", &executable.map_or(String::new(), |path| path.display().to_string()));
}

/// Forty hexadecimal digits that change with every start, as Redis has them: made of what a node's
/// name and life are.
fn run_id(node: &NodeInfo) -> String {
    let life = node.more.iter().find(|(name, _)| name == "incarnation");
    let life = life.map_or("", |(_, life)| life);
    let hash = blake3::hash(format!("{} {} {life}", node.cluster_id, node.name).as_bytes());
    hash.to_hex()[..40].to_owned()
}

fn clients(facts: &Facts, add: Add) {
    let Facts { node, shared, .. } = facts;
    let clients_max = shared.registry().map_or(node.clients_max, |it| it.clients_max() as u64);
    add("connected_clients", &shared.clients_connected());
    add("cluster_connections", &0);
    add("maxclients", &clients_max);
    add("blocked_clients", &shared.clients_blocked());
    add("tracking_clients", &0);
    add("clients_in_timeout_table", &0);
}

/// Bytes with one of B, K, M and so on.
fn human(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let power = (bytes.ilog2() / 10).min(5);
    let number = bytes as f64 / (1u64 << (10 * power)) as f64;
    format!("{number:.2}{}", ["B", "K", "M", "G", "T", "P"][power as usize])
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.2}%", part as f64 * 100.0 / whole.max(1) as f64)
}

/// The process as a whole: nobody counts what each part of it takes.
fn memory(facts: &Facts, add: Add) {
    let NodeInfo { memory_bytes, memory_peak_bytes, memory_total_bytes, layers_bytes, .. } =
        facts.node;
    for (name, bytes) in [
        ("used_memory", *memory_bytes),
        ("used_memory_rss", *memory_bytes),
        ("used_memory_peak", *memory_peak_bytes),
    ] {
        add(name, &bytes);
        add(&format!("{name}_human"), &human(bytes));
    }
    add("used_memory_peak_perc", &percent(*memory_bytes, *memory_peak_bytes));
    add("used_memory_overhead", &memory_bytes.saturating_sub(*layers_bytes));
    add("used_memory_dataset", layers_bytes);
    add("used_memory_dataset_perc", &percent(*layers_bytes, *memory_bytes));
    add("total_system_memory", memory_total_bytes);
    add("total_system_memory_human", &human(*memory_total_bytes));
    add("used_memory_lua", &0);
    add("used_memory_scripts", &0);
    add("number_of_cached_scripts", &0);
    add("maxmemory", &0);
    add("maxmemory_human", &"0B");
    add("maxmemory_policy", &"noeviction");
    add("mem_fragmentation_ratio", &"1.00");
    add("mem_fragmentation_bytes", &0);
    add("mem_not_counted_for_evict", &0);
    add("mem_replication_backlog", &0);
    add("mem_clients_slaves", &0);
    add("mem_clients_normal", &0);
    add("mem_aof_buffer", &0);
    add("mem_allocator", &"mimalloc");
    add("active_defrag_running", &0);
    add("lazyfree_pending_objects", &0);
    add("lazyfreed_objects", &0);
}

/// Heads stand for snapshots, the log for the file that every update is appended to.
fn persistence(facts: &Facts, add: Add) {
    let node = facts.node;
    let status = if node.head_failed { "err" } else { "ok" };
    add("loading", &0);
    add("async_loading", &0);
    add("rdb_changes_since_last_save", &node.changes_since_head);
    add("rdb_bgsave_in_progress", &u8::from(node.head_in_progress));
    add("rdb_last_save_time", &(node.head_stamp_ms / 1000));
    add("rdb_last_bgsave_status", &status);
    add("rdb_last_cow_size", &0);
    add("aof_enabled", &1);
    add("aof_rewrite_in_progress", &u8::from(node.head_in_progress));
    add("aof_rewrite_scheduled", &0);
    add("aof_last_bgrewrite_status", &status);
    // A log that cannot be written ends the node.
    add("aof_last_write_status", &"ok");
    add("aof_last_cow_size", &0);
}

fn stats(facts: &Facts, add: Add) {
    let Facts { node, shared, .. } = facts;
    let counters = &shared.counters;
    let rates = shared.rates.each_second();
    let (bytes_read, bytes_written) = counters.bytes();
    let (hits, misses) = counters.hits_and_misses();
    let (reads, writes) = counters.reads_and_writes();
    let kib = |bytes: u64| format!("{:.2}", bytes as f64 / 1024.0);
    add("total_connections_received", &shared.clients_ever());
    add("total_commands_processed", &shared.commands());
    add("instantaneous_ops_per_sec", &rates.commands);
    add("total_net_input_bytes", &bytes_read);
    add("total_net_output_bytes", &bytes_written);
    add("instantaneous_input_kbps", &kib(rates.bytes_read));
    add("instantaneous_output_kbps", &kib(rates.bytes_written));
    add("rejected_connections", &shared.registry().map_or(0, |registry| registry.refused()));
    add("expired_keys", &node.expired_keys);
    add("evicted_keys", &0);
    add("evicted_clients", &0);
    add("keyspace_hits", &hits);
    add("keyspace_misses", &misses);
    for name in ["sync_full", "sync_partial_ok", "sync_partial_err", "pubsub_channels"] {
        add(name, &0);
    }
    for name in ["pubsub_patterns", "pubsubshard_channels", "latest_fork_usec", "total_forks"] {
        add(name, &0);
    }
    for name in ["migrate_cached_sockets", "slave_expires_tracked_keys", "tracking_total_keys"] {
        add(name, &0);
    }
    add("total_error_replies", &counters.errors_total());
    add("total_reads_processed", &reads);
    add("total_writes_processed", &writes);
}

fn cpu(facts: &Facts, add: Add) {
    let seconds = |us: u64| format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    add("used_cpu_sys", &seconds(facts.node.cpu_system_us));
    add("used_cpu_user", &seconds(facts.node.cpu_user_us));
    add("used_cpu_sys_children", &seconds(0));
    add("used_cpu_user_children", &seconds(0));
}

fn commandstats(facts: &Facts, add: Add) {
    for (name, count) in facts.shared.counters.commands() {
        let each = count.us as f64 / count.calls.max(1) as f64;
        let value = format!(
            "calls={},usec={},usec_per_call={each:.2},rejected_calls={},failed_calls={}",
            count.calls, count.us, count.rejected, count.failed
        );
        add(&format!("cmdstat_{name}"), &value);
    }
}

fn errorstats(facts: &Facts, add: Add) {
    for (word, count) in facts.shared.counters.errors() {
        // Redis shows these as other characters too: they would end the name.
        let word = word.replace([':', ','], "_");
        add(&format!("errorstat_{word}"), &format!("count={count}"));
    }
}

fn latencystats(facts: &Facts, add: Add) {
    if !facts.shared.parameters.latency_tracking() {
        return;
    }
    let percentiles = facts.shared.parameters.percentiles();
    for (name, histogram) in facts.shared.counters.histograms() {
        let value = percentiles.iter().map(|percent| {
            let us = histogram.percentile(*percent);
            format!("p{percent}={us}.000")
        });
        let value = value.collect::<Vec<_>>().join(",");
        add(&format!("latency_percentiles_usec_{name}"), &value);
    }
}

fn keyspace(facts: &Facts, add: Add) {
    let databases = facts.meta.iter().flat_map(|meta| meta.databases.iter().enumerate());
    for (number, database) in databases.filter(|(_, database)| database.keys > 0) {
        let (keys, expires) = (database.keys, database.keys_with_deadline);
        add(&format!("db{number}"), &format!("keys={keys},expires={expires},avg_ttl=0"));
    }
}

fn arakoon(facts: &Facts, add: Add) {
    let node = facts.node;
    add("cluster_id", &node.cluster_id);
    add("node", &node.name);
    add("node_role", &node.role.name());
    add("ballot", &node.ballot);
    add("last_index", &node.last_index);
    add("chosen_index", &node.chosen_index);
    add("applied_index", &node.applied_index);
    add("head_index", &node.head_index);
    add("lease_left_ms", &node.lease_left_ms);
    add("disk_used_bytes", &node.disk_used_bytes);
    add("disk_free_bytes", &node.disk_free_bytes);
    add("read_only", &node.read_only.as_deref().unwrap_or("no"));
    node.more.iter().for_each(|(name, value)| add(name, value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_with_their_unit() {
        for (bytes, expected) in
            [(0, "0B"), (1023, "1023B"), (1024, "1.00K"), (1536 << 10, "1.50M"), (1 << 40, "1.00T")]
        {
            assert_eq!(human(bytes), expected);
        }
    }

    #[test]
    fn a_value_cannot_pass_for_another_line() {
        let mut text = String::new();
        line(&mut text, "node:a\r\nrole:master");
        assert_eq!(text, "node:arole:master\r\n");
    }
}
