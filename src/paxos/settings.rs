//! What a replica is told when it starts.

use super::types::{Incarnation, NodeId};

/// How far a node's clock rate may be off, in parts per million. Two clocks may differ by twice
/// that; leases are shortened, and waits stretched, by the difference.
pub const CLOCK_RATE_BOUND_PPM: u64 = 500;

/// The longest lease that is asked for or granted, in microseconds.
pub const LEASE_US_MAX: u64 = 60_000_000;

/// Settings of one replica; the same on all nodes but for `node` and `incarnation`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node's seat.
    pub node: NodeId,
    /// This node's life.
    pub incarnation: Incarnation,
    /// How many seats the cluster has.
    pub seats: usize,
    /// The zone of each seat, or nothing.
    pub zones: Vec<String>,
    /// How long a lease is, in microseconds.
    pub lease_us: u64,
    /// Bytes of entries in one message, roughly.
    pub chunk_bytes_max: usize,
    /// Bytes of entries sent to one follower and not answered yet.
    pub window_bytes_max: usize,
    /// Bytes of durable entries kept in memory.
    pub cache_bytes_max: usize,
}

impl Settings {
    /// Settings with the usual sizes.
    pub fn new(node: NodeId, incarnation: Incarnation, seats: usize, lease_us: u64) -> Settings {
        Settings {
            node,
            incarnation,
            seats,
            zones: Vec::new(),
            lease_us,
            chunk_bytes_max: 1 << 20,
            window_bytes_max: 8 << 20,
            cache_bytes_max: 32 << 20,
        }
    }

    /// How often the leader shows that it lives.
    pub fn heartbeat_us(&self) -> u64 {
        (self.lease_us / 5).min(100_000)
    }

    /// After this long without an answer, what was sent is sent again.
    pub fn resend_us(&self) -> u64 {
        (self.lease_us / 4).clamp(20_000, 200_000)
    }

    /// The same for so many bytes of entries, which take time on the way and to be synced: sent
    /// again too early, they would only delay their own answer. Counted at 32 MB per second.
    pub fn resend_entries_us(&self, bytes: usize) -> u64 {
        self.resend_us() + bytes as u64 / 32
    }

    /// A span that has certainly passed on every other clock when it has passed on ours.
    pub fn stretched(&self, span_us: u64) -> u64 {
        span_us + span_us.saturating_mul(2 * CLOCK_RATE_BOUND_PPM).div_ceil(1_000_000)
    }

    /// A span that has certainly not passed on any other clock when it has not passed on ours.
    pub fn shortened(&self, span_us: u64) -> u64 {
        span_us - span_us.saturating_mul(2 * CLOCK_RATE_BOUND_PPM).div_ceil(1_000_000)
    }
}
