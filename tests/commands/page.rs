//! `docs/commands.md` says what the command table says. `UPDATE_PAGES=1 cargo test --test commands`
//! writes it anew.

use arakoon::command::describe;

#[test]
fn the_page_is_made_from_the_table() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/commands.md");
    let page = describe::page();
    if std::env::var_os("UPDATE_PAGES").is_some() {
        std::fs::create_dir_all(path.parent().expect("it is in a directory")).expect("docs/");
        std::fs::write(&path, &page).expect("the page can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == page, "{} differs from the table: see above how to update", path.display());
}
