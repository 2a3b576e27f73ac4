//! CONFIG, SLOWLOG, LATENCY, MEMORY, MODULE, heads on demand, SHUTDOWN and LOLWUT. The table has
//! checked subcommands and their arity.

use bytes::Bytes;
use resp::Reply;

use super::help::{self, help};
use super::{Session, users};
use crate::command::parse::{SYNTAX, integer, integer_argument, is, shown};
use crate::command::server::Server;
use crate::command::table::Spec;
use crate::config::Allowed;
use crate::server::{Backend, Refusal, info};
use crate::store::keyspace::{HEADER_BYTES, ReadError, View};
use crate::store::{Rows, StoreError};

impl Session {
    /// Why a command must not be run here or now, whatever its arguments are.
    pub(super) fn refused(
        &self,
        spec: &Spec,
        args: &[Bytes],
        backend: &dyn Backend,
    ) -> Option<Reply> {
        if spec.name == "debug" && !self.may_debug(backend) {
            return Some(not_allowed("DEBUG", "enable-debug-command"));
        }
        let loads = |sub: &Bytes| ["load", "loadex", "unload"].iter().any(|name| is(sub, name));
        if spec.name == "module" && args.get(1).is_some_and(loads) {
            return Some(not_allowed("MODULE", "enable-module-command"));
        }
        if self.transaction.is_some() && spec.flags.contains(&"no_multi") {
            return Some(Reply::error("ERR Command not allowed inside a transaction"));
        }
        None
    }

    fn may_debug(&self, backend: &dyn Backend) -> bool {
        match backend.info().debug_command {
            Allowed::No => false,
            Allowed::Yes => true,
            Allowed::Local => {
                let (address, _) = self.shared.address_and_name(self.id);
                let (host, _) = info::host_and_port(&address);
                host.parse().is_ok_and(|host: std::net::IpAddr| host.is_loopback())
            }
        }
    }

    /// What needs no waiting.
    pub(super) fn administer(
        &mut self,
        command: Server,
        args: &[Bytes],
        backend: &dyn Backend,
    ) -> Reply {
        let reply = match command {
            Server::Acl => users::acl(args),
            Server::BgRewriteAof => {
                self.write_head("Background append only file rewriting started", backend)
            }
            Server::BgSave => match &args[1..] {
                [] => self.write_head("Background saving started", backend),
                [option] if is(option, "SCHEDULE") => {
                    self.write_head("Background saving started", backend)
                }
                _ => Err(SYNTAX),
            },
            // Taken before, unless in a transaction; there DEBUG is refused and SAVE not queued.
            Server::Debug => Err(Reply::error("ERR DEBUG is not allowed in transactions")),
            Server::Save => Err(Reply::error("ERR Command not allowed inside a transaction")),
            Server::Monitor => {
                Err(Reply::error("ERR MONITOR isn't allowed for DENY BLOCKING client"))
            }
            Server::LastSave => Ok(Reply::Integer((backend.info().head_stamp_ms / 1000) as i64)),
            Server::Latency => self.latency(args),
            Server::Lolwut => lolwut(args),
            Server::Memory => self.memory(args, backend),
            Server::Module => Ok(match is(&args[1], "LIST") {
                true => Reply::Array(Vec::new()),
                false => help(help::MODULE),
            }),
            Server::Shutdown => self.shutdown(args, backend),
            Server::Slowlog => self.slowlog(args),
        };
        reply.unwrap_or_else(|error| error)
    }

    /// CONFIG
    pub(super) fn config(&self, args: &[Bytes], backend: &dyn Backend) -> Reply {
        let (subcommand, rest) = (&args[1], &args[2..]);
        let (parameters, registry) = (&self.shared.parameters, self.shared.registry());
        if is(subcommand, "GET") {
            return parameters.get(rest, &backend.info(), registry);
        }
        if is(subcommand, "SET") {
            return match parameters.set(rest, &backend.info(), registry) {
                Ok(()) => {
                    self.shared.slowlog.truncate(parameters.slowlog_entries_max());
                    Reply::OK
                }
                Err(error) => error,
            };
        }
        if is(subcommand, "RESETSTAT") {
            self.shared.reset_statistics();
            return Reply::OK;
        }
        if is(subcommand, "REWRITE") {
            // Nobody writes the config file but its owner.
            return Reply::error("ERR Rewriting config file: Operation not supported");
        }
        help(help::CONFIG)
    }

