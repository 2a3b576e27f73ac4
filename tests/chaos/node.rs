//! One `arakoon serve` process in its own network namespace, on its own disk, with its own clocks.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use crate::clocks::Clocks;
use crate::disk::SmallDisk;
use crate::network;

/// The exit code of a node whose disk failed, as `arakoon serve` documents it.
const EXIT_STORAGE_FAILED: i32 = 3;
/// Words in a node's log that are a violation, whatever fault goes on.
const BAD_WORDS: [&str; 3] = ["panicked at", "HEAD MISMATCH", "head mismatch"];

/// What the runner has done to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Down,
    Running,
    Paused,
    /// Asked to end in order.
    Stopping,
}

/// A node and what surrounds it.
pub struct Node {
    pub name: String,
    pub disk: SmallDisk,
    pub clocks: Clocks,
    pub life: Life,
    /// Its disk is full, or was when it last wrote: it may stop because of it.
    pub may_stop_for_disk: bool,
    seat: usize,
    log: PathBuf,
    log_read_bytes: u64,
    process: Option<Child>,
}

impl Node {
    /// Not running yet. `directory` is where its log lines and its disk go.
    pub fn new(seat: usize, directory: &Path, rng: &mut fastrand::Rng) -> anyhow::Result<Node> {
        let name = format!("n{}", seat + 1);
        Ok(Node {
            disk: SmallDisk::mount(directory.join(&name))?,
            clocks: Clocks::new(directory.join(format!("{name}.clock")), rng)?,
            log: directory.join(format!("{name}.log")),
            log_read_bytes: 0,
            life: Life::Down,
            may_stop_for_disk: false,
            process: None,
            seat,
            name,
        })
    }

    /// The node's data; on its disk, so that a fault can fill that beside it.
    pub fn data(&self) -> PathBuf {
        self.disk.path().join("data")
    }

    /// Starts it; returns by how much its boot clock drifts in this life, in millionths.
    pub fn start(
        &mut self,
        program: &Path,
        config: &Path,
        rng: &mut fastrand::Rng,
    ) -> anyhow::Result<i64> {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let drift_ppm = self.clocks.new_rate(rng)?;
        let log = File::options().create(true).append(true).open(&self.log)?;
        // Each of these becomes the next in the same process, so the child's pid is the node's.
        let process = Command::new("nsenter")
            .arg(format!("--net={}", network::namespace_file(self.seat)))
            .args(self.clocks.wrapper())
            .arg(program)
            .args(["serve", "--node", &self.name, "--config"])
            .arg(config)
            .args(["--exit-with-parent", &std::process::id().to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("nsenter does not start")?;
        self.process = Some(process);
        self.life = Life::Running;
        Ok(drift_ppm)
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            // In vain if it ended by itself; `poll` looks into that.
            let _ = kill_process(Pid::from_child(process), signal);
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        self.life = Life::Down;
    }

    pub fn terminate(&mut self) {
        if self.process.is_some() {
            self.life = Life::Stopping;
            self.signal(Signal::TERM);
        }
    }

    pub fn pause(&mut self) {
        if self.process.is_some() {
            self.life = Life::Paused;
            self.signal(Signal::STOP);
        }
    }

    pub fn resume(&mut self) {
        if self.life == Life::Paused {
            self.life = Life::Running;
            self.signal(Signal::CONT);
        }
    }

    /// Looks whether it has ended by itself; an error is an end that no fault explains.
    pub fn poll(&mut self) -> Result<(), String> {
        let Some(process) = &mut self.process else { return Ok(()) };
        let exit = match process.try_wait() {
            Ok(None) => return Ok(()),
            Ok(Some(exit)) => exit,
            Err(error) => return Err(format!("{}: {error}", self.name)),
        };
        self.process = None;
        let life = std::mem::replace(&mut self.life, Life::Down);
        let explained = match life {
            Life::Stopping => exit.success() || self.stopped_for_disk(exit),
            _ => self.stopped_for_disk(exit),
        };
        match explained {
            true => Ok(()),
            false => Err(format!("{} ended by itself ({exit}); see its log", self.name)),
        }
    }

    fn stopped_for_disk(&self, exit: ExitStatus) -> bool {
        self.may_stop_for_disk && exit.code() == Some(EXIT_STORAGE_FAILED)
    }

    /// Reads on in what the node has logged; an error is a line that must not be there.
    pub fn read_log(&mut self) -> Result<(), String> {
        let Ok(mut file) = File::open(&self.log) else { return Ok(()) };
        if file.seek(SeekFrom::Start(self.log_read_bytes)).is_err() {
            return Ok(());
        }
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        loop {
            line.clear();
            // A line that is not whole yet is read again next time.
            if reader.read_until(b'\n', &mut line).is_err() || line.last() != Some(&b'\n') {
                return Ok(());
            }
            self.log_read_bytes += line.len() as u64;
            let text = String::from_utf8_lossy(&line);
            if BAD_WORDS.iter().any(|word| text.contains(word)) {
                return Err(format!("{} logs: {}", self.name, text.trim_end()));
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
