//! Runs the scenarios in `tests/scripts/`: commands against a session and a node of one, replies as
//! text. `UPDATE_GOLDENFILES=1 cargo test --test commands` writes the replies anew; review the diff.
//!
//! A line is a command; `b: get x` is said by client `b`; `hex=00ff` stands for these bytes. These are the script's own:
//!
//! - `_advance MS`: time passes (the clock begins at 1,000,000 ms);
//! - `_pipe "SET a 1" "GET a"`: sent at once, words split at spaces;
//! - `_fill PREFIX N`: sets N keys of a prefix, to their numbers;
//! - `_pause off`: from now on a client that waits is left waiting, until `_pause on`;
//! - `_still on`: from now on no clock item is proposed, until `_still off`;
//! - `_lease REFUSAL`, `_write REFUSAL`, `_outcome REFUSAL`: from now on the lease, writes, or
//!   outcomes of submissions are refused; REFUSAL is `moved`, `down`, `tryagain`, `loading`,
//!   `misconf`, `uncertain` or `none`;
//! - `_debug yes|local|no`: who may use DEBUG;
//! - `_stopped`: whether a client has told the node to stop since last asked;
//! - `_publish CHANNEL MESSAGE`: an event happens, and everybody takes what waits for them;
//! - `_deliver`: everybody takes what waits for them;
//! - `_submissions`: how many there were since last asked.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::fmt::Write;
use std::sync::Arc;

use arakoon::config::Allowed;
use arakoon::server::{Refusal, Session, Shared, Step};
use bytes::{Bytes, BytesMut};
use goldenscript::{Argument, Command, Context, Runner};
use resp::{ReplyDecoder, Request};

use crate::support::node::OneNode;
use crate::support::text;

struct Scripts {
    node: Arc<OneNode>,
    shared: Arc<Shared>,
    clients: BTreeMap<String, Session>,
    connected: u64,
    /// Time stands still for who waits.
    paused: bool,
    /// The log's clock stands still.
    still: bool,
}

impl Scripts {
    fn new() -> Scripts {
        let node = Arc::new(OneNode::new(1_000_000));
        let clock_ms = |node: &Arc<OneNode>| {
            let node = node.clone();
            move || node.0.lock().stamp_ms
        };
        let (clock, wall_ms) = (clock_ms(&node), clock_ms(&node));
        let shared = Shared::new(0).with_clocks(move || clock() * 1000, wall_ms);
        Scripts {
            node,
            shared: Arc::new(shared),
            clients: BTreeMap::new(),
            connected: 0,
            paused: false,
            still: false,
        }
    }

    /// Sends requests at once and returns the replies, one a line.
    fn send(&mut self, client: &str, requests: Vec<Vec<String>>) -> Result<String, Box<dyn Error>> {
        let (shared, connected) = (&self.shared, &mut self.connected);
        let session = self.clients.entry(client.to_owned()).or_insert_with(|| {
            *connected += 1;
            let address = format!("192.168.0.1:{connected}");
            Session::new(Arc::clone(shared), *connected, address, "10.0.0.1:4000".to_owned())
        });
        let request =
            |words: Vec<String>| Request { arguments: words.into_iter().map(bytes_of).collect() };
        let mut requests: VecDeque<Request> = requests.into_iter().map(request).collect();
        let mut out = BytesMut::new();
        let mut closed = false;
        loop {
            match session.handle(&mut requests, &mut out, &*self.node) {
                Step::Idle if requests.is_empty() => break,
                Step::Idle => (),
                Step::Submit(submission) => {
                    session.complete(self.node.propose(submission), &mut out);
                }
                Step::Pause(_) if self.paused => break,
                Step::Pause(pause) => {
                    self.node.0.lock().stamp_ms += pause.as_millis() as u64;
                    if !self.still {
                        self.node.propose_clock();
                    }
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

    /// What waits for everybody.
    fn deliver(&mut self, mut text: String) -> Result<String, Box<dyn Error>> {
        for (name, session) in &mut self.clients {
            let mut out = BytesMut::new();
            session.deliver(&mut out);
            let mut decoder = ReplyDecoder::new(1 << 26, 1 << 20);
            while let Some(reply) = decoder.decode(&mut out)? {
                writeln!(text, "to {name}: {}", text::of(&reply))?;
            }
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

/// A word as it is sent.
fn bytes_of(word: String) -> Bytes {
    let Some(digits) = word.strip_prefix("hex=") else { return Bytes::from(word) };
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("hexadecimal digits");
        u8::from_str_radix(pair, 16).expect("two hexadecimal digits for each byte")
    };
    digits.as_bytes().chunks(2).map(byte).collect()
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
            "_debug" => {
                self.node.0.lock().debug_command = match first {
                    "yes" => Allowed::Yes,
                    "local" => Allowed::Local,
                    _ => Allowed::No,
                };
            }
            "_stopped" => {
                let stopped = std::mem::take(&mut self.node.0.lock().told_to_stop);
                return Ok(if stopped { "stopped" } else { "goes on" }.to_owned());
            }
            "_pause" => self.paused = first == "off",
            "_still" => self.still = first == "on",
            "_fill" => {
                let count: usize = args.get(1).ok_or("how many?")?.parse()?;
                let mut words = vec!["mset".to_owned()];
                words.extend((0..count).flat_map(|n| [format!("{first}{n:05}"), n.to_string()]));
                return self.send(client, vec![words]);
            }
            "_publish" => {
                let message = args.get(1).ok_or("which message?")?;
                let heard = self.shared.publish(first, message);
                let text = format!("heard by {heard}\n");
                return self.deliver(text);
            }
            "_deliver" => return self.deliver(String::new()),
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
fn every_script_gives_the_replies_it_shows() -> std::io::Result<()> {
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
