//! What the session answers itself.

use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use resp::{Protocol, Reply};

use super::replies::Replies;
use super::{Session, Taken, arakoon, discovery};
use crate::command::connection::Connection;
use crate::command::describe;
use crate::command::parse::{SYNTAX, integer, is, parse_db, wrong_arity};
use crate::command::server::Server;
use crate::server::{Backend, info, replication, report};
use crate::store::keyspace::Meta;

impl Session {
    pub(super) fn local(
        &mut self,
        command: Connection,
        args: &[Bytes],
        out: &mut BytesMut,
        backend: &dyn Backend,
    ) -> Taken {
        use Connection::{Discard, Echo, Multi, Ping, Select, Unwatch};
        // These can stand in line behind writes: they neither read the keyspace nor change how
        // replies are encoded.
        let in_line = matches!(command, Ping | Echo | Select | Multi | Discard | Unwatch);
        if !in_line && !self.gathered.is_empty() {
            return Taken::Later;
        }
        let reply = match (command, &args[1..]) {
            (Connection::Client, [subcommand, mode]) if is(subcommand, "REPLY") => {
                match self.client_reply(mode) {
                    Some(reply) => reply,
                    None => return Taken::Done,
                }
            }
            _ => self.local_reply(command, args, backend),
        };
        // A node that stops says no more than that it closes the connection.
        if command == Connection::Server(Server::Shutdown) && reply == Reply::OK {
            return Taken::Close;
        }
        self.emit(reply, out);
        let killed = self.signals.killed.load(Ordering::Relaxed);
        if command == Connection::Quit || killed && command == Connection::Client {
            Taken::Close
        } else {
            Taken::Done
        }
    }

    pub(super) fn local_reply(
        &mut self,
        command: Connection,
        args: &[Bytes],
        backend: &dyn Backend,
    ) -> Reply {
        match command {
            // In RESP2 it must look like an event.
            Connection::Ping if self.only_listens() && args.len() <= 2 => {
                let text = args.get(1).cloned().unwrap_or_default();
                Reply::Push(vec![Reply::bulk("pong"), Reply::Bulk(text)])
            }
            Connection::Ping => match &args[1..] {
                [] => Reply::Simple("PONG".into()),
                [text] => Reply::Bulk(text.clone()),
                _ => wrong_arity("ping"),
            },
            Connection::Echo => Reply::Bulk(args[1].clone()),
            Connection::Hello => self.hello(args, backend).unwrap_or_else(|error| error),
            Connection::Auth => auth(args),
            Connection::Select => match parse_db(&args[1]) {
                Ok(db) => match self.may_select(db, backend) {
                    Ok(()) => {
                        self.select(db);
                        Reply::OK
                    }
                    Err(refused) => refused,
                },
                Err(error) => error,
            },
            Connection::Quit => Reply::OK,
            Connection::Reset => self.reset(),
            Connection::Client => self.client(args, backend),
            Connection::ReadOnly => {
                self.set_read_only(true);
                Reply::OK
            }
            Connection::ReadWrite => {
                self.set_read_only(false);
                Reply::OK
            }
            Connection::Multi => self.begin_transaction(),
            Connection::Discard => self.discard(),
            Connection::Unwatch => {
                self.watches.clear();
                Reply::OK
            }
            Connection::Command => describe::command(args),
            Connection::Config => self.config(args, backend),
            Connection::Info => self.info(args, backend),
            Connection::Server(command) => self.administer(command, args, backend),
            Connection::Role => replication::role(&backend.info()),
            Connection::Time => {
                let now_ms = backend.stamp_ms();
                let microseconds = now_ms % 1000 * 1000;
                let parts = [now_ms / 1000, microseconds];
                Reply::Array(parts.map(|part| Reply::bulk(part.to_string())).to_vec())
            }
            Connection::TxId => self.txid(backend),
            Connection::AtLeast => self.at_least(args, backend),
            Connection::Master => arakoon::master(&backend.info()),
            Connection::Progress => arakoon::progress(backend),
            Connection::Stats => arakoon::stats(&backend.info()),
            Connection::Cluster => self.cluster(args, backend),
            Connection::Asking => Reply::OK,
            Connection::Sentinel => discovery::sentinel(args, backend),
            Connection::Failover => discovery::failover(args, backend),
            // In a transaction, where nothing waits.
            Connection::Wait => self.count_synced(args, false, backend),
            Connection::WaitAof => self.count_synced(args, true, backend),
            // All are taken before: they need more than this node's own knowledge, or answer more than
            // once.
            Connection::Exec
            | Connection::Watch
            | Connection::Subscribe
            | Connection::PSubscribe
            | Connection::Unsubscribe
            | Connection::PUnsubscribe => {
                unreachable!("{command:?} is neither queued nor answered here")
            }
        }
    }

