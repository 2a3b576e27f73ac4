//! `arakoon status`: asks every node how it is and shows the answers side by side.
//!
//! Each node speaks for itself; nothing is deduced from another's opinion, except the lag, which
//! is counted against the master's chosen index.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Map, Value, json};

use super::info::{Member, Report};
use super::{StatusArgs, table};
use crate::config::Config;

/// What one node may take to connect and answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// A node and what it answered, or why it did not.
struct NodeStatus {
    name: String,
    client: String,
    report: Result<Report, String>,
}

/// All nodes' answers at about one time.
struct ClusterStatus {
    nodes: Vec<NodeStatus>,
}

/// Prints the state; success only with a master that has a quorum.
pub fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let members = match (&args.target.config, &args.target.connect) {
        (Some(file), _) => config_members(&Config::load(file)?),
        (None, Some(address)) => members_from(address)?,
        (None, None) => anyhow::bail!("write --config FILE or --connect HOST:PORT"),
    };
    let status = ClusterStatus::ask(&members);
    super::print(&if args.json { format!("{:#}\n", status.to_json()) } else { status.to_text() })?;
    Ok(if status.serves() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The nodes of a config file, by seat.
pub fn config_members(config: &Config) -> Vec<Member> {
    let member = |node: &crate::config::NodeConfig| Member {
        name: node.name.clone(),
        client: node.advertised().to_owned(),
    };
    config.nodes.iter().map(member).collect()
}

/// Asks every member at the same time; the answers are in the members' order.
pub fn ask_all(members: &[Member]) -> Vec<Result<Report, String>> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = members
            .iter()
            .map(|member| scope.spawn(|| Report::ask(&member.client, ANSWER_WITHIN)))
            .collect();
        asked
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(answer) => answer.map_err(|error| match error.kind() {
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {
                        format!("no answer within {}", humantime::format_duration(ANSWER_WITHIN))
                    }
                    _ => error.to_string(),
                }),
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    })
}

fn members_from(address: &str) -> anyhow::Result<Vec<Member>> {
    let report = Report::ask(address, ANSWER_WITHIN)
        .with_context(|| format!("{address} does not say who its nodes are"))?;
    if report.text("part").is_empty() {
        anyhow::bail!("{address} answers, but is no Arakoon node");
    }
    let members = report.members();
    if members.is_empty() {
        return Ok(vec![Member {
            name: report.text("node").to_string(),
            client: address.to_string(),
        }]);
    }
    Ok(members)
}

impl ClusterStatus {
    fn ask(members: &[Member]) -> ClusterStatus {
        let nodes = members
            .iter()
            .zip(ask_all(members))
            .map(|(member, report)| NodeStatus {
                name: member.name.clone(),
                client: member.client.clone(),
                report,
            })
            .collect();
        ClusterStatus { nodes }
    }

    fn master(&self) -> Option<(&NodeStatus, &Report)> {
        self.nodes
            .iter()
            .filter_map(|node| Some((node, node.report.as_ref().ok()?)))
            .find(|(_, report)| report.is_master())
    }

    fn serves(&self) -> bool {
        self.master().is_some_and(|(_, report)| report.has_quorum())
    }

    /// Chosen entries that a node has not applied yet; none without a master to compare with.
    fn lag(&self, report: &Report) -> Option<u64> {
        let chosen = self.master()?.1.number("chosen_index")?;
        Some(chosen.saturating_sub(report.number("applied_index")?))
    }

    fn to_text(&self) -> String {
        let heading = [
            "NODE", "CLIENT", "ROLE", "BALLOT", "LAST", "CHOSEN", "APPLIED", "LAG", "LEASE",
            "KEYS", "DISK", "NOTE",
        ];
        let rows: Vec<Vec<String>> = self.nodes.iter().map(|node| self.row(node)).collect();
        let mut text = table::render(&heading, &rows);
        text += &match self.master() {
            None => "\nNo master: clients get CLUSTERDOWN.\n".to_string(),
            Some((node, report)) if !report.has_quorum() => {
                format!("\nMaster {} at {}, but no quorum.\n", node.name, node.client)
            }
            Some((node, _)) => format!("\nMaster {} at {}.\n", node.name, node.client),
        };
        text
    }

