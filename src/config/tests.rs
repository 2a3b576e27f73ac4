use std::path::Path;
use std::time::Duration;

use super::*;

const DEMO: &str = r#"[cluster]
id = "demo"
lease = "500ms"

[[node]]
name = "n1"
client = "127.0.0.1:4000"
peer = "127.0.0.1:4500"
dir = "data/n1"

[[node]]
name = "n2"
client = "127.0.0.1:4001"
peer = "127.0.0.1:4501"
dir = "/var/n2"
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("etc/demo.toml"), text)
}

#[track_caller]
fn refused(change: (&str, &str), message: &str) {
    assert!(DEMO.contains(change.0), "{:?} is not in the demo", change.0);
    let error = parse(&DEMO.replacen(change.0, change.1, 1)).expect_err("must be refused");
    assert_eq!(error.to_string(), message);
}

#[test]
fn the_documented_file_is_read() {
    let config = parse(DEMO).expect("the demo is right");
    assert_eq!(config.cluster.id, "demo");
    assert_eq!(config.cluster.lease, Duration::from_millis(500));
    assert_eq!(config.cluster.head_every_bytes, HEAD_EVERY_BYTES_DEFAULT);
    assert_eq!(config.nodes[0].dir, Path::new("etc/data/n1"), "relative to the file");
    assert_eq!(config.nodes[1].dir, Path::new("/var/n2"));
    assert_eq!(config.seat("n2"), Some(NodeId(1)));
    assert_eq!(config.node(NodeId(1)).client, "127.0.0.1:4001");
    assert_eq!(config.seat("n3"), None);
    assert_eq!(
        config.warnings(),
        ["2 nodes bear the loss of no more nodes than 1 would; use an odd number"]
    );
}

#[test]
fn optional_keys_are_read() {
    let text = DEMO
        .replace("lease = \"500ms\"", "head_every = \"1MiB\"\nlog_segment = \"2 MiB\"")
        .replace(
            "dir = ",
            "zone = \"dc1\"\ncache = \"1GiB\"\nengine = \"sled\"\nkeep_awake = false\ndir = ",
        );
    let config = parse(&text).expect("all keys are known");
    assert_eq!(config.cluster.lease, LEASE_DEFAULT);
    assert_eq!(config.cluster.head_every_bytes, 1 << 20);
    assert_eq!(config.cluster.log_segment_bytes, 2 << 20);
    assert_eq!(config.nodes[0].zone.as_deref(), Some("dc1"));
    assert_eq!(config.nodes[0].cache_bytes, 1 << 30);
    assert!(!config.nodes[0].keep_awake);
}

