//! Rust's clients: the crates redis and fred. The first argument says which, the second in which mode.

mod fred_client;
mod protocol;
mod redis_sync;
mod redis_tokio;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["redis", mode] => redis_sync::run(mode),
        ["redis-tokio", mode] => on_tokio(redis_tokio::run(mode)),
        ["fred", mode] => on_tokio(fred_client::run(mode)),
        _ => panic!("no such client: {words:?}"),
    }
}

fn on_tokio(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("Tokio starts")
        .block_on(work);
}
