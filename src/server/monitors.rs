//! MONITOR: whoever asks is sent a line for each command that this node's clients run.
//!
//! Lines wait in the monitor's own queue until its connection has a moment. The queue is bounded in
//! bytes; a monitor that does not keep up is parted from, as commands wait for nobody. While there
//! is no monitor, a command costs one look at a counter.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use resp::Reply;

use super::registry::Client;

/// Bytes of lines that may wait for one monitor. A longer line waits alone.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// All monitors of a node.
#[derive(Debug, Default)]
pub(super) struct Monitors {
    /// How many there are.
    count: AtomicUsize,
    lines: Mutex<Vec<Arc<Lines>>>,
}

/// One monitor, and what waits for it.
#[derive(Debug)]
pub(super) struct Lines {
    waiting: Mutex<Waiting>,
    /// It did not keep up.
    lost: AtomicBool,
    connection: Option<Arc<Client>>,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<Bytes>,
    bytes: usize,
}

/// A client is a monitor as long as it keeps this.
#[derive(Debug)]
pub(super) struct Monitor {
    monitors: Arc<Monitors>,
    lines: Arc<Lines>,
}

impl Monitors {
    /// Whether anybody wants to know.
    pub(super) fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// One more; `connection`: its socket, if there is one.
    pub(super) fn enter(self: &Arc<Self>, connection: Option<Arc<Client>>) -> Monitor {
        let waiting = Mutex::default();
        let lines = Arc::new(Lines { waiting, lost: AtomicBool::new(false), connection });
        let mut all = self.lines.lock();
        all.push(lines.clone());
        self.count.store(all.len(), Ordering::Relaxed);
        Monitor { monitors: self.clone(), lines }
    }

    /// Sends a line to every monitor.
    pub(super) fn tell(&self, line: Bytes) {
        for monitor in self.lines.lock().iter() {
            monitor.push(line.clone());
        }
    }
}

impl Lines {
    fn push(&self, line: Bytes) {
        if self.lost.load(Ordering::Relaxed) {
            return;
        }
        let mut waiting = self.waiting.lock();
        if !waiting.lines.is_empty() && waiting.bytes + line.len() > WAITING_BYTES_MAX {
            self.lost.store(true, Ordering::Relaxed);
            *waiting = Waiting::default();
            drop(waiting);
            if let Some(connection) = &self.connection {
                let (id, address) = (connection.id(), connection.address());
                tracing::warn!("closed the connection of monitor {id} from {address}: too slow");
                connection.kill();
            }
            return;
        }
        waiting.bytes += line.len();
        waiting.lines.push(line);
        // The first one wakes the connection, which then takes all.
        if let ([_], Some(connection)) = (&waiting.lines[..], &self.connection) {
            connection.call();
        }
    }
}

impl Monitor {
    /// What waits, oldest first.
    pub(super) fn take(&self) -> impl Iterator<Item = Reply> + use<> {
        let waiting = std::mem::take(&mut *self.lines.waiting.lock());
        waiting
            .lines
            .into_iter()
            .map(|line| Reply::Simple(String::from_utf8_lossy(&line).into_owned().into()))
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let mut all = self.monitors.lines.lock();
        all.retain(|lines| !Arc::ptr_eq(lines, &self.lines));
        self.monitors.count.store(all.len(), Ordering::Relaxed);
    }
}

/// The line of a command, as Redis writes it: when, which database, who, and the words in quotes.
/// `hidden`: words that are nobody's business.
pub(super) fn line(
    at_us: u64,
    db: u8,
    address: &str,
    args: &[Bytes],
    hidden: impl Fn(usize) -> bool,
) -> Bytes {
    let (s, us) = (at_us / 1_000_000, at_us % 1_000_000);
    let mut line = format!("{s}.{us:06} [{db} {address}]").into_bytes();
    for (place, arg) in args.iter().enumerate() {
        line.extend_from_slice(b" \"");
        match hidden(place) {
            true => line.extend_from_slice(b"(redacted)"),
            false => escape(arg, &mut line),
        }
        line.push(b'"');
    }
    line.into()
}

fn escape(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        match byte {
            b'\\' | b'"' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x07 => out.extend_from_slice(b"\\a"),
            0x08 => out.extend_from_slice(b"\\b"),
            b' '..=b'~' => out.push(*byte),
            other => out.extend_from_slice(format!("\\x{other:02x}").as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&'static [u8]]) -> Vec<Bytes> {
        words.iter().map(|word| Bytes::from_static(word)).collect()
    }

    #[test]
    fn a_line_says_when_who_and_what() {
        let args = words(&[b"set", b"a \"b\"\\", b"\n\r\t\x07\x08\x00\xff~"]);
        let line = line(1_339_518_083_107_412, 3, "127.0.0.1:60866", &args, |_| false);
        let expected =
            r#"1339518083.107412 [3 127.0.0.1:60866] "set" "a \"b\"\\" "\n\r\t\a\b\x00\xff~""#;
        assert_eq!(String::from_utf8_lossy(&line), expected);
    }

    #[test]
    fn who_is_too_slow_gets_nothing_more() {
        let monitors = Arc::new(Monitors::default());
        assert!(!monitors.any());
        let monitor = monitors.enter(None);
        assert!(monitors.any());
        let long = Bytes::from(vec![b'a'; WAITING_BYTES_MAX + 1]);
        monitors.tell(long.clone());
        assert_eq!(monitor.take().count(), 1, "a long line waits alone");
        monitors.tell(Bytes::from_static(b"short"));
        monitors.tell(long);
        assert_eq!(monitor.take().count(), 0);
        monitors.tell(Bytes::from_static(b"short"));
        assert_eq!(monitor.take().count(), 0);
        drop(monitor);
        assert!(!monitors.any());
    }
}
