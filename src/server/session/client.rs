//! CLIENT.

use bytes::Bytes;
use resp::Reply;

use super::Session;
use crate::command::parse::{SYNTAX, integer, is, wrong_arity};

impl Session {
    pub(super) fn client(&mut self, args: &[Bytes]) -> Reply {
        let (subcommand, rest) = (&args[1], &args[2..]);
        let name = String::from_utf8_lossy(subcommand).to_ascii_lowercase();
        match (name.as_str(), rest) {
            ("id", []) => Reply::Integer(self.id as i64),
            ("getname", []) => {
                let name = self.shared.update(self.id, |client| client.name.clone());
                if name.is_empty() { Reply::Null } else { Reply::bulk(name) }
            }
            ("setname", [name]) => match check_name(name) {
                Ok(name) => {
                    self.shared.update(self.id, |client| client.name = name);
                    Reply::OK
                }
                Err(error) => error,
            },
            ("setinfo", [attribute, value]) => self.set_info(attribute, value),
            ("info", []) => Reply::Verbatim("txt", Bytes::from(self.shared.list(Some(&[self.id])))),
            ("list", options) => self.list(options),
            ("id" | "getname" | "setname" | "setinfo" | "info", _) => {
                wrong_arity(&format!("client|{name}"))
            }
            _ => {
                let subcommand = String::from_utf8_lossy(subcommand);
                Reply::error(format!("ERR unknown subcommand '{subcommand}'. Try CLIENT HELP."))
            }
        }
    }

    fn list(&self, options: &[Bytes]) -> Reply {
        let text = match options {
            [] => self.shared.list(None),
            [option, kind] if is(option, "TYPE") => {
                let kind = String::from_utf8_lossy(kind).to_ascii_lowercase();
                match kind.as_str() {
                    "normal" => self.shared.list(None),
                    "master" | "replica" | "slave" | "pubsub" => String::new(),
                    _ => return Reply::error(format!("ERR Unknown client type '{kind}'")),
                }
            }
            [option, ids @ ..] if is(option, "ID") && !ids.is_empty() => {
                let ids: Option<Vec<u64>> = ids
                    .iter()
                    .map(|id| integer(id).and_then(|id| u64::try_from(id).ok()))
                    .collect();
                match ids {
                    Some(ids) => self.shared.list(Some(&ids)),
                    None => return Reply::error("ERR Invalid client ID"),
                }
            }
            _ => return SYNTAX,
        };
        Reply::Verbatim("txt", Bytes::from(text))
    }

    fn set_info(&self, attribute: &[u8], value: &[u8]) -> Reply {
        let Some(value) = printable(value) else {
            let attribute = String::from_utf8_lossy(attribute).to_ascii_lowercase();
            return Reply::error(format!(
                "ERR {attribute} cannot contain spaces, newlines or special characters."
            ));
        };
        if is(attribute, "LIB-NAME") {
            self.shared.update(self.id, |client| client.library_name = value);
        } else if is(attribute, "LIB-VER") {
            self.shared.update(self.id, |client| client.library_version = value);
        } else {
            let attribute = String::from_utf8_lossy(attribute);
            return Reply::error(format!("ERR Unrecognized option '{attribute}'"));
        }
        Reply::OK
    }
}

/// A client's name: one word of printable ASCII, or nothing.
pub(super) fn check_name(name: &[u8]) -> Result<String, Reply> {
    printable(name).ok_or_else(|| {
        Reply::error("ERR Client names cannot contain spaces, newlines or special characters.")
    })
}

fn printable(text: &[u8]) -> Option<String> {
    let all = text.iter().all(|byte| byte.is_ascii_graphic());
    all.then(|| String::from_utf8_lossy(text).into_owned())
}
