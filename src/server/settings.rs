//! CONFIG: the settings that Redis clients and tools ask for, with what is true here. They cannot
//! be changed by a client.

use bytes::Bytes;
use resp::Reply;

use super::NodeInfo;
use crate::command::glob;
use crate::command::parse::PAIR_BYTES_LIMIT;
use crate::store::keyspace::DATABASES;

fn settings(node: &NodeInfo) -> Vec<(&'static str, String)> {
    let (host, port) = super::info::host_and_port(&node.address);
    vec![
        ("appendfsync", "always".to_owned()),
        ("appendonly", "yes".to_owned()),
        ("bind", host.to_owned()),
        ("databases", DATABASES.to_string()),
        ("maxclients", node.clients_max.to_string()),
        ("maxmemory", "0".to_owned()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("port", port.to_owned()),
        ("proto-max-bulk-len", PAIR_BYTES_LIMIT.to_string()),
        ("requirepass", String::new()),
        ("save", String::new()),
        ("timeout", "0".to_owned()),
    ]
}

/// CONFIG GET with these patterns.
pub(super) fn get(patterns: &[Bytes], node: &NodeInfo) -> Reply {
    let patterns: Vec<Vec<u8>> = patterns.iter().map(|it| it.to_ascii_lowercase()).collect();
    let asked = |name: &str| patterns.iter().any(|it| glob::matches(it, name.as_bytes()));
    let found = settings(node).into_iter().filter(|(name, _)| asked(name));
    Reply::Map(found.map(|(name, value)| (Reply::bulk(name), Reply::bulk(value))).collect())
}

/// CONFIG SET with these names and values: refused.
pub(super) fn set(pairs: &[Bytes], node: &NodeInfo) -> Reply {
    let name = String::from_utf8_lossy(pairs.first().map_or(&[], |name| name)).into_owned();
    let known = settings(node).iter().any(|(setting, _)| name.eq_ignore_ascii_case(setting));
    match known && pairs.len().is_multiple_of(2) {
        true => Reply::error(format!(
            "ERR CONFIG SET failed (possibly related to argument '{name}') - can't set immutable \
             config"
        )),
        false => Reply::error(format!(
            "ERR Unknown option or number of arguments for CONFIG SET - '{name}'"
        )),
    }
}
