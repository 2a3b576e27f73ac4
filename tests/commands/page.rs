//! `docs/commands.md` says what the command table says. `UPDATE_PAGES=1 cargo test --test commands`
//! writes it anew.

use arakoon::command::{page, table};

/// Run as a script, too.
const EXAMPLES: &str = include_str!("../scripts/arakoon.script");

#[test]
fn every_command_of_our_own_has_an_example() {
    for spec in table::all().filter(|spec| spec.group == "arakoon") {
        let example = format!("\n{}", spec.name);
        assert!(EXAMPLES.contains(&example), "{} has no example", spec.name);
    }
}

#[test]
fn the_page_is_made_from_the_table() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/commands.md");
    let page = page::page(EXAMPLES);
    if std::env::var_os("UPDATE_PAGES").is_some() {
        std::fs::create_dir_all(path.parent().expect("it is in a directory")).expect("docs/");
        std::fs::write(&path, &page).expect("the page can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == page, "{} differs from the table: see above how to update", path.display());
}
