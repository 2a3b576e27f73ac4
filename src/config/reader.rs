//! From the text of a config file to a [`Config`], with an error for each mistake.
//!
//! The tables are walked by hand, not derived: so every error has its line and says what to write.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{
    Allowed, CACHE_BYTES_DEFAULT, ClusterConfig, Config, ConfigError, DISK_RESERVE_BYTES_DEFAULT,
    EngineKind, HEAD_EVERY_BYTES_DEFAULT, LEASE_DEFAULT, LEASE_MAX, LEASE_MIN,
    LOG_KEEP_BYTES_DEFAULT, LOG_SEGMENT_BYTES_DEFAULT, NODES_MAX, NodeConfig,
};

const TOP_KEYS: &[&str] = &["cluster", "node"];
const CLUSTER_KEYS: &[&str] = &[
    "id",
    "lease",
    "head_every",
    "log_segment",
    "log_keep",
    "disk_reserve",
    "enable_debug_command",
];
const NODE_KEYS: &[&str] =
    &["name", "client", "advertise", "peer", "dir", "zone", "cache", "engine", "keep_awake"];

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const TIB: u64 = 1024 * GIB;

/// Bytes of name, id and zone at most.
const NAME_BYTES_MAX: usize = 64;

pub(super) fn read(file: &Path, text: &str) -> Result<Config, ConfigError> {
    Reader { file, text }.config()
}

struct Reader<'a> {
    file: &'a Path,
    text: &'a str,
}

/// A table with the place where its keys would have to be written.
struct Table<'a> {
    title: &'static str,
    entries: &'a DeTable<'a>,
    span: Range<usize>,
}

impl<'a> Table<'a> {
    fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.entries.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }
}

type Checked<T> = Result<T, ConfigError>;

impl<'a> Reader<'a> {
    fn config(&self) -> Checked<Config> {
        let document = DeTable::parse(self.text).map_err(|error| match error.span() {
            Some(span) => self.error(span, format!("not TOML: {}", error.message())),
            None => self.whole_file(format!("not TOML: {}", error.message())),
        })?;
        let top = Table { title: "the file", entries: document.get_ref(), span: 0..0 };
        self.refuse_unknown(&top, TOP_KEYS)?;

        let cluster = match top.get("cluster") {
            None => {
                return Err(self.whole_file(
                    "no [cluster] table; write [cluster] and below it id = \"demo\"".to_string(),
                ));
            }
            Some(value) => self.cluster(&self.table("[cluster]", value)?)?,
        };
        let nodes = match top.get("node") {
            None => {
                return Err(self.whole_file(
                    "no nodes; write one [[node]] table for each, with name, client, peer and dir"
                        .to_string(),
                ));
            }
            Some(value) => self.nodes(value)?,
        };
        Ok(Config { cluster, nodes })
    }

    fn cluster(&self, table: &Table<'a>) -> Checked<ClusterConfig> {
        self.refuse_unknown(table, CLUSTER_KEYS)?;
        let (id, _) = self.name(table, "id", "demo")?;
        Ok(ClusterConfig {
            id,
            lease: self.lease(table)?,
            head_every_bytes: self.bytes(
                table,
                "head_every",
                HEAD_EVERY_BYTES_DEFAULT,
                64 * KIB..=TIB,
            )?,
            log_segment_bytes: self.bytes(
                table,
                "log_segment",
                LOG_SEGMENT_BYTES_DEFAULT,
                64 * KIB..=4 * GIB,
            )?,
            log_keep_bytes: self.bytes(table, "log_keep", LOG_KEEP_BYTES_DEFAULT, 0..=TIB)?,
            disk_reserve_bytes: self.bytes(
                table,
                "disk_reserve",
                DISK_RESERVE_BYTES_DEFAULT,
                16 * MIB..=TIB,
            )?,
            debug_command: self.debug_command(table)?,
        })
    }

    fn nodes(&self, value: &'a Spanned<DeValue<'a>>) -> Checked<Vec<NodeConfig>> {
        let Some(tables) = value.get_ref().as_array() else {
            return Err(self.error(
                value.span(),
                "[node] must be a list; write [[node]] with two brackets".to_string(),
            ));
        };
        if tables.is_empty() || tables.len() > NODES_MAX {
            return Err(self.error(
                value.span(),
                format!("{} nodes; write 1 to {NODES_MAX}, best 3 or 5", tables.len()),
            ));
        }
        let mut seen = Seen::default();
        let mut nodes: Vec<NodeConfig> = Vec::new();
        let mut zones = Vec::new();
        for value in tables.iter() {
            let table = self.table("[[node]]", value)?;
            let node = self.node(&table, &mut seen)?;
            zones.push((table.span.clone(), node.zone.is_some()));
            nodes.push(node);
        }
        if zones.iter().any(|(_, has_zone)| *has_zone)
            && let Some(at) = zones.iter().position(|(_, has_zone)| !has_zone)
        {
            return Err(self.error(
                zones[at].0.clone(),
                format!(
                    "node \"{}\" has no zone but others have; write zone = \"...\" in every \
                     [[node]] or in none",
                    nodes[at].name
                ),
            ));
        }
        Ok(nodes)
    }

