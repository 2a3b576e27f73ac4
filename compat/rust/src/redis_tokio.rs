//! The crate redis on Tokio: one connection, Sentinel, cluster.

use std::time::{Duration, Instant};

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr};
use redis::{
    AsyncCommands, AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue,
    IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, RedisError, RedisResult, Value, cmd,
    pipe,
};
use tokio::time::sleep;

use crate::protocol::{
    EXPIRES_WITHIN, Outcome, Writes, binary, large, master, name, nodes, report, same,
};

// snippet: redis-rs with Tokio, Sentinel
/// Keeps a connection to the master. The library's own SentinelClient wants nodes whose ROLE is
/// "sentinel"; so Sentinel is asked by hand.
struct Master {
    nodes: Vec<(String, u16)>,
    name: String,
    protocol: ProtocolVersion,
    connection: Option<MultiplexedConnection>,
}

impl Master {
    async fn get(&mut self) -> RedisResult<MultiplexedConnection> {
        if let Some(connection) = &self.connection {
            return Ok(connection.clone());
        }
        let mut why = (ErrorKind::Client, "no node knows a master").into();
        for node in &self.nodes {
            match self.ask(node).await {
                Ok(Some(master)) => {
                    let connection = open(&master, self.protocol).await?;
                    return Ok(self.connection.insert(connection).clone());
                }
                Ok(None) => {}
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    async fn ask(&self, node: &(String, u16)) -> RedisResult<Option<(String, u16)>> {
        let mut connection = open(node, self.protocol).await?;
        let mut question = cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.name);
        question.query_async(&mut connection).await
    }

    /// To be told of every error, so that the next one looks for the master again.
    fn failed(&mut self, error: &RedisError) {
        if error.is_io_error() || error.is_cluster_error() {
            self.connection = None;
        }
    }
}

async fn open(
    (host, port): &(String, u16),
    protocol: ProtocolVersion,
) -> RedisResult<MultiplexedConnection> {
    let settings = RedisConnectionInfo::default().set_protocol(protocol);
    let address = (host.as_str(), *port).into_connection_info()?.set_redis_settings(settings);
    // By default a reply may take half a second: less than the server may need.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(Duration::from_millis(500)))
        .set_response_timeout(Some(Duration::from_secs(5)));
    Client::open(address)?.get_multiplexed_async_connection_with_config(&config).await
}
// end

fn sentinel(protocol: ProtocolVersion) -> Master {
    Master { nodes: nodes(), name: name(), protocol, connection: None }
}

// snippet: redis-rs with Tokio, cluster
async fn cluster(protocol: ProtocolVersion) -> RedisResult<ClusterConnection> {
    let nodes = nodes().into_iter().map(|(host, port)| format!("redis://{host}:{port}"));
    ClusterClient::builder(nodes)
        .use_protocol(protocol)
        .retries(50)
        .min_retry_wait(20)
        .max_retry_wait(200)
        .connection_timeout(Duration::from_millis(500))
        .response_timeout(Duration::from_secs(5))
        .build()?
        .get_async_connection()
        .await
}
// end

/// What a cluster's connection does in its own way.
trait Way: ConnectionLike + Send + Sync {
    async fn on_master(&mut self, command: Cmd) -> RedisResult<Value>;
}

impl Way for MultiplexedConnection {
    async fn on_master(&mut self, command: Cmd) -> RedisResult<Value> {
        command.query_async(self).await
    }
}

impl Way for ClusterConnection {
    async fn on_master(&mut self, command: Cmd) -> RedisResult<Value> {
        let route = SingleNodeRoutingInfo::SpecificNode(Route::new(0, SlotAddr::Master));
        self.route_command(command, RoutingInfo::SingleNode(route)).await
    }
}

async fn basics(connection: &mut impl Way, run: &str) -> Outcome {
    let (key, number, none) = (format!("{run}b"), format!("{run}bn"), format!("{run}none"));
    connection.set::<_, _, ()>(&key, binary()).await?;
    same(connection.get::<_, Vec<u8>>(&key).await?, binary())?;
    same(connection.get::<_, Option<String>>(&none).await?, None)?;
    same((connection.incr(&number, 1).await?, connection.incr(&number, 5).await?), (1, 6))?;
    same(connection.mget::<_, Vec<Option<i64>>>(&[&number, &none]).await?, vec![Some(6), None])?;
    same(connection.del::<_, i64>(&[&key, &number]).await?, 2)
}

async fn large_value(connection: &mut impl Way, run: &str) -> Outcome {
    let key = format!("{run}large");
    connection.set::<_, _, ()>(&key, large()).await?;
    same(connection.get::<_, Vec<u8>>(&key).await?, large())
}

async fn pipeline(connection: &mut impl Way, run: &str) -> Outcome {
    let key = |number| format!("{run}p{number}");
    let mut commands = pipe();
    for number in 0..500 {
        commands.set(key(number), number).ignore();
    }
    for number in 0..500 {
        commands.get(key(number));
    }
    same(commands.query_async::<Vec<i64>>(connection).await?, (0..500).collect())
}

async fn transaction<C: Way>(connection: &mut C, other: &mut C, run: &str) -> Outcome {
    let key = format!("{run}t");
    connection.set::<_, _, ()>(&key, 1).await?;
    cmd("WATCH").arg(&key).exec_async(connection).await?;
    let replies: Vec<String> =
        pipe().atomic().set(&key, 2).get(&key).query_async(connection).await?;
    same(replies, vec!["OK".into(), "2".into()])?;
    cmd("WATCH").arg(&key).exec_async(connection).await?;
    other.set::<_, _, ()>(&key, 3).await?;
    same(pipe().atomic().set(&key, 4).query_async(connection).await?, Value::Nil)?;
    same(connection.get::<_, i64>(&key).await?, 3)
}

async fn expiry(connection: &mut impl Way, run: &str) -> Outcome {
    let key = format!("{run}e");
    connection.pset_ex::<_, _, ()>(&key, 1, 200).await?;
    let begun = Instant::now();
    while connection.get::<_, Option<i64>>(&key).await?.is_some() {
        same(begun.elapsed() < EXPIRES_WITHIN, true)?;
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn scan(connection: &mut impl Way, run: &str) -> Outcome {
    let mut keys: Vec<String> = (0..300).map(|number| format!("{run}scan{number}")).collect();
    let pairs: Vec<(&String, i64)> = keys.iter().map(|key| (key, 1)).collect();
    connection.mset::<_, _, ()>(&pairs).await?;
    let (mut cursor, mut found) = (0u64, Vec::new());
    loop {
        let command = cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(format!("{run}scan*"))
            .arg("COUNT")
            .arg(17)
            .take();
        let reply = connection.on_master(command).await?;
        let (next, page) = <(u64, Vec<String>)>::from_redis_value(reply)?;
        found.extend(page);
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    keys.sort();
    found.sort();
    same(found, keys)
}

async fn features<C: Way>(protocol: u8, connection: &mut C, other: &mut C) {
    // One hash slot, for what cluster libraries refuse elsewhere.
    let run = &format!("{{{}-{protocol}}}", std::process::id());
    report("basics", protocol, &basics(connection, run).await);
    report("8 MiB value", protocol, &large_value(connection, run).await);
    report("pipeline", protocol, &pipeline(connection, run).await);
    report("MULTI and WATCH", protocol, &transaction(connection, other, run).await);
    report("expiry", protocol, &expiry(connection, run).await);
    report("scan", protocol, &scan(connection, run).await);
}

pub async fn run(mode: &str) {
    for (number, protocol) in [(2, ProtocolVersion::RESP2), (3, ProtocolVersion::RESP3)] {
        match mode {
            "plain" => {
                let (one, other) =
                    (open(&master(), protocol).await, open(&master(), protocol).await);
                features(number, &mut one.unwrap(), &mut other.unwrap()).await;
            }
            "sentinel" => {
                let (one, other) = (sentinel(protocol).get().await, sentinel(protocol).get().await);
                features(number, &mut one.unwrap(), &mut other.unwrap()).await;
            }
            "cluster" => {
                let (one, other) = (cluster(protocol).await, cluster(protocol).await);
                features(number, &mut one.unwrap(), &mut other.unwrap()).await;
            }
            _ => panic!("no such mode: {mode}"),
        }
    }
    match mode {
        "sentinel" => through_sentinel().await,
        "cluster" => through_the_cluster().await,
        _ => {}
    }
}

async fn through_sentinel() {
    let key = &format!("{}failover", std::process::id());
    let mut master = sentinel(ProtocolVersion::RESP3);
    let mut writes = Writes::new();
    while let Some(token) = writes.next() {
        let result = match master.get().await {
            Ok(mut connection) => connection.append(key, &token).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &result {
            master.failed(error);
        }
        if writes.done(token, result) {
            sleep(Duration::from_millis(10)).await;
        }
    }
    writes.judge(&master.get().await.unwrap().get::<_, String>(key).await.unwrap());
}

async fn through_the_cluster() {
    let key = &format!("{}failover", std::process::id());
    let mut connection = cluster(ProtocolVersion::RESP3).await.unwrap();
    let mut writes = Writes::new();
    while let Some(token) = writes.next() {
        let result = connection.append::<_, _, i64>(key, &token).await;
        if writes.done(token, result) {
            sleep(Duration::from_millis(10)).await;
        }
    }
    writes.judge(&connection.get::<_, String>(key).await.unwrap());
}
