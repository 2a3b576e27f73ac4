//! The kinds of fault, each as a script: what is done, one step after the other.
//!
//! A script ends with everything healed. So a run can be brought to peace at any time by letting
//! its scripts run to their ends without waiting.

use std::collections::VecDeque;
use std::time::Duration;

use fastrand::Rng;

use crate::cluster::{DISK_RESERVE_BYTES, LEASE_MS};
use crate::network::{End, Link, both_ways};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Kill,
    KillMaster,
    KillAll,
    Pause,
    PauseMaster,
    Isolate,
    IsolateMaster,
    OneWay,
    Bridge,
    CutClients,
    FullDisk,
    FullDiskMaster,
    WallClock,
    RollingRestart,
    Wipe,
}

impl Kind {
    pub const ALL: [Kind; 15] = [
        Kind::Kill,
        Kind::KillMaster,
        Kind::KillAll,
        Kind::Pause,
        Kind::PauseMaster,
        Kind::Isolate,
        Kind::IsolateMaster,
        Kind::OneWay,
        Kind::Bridge,
        Kind::CutClients,
        Kind::FullDisk,
        Kind::FullDiskMaster,
        Kind::WallClock,
        Kind::RollingRestart,
        Kind::Wipe,
    ];

    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill a replica",
            Kind::KillMaster => "kill the master",
            Kind::KillAll => "kill all",
            Kind::Pause => "pause a replica",
            Kind::PauseMaster => "pause the master",
            Kind::Isolate => "isolate a replica",
            Kind::IsolateMaster => "isolate the master",
            Kind::OneWay => "one way",
            Kind::Bridge => "bridge",
            Kind::CutClients => "cut clients off",
            Kind::FullDisk => "full disk, a replica",
            Kind::FullDiskMaster => "full disk, the master",
            Kind::WallClock => "wall clock jumps",
            Kind::RollingRestart => "rolling restart",
            Kind::Wipe => "wipe",
        }
    }

    /// As an argument: "kill the master" is `kill-master`.
    pub fn option(self) -> String {
        self.name().replace(',', "").replace(" the ", "-").replace(" a ", "-").replace(' ', "-")
    }

    /// It means every node; others leave a majority alone.
    fn is_for_all(self) -> bool {
        matches!(self, Kind::KillAll | Kind::RollingRestart)
    }

    /// It does something to processes or disks, which two faults must not do to one node at once.
    fn takes_nodes(self) -> bool {
        !matches!(
            self,
            Kind::Isolate
                | Kind::IsolateMaster
                | Kind::OneWay
                | Kind::Bridge
                | Kind::CutClients
                | Kind::WallClock
        )
    }
}

/// One thing that is done, or waited for.
#[derive(Clone, Debug)]
pub enum Step {
    Kill(usize),
    Terminate(usize),
    AwaitExit(usize),
    /// Does nothing when it runs.
    Start(usize),
    Pause(usize),
    Resume(usize),
    Cut(Vec<Link>),
    Mend(Vec<Link>),
    /// Leaves so many bytes free on a node's disk.
    Fill(usize, u64),
    Free(usize),
    /// A node's wall clock is so many ms off.
    SetWall(usize, i64),
    /// Removes a node's data.
    Wipe(usize),
    /// Others may strike this node again, though the fault is not over.
    Release(usize),
    /// It votes and is up to date. Starts it if its disk was full and it stopped for that.
    AwaitCurrent(usize),
    /// The fault is over; what follows is recovery.
    Over,
    /// As long as the fault shall last; cut short when the run ends.
    Wait(Duration),
    /// As long as effects take to show.
    Settle(Duration),
}

/// A fault that is to strike.
pub struct Script {
    pub kind: Kind,
    /// For people.
    pub text: String,
    /// Nodes that no other fault may take meanwhile.
    pub taken: Vec<usize>,
    /// Nodes that cannot do their part meanwhile; a minority, unless the fault is meant for all.
    pub disturbed: Vec<usize>,
    /// Nodes that it is about, for people.
    pub about: Vec<usize>,
    pub steps: VecDeque<Step>,
}

