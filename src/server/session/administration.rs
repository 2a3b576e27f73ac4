//! CONFIG, SLOWLOG, LATENCY, MEMORY, MODULE, ACL, heads on demand, SHUTDOWN and LOLWUT. The table
//! has checked subcommands and their arity.

use std::io::Read;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use resp::Reply;

use super::help::{self, help};
use super::{Session, Taken};
use crate::command::describe;
use crate::command::parse::{SYNTAX, integer, integer_argument, is, shown};
use crate::command::server::Server;
use crate::command::table::{self, Spec};
use crate::config::Allowed;
use crate::server::{Backend, NodeInfo, Refusal, info};
use crate::store::keyspace::{HEADER_BYTES, ReadError, View};
use crate::store::{Rows, StoreError};

/// How soon SAVE looks again whether the head is there.
const SAVE_PAUSE: Duration = Duration::from_millis(20);
/// SAVE asks again when no head was being written for so long: the node may not have led for a
/// moment, or may have had no room. It is also ample for a head that is written to become known.
const SAVE_ASKS_EVERY_US: u64 = 5_000_000;
/// SAVE gives up when no head was written for so long, and none is being written.
const SAVE_PATIENCE_US: u64 = 60_000_000;
/// SAVE gives up when so many ended that were being written, and none is there.
const SAVE_ENDED_MAX: u32 = 3;
/// Bits of a password that ACL GENPASS makes at most.
const PASSWORD_BITS_MAX: i64 = 4096;

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
            Server::Acl => acl(args),
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

    /// SAVE: asks until this node has a head of a state that includes all before.
    pub(super) fn save(&mut self, out: &mut BytesMut, backend: &dyn Backend) -> Taken {
        if !self.gathered.is_empty() {
            return Taken::Later;
        }
        let permitted = match self.saving {
            None => backend.write_head(),
            Some(_) => backend.may_write(),
        };
        if let Err(refusal) = permitted {
            self.saving = None;
            return self.emit(super::for_a_read(refusal).reply(None), out);
        }
        let (info, now_us) = (backend.info(), self.shared.now_us());
        let saving = self.saving.get_or_insert_with(|| Saving::new(&info, now_us));
        let reply = match saving.look(&info, now_us) {
            SaveStep::Wait => return Taken::Pause(SAVE_PAUSE),
            // Whether it may is looked at anew in the next round.
            SaveStep::Ask => match backend.write_head() {
                Ok(()) => return Taken::Pause(SAVE_PAUSE),
                Err(refusal) => super::for_a_read(refusal).reply(None),
            },
            SaveStep::Done => Reply::OK,
            SaveStep::GiveUp => Reply::error(
                "ERR The head could not be written. See the log of this node, and the free space of \
                 its disk",
            ),
        };
        self.saving = None;
        self.emit(reply, out)
    }
}

/// A SAVE that has asked for a head.
#[derive(Debug)]
pub(super) struct Saving {
    /// The head is to reach this index.
    wanted: u64,
    /// The newest head when it was looked at last.
    newest: u64,
    /// When this SAVE began, or the newest head came since.
    since_us: u64,
    /// When it last asked, or saw that one is being written.
    quiet_since_us: u64,
    in_progress: bool,
    /// How many have ended since the newest came.
    ended: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum SaveStep {
    Wait,
    Ask,
    Done,
    GiveUp,
}

impl Saving {
    fn new(info: &NodeInfo, now_us: u64) -> Saving {
        Saving {
            wanted: info.applied_index,
            newest: info.head_index,
            since_us: now_us,
            quiet_since_us: now_us,
            in_progress: false,
            ended: 0,
        }
    }

