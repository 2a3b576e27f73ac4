//! What a node says of itself: the `arakoon` section of INFO.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use resp::Reply;

use super::client::Client;

/// One node's answer to `INFO arakoon`: its `key:value` lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    fields: BTreeMap<String, String>,
}

/// A node as another node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// As in the config.
    pub name: String,
    /// `host:port` for clients.
    pub client: String,
}

impl Report {
    /// Asks the node at `address`, which has `timeout` for everything.
    pub fn ask(address: &str, timeout: Duration) -> io::Result<Report> {
        match Client::connect(address, timeout)?.call(&["INFO", "arakoon"])? {
            Reply::Bulk(text) | Reply::Verbatim(_, text) => {
                Ok(Report::parse(&String::from_utf8_lossy(&text)))
            }
            Reply::Error(text) => Err(io::Error::other(text)),
            other => Err(io::Error::other(format!("INFO answered {other:?}"))),
        }
    }

    /// Reads `key:value` lines; others (titles, blank lines) are passed over.
    pub fn parse(text: &str) -> Report {
        let fields = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.trim_end().split_once(':'))
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect();
        Report { fields }
    }

    /// One field, empty when the node did not say.
    pub fn text(&self, key: &str) -> &str {
        self.fields.get(key).map_or("", String::as_str)
    }

    /// One field as a number.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.text(key).parse().ok()
    }

    /// All fields, by name.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// It answers clients.
    pub fn is_master(&self) -> bool {
        self.text("part") == "master"
    }

    /// It can reach enough nodes to acknowledge updates.
    pub fn has_quorum(&self) -> bool {
        self.text("quorum") == "1"
    }

    /// The cluster's nodes, in the order of their seats, from lines such as
    /// `member1:name=n1,client=127.0.0.1:4000,peer=127.0.0.1:4500`.
    pub fn members(&self) -> Vec<Member> {
        let mut members: Vec<(u64, Member)> = self
            .fields
            .iter()
            .filter_map(|(key, value)| {
                let number = key.strip_prefix("member")?.parse().ok()?;
                let part = |name: &str| {
                    value
                        .split(',')
                        .filter_map(|part| part.split_once('='))
                        .find(|(key, _)| *key == name)
                        .map(|(_, value)| value.to_string())
                };
                Some((number, Member { name: part("name")?, client: part("client")? }))
            })
            .collect();
        members.sort_by_key(|(number, _)| *number);
        members.into_iter().map(|(_, member)| member).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_members_are_read() {
        let report = Report::parse(
            "# Arakoon\r\nnode:n2\r\npart:master\r\nquorum:1\r\nlast_index:12\r\nballot:3.n2\r\n\
             member2:name=n2,client=[::1]:4001,peer=h:2\r\nmember1:name=n1,client=h:4000,peer=h:1\r\n",
        );
        assert!(report.is_master() && report.has_quorum());
        assert_eq!(report.number("last_index"), Some(12));
        assert_eq!(report.number("ballot"), None);
        assert_eq!(report.text("nothing"), "");
        assert_eq!(
            report.members(),
            [
                Member { name: "n1".into(), client: "h:4000".into() },
                Member { name: "n2".into(), client: "[::1]:4001".into() },
            ]
        );
    }
}
