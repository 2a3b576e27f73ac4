//! The config file that `dev` writes, or finds again.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::cli::DevArgs;
use crate::config::Config;

/// Distance between a node's client port and its peer port.
const PEER_PORT_OFFSET: u16 = 500;
/// Nodes of a `dev` that was killed just now may still be ending.
const PORTS_FREE_WITHIN: Duration = Duration::from_secs(1);
const FILE_NAME: &str = "cluster.toml";

/// Makes sure that the directory holds the config that the arguments ask for, and that its ports
/// are free. An existing config may differ in what `dev` has no argument for, such as the lease.
pub fn prepare(args: &DevArgs) -> anyhow::Result<(Config, PathBuf)> {
    let text = text(args)?;
    let file = args.dir.join(FILE_NAME);
    let wanted = Config::parse(&file, &text).expect("the config that dev writes is right");
    if file.exists() {
        let existing = Config::load(&file)?;
        let seats = |config: &Config| -> Vec<(String, String, PathBuf)> {
            let seat = |node: &crate::config::NodeConfig| {
                (node.name.clone(), node.client.clone(), node.dir.clone())
            };
            config.nodes.iter().map(seat).collect()
        };
        if seats(&existing) != seats(&wanted) {
            let first = &existing.nodes[0].client;
            bail!(
                "{} has another cluster, {} nodes from {first}; start it with its own --nodes and \
                 --port, or choose another --dir",
                args.dir.display(),
                existing.nodes.len(),
            );
        }
        check_ports(&existing)?;
        return Ok((existing, file));
    }
    check_ports(&wanted)?;
    std::fs::create_dir_all(&args.dir)
        .with_context(|| format!("cannot create {}", args.dir.display()))?;
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok((wanted, file))
}

fn text(args: &DevArgs) -> anyhow::Result<String> {
    let last = u32::from(args.port) + u32::from(PEER_PORT_OFFSET) + u32::from(args.nodes) - 1;
    if args.port == 0 || last > u32::from(u16::MAX) {
        bail!("--port {}: choose one from 1 to 65000", args.port);
    }
    let mut text = String::from(
        "# Written by arakoon dev; keys that it has no argument for may be added.\n\
         [cluster]\nid = \"dev\"\n",
    );
    for seat in 0..args.nodes {
        let client = args.port + seat;
        let peer = client + PEER_PORT_OFFSET;
        let name = format!("n{}", seat + 1);
        text += &format!(
            "\n[[node]]\nname = \"{name}\"\nclient = \"127.0.0.1:{client}\"\n\
             peer = \"127.0.0.1:{peer}\"\ndir = \"{name}\"\n"
        );
    }
    Ok(text)
}

/// Better one clear line now than one per node from processes that cannot listen.
fn check_ports(config: &Config) -> anyhow::Result<()> {
    let deadline = Instant::now() + PORTS_FREE_WITHIN;
    for address in config.nodes.iter().flat_map(|node| [&node.client, &node.peer]) {
        while let Err(error) = TcpListener::bind(address) {
            if Instant::now() >= deadline {
                return Err(error)
                    .with_context(|| format!("cannot listen on {address}; choose another --port"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(dir: &std::path::Path, nodes: u16, port: u16) -> DevArgs {
        DevArgs { nodes, port, dir: dir.to_path_buf() }
    }

    /// A port that is free, as are the two next ones and those 500 above: below the range that the
    /// system gives to outgoing connections, where other tests would take one in between.
    fn free_port() -> u16 {
        let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        let is_fit = |first: &u16| (*first..*first + 3).all(|port| free(port) && free(port + 500));
        std::iter::repeat_with(|| fastrand::u16(2_000..9_000))
            .take(1000)
            .find(is_fit)
            .expect("one of so many is free")
    }

    #[test]
    fn the_same_directory_keeps_its_config_and_refuses_another() {
        let dir = tempfile::tempdir().expect("a directory");
        let port = free_port();
        let (config, file) = prepare(&args(dir.path(), 3, port)).expect("a new one");
        assert_eq!(config.nodes.len(), 3);
        assert_eq!(config.nodes[2].dir, dir.path().join("n3"));

        let edited = std::fs::read_to_string(&file)
            .expect("it was written")
            .replace("id = \"dev\"", "id = \"dev\"\nlease = \"2s\"");
        std::fs::write(&file, edited).expect("it can be changed");
        let (again, _) = prepare(&args(dir.path(), 3, port)).expect("the same one");
        assert_eq!(again.cluster.lease.as_secs(), 2, "an added key is kept");

        let error = prepare(&args(dir.path(), 5, port)).expect_err("not the same");
        assert_eq!(
            error.to_string(),
            format!(
                "{} has another cluster, 3 nodes from 127.0.0.1:{port}; start it with its own \
                 --nodes and --port, or choose another --dir",
                dir.path().display()
            )
        );
    }

    #[test]
    fn a_taken_port_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let (taken, port) = (20_000..65_000)
            .find_map(|port| Some((TcpListener::bind(("127.0.0.1", port)).ok()?, port)))
            .expect("one of so many is free");
        let error = prepare(&args(dir.path(), 1, port)).expect_err("it is taken");
        assert_eq!(
            error.to_string(),
            format!("cannot listen on 127.0.0.1:{port}; choose another --port")
        );
        drop(taken);
    }
}
