//! What a person reads at the end.

use std::collections::BTreeMap;

use crate::load::Record;
use crate::timeline::{Gap, Timeline, longest_gap};

/// The figures of a run, as printed and as the page shows them.
pub struct Report {
    pub acknowledged_us: Vec<u64>,
    /// Per kind of fault: its name, how often, and the longest gap alone and at all.
    pub rows: Vec<Row>,
    pub longest: Gap,
    pub calm: Gap,
    pub summary: String,
}

pub struct Row {
    pub name: &'static str,
    pub struck: usize,
    pub alone: Option<Gap>,
    pub any: Gap,
}

impl Report {
    pub fn new(timeline: &Timeline, record: &Record) -> Report {
        let mut acknowledged_us: Vec<u64> = record.acknowledged.iter().map(|(us, _)| *us).collect();
        acknowledged_us.sort_unstable();
        let rows = timeline
            .gaps(&acknowledged_us)
            .into_iter()
            .map(|(kind, gaps)| Row {
                name: kind.name(),
                struck: gaps.struck,
                alone: gaps.alone,
                any: gaps.any,
            })
            .collect();
        let span_us = match (acknowledged_us.first(), acknowledged_us.last()) {
            (Some(first), Some(last)) => (last - first).max(1),
            _ => 1,
        };
        let writes = acknowledged_us.len();
        let summary = format!(
            "{} operations by all clients; {writes} writes acknowledged, {:.0}/s; {} operations \
             refused, {} without a known outcome",
            record.history.ops.len(),
            writes as f64 * 1e6 / span_us as f64,
            record.refused,
            record.unknown,
        );
        Report {
            longest: longest_gap(&acknowledged_us),
            calm: timeline.calm_gap(&acknowledged_us),
            acknowledged_us,
            rows,
            summary,
        }
    }

    pub fn print(&self) {
        println!("\n{}", self.summary);
        println!("\nLongest time without an acknowledged write, in seconds");
        println!("{:<24}{:>8}{:>12}{:>20}", "fault", "struck", "by itself", "with others' help");
        for row in &self.rows {
            let alone = row.alone.map_or("-".to_string(), seconds);
            let any = seconds(row.any);
            println!("{:<24}{:>8}{alone:>12}{any:>20}", row.name, row.struck);
        }
        println!("{:<24}{:>8}{:>12}", "no fault", "", seconds(self.calm));
        println!("{:<24}{:>8}{:>12}{:>20}", "in all", "", "", seconds(self.longest));
    }
}

pub fn seconds(gap: Gap) -> String {
    format!("{:.2}", gap.length_us() as f64 / 1e6)
}

/// Which node acknowledged writes from when to when; spans of one node that follow each other are
/// one.
pub fn masters(record: &Record) -> Vec<(u64, u64, u8)> {
    let in_order: BTreeMap<(u64, u8), ()> =
        record.acknowledged.iter().map(|acknowledged| (*acknowledged, ())).collect();
    let mut spans: Vec<(u64, u64, u8)> = Vec::new();
    for (us, node) in in_order.into_keys() {
        match spans.last_mut() {
            Some((_, until_us, of)) if *of == node => *until_us = us,
            _ => spans.push((us, us, node)),
        }
    }
    spans
}
