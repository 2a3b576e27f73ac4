//! A cluster of real processes that ends with the test, also when the test fails.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arakoon::cli::client::Client;
use arakoon::cli::info::Report;
use resp::Reply;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long a state may take to be reached before the test fails.
pub const EVENTUALLY: Duration = Duration::from_secs(60);
/// How long a node may take to answer one question of the tests.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(6);
const POLL_EVERY: Duration = Duration::from_millis(10);
/// Lines of each node's log that a failed test shows.
const LOG_LINES_SHOWN: usize = 60;

/// The program under test: `ARAKOON_PROGRAM`, or the one that was built with the tests.
pub fn program() -> PathBuf {
    let built = || PathBuf::from(env!("CARGO_BIN_EXE_arakoon"));
    std::env::var_os("ARAKOON_PROGRAM").map_or_else(built, PathBuf::from)
}

/// How often a test does what it measures: what the variable says, or `usual`.
pub fn times(variable: &str, usual: usize) -> usize {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is a number")),
        Err(_) => usual,
    }
}

static TURN: Mutex<()> = Mutex::new(());

/// Waits until no other test has a cluster.
pub fn take_turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Polls until `probe` has a value; fails the test after [`EVENTUALLY`].
#[track_caller]
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + EVENTUALLY;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {EVENTUALLY:?}: {what}");
        std::thread::sleep(POLL_EVERY);
    }
}

/// The first of `count` ports in a row that are free, and so are those 500 above.
///
/// Below the range that the system gives to outgoing connections: a node that is down for a while
/// must find its port free again.
pub fn free_ports(count: u16) -> u16 {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    for _ in 0..1000 {
        let first = fastrand::u16(10_000..31_000);
        if (first..first + count).all(|port| free(port) && free(port + 500)) {
            return first;
        }
    }
    panic!("no {count} free ports in a row");
}

/// Three nodes, or as many as asked for, each a process of its own.
pub struct Cluster {
    nodes: Vec<Node>,
    file: PathBuf,
    // Removed after the processes are gone: fields are dropped in order, after `drop`.
    _dir: TempDir,
    _turn: MutexGuard<'static, ()>,
}

struct Node {
    name: String,
    address: String,
    dir: PathBuf,
    log: PathBuf,
    process: Option<Child>,
}

impl Cluster {
    /// Three running nodes with a master.
    pub fn start() -> Cluster {
        Cluster::start_with("")
    }

    /// The same with more lines in the `[cluster]` table.
    pub fn start_with(settings: &str) -> Cluster {
        let dir = TempDir::new().expect("a directory for the cluster");
        Cluster::start_in(dir, 3, settings)
    }

    /// A cluster of one node.
    pub fn alone() -> Cluster {
        let dir = TempDir::new().expect("a directory for the node");
        Cluster::start_in(dir, 1, "")
    }

    /// So many running nodes with their directories in `dir`.
    pub fn start_in(dir: TempDir, count: u16, settings: &str) -> Cluster {
        let turn = take_turn();
        let first = free_ports(count);
        let mut text = format!("[cluster]\nid = \"test\"\n{settings}\n");
        let mut nodes = Vec::new();
        for seat in 0..count {
            let name = format!("n{}", seat + 1);
            let address = format!("127.0.0.1:{}", first + seat);
            text += &format!(
                "[[node]]\nname = \"{name}\"\nclient = \"{address}\"\n\
                 peer = \"127.0.0.1:{}\"\ndir = \"{name}\"\nengine = \"{}\"\n",
                first + seat + 500,
                // A node's own choice, so they mix.
                if seat == 1 { "fjall" } else { "sled" },
            );
            nodes.push(Node {
                address,
                dir: dir.path().join(&name),
                log: dir.path().join(format!("{name}.log")),
                name,
                process: None,
            });
        }
        let file = dir.path().join("cluster.toml");
        std::fs::write(&file, text).expect("the config is written");
        let mut cluster = Cluster { nodes, file, _dir: dir, _turn: turn };
        cluster.start_all();
        cluster.wait_until_whole();
        cluster
    }