/// What the choice of a victim depends on.
pub struct Situation {
    pub nodes: usize,
    pub master: usize,
    /// By faults that go on.
    pub taken: Vec<usize>,
    pub disturbed: Vec<usize>,
    /// Lost their disks, and are not known to vote again.
    pub wiped: Vec<usize>,
}

/// A node that met a full disk has stopped, if it stops, so long after it was freed; and what it
/// said of itself before is forgotten.
const DISK_SETTLES: Duration = Duration::from_secs(3);
/// One fault in so many may leave less than a majority undisturbed.
const BEYOND_A_MINORITY_IN: u8 = 10;

fn seconds(rng: &mut Rng, from: f64, to: f64) -> Duration {
    Duration::from_secs_f64(from + (to - from) * rng.f64())
}

fn name(seat: usize) -> String {
    format!("n{}", seat + 1)
}

/// A fault of this kind, if one can strike now.
pub fn script(kind: Kind, now: &Situation, rng: &mut Rng) -> Option<Script> {
    let beyond = rng.u8(..BEYOND_A_MINORITY_IN) == 0;
    let victims: Vec<usize> = match kind {
        Kind::KillMaster | Kind::PauseMaster | Kind::IsolateMaster | Kind::FullDiskMaster => {
            vec![now.master]
        }
        Kind::CutClients => vec![now.master],
        Kind::KillAll | Kind::RollingRestart => (0..now.nodes).collect(),
        Kind::OneWay | Kind::WallClock | Kind::Wipe => vec![rng.usize(..now.nodes)],
        _ => {
            let others: Vec<usize> = (0..now.nodes).filter(|seat| *seat != now.master).collect();
            vec![others[rng.usize(..others.len())]]
        }
    };
    let mut script = script_for(kind, &victims, now, rng);
    script.taken = if kind.takes_nodes() { victims } else { Vec::new() };
    if script.taken.iter().any(|seat| now.taken.contains(seat)) {
        return None;
    }
    let minority = (now.nodes - 1) / 2;
    let together = |more: &[usize], old: &[usize]| {
        let mut all = [more, old].concat();
        all.sort_unstable();
        all.dedup();
        all.len()
    };
    if kind == Kind::Wipe && together(&script.taken, &now.wiped) > minority {
        return None;
    }
    let disturbed = together(&script.disturbed, &now.disturbed);
    let allowed = kind.is_for_all() || beyond || disturbed <= minority;
    allowed.then_some(script)
}

