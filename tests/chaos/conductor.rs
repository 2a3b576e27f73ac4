//! Strikes faults, watches the nodes, and makes peace now and then.
//!
//! Every [`PEACE_EVERY`], and at the end, all faults end and the cluster must recover: writes within
//! [`SERVICE_BACK_WITHIN`], all nodes voting and up to date within [`ALL_CURRENT_WITHIN`]. The bounds
//! are wide because the machine may be busy with other work; what it took is printed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::checker::Violation;
use crate::cluster::Cluster;
use crate::faults::{self, Kind, Situation, Step};
use crate::load::Shared;
use crate::node::Life;
use crate::timeline::Timeline;

pub const SERVICE_BACK_WITHIN: Duration = Duration::from_secs(30);
pub const ALL_CURRENT_WITHIN: Duration = Duration::from_secs(60);
/// A node that was told to stop has ended by then.
const STOPS_WITHIN: Duration = Duration::from_secs(30);
const PEACE_EVERY: Duration = Duration::from_secs(60);
/// After a peace, before the next fault: what goes on undisturbed is a measure too.
const CALM: Duration = Duration::from_secs(3);
/// So many faults in ten are followed by another at once; others have time to themselves.
const OVERLAPPING_IN_TEN: u8 = 4;
/// After the beginning of one fault until the next that overlaps with it, in seconds.
const OVERLAPPING: (f64, f64) = (0.1, 1.5);
/// After the end of all faults until the next, in seconds. Longer than the aftermath.
const ALONE: (f64, f64) = (2.1, 4.0);
const PROGRESS_EVERY: Duration = Duration::from_secs(10);
const LOGS_READ_EVERY: Duration = Duration::from_secs(1);
const LOOKED_AFTER_EVERY: Duration = Duration::from_millis(10);

/// Why a run ended before its time.
pub enum Stop {
    Violation(Violation),
    Interrupted,
    /// The runner itself failed.
    Broken(anyhow::Error),
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Stop {
        Stop::Broken(error)
    }
}

type Goes = Result<(), Stop>;

/// A fault that goes on.
struct Active {
    fault: usize,
    taken: Vec<usize>,
    disturbed: Vec<usize>,
    steps: VecDeque<Step>,
    /// When the present step began.
    since: Instant,
    /// What a node must have applied to be up to date.
    target: Option<u64>,
}

/// Everything of a run but its end.
pub struct Conductor {
    pub cluster: Cluster,
    pub timeline: Timeline,
    shared: Arc<Shared>,
    rng: Rng,
    kinds: Vec<Kind>,
    /// Kinds whose turn comes: first of those that begin when all is quiet, then of those that
    /// join a fault that goes on. Apart, or the kinds that fit to any other would never be alone.
    decks: [Vec<Kind>; 2],
    active: Vec<Active>,
    wiped: Vec<usize>,
    interrupted: Arc<AtomicBool>,
    master: Option<usize>,
    progress_at: Instant,
    writes_then: u64,
    logs_read_at: Instant,
}

impl Conductor {
    pub fn new(
        cluster: Cluster,
        timeline: Timeline,
        shared: Arc<Shared>,
        kinds: Vec<Kind>,
        rng: Rng,
        interrupted: Arc<AtomicBool>,
    ) -> Conductor {
        Conductor {
            cluster,
            timeline,
            shared,
            rng,
            kinds,
            decks: Default::default(),
            active: Vec::new(),
            wiped: Vec::new(),
            interrupted,
            master: None,
            progress_at: Instant::now(),
            writes_then: 0,
            logs_read_at: Instant::now(),
        }
    }

    /// Faults for so long, then peace. Ends early with a violation.
    pub fn conduct(&mut self, duration: Duration) -> Goes {
        for seat in 0..self.cluster.nodes.len() {
            self.start(seat)?;
        }
        self.peace("started")?;
        let end = Instant::now() + duration;
        let mut joins = false;
        // None: so long after all is quiet again.
        let mut strike_at = Some(Instant::now() + CALM);
        let mut peace_at = Instant::now() + PEACE_EVERY;
        while Instant::now() < end {
            self.look_after()?;
            self.go_on(false)?;
            if Instant::now() >= peace_at {
                self.peace("peace")?;
                joins = false;
                strike_at = Some(Instant::now() + CALM);
                peace_at = Instant::now() + PEACE_EVERY;
            }
            let quiet = self.active.is_empty();
            if quiet && (joins || strike_at.is_none()) {
                joins = false;
                strike_at = Some(Instant::now() + seconds(&mut self.rng, ALONE));
            }
            if strike_at.is_some_and(|at| Instant::now() >= at) {
                self.strike();
                joins = self.rng.u8(..10) < OVERLAPPING_IN_TEN;
                strike_at = joins.then(|| Instant::now() + seconds(&mut self.rng, OVERLAPPING));
            }
            std::thread::sleep(LOOKED_AFTER_EVERY);
        }
        self.peace("the end")
    }

