//! What review would repeat: the protocol stays free of IO, imports point one way, files stay short.
//!
//! Only code counts: comments are skipped, and so is test code, which may be looser.

use std::path::{Path, PathBuf};

const LINES_MAX: usize = 900;

/// What each module may import of ours. The program's own modules (`cli`, `server`) stand above.
const IMPORTS: [(&str, &[&str]); 10] = [
    ("paxos", &[]),
    ("head", &[]),
    ("store", &[]),
    ("disk", &[]),
    ("command", &["store"]),
    ("peers", &["paxos", "disk"]),
    ("transaction_log", &["paxos", "disk"]),
    ("node", &["command", "peers", "transaction_log", "head", "store", "paxos", "disk"]),
    ("server", &["node", "command", "peers", "store", "paxos", "config", "disk"]),
    (
        "cli",
        &[
            "server",
            "node",
            "command",
            "peers",
            "transaction_log",
            "head",
            "store",
            "paxos",
            "config",
            "disk",
        ],
    ),
];

/// What the protocol must not name: IO, clocks, threads, chance that no seed repeats.
const FORBIDDEN_IN_PAXOS: [&str; 9] = [
    "tokio",
    "std::time",
    "std::fs",
    "std::net",
    "std::thread",
    "std::io",
    "rand::",
    "Instant",
    "SystemTime",
];

const FORBIDDEN: [&str; 4] = ["todo!", "unimplemented!", "dbg!", "unsafe "];

/// The code of a file, without comments and what follows its first test module.
fn code(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let test = line.trim() == "#[cfg(test)]";
        if test && lines.peek().is_some_and(|next| next.trim().starts_with("mod tests {")) {
            break;
        }
        kept.push_str(line.split("//").next().unwrap_or_default());
        kept.push('\n');
    }
    kept
}

/// Whether `word` stands in `code` by itself, not as a part of a longer name.
fn names(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| !code[..at].ends_with(part))
}

/// The modules of ours that `code` imports: `crate::a::...` and `crate::{a::..., b}`.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => found.push(first_word(rest)),
            Some(group) => {
                let mut depth = 0;
                let mut start = true;
                for (place, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        _ if start && !c.is_whitespace() => {
                            found.push(first_word(&group[place..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    found.retain(|name| !name.is_empty());
    found.sort();
    found.dedup();
    found
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// What is wrong with a file's code, given the module it belongs to.
fn faults(module: &str, text: &str) -> Vec<String> {
    let code = code(text);
    let mut faults = Vec::new();
    if text.lines().count() > LINES_MAX {
        faults.push(format!("over {LINES_MAX} lines"));
    }
    faults.extend(FORBIDDEN.iter().filter(|word| names(&code, word)).map(|w| format!("names {w}")));
    if module == "paxos" {
        let named = FORBIDDEN_IN_PAXOS.iter().filter(|word| names(&code, word));
        faults.extend(named.map(|word| format!("names {word}")));
        let seeded = code.replace("fastrand::Rng::with_seed", "").replace("fastrand::Rng", "");
        if names(&seeded, "fastrand::") {
            faults.push("draws from the global generator".into());
        }
    }
    if let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == module) {
        for import in imports(&code) {
            // A fault for the simulator to find may be planted anywhere.
            if import != "planted" && import != module && !allowed.contains(&import.as_str()) {
                faults.push(format!("{module} imports {import}"));
            }
        }
    }
    faults
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("the sources are here") {
        let path = entry.expect("a readable directory").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn sources_are_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for directory in ["src", "resp/src"] {
        files(&root.join(directory), &mut sources);
    }
    assert!(sources.len() > 20, "only {} files found", sources.len());
    let mut found = Vec::new();
    for path in sources {
        let relative = path.strip_prefix(root).expect("below the root");
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if stem == "tests" || stem.ends_with("_tests") {
            continue;
        }
        let mut parts = relative.components().map(|part| part.as_os_str().to_string_lossy());
        let module = match parts.next().as_deref() {
            Some("src") => parts.next().map(|name| name.trim_end_matches(".rs").to_owned()),
            _ => None,
        };
        let text = std::fs::read_to_string(&path).expect("a readable source");
        let wrong = faults(&module.unwrap_or_default(), &text);
        found.extend(wrong.into_iter().map(|fault| format!("{}: {fault}", relative.display())));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn the_checks_find_what_they_look_for() {
    for (module, text, fault) in [
        ("paxos", "use tokio::sync;", "names tokio"),
        ("paxos", "let now = std::time::Instant::now();", "names std::time"),
        ("paxos", "let x = fastrand::u64(..);", "draws from the global generator"),
        ("paxos", "let x = rand::random();", "names rand::"),
        ("paxos", "use crate::disk::Disk;", "paxos imports disk"),
        ("head", "use crate::paxos::Index;", "head imports paxos"),
        ("store", "fn f(x: crate::node::Driver) {}", "store imports node"),
        ("node", "use crate::{store::Store, server::Node};", "node imports server"),
        ("command", "use crate::{store::{Row, Rows}, paxos::Index};", "command imports paxos"),
        ("store", "fn f() { todo!() }", "names todo!"),
        ("", "unsafe { f() }", "names unsafe "),
    ] {
        assert!(
            faults(module, text).contains(&fault.to_owned()),
            "{text}: {:?}",
            faults(module, text)
        );
    }
    let long = "\n".repeat(LINES_MAX + 1);
    assert_eq!(faults("store", &long), ["over 900 lines"]);
}

#[test]
fn the_checks_leave_the_rest_alone() {
    for (module, text) in [
        ("paxos", "//! Knows no tokio.\nlet x = fastrand::Rng::with_seed(1);"),
        ("paxos", "pub(super) random: fastrand::Rng,"),
        ("paxos", "use crate::paxos::Index;"),
        ("store", "pub(crate) fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::node::X;\n}"),
        ("command", "use crate::store::{Row, keyspace::Meta};"),
        ("node", "let strand::x = brand::new();"),
    ] {
        assert_eq!(faults(module, text), Vec::<String>::new(), "{text}");
    }
}
