//! The crate fred: one connection, Sentinel, cluster.

use std::time::{Duration, Instant};

use fred::prelude::*;
use fred::types::config::Server;
use fred::types::{Expiration, RespVersion};
use futures::{StreamExt, TryStreamExt};
use tokio::time::sleep;

use crate::protocol::{
    EXPIRES_WITHIN, Outcome, Writes, binary, large, master, name, nodes, report, same,
};

// snippet: fred, Sentinel
fn sentinel() -> ServerConfig {
    let hosts = nodes().into_iter().map(|(host, port)| Server::new(host, port)).collect();
    ServerConfig::Sentinel { hosts, service_name: name() }
}
// end

// snippet: fred, cluster
fn cluster() -> ServerConfig {
    ServerConfig::new_clustered(nodes())
}
// end

// snippet: fred, Sentinel and cluster
async fn connect(server: ServerConfig, version: RespVersion) -> Result<Client, Error> {
    let config = Config { server, version, ..Config::default() };
    let client = Builder::from_config(config)
        .with_connection_config(|connection| {
            connection.connection_timeout = Duration::from_millis(500);
            connection.internal_command_timeout = Duration::from_millis(500);
            connection.max_command_attempts = 20;
            connection.max_redirections = 20;
        })
        .set_policy(ReconnectPolicy::new_constant(0, 50))
        .build()?;
    client.init().await?;
    Ok(client)
}
// end

fn plain() -> ServerConfig {
    let (host, port) = master();
    ServerConfig::new_centralized(host, port)
}

async fn basics(client: &Client, run: &str) -> Outcome {
    let (key, number, none) = (format!("{run}b"), format!("{run}bn"), format!("{run}none"));
    client.set::<(), _, _>(&key, binary().as_slice(), None, None, false).await?;
    same(client.get::<Vec<u8>, _>(&key).await?, binary())?;
    same(client.get::<Option<String>, _>(&none).await?, None)?;
    same(
        (client.incr::<i64, _>(&number).await?, client.incr_by::<i64, _>(&number, 5).await?),
        (1, 6),
    )?;
    same(client.mget::<Vec<Option<i64>>, _>(vec![&number, &none]).await?, vec![Some(6), None])?;
    same(client.del::<i64, _>(vec![&key, &number]).await?, 2)
}

async fn large_value(client: &Client, run: &str) -> Outcome {
    let key = format!("{run}large");
    client.set::<(), _, _>(&key, large().as_slice(), None, None, false).await?;
    same(client.get::<Vec<u8>, _>(&key).await?, large())
}

async fn pipeline(client: &Client, run: &str) -> Outcome {
    let key = |number| format!("{run}p{number}");
    let pipeline = client.pipeline();
    for number in 0..500 {
        pipeline.set::<(), _, _>(key(number), number, None, None, false).await?;
    }
    for number in 0..500 {
        pipeline.get::<(), _>(key(number)).await?;
    }
    let replies: Vec<Value> = pipeline.all().await?;
    let read: Option<Vec<i64>> = replies.into_iter().skip(500).map(|it| it.as_i64()).collect();
    same(read, Some((0..500).collect()))
}

async fn transaction(client: &Client, other: &Client, run: &str) -> Outcome {
    let key = format!("{run}t");
    client.set::<(), _, _>(&key, 1, None, None, false).await?;
    client.watch(&key).await?;
    let transaction = client.multi();
    transaction.set::<(), _, _>(&key, 2, None, None, false).await?;
    transaction.get::<(), _>(&key).await?;
    same(transaction.exec::<Vec<String>>(true).await?, vec!["OK".into(), "2".into()])?;
    client.watch(&key).await?;
    other.set::<(), _, _>(&key, 3, None, None, false).await?;
    let transaction = client.multi();
    transaction.set::<(), _, _>(&key, 4, None, None, false).await?;
    same(transaction.exec::<Value>(true).await?, Value::Null)?;
    same(client.get::<i64, _>(&key).await?, 3)
}

async fn expiry(client: &Client, run: &str) -> Outcome {
    let key = format!("{run}e");
    client.set::<(), _, _>(&key, 1, Some(Expiration::PX(200)), None, false).await?;
    let begun = Instant::now();
    while client.get::<Option<i64>, _>(&key).await?.is_some() {
        same(begun.elapsed() < EXPIRES_WITHIN, true)?;
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn scan(client: &Client, run: &str) -> Outcome {
    let mut keys: Vec<String> = (0..300).map(|number| format!("{run}scan{number}")).collect();
    client.mset(keys.iter().map(|key| (key.as_str(), 1)).collect::<Vec<_>>()).await?;
    let pattern = format!("{run}scan*");
    let found = if client.is_clustered() {
        client.scan_cluster_buffered(pattern, Some(17), None).boxed()
    } else {
        client.scan_buffered(pattern, Some(17), None).boxed()
    };
    let mut found: Vec<String> =
        found.map_ok(|key| key.as_str_lossy().into_owned()).try_collect().await?;
    keys.sort();
    found.sort();
    same(found, keys)
}

pub async fn run(mode: &str) {
    let server = match mode {
        "plain" => plain(),
        "sentinel" => sentinel(),
        "cluster" => cluster(),
        _ => panic!("no such mode: {mode}"),
    };
    for (protocol, version) in [(2, RespVersion::RESP2), (3, RespVersion::RESP3)] {
        let client = &connect(server.clone(), version.clone()).await.expect("it connects");
        let other = &connect(server.clone(), version).await.expect("it connects");
        // One hash slot, for what cluster libraries refuse elsewhere.
        let run = &format!("{{{}-{protocol}}}", std::process::id());
        report("basics", protocol, &basics(client, run).await);
        report("8 MiB value", protocol, &large_value(client, run).await);
        report("pipeline", protocol, &pipeline(client, run).await);
        report("MULTI and WATCH", protocol, &transaction(client, other, run).await);
        report("expiry", protocol, &expiry(client, run).await);
        report("scan", protocol, &scan(client, run).await);
    }
    if mode == "plain" {
        return;
    }
    let key = &format!("{}failover", std::process::id());
    let client = connect(server, RespVersion::RESP3).await.expect("it connects");
    let mut writes = Writes::new();
    while let Some(token) = writes.next() {
        let result = client.append::<i64, _, _>(key, token.as_str()).await;
        if writes.done(token, result) {
            sleep(Duration::from_millis(10)).await;
        }
    }
    writes.judge(&client.get::<String, _>(key).await.expect("it answers"));
}
