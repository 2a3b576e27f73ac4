//! CONFIG: the settings that Redis clients and tools ask for, under Redis' names, with what is true
//! here. Those in [`Parameters`] can be changed while the node runs and are back at their defaults
//! when it starts anew; all others come from the config file or are what the program does.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use resp::Reply;

use super::registry::ClientRegistry;
use super::{NodeInfo, info};
use crate::command::glob;
use crate::command::parse::{PAIR_BYTES_LIMIT, SYNTAX, integer, is, shown};
use crate::store::keyspace::DATABASES;

/// Settings that CONFIG SET changes.
#[derive(Debug)]
pub struct Parameters {
    slowlog_slower_than_us: AtomicI64,
    slowlog_entries_max: AtomicI64,
    latency_threshold_ms: AtomicI64,
    latency_tracking: AtomicBool,
    percentiles: Mutex<Vec<f64>>,
    timeout_s: AtomicI64,
    hz: AtomicI64,
    /// What the limit of clients was at the start: as many as there may be open files.
    clients_allowed: AtomicU64,
}

impl Default for Parameters {
    fn default() -> Parameters {
        Parameters {
            slowlog_slower_than_us: AtomicI64::new(10_000),
            slowlog_entries_max: AtomicI64::new(128),
            latency_threshold_ms: AtomicI64::new(0),
            latency_tracking: AtomicBool::new(true),
            percentiles: Mutex::new(vec![50.0, 99.0, 99.9]),
            timeout_s: AtomicI64::new(0),
            hz: AtomicI64::new(10),
            clients_allowed: AtomicU64::new(0),
        }
    }
}

impl Parameters {
    /// Commands that take longer are in SLOWLOG; negative: none.
    pub fn slowlog_slower_than_us(&self) -> i64 {
        self.slowlog_slower_than_us.load(Ordering::Relaxed)
    }

