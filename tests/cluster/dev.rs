//! `arakoon dev`: what it starts ends with it, and is there again afterwards.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::harness::{eventually, free_ports, program, redis_cli, take_turn};

struct Dev {
    process: Child,
    /// Kept open: a closed pipe is not what these tests are about.
    output: BufReader<ChildStdout>,
    table: String,
    pids: Vec<u32>,
}

impl Dev {
    /// Starts three nodes and reads the table with their pids.
    fn start(port: u16, dir: &Path) -> Dev {
        let mut process = Command::new(program())
            .args(["dev", "--port", &port.to_string(), "--dir"])
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut output = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut table = String::new();
        while !table.contains("Stop:") {
            let length = output.read_line(&mut table).expect("its output is text");
            assert!(length > 0, "dev ended before its table:\n{table}");
        }
        let pids: Vec<u32> = table
            .lines()
            .filter(|line| line.contains("127.0.0.1:") && line.starts_with('n'))
            .map(|line| {
                let pid = line.split_whitespace().nth(3).expect("a column for the pid");
                pid.parse().expect("a pid is a number")
            })
            .collect();
        assert_eq!(pids.len(), 3, "{table}");
        Dev { process, output, table, pids }
    }
}

impl Dev {
    /// What it says up to the line with this word.
    fn read_until(&mut self, word: &str) -> String {
        let mut text = String::new();
        while !text.contains(word) {
            let length = self.output.read_line(&mut text).expect("its output is text");
            assert!(length > 0, "dev ended before {word:?}:\n{text}");
        }
        text
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// It exists and has not ended: one that nobody has waited for yet counts as gone.
fn runs(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    !state.starts_with(['Z', 'X'])
}

#[test]
fn dev_killed_with_9_leaves_no_process_and_has_its_data_again() {
    let _turn = take_turn();
    let dir = TempDir::new().expect("a directory");
    let port = free_ports(3);
    let any = port.to_string();

    let mut dev = Dev::start(port, dir.path());
    let first = dev.table.lines().find(|line| line.starts_with("n1 ")).unwrap_or_default();
    assert!(first.contains(" master "), "the first node founds and leads:\n{}", dev.table);
    assert!(dev.pids.iter().all(|pid| runs(*pid)));
    // As the README has it.
    let second = (port + 1).to_string();
    assert_eq!(redis_cli(&any, &["set", "greeting", "hello"]), "OK");
    assert_eq!(redis_cli(&second, &["-c", "get", "greeting"]), "hello");
    let moved = format!("MOVED 15495 127.0.0.1:{any}");
    assert_eq!(redis_cli(&second, &["set", "a", "2"]), moved);
    dev.process.kill().expect("it can be killed");
    dev.process.wait().expect("its end can be waited for");
    eventually("its nodes are gone", || (!dev.pids.iter().any(|pid| runs(*pid))).then_some(()));

    let mut again = Dev::start(port, dir.path());
    assert_eq!(redis_cli(&any, &["-c", "get", "greeting"]), "hello");
    let third = Pid::from_raw(again.pids[2] as i32).expect("it is not 0");
    kill_process(third, Signal::KILL).expect("it can be killed");
    let said = again.read_until("died");
    assert!(said.contains("n3 | died: signal: 9"), "{said}");
    kill_process(Pid::from_child(&again.process), Signal::TERM).expect("it can be told to stop");
    let exit = eventually("dev stops", || again.process.try_wait().expect("it can be waited for"));
    assert!(exit.success(), "a stop in order is a success, not {exit}");
    assert!(!again.pids.iter().any(|pid| runs(*pid)), "it waits for its nodes");
}
