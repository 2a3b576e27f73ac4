//! What one seed asks for: the cluster's shape, its sizes, and how often which fault strikes.
//!
//! Each kind of fault has its own rate, and most seeds have only some kinds: mixed all together
//! they would hide each other.

use fastrand::Rng;

use crate::checker::Workload;

/// What can be done to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// One process dies; its machine goes on.
    Kill,
    /// All processes die.
    KillAll,
    /// One machine loses power.
    PowerOne,
    /// All machines lose power.
    PowerAll,
    /// A write to the log's disk fails.
    WriteError,
    /// A sync fails.
    SyncError,
    /// A machine loses all that it had on disk.
    Wipe,
    /// The store's directory is emptied while the process is down.
    EmptyStore,
    /// A bit of the store flips while the process is down.
    FlipStoreBit,
    /// A bit of the synced log flips, or the file is cut, while the process is down.
    DamageLog,
    /// A process stands still for longer than the lease.
    Pause,
    /// Links go down: one, one way, a node, halves, or a bridge.
    Partition,
    /// A wall clock jumps.
    WallJump,
    /// A disk answers no sync for long.
    DiskStall,
    /// A disk is slow for a while.
    SlowDisk,
    /// A disk has hardly any room left, for a while.
    FullDisk,
    /// A machine loses its log's directory, or that of its heads, and nothing else.
    LoseDirectory,
    /// The operator asks the master to hand over.
    HandOver,
    /// A client's connection breaks.
    CutClient,
    /// A message says something of a ballot that is not its sender's, or comes from no seat.
    Forgery,
}

pub const FAULTS: [Fault; 20] = [
    Fault::Kill,
    Fault::KillAll,
    Fault::PowerOne,
    Fault::PowerAll,
    Fault::WriteError,
    Fault::SyncError,
    Fault::Wipe,
    Fault::EmptyStore,
    Fault::FlipStoreBit,
    Fault::DamageLog,
    Fault::Pause,
    Fault::Partition,
    Fault::WallJump,
    Fault::DiskStall,
    Fault::SlowDisk,
    Fault::FullDisk,
    Fault::LoseDirectory,
    Fault::HandOver,
    Fault::CutClient,
    Fault::Forgery,
];

/// How the network treats messages.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    pub loss: f64,
    pub repeat: f64,
    /// Messages that are late, and by how much at most.
    pub late: f64,
    pub late_us_max: u64,
    /// Ordinary delay at most.
    pub delay_us_max: u64,
}

/// Everything that a seed decides before the run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub seats: usize,
    pub zones: Vec<String>,
    pub lease_us: u64,
    pub faults_us: u64,
    pub clients: usize,
    pub think_us: u64,
    pub stale_clients: usize,
    pub workload: Workload,
    /// Per second of simulated time, for the whole cluster; in the order of [`FAULTS`].
    pub rates: Vec<(Fault, f64)>,
    pub network: Network,
    pub restart_us_max: u64,
    pub sync_us_max: u64,
    pub apply_us_max: u64,
    pub head_us_max: u64,
    pub stall_us_max: u64,
    pub clock_ppm_max: i64,
    pub segment_bytes: u64,
    pub head_every_bytes: u64,
    pub kept_entries_max: u64,
    pub layer_bytes: usize,
    /// Memory for layers; past it updates wait.
    pub layers_bytes_max: usize,
    pub chunk_bytes: usize,
    pub window_bytes: usize,
    pub cache_bytes: usize,
    pub head_chunk_bytes: usize,
    /// How often a step of a head's way to another node is its last: a process dies, a disk fails
    /// or a machine loses power there.
    pub head_interrupts: f64,
    /// How often a session reads what was there when its turn was planned, not when it comes.
    pub early_views: f64,
    /// How long a session waits for its turn at most.
    pub turn_us_max: u64,
    /// Saves wait outside of the log until the sync before them has ended, as for the log's thread: a kill
    /// takes them.
    pub saves_wait: bool,
    /// Every second machine's engine takes many rows at once.
    pub ingests: bool,
    /// Layers that wait for a view go to a file when they are large.
    pub spills: bool,
    #[cfg(feature = "planted-bugs")]
    pub planted: Option<arakoon::planted::Bug>,
}