    /// Entries that SLOWLOG keeps.
    pub fn slowlog_entries_max(&self) -> usize {
        usize::try_from(self.slowlog_entries_max.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Events that take longer are in LATENCY; 0: none.
    pub fn latency_threshold_ms(&self) -> i64 {
        self.latency_threshold_ms.load(Ordering::Relaxed)
    }

    /// Whether INFO shows how long each command took.
    pub fn latency_tracking(&self) -> bool {
        self.latency_tracking.load(Ordering::Relaxed)
    }

    /// Which percentiles of it.
    pub fn percentiles(&self) -> Vec<f64> {
        self.percentiles.lock().clone()
    }

    /// Clients that say nothing for so long are parted from; 0: never.
    pub fn timeout_s(&self) -> u64 {
        u64::try_from(self.timeout_s.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// How often in a second rates are sampled and idle clients looked for.
    pub fn hz(&self) -> u64 {
        u64::try_from(self.hz.load(Ordering::Relaxed)).unwrap_or(1)
    }
}

/// What values are made of.
struct Facts<'a> {
    node: &'a NodeInfo,
    parameters: &'a Parameters,
    registry: Option<&'a ClientRegistry>,
}

/// How a setting may change.
enum Change {
    /// Not in Redis either.
    Immutable,
    /// Redis could change it; here only the value that it has is taken.
    Fixed,
    Number(i64, i64, fn(&Parameters) -> &AtomicI64),
    Switch(fn(&Parameters) -> &AtomicBool),
    Percentiles,
    Clients,
}

struct Setting {
    name: &'static str,
    value: fn(&Facts) -> String,
    change: Change,
}

const fn immutable(name: &'static str, value: fn(&Facts) -> String) -> Setting {
    Setting { name, value, change: Change::Immutable }
}

const fn fixed(name: &'static str, value: fn(&Facts) -> String) -> Setting {
    Setting { name, value, change: Change::Fixed }
}

const fn number(
    name: &'static str,
    least: i64,
    most: i64,
    value: fn(&Facts) -> String,
    place: fn(&Parameters) -> &AtomicI64,
) -> Setting {
    Setting { name, value, change: Change::Number(least, most, place) }
}

fn nothing(_: &Facts) -> String {
    String::new()
}

fn yes(_: &Facts) -> String {
    "yes".to_owned()
}

fn no(_: &Facts) -> String {
    "no".to_owned()
}

fn zero(_: &Facts) -> String {
    "0".to_owned()
}

/// Other nodes that have an update on disk before it is acknowledged.
fn replicas_to_write(facts: &Facts) -> String {
    facts.node.peers.len().div_ceil(2).to_string()
}

/// By name.
static SETTINGS: &[Setting] = &[
    immutable("aclfile", nothing),
    fixed("activedefrag", no),
    fixed("activerehashing", no),
    immutable("always-show-logo", no),
    fixed("aof-use-rdb-preamble", yes),
    fixed("appendfsync", |_| "always".to_owned()),
    fixed("appendonly", yes),
    fixed("bind", |facts| info::host_and_port(&facts.node.address).0.to_owned()),
    // As a soft limit it is what connections do: so much may wait for so many seconds.
    fixed("client-output-buffer-limit", |_| {
        let limits = super::limits::ConnectionLimits::default();
        let (bytes, seconds) = (limits.output_bytes_max, limits.drain_timeout.as_secs());
        format!("normal 0 {bytes} {seconds} slave 0 0 0 pubsub 0 {bytes} {seconds}")
    }),
    immutable("cluster-enabled", yes),
    immutable("daemonize", no),
    immutable("databases", |_| DATABASES.to_string()),
    fixed("dir", |facts| facts.node.directory.clone()),
    fixed("dynamic-hz", no),
    immutable("enable-debug-command", |facts| facts.node.debug_command.name().to_owned()),
    immutable("enable-module-command", no),
    immutable("enable-protected-configs", no),
    number("hz", 1, 500, |facts| facts.parameters.hz().to_string(), |it| &it.hz),
    immutable("io-threads", |_| {
        std::thread::available_parallelism().map_or(1, |threads| threads.get()).to_string()
    }),
    number(
        "latency-monitor-threshold",
        0,
        i64::MAX,
        |facts| facts.parameters.latency_threshold_ms().to_string(),
        |it| &it.latency_threshold_ms,
    ),
    Setting {
        name: "latency-tracking",
        value: |facts| if facts.parameters.latency_tracking() { "yes" } else { "no" }.to_owned(),
        change: Change::Switch(|it| &it.latency_tracking),
    },
    Setting {
        name: "latency-tracking-info-percentiles",
        value: |facts| {
            let percentiles = facts.parameters.percentiles();
            percentiles.iter().map(f64::to_string).collect::<Vec<_>>().join(" ")
        },
        change: Change::Percentiles,
    },
    fixed("lazyfree-lazy-user-flush", yes),
    immutable("logfile", nothing),
    fixed("masterauth", nothing),
    fixed("masteruser", nothing),
    Setting {
        name: "maxclients",
        value: |facts| {
            let known = facts.registry.map(|registry| registry.clients_max() as u64);
            known.unwrap_or(facts.node.clients_max).to_string()
        },
        change: Change::Clients,
    },
    fixed("maxmemory", zero),
    fixed("maxmemory-clients", zero),
    fixed("maxmemory-policy", |_| "noeviction".to_owned()),
    // Nothing is evicted, so nothing is looked at for it.
    fixed("maxmemory-samples", zero),
    fixed("min-replicas-to-write", replicas_to_write),
    fixed("min-slaves-to-write", replicas_to_write),
    fixed("no-appendfsync-on-rewrite", no),
    fixed("notify-keyspace-events", nothing),
    fixed("oom-score-adj", no),
    immutable("pidfile", nothing),
    fixed("port", |facts| info::host_and_port(&facts.node.address).1.to_owned()),
    fixed("protected-mode", no),
    fixed("proto-max-bulk-len", |_| PAIR_BYTES_LIMIT.to_string()),
    immutable("rdbchecksum", yes),
    fixed("rdbcompression", yes),
    fixed("replica-read-only", yes),
    fixed("replica-serve-stale-data", yes),
    immutable("replicaof", nothing),
    fixed("requirepass", nothing),
    fixed("save", nothing),
    immutable("set-proc-title", no),
    fixed("slave-read-only", yes),
    fixed("slave-serve-stale-data", yes),
    immutable("slaveof", nothing),
    number(
        "slowlog-log-slower-than",
        -1,
        i64::MAX,
        |facts| facts.parameters.slowlog_slower_than_us().to_string(),
        |it| &it.slowlog_slower_than_us,
    ),
    number(
        "slowlog-max-len",
        0,
        i64::MAX,
        |facts| facts.parameters.slowlog_entries_max().to_string(),
        |it| &it.slowlog_entries_max,
    ),
    fixed("stop-writes-on-bgsave-error", no),
    immutable("supervised", no),
    immutable("syslog-enabled", no),
    fixed("tcp-keepalive", zero),
    number(
        "timeout",
        0,
        i32::MAX as i64,
        |facts| facts.parameters.timeout_s().to_string(),
        |it| &it.timeout_s,
    ),
    fixed("tls-port", zero),
    immutable("unixsocket", nothing),
    immutable("unixsocketperm", zero),
];

/// A value that passed its check, and where it goes.
enum New {
    Same,
    Number(&'static Setting, i64),
    Switch(&'static Setting, bool),
    Percentiles(Vec<f64>),
    Clients(usize),
}

impl Parameters {
    /// CONFIG GET with these patterns.
    pub(super) fn get(
        &self,
        patterns: &[Bytes],
        node: &NodeInfo,
        registry: Option<&ClientRegistry>,
    ) -> Reply {
        let facts = Facts { node, parameters: self, registry };
        let patterns: Vec<Vec<u8>> = patterns.iter().map(|it| it.to_ascii_lowercase()).collect();
        let asked = |name: &str| patterns.iter().any(|it| glob::matches_name(it, name));
        let found = SETTINGS.iter().filter(|setting| asked(setting.name));
        let pair = |it: &Setting| (Reply::bulk(it.name), Reply::bulk((it.value)(&facts)));
        Reply::Map(found.map(pair).collect())
    }

    /// CONFIG SET with these names and values: all are changed, or none.
    pub(super) fn set(
        &self,
        pairs: &[Bytes],
        node: &NodeInfo,
        registry: Option<&ClientRegistry>,
    ) -> Result<(), Reply> {
        if !pairs.len().is_multiple_of(2) {
            return Err(SYNTAX);
        }
        let mut found: Vec<(&'static Setting, &Bytes)> = Vec::new();
        let mut refused = None;
        for pair in pairs.chunks(2) {
            // A name that is not known counts before other mistakes, wherever it stands.
            let Some(setting) = SETTINGS.iter().find(|setting| is(&pair[0], setting.name)) else {
                let name = shown(&pair[0]);
                return Err(Reply::error(format!(
                    "ERR Unknown option or number of arguments for CONFIG SET - '{name}'"
                )));
            };
            if matches!(setting.change, Change::Immutable) {
                refused.get_or_insert_with(|| failed(&pair[0], IMMUTABLE));
            } else if found.iter().any(|(other, _)| other.name == setting.name) {
                refused.get_or_insert_with(|| failed(&pair[0], "duplicate parameter"));
            }
            found.push((setting, &pair[1]));
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        let facts = Facts { node, parameters: self, registry };
        let parse = |(setting, value): &(&'static Setting, &Bytes)| {
            let new = self.parse(setting, value, &facts);
            new.map_err(|reason| failed(setting.name.as_bytes(), &reason))
        };
        let new = found.iter().map(parse).collect::<Result<Vec<New>, Reply>>()?;
        new.into_iter().for_each(|new| self.apply(new, registry));
        Ok(())
    }

    fn parse(
        &self,
        setting: &'static Setting,
        value: &Bytes,
        facts: &Facts,
    ) -> Result<New, String> {
        match setting.change {
            Change::Immutable | Change::Fixed => match value == (setting.value)(facts).as_bytes() {
                true => Ok(New::Same),
                false => Err(IMMUTABLE.to_owned()),
            },
            Change::Number(least, most, _) => {
                Ok(New::Number(setting, number_between(value, least, most)?))
            }
            Change::Switch(_) => match value {
                _ if is(value, "yes") => Ok(New::Switch(setting, true)),
                _ if is(value, "no") => Ok(New::Switch(setting, false)),
                _ => Err("argument must be 'yes' or 'no'".to_owned()),
            },
            Change::Percentiles => percentiles(value).map(New::Percentiles),
            Change::Clients => {
                let clients = number_between(value, 1, i64::from(u32::MAX))? as u64;
                let allowed = match self.clients_allowed.load(Ordering::Relaxed) {
                    0 => facts.node.clients_max,
                    allowed => allowed,
                };
                match clients <= allowed && facts.registry.is_some() {
                    true => Ok(New::Clients(clients as usize)),
                    false => Err(format!(
                        "The operating system is not able to handle the specified number of \
                         clients, try with {allowed}"
                    )),
                }
            }
        }
    }

    fn apply(&self, new: New, registry: Option<&ClientRegistry>) {
        match new {
            New::Same => (),
            New::Number(setting, value) => {
                if let Change::Number(_, _, place) = setting.change {
                    place(self).store(value, Ordering::Relaxed);
                }
            }
            New::Switch(setting, value) => {
                if let Change::Switch(place) = setting.change {
                    place(self).store(value, Ordering::Relaxed);
                }
            }
            New::Percentiles(percentiles) => *self.percentiles.lock() = percentiles,
            New::Clients(clients) => {
                if let Some(registry) = registry {
                    registry.set_clients_max(clients);
                }
            }
        }
    }

    /// No more clients than these can be allowed.
    pub(super) fn set_clients_allowed(&self, clients: u64) {
        self.clients_allowed.store(clients, Ordering::Relaxed);
    }
}

/// INFO shows each of them for each command.
const PERCENTILES_MAX: usize = 16;

const IMMUTABLE: &str = "can't set immutable config";

fn failed(name: &[u8], reason: &str) -> Reply {
    let name = shown(name);
    Reply::error(format!(
        "ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}"
    ))
}

fn number_between(value: &[u8], least: i64, most: i64) -> Result<i64, String> {
    let number = integer(value).ok_or("argument couldn't be parsed into an integer")?;
    match (least..=most).contains(&number) {
        true => Ok(number),
        false => Err(format!("argument must be between {least} and {most} inclusive")),
    }
}

fn percentiles(value: &[u8]) -> Result<Vec<f64>, String> {
    let text = String::from_utf8_lossy(value);
    if text.split_whitespace().nth(PERCENTILES_MAX).is_some() {
        return Err(format!(
            "latency-tracking-info-percentiles takes at most {PERCENTILES_MAX} parameters"
        ));
    }
    let percentile = |word: &str| {
        let number: f64 = word
            .parse()
            .map_err(|_| "Invalid latency-tracking-info-percentiles parameters".to_owned())?;
        match (0.0..=100.0).contains(&number) {
            true => Ok(number),
            false => Err("latency-tracking-info-percentiles parameters should sit between \
                          [0.0,100.0]"
                .to_owned()),
        }
    };
    text.split_whitespace().map(percentile).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_in_order_and_none_stands_there_twice() {
        assert!(SETTINGS.windows(2).all(|pair| pair[0].name < pair[1].name));
    }

    #[test]
    fn percentiles_are_few() {
        let most = vec!["99.9"; PERCENTILES_MAX].join(" ");
        assert_eq!(percentiles(most.as_bytes()).unwrap(), vec![99.9; PERCENTILES_MAX]);
        assert_eq!(percentiles(b"").unwrap(), Vec::<f64>::new());

        let (parameters, node) = (Parameters::default(), NodeInfo::default());
        let name = "latency-tracking-info-percentiles";
        let pair = [Bytes::from(name), Bytes::from(format!("{most} 50"))];
        let expected = format!(
            "ERR CONFIG SET failed (possibly related to argument '{name}') - {name} takes at most 16 \
             parameters"
        );
        assert_eq!(parameters.set(&pair, &node, None), Err(Reply::error(expected)));
        assert_eq!(parameters.percentiles(), [50.0, 99.0, 99.9], "nothing has changed");
    }

    #[test]
    fn a_setting_takes_what_it_answers_unless_it_is_immutable() {
        let (parameters, node) = (Parameters::default(), NodeInfo::default());
        let facts = Facts { node: &node, parameters: &parameters, registry: None };
        for setting in SETTINGS.iter().filter(|it| !matches!(it.change, Change::Clients)) {
            let pair = [Bytes::from(setting.name), Bytes::from((setting.value)(&facts))];
            let immutable = matches!(setting.change, Change::Immutable);
            let set = parameters.set(&pair, &node, None);
            assert_eq!(set.is_err(), immutable, "{}: {set:?}", setting.name);
        }
    }
}
