//! A load generator for etcd: puts or linearizable gets from a closed loop of clients, each with a
//! connection of its own. Speaks to one endpoint, which should be the leader's.
//!
//! The few messages it needs are written down here, so that no protobuf compiler is needed.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::codegen::http;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

/// `etcdserverpb.PutRequest`, without what is not asked for.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `etcdserverpb.RangeRequest`; without the field `serializable` it is linearizable.
#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

/// Any response; its fields are skipped, but for those that a get is checked by.
#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    pairs: Vec<KeyValue>,
}

/// `mvccpb.KeyValue`.
#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(bytes = "vec", tag = "5")]
    value: Vec<u8>,
}

const USAGE: &str =
    "usage: etcd-load ENDPOINT put|get|fill CLIENTS KEYS VALUE_BYTES SECONDS WARMUP_SECONDS";

type Failure = Box<dyn std::error::Error>;

#[derive(Clone, Copy, PartialEq)]
enum Work {
    Put,
    Get,
    /// Every key once.
    Fill,
}

#[derive(Clone, Copy)]
struct Plan {
    work: Work,
    clients: u64,
    keys: u64,
    value_bytes: usize,
    begin: Instant,
    end: Instant,
}

struct Client {
    grpc: Grpc<Channel>,
}

impl Client {
    async fn connect(endpoint: &str) -> Result<Client, Failure> {
        let channel =
            Endpoint::from_shared(endpoint.to_string())?.tcp_nodelay(true).connect().await?;
        Ok(Client { grpc: Grpc::new(channel) })
    }

    async fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), Failure> {
        self.grpc.ready().await?;
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
        let codec = ProstCodec::<PutRequest, PutResponse>::default();
        self.grpc.unary(tonic::Request::new(PutRequest { key, value }), path, codec).await?;
        Ok(())
    }

    /// The value's length; none when there is no such key.
    async fn get(&mut self, key: Vec<u8>) -> Result<Option<usize>, Failure> {
        self.grpc.ready().await?;
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Range");
        let codec = ProstCodec::<RangeRequest, RangeResponse>::default();
        let response =
            self.grpc.unary(tonic::Request::new(RangeRequest { key }), path, codec).await?;
        Ok(response.get_ref().pairs.first().map(|pair| pair.value.len()))
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("1 us to 60 s is a valid range")
}

fn key_name(number: u64) -> Vec<u8> {
    format!("key:{number:012}").into_bytes()
}

/// One client's loop; returns its latencies in microseconds.
async fn run_client(
    mut client: Client,
    plan: Plan,
    number: u64,
) -> Result<Histogram<u64>, Failure> {
    let mut random = fastrand::Rng::with_seed(number + 1);
    let mut latencies = histogram();
    let value = vec![b'v'; plan.value_bytes];
    if plan.work == Work::Fill {
        for key in (number..plan.keys).step_by(plan.clients as usize) {
            client.put(key_name(key), value.clone()).await?;
        }
        return Ok(latencies);
    }
    loop {
        let sent = Instant::now();
        if sent >= plan.end {
            return Ok(latencies);
        }
        let key = key_name(random.u64(0..plan.keys));
        if plan.work == Work::Put {
            client.put(key, value.clone()).await?;
        } else if client.get(key).await? != Some(plan.value_bytes) {
            return Err("a key is missing; fill first".into());
        }
        let now = Instant::now();
        if sent >= plan.begin && now <= plan.end {
            let us = u64::try_from((now - sent).as_micros()).unwrap_or(u64::MAX);
            latencies.saturating_record(us.max(1));
        }
    }
}

async fn measure() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, work, numbers @ ..] = &arguments[..] else { return Err(USAGE.into()) };
    let work = match work.as_str() {
        "put" => Work::Put,
        "get" => Work::Get,
        "fill" => Work::Fill,
        _ => return Err(USAGE.into()),
    };
    let numbers: Vec<u64> = numbers.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    let [clients, keys, value_bytes, seconds, warmup] = numbers[..] else {
        return Err(USAGE.into());
    };

    let mut connected = Vec::new();
    for _ in 0..clients {
        connected.push(Client::connect(endpoint).await?);
    }
    let begin = Instant::now() + Duration::from_secs(warmup);
    let end = begin + Duration::from_secs(seconds);
    let plan = Plan { work, clients, keys, value_bytes: value_bytes as usize, begin, end };
    let tasks = tokio::task::LocalSet::new();
    let running: Vec<_> = connected
        .into_iter()
        .zip(0..)
        .map(|(client, number)| tasks.spawn_local(run_client(client, plan, number)))
        .collect();
    let latencies = tasks
        .run_until(async {
            let mut all = histogram();
            for client in running {
                all.add(client.await??)?;
            }
            Ok::<_, Failure>(all)
        })
        .await?;
    let figures = serde_json::json!({
        "count": latencies.len(),
        "per_second": latencies.len() as f64 / seconds as f64,
        "p50_us": latencies.value_at_quantile(0.5),
        "p99_us": latencies.value_at_quantile(0.99),
        "max_us": latencies.max(),
    });
    println!("{figures}");
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match measure().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("etcd-load: {error}");
            ExitCode::FAILURE
        }
    }
}