    fn row(&self, node: &NodeStatus) -> Vec<String> {
        let mut row = vec![node.name.clone(), node.client.clone()];
        match &node.report {
            Err(error) => {
                row.push("unreachable".to_string());
                row.extend(std::iter::repeat_n("-".to_string(), 8));
                row.push(error.clone());
            }
            Ok(report) => {
                let text = |key: &str| match report.text(key) {
                    "" => "-".to_string(),
                    text => text.to_string(),
                };
                row.extend(
                    ["part", "ballot", "last_index", "chosen_index", "applied_index"].map(text),
                );
                row.push(self.lag(report).map_or("-".to_string(), |lag| lag.to_string()));
                row.push(match report.number("lease_left_ms") {
                    Some(left_ms) if report.is_master() => format!("{left_ms}ms"),
                    _ => "-".to_string(),
                });
                row.push(text("keys"));
                row.push(report.number("disk_used_bytes").map_or("-".to_string(), bytes_text));
                row.push(note(report));
            }
        }
        row
    }

    fn to_json(&self) -> Value {
        let nodes: Vec<Value> = self
            .nodes
            .iter()
            .map(|node| match &node.report {
                Err(error) => json!({
                    "name": node.name, "client": node.client, "reachable": false, "error": error,
                }),
                Ok(report) => {
                    // A number that is text in INFO is a number here.
                    let fields: Map<String, Value> = report
                        .fields()
                        .filter(|(key, _)| !key.starts_with("member"))
                        .map(|(key, text)| {
                            let value =
                                text.parse::<u64>().map_or_else(|_| json!(text), Value::from);
                            (key.to_string(), value)
                        })
                        .collect();
                    json!({
                        "name": node.name, "client": node.client, "reachable": true,
                        "lag": self.lag(report), "info": fields,
                    })
                }
            })
            .collect();
        json!({
            "master": self.master().map(|(node, _)| node.name.as_str()),
            "quorum": self.serves(),
            "nodes": nodes,
        })
    }
}

/// What needs a person's eye, or explains a lag.
fn note(report: &Report) -> String {
    let mut notes = Vec::new();
    if !matches!(report.text("head_mismatch"), "" | "0") {
        notes.push(format!("HEAD MISMATCH at {}", report.text("head_mismatch")));
    }
    if !matches!(report.text("catch_up"), "" | "none") {
        notes.push(format!("catching up: {}", report.text("catch_up")));
    }
    if !matches!(report.text("read_only"), "" | "no") {
        notes.push(report.text("read_only").to_string());
    }
    if !matches!(report.text("clock_off_ms"), "" | "0") {
        notes.push(format!("its clock is off by {} ms", report.text("clock_off_ms")));
    }
    notes.join("; ")
}

fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes}B") } else { format!("{value:.1}{}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(quorum: u8) -> ClusterStatus {
        let node = |name: &str, report: Result<&str, &str>| NodeStatus {
            name: name.to_string(),
            client: format!("{name}:4000"),
            report: report.map(Report::parse).map_err(str::to_string),
        };
        let master = format!(
            "part:master\nballot:2.n1\nlast_index:12\nchosen_index:11\napplied_index:11\n\
             lease_left_ms:480\nkeys:3\ndisk_used_bytes:1572864\nquorum:{quorum}\n"
        );
        ClusterStatus {
            nodes: vec![
                node("n1", Ok(&master)),
                node("n2", Ok("part:learner\napplied_index:4\ncatch_up:head 40%\n")),
                node("n3", Err("Connection refused")),
            ],
        }
    }

    #[test]
    fn the_table_shows_each_node_and_the_lag_behind_the_master() {
        let expected = "\
NODE  CLIENT   ROLE         BALLOT  LAST  CHOSEN  APPLIED  LAG  LEASE  KEYS  DISK    NOTE
n1    n1:4000  master       2.n1    12    11      11       0    480ms  3     1.5MiB
n2    n2:4000  learner      -       -     -       4        7    -      -     -       catching up: head 40%
n3    n3:4000  unreachable  -       -     -       -        -    -      -     -       Connection refused

Master n1 at n1:4000.
";
        assert_eq!(cluster(1).to_text(), expected);
    }

    #[test]
    fn only_a_master_with_a_quorum_is_a_success() {
        assert!(cluster(1).serves());
        assert!(!cluster(0).serves());
        assert!(cluster(0).to_text().ends_with("\nMaster n1 at n1:4000, but no quorum.\n"));
        let mut none = cluster(1);
        none.nodes.remove(0);
        assert!(!none.serves());
        assert!(none.to_text().ends_with("\nNo master: clients get CLUSTERDOWN.\n"));
    }

    #[test]
    fn json_has_numbers_and_reasons() {
        let json = cluster(1).to_json();
        assert_eq!(json["master"], "n1");
        assert_eq!(json["quorum"], true);
        assert_eq!(json["nodes"][0]["info"]["chosen_index"], 11);
        assert_eq!(json["nodes"][1]["lag"], 7);
        assert_eq!(json["nodes"][2]["reachable"], false);
        assert_eq!(json["nodes"][2]["error"], "Connection refused");
    }
}
