//! LATENCY: events that took longer than a threshold, the last 160 of each kind.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;

use bytes::Bytes;
use parking_lot::Mutex;
use resp::Reply;

/// Samples of an event that are kept.
const SAMPLES_MAX: usize = 160;
/// Columns and rows of a graph.
const GRAPH_COLUMNS: usize = 80;
const GRAPH_ROWS: u64 = 4;

#[derive(Debug, Default)]
struct Event {
    /// Seconds since the epoch and ms, oldest first; one for each second, the longest.
    samples: VecDeque<(u64, u64)>,
    /// Of all times.
    longest_ms: u64,
}

/// All events of a node.
#[derive(Debug, Default)]
pub struct LatencyMonitor {
    events: Mutex<BTreeMap<String, Event>>,
}

impl LatencyMonitor {
    pub(super) fn add(&self, event: &str, time_s: u64, ms: u64) {
        let mut events = self.events.lock();
        let event = events.entry(event.to_owned()).or_default();
        event.longest_ms = event.longest_ms.max(ms);
        match event.samples.back_mut() {
            Some((last_s, longest)) if *last_s == time_s => *longest = ms.max(*longest),
            _ => event.samples.push_back((time_s, ms)),
        }
        if event.samples.len() > SAMPLES_MAX {
            event.samples.pop_front();
        }
    }

    /// Forgets these events, or all; how many there were.
    pub(super) fn reset(&self, names: &[Bytes]) -> usize {
        let mut events = self.events.lock();
        if names.is_empty() {
            return std::mem::take(&mut *events).len();
        }
        let text = |name: &Bytes| String::from_utf8_lossy(name).into_owned();
        names.iter().filter(|name| events.remove(&text(name)).is_some()).count()
    }

    /// Each event with its last sample and the longest.
    pub(super) fn latest(&self) -> Reply {
        let events = self.events.lock();
        let event = |(name, event): (&String, &Event)| {
            let (time_s, ms) = event.samples.back().copied().unwrap_or_default();
            let numbers = [time_s, ms, event.longest_ms].map(|it| Reply::Integer(it as i64));
            Reply::Array([Reply::bulk(name.clone())].into_iter().chain(numbers).collect())
        };
        Reply::Array(events.iter().map(event).collect())
    }

    /// The samples of one event.
    pub(super) fn history(&self, name: &[u8]) -> Reply {
        let events = self.events.lock();
        let samples = std::str::from_utf8(name).ok().and_then(|name| events.get(name));
        let pair = |(time_s, ms): &(u64, u64)| {
            Reply::Array(vec![Reply::Integer(*time_s as i64), Reply::Integer(*ms as i64)])
        };
        Reply::Array(samples.iter().flat_map(|event| event.samples.iter().map(pair)).collect())
    }

    /// The samples of one event as bars; under each how long ago it was.
    pub(super) fn graph(&self, name: &[u8], now_s: u64) -> Reply {
        let events = self.events.lock();
        let name = String::from_utf8_lossy(name);
        let Some(event) = events.get(&*name) else {
            return Reply::error(format!("ERR No samples available for event '{name}'"));
        };
        Reply::Verbatim("txt", Bytes::from(event.graph(&name, now_s)))
    }

    /// What there is to say about the events.
    pub(super) fn report(&self, threshold_ms: i64) -> String {
        let events = self.events.lock();
        if events.is_empty() && threshold_ms == 0 {
            return "No latency is recorded: latency-monitor-threshold is 0. CONFIG SET \
                    latency-monitor-threshold <milliseconds> begins it.\n"
                .to_owned();
        }
        if events.is_empty() {
            return format!("Nothing took {threshold_ms} ms or longer so far.\n");
        }
        let mut text = String::new();
        for (name, event) in &*events {
            let count = event.samples.len() as u64;
            let sum: u64 = event.samples.iter().map(|(_, ms)| ms).sum();
            let average = sum.checked_div(count).unwrap_or(0);
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{name}: {count} samples, {average} ms on average, {} ms at most.",
                event.longest_ms
            );
        }
        text.push_str(
            "Reads answer from memory or the node's own disk: see SLOWLOG GET for which were slow.\n\
             Updates wait for the disks of a majority: see INFO arakoon on each node for one that \
             lags.\n",
        );
        text
    }
}

impl Event {
    fn graph(&self, name: &str, now_s: u64) -> String {
        let shown = self.samples.len().saturating_sub(GRAPH_COLUMNS);
        let shown: Vec<(u64, u64)> = self.samples.iter().skip(shown).copied().collect();
        let high = shown.iter().map(|(_, ms)| *ms).max().unwrap_or(0);
        let low = shown.iter().map(|(_, ms)| *ms).min().unwrap_or(0);
        let longest = self.longest_ms;
        let mut text =
            format!("{name} - high {high} ms, low {low} ms (all time high {longest} ms)\n");
        text.push_str(&"-".repeat(GRAPH_COLUMNS));
        text.push('\n');
        for row in (0..GRAPH_ROWS).rev() {
            for (_, ms) in &shown {
                // The lowest value has a bar of one row, the highest fills all.
                let height = (ms - low) * (GRAPH_ROWS - 1) / (high - low).max(1);
                text.push(if height >= row { '#' } else { ' ' });
            }
            text.push('\n');
        }
        text.push('\n');
        let ages: Vec<String> = shown.iter().map(|(s, _)| age(now_s.saturating_sub(*s))).collect();
        for line in 0..ages.iter().map(String::len).max().unwrap_or(0) {
            for age in &ages {
                text.push(age.chars().nth(line).unwrap_or(' '));
            }
            text.push('\n');
        }
        text
    }
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}
