//! `arakoon serve`: one node in this process.

mod links;

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, bail};
use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};
use rustix::net::listen;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

use self::links::{PeerOutbox, listen_to_peers};
use super::{ServeArgs, open_files};
use crate::config::{Config, EngineKind};
use crate::disk::{Disk, RealDisk};
use crate::node::recovery::{self, NodeSettings, OpenedNode};
use crate::node::runtime::Fatal;
use crate::node::{self, Ended, KeepAwake, Node, Surroundings, clock};
use crate::paxos::{Incarnation, NodeId, Settings};
use crate::server::Shared;
use crate::server::answers::Answers;
use crate::server::limits::ConnectionLimits;
use crate::server::listener::ClientListener;
use crate::server::loading::LoadingHandler;
use crate::server::node::NodeBackend;
use crate::server::places::{Place, Places, seats_for};
use crate::server::registry::ClientRegistry;
use crate::server::session_handler::SessionHandler;
use crate::server::short_turns::{self, ShortTurns};
use crate::server::subscriptions::SWITCH_MASTER;
use crate::server::ticker;
use crate::store::{
    EngineChoice, RealFile, StoreOptions, StorePlace, boot_id, engine_panic_is_caught,
};
use crate::transaction_log;

/// The exit code of a node whose disk failed.
const EXIT_STORAGE_FAILED: i32 = 3;
/// How long reads that are still under way at the end may take.
const READS_END: Duration = Duration::from_millis(500);
/// How long clients may take to get their last replies at a stop.
const CLIENTS_FINISH: Duration = Duration::from_millis(200);
/// How often a node is looked at that may end by itself.
const END_LOOKED_FOR_EVERY: Duration = Duration::from_millis(20);

/// What a node needs to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeOptions {
    /// All nodes and what holds for them.
    pub config: Config,
    /// Which of them this process is.
    pub seat: NodeId,
    /// Without a config file: no peers to listen for.
    pub alone: bool,
}

/// Checks the arguments and reads the config file. With `--exit-with-parent` it also ties this
/// process to its parent, before anything is started that would have to be stopped.
pub fn options(args: &ServeArgs) -> anyhow::Result<ServeOptions> {
    if let Some(parent) = args.exit_with_parent {
        exit_with_parent(parent)?;
    }
    let (Some(file), Some(name)) = (&args.config, &args.node) else {
        let config = Config::single(args.bind, args.port, &args.dir);
        return Ok(ServeOptions { config, seat: NodeId(0), alone: true });
    };
    let config = Config::load(file)?;
    let Some(seat) = config.seat(name) else {
        let names: Vec<&str> = config.nodes.iter().map(|node| node.name.as_str()).collect();
        bail!("--node {name}: {} has the nodes {}", file.display(), names.join(", "));
    };
    Ok(ServeOptions { config, seat, alone: false })
}

/// Runs a node until SIGTERM or Ctrl-C, then stops it in order.
pub fn run(options: ServeOptions) -> anyhow::Result<ExitCode> {
    for warning in options.config.warnings() {
        tracing::warn!("{warning}");
    }
    if let Some(ppm) = clock::test_drift_ppm() {
        tracing::warn!(ppm, "the boot clock drifts, as a test asks; never for real data");
    }
    end_the_process_on_panic();
    let fatal: Fatal = Arc::new(|reason| {
        tracing::error!("{reason}");
        tracing::error!("the node stops at once; nothing is retried on a failing disk");
        std::process::exit(EXIT_STORAGE_FAILED);
    });
    let mut limits = ConnectionLimits::default();
    limits.clients_max = open_files::clients_allowed(limits.clients_max);
    open_files::make_room(limits.clients_max);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("tokio")
        .build()
        .context("cannot start Tokio")?;
    let ended = runtime.block_on(serve(&options, limits, &fatal));
    // Not a drop: that would wait for reads that take minutes, of clients who are gone.
    runtime.shutdown_timeout(READS_END);
    match ended? {
        Ended::Stopped => Ok(ExitCode::SUCCESS),
        Ended::Outlived(above) => begin_again(&options, above),
    }
}

