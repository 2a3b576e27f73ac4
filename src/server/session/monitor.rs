//! MONITOR: to become a monitor, and to show monitors what this session runs.
//!
//! As in Redis a command is shown once it was run, or handed to the log; one that was refused before
//! that is not, and administrators' commands never are. A transaction's commands are shown with its
//! EXEC, before it. Since the outcome of an update is known later, they are shown also when the log
//! then finds a watched key changed.

use bytes::{Bytes, BytesMut};
use resp::Reply;

use super::accounting::Fate;
use super::{Session, Taken};
use crate::command::connection::Connection;
use crate::command::describe;
use crate::command::parse::{is, parse_db};
use crate::command::table::{self, Kind, Spec};
use crate::server::monitors;

/// A command to be shown if it is run: the database, and the words.
pub(super) type Shown = (u8, Vec<Bytes>);

impl Session {
    /// MONITOR. Nothing may be gathered: lines and replies share the connection.
    pub(super) fn begin_monitor(&mut self, out: &mut BytesMut) -> Taken {
        if !self.gathered.is_empty() {
            return Taken::Later;
        }
        if self.monitor.is_none() {
            let connection = self.shared.update(self.id, |client| {
                client.monitors = true;
                client.connection.clone()
            });
            self.monitor = Some(self.shared.monitors.enter(connection));
        }
        self.emit(Reply::OK, out)
    }

    pub(super) fn end_monitor(&mut self) {
        self.monitor = None;
    }

    /// It is sent what others run.
    pub fn is_monitor(&self) -> bool {
        self.monitor.is_some()
    }

    /// What is to be shown of a request if it is run. Asked before: EXEC takes the transaction.
    pub(super) fn to_show(&self, args: &[Bytes]) -> Vec<Shown> {
        let mut shown = Vec::new();
        let Some((_, spec)) = args.first().and_then(|name| table::find_place(name)) else {
            return shown;
        };
        let mut db = self.db;
        let mut add = |db: u8, spec: &'static Spec, args: &[Bytes]| {
            if !describe::is_administration(spec, args) {
                shown.push((db, args.to_vec()));
            }
        };
        let is_exec = matches!(spec.kind, Kind::Connection(Connection::Exec));
        for (spec, args) in self.queued_calls().filter(|_| is_exec) {
            add(db, spec, args);
            if spec.name == "select" {
                db = parse_db(&args[1]).unwrap_or(db);
            }
        }
        add(db, spec, args);
        shown
    }

    /// A request was taken up: shows it, unless it was refused or queued.
    pub(super) fn show(&self, shown: Vec<Shown>) {
        if matches!(self.account.fate, Fate::Unknown | Fate::Rejected | Fate::Queued) {
            return;
        }
        let (address, _) = self.shared.address_and_name(self.id);
        let at_us = self.shared.wall_us();
        for (db, args) in shown {
            let from = hidden_from(&args);
            let hidden = |place: usize| from.is_some_and(|(from, to)| (from..to).contains(&place));
            self.shared.monitors.tell(monitors::line(at_us, db, &address, &args, hidden));
        }
    }
}

/// The words of a call that are names and passwords.
fn hidden_from(args: &[Bytes]) -> Option<(usize, usize)> {
    if is(&args[0], "AUTH") {
        return Some((1, args.len()));
    }
    if is(&args[0], "HELLO") {
        let option = args.iter().skip(2).position(|option| is(option, "AUTH"))?;
        return Some((option + 3, option + 5));
    }
    None
}

/// What a monitor hears if it asks for data.
pub(super) fn monitor_may_not(spec: &Spec) -> Option<Reply> {
    let data = matches!(spec.kind, Kind::Read(_) | Kind::Write { .. });
    data.then(|| Reply::error("ERR Replica can't interact with the keyspace"))
}