    fn node(&self, table: &Table<'a>, seen: &mut Seen) -> Checked<NodeConfig> {
        self.refuse_unknown(table, NODE_KEYS)?;
        let (name, span) = self.name(table, "name", "n1")?;
        self.once(seen, "name", &name, span)?;
        let advertise = match table.get("advertise") {
            None => None,
            Some(_) => {
                let (advertise, span) = self.address(table, "advertise", "db1.example:4000")?;
                self.once(seen, "address", &advertise, span)?;
                Some(advertise)
            }
        };
        let (client, span) = match advertise {
            None => self.address(table, "client", "127.0.0.1:4000")?,
            Some(_) => self.listening_address(table, "client", "0.0.0.0:4000")?,
        };
        // Nodes on machines of their own may all listen on 0.0.0.0:4000.
        if !is_unspecified(&client) && advertise.as_ref() != Some(&client) {
            self.once(seen, "address", &client, span)?;
        }
        let (peer, span) = self.address(table, "peer", "127.0.0.1:4500")?;
        self.once(seen, "address", &peer, span)?;
        let (dir, span) = self.required(table, "dir", "data/n1")?;
        if dir.is_empty() {
            return Err(self.error(span, "dir is empty; write for example \"data/n1\"".into()));
        }
        self.once(seen, "dir", dir, span)?;
        let zone = match table.get("zone") {
            None => None,
            Some(_) => Some(self.name(table, "zone", "dc1")?.0),
        };
        let engine = match table.get("engine") {
            None => EngineKind::Sled,
            Some(_) => match self.required(table, "engine", "sled")? {
                ("sled", _) => EngineKind::Sled,
                ("fjall", _) => EngineKind::Fjall,
                (other, span) => {
                    let message = format!("no engine \"{other}\"; write \"sled\" or \"fjall\"");
                    return Err(self.error(span, message));
                }
            },
        };
        Ok(NodeConfig {
            name,
            client,
            advertise,
            peer,
            dir: self.file.parent().unwrap_or(Path::new("")).join(dir),
            zone,
            cache_bytes: self.bytes(table, "cache", CACHE_BYTES_DEFAULT, MIB..=TIB)?,
            engine,
            keep_awake: self.flag(table, "keep_awake", true)?,
        })
    }

    fn flag(&self, table: &Table<'a>, key: &str, default: bool) -> Checked<bool> {
        let Some(value) = table.get(key) else { return Ok(default) };
        value
            .get_ref()
            .as_bool()
            .ok_or_else(|| self.error(value.span(), format!("{key} must be true or false")))
    }

    fn lease(&self, table: &Table<'a>) -> Checked<Duration> {
        let Some(value) = table.get("lease") else { return Ok(LEASE_DEFAULT) };
        let wrong = |what: String| {
            self.error(value.span(), format!("lease {what}; write for example \"500ms\" or \"2s\""))
        };
        let Some(text) = value.get_ref().as_str() else {
            return Err(wrong("must be text with a unit".to_string()));
        };
        let lease = humantime::parse_duration(text)
            .map_err(|error| wrong(format!("\"{text}\" is not a duration ({error})")))?;
        if lease < LEASE_MIN || lease > LEASE_MAX {
            return Err(wrong(format!("\"{text}\" is not between 100ms and 60s")));
        }
        Ok(lease)
    }

    fn debug_command(&self, table: &Table<'a>) -> Checked<Allowed> {
        const KEY: &str = "enable_debug_command";
        if table.get(KEY).is_none() {
            return Ok(Allowed::No);
        }
        let (word, span) = self.required(table, KEY, "local")?;
        let all = [Allowed::No, Allowed::Yes, Allowed::Local];
        let found = all.into_iter().find(|allowed| allowed.name() == word);
        found.ok_or_else(|| {
            self.error(span, format!("{KEY} \"{word}\"; write \"no\", \"yes\" or \"local\""))
        })
    }

    fn bytes(
        &self,
        table: &Table<'a>,
        key: &str,
        default: u64,
        allowed: std::ops::RangeInclusive<u64>,
    ) -> Checked<u64> {
        let Some(value) = table.get(key) else { return Ok(default) };
        let wrong = |what: String| {
            self.error(value.span(), format!("{key} {what}; write for example \"64MiB\""))
        };
        let Some(text) = value.get_ref().as_str() else {
            return Err(wrong("must be text with a unit".to_string()));
        };
        let Some(bytes) = parse_bytes(text) else {
            return Err(wrong(format!("\"{text}\" is not a size in B, KiB, MiB or GiB")));
        };
        if !allowed.contains(&bytes) {
            return Err(wrong(format!(
                "\"{text}\" is not between {} and {}",
                format_bytes(*allowed.start()),
                format_bytes(*allowed.end())
            )));
        }
        Ok(bytes)
    }

