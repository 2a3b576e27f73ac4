//! Log lines: one compact line per event on stderr, coloured only on a terminal.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// Starts logging for the whole process; once per process. `level` as `--log` takes it; without
/// it RUST_LOG decides, else info.
pub fn start(level: Option<&str>) -> anyhow::Result<()> {
    let filter = match level {
        Some(level) => EnvFilter::try_new(level)
            .with_context(|| format!("--log {level}; write for example --log debug"))?,
        None => match std::env::var("RUST_LOG") {
            Ok(level) => EnvFilter::try_new(&level)
                .with_context(|| format!("RUST_LOG={level}; write for example RUST_LOG=debug"))?,
            // sled reports its inner workings at info; nobody runs a node to read those.
            Err(_) => EnvFilter::new("info,sled=warn"),
        },
    };
    tracing_subscriber::fmt()
        .compact()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init()
        .map_err(|error| anyhow::anyhow!("logging cannot start: {error}"))
}