    fn look(&mut self, info: &NodeInfo, now_us: u64) -> SaveStep {
        if info.head_index >= self.wanted {
            return SaveStep::Done;
        }
        let was_in_progress = std::mem::replace(&mut self.in_progress, info.head_in_progress);
        if info.head_index != self.newest {
            // One that had been asked for before; while it was to come, none else was.
            self.newest = info.head_index;
            (self.since_us, self.quiet_since_us) = (now_us, now_us);
            self.ended = 0;
            return SaveStep::Ask;
        }
        if info.head_in_progress {
            self.quiet_since_us = now_us;
            return SaveStep::Wait;
        }
        self.ended += u32::from(was_in_progress);
        if self.ended >= SAVE_ENDED_MAX {
            return SaveStep::GiveUp;
        }
        if now_us.saturating_sub(self.quiet_since_us) < SAVE_ASKS_EVERY_US {
            return SaveStep::Wait;
        }
        if now_us.saturating_sub(self.since_us) >= SAVE_PATIENCE_US {
            return SaveStep::GiveUp;
        }
        self.quiet_since_us = now_us;
        SaveStep::Ask
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
fn map<const N: usize>(pairs: [(&'static str, Reply); N]) -> Reply {
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

fn acl(args: &[Bytes]) -> Result<Reply, Reply> {
    const USER: &str = "default";
    let name = String::from_utf8_lossy(&args[1]).to_ascii_lowercase();
    let rest = &args[2..];
    match name.as_str() {
        "whoami" => Ok(Reply::bulk(USER)),
        "users" => Ok(Reply::Array(vec![Reply::bulk(USER)])),
        "list" => {
            let text = "user default on nopass sanitize-payload ~* &* +@all";
            Ok(Reply::Array(vec![Reply::bulk(text)]))
        }
        "getuser" if rest[0] != USER => Ok(Reply::Null),
        "getuser" => Ok(map([
            ("flags", Reply::Set(["on", "nopass", "sanitize-payload"].map(Reply::bulk).to_vec())),
            ("passwords", Reply::Array(Vec::new())),
            ("commands", Reply::bulk("+@all")),
            ("keys", Reply::bulk("~*")),
            ("channels", Reply::bulk("&*")),
            ("selectors", Reply::Array(Vec::new())),
        ])),
        "cat" => match rest {
            [] => Ok(Reply::Array(describe::CATEGORIES.iter().copied().map(Reply::bulk).collect())),
            [category] => {
                let category = String::from_utf8_lossy(category).to_ascii_lowercase();
                let known = describe::CATEGORIES.contains(&category.as_str());
                match known {
                    true => Ok(describe::list_category(&category)),
                    false => {
                        let shown = shown(&rest[0]);
                        Err(Reply::error(format!("ERR Unknown category '{shown}'")))
                    }
                }
            }
            _ => Err(subcommand_syntax("ACL", &args[1])),
        },
        "genpass" => password(rest, &args[1]),
        "log" => match rest {
            [] => Ok(Reply::Array(Vec::new())),
            [option] if is(option, "RESET") => Ok(Reply::OK),
            [count] => integer_argument(count).map(|_| Reply::Array(Vec::new())),
            _ => Err(subcommand_syntax("ACL", &args[1])),
        },
        "deluser" => match rest.iter().any(|user| user == USER) {
            true => Err(Reply::error("ERR The 'default' user cannot be removed")),
            false => Ok(Reply::Integer(0)),
        },
        "dryrun" => dry_run(rest),
        "load" | "save" => Err(Reply::error(
            "ERR This Redis instance is not configured to use an ACL file. You may want to specify \
             users via the ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a \
             Redis configuration file set) in order to store users in the Redis configuration.",
        )),
        "setuser" => {
            Err(Reply::error("ERR ACL SETUSER is not supported: the only user is default"))
        }
        _ => Ok(help(help::ACL)),
    }
}

fn dry_run(rest: &[Bytes]) -> Result<Reply, Reply> {
    let (user, call) = (&rest[0], &rest[1..]);
    if user != "default" {
        return Err(Reply::error(format!("ERR User '{}' not found", shown(user))));
    }
    let Some(spec) = table::find(&call[0]) else {
        return Err(Reply::error(format!("ERR Command '{}' not found", shown(&call[0]))));
    };
    spec.check_arity(call).map(|()| Reply::OK)
}

/// Random hexadecimal digits that nobody can guess.
fn password(rest: &[Bytes], subcommand: &[u8]) -> Result<Reply, Reply> {
    let bits = match rest {
        [] => 256,
        [bits] => integer_argument(bits)?,
        _ => return Err(subcommand_syntax("ACL", subcommand)),
    };
    if !(1..=PASSWORD_BITS_MAX).contains(&bits) {
        return Err(Reply::error(format!(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a \
             positive number up to {PASSWORD_BITS_MAX}"
        )));
    }
    let digits = (bits as usize).div_ceil(4);
    let mut random = vec![0; digits.div_ceil(2)];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut it| it.read_exact(&mut random));
    if read.is_err() {
        return Err(Reply::error("ERR this machine has no source of randomness"));
    }
    let mut text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    text.truncate(digits);
    Ok(Reply::bulk(text))
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

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;

    fn node(head_index: u64, head_in_progress: bool) -> NodeInfo {
        NodeInfo { applied_index: 10, head_index, head_in_progress, ..NodeInfo::default() }
    }

    #[test]
    fn save_asks_again_and_gives_up_when_no_head_comes() {
        let mut saving = Saving::new(&node(4, false), 0);
        let mut asked = Vec::new();
        let gave_up_s = (0..1000).find(|second| match saving.look(&node(4, false), second * S) {
            SaveStep::Ask => {
                asked.push(*second);
                false
            }
            step => step == SaveStep::GiveUp,
        });
        assert_eq!(gave_up_s, Some(60));
        assert_eq!(asked, (5..60).step_by(5).collect::<Vec<_>>());
    }

    #[test]
    fn save_has_patience_while_a_head_is_being_written() {
        let mut saving = Saving::new(&node(4, false), 0);
        for second in 0..1000 {
            assert_eq!(saving.look(&node(4, true), second * S), SaveStep::Wait);
        }
        assert_eq!(saving.look(&node(4, false), 1000 * S), SaveStep::Wait, "not known yet");
        assert_eq!(saving.look(&node(10, false), 1001 * S), SaveStep::Done);
    }

    #[test]
    fn save_asks_at_once_when_an_earlier_head_is_there() {
        let mut saving = Saving::new(&node(4, true), 0);
        assert_eq!(saving.look(&node(4, true), 100 * S), SaveStep::Wait);
        assert_eq!(saving.look(&node(7, false), 101 * S), SaveStep::Ask);
        assert_eq!(saving.look(&node(7, false), 102 * S), SaveStep::Wait);
        assert_eq!(saving.look(&node(10, false), 103 * S), SaveStep::Done);
    }

    #[test]
    fn save_gives_up_when_heads_fail_one_after_the_other() {
        let mut saving = Saving::new(&node(4, false), 0);
        for round in 0..3 {
            assert_eq!(saving.look(&node(4, true), 2 * round * S), SaveStep::Wait);
            let step = saving.look(&node(4, false), (2 * round + 1) * S);
            assert_eq!(step, if round < 2 { SaveStep::Wait } else { SaveStep::GiveUp });
        }
    }
}