impl Plan {
    pub fn new(seed: u64) -> Plan {
        let mut rng = Rng::with_seed(seed ^ 0x5eed_0000);
        let seats = [3, 3, 3, 3, 3, 3, 3, 5, 5, 1][rng.usize(..10)];
        let zones = match seats {
            3 if rng.u8(..5) == 0 => ["west", "west", "east"].map(str::to_owned).to_vec(),
            _ => Vec::new(),
        };
        let lease_us = [100_000, 200_000, 500_000, 500_000, 1_000_000, 2_000_000][rng.usize(..6)];
        let mut plan = Plan {
            seed,
            seats,
            zones,
            lease_us,
            faults_us: rng.u64(15_000_000..40_000_000),
            clients: rng.usize(2..12),
            think_us: [3_000, 20_000, 60_000][rng.usize(..3)],
            stale_clients: [0, 1, 2][rng.usize(..3)],
            workload: Workload { lists: rng.u32(2..6), ranges: rng.u8(..8) == 0 },
            rates: Vec::new(),
            network: Network {
                loss: 0.0,
                repeat: 0.0,
                late: 0.0,
                late_us_max: 0,
                delay_us_max: [500, 2_000, 10_000][rng.usize(..3)],
            },
            restart_us_max: [20_000, 500_000, 5_000_000][rng.usize(..3)],
            sync_us_max: [500, 5_000, 20_000][rng.usize(..3)],
            apply_us_max: [50, 1_000, 10_000][rng.usize(..3)],
            head_us_max: [10_000, 1_000_000][rng.usize(..2)],
            stall_us_max: 4_000_000,
            clock_ppm_max: [0, 250, 250][rng.usize(..3)],
            segment_bytes: [16 << 10, 32 << 10, 64 << 10][rng.usize(..3)],
            head_every_bytes: [8 << 10, 24 << 10, 64 << 10][rng.usize(..3)],
            kept_entries_max: [0, 20, 400][rng.usize(..3)],
            layer_bytes: [1 << 10, 4 << 10, 32 << 10][rng.usize(..3)],
            layers_bytes_max: 8 << 20,
            chunk_bytes: [1, 300, 4 << 10, 1 << 20][rng.usize(..4)],
            window_bytes: [500, 8 << 10, 8 << 20][rng.usize(..3)],
            cache_bytes: [0, 2 << 10, 32 << 20][rng.usize(..3)],
            head_chunk_bytes: [700, 16 << 10, 1 << 20][rng.usize(..3)],
            head_interrupts: [0.0, 0.02, 0.2][rng.usize(..3)],
            early_views: 0.1,
            turn_us_max: 2_000,
            saves_wait: seed % 2 == 1,
            ingests: true,
            spills: rng.u8(..4) == 0,
            #[cfg(feature = "planted-bugs")]
            planted: None,
        };
        plan.clock_ppm_max *= 2;
        if seed.is_multiple_of(3) || plan.spills {
            // Layers fill, so that updates wait for draining and layers are spilled.
            plan.layers_bytes_max = plan.layer_bytes * 8;
        }
        plan.choose_faults(&mut rng);
        plan
    }

    fn choose_faults(&mut self, rng: &mut Rng) {
        // A few kinds, half of them, or nearly all.
        let share = [0.15, 0.4, 0.9][rng.usize(..3)];
        for fault in FAULTS {
            if rng.f64() < share {
                let usual = match fault {
                    Fault::KillAll | Fault::PowerAll | Fault::Wipe | Fault::DamageLog => 0.1,
                    Fault::LoseDirectory => 0.1,
                    Fault::Partition | Fault::CutClient => 0.5,
                    _ => 0.25,
                };
                self.rates.push((fault, usual * [0.5, 1.0, 3.0][rng.usize(..3)]));
            }
        }
        let network = &mut self.network;
        if rng.f64() < share {
            network.loss = [0.001, 0.02, 0.2][rng.usize(..3)];
        }
        if rng.f64() < share {
            network.repeat = [0.01, 0.2][rng.usize(..2)];
        }
        if rng.f64() < share {
            network.late = [0.001, 0.02, 0.2][rng.usize(..3)];
            network.late_us_max = [20_000, 300_000, 3_000_000][rng.usize(..3)];
        }
    }

    /// These faults only, and a network that loses nothing.
    #[cfg(feature = "planted-bugs")]
    pub fn only(mut self, rates: &[(Fault, f64)]) -> Plan {
        self.rates = rates.to_vec();
        (self.network.loss, self.network.repeat, self.network.late) = (0.0, 0.0, 0.0);
        self
    }

    /// The rate of a fault is at least this.
    #[cfg(feature = "planted-bugs")]
    pub fn at_least(mut self, fault: Fault, rate: f64) -> Plan {
        match self.rates.iter_mut().find(|(known, _)| *known == fault) {
            Some((_, known)) => *known = rate.max(*known),
            None => self.rates.push((fault, rate)),
        }
        self
    }

    /// Once all is well again, service and equality must be back within this time.
    pub fn recovery_us(&self) -> u64 {
        10 * self.lease_us + 5_000_000 + self.stall_us_max + self.network.late_us_max
    }

    /// Within this time of being read an update is answered, by the clock of its node.
    pub fn answer_within_us(&self) -> u64 {
        (2 * self.lease_us).clamp(1_000_000, 5_000_000)
    }
}
