//! Runs the scenarios in `tests/scripts/`: commands against a session and a node of one, replies as
//! text. `UPDATE_GOLDENFILES=1 cargo test --test scripts` writes the replies anew; review the diff.
//!
//! A line is a command; `b: get x` is said by client `b`. These are the script's own:
//!
//! - `_advance MS`: time passes (the clock begins at 1,000,000 ms);
//! - `_pipe "SET a 1" "GET a"`: sent at once, words split at spaces;
//! - `_lease REFUSAL`, `_write REFUSAL`, `_outcome REFUSAL`: from now on the lease, writes, or
//!   outcomes of submissions are refused; REFUSAL is `moved`, `down`, `tryagain`, `loading`,
//!   `misconf`, `uncertain` or `none`;
//! - `_submissions`: how many there were since last asked.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::fmt::Write;
use std::sync::Arc;

use arakoon::command::{apply_batch, batch};
use arakoon::server::{
    Backend, NodeInfo, NodeRole, PeerInfo, Refusal, Session, Shared, Step, Submission,
};
use arakoon::store::{Rows, StoreError};
use bytes::BytesMut;
use goldenscript::{Argument, Command, Context, Runner};
use resp::{Reply, ReplyDecoder, Request};

mod support;

use support::map::MapRows;
use support::text;

#[derive(Default)]
struct Node {
    rows: MapRows,
    index: u64,
    stamp_ms: u64,
    lease: Option<Refusal>,
    write: Option<Refusal>,
    outcome: Option<Refusal>,
    submissions: usize,
}

#[derive(Default)]
struct OneNode(parking_lot::Mutex<Node>);

impl Backend for OneNode {
    fn with_rows(&self, read: &mut dyn FnMut(&dyn Rows)) -> Result<(), Refusal> {
        read(&self.0.lock().rows);
        Ok(())
    }

    fn lease(&self) -> Result<(), Refusal> {
        self.0.lock().lease.clone().map_or(Ok(()), Err)
    }

    fn may_write(&self) -> Result<(), Refusal> {
        self.0.lock().write.clone().map_or(Ok(()), Err)
    }

    fn stamp_ms(&self) -> u64 {
        self.0.lock().stamp_ms
    }

    fn info(&self) -> NodeInfo {
        let node = self.0.lock();
        let peer = PeerInfo {
            name: "n2".to_owned(),
            address: "10.0.0.2:4000".to_owned(),
            reachable: true,
            applied_index: node.index,
            lag_entries: 0,
        };
        NodeInfo {
            cluster_id: "demo".to_owned(),
            name: "n1".to_owned(),
            address: "10.0.0.1:4000".to_owned(),
            role: if node.lease.is_some() { NodeRole::Replica } else { NodeRole::Master },
            master_address: node.lease.as_ref().map(|_| "10.0.0.2:4000".to_owned()),
            peers: vec![peer],
            ballot: "1.n1".to_owned(),
            applied_index: node.index,
            ..NodeInfo::default()
        }
    }

    fn store_failed(&self, error: StoreError) {
        panic!("a map cannot fail: {error}");
    }
}

impl OneNode {
    fn propose(&self, submission: Submission) -> Result<Vec<Reply>, Refusal> {
        let mut node = self.0.lock();
        node.submissions += 1;
        if let Some(refusal) = &node.outcome {
            return Err(refusal.clone());
        }
        node.index += 1;
        let entry = batch::seal(node.stamp_ms, 0, submission.count, &[submission.items]);
        let index = node.index;
        let applied = apply_batch(index, &entry, &mut node.rows).expect("a map cannot fail");
        Ok(applied.replies)
    }
}

struct Scripts {
    node: OneNode,
    shared: Arc<Shared>,
    clients: BTreeMap<String, Session>,
    connected: u64,
}

impl Scripts {
    fn new() -> Scripts {
        let node = OneNode::default();
        node.0.lock().stamp_ms = 1_000_000;
        Scripts { node, shared: Arc::new(Shared::new(0)), clients: BTreeMap::new(), connected: 0 }
    }

