//! CLIENT.

use bytes::Bytes;
use resp::Reply;

use super::Session;
use super::help::help;
use super::replies::Replies;
use super::waiting::timeout;
use crate::command::parse::{SYNTAX, integer, is};
use crate::server::Backend;
use crate::server::pause::Paused;
use crate::server::shared::{ClientInfo, TIMED_OUT, UNBLOCKED};

const HELP: &[&str] = &[
    "CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CAPA <capability> [<capability> ...]",
    "    Say what this client can do: REDIRECT, to be told REDIRECT instead of MOVED.",
    "GETNAME",
    "    Answer this connection's name.",
    "GETREDIR",
    "    Answer -1: there is no tracking to redirect.",
    "ID",
    "    Answer this connection's number.",
    "INFO",
    "    Describe this connection.",
    "KILL <ip:port>",
    "    Close that connection.",
    "KILL <option> <value> [<option> <value> [...]]",
    "    Close the connections that all options pick: ADDR <ip:port>, LADDR <ip:port>,",
    "    ID <number>, TYPE (NORMAL|MASTER|REPLICA|PUBSUB), USER <name>, MAXAGE <seconds>,",
    "    SKIPME (YES|NO) for this connection itself.",
    "LIST [TYPE (NORMAL|MASTER|REPLICA|PUBSUB) | ID <number> [...]]",
    "    Describe the connections.",
    "NO-EVICT (ON|OFF)",
    "    Shown by LIST; no connection is evicted here.",
    "NO-TOUCH (ON|OFF)",
    "    Shown by LIST; no read leaves a trace here.",
    "PAUSE <milliseconds> [WRITE|ALL]",
    "    Hold commands back for a while: updates, or all.",
    "REPLY (ON|OFF|SKIP)",
    "    Answer or not.",
    "SETINFO <option> <value>",
    "    Name the client's library: LIB-NAME, LIB-VER.",
    "SETNAME <name>",
    "    Name this connection.",
    "TRACKINGINFO",
    "    Answer that there is no tracking.",
    "UNBLOCK <number> [TIMEOUT|ERROR]",
    "    End the waiting of a connection.",
    "UNPAUSE",
    "    End PAUSE.",
    "HELP",
    "    Print this help.",
];

impl Session {
    /// Any but REPLY. The table has checked the subcommand and its arity.
    pub(super) fn client(&mut self, args: &[Bytes], backend: &dyn Backend) -> Reply {
        let (subcommand, rest) = (&args[1], &args[2..]);
        let name = String::from_utf8_lossy(subcommand).to_ascii_lowercase();
        let reply = match name.as_str() {
            "id" => Ok(Reply::Integer(self.id as i64)),
            "getname" => {
                let name = self.shared.update(self.id, |client| client.name.clone());
                Ok(if name.is_empty() { Reply::Null } else { Reply::bulk(name) })
            }
            "setname" => check_name(&rest[0]).map(|name| {
                self.shared.update(self.id, |client| client.name = name);
                Reply::OK
            }),
            "setinfo" => Ok(self.set_info(&rest[0], &rest[1])),
            "info" => Ok(self.listed(|id, _| id == self.id, "client|info")),
            "list" => self.list(rest),
            "kill" => self.kill(rest),
            "no-evict" => self.switch(rest, |client, on| client.no_evict = on),
            "no-touch" => self.switch(rest, |client, on| client.no_touch = on),
            "unblock" => self.unblock(rest),
            "pause" => self.pause(rest, backend),
            "unpause" => {
                self.shared.pause.end();
                Ok(Reply::OK)
            }
            "capa" => {
                // What else it can do is of no use here; Valkey passes over it as well.
                self.redirects |= rest.iter().any(|capability| is(capability, "REDIRECT"));
                Ok(Reply::OK)
            }
            "trackinginfo" => Ok(tracking_info()),
            "getredir" => Ok(Reply::Integer(-1)),
            "reply" => Err(Reply::error("ERR CLIENT REPLY is not allowed in transactions")),
            _ => Ok(help(HELP)),
        };
        reply.unwrap_or_else(|error| error)
    }

    /// CLIENT REPLY; `None`: it has no answer. Nothing may be gathered.
    pub(super) fn client_reply(&mut self, mode: &[u8]) -> Option<Reply> {
        if is(mode, "ON") {
            self.replies = Replies::Sent;
            return Some(Reply::OK);
        }
        if is(mode, "OFF") {
            self.replies = Replies::Off;
        } else if is(mode, "SKIP") {
            if self.replies != Replies::Off {
                self.replies = Replies::SkipNext;
            }
        } else {
            return Some(SYNTAX);
        }
        None
    }

