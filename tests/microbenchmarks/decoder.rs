//! From bytes to requests.

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput};
use resp::{RequestDecoder, encode_request};

use super::{VALUE_BYTES, key_name};

const PIPELINE: u64 = 16;

/// A pipeline of SETs, and one of GETs, that arrive at once.
pub fn run(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decoder");
    group.throughput(Throughput::Elements(PIPELINE));
    let value = "v".repeat(VALUE_BYTES);
    for name in ["SET", "GET"] {
        let mut bytes = BytesMut::new();
        for key in 0..PIPELINE {
            let key = key_name(key);
            let arguments = [name, key.as_str(), value.as_str()];
            let arguments = if name == "SET" { &arguments[..] } else { &arguments[..2] };
            encode_request(arguments, &mut bytes);
        }
        group.bench_function(format!("{name}, pipeline of {PIPELINE}"), |bencher| {
            let mut decoder = RequestDecoder::default();
            let decode = |mut buffer: BytesMut| {
                let mut requests = 0;
                while decoder.decode(&mut buffer).expect("well-formed requests").is_some() {
                    requests += 1;
                }
                assert_eq!(requests, PIPELINE);
            };
            bencher.iter_batched(|| BytesMut::from(&bytes[..]), decode, BatchSize::SmallInput);
        });
    }
    group.finish();
}