    /// Sends requests at once and returns the replies, one a line.
    fn send(&mut self, client: &str, requests: Vec<Vec<String>>) -> Result<String, Box<dyn Error>> {
        let (shared, connected) = (&self.shared, &mut self.connected);
        let session = self.clients.entry(client.to_owned()).or_insert_with(|| {
            *connected += 1;
            let address = format!("192.168.0.1:{connected}");
            Session::new(Arc::clone(shared), *connected, address, "10.0.0.1:4000".to_owned())
        });
        let request = |words: Vec<String>| Request {
            arguments: words.into_iter().map(bytes::Bytes::from).collect(),
        };
        let mut requests: VecDeque<Request> = requests.into_iter().map(request).collect();
        let mut out = BytesMut::new();
        let mut closed = false;
        loop {
            match session.handle(&mut requests, &mut out, &self.node) {
                Step::Idle if requests.is_empty() => break,
                Step::Idle => (),
                Step::Submit(submission) => {
                    session.complete(self.node.propose(submission), &mut out);
                }
                Step::Close => {
                    closed = true;
                    break;
                }
            }
        }
        if closed {
            self.clients.remove(client);
        }
        let mut decoder = ReplyDecoder::new(1 << 26, 1 << 20);
        let mut text = String::new();
        while let Some(reply) = decoder.decode(&mut out)? {
            writeln!(text, "{}", text::of(&reply))?;
        }
        if closed {
            text.push_str("closed\n");
        }
        Ok(text)
    }
}

fn refusal(name: &str) -> Result<Option<Refusal>, Box<dyn Error>> {
    Ok(Some(match name {
        "none" => return Ok(None),
        "moved" => Refusal::Moved { address: "10.0.0.2:4000".to_owned() },
        "down" => Refusal::ClusterDown("no master is known".into()),
        "tryagain" => Refusal::TryAgain("the queue is full".into()),
        "loading" => Refusal::Loading,
        "misconf" => Refusal::Misconf("the disk is nearly full".into()),
        "uncertain" => Refusal::Uncertain,
        other => return Err(format!("no refusal is called {other}").into()),
    }))
}

impl Runner for Scripts {
    type Command = Command;

    fn run(&mut self, command: &Command, context: &Context) -> Result<String, Box<dyn Error>> {
        let mut args = Vec::new();
        for argument in &command.args {
            args.push(match argument {
                Argument::Positional(value) => value.clone(),
                Argument::KeyValue(key, value) => format!("{key}={value}"),
                other => return Err(format!("not a word: {other:?}").into()),
            });
        }
        let first = args.first().map_or("", String::as_str);
        let client = context.prefix.as_deref().unwrap_or("a");
        match command.name.as_str() {
            "_advance" => self.node.0.lock().stamp_ms += first.parse::<u64>()?,
            "_lease" => self.node.0.lock().lease = refusal(first)?,
            "_write" => self.node.0.lock().write = refusal(first)?,
            "_outcome" => self.node.0.lock().outcome = refusal(first)?,
            "_submissions" => {
                return Ok(std::mem::take(&mut self.node.0.lock().submissions).to_string());
            }
            "_pipe" => {
                let words = |line: &String| line.split(' ').map(str::to_owned).collect();
                return self.send(client, args.iter().map(words).collect());
            }
            name => {
                let mut words = vec![name.to_owned()];
                words.extend(args);
                return self.send(client, vec![words]);
            }
        }
        Ok(String::new())
    }
}

#[test]
fn scripts() -> std::io::Result<()> {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut scripts = 0;
    for file in std::fs::read_dir(directory)? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "script") {
            println!("{}", path.display());
            goldenscript::run(&mut Scripts::new(), &path)?;
            scripts += 1;
        }
    }
    assert!(scripts > 0, "no scripts were found");
    Ok(())
}
