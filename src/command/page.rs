//! The table as readers see it: `docs/commands.md`.

use super::table::{self, Kind, Spec};

/// Arakoon's operations by their old names, and what does the same here.
const OLD_NAMES: &[(&str, &str)] = &[
    ("hello, ping", "PING, HELLO"),
    ("who_master", "AK.MASTER"),
    ("exists, exists_multi", "EXISTS"),
    ("get, multi_get_option", "GET, MGET"),
    ("multi_get", "AK.MGET"),
    ("set", "SET"),
    ("delete", "DEL"),
    ("confirm", "AK.CONFIRM"),
    ("replace", "SET with GET, GETDEL"),
    ("test_and_set", "SET with IFEQ or NX and GET, DELEX with IFEQ"),
    ("assert, assert_exists", "AK.ASSERT with VALUE, ABSENT or PRESENT, in MULTI"),
    ("assert_range", "AK.ASSERTRANGE, in MULTI"),
    ("sequence, synced_sequence", "MULTI and EXEC; every one is synced before it is answered"),
    ("range, range_entries", "AK.RANGE, with WITHVALUES for entries"),
    ("rev_range_entries", "AK.RANGE with REV and WITHVALUES"),
    ("prefix_keys", "AK.PREFIX"),
    ("delete_prefix", "AK.DELPREFIX; AK.DELRANGE for any range"),
    ("nop", "AK.NOP"),
    ("get_txid", "AK.TXID"),
    ("consistency at_least", "READONLY and AK.ATLEAST"),
    ("allow dirty reads", "READONLY"),
    ("expect_progress_possible", "AK.PROGRESS"),
    ("statistics", "AK.STATS, INFO"),
    ("version", "HELLO, INFO"),
    ("user functions", "none"),
];

/// The page `docs/commands.md`; `examples`: a script of Arakoon's own commands with its replies.
pub fn page(examples: &str) -> String {
    let mut page = String::from(
        "# Commands\n\n\
         Made from the command table (`src/command/table.rs`) by\n\
         `UPDATE_PAGES=1 cargo test --test commands`; do not edit by hand.\n\n\
         Arity counts the command's name; a negative one is the least. `log`: goes through the\n\
         replicated log; `read`: answered by the master from its store while its lease holds;\n\
         `node`: answered by the node itself.\n",
    );
    let mut specs: Vec<&Spec> = table::all().collect();
    specs.sort_by_key(|spec| (spec.group, spec.name));
    let mut group = "";
    for spec in specs {
        if spec.group != group {
            group = spec.group;
            page.push_str(&format!(
                "\n## {group}\n\n| Command | Arity | By | What it does | Cost |\n|---|---|---|---|---|\n"
            ));
        }
        let by = match spec.kind {
            Kind::Read(_) => "read",
            Kind::Write { .. } => "log",
            Kind::Connection(_) => "node",
        };
        let Spec { arity, summary, complexity, .. } = spec;
        let name = spec.name.to_ascii_uppercase();
        page.push_str(&format!("| {name} | {arity} | {by} | {summary} | {complexity} |\n"));
    }
    page.push_str("\n## Arakoon's old names\n\n| Arakoon | Here |\n|---|---|\n");
    for (old, new) in OLD_NAMES {
        page.push_str(&format!("| {old} | {new} |\n"));
    }
    page.push_str(
        "\n## Examples of Arakoon's own\n\n\
         A test runs these. Above each line are the commands, below it what they answer: `+` a status,\n\
         `-` an error, `:` a number, in quotes a string, in brackets an array.\n\n```text\n",
    );
    page.push_str(examples);
    page.push_str("```\n");
    page
}
