//! The protocol's scenarios as scripts: `tests/core/*.script`, each named after what it shows.
//! `tests/core/cluster.rs` says what the commands do. With `UPDATE_GOLDENFILES=1` in the
//! environment the traces are written anew, to be reviewed as a diff.

#[path = "core/cluster.rs"]
mod cluster;
#[path = "core/runner.rs"]
mod runner;
#[path = "core/text.rs"]
mod text;

#[test]
fn scripts() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/core");
    let mut scripts: Vec<_> = std::fs::read_dir(&directory)
        .expect("the scripts are part of the repository")
        .map(|entry| entry.expect("a readable directory").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "script"))
        .collect();
    scripts.sort();
    assert!(!scripts.is_empty(), "no scripts in {}", directory.display());
    for script in scripts {
        println!("{}", script.display());
        goldenscript::run(&mut runner::ScriptRunner::default(), &script)
            .unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    }
}