    fn listed(&self, filter: impl Fn(u64, &ClientInfo) -> bool, command: &str) -> Reply {
        Reply::Verbatim("txt", Bytes::from(self.shared.list(filter, (self.id, command))))
    }

    fn list(&self, options: &[Bytes]) -> Result<Reply, Reply> {
        const COMMAND: &str = "client|list";
        match options {
            [] => Ok(self.listed(|_, _| true, COMMAND)),
            [option, kind] if is(option, "TYPE") => {
                let kind = ClientKind::parse(kind)?;
                Ok(self.listed(|_, client| kind.is_of(client), COMMAND))
            }
            [option, ids @ ..] if is(option, "ID") && !ids.is_empty() => {
                let id = |id: &Bytes| integer(id).ok_or(Reply::error("ERR Invalid client ID"));
                let ids = ids.iter().map(id).collect::<Result<Vec<i64>, Reply>>()?;
                let ids: Vec<u64> =
                    ids.into_iter().filter_map(|id| u64::try_from(id).ok()).collect();
                Ok(self.listed(|id, _| ids.contains(&id), COMMAND))
            }
            _ => Err(SYNTAX),
        }
    }

    fn kill(&self, options: &[Bytes]) -> Result<Reply, Reply> {
        if let [address] = options {
            let has_address = |_: u64, it: &ClientInfo| it.address.as_bytes() == address;
            return match self.shared.kill(self.id, has_address) {
                0 => Err(Reply::error("ERR No such client")),
                _ => Ok(Reply::OK),
            };
        }
        let wanted = Wanted::parse(options)?;
        let own = self.id;
        let picks = |id: u64, client: &ClientInfo| wanted.picks(id, client, own);
        Ok(Reply::Integer(self.shared.kill(own, picks) as i64))
    }

    fn switch(
        &self,
        options: &[Bytes],
        set: impl FnOnce(&mut ClientInfo, bool),
    ) -> Result<Reply, Reply> {
        let on = match &options[0] {
            option if is(option, "ON") => true,
            option if is(option, "OFF") => false,
            _ => return Err(SYNTAX),
        };
        self.shared.update(self.id, |client| set(client, on));
        Ok(Reply::OK)
    }

    fn unblock(&self, options: &[Bytes]) -> Result<Reply, Reply> {
        let how = match options.get(1) {
            None => TIMED_OUT,
            Some(how) if is(how, "TIMEOUT") => TIMED_OUT,
            Some(how) if is(how, "ERROR") => UNBLOCKED,
            Some(_) => {
                let text = "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR";
                return Err(Reply::error(text));
            }
        };
        if options.len() > 2 {
            return Err(SYNTAX);
        }
        let id = crate::command::parse::integer_argument(&options[0])?;
        let unblocked = u64::try_from(id).is_ok_and(|id| self.shared.unblock(id, how));
        Ok(Reply::Integer(i64::from(unblocked)))
    }

    fn pause(&self, options: &[Bytes], backend: &dyn Backend) -> Result<Reply, Reply> {
        let paused = match &options[1..] {
            [] => Paused::All,
            [mode] if is(mode, "WRITE") => Paused::Writes,
            [mode] if is(mode, "ALL") => Paused::All,
            [_] => return Err(Reply::error("ERR CLIENT PAUSE mode must be WRITE or ALL")),
            _ => return Err(SYNTAX),
        };
        self.shared.pause.begin(paused, backend.stamp_ms(), timeout(&options[0])?);
        Ok(Reply::OK)
    }