    /// Every kind has its turn before any has its second.
    fn strike(&mut self) {
        let joins = usize::from(!self.active.is_empty());
        let mut deck = std::mem::take(&mut self.decks[joins]);
        if deck.is_empty() {
            deck = self.kinds.clone();
            self.rng.shuffle(&mut deck);
        }
        let all = |part: fn(&Active) -> &Vec<usize>, active: &[Active]| {
            active.iter().flat_map(|active| part(active).clone()).collect()
        };
        let now = Situation {
            nodes: self.cluster.nodes.len(),
            master: self.shared.master(),
            taken: all(|active| &active.taken, &self.active),
            disturbed: all(|active| &active.disturbed, &self.active),
            wiped: self.wiped.clone(),
        };
        // One that cannot strike now stays for the next time.
        let script = (0..deck.len()).rev().find_map(|place| {
            let script = faults::script(deck[place], &now, &mut self.rng)?;
            deck.remove(place);
            Some(script)
        });
        self.decks[joins] = deck;
        let Some(script) = script else { return };
        let fault = self.timeline.begin(script.kind, &script.text, script.about);
        self.active.push(Active {
            fault,
            taken: script.taken,
            disturbed: script.disturbed,
            steps: script.steps,
            since: Instant::now(),
            target: None,
        });
    }

    /// Takes every fault as many steps further as can be taken now.
    fn go_on(&mut self, hurry: bool) -> Goes {
        let mut active = std::mem::take(&mut self.active);
        for fault in &mut active {
            while let Some(step) = fault.steps.front().cloned() {
                if !self.take_step(&step, fault, hurry)? {
                    break;
                }
                fault.steps.pop_front();
                fault.since = Instant::now();
                fault.target = None;
            }
            if fault.steps.is_empty() {
                self.timeline.end(fault.fault);
            }
        }
        active.retain(|fault| !fault.steps.is_empty());
        self.active = active;
        Ok(())
    }

    /// Whether the step is done.
    fn take_step(&mut self, step: &Step, fault: &mut Active, hurry: bool) -> Result<bool, Stop> {
        match step {
            Step::Kill(seat) => self.cluster.nodes[*seat].kill(),
            Step::Terminate(seat) => self.cluster.nodes[*seat].terminate(),
            Step::AwaitExit(seat) => {
                let node = &self.cluster.nodes[*seat];
                if node.life != Life::Down && fault.since.elapsed() > STOPS_WITHIN {
                    let what = format!("{} did not stop on SIGTERM", node.name);
                    return Err(Stop::Violation(Violation { check: "process", what }));
                }
                return Ok(node.life == Life::Down);
            }
            Step::Start(seat) => self.start(*seat)?,
            Step::Pause(seat) => self.cluster.nodes[*seat].pause(),
            Step::Resume(seat) => self.cluster.nodes[*seat].resume(),
            Step::Cut(links) => self.cluster.network.cut(links)?,
            Step::Mend(links) => self.cluster.network.mend(links)?,
            Step::Fill(seat, left_bytes) => {
                self.cluster.nodes[*seat].may_stop_for_disk = true;
                self.cluster.nodes[*seat].disk.fill(*left_bytes)?;
            }
            Step::Free(seat) => self.cluster.nodes[*seat].disk.free()?,
            Step::SetWall(seat, offset_ms) => {
                self.shared.wall_will_be(*offset_ms);
                self.cluster.nodes[*seat].clocks.set_wall(*offset_ms)?;
            }
            Step::Wipe(seat) => {
                self.wiped.push(*seat);
                let data = self.cluster.nodes[*seat].data();
                std::fs::remove_dir_all(data).map_err(anyhow::Error::from)?;
            }
            Step::Release(seat) => fault.taken.retain(|taken| taken != seat),
            Step::AwaitCurrent(seat) => return self.await_current(*seat, fault),
            Step::Over => self.timeline.end(fault.fault),
            Step::Wait(time) => return Ok(hurry || fault.since.elapsed() >= *time),
            Step::Settle(time) => return Ok(fault.since.elapsed() >= *time),
        }
        Ok(true)
    }

