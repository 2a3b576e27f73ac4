//! What a load measured, for people and for programs.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::mix::Kind;
use super::{BenchArgs, Outcome};
use crate::cli::table;

/// A table with a line per kind of command and one for all.
pub fn text(args: &BenchArgs, outcome: &Outcome) -> String {
    let seconds = outcome.elapsed.as_secs_f64();
    let row = |name: &str, latencies: &Histogram<u64>| {
        let mut row = vec![
            name.to_string(),
            latencies.len().to_string(),
            format!("{:.0}", latencies.len() as f64 / seconds),
        ];
        let quantile = |q: f64| milliseconds(latencies.value_at_quantile(q));
        row.extend([quantile(0.5), quantile(0.99), quantile(0.999), milliseconds(latencies.max())]);
        row
    };
    let mut rows: Vec<Vec<String>> = Kind::ALL
        .into_iter()
        .filter(|kind| !outcome.totals.of(*kind).is_empty())
        .map(|kind| row(kind.name(), outcome.totals.of(kind)))
        .collect();
    if rows.len() != 1 {
        rows.push(row("all", &outcome.totals.all()));
    }
    let heading = ["COMMAND", "COUNT", "PER SECOND", "P50 MS", "P99 MS", "P99.9 MS", "MAX MS"];
    let mut text = format!(
        "{} clients, pipeline {}, {}-byte values, {} keys, {seconds:.0} s\n\n",
        args.clients, args.pipeline, args.value_size, args.keys
    );
    text += &table::render(&heading, &rows);
    if let Some(gap) = outcome.write_gap_max {
        text += &format!(
            "\nlongest gap without an acknowledged write: {:.1} ms\n",
            gap.as_secs_f64() * 1000.0
        );
    }
    if !outcome.errors.is_empty() {
        let errors: Vec<String> =
            outcome.errors.iter().map(|(word, count)| format!("{word} {count}")).collect();
        text += &format!("errors, warm-up included: {}\n", errors.join(", "));
    }
    text
}

/// The same as one object.
pub fn json(args: &BenchArgs, outcome: &Outcome) -> Value {
    let seconds = outcome.elapsed.as_secs_f64();
    let figures = |latencies: &Histogram<u64>| {
        json!({
            "count": latencies.len(),
            "per_second": latencies.len() as f64 / seconds,
            "p50_us": latencies.value_at_quantile(0.5),
            "p99_us": latencies.value_at_quantile(0.99),
            "p999_us": latencies.value_at_quantile(0.999),
            "max_us": latencies.max(),
        })
    };
    let by_kind: serde_json::Map<String, Value> = Kind::ALL
        .into_iter()
        .filter(|kind| !outcome.totals.of(*kind).is_empty())
        .map(|kind| (kind.name().to_string(), figures(outcome.totals.of(kind))))
        .collect();
    json!({
        "clients": args.clients,
        "pipeline": args.pipeline,
        "value_size": args.value_size,
        "keys": args.keys,
        "seed": args.seed,
        "seconds": seconds,
        "all": figures(&outcome.totals.all()),
        "commands": by_kind,
        "write_gap_max_ms": outcome.write_gap_max.map(|gap| gap.as_secs_f64() * 1000.0),
        "errors": outcome.errors,
    })
}

fn milliseconds(us: u64) -> String {
    format!("{:.3}", us as f64 / 1000.0)
}
