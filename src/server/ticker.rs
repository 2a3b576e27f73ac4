//! What a node does for its clients now and then, whether they ask or not: samples rates for INFO,
//! takes back room from clients that have said nothing for a moment, and parts from those that have
//! said nothing for long.

use std::sync::Arc;
use std::time::Duration;

use super::registry::ClientRegistry;
use super::shared::Shared;

/// How often clients are looked at that keep room which they do not use.
const LOOKED_AT_EVERY_US: u64 = 1_000_000;
/// After how much silence they are to give it back.
const RESTS_AFTER: Duration = Duration::from_secs(2);

/// Runs for ever, as often as the setting `hz` says.
pub async fn run(shared: Arc<Shared>) {
    let mut looked_at_us = 0;
    loop {
        let pause_us = 1_000_000 / shared.parameters.hz().max(1);
        tokio::time::sleep(Duration::from_micros(pause_us)).await;
        shared.sample_rates();
        let now_us = shared.now_us();
        if now_us >= looked_at_us + LOOKED_AT_EVERY_US
            && let Some(registry) = shared.registry()
        {
            looked_at_us = now_us;
            let_rest(registry);
        }
        let timeout_s = shared.parameters.timeout_s();
        if timeout_s > 0
            && let Some(registry) = shared.registry()
        {
            registry.close_clients(|client| client.idle() > Duration::from_secs(timeout_s));
        }
    }
}

fn let_rest(registry: &ClientRegistry) {
    for client in registry.list() {
        if client.input_bytes().1 > 0 && client.idle() >= RESTS_AFTER {
            client.rest();
        }
    }
}