    fn slowlog(&self, args: &[Bytes]) -> Result<Reply, Reply> {
        let slowlog = &self.shared.slowlog;
        match &args[1..] {
            [subcommand] if is(subcommand, "LEN") => Ok(Reply::Integer(slowlog.len() as i64)),
            [subcommand] if is(subcommand, "RESET") => {
                slowlog.reset();
                Ok(Reply::OK)
            }
            [subcommand] if is(subcommand, "GET") => Ok(slowlog.reply(10)),
            [subcommand, count] if is(subcommand, "GET") => {
                let count = integer_argument(count)?;
                let text = "ERR count should be greater than or equal to -1";
                match count {
                    -1 => Ok(slowlog.reply(usize::MAX)),
                    0.. => Ok(slowlog.reply(count as usize)),
                    _ => Err(Reply::error(text)),
                }
            }
            [subcommand] if is(subcommand, "HELP") => Ok(help(help::SLOWLOG)),
            _ => Err(subcommand_syntax("SLOWLOG", &args[1])),
        }
    }

    fn latency(&self, args: &[Bytes]) -> Result<Reply, Reply> {
        let (monitor, rest) = (&self.shared.latency, &args[2..]);
        let name = String::from_utf8_lossy(&args[1]).to_ascii_lowercase();
        Ok(match name.as_str() {
            "latest" => monitor.latest(),
            "history" => monitor.history(&rest[0]),
            "graph" => monitor.graph(&rest[0], self.shared.wall_s()),
            "reset" => Reply::Integer(monitor.reset(rest) as i64),
            "doctor" => {
                let report = monitor.report(self.shared.parameters.latency_threshold_ms());
                Reply::Verbatim("txt", Bytes::from(report))
            }
            "histogram" => self.histograms(rest),
            _ => help(help::LATENCY),
        })
    }

    /// LATENCY HISTOGRAM; a container's name stands for all its subcommands.
    fn histograms(&self, names: &[Bytes]) -> Reply {
        let asked = |full: &str| {
            let container = full.split('|').next().unwrap_or_default();
            names.is_empty() || names.iter().any(|name| is(name, full) || is(name, container))
        };
        let histograms = self.shared.counters.histograms().into_iter();
        let described = histograms.filter(|(name, _)| asked(name)).map(|(name, histogram)| {
            let number = |number: u64| Reply::Integer(number as i64);
            let powers = histogram.powers().into_iter();
            let powers = powers.map(|(us, count)| (number(us), number(count))).collect();
            let described = vec![
                (Reply::bulk("calls"), number(histogram.count())),
                (Reply::bulk("histogram_usec"), Reply::Map(powers)),
            ];
            (Reply::bulk(name), Reply::Map(described))
        });
        Reply::Map(described.collect())
    }

    fn memory(&mut self, args: &[Bytes], backend: &dyn Backend) -> Result<Reply, Reply> {
        let name = String::from_utf8_lossy(&args[1]).to_ascii_lowercase();
        match name.as_str() {
            "usage" => self.memory_usage(&args[2..], backend),
            "stats" => Ok(memory_stats(backend)),
            "doctor" => Ok(Reply::Verbatim("txt", Bytes::from(memory_doctor(backend)))),
            // The allocator gives memory back by itself.
            "purge" => Ok(Reply::OK),
            "malloc-stats" => Ok(Reply::bulk("Stats not supported for the current allocator")),
            _ => Ok(help(help::MEMORY)),
        }
    }

    /// What a key's row takes. Read by the log's clock: a key whose deadline has passed counts until
    /// a clock entry says so.
    fn memory_usage(&mut self, rest: &[Bytes], backend: &dyn Backend) -> Result<Reply, Reply> {
        let key = &rest[0];
        match &rest[1..] {
            [] => (),
            [option, samples] if is(option, "SAMPLES") => {
                if integer_argument(samples)? < 0 {
                    return Err(SYNTAX);
                }
            }
            _ => return Err(SYNTAX),
        }
        let mut result = Ok(None);
        let read = |rows: &dyn Rows| -> Result<Option<usize>, StoreError> {
            let view = View::open(rows, self.db, 0, 0)?;
            let found = view.find(key).map_err(ReadError::of_unlimited)?;
            Ok(found.map(|stored| key.len() + HEADER_BYTES + stored.header.size as usize))
        };
        let viewed = backend.with_rows(&mut |rows| result = read(rows));
        let permitted = viewed.and_then(|index| match self.read_only {
            true => self.check_at_least(index),
            false => backend.lease(index),
        });
        if let Err(refusal) = permitted {
            return Err(super::for_a_read(refusal).reply(Some(key)));
        }
        match result {
            Ok(bytes) => Ok(bytes.map_or(Reply::Null, |bytes| Reply::Integer(bytes as i64))),
            Err(error) => {
                backend.store_failed(error);
                Err(Refusal::Loading.reply(Some(key)))
            }
        }
    }