    /// A required word of letters, digits, `-`, `_` and `.`: it appears in logs, tables and INFO.
    fn name(&self, table: &Table<'a>, key: &str, example: &str) -> Checked<(String, Range<usize>)> {
        let (text, span) = self.required(table, key, example)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.chars().all(plain) {
            return Err(self.error(
                span,
                format!(
                    "{key} {text:?} is not 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' or \
                     '.'; write for example \"{example}\""
                ),
            ));
        }
        Ok((text.to_string(), span))
    }

    /// One that a node may listen on.
    fn listening_address(
        &self,
        table: &Table<'a>,
        key: &str,
        example: &str,
    ) -> Checked<(String, Range<usize>)> {
        let (text, span) = self.required(table, key, example)?;
        let wrong = |why: &str| {
            self.error(
                span.clone(),
                format!("{key} \"{text}\" {why}; write host:port, for example \"{example}\""),
            )
        };
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(wrong("has no port"));
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host_is_well_formed = match bare {
            Some(bare) => bare.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty()
                    && host.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            }
        };
        if !host_is_well_formed {
            return Err(wrong("has no valid host"));
        }
        if !port.parse::<u16>().is_ok_and(|port| port > 0) {
            return Err(wrong("has no port between 1 and 65535"));
        }
        Ok((text.to_string(), span))
    }

    /// One that others connect to.
    fn address(
        &self,
        table: &Table<'a>,
        key: &str,
        example: &str,
    ) -> Checked<(String, Range<usize>)> {
        let (text, span) = self.listening_address(table, key, example)?;
        if is_unspecified(&text) {
            let why = format!(
                "{key} \"{text}\" is no address that others can connect to; write host:port, for \
                 example \"{example}\""
            );
            return Err(self.error(span, why));
        }
        Ok((text, span))
    }

    fn required(
        &self,
        table: &Table<'a>,
        key: &str,
        example: &str,
    ) -> Checked<(&'a str, Range<usize>)> {
        let Some(value) = table.get(key) else {
            return Err(self.error(
                table.span.clone(),
                format!("{} has no {key}; write for example {key} = \"{example}\"", table.title),
            ));
        };
        match value.get_ref().as_str() {
            Some(text) => Ok((text, value.span())),
            None => Err(self.error(
                value.span(),
                format!("{key} must be text; write for example {key} = \"{example}\""),
            )),
        }
    }

    fn once(
        &self,
        seen: &mut Seen,
        what: &'static str,
        text: &str,
        span: Range<usize>,
    ) -> Checked<()> {
        let line = self.line(&span);
        match seen.0.insert((what, text.to_string()), line) {
            None => Ok(()),
            Some(first) => Err(self.error(
                span,
                format!("{what} \"{text}\" is used on line {first} already; write another one"),
            )),
        }
    }

    fn table(&self, title: &'static str, value: &'a Spanned<DeValue<'a>>) -> Checked<Table<'a>> {
        match value.get_ref().as_table() {
            Some(entries) => Ok(Table { title, entries, span: value.span() }),
            None => Err(self.error(value.span(), format!("write a table: {title}"))),
        }
    }

    fn refuse_unknown(&self, table: &Table<'a>, known: &[&str]) -> Checked<()> {
        let unknown = table
            .entries
            .iter()
            .map(|(name, _)| name)
            .filter(|name| !known.contains(&name.get_ref().as_ref()))
            .min_by_key(|name| name.span().start);
        let Some(name) = unknown else { return Ok(()) };
        let key = name.get_ref();
        let nearest = known
            .iter()
            .map(|candidate| (edit_distance(key, candidate), *candidate))
            .min()
            .filter(|(distance, _)| *distance <= 2);
        let hint = match nearest {
            Some((_, nearest)) => format!("write \"{nearest}\""),
            None => format!("known are {}", known.join(", ")),
        };
        Err(self.error(name.span(), format!("unknown key \"{key}\" in {}; {hint}", table.title)))
    }

    fn error(&self, span: Range<usize>, message: String) -> ConfigError {
        ConfigError { file: self.file.to_path_buf(), line: Some(self.line(&span)), message }
    }

    fn whole_file(&self, message: String) -> ConfigError {
        ConfigError { file: self.file.to_path_buf(), line: None, message }
    }

    fn line(&self, span: &Range<usize>) -> usize {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }
}

/// Whether a well-formed address is that of no host: 0.0.0.0 or ::.
fn is_unspecified(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified())
}

/// Names, addresses and directories met so far, with their lines.
#[derive(Default)]
struct Seen(HashMap<(&'static str, String), usize>);

fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim_start() {
        "B" => 1,
        "KiB" => KIB,
        "MiB" => MIB,
        "GiB" => GIB,
        _ => return None,
    };
    number.checked_mul(unit)
}

fn format_bytes(bytes: u64) -> String {
    for (unit, name) in [(GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{}{name}", bytes / unit);
        }
    }
    format!("{bytes}B")
}

/// Levenshtein's distance: how many letters to add, drop or change.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}
