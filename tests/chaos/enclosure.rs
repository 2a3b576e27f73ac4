//! The namespaces that a run lives in.
//!
//! The runner starts itself anew in a network and a mount namespace without a name. The bridge, the
//! nodes' network namespaces and their disks are made inside, so nothing of it is seen from the
//! machine, several runs do not collide, and the kernel takes all of it away when the last process
//! of the run is gone: also after kill -9 of the runner, because its nodes end with it.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use rustix::process::geteuid;

/// Set in the runner that is inside.
const INSIDE_VARIABLE: &str = "ARAKOON_CHAOS_INSIDE";
/// Skips tests that mount, also for root.
const NO_MOUNT_VARIABLE: &str = "ARAKOON_NO_MOUNT";

/// Programs that a run needs, and their packages in Debian.
const PROGRAMS: [(&str, &str); 7] = [
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("faketime", "faketime"),
    ("env", "coreutils"),
];

/// Why there can be no run here, if that is nobody's mistake.
pub fn reason_to_skip() -> Option<String> {
    if std::env::var_os(NO_MOUNT_VARIABLE).is_some() {
        return Some(format!("{NO_MOUNT_VARIABLE} is set"));
    }
    (!geteuid().is_root())
        .then(|| "it needs root, to make network namespaces and to mount small disks".to_string())
}

/// Goes on inside; returns only there, or with an error.
pub fn enter() -> anyhow::Result<()> {
    if std::env::var_os(INSIDE_VARIABLE).is_some() {
        return furnish();
    }
    let missing: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| !is_there(program))
        .map(|(_, package)| *package)
        .collect();
    if !missing.is_empty() {
        bail!("programs are missing; install Debian's packages {}", missing.join(" "));
    }
    let program = std::env::current_exe().context("cannot find this program's file")?;
    let error = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private", "--"])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(INSIDE_VARIABLE, "1")
        .exec();
    Err(error).context("cannot start in namespaces of its own")
}

/// What inside is not shared with the machine: names of network namespaces, shared memory.
fn furnish() -> anyhow::Result<()> {
    std::fs::create_dir_all("/run/netns").context("cannot make /run/netns")?;
    for directory in ["/run/netns", "/dev/shm"] {
        run(&["mount", "-t", "tmpfs", "tmpfs", directory]).with_context(|| {
            format!("cannot mount; {NO_MOUNT_VARIABLE}=1 skips tests that need to")
        })?;
    }
    Ok(())
}

fn is_there(program: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .any(|directory| directory.join(program).is_file())
}

/// Runs a program to its end; an error with what it wrote when it fails.
pub fn run(words: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new(words[0]);
    let output = command
        .args(&words[1..])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{} does not start", words[0]))?;
    if !output.status.success() {
        bail!("{}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
