//! `arakoon dev`: a whole cluster on this machine, one real `serve` process per node.
//!
//! The main thread starts the processes, because the kernel's promise to kill them with their
//! parent is tied to the thread that started them; it lives until all are gone. Other threads read
//! the processes' output, wait for signals and look for a master, and tell it through one channel.
//!
//! Left out: starting a dead node again; the line that says it died is there to be seen.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::info::{Member, Report};
use super::{DevArgs, status, table};

mod children;
mod layout;

use children::Children;

/// How long to look for a master before the table is printed without one.
const MASTER_WITHIN: Duration = Duration::from_secs(15);
/// How long nodes may take to stop after SIGTERM before they are killed.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// How often exits are looked for while nothing else happens.
const POLL_EVERY: Duration = Duration::from_millis(50);
/// Log lines held back until the table is printed.
const HELD_LINES_MAX: usize = 1000;

/// What the other threads tell the main thread.
enum Event {
    /// A node wrote a line.
    Line { seat: usize, line: String },
    /// The nodes' first answers with a master among them, or the last ones without.
    Roles(Vec<Result<Report, String>>),
    /// Ctrl-C, SIGTERM or SIGHUP.
    Stop,
}

/// Runs the cluster until a signal stops it or all nodes are gone.
pub fn run(args: &DevArgs, log: Option<&str>) -> anyhow::Result<ExitCode> {
    let (config, file) = layout::prepare(args)?;
    let members = status::config_members(&config);
    let (sender, events) = mpsc::channel();
    watch_signals(sender.clone())?;

    let mut children = Children::start(&config, &file, log)?;
    for (seat, output) in children.take_outputs() {
        forward_lines(seat, output, sender.clone());
    }
    watch_roles(members.clone(), sender);
    let directories = config.nodes.iter().map(|node| node.dir.display().to_string()).collect();
    Dev { members, directories, held: Some(VecDeque::new()), colours: io::stdout().is_terminal() }
        .until_stopped(&events, &mut children)
}

struct Dev {
    members: Vec<Member>,
    directories: Vec<String>,
    /// Lines that wait for the table; none once it is printed.
    held: Option<VecDeque<String>>,
    colours: bool,
}

