//! What is in the store when all is over: it must fit the history, and be the same on every node.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use arakoon::cli::client::Client;
use resp::Reply;

use crate::checker::{Checked, Violation, operation};
use crate::load::Record;
use crate::network::client_address;

/// A busy machine may take so long to read everything.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// The master may be changing.
const READ_WITHIN: Duration = Duration::from_secs(30);
/// Until every node has applied what the master has.
const EQUAL_WITHIN: Duration = Duration::from_secs(30);
const TRIED_EVERY: Duration = Duration::from_millis(50);

/// Reads all lists at once, on the master and then on every node, and checks the whole history.
/// The clients must have ended.
pub fn check(record: &mut Record, nodes: usize) -> anyhow::Result<Checked<()>> {
    let keys = record.history.list_keys();
    let mut request = vec!["MGET".into()];
    request.extend(keys.iter().map(|key| operation::list_key(*key)));
    if keys.is_empty() {
        bail!("the clients did nothing");
    }
    // In one reply, and so at one moment: an operation without an answer may still be applied.
    let Some(lists) = read_master(&request, nodes) else {
        let what = "no master answers the final read".to_string();
        return Ok(Err(Violation { check: "liveness", what }));
    };
    for (key, reply) in keys.iter().zip(&lists) {
        let Some(list) = operation::list_of(reply) else {
            let what = format!("list {key} is {reply:?}");
            return Ok(Err(Violation { check: "final state", what }));
        };
        if let Err(violation) = record.history.final_list(*key, list) {
            return Ok(Err(violation));
        }
    }
    for seat in 0..nodes {
        if let Err(violation) = compare(seat, &request, &lists) {
            return Ok(Err(violation));
        }
    }
    Ok(record.history.check())
}

fn lists(reply: Reply) -> anyhow::Result<Vec<Reply>> {
    match reply {
        Reply::Array(lists) => Ok(lists),
        other => bail!("MGET answered {other:?}"),
    }
}

fn read_master(request: &[bytes::Bytes], nodes: usize) -> Option<Vec<Reply>> {
    let deadline = Instant::now() + READ_WITHIN;
    loop {
        for seat in 0..nodes {
            let client = Client::connect(&client_address(seat), ANSWER_WITHIN);
            let answer = client.and_then(|mut client| client.call(request));
            if let Some(lists) = answer.ok().and_then(|reply| lists(reply).ok()) {
                return Some(lists);
            }
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(TRIED_EVERY);
    }
}

fn read_stale(seat: usize, request: &[bytes::Bytes]) -> anyhow::Result<Vec<Reply>> {
    let mut client = Client::connect(&client_address(seat), ANSWER_WITHIN)?;
    client.call(&["READONLY"])?;
    lists(client.call(request)?).context("a stale read")
}

/// A node has the lists that the master has.
fn compare(seat: usize, request: &[bytes::Bytes], lists: &[Reply]) -> Checked<()> {
    let deadline = Instant::now() + EQUAL_WITHIN;
    loop {
        let answer = read_stale(seat, request);
        if answer.as_ref().is_ok_and(|own| own == lists) {
            return Ok(());
        }
        if Instant::now() > deadline {
            let differing = match answer {
                Err(error) => format!("{error:#}"),
                Ok(own) => {
                    let differs = |place: &usize| own.get(*place) != lists.get(*place);
                    let names: Vec<String> = (0..lists.len())
                        .filter(differs)
                        .map(|place| String::from_utf8_lossy(&request[place + 1]).into())
                        .collect();
                    format!("these differ: {}", names.join(" "))
                }
            };
            let what = format!("n{} has not the master's lists: {differing}", seat + 1);
            return Err(Violation { check: "equal stores", what });
        }
        std::thread::sleep(TRIED_EVERY);
    }
}