async fn serve(
    options: &ServeOptions,
    limits: ConnectionLimits,
    fatal: &Fatal,
) -> anyhow::Result<Ended> {
    let (config, seat) = (&options.config, options.seat);
    let node = config.node(seat);
    std::fs::create_dir_all(&node.dir)
        .with_context(|| format!("cannot create {}", node.dir.display()))?;
    let _lock = lock(&node.dir)?;
    let clients = TcpListener::bind(&node.client)
        .await
        .and_then(TcpListener::into_std)
        .and_then(|listener| lengthen_queue(listener, limits.clients_max))
        .with_context(|| format!("cannot listen for clients on {}", node.client))?;
    let opened = open_while_clients_hear_loading(options, &clients, limits).await?;
    let clients = TcpListener::from_std(clients).context("cannot listen for clients")?;
    let incarnation = opened.start.settings.incarnation;
    tracing::info!(
        node = node.name,
        cluster = config.cluster.id,
        dir = %node.dir.display(),
        %incarnation,
        last = %opened.start.recovered.last,
        applied = %opened.start.applied.index,
        "starts"
    );
    let registry = Arc::new(OnceLock::<Arc<ClientRegistry>>::new());
    let outbox = Arc::new(PeerOutbox::default());
    let master_changes = Arc::new(MasterChanges::default());
    let surroundings = Surroundings {
        directory: node.dir.clone(),
        disk: Arc::new(RealDisk),
        outbox: Box::new(outbox.clone()),
        close_clients: {
            let registry = registry.clone();
            Arc::new(move || {
                if let Some(registry) = registry.get() {
                    registry.close_clients(|client| !client.is_readonly());
                }
            })
        },
        master_changed: {
            let changes = master_changes.clone();
            Arc::new(move |master| changes.note(master))
        },
        log_keep_bytes: config.cluster.log_keep_bytes,
        disk_reserve_bytes: config.cluster.disk_reserve_bytes,
        keep_awake: match (node.keep_awake, config.shares_machine(seat)) {
            (false, _) => KeepAwake::No,
            (true, true) => KeepAwake::AsLeader,
            (true, false) => KeepAwake::Yes,
        },
        fatal: fatal.clone(),
    };
    let heads = opened.heads.clone();
    let running = Node::start(opened, surroundings).context("cannot start the node's threads")?;
    if !options.alone {
        let peers = listen_to_peers(config.clone(), seat, incarnation, running.inbox());
        let peers = running.beside_driver().spawn(peers).await.context("cannot start peers")??;
        outbox.set(peers);
    }

    let handle = running.handle().clone();
    // A read that goes on while the store is closed fails, but the disk did not.
    let closing = Arc::new(AtomicBool::new(false));
    let read_failed: Fatal = Arc::new({
        let (closing, fatal) = (closing.clone(), fatal.clone());
        move |reason| {
            if !closing.load(Ordering::SeqCst) {
                fatal(reason);
            }
        }
    });
    let backend = NodeBackend::new(handle, config.clone(), seat, limits.clients_max, read_failed);
    let links = outbox.clone();
    let backend = backend.with_heads(heads).with_links(Arc::new(move |node| links.stand(node)));
    let backend = Arc::new(backend);
    let shared = Shared::new(incarnation.0 ^ clock::boot_us());
    let shared = Arc::new(shared.with_clocks(clock::boot_us, clock::wall_ms));
    master_changes.tell(backend.clone(), shared.clone());
    let short_turns = match Places::are_of_use() {
        true => Some(ShortTurns::start().context("cannot start the thread for short turns")?),
        false => None,
    };
    let places = short_turns.as_ref().map(|it| {
        let (short_turns, beside_driver) = (it.runtime().clone(), running.beside_driver().clone());
        let seats = seats_for(limits.clients_max);
        Places::new(Handle::current(), short_turns, beside_driver, seats)
    });
    let listener = ClientListener::start(clients, limits, places.clone(), {
        let (shared, backend) = (shared.clone(), backend.clone());
        move |client| SessionHandler::new(shared.clone(), client, backend.clone())
    });
    if let Some(places) = &places {
        let kept_awake = running.kept_awake();
        tokio::spawn(short_turns::watch(places.clone(), move || kept_awake()));
    }
    hand_out(backend.answers(), running.handle(), places, listener.registry());
    shared.set_registry(listener.registry().clone());
    tokio::spawn(ticker::run(shared));
    assert!(registry.set(listener.registry().clone()).is_ok(), "the registry is set once");
    tracing::info!(address = node.client, "ready for clients");

    wait_for_the_end(&running, &backend).await?;
    closing.store(true, Ordering::SeqCst);
    listener.shutdown(CLIENTS_FINISH).await;
    drop(short_turns);
    outbox.shutdown().await;
    tokio::task::spawn_blocking(|| running.join()).await.context("the node did not end in order")
}

