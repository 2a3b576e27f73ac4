//! A page that shows a run: operations of every client, faults, masters and writes over time.
//!
//! One file that needs no network. The runner puts data into it; `page.html` draws them.

use std::collections::HashMap;
use std::fmt::Write;

use serde_json::{Value, json};

use crate::arguments::Arguments;
use crate::checker::history::{Op, Outcome};
use crate::load::Record;
use crate::report::{Report, masters};
use crate::timeline::{Gap, Timeline};

const TEMPLATE: &str = include_str!("page.html");
const DATA_GOES_HERE: &str = "/*DATA*/null";

pub fn page(
    arguments: &Arguments,
    timeline: &Timeline,
    record: &Record,
    report: &Report,
    verdict: &str,
) -> String {
    let gap = |gap: Gap| json!([gap.from_us, gap.until_us]);
    let now_us = timeline.clock.now_us();
    let faults: Vec<Value> = timeline
        .faults
        .iter()
        .map(|fault| {
            json!({
                "kind": fault.kind.name(),
                "text": fault.text,
                "nodes": fault.nodes,
                "from": fault.began_us,
                "until": fault.ended_us.unwrap_or(now_us),
            })
        })
        .collect();
    let rows: Vec<Value> = report
        .rows
        .iter()
        .map(|row| json!([row.name, row.struck, row.alone.map(gap), gap(row.any)]))
        .collect();
    let (labels, lanes) = lanes(&record.history.ops, now_us);
    let data = json!({
        "command": arguments.command(),
        "verdict": verdict,
        "summary": report.summary,
        "nodes": arguments.nodes,
        "mainClients": arguments.clients,
        "end": now_us,
        "faults": faults,
        "masters": masters(record),
        "rows": rows,
        "calm": gap(report.calm),
        "longest": gap(report.longest),
        "lines": timeline.lines,
        "labels": labels,
        "lanes": lanes,
        "writes": writes_per_tenth(&report.acknowledged_us, now_us),
    });
    // Text in the data must not end the script that it stands in.
    let data = data.to_string().replace("</", "<\\/");
    TEMPLATE.replace(DATA_GOES_HERE, &data)
}

fn writes_per_tenth(acknowledged_us: &[u64], end_us: u64) -> Vec<u32> {
    let mut tenths = vec![0; (end_us / 100_000) as usize + 1];
    for us in acknowledged_us {
        tenths[(us / 100_000) as usize] += 1;
    }
    tenths
}

/// Per client a flat list of four numbers per operation: asked (from the operation before), how
/// long it took, its number, and its label and outcome together; and the labels.
fn lanes(ops: &[Op], now_us: u64) -> (Vec<String>, Vec<Vec<u64>>) {
    let mut labels = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut lanes: Vec<(u64, Vec<u64>)> = Vec::new();
    for (number, op) in ops.iter().enumerate() {
        if lanes.len() <= op.client {
            lanes.resize_with(op.client + 1, Default::default);
        }
        let mut label = String::new();
        let _ = write!(label, "{:?}", op.kind);
        let label = *known.entry(label).or_insert_with_key(|label| {
            labels.push(label.clone());
            labels.len() - 1
        });
        let outcome = match op.outcome {
            Outcome::Reply(_) => 0,
            Outcome::Refused => 1,
            Outcome::Unknown => 2,
        };
        let (before_us, lane) = &mut lanes[op.client];
        let until_us = op.heard_us.min(now_us);
        lane.extend([
            op.asked_us - *before_us,
            until_us.saturating_sub(op.asked_us),
            number as u64,
            label as u64 * 3 + outcome,
        ]);
        *before_us = op.asked_us;
    }
    (labels, lanes.into_iter().map(|(_, lane)| lane).collect())
}
