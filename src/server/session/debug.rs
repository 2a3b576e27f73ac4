//! DEBUG: what test suites need, where the config file allows it.
//!
//! DEBUG SLEEP holds up its own connection alone. In Redis it stops the server; here that would be a
//! fault of the node that others had to be elected for.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use resp::Reply;

use super::administration::subcommand_syntax;
use super::help::{self, help};
use super::{Session, Taken};
use crate::command::parse::{integer, is, shown};
use crate::server::Backend;
use crate::store::keyspace::{ReadError, View};

/// The longest pause after which a sleeping connection looks whether it was killed.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// A connection that sleeps: since when, and until when, by the sessions' clock.
pub(super) struct Sleep {
    since_us: u64,
    until_us: u64,
}

impl Session {
    pub(super) fn debug(
        &mut self,
        args: &[Bytes],
        out: &mut BytesMut,
        backend: &dyn Backend,
    ) -> Taken {
        if !self.gathered.is_empty() {
            return Taken::Later;
        }
        let name = String::from_utf8_lossy(&args[1]).to_ascii_lowercase();
        let reply = match (name.as_str(), &args[2..]) {
            ("sleep", [seconds]) => return self.debug_sleep(seconds, out),
            ("help", []) => help(help::DEBUG),
            ("error", [text]) => {
                let text = String::from_utf8_lossy(text).replace(['\r', '\n'], " ");
                Reply::error(text)
            }
            ("log", [text]) => {
                tracing::warn!("DEBUG LOG: {}", shown(text));
                Reply::OK
            }
            ("protocol", [kind]) => protocol(kind),
            ("object", [key]) => self.debug_object(key, backend),
            // All that was acknowledged is on disk, and read again at the next start.
            ("reload", _) | ("loadaof", []) => Reply::OK,
            // There are no such lists, and nothing runs so seldom that it had to be held up.
            ("quicklist-packed-threshold" | "pause-cron", [_]) => Reply::OK,
            // Expired keys are always deleted, by the log's clock; it cannot be told not to.
            ("set-active-expire", [on]) => match integer(on) {
                Some(0) => Reply::error("ERR DEBUG SET-ACTIVE-EXPIRE 0 is not supported"),
                _ => Reply::OK,
            },
            _ => subcommand_syntax("DEBUG", &args[1]),
        };
        self.emit(reply, out)
    }

    fn debug_sleep(&mut self, seconds: &[u8], out: &mut BytesMut) -> Taken {
        // As Redis: what is no number counts as 0.
        let seconds: f64 = String::from_utf8_lossy(seconds).parse().unwrap_or(0.0);
        let now_us = self.shared.now_us();
        let until_us = now_us.saturating_add((seconds.max(0.0) * 1e6) as u64);
        let sleep = self.sleep.get_or_insert(Sleep { since_us: now_us, until_us });
        let left = Duration::from_micros(sleep.until_us.saturating_sub(now_us));
        if left.is_zero() {
            let since_us = sleep.since_us;
            self.sleep = None;
            self.began_at(since_us);
            return self.emit(Reply::OK, out);
        }
        Taken::Pause(left.min(PAUSE_MAX))
    }

    /// Of the fields that Redis has, those that tests read. No value has an address or an age here.
    fn debug_object(&mut self, key: &[u8], backend: &dyn Backend) -> Reply {
        let db = self.db;
        let mut found = Ok(None);
        let viewed = backend.with_rows(&mut |rows| {
            found = View::open(rows, db, 0, 0)
                .and_then(|view| view.find(key).map_err(ReadError::of_unlimited));
        });
        let permitted = viewed.and_then(|index| backend.lease(index));
        if let Err(refusal) = permitted {
            return super::for_a_read(refusal).reply(Some(key));
        }
        match found {
            Ok(None) => Reply::error("ERR no such key"),
            Ok(Some(stored)) => Reply::Simple(
                format!(
                    "Value at:0x0 refcount:1 encoding:{} serializedlength:{} lru:0 \
                     lru_seconds_idle:0",
                    crate::command::object::encoding(&stored),
                    stored.header.size
                )
                .into(),
            ),
            Err(error) => {
                backend.store_failed(error);
                Reply::error("LOADING this node is not ready yet")
            }
        }
    }
}

/// One reply of each type, so that a client's decoder can be tested.
#[expect(clippy::approx_constant, reason = "it is Redis' number, not pi")]
fn protocol(kind: &[u8]) -> Reply {
    let numbers = || (0..3).map(Reply::Integer).collect::<Vec<_>>();
    match () {
        () if is(kind, "string") => Reply::bulk("Hello World"),
        () if is(kind, "integer") => Reply::Integer(12_345),
        () if is(kind, "double") => Reply::Double(3.141),
        () if is(kind, "null") => Reply::Null,
        () if is(kind, "array") => Reply::Array(numbers()),
        () if is(kind, "set") => Reply::Set(numbers()),
        () if is(kind, "map") => {
            Reply::Map((0..3).map(|n| (Reply::Integer(n), Reply::Boolean(n == 1))).collect())
        }
        () if is(kind, "true") => Reply::Boolean(true),
        () if is(kind, "false") => Reply::Boolean(false),
        () if is(kind, "verbatim") => {
            Reply::Verbatim("txt", Bytes::from_static(b"This is a verbatim\nstring"))
        }
        () => Reply::error(
            "ERR Wrong protocol type name. Please use one of the following: \
             string|integer|double|null|array|set|map|verbatim|true|false",
        ),
    }
}