    fn await_current(&mut self, seat: usize, fault: &mut Active) -> Result<bool, Stop> {
        let node = &self.cluster.nodes[seat];
        if node.may_stop_for_disk && node.life == Life::Down {
            self.start(seat)?;
            // What it said before is not about this life.
            fault.since = Instant::now();
            return Ok(false);
        }
        if fault.target.is_none() && fault.since.elapsed() > crate::monitor::FRESH {
            fault.target = self.cluster.monitor.chosen();
        }
        let current =
            fault.target.is_some_and(|index| self.cluster.monitor.is_current(seat, index));
        if current {
            self.cluster.nodes[seat].may_stop_for_disk = false;
            self.wiped.retain(|wiped| *wiped != seat);
        }
        Ok(current)
    }

    fn start(&mut self, seat: usize) -> Goes {
        if self.cluster.nodes[seat].life == Life::Down {
            let drift_ppm = self.cluster.start(seat, &mut self.rng)?;
            self.timeline.say(format!("n{} starts, its clock {drift_ppm:+} ppm off", seat + 1));
        }
        Ok(())
    }

    /// Ends all faults; then the cluster must recover within the bounds.
    fn peace(&mut self, why: &str) -> Goes {
        let began = Instant::now();
        let deadline = began + ALL_CURRENT_WITHIN;
        // Scripts that wait for a node to be up to date need the others healed too.
        while !self.active.is_empty() {
            self.look_after()?;
            self.go_on(true)?;
            if Instant::now() > deadline {
                let names: Vec<&str> = self
                    .active
                    .iter()
                    .map(|active| self.timeline.faults[active.fault].text.as_str())
                    .collect();
                return self.not_back(&format!("no node is up to date after {}", names.join(", ")));
            }
            std::thread::sleep(LOOKED_AFTER_EVERY);
        }
        let healed = Instant::now();
        let before = self.shared.writes();
        while self.shared.writes() == before {
            self.look_after()?;
            if healed.elapsed() > SERVICE_BACK_WITHIN {
                return self.not_back("no write is acknowledged");
            }
            std::thread::sleep(LOOKED_AFTER_EVERY);
        }
        let writes = healed.elapsed();
        let mut target = None;
        let nodes = self.cluster.nodes.len();
        let is_current = |cluster: &Cluster, target: Option<u64>| {
            let is = |seat| target.is_some_and(|index| cluster.monitor.is_current(seat, index));
            (0..nodes).all(is)
        };
        while !is_current(&self.cluster, target) {
            self.look_after()?;
            target = target.or_else(|| self.cluster.monitor.chosen());
            if healed.elapsed() > ALL_CURRENT_WITHIN {
                return self.not_back("not every node votes and is up to date");
            }
            std::thread::sleep(LOOKED_AFTER_EVERY);
        }
        self.timeline.say(format!(
            "{why}: a write after {:.2} s, all nodes up to date after {:.2} s",
            writes.as_secs_f64(),
            healed.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    fn not_back(&self, what: &str) -> Goes {
        let what = format!("{what}, though all faults are over");
        Err(Stop::Violation(Violation { check: "liveness", what }))
    }

    /// What must be seen to all the time.
    pub fn look_after(&mut self) -> Goes {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Stop::Interrupted);
        }
        let process = |what| Stop::Violation(Violation { check: "process", what });
        self.cluster.poll().map_err(process)?;
        if self.logs_read_at.elapsed() >= LOGS_READ_EVERY {
            self.logs_read_at = Instant::now();
            self.cluster.read_logs().map_err(process)?;
        }
        if let Some(violation) = self.shared.record().violation.clone() {
            return Err(Stop::Violation(violation));
        }
        let (master, writes) = (self.shared.master(), self.shared.writes());
        if writes > 0 && self.master != Some(master) {
            self.master = Some(master);
            self.timeline.say(format!("n{} is master: it acknowledges writes", master + 1));
        }
        let since = self.progress_at.elapsed();
        if since >= PROGRESS_EVERY {
            let per_second = (writes - self.writes_then) as f64 / since.as_secs_f64();
            self.timeline.say(format!("{per_second:.0} writes/s, {writes} so far"));
            self.progress_at = Instant::now();
            self.writes_then = writes;
        }
        Ok(())
    }
}

fn seconds(rng: &mut Rng, (from, to): (f64, f64)) -> Duration {
    Duration::from_secs_f64(from + (to - from) * rng.f64())
}
