//! ACL: there is one user, `default`, who may do everything.

use std::io::Read;

use bytes::Bytes;
use resp::Reply;

use super::administration::{map, subcommand_syntax};
use super::help::{self, help};
use crate::command::describe;
use crate::command::parse::{integer_argument, is, shown};
use crate::command::table;

/// Bits of a password that ACL GENPASS makes at most.
const PASSWORD_BITS_MAX: i64 = 4096;

pub(super) fn acl(args: &[Bytes]) -> Result<Reply, Reply> {
    const USER: &str = "default";
    let name = String::from_utf8_lossy(&args[1]).to_ascii_lowercase();
    let rest = &args[2..];
    match name.as_str() {
        "whoami" => Ok(Reply::bulk(USER)),
        "users" => Ok(Reply::Array(vec![Reply::bulk(USER)])),
        "list" => {
            let text = "user default on nopass sanitize-payload ~* &* +@all";
            Ok(Reply::Array(vec![Reply::bulk(text)]))
        }
        "getuser" if rest[0] != USER => Ok(Reply::Null),
        "getuser" => Ok(map([
            ("flags", Reply::Set(["on", "nopass", "sanitize-payload"].map(Reply::bulk).to_vec())),
            ("passwords", Reply::Array(Vec::new())),
            ("commands", Reply::bulk("+@all")),
            ("keys", Reply::bulk("~*")),
            ("channels", Reply::bulk("&*")),
            ("selectors", Reply::Array(Vec::new())),
        ])),
        "cat" => match rest {
            [] => Ok(Reply::Array(describe::CATEGORIES.iter().copied().map(Reply::bulk).collect())),
            [category] => {
                let category = String::from_utf8_lossy(category).to_ascii_lowercase();
                let known = describe::CATEGORIES.contains(&category.as_str());
                match known {
                    true => Ok(describe::list_category(&category)),
                    false => {
                        let shown = shown(&rest[0]);
                        Err(Reply::error(format!("ERR Unknown category '{shown}'")))
                    }
                }
            }
            _ => Err(subcommand_syntax("ACL", &args[1])),
        },
        "genpass" => password(rest, &args[1]),
        "log" => match rest {
            [] => Ok(Reply::Array(Vec::new())),
            [option] if is(option, "RESET") => Ok(Reply::OK),
            [count] => integer_argument(count).map(|_| Reply::Array(Vec::new())),
            _ => Err(subcommand_syntax("ACL", &args[1])),
        },
        "deluser" => match rest.iter().any(|user| user == USER) {
            true => Err(Reply::error("ERR The 'default' user cannot be removed")),
            false => Ok(Reply::Integer(0)),
        },
        "dryrun" => dry_run(rest),
        "load" | "save" => Err(Reply::error(
            "ERR This Redis instance is not configured to use an ACL file. You may want to specify \
             users via the ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a \
             Redis configuration file set) in order to store users in the Redis configuration.",
        )),
        "setuser" => {
            Err(Reply::error("ERR ACL SETUSER is not supported: the only user is default"))
        }
        _ => Ok(help(help::ACL)),
    }
}

fn dry_run(rest: &[Bytes]) -> Result<Reply, Reply> {
    let (user, call) = (&rest[0], &rest[1..]);
    if user != "default" {
        return Err(Reply::error(format!("ERR User '{}' not found", shown(user))));
    }
    let Some(spec) = table::find(&call[0]) else {
        return Err(Reply::error(format!("ERR Command '{}' not found", shown(&call[0]))));
    };
    spec.check_arity(call).map(|()| Reply::OK)
}

/// Random hexadecimal digits that nobody can guess.
fn password(rest: &[Bytes], subcommand: &[u8]) -> Result<Reply, Reply> {
    let bits = match rest {
        [] => 256,
        [bits] => integer_argument(bits)?,
        _ => return Err(subcommand_syntax("ACL", subcommand)),
    };
    if !(1..=PASSWORD_BITS_MAX).contains(&bits) {
        return Err(Reply::error(format!(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a \
             positive number up to {PASSWORD_BITS_MAX}"
        )));
    }
    let digits = (bits as usize).div_ceil(4);
    let mut random = vec![0; digits.div_ceil(2)];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut it| it.read_exact(&mut random));
    if read.is_err() {
        return Err(Reply::error("ERR this machine has no source of randomness"));
    }
    let mut text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    text.truncate(digits);
    Ok(Reply::bulk(text))
}
