//! What a node does for its clients now and then, whether they ask or not: samples rates for INFO,
//! and parts from clients that have said nothing for long.

use std::sync::Arc;
use std::time::Duration;

use super::shared::Shared;

/// Runs for ever, as often as the setting `hz` says.
pub async fn run(shared: Arc<Shared>) {
    loop {
        let pause_us = 1_000_000 / shared.parameters.hz().max(1);
        tokio::time::sleep(Duration::from_micros(pause_us)).await;
        shared.sample_rates();
        let timeout_s = shared.parameters.timeout_s();
        if timeout_s > 0
            && let Some(registry) = shared.registry()
        {
            registry.close_clients(|client| client.idle() > Duration::from_secs(timeout_s));
        }
    }
}
