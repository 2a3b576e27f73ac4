//! How long the allocator keeps freed memory before the operating system gets it back.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The allocator reads it before `main`, in milliseconds. Whoever has set it has decided.
const PURGE_DELAY: &str = "MIMALLOC_PURGE_DELAY";
/// A layer's memory is free once the layer is drained, and soon the next layer needs as much: to get it
/// page by page from the operating system, which clears each, took a quarter of the time that applying
/// takes with millions of keys. Giving back parts also splits large pages, which all lookups feel.
const PURGE_DELAY_MS: &str = "600000";

/// Starts the program anew in place, unless the allocator already is told how long to keep memory.
/// Nothing is open yet, and it stays the same process. If that cannot be, memory goes back earlier.
pub fn keep_freed_memory() {
    if std::env::var_os(PURGE_DELAY).is_some() {
        return;
    }
    let mut arguments = std::env::args_os();
    let (Ok(program), Some(name)) = (std::env::current_exe(), arguments.next()) else { return };
    // Else it was started through a loader or a debugger, which the file of this process is then.
    if program.file_name() != Path::new(&name).file_name() {
        return;
    }
    let mut anew = Command::new(program);
    drop(anew.arg0(name).args(arguments).env(PURGE_DELAY, PURGE_DELAY_MS).exec());
}