    /// Where data is not answered only database 0 can be selected: a client that follows a redirect
    /// would arrive without the other, and not know.
    fn may_select(&self, db: u8, backend: &dyn Backend) -> Result<(), Reply> {
        if db == 0 || self.read_only {
            return Ok(());
        }
        backend.lease(u64::MAX).map_err(|refusal| self.refuse(&super::for_a_read(refusal), None))
    }

    pub(super) fn select(&mut self, db: u8) {
        if self.db != db {
            self.db = db;
            self.shared.update(self.id, |client| client.db = db);
        }
    }

    fn set_read_only(&mut self, read_only: bool) {
        self.read_only = read_only;
        self.shared.update(self.id, |client| client.read_only = read_only);
    }

    fn hello(&mut self, args: &[Bytes], backend: &dyn Backend) -> Result<Reply, Reply> {
        let mut protocol = self.protocol;
        if let Some(version) = args.get(1) {
            protocol = match integer(version) {
                Some(2) => Protocol::Resp2,
                Some(3) => Protocol::Resp3,
                Some(_) => return Err(Reply::error("NOPROTO unsupported protocol version")),
                None => {
                    return Err(Reply::error(
                        "ERR Protocol version is not an integer or out of range",
                    ));
                }
            };
        }
        let mut name = None;
        let mut options = args.get(2..).unwrap_or_default();
        while let [option, rest @ ..] = options {
            options = match rest {
                [user, password, rest @ ..] if is(option, "AUTH") => {
                    check_user(user, password)?;
                    rest
                }
                [value, rest @ ..] if is(option, "SETNAME") => {
                    name = Some(super::client::check_name(value)?);
                    rest
                }
                _ => {
                    let option = String::from_utf8_lossy(option);
                    let text = format!("ERR Syntax error in HELLO option '{option}'");
                    return Err(Reply::error(text));
                }
            };
        }
        self.set_protocol(protocol);
        if let Some(name) = name {
            self.shared.update(self.id, |client| client.name = name);
        }
        Ok(info::hello(&backend.info(), self.id, protocol))
    }

    fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
        let number = if protocol == Protocol::Resp3 { 3 } else { 2 };
        self.shared.update(self.id, |client| client.protocol = number);
    }

    fn reset(&mut self) -> Reply {
        self.transaction = None;
        self.watches.clear();
        self.select(0);
        self.set_protocol(Protocol::Resp2);
        self.read_only = false;
        self.at_least = 0;
        self.replies = Replies::Sent;
        self.redirects = false;
        self.signals.mailbox.clear();
        self.end_monitor();
        self.shared.update(self.id, |client| {
            client.name.clear();
            client.monitors = false;
            (client.read_only, client.no_evict, client.no_touch) = (false, false, false);
        });
        Reply::Simple("RESET".into())
    }

    fn info(&self, args: &[Bytes], backend: &dyn Backend) -> Reply {
        let mut meta = None;
        // A node whose store is not there yet still tells the rest.
        let _ = backend.with_rows(&mut |rows| meta = Some(Meta::read(rows)));
        let meta = match meta {
            Some(Err(error)) => {
                backend.store_failed(error);
                None
            }
            Some(Ok(meta)) => Some(meta),
            None => None,
        };
        let text = report::text(&args[1..], &backend.info(), &self.shared, meta.as_ref());
        Reply::Verbatim("txt", Bytes::from(text))
    }
}

fn check_user(user: &[u8], password: &[u8]) -> Result<(), Reply> {
    // As Redis without a password: the default user may say anything.
    let _ = password;
    match user {
        b"default" => Ok(()),
        _ => Err(Reply::error("WRONGPASS invalid username-password pair or user is disabled.")),
    }
}

fn auth(args: &[Bytes]) -> Reply {
    match &args[1..] {
        [_] => Reply::error(
            "ERR AUTH <password> called without any password configured for the default user. \
             Are you sure your configuration is correct?",
        ),
        [user, password] => match check_user(user, password) {
            Ok(()) => Reply::OK,
            Err(error) => error,
        },
        _ => SYNTAX,
    }
}