impl Dev {
    fn until_stopped(
        mut self,
        events: &Receiver<Event>,
        children: &mut Children,
    ) -> anyhow::Result<ExitCode> {
        // Exits wait a moment, so that what a node wrote last is shown before the word of its end.
        let mut exits = VecDeque::new();
        loop {
            match events.recv_timeout(POLL_EVERY) {
                Ok(Event::Line { seat, line }) => self.show(seat, &line),
                Ok(Event::Roles(roles)) => self.show_table(&roles, children),
                Ok(Event::Stop) => break,
                Err(RecvTimeoutError::Timeout) => {}
                // The signal thread holds a sender as long as it lives.
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let due = Instant::now() + POLL_EVERY;
            exits.extend(children.exited()?.into_iter().map(|(seat, exit)| (due, seat, exit)));
            let are_gone = children.are_gone();
            if are_gone {
                self.drain(events);
            }
            while let Some((due, seat, exit)) = exits.front()
                && (are_gone || *due <= Instant::now())
            {
                self.release();
                self.show(*seat, &format!("died: {exit}"));
                exits.pop_front();
            }
            if are_gone {
                anyhow::bail!("all nodes are gone; their last lines say why");
            }
        }
        self.release();
        self.say("Stopping all nodes ...");
        self.stop(events, children)
    }

    fn stop(
        &mut self,
        events: &Receiver<Event>,
        children: &mut Children,
    ) -> anyhow::Result<ExitCode> {
        children.terminate();
        let deadline = Instant::now() + STOP_WITHIN;
        while !children.are_gone() && Instant::now() < deadline {
            match events.recv_timeout(POLL_EVERY) {
                Ok(Event::Line { seat, line }) => self.show(seat, &line),
                // Asked twice: no more waiting.
                Ok(Event::Stop) => break,
                _ => {}
            }
            for (seat, exit) in children.exited()? {
                self.show(seat, &format!("stopped: {exit}"));
            }
        }
        self.drain(events);
        let killed = children.kill()?;
        for seat in &killed {
            self.show(*seat, "killed: it did not stop in time");
        }
        Ok(if killed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn drain(&mut self, events: &Receiver<Event>) {
        self.release();
        // A reader may still be handing over what a node wrote last.
        while let Ok(event) = events.recv_timeout(POLL_EVERY) {
            if let Event::Line { seat, line } = event {
                self.show(seat, &line);
            }
        }
    }

    fn show_table(&mut self, roles: &[Result<Report, String>], children: &Children) {
        let mut rows = Vec::new();
        for (seat, member) in self.members.iter().enumerate() {
            let role = match &roles[seat] {
                Ok(report) => report.text("part").to_string(),
                Err(_) => "unreachable".to_string(),
            };
            rows.push(vec![
                member.name.clone(),
                member.client.clone(),
                role,
                children.pid(seat).to_string(),
                self.directories[seat].clone(),
            ]);
        }
        let text = table::render(&["NODE", "ADDRESS", "ROLE", "PID", "DIRECTORY"], &rows);
        let master = roles
            .iter()
            .position(|role| role.as_ref().is_ok_and(Report::is_master))
            .map(|seat| self.members[seat].client.clone());
        if master.is_none() {
            self.say(&format!("No master after {}s; see the log lines.", MASTER_WITHIN.as_secs()));
        }
        let any = port_of(&self.members[0].client).to_string();
        let direct = master.as_deref().map_or(any.as_str(), port_of);
        self.say(&format!(
            "{text}\nConnect to the master:  redis-cli -p {direct}\n\
             or through any node:    redis-cli -c -p {any}      (-c follows MOVED)\n\
             Watch:                  arakoon status --connect {}\n\
             Stop:                   Ctrl-C\n",
            self.members[0].client
        ));
        self.release();
    }

    /// Shows a node's line, or holds it back while the table is still to come.
    fn show(&mut self, seat: usize, line: &str) {
        let name = &self.members[seat].name;
        let text = if self.colours {
            // The six colours that are readable on black and on white.
            format!("\x1b[{}m{name}\x1b[0m | {line}", 31 + seat % 6)
        } else {
            format!("{name} | {line}")
        };
        match &mut self.held {
            Some(held) if held.len() < HELD_LINES_MAX => held.push_back(text),
            Some(_) => {
                self.release();
                self.say(&text);
            }
            None => self.say(&text),
        }
    }

    fn release(&mut self) {
        for line in self.held.take().into_iter().flatten() {
            self.say(&line);
        }
    }

    fn say(&self, text: &str) {
        // When nobody reads any more, the cluster still runs.
        let _ = writeln!(io::stdout(), "{text}");
    }
}

fn port_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(_, port)| port)
}

fn forward_lines(seat: usize, output: Box<dyn Read + Send>, events: Sender<Event>) {
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_string();
            if events.send(Event::Line { seat, line: text }).is_err() {
                return;
            }
            line.clear();
        }
    });
}

/// Looks for a master from the side, so that signals and dying nodes are noticed meanwhile.
fn watch_roles(members: Vec<Member>, events: Sender<Event>) {
    std::thread::spawn(move || {
        let deadline = Instant::now() + MASTER_WITHIN;
        loop {
            let roles = status::ask_all(&members);
            let has_master = roles.iter().flatten().any(|role| role.is_master());
            let all_answer = roles.iter().all(Result::is_ok);
            if (has_master && all_answer) || Instant::now() >= deadline {
                // Nobody listens when the cluster has been stopped meanwhile.
                let _ = events.send(Event::Roles(roles));
                return;
            }
            std::thread::sleep(POLL_EVERY);
        }
    });
}

fn watch_signals(events: Sender<Event>) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let guard = runtime.enter();
    let handled = "cannot handle signals";
    let mut interrupt = signal(SignalKind::interrupt()).context(handled)?;
    let mut terminate = signal(SignalKind::terminate()).context(handled)?;
    let mut hangup = signal(SignalKind::hangup()).context(handled)?;
    drop(guard);
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                if events.send(Event::Stop).is_err() {
                    return;
                }
            }
        });
    });
    Ok(())
}