    fn shutdown(&self, args: &[Bytes], backend: &dyn Backend) -> Result<Reply, Reply> {
        let given = |name: &str| args[1..].iter().any(|option| is(option, name));
        let known = ["NOSAVE", "SAVE", "NOW", "FORCE", "ABORT"];
        let all_known = args[1..].iter().all(|option| known.iter().any(|known| is(option, known)));
        let others = ["NOSAVE", "SAVE", "NOW", "FORCE"].iter().any(|name| given(name));
        if !all_known || (given("ABORT") && others) || (given("SAVE") && given("NOSAVE")) {
            return Err(SYNTAX);
        }
        if given("ABORT") {
            return Err(Reply::error("ERR No shutdown in progress."));
        }
        // Every acknowledged update is on disk already, so there is nothing to save or to force.
        backend.shut_down();
        Ok(Reply::OK)
    }

    fn write_head(&self, status: &'static str, backend: &dyn Backend) -> Result<Reply, Reply> {
        match backend.write_head() {
            Ok(()) => Ok(Reply::Simple(status.into())),
            Err(refusal) => Err(refusal.reply(None)),
        }
    }
}

fn not_allowed(command: &str, option: &str) -> Reply {
    Reply::error(format!(
        "ERR {command} command not allowed. If the {option} option is set to \"local\", you can run \
         it from a local connection, otherwise you need to set this option in the configuration \
         file, and then restart the server."
    ))
}

/// Redis' error where a container itself looks at the number of arguments.
pub(super) fn subcommand_syntax(container: &str, subcommand: &[u8]) -> Reply {
    let subcommand = shown(subcommand);
    Reply::error(format!(
        "ERR unknown subcommand or wrong number of arguments for '{subcommand}'. Try {container} \
         HELP."
    ))
}

/// Pairs of a name and a value.
pub(super) fn map<const N: usize>(pairs: [(&'static str, Reply); N]) -> Reply {
    Reply::Map(pairs.map(|(name, value)| (Reply::bulk(name), value)).to_vec())
}

/// The parts of the process that are known; all else is one number.
fn memory_stats(backend: &dyn Backend) -> Reply {
    let info = backend.info();
    let integer = |number: u64| Reply::Integer(number as i64);
    let keys: u64 = info
        .more
        .iter()
        .find(|(name, _)| name == "keys")
        .map_or(0, |(_, n)| n.parse().unwrap_or(0));
    let part = info.layers_bytes as f64 * 100.0 / info.memory_bytes.max(1) as f64;
    map([
        ("peak.allocated", integer(info.memory_peak_bytes)),
        ("total.allocated", integer(info.memory_bytes)),
        ("replication.backlog", integer(0)),
        ("clients.slaves", integer(0)),
        ("clients.normal", integer(0)),
        ("aof.buffer", integer(0)),
        ("overhead.total", integer(info.memory_bytes.saturating_sub(info.layers_bytes))),
        ("keys.count", integer(keys)),
        ("keys.bytes-per-key", integer(info.layers_bytes.checked_div(keys).unwrap_or(0))),
        ("dataset.bytes", integer(info.layers_bytes)),
        ("dataset.percentage", Reply::Double(part)),
        (
            "peak.percentage",
            Reply::Double(info.memory_bytes as f64 * 100.0 / info.memory_peak_bytes.max(1) as f64),
        ),
    ])
}

fn memory_doctor(backend: &dyn Backend) -> String {
    let info = backend.info();
    let mib = |bytes: u64| bytes >> 20;
    let (used, layers) = (mib(info.memory_bytes), mib(info.layers_bytes));
    let mut text = format!(
        "The process uses {used} MiB, {layers} of them for rows that are not on disk in the store \
         yet.\n"
    );
    if info.memory_total_bytes > 0 && info.memory_bytes > info.memory_total_bytes / 10 * 8 {
        text.push_str("That is more than 80 % of the machine: lower `cache` in the config file.\n");
    } else {
        text.push_str("That leaves the machine room enough.\n");
    }
    text
}

/// A few arcs, and the version.
fn lolwut(args: &[Bytes]) -> Result<Reply, Reply> {
    if let [option, version, ..] = &args[1..]
        && is(option, "VERSION")
        && integer(version).is_none()
    {
        return Err(crate::command::parse::NOT_AN_INTEGER);
    }
    let mut text = String::new();
    for row in 0..9i32 {
        for column in 0..33i32 {
            let (x, y) = (column - 16, (8 - row) * 2);
            let distance = x * x + y * y;
            text.push(if distance < 17 * 17 && distance % 80 < 34 { '#' } else { ' ' });
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text.push_str(&format!(
        "\nArakoon {}, as Redis ver. {}\n",
        env!("CARGO_PKG_VERSION"),
        info::REDIS_VERSION
    ));
    Ok(Reply::Verbatim("txt", Bytes::from(text)))
}