    /// Starts every node; none may run.
    pub fn start_all(&mut self) {
        for seat in 0..self.nodes.len() {
            self.start_node(seat);
        }
    }

    /// The config file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Every node's client address, by seat.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.address.clone()).collect()
    }

    /// A node's client address.
    pub fn address(&self, seat: usize) -> &str {
        &self.nodes[seat].address
    }

    /// A node's client port.
    pub fn port(&self, seat: usize) -> &str {
        self.address(seat).rsplit_once(':').expect("an address has a port").1
    }

    /// A node's data directory.
    pub fn dir(&self, seat: usize) -> &Path {
        &self.nodes[seat].dir
    }

    /// Starts a node that is not running.
    pub fn start_node(&mut self, seat: usize) {
        let mut command = self.serve(seat);
        let node = &mut self.nodes[seat];
        assert!(node.process.is_none(), "{} runs already", node.name);
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&node.log)
            .expect("the log file opens");
        let process = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the program starts");
        node.process = Some(process);
    }

    fn serve(&self, seat: usize) -> Command {
        let mut command = Command::new(program());
        command.args(["serve", "--node", &self.nodes[seat].name, "--config"]).arg(&self.file);
        command
    }

    /// Runs a node that is expected not to start: its exit and what it wrote.
    pub fn refuses_to_start(&self, seat: usize) -> (ExitStatus, String) {
        let mut process = self
            .serve(seat)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let deadline = Instant::now() + EVENTUALLY;
        while process.try_wait().expect("its end can be waited for").is_none() {
            if Instant::now() >= deadline {
                process.kill().expect("it can be killed");
            }
            std::thread::sleep(POLL_EVERY);
        }
        let output = process.wait_with_output().expect("its output can be read");
        (output.status, String::from_utf8_lossy(&output.stderr).to_string())
    }

    /// A running node's process id.
    pub fn pid(&self, seat: usize) -> u32 {
        self.nodes[seat].process.as_ref().expect("it runs").id()
    }

    /// Everything that a node has logged.
    pub fn log(&self, seat: usize) -> String {
        std::fs::read_to_string(&self.nodes[seat].log).expect("its log is there")
    }

    /// SIGSTOP: the node stalls, as a machine may.
    pub fn stall(&self, seat: usize) {
        self.signal(seat, Signal::STOP);
    }

    /// SIGCONT: it goes on, and does not know that it stalled.
    pub fn go_on(&self, seat: usize) {
        self.signal(seat, Signal::CONT);
    }

    fn signal(&self, seat: usize, signal: Signal) {
        let process = self.nodes[seat].process.as_ref().expect("it runs");
        kill_process(Pid::from_child(process), signal).expect("it takes signals");
    }

    /// kill -9, at once.
    pub fn kill(&mut self, seat: usize) {
        let mut process = self.nodes[seat].process.take().expect("it runs");
        process.kill().expect("it can be killed");
        process.wait().expect("its end can be waited for");
    }

    /// kill -9 of all nodes, with no wait in between.
    pub fn kill_all(&mut self) {
        for node in &mut self.nodes {
            node.process.as_mut().expect("it runs").kill().expect("it can be killed");
        }
        for node in &mut self.nodes {
            let mut process = node.process.take().expect("it ran");
            process.wait().expect("its end can be waited for");
        }
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self, seat: usize) -> ExitStatus {
        self.signal(seat, Signal::TERM);
        self.wait_for_exit(seat)
    }

    /// SIGTERM to all at once, and waits for their ends.
    pub fn stop_all(&mut self) -> Vec<ExitStatus> {
        (0..self.nodes.len()).for_each(|seat| self.signal(seat, Signal::TERM));
        (0..self.nodes.len()).map(|seat| self.wait_for_exit(seat)).collect()
    }

    /// Waits for the end of a node that was told to stop.
    pub fn wait_for_exit(&mut self, seat: usize) -> ExitStatus {
        let node = &mut self.nodes[seat];
        let mut process = node.process.take().expect("it runs");
        let deadline = Instant::now() + EVENTUALLY;
        loop {
            if let Some(exit) = process.try_wait().expect("its end can be waited for") {
                return exit;
            }
            if Instant::now() >= deadline {
                process.kill().expect("it can be killed");
                process.wait().expect("its end can be waited for");
                panic!("{} did not stop on SIGTERM", node.name);
            }
            std::thread::sleep(POLL_EVERY);
        }
    }

    /// What a node says of itself, if it answers.
    pub fn report(&self, seat: usize) -> Option<Report> {
        self.nodes[seat].process.as_ref()?;
        Report::ask(self.address(seat), Duration::from_secs(2)).ok()
    }

    /// Who is master with a quorum now, if anyone.
    pub fn master_now(&self) -> Option<usize> {
        (0..self.nodes.len()).find(|seat| {
            self.report(*seat).is_some_and(|report| report.is_master() && report.has_quorum())
        })
    }

    /// Waits for a master.
    pub fn master(&self) -> usize {
        eventually("a master", || self.master_now())
    }

    /// Any running node that is not the master.
    pub fn replica(&self) -> usize {
        let master = self.master();
        (0..self.nodes.len())
            .find(|seat| *seat != master && self.nodes[*seat].process.is_some())
            .expect("a second node runs")
    }

    /// Waits until a node votes and has applied all that was chosen when it was asked.
    pub fn wait_until_current(&self, seat: usize) {
        let name = &self.nodes[seat].name;
        let mut chosen = None;
        eventually(&format!("{name} votes and is up to date"), || {
            let report = self.report(seat)?;
            let votes = matches!(report.text("part"), "master" | "replica");
            (votes && self.has_applied(&report, &mut chosen)?).then_some(())
        });
    }

    /// Whether a node that reports this has applied all that was chosen when it was first asked: while
    /// clients write it is never quite where the master is.
    pub fn has_applied(&self, report: &Report, chosen: &mut Option<u64>) -> Option<bool> {
        let target = match *chosen {
            Some(chosen) => chosen,
            None => *chosen.insert(self.report(self.master_now()?)?.number("chosen_index")?),
        };
        Some(report.number("applied_index")? >= target)
    }

    /// Waits until all nodes vote and are up to date.
    pub fn wait_until_whole(&self) {
        for seat in 0..self.nodes.len() {
            self.wait_until_current(seat);
        }
    }

    /// One command to one node, with our own client.
    pub fn call(&self, seat: usize, arguments: &[&str]) -> std::io::Result<Reply> {
        Client::connect(self.address(seat), ANSWER_WITHIN)?.call(arguments)
    }

    /// One command to one node, with redis-cli; what it prints.
    pub fn redis_cli(&self, seat: usize, arguments: &[&str]) -> String {
        redis_cli(self.port(seat), arguments)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(mut process) = node.process.take() {
                let _ = process.kill();
                let _ = process.wait();
            }
            if std::thread::panicking()
                && let Ok(log) = std::fs::read_to_string(&node.log)
            {
                let lines: Vec<&str> = log.lines().collect();
                for line in &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..] {
                    eprintln!("{} | {line}", node.name);
                }
            }
        }
    }
}

/// Runs redis-cli against a port of this machine; what it prints.
pub fn redis_cli(port: &str, arguments: &[&str]) -> String {
    let output = run(Command::new("redis-cli").args(["-p", port]).args(arguments));
    String::from_utf8_lossy(&output.stdout).trim_end().to_string()
}

/// Runs a program to its end.
pub fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| {
        panic!("{} does not start: {error}", command.get_program().display())
    })
}