    fn set_info(&self, attribute: &[u8], value: &[u8]) -> Reply {
        let Some(value) = printable(value) else {
            let attribute = String::from_utf8_lossy(attribute).to_ascii_lowercase();
            return Reply::error(format!(
                "ERR {attribute} cannot contain spaces, newlines or special characters."
            ));
        };
        if value.len() > NAME_BYTES_MAX {
            let attribute = String::from_utf8_lossy(attribute).to_ascii_lowercase();
            let text = format!("ERR {attribute} cannot be longer than {NAME_BYTES_MAX} bytes.");
            return Reply::error(text);
        }
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

/// Whom CLIENT KILL asks for.
#[derive(Default)]
struct Wanted<'a> {
    id: Option<i64>,
    address: Option<&'a [u8]>,
    local_address: Option<&'a [u8]>,
    kind: Option<ClientKind>,
    age_s_min: Option<u64>,
    with_own: bool,
}

impl<'a> Wanted<'a> {
    fn parse(options: &'a [Bytes]) -> Result<Wanted<'a>, Reply> {
        let mut wanted = Wanted::default();
        for pair in options.chunks(2) {
            let [option, value] = pair else { return Err(SYNTAX) };
            if is(option, "ID") {
                let id = integer(value).filter(|id| *id > 0);
                let text = "ERR client-id should be greater than 0";
                wanted.id = Some(id.ok_or_else(|| Reply::error(text))?);
            } else if is(option, "MAXAGE") {
                let text = "ERR maxage is not an integer or out of range";
                let age = integer(value).ok_or_else(|| Reply::error(text))?;
                let text = "ERR maxage should be greater than 0";
                let age = u64::try_from(age).ok().filter(|age| *age > 0);
                wanted.age_s_min = Some(age.ok_or_else(|| Reply::error(text))?);
            } else if is(option, "TYPE") {
                wanted.kind = Some(ClientKind::parse(value)?);
            } else if is(option, "ADDR") {
                wanted.address = Some(value);
            } else if is(option, "LADDR") {
                wanted.local_address = Some(value);
            } else if is(option, "USER") {
                if value != "default" {
                    let user = String::from_utf8_lossy(value);
                    return Err(Reply::error(format!("ERR No such user '{user}'")));
                }
            } else if is(option, "SKIPME") && (is(value, "YES") || is(value, "NO")) {
                wanted.with_own = is(value, "NO");
            } else {
                return Err(SYNTAX);
            }
        }
        Ok(wanted)
    }

    fn picks(&self, id: u64, client: &ClientInfo, own: u64) -> bool {
        self.kind.is_none_or(|kind| kind.is_of(client))
            && self.id.is_none_or(|wanted| u64::try_from(wanted) == Ok(id))
            && self.address.is_none_or(|wanted| wanted == client.address.as_bytes())
            && self.local_address.is_none_or(|wanted| wanted == client.local_address.as_bytes())
            && self.age_s_min.is_none_or(|wanted| client.age_s() >= wanted)
            && (self.with_own || id != own)
    }
}

/// What CLIENT LIST and CLIENT KILL call a type.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ClientKind {
    Normal,
    /// It waits for events.
    Listener,
    /// There are none here.
    Replication,
}

impl ClientKind {
    fn parse(kind: &[u8]) -> Result<ClientKind, Reply> {
        if is(kind, "NORMAL") {
            return Ok(ClientKind::Normal);
        }
        if is(kind, "PUBSUB") {
            return Ok(ClientKind::Listener);
        }
        if ["MASTER", "REPLICA", "SLAVE"].iter().any(|other| is(kind, other)) {
            return Ok(ClientKind::Replication);
        }
        Err(Reply::error(format!("ERR Unknown client type '{}'", String::from_utf8_lossy(kind))))
    }

    fn is_of(self, client: &ClientInfo) -> bool {
        match self {
            ClientKind::Normal => !client.listens(),
            ClientKind::Listener => client.listens(),
            ClientKind::Replication => false,
        }
    }
}

fn tracking_info() -> Reply {
    let pairs = [
        ("flags", Reply::Set(vec![Reply::bulk("off")])),
        ("redirect", Reply::Integer(-1)),
        ("prefixes", Reply::Array(Vec::new())),
    ];
    Reply::Map(pairs.map(|(name, value)| (Reply::bulk(name), value)).to_vec())
}

/// A name is no longer, in bytes: SLOWLOG keeps it with each command, CLIENT LIST shows all.
const NAME_BYTES_MAX: usize = 4096;

/// A client's name: one word of printable ASCII, or nothing.
pub(super) fn check_name(name: &[u8]) -> Result<String, Reply> {
    if name.len() > NAME_BYTES_MAX {
        let text = format!("ERR Client names cannot be longer than {NAME_BYTES_MAX} bytes.");
        return Err(Reply::error(text));
    }
    printable(name).ok_or_else(|| {
        Reply::error("ERR Client names cannot contain spaces, newlines or special characters.")
    })
}

fn printable(text: &[u8]) -> Option<String> {
    let all = text.iter().all(|byte| byte.is_ascii_graphic());
    all.then(|| String::from_utf8_lossy(text).into_owned())
}
