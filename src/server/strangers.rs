//! Who connects by mistake, or is made to: browsers and TLS clients. They are told so and parted from
//! before anything that follows is taken for commands.

use resp::{Reply, Request};

/// What speaks at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stranger {
    /// Perhaps a browser that was tricked into sending us a form.
    Http,
    /// It waits for our part of a handshake.
    Tls,
}

/// Methods of HTTP. With two arguments none of them is a command.
const METHODS: &[&str] =
    &["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PRI", "PUT", "TRACE"];

impl Stranger {
    /// By the first bytes of a connection; `None`: not one of these, or too few to tell.
    pub(super) fn by_bytes(bytes: &[u8]) -> Option<Stranger> {
        // A handshake's record, of any version.
        bytes.starts_with(&[0x16, 0x03]).then_some(Stranger::Tls)
    }

    /// By a request. As in Redis: POST, or a header that no Redis client sends; and the first line
    /// of any other method.
    pub(super) fn by_request(request: &Request) -> Option<Stranger> {
        let name = request.name();
        let named = |it: &str| name.eq_ignore_ascii_case(it.as_bytes());
        let first_line = METHODS.iter().any(|it| named(it))
            && matches!(&request.arguments[1..], [_, version] if version.starts_with(b"HTTP/"));
        let http = first_line || named("post") || named("host:");
        http.then_some(Stranger::Http)
    }

    /// What it is called in the log.
    pub(super) fn language(self) -> &'static str {
        match self {
            Stranger::Http => "HTTP",
            Stranger::Tls => "TLS",
        }
    }

    /// What it is told.
    pub(super) fn reply(self) -> Reply {
        let language = self.language();
        Reply::error(format!(
            "ERR Protocol error: this port speaks the Redis protocol, not {language}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_not_taken_for_http() {
        let by = |line: &str| {
            let arguments = line.split(' ').map(|word| word.to_owned().into()).collect();
            Stranger::by_request(&Request { arguments })
        };
        for line in ["GET / HTTP/1.1", "get /x HTTP/1.0", "POST / HTTP/1.1", "Host: a", "POST"] {
            assert_eq!(by(line), Some(Stranger::Http), "{line}");
        }
        for line in ["GET a", "SET a HTTP/1.1", "GET HTTP/1.1", "GET a b", "DEL a HTTP/1.1"] {
            assert_eq!(by(line), None, "{line}");
        }
        assert_eq!(Stranger::by_bytes(b"\x16\x03\x01"), Some(Stranger::Tls));
        assert_eq!(Stranger::by_bytes(b"\x16"), None);
        assert_eq!(Stranger::by_bytes(b"*1\r\n"), None);
    }
}