/// All clients of the last master connect to the next one at the same moment. The queue of 128 that
/// the libraries ask for drops most of them, and their systems ask again after a second. The operating
/// system has a limit of its own, `somaxconn`.
fn lengthen_queue(
    listener: std::net::TcpListener,
    clients_max: usize,
) -> std::io::Result<std::net::TcpListener> {
    listen(&listener, i32::try_from(clients_max).unwrap_or(i32::MAX))?;
    Ok(listener)
}

async fn open_while_clients_hear_loading(
    options: &ServeOptions,
    clients: &std::net::TcpListener,
    limits: ConnectionLimits,
) -> anyhow::Result<OpenedNode> {
    let listener = clients.try_clone().and_then(TcpListener::from_std);
    let (config, seat) = (options.config.clone(), options.seat);
    let loading = ClientListener::start(
        listener.context("cannot listen for clients")?,
        limits,
        None,
        move |_| LoadingHandler::new(&config, seat),
    );
    // It blocks this thread alone; connections are served by Tokio's.
    let opened = open(options, Incarnation(0))?;
    loading.shutdown(CLIENTS_FINISH).await;
    Ok(opened)
}

/// Starts what answers those who wait for updates, in all places where they may be.
fn hand_out(
    answers: &Arc<Answers>,
    node: &node::Handle,
    places: Option<Places>,
    registry: &Arc<ClientRegistry>,
) {
    let (here, overdue) = (answers.clone(), answers.clone());
    let (node, registry) = (node.clone(), registry.clone());
    tokio::spawn(async move { here.hand_out_in(Place::Workers).await });
    if let Some(places) = places {
        for place in [Place::ShortTurns, Place::BesideDriver] {
            let there = answers.clone();
            places.runtime(place).spawn(async move { there.hand_out_in(place).await });
        }
    }
    let hang_up = move || {
        let count = registry.list().iter().filter(|client| client.hang_up()).count();
        if count > 0 {
            tracing::warn!("the driver stands still, as the disk may: closed {count} connections");
        }
    };
    tokio::spawn(async move { overdue.watch(&node, hang_up).await });
}

/// Returns when the node has handed over after a signal or a client's word, or has ended by itself.
async fn wait_for_the_end(running: &Node, backend: &NodeBackend) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?;
    // What starting anew in place may have left deadly, if it was refused.
    let _pipe = signal(SignalKind::pipe()).context("cannot wait for SIGPIPE")?;
    let mut look = tokio::time::interval(END_LOOKED_FOR_EVERY);
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = backend.told_to_stop() => {}
            _ = look.tick() => {
                if running.has_ended() {
                    return Ok(());
                }
                continue;
            }
        }
        tracing::info!("stops: hands over what it leads");
        running.stop();
    }
}

/// Of the blocks of its files. Single rows have a cache of their own, which serves what is asked for
/// again; what scans read of all files had better not take as much memory once more.
fn fjall_cache_bytes(cache_bytes: u64) -> u64 {
    cache_bytes.min((cache_bytes / 4).max(64 << 20))
}

fn open(options: &ServeOptions, above: Incarnation) -> anyhow::Result<OpenedNode> {
    let (config, seat) = (&options.config, options.seat);
    let node = config.node(seat);
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let log_directory = node.dir.join("log");
    disk.create_directory(&log_directory)
        .with_context(|| format!("cannot create {}", log_directory.display()))?;
    let place = StorePlace {
        engine: match node.engine {
            EngineKind::Sled => EngineChoice::Sled {
                directory: node.dir.join("store"),
                cache_capacity_bytes: node.cache_bytes,
                flush_every_ms: 500,
            },
            EngineKind::Fjall => EngineChoice::Fjall {
                directory: node.dir.join("store"),
                cache_capacity_bytes: fjall_cache_bytes(node.cache_bytes),
            },
        },
        journal: Box::new(RealFile::new(node.dir.join("store.journal"))),
        trust: Box::new(RealFile::new(log_directory.join("store.trust"))),
        boot_id: boot_id().context("cannot read the machine's boot id")?,
    };
    let lease_us = config.cluster.lease.as_micros() as u64;
    let mut paxos = Settings::new(seat, Incarnation(0), config.nodes.len(), lease_us);
    paxos.zones = config.nodes.iter().filter_map(|node| node.zone.clone()).collect();
    let settings = NodeSettings {
        cluster_id: config.cluster.id.clone(),
        node_name: node.name.clone(),
        paxos,
        client_addresses: config.nodes.iter().map(|node| node.advertised().to_owned()).collect(),
        store: StoreOptions {
            spill_directory: Some(node.dir.join("spill")),
            ..match node.engine {
                // It gets row by row anyway.
                EngineKind::Sled => {
                    StoreOptions { cache_bytes: node.cache_bytes, ..StoreOptions::default() }
                }
                EngineKind::Fjall => StoreOptions::with_cache(node.cache_bytes),
            }
        },
        log: transaction_log::Options::with_segment_bytes(config.cluster.log_segment_bytes),
        head_every_bytes: config.cluster.head_every_bytes,
    };
    // Unique: two lives of a node never begin in the same millisecond with the same random bits.
    let mut random = fastrand::Rng::new();
    let fresh = Incarnation(clock::wall_ms() << 20 | random.u64(..1 << 20));
    let (seed, now_us) = (random.u64(..), clock::boot_us());
    Ok(recovery::open(&disk, &node.dir, place, settings, fresh, above, seed, now_us)?)
}

