//! COMMAND DOCS.

use bytes::Bytes;
use resp::Reply;

use super::super::table::{Kind, Spec};
use super::parts::{Part, parts};
use super::syntax::{self, Argument, Form};
use super::{Named, statuses};

/// Commands that others do better: since when, and which.
const DEPRECATED: &[(&str, &str, &str)] = &[
    ("getset", "6.2.0", "`SET` with `GET`"),
    ("psetex", "2.6.12", "`SET` with `PX`"),
    ("quit", "7.2.0", "closing the connection"),
    ("setex", "2.6.12", "`SET` with `EX`"),
    ("setnx", "2.6.12", "`SET` with `NX`"),
    ("substr", "2.0.0", "`GETRANGE`"),
];

type Pairs = Vec<(Reply, Reply)>;

fn add(pairs: &mut Pairs, name: &'static str, value: Reply) {
    pairs.push((Reply::bulk(name), value));
}

pub(super) fn docs(spec: &'static Spec) -> (Reply, Reply) {
    let mut docs = Pairs::new();
    add(&mut docs, "summary", Reply::bulk(spec.summary));
    add(&mut docs, "since", Reply::bulk(spec.since));
    add(&mut docs, "group", Reply::bulk(spec.group));
    add(&mut docs, "complexity", Reply::bulk(spec.complexity));
    if let Some((_, since, other)) = DEPRECATED.iter().find(|(name, ..)| *name == spec.name) {
        add(&mut docs, "doc_flags", statuses(["deprecated"]));
        add(&mut docs, "deprecated_since", Reply::bulk(*since));
        add(&mut docs, "replaced_by", Reply::bulk(*other));
    }
    add_arguments(&mut docs, Named::Whole(spec));
    let parts: Pairs = parts(spec).map(|part| docs_of_part(spec, part)).collect();
    if !parts.is_empty() {
        add(&mut docs, "subcommands", Reply::Map(parts));
    }
    (Reply::bulk(spec.name), Reply::Map(docs))
}

fn docs_of_part(spec: &'static Spec, part: Part) -> (Reply, Reply) {
    let name = Named::Part(spec, part).full_name();
    let mut docs = Pairs::new();
    add(&mut docs, "summary", Reply::bulk(part.summary));
    add(&mut docs, "since", Reply::bulk(part.since));
    add(&mut docs, "group", Reply::bulk(spec.group));
    let complexity = match spec.kind {
        Kind::Connection(_) if part.name == "list" => "O(N), N: what is listed",
        _ => "O(1)",
    };
    add(&mut docs, "complexity", Reply::bulk(complexity));
    add_arguments(&mut docs, Named::Part(spec, part));
    (Reply::bulk(name), Reply::Map(docs))
}

pub(super) fn docs_of(name: &Bytes) -> Option<(Reply, Reply)> {
    match Named::find(name)? {
        Named::Whole(spec) => Some(docs(spec)),
        Named::Part(spec, part) => Some(docs_of_part(spec, part)),
    }
}

fn add_arguments(docs: &mut Pairs, named: Named) {
    let arguments = syntax::arguments(&named.full_name());
    if !arguments.is_empty() {
        let mut keys = Keys { seen: 0, specs: named.key_specs().len() };
        add(docs, "arguments", Reply::Array(describe_all(&arguments, &mut keys)));
    }
}

/// Arguments that are keys: how many came before, and how many key specs there are for them. The
/// last spec is of all keys that are left.
struct Keys {
    seen: usize,
    specs: usize,
}

fn describe_all(arguments: &[Argument], keys: &mut Keys) -> Vec<Reply> {
    arguments.iter().map(|argument| describe(argument, keys)).collect()
}

fn describe(argument: &Argument, keys: &mut Keys) -> Reply {
    let mut pairs = Pairs::new();
    add(&mut pairs, "name", Reply::bulk(argument.name.clone()));
    let kind = match &argument.form {
        Form::Value(kind) => kind,
        Form::Token => "pure-token",
        Form::OneOf(_) => "oneof",
        Form::Block(_) => "block",
    };
    add(&mut pairs, "type", Reply::bulk(kind.to_owned()));
    if matches!(argument.form, Form::Value(_) | Form::Token) {
        add(&mut pairs, "display_text", Reply::bulk(argument.name.clone()));
    }
    if kind == "key" {
        let spec = keys.seen.min(keys.specs.saturating_sub(1));
        add(&mut pairs, "key_spec_index", Reply::Integer(spec as i64));
        keys.seen += 1;
    }
    if let Some(token) = &argument.token {
        add(&mut pairs, "token", Reply::bulk(token.clone()));
    }
    let flags = [(argument.optional, "optional"), (argument.multiple, "multiple")];
    let flags: Vec<&str> = flags.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect();
    if !flags.is_empty() {
        add(&mut pairs, "flags", statuses(flags));
    }
    if let Form::OneOf(inner) | Form::Block(inner) = &argument.form {
        add(&mut pairs, "arguments", Reply::Array(describe_all(inner, keys)));
    }
    Reply::Map(pairs)
}
