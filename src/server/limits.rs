//! How much one client, and all of them, may take.

use std::time::Duration;

use resp::RequestLimits;

/// Once this many bytes of replies have gathered, a handler lets them be written before it handles
/// more.
pub const OUTPUT_TURN_BYTES: usize = 1024 * 1024;

/// The bounds of client connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections at a time.
    pub clients_max: usize,
    /// What a single request may hold.
    pub requests: RequestLimits,
    /// Replies above this many bytes must be below it after [`ConnectionLimits::drain_timeout`].
    pub output_bytes_max: usize,
    /// How long a client may take nothing of the replies that wait for it.
    pub drain_timeout: Duration,
    /// How long a client that will send no more is still waited for with a pending reply. It may
    /// have closed only its sending half.
    pub half_closed_timeout: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> ConnectionLimits {
        ConnectionLimits {
            clients_max: 20_000,
            requests: RequestLimits::default(),
            output_bytes_max: 64 * 1024 * 1024,
            drain_timeout: Duration::from_secs(60),
            half_closed_timeout: Duration::from_secs(6),
        }
    }
}