fn script_for(kind: Kind, victims: &[usize], now: &Situation, rng: &mut Rng) -> Script {
    let victim = victims[0];
    let who = name(victim);
    let longer_than_a_lease = (LEASE_MS as f64 / 1000.0 * 1.3, 4.0);
    let mut disturbed = vec![victim];
    let mut about = victims.to_vec();
    let (text, steps): (String, Vec<Step>) = match kind {
        Kind::Kill | Kind::KillMaster => {
            let down = seconds(rng, 0.1, 5.0);
            let steps = vec![Step::Kill(victim), Step::Wait(down), Step::Start(victim)];
            (format!("kill -9 of {who}, down for {:.1} s", down.as_secs_f64()), steps)
        }
        Kind::KillAll => {
            let mut steps: Vec<Step> = victims.iter().map(|seat| Step::Kill(*seat)).collect();
            let mut order = victims.to_vec();
            rng.shuffle(&mut order);
            for seat in &order {
                steps.push(Step::Wait(seconds(rng, 0.0, 1.0)));
                steps.push(Step::Start(*seat));
            }
            disturbed = victims.to_vec();
            ("kill -9 of all".to_string(), steps)
        }
        Kind::Pause | Kind::PauseMaster => {
            let stopped = seconds(rng, longer_than_a_lease.0, longer_than_a_lease.1);
            let steps = vec![Step::Pause(victim), Step::Wait(stopped), Step::Resume(victim)];
            (format!("SIGSTOP of {who} for {:.1} s", stopped.as_secs_f64()), steps)
        }
        Kind::Isolate | Kind::IsolateMaster => {
            let with_clients = rng.bool();
            let mut links: Vec<Link> = (0..now.nodes)
                .filter(|seat| *seat != victim)
                .flat_map(|seat| both_ways(End::Node(victim), End::Node(seat)))
                .collect();
            if with_clients {
                links.extend(both_ways(End::Node(victim), End::Clients));
            }
            let heard = if with_clients { "nobody" } else { "only clients" };
            cut(format!("{who} sees {heard}"), links, seconds(rng, 1.0, 6.0))
        }
        Kind::OneWay => {
            let others = (0..now.nodes).filter(|seat| *seat != victim).map(End::Node);
            let me = End::Node(victim);
            let (text, links): (String, Vec<Link>) = match rng.u8(..3) {
                0 => (format!("{who} hears no node"), others.map(|end| (end, me)).collect()),
                1 => (format!("no node hears {who}"), others.map(|end| (me, end)).collect()),
                _ => {
                    let other = (victim + rng.usize(1..now.nodes)) % now.nodes;
                    let link = (me, End::Node(other));
                    (format!("{} does not hear {who}", name(other)), vec![link])
                }
            };
            cut(text, links, seconds(rng, 1.0, 6.0))
        }
        Kind::Bridge => {
            // The master may be the other one, or the bridge itself.
            let other = (victim + rng.usize(1..now.nodes)) % now.nodes;
            about.push(other);
            let links = both_ways(End::Node(victim), End::Node(other)).to_vec();
            let text = format!("{who} and {} do not see each other", name(other));
            cut(text, links, seconds(rng, 1.0, 6.0))
        }
        Kind::CutClients => {
            let links = both_ways(End::Node(victim), End::Clients).to_vec();
            cut(format!("no client reaches {who}"), links, seconds(rng, 0.5, 3.0))
        }
        Kind::FullDisk | Kind::FullDiskMaster => {
            let left_bytes = if rng.bool() { 0 } else { rng.u64(..DISK_RESERVE_BYTES) };
            let time = seconds(rng, 1.5, 5.0);
            let steps = vec![
                Step::Fill(victim, left_bytes),
                Step::Wait(time),
                Step::Free(victim),
                Step::Over,
                Step::Settle(DISK_SETTLES),
                Step::AwaitCurrent(victim),
            ];
            let left = left_bytes >> 20;
            let text =
                format!("{who} has {left} MiB of disk left, for {:.1} s", time.as_secs_f64());
            (text, steps)
        }
        Kind::WallClock => {
            let scale_ms = [300, 5_000, 60_000, 3_600_000, 86_400_000][rng.usize(..5)];
            let offset_ms = if rng.u8(..4) == 0 { 0 } else { rng.i64(-scale_ms..=scale_ms) };
            let text = match offset_ms {
                0 => format!("the wall clock of {who} is right"),
                _ => format!("the wall clock of {who} is {:+.1} s off", offset_ms as f64 / 1e3),
            };
            disturbed = Vec::new();
            (text, vec![Step::SetWall(victim, offset_ms), Step::Wait(seconds(rng, 1.0, 3.0))])
        }
        Kind::RollingRestart => {
            let mut order = victims.to_vec();
            rng.shuffle(&mut order);
            let each = |seat: usize| {
                [
                    Step::Terminate(seat),
                    Step::AwaitExit(seat),
                    Step::Start(seat),
                    Step::AwaitCurrent(seat),
                ]
            };
            let names: Vec<String> = order.iter().map(|seat| name(*seat)).collect();
            disturbed = Vec::new();
            let steps = order.into_iter().flat_map(each).collect();
            (format!("SIGTERM and start of {}", names.join(", then ")), steps)
        }
        Kind::Wipe => {
            let down = seconds(rng, 0.1, 3.0);
            let steps = vec![
                Step::Kill(victim),
                Step::Wipe(victim),
                Step::Wait(down),
                Step::Start(victim),
                Step::Release(victim),
                Step::AwaitCurrent(victim),
            ];
            (format!("{who} loses its directory"), steps)
        }
    };
    Script { kind, text, taken: Vec::new(), disturbed, about, steps: steps.into() }
}

fn cut(what: String, links: Vec<Link>, time: Duration) -> (String, Vec<Step>) {
    let text = format!("{what}, for {:.1} s", time.as_secs_f64());
    (text, vec![Step::Cut(links.clone()), Step::Wait(time), Step::Mend(links)])
}