#[test]
fn leases_out_of_bounds_or_without_unit_are_refused() {
    let example = "; write for example \"500ms\" or \"2s\"";
    for (lease, message) in [
        ("\"99ms\"", "lease \"99ms\" is not between 100ms and 60s"),
        ("\"61s\"", "lease \"61s\" is not between 100ms and 60s"),
        ("500", "lease must be text with a unit"),
    ] {
        refused(("\"500ms\"", lease), &format!("etc/demo.toml:3: {message}{example}"));
    }
    let error = parse(&DEMO.replace("500ms", "500 quick")).expect_err("no unit").to_string();
    assert!(error.starts_with("etc/demo.toml:3: lease \"500 quick\" is not a duration ("));
    assert!(error.ends_with(example), "{error}");
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_or_all() {
    refused(
        ("lease =", "leese ="),
        "etc/demo.toml:3: unknown key \"leese\" in [cluster]; write \"lease\"",
    );
    refused(
        ("dir =", "password = \"x\"\ndir ="),
        "etc/demo.toml:9: unknown key \"password\" in [[node]]; known are name, client, \
         advertise, peer, dir, zone, cache, engine, keep_awake",
    );
    refused(
        ("[cluster]", "[clutser]"),
        "etc/demo.toml:1: unknown key \"clutser\" in the file; write \"cluster\"",
    );
}

#[test]
fn duplicates_are_refused_with_both_lines() {
    refused(
        ("\"n2\"", "\"n1\""),
        "etc/demo.toml:12: name \"n1\" is used on line 6 already; write another one",
    );
    refused(
        ("4501", "4000"),
        "etc/demo.toml:14: address \"127.0.0.1:4000\" is used on line 7 already; write another one",
    );
    refused(
        ("/var/n2", "data/n1"),
        "etc/demo.toml:15: dir \"data/n1\" is used on line 9 already; write another one",
    );
}

#[test]
fn missing_keys_and_tables_are_named() {
    refused(
        ("peer = \"127.0.0.1:4501\"\n", ""),
        "etc/demo.toml:11: [[node]] has no peer; write for example peer = \"127.0.0.1:4500\"",
    );
    refused(
        ("id = \"demo\"\n", ""),
        "etc/demo.toml:1: [cluster] has no id; write for example id = \"demo\"",
    );
    assert_eq!(
        parse("").expect_err("empty").to_string(),
        "etc/demo.toml: no [cluster] table; write [cluster] and below it id = \"demo\""
    );
    assert_eq!(
        parse("[cluster]\nid = \"demo\"\n").expect_err("no nodes").to_string(),
        "etc/demo.toml: no nodes; write one [[node]] table for each, with name, client, peer and \
         dir"
    );
    assert_eq!(
        parse("[cluster]\nid = \"demo\"\n[node]\nname = \"n1\"\n").expect_err("list").to_string(),
        "etc/demo.toml:3: [node] must be a list; write [[node]] with two brackets"
    );
}

#[test]
fn addresses_that_nobody_can_connect_to_are_refused() {
    for (address, why) in [
        ("127.0.0.1", "has no port"),
        ("127.0.0.1:0", "has no port between 1 and 65535"),
        (":4000", "has no valid host"),
        ("0.0.0.0:4000", "is no address that others can connect to"),
        ("[::]:4000", "is no address that others can connect to"),
    ] {
        refused(
            ("127.0.0.1:4000", address),
            &format!(
                "etc/demo.toml:7: client \"{address}\" {why}; write host:port, for example \
                 \"127.0.0.1:4000\""
            ),
        );
    }
    let text = DEMO.replace("127.0.0.1:4000", "[::1]:4000").replace("127.0.0.1:4001", "db2:4001");
    assert!(parse(&text).is_ok());
}

#[test]
fn zones_are_on_all_nodes_or_on_none() {
    refused(
        ("dir =", "zone = \"dc1\"\ndir ="),
        "etc/demo.toml:12: node \"n2\" has no zone but others have; write zone = \"...\" in every \
         [[node]] or in none",
    );
}

#[test]
fn sizes_engines_names_and_syntax_are_checked() {
    refused(
        ("lease = \"500ms\"", "head_every = \"64 MB\""),
        "etc/demo.toml:3: head_every \"64 MB\" is not a size in B, KiB, MiB or GiB; write for \
         example \"64MiB\"",
    );
    refused(
        ("lease = \"500ms\"", "log_segment = \"1KiB\""),
        "etc/demo.toml:3: log_segment \"1KiB\" is not between 64KiB and 4GiB; write for example \
         \"64MiB\"",
    );
    refused(
        ("dir =", "engine = \"rocksdb\"\ndir ="),
        "etc/demo.toml:9: no engine \"rocksdb\"; write \"sled\" or \"fjall\"",
    );
    refused(
        ("dir =", "keep_awake = \"no\"\ndir ="),
        "etc/demo.toml:9: keep_awake must be true or false",
    );
    refused(
        ("\"n1\"", "\"n 1\""),
        "etc/demo.toml:6: name \"n 1\" is not 1 to 64 letters, digits, '-', '_' or '.'; write for \
         example \"n1\"",
    );
    let error = parse("[cluster\n").expect_err("no TOML").to_string();
    assert!(error.starts_with("etc/demo.toml:1: not TOML: "), "{error}");
}

#[test]
fn nodes_that_share_a_machine_are_known() {
    let config = parse(DEMO).expect("the demo is right");
    assert!(config.shares_machine(NodeId(0)) && config.shares_machine(NodeId(1)));
    let apart = DEMO.replace("127.0.0.1:4501", "db2:4501");
    let config = parse(&apart).expect("a host name is an address");
    assert!(!config.shares_machine(NodeId(0)) && !config.shares_machine(NodeId(1)));
    let alone = Config::single("127.0.0.1".parse().expect("an address"), 4000, Path::new("d"));
    assert!(!alone.shares_machine(NodeId(0)));
}

#[test]
fn eight_nodes_are_too_many() {
    let mut text = "[cluster]\nid = \"demo\"\n".to_string();
    for n in 1..=8 {
        text += &format!(
            "[[node]]\nname = \"n{n}\"\nclient = \"h{n}:1\"\npeer = \"h{n}:2\"\ndir = \"{n}\"\n"
        );
    }
    let error = parse(&text).expect_err("too many");
    assert_eq!(error.message, "8 nodes; write 1 to 7, best 3 or 5");
}

#[test]
fn the_fingerprint_tells_seats_apart_not_addresses() {
    let demo = parse(DEMO).expect("the demo is right");
    let moved = parse(&DEMO.replace("4001", "4009").replace("500ms", "1s")).expect("right too");
    assert_eq!(demo.fingerprint(), moved.fingerprint());
    let renamed = parse(&DEMO.replace("\"n2\"", "\"n3\"")).expect("right too");
    assert_ne!(demo.fingerprint(), renamed.fingerprint());
    let mut swapped = demo.clone();
    swapped.nodes.swap(0, 1);
    assert_ne!(demo.fingerprint(), swapped.fingerprint());
}

#[test]
fn who_may_debug_is_read() {
    assert_eq!(parse(DEMO).expect("the demo is right").cluster.debug_command, Allowed::No);
    let with = |word: &str| DEMO.replace("id = ", &format!("enable_debug_command = {word}\nid = "));
    let config = parse(&with("\"local\"")).expect("a word that is known");
    assert_eq!(config.cluster.debug_command, Allowed::Local);
    refused(
        ("id = ", "enable_debug_command = \"maybe\"\nid = "),
        "etc/demo.toml:2: enable_debug_command \"maybe\"; write \"no\", \"yes\" or \"local\"",
    );
}

#[test]
fn clients_may_be_told_another_address() {
    let line = "client = \"127.0.0.1:4000\"";
    let with = |client: &str, advertise: &str| {
        let lines = format!("client = \"{client}\"\nadvertise = \"{advertise}\"");
        parse(&DEMO.replacen(line, &lines, 1))
    };
    let config = parse(DEMO).expect("the demo is right");
    assert_eq!(config.nodes[0].advertised(), "127.0.0.1:4000");
    for (client, advertise) in [
        ("127.0.0.1:4000", "db1.example:6379"),
        ("0.0.0.0:4000", "192.0.2.1:6379"),
        ("[::]:4000", "[2001:db8::1]:6379"),
        ("127.0.0.1:4000", "127.0.0.1:4000"),
    ] {
        let config = with(client, advertise).expect("it is right");
        assert_eq!(config.nodes[0].client, client);
        assert_eq!(config.nodes[0].advertised(), advertise);
    }
    let error = with("127.0.0.1:4000", "0.0.0.0:4000").expect_err("nobody gets there");
    assert!(error.to_string().contains("is no address that others can connect to"), "{error}");
    let error = with("127.0.0.1:4000", "127.0.0.1:4001").expect_err("another node is there");
    assert!(error.to_string().contains("is used on line"), "{error}");
    refused(
        (line, "client = \"0.0.0.0:4000\""),
        "etc/demo.toml:7: client \"0.0.0.0:4000\" is no address that others can connect to; write \
         host:port, for example \"127.0.0.1:4000\"",
    );
}
