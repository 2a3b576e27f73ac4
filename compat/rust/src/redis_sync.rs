//! The crate redis without async: one connection, Sentinel, cluster.

use std::thread::sleep;
use std::time::{Duration, Instant};

use redis::cluster::{ClusterClient, ClusterConnection, ClusterPipeline, cluster_pipe};
use redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr};
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    Client, Cmd, Commands, Connection, ConnectionAddr, ConnectionLike, ErrorKind, FromRedisValue,
    IntoConnectionInfo, Pipeline, ProtocolVersion, RedisConnectionInfo, RedisError, RedisResult,
    Value, cmd, pipe,
};

use crate::protocol::{
    EXPIRES_WITHIN, Outcome, Writes, binary, large, master, name, nodes, report, report_alone, same,
};

// snippet: redis-rs, Sentinel
/// Its own SentinelClient wants nodes whose ROLE is "sentinel"; so Sentinel is asked by hand.
struct Master {
    nodes: Vec<(String, u16)>,
    name: String,
    protocol: ProtocolVersion,
}

impl r2d2::ManageConnection for Master {
    type Connection = Connection;
    type Error = RedisError;

    fn connect(&self) -> RedisResult<Connection> {
        let mut why = (ErrorKind::Client, "no node knows a master").into();
        for node in &self.nodes {
            let found = open(node, self.protocol).and_then(|mut it| {
                cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&self.name).query(&mut it)
            });
            match found {
                Ok(Some(master)) => return open(&master, self.protocol),
                Ok(None) => {}
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    fn is_valid(&self, connection: &mut Connection) -> RedisResult<()> {
        cmd("PING").exec(connection)
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        !connection.is_open()
    }
}

fn open((host, port): &(String, u16), protocol: ProtocolVersion) -> RedisResult<Connection> {
    let settings = RedisConnectionInfo::default().set_protocol(protocol);
    let address = (host.as_str(), *port).into_connection_info()?.set_redis_settings(settings);
    let client = Client::open(address)?;
    let connection = client.get_connection_with_timeout(Duration::from_millis(500))?;
    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(connection)
}

/// Whoever gets an error has lost the connection, and takes another one from the pool.
fn sentinel(protocol: ProtocolVersion) -> r2d2::Pool<Master> {
    r2d2::Pool::builder()
        .max_size(8)
        .min_idle(Some(1))
        .connection_timeout(Duration::from_secs(5))
        .build(Master { nodes: nodes(), name: name(), protocol })
        .expect("there is a master")
}
// end

// snippet: redis-rs, cluster
/// In a pool, because a connection alone goes on to ask a node that is down for ever.
fn cluster(protocol: ProtocolVersion) -> r2d2::Pool<ClusterClient> {
    let nodes = nodes().into_iter().map(|(host, port)| format!("redis://{host}:{port}"));
    let client = ClusterClient::builder(nodes)
        .use_protocol(protocol)
        .retries(3)
        .min_retry_wait(20)
        .max_retry_wait(200)
        .connection_timeout(Duration::from_millis(500))
        .response_timeout(Duration::from_secs(5))
        .build()
        .expect("the addresses are right");
    r2d2::Pool::builder()
        .max_size(8)
        .min_idle(Some(1))
        .connection_timeout(Duration::from_secs(5))
        .build(client)
        .expect("there is a master")
}
// end

/// The library's own way, which does not work here.
fn sentinel_client() -> Outcome {
    let nodes = nodes().into_iter().map(|(host, port)| ConnectionAddr::Tcp(host, port));
    let builder = SentinelClientBuilder::new(nodes, name(), SentinelServerType::Master)?;
    builder.build()?.get_connection()?;
    Ok(())
}

/// What a cluster's connection does in its own way.
trait Way: ConnectionLike + Sized {
    fn pipeline(&mut self, commands: &[Cmd]) -> RedisResult<Vec<Value>>;
    fn transaction(&mut self, commands: &Pipeline) -> RedisResult<Value>;
    fn on_master(&mut self, command: &Cmd) -> RedisResult<Value>;
}

impl Way for Connection {
    fn pipeline(&mut self, commands: &[Cmd]) -> RedisResult<Vec<Value>> {
        let mut pipeline = pipe();
        for command in commands {
            pipeline.add_command(command.clone());
        }
        pipeline.query(self)
    }

    fn transaction(&mut self, commands: &Pipeline) -> RedisResult<Value> {
        commands.query(self)
    }

    fn on_master(&mut self, command: &Cmd) -> RedisResult<Value> {
        command.query(self)
    }
}

impl Way for ClusterConnection {
    fn pipeline(&mut self, commands: &[Cmd]) -> RedisResult<Vec<Value>> {
        let mut pipeline: ClusterPipeline = cluster_pipe();
        for command in commands {
            pipeline.add_command(command.clone());
        }
        pipeline.query(self)
    }

    /// `Pipeline::query` refuses a cluster's connection; what it would send goes through.
    fn transaction(&mut self, commands: &Pipeline) -> RedisResult<Value> {
        let packed = commands.get_packed_pipeline();
        let mut replies = self.req_packed_commands(&packed, commands.len() + 1, 1)?;
        Ok(replies.pop().expect("EXEC has one reply"))
    }

    fn on_master(&mut self, command: &Cmd) -> RedisResult<Value> {
        let route = SingleNodeRoutingInfo::SpecificNode(Route::new(0, SlotAddr::Master));
        self.route_command(command, RoutingInfo::SingleNode(route))
    }
}

fn basics(connection: &mut impl Way, run: &str) -> Outcome {
    let (key, number, none) = (format!("{run}b"), format!("{run}bn"), format!("{run}none"));
    connection.set::<_, _, ()>(&key, binary())?;
    same(connection.get::<_, Vec<u8>>(&key)?, binary())?;
    same(connection.get::<_, Option<String>>(&none)?, None)?;
    same((connection.incr(&number, 1)?, connection.incr(&number, 5)?), (1, 6))?;
    same(connection.mget::<_, Vec<Option<i64>>>(&[&number, &none])?, vec![Some(6), None])?;
    same(connection.del::<_, i64>(&[&key, &number])?, 2)
}

fn large_value(connection: &mut impl Way, run: &str) -> Outcome {
    let key = format!("{run}large");
    connection.set::<_, _, ()>(&key, large())?;
    same(connection.get::<_, Vec<u8>>(&key)?, large())
}

fn pipeline(connection: &mut impl Way, run: &str) -> Outcome {
    let key = |number| format!("{run}p{number}");
    let mut commands = Vec::new();
    for number in 0..500 {
        commands.push(cmd("SET").arg(key(number)).arg(number).take());
    }
    commands.extend((0..500).map(|number| cmd("GET").arg(key(number)).take()));
    let replies = connection.pipeline(&commands)?;
    let read: RedisResult<Vec<i64>> =
        replies.into_iter().skip(500).map(|it| Ok(i64::from_redis_value(it)?)).collect();
    same(read?, (0..500).collect())
}

fn transaction<C: Way>(connection: &mut C, other: &mut C, run: &str) -> Outcome {
    let key = format!("{run}t");
    connection.set::<_, _, ()>(&key, 1)?;
    cmd("WATCH").arg(&key).exec(connection)?;
    let replies = connection.transaction(pipe().atomic().set(&key, 2).get(&key))?;
    same(Vec::<String>::from_redis_value(replies)?, vec!["OK".into(), "2".into()])?;
    cmd("WATCH").arg(&key).exec(connection)?;
    other.set::<_, _, ()>(&key, 3)?;
    same(connection.transaction(pipe().atomic().set(&key, 4))?, Value::Nil)?;
    same(connection.get::<_, i64>(&key)?, 3)
}

fn expiry(connection: &mut impl Way, run: &str) -> Outcome {
    let key = format!("{run}e");
    connection.pset_ex::<_, _, ()>(&key, 1, 200)?;
    let begun = Instant::now();
    while connection.get::<_, Option<i64>>(&key)?.is_some() {
        same(begun.elapsed() < EXPIRES_WITHIN, true)?;
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn scan(connection: &mut impl Way, run: &str) -> Outcome {
    let mut keys: Vec<String> = (0..300).map(|number| format!("{run}scan{number}")).collect();
    let pairs: Vec<(&String, i64)> = keys.iter().map(|key| (key, 1)).collect();
    connection.mset::<_, _, ()>(&pairs)?;
    let (mut cursor, mut found) = (0u64, Vec::new());
    loop {
        let command = cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(format!("{run}scan*"))
            .arg("COUNT")
            .arg(17)
            .take();
        let (next, page) = <(u64, Vec<String>)>::from_redis_value(connection.on_master(&command)?)?;
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

fn features<C: Way>(protocol: u8, connection: &mut C, other: &mut C) {
    // One hash slot, for what cluster libraries refuse elsewhere.
    let run = &format!("{{{}-{protocol}}}", std::process::id());
    report("basics", protocol, &basics(connection, run));
    report("8 MiB value", protocol, &large_value(connection, run));
    report("pipeline", protocol, &pipeline(connection, run));
    report("MULTI and WATCH", protocol, &transaction(connection, other, run));
    report("expiry", protocol, &expiry(connection, run));
    report("scan", protocol, &scan(connection, run));
}

fn write_through_a_failover<M, C>(pool: &r2d2::Pool<M>)
where
    M: r2d2::ManageConnection<Connection = C>,
    C: ConnectionLike,
{
    let key = &format!("{}failover", std::process::id());
    let mut writes = Writes::new();
    while let Some(token) = writes.next() {
        let result = match pool.get() {
            Ok(mut it) => it.append(key, &token).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if writes.done(token, result) {
            sleep(Duration::from_millis(10));
        }
    }
    let mut connection = pool.get().expect("there is a master");
    writes.judge(&connection.get::<_, String>(key).expect("it answers"));
}

pub fn run(mode: &str) {
    for (number, protocol) in [(2, ProtocolVersion::RESP2), (3, ProtocolVersion::RESP3)] {
        match mode {
            "plain" => {
                let connect = || open(&master(), protocol).expect("the master answers");
                features(number, &mut connect(), &mut connect());
            }
            "cluster" => {
                let pool = cluster(protocol);
                let get = || pool.get().expect("there is a master");
                features(number, &mut *get(), &mut *get());
            }
            "sentinel" => {
                let pool = sentinel(protocol);
                let get = || pool.get().expect("there is a master");
                features(number, &mut *get(), &mut *get());
            }
            _ => panic!("no such mode: {mode}"),
        }
    }
    match mode {
        "sentinel" => {
            report_alone("SentinelClient", &sentinel_client());
            write_through_a_failover(&sentinel(ProtocolVersion::RESP3));
        }
        "cluster" => write_through_a_failover(&cluster(ProtocolVersion::RESP3)),
        _ => {}
    }
}