/// The cluster knows a later life of this node than the one just begun (its clock stood lower): a
/// higher one is written down, and the program starts anew in place.
fn begin_again(options: &ServeOptions, above: Incarnation) -> anyhow::Result<ExitCode> {
    drop(open(options, above)?);
    let program = std::env::current_exe().context("cannot find this program's file")?;
    let error = Command::new(program).args(std::env::args_os().skip(1)).exec();
    Err(error).context("cannot start anew")
}

/// Changes of the master, on their way to whoever asked to be told. Those before anybody listens
/// come down to the last.
#[derive(Default)]
struct MasterChanges(Mutex<Listener>);

#[derive(Default)]
struct Listener {
    last: Option<NodeId>,
    to: Option<(Arc<NodeBackend>, Arc<Shared>)>,
}

impl MasterChanges {
    fn note(&self, master: Option<NodeId>) {
        let mut listener = self.0.lock();
        listener.last = master;
        if let Some((backend, shared)) = &listener.to {
            for message in backend.master_changed(master) {
                shared.publish(SWITCH_MASTER, &message);
            }
        }
    }

    fn tell(&self, backend: Arc<NodeBackend>, shared: Arc<Shared>) {
        let mut listener = self.0.lock();
        // Nobody is connected yet, so there is nobody to tell.
        backend.master_changed(listener.last);
        listener.to = Some((backend, shared));
    }
}

/// Two processes on one directory would ruin it.
fn lock(directory: &Path) -> anyhow::Result<File> {
    let path = directory.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(_) => bail!(
            "{}: another process uses this directory; stop it first, or choose another directory",
            directory.display()
        ),
    }
}

/// A broken invariant must not leave half a node running.
fn end_the_process_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if engine_panic_is_caught() {
            return; // It becomes an error that says more.
        }
        print(panic);
        std::process::abort();
    }));
}

/// Has the kernel kill this process when the thread of the parent that started it ends.
///
/// SIGKILL, not SIGTERM: what remains of a killed `dev` must go at once, and a node bears a kill
/// at any time. The parent may have died before the request: then its pid is not ours any more.
fn exit_with_parent(parent: i32) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .context("cannot ask to end with the parent process")?;
    if Pid::as_raw(getppid()) != parent {
        bail!("the process {parent} that started this node is gone already");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn args(config: Option<PathBuf>, node: Option<&str>) -> ServeArgs {
        ServeArgs {
            config,
            node: node.map(str::to_string),
            bind: "127.0.0.1".parse().expect("an address"),
            port: 4000,
            dir: "arakoon-data".into(),
            exit_with_parent: None,
        }
    }

    #[test]
    fn without_arguments_a_node_runs_alone() {
        let options = options(&args(None, None)).expect("defaults are right");
        assert!(options.alone);
        assert_eq!(options.config.node(options.seat).client, "127.0.0.1:4000");
    }

    #[test]
    fn a_name_that_the_file_lacks_is_refused_with_those_it_has() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("c.toml");
        let text = "[cluster]\nid = \"c\"\n[[node]]\nname = \"a\"\nclient = \"h:1\"\n\
                    peer = \"h:2\"\ndir = \"a\"\n";
        std::fs::write(&file, text).expect("the file is written");
        assert_eq!(
            options(&args(Some(file.clone()), Some("a"))).expect("a is there").seat,
            NodeId(0)
        );
        let error = options(&args(Some(file.clone()), Some("b"))).expect_err("no b");
        assert_eq!(error.to_string(), format!("--node b: {} has the nodes a", file.display()));
    }
}
