//! A small blocking client: one command, one reply, and a deadline for both.
//!
//! For `status` and `dev`, which ask a node one thing and must not hang on it. Knows the RESP2
//! replies only, bounded in size and depth. Left out: pipelining, RESP3, reconnecting.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// The longest string or line that is read.
const BYTES_MAX: usize = 32 * 1024 * 1024;
/// Arrays inside arrays.
const DEPTH_MAX: usize = 8;

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `+OK`
    Simple(String),
    /// `-ERR ...`, its code included.
    Error(String),
    /// `:1`
    Integer(i64),
    /// A string; none for nil.
    Bulk(Option<Vec<u8>>),
    /// Answers in order; nil arrays are empty.
    Array(Vec<Answer>),
}

/// A connection to one server.
pub struct Client {
    stream: BufReader<TcpStream>,
    deadline: Instant,
}

impl Client {
    /// Connects to `host:port`; it and all commands together must end within `timeout`.
    pub fn connect(address: &str, timeout: Duration) -> io::Result<Client> {
        let deadline = Instant::now() + timeout;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for resolved in address.to_socket_addrs()? {
            match Self::connect_to(resolved, deadline) {
                Ok(client) => return Ok(client),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn connect_to(address: SocketAddr, deadline: Instant) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, left(deadline)?)?;
        stream.set_nodelay(true)?;
        Ok(Client { stream: BufReader::new(stream), deadline })
    }

    /// Gives what follows another `timeout`.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.deadline = Instant::now() + timeout;
    }

    /// Sends one command and waits for its reply.
    pub fn call(&mut self, arguments: &[&[u8]]) -> io::Result<Answer> {
        let mut request = Vec::new();
        encode(&mut request, arguments);
        self.stream.get_ref().set_write_timeout(Some(left(self.deadline)?))?;
        self.stream.get_mut().write_all(&request)?;
        self.read(0)
    }

    fn read(&mut self, depth: usize) -> io::Result<Answer> {
        let line = self.line()?;
        let Some((kind, rest)) = line.split_at_checked(1) else { return Err(bad("empty line")) };
        match kind {
            "+" => Ok(Answer::Simple(rest.to_string())),
            "-" => Ok(Answer::Error(rest.to_string())),
            ":" => Ok(Answer::Integer(number(rest)?)),
            "$" => match number(rest)? {
                -1 => Ok(Answer::Bulk(None)),
                length => self.bulk(length).map(|bytes| Answer::Bulk(Some(bytes))),
            },
            "*" => {
                let count = number(rest)?.max(0);
                if depth == DEPTH_MAX || count > BYTES_MAX as i64 {
                    return Err(bad("array too deep or too long"));
                }
                let mut answers = Vec::new();
                for _ in 0..count {
                    answers.push(self.read(depth + 1)?);
                }
                Ok(Answer::Array(answers))
            }
            _ => Err(bad("not a RESP2 reply")),
        }
    }

    fn bulk(&mut self, length: i64) -> io::Result<Vec<u8>> {
        let length = usize::try_from(length).map_err(|_| bad("negative length"))?;
        if length > BYTES_MAX {
            return Err(bad("string too long"));
        }
        let mut bytes = Vec::new();
        while bytes.len() < length + 2 {
            self.arm()?;
            let available = self.stream.fill_buf()?;
            if available.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let taken = available.len().min(length + 2 - bytes.len());
            bytes.extend_from_slice(&available[..taken]);
            self.stream.consume(taken);
        }
        bytes.truncate(length);
        Ok(bytes)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            self.arm()?;
            let left = BYTES_MAX.saturating_sub(line.len()) as u64;
            if (&mut self.stream).take(left).read_until(b'\n', &mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let text = String::from_utf8(line).map_err(|_| bad("line is not UTF-8"))?;
        Ok(text.trim_end_matches(['\r', '\n']).to_string())
    }

    /// The deadline, not each read, bounds the wait: what is left becomes the read's timeout.
    fn arm(&self) -> io::Result<()> {
        self.stream.get_ref().set_read_timeout(Some(left(self.deadline)?))
    }
}

/// Appends a command as clients send it.
pub fn encode(buffer: &mut Vec<u8>, arguments: &[&[u8]]) {
    buffer.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
    for argument in arguments {
        buffer.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        buffer.extend_from_slice(argument);
        buffer.extend_from_slice(b"\r\n");
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn number(text: &str) -> io::Result<i64> {
    text.parse().map_err(|_| bad("not a number"))
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A server that answers the first bytes it gets with `reply`, then closes.
    fn answer_of(reply: &'static [u8]) -> io::Result<Answer> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let server = std::thread::spawn(move || -> io::Result<Vec<u8>> {
            let (mut stream, _) = listener.accept()?;
            let mut request = [0; 64];
            let length = stream.read(&mut request)?;
            stream.write_all(reply)?;
            Ok(request[..length].to_vec())
        });
        let answer = Client::connect(&address, Duration::from_secs(5))?.call(&[b"PING", b""]);
        let request = server.join().expect("the server does not panic")?;
        assert_eq!(request, b"*2\r\n$4\r\nPING\r\n$0\r\n\r\n");
        answer
    }

    #[test]
    fn each_kind_of_reply_is_read() -> io::Result<()> {
        assert_eq!(answer_of(b"+OK\r\n")?, Answer::Simple("OK".into()));
        assert_eq!(answer_of(b"-ERR no\r\n")?, Answer::Error("ERR no".into()));
        assert_eq!(answer_of(b"$4\r\na\r\nb\r\n")?, Answer::Bulk(Some(b"a\r\nb".to_vec())));
        assert_eq!(
            answer_of(b"*3\r\n:-7\r\n$-1\r\n*-1\r\n")?,
            Answer::Array(vec![Answer::Integer(-7), Answer::Bulk(None), Answer::Array(vec![])])
        );
        Ok(())
    }

    #[test]
    fn garbage_is_an_error() {
        for garbage in [&b"hello\r\n"[..], b"\r\n", b"$99999999999\r\n", b"*1\r\n", b"$-2\r\n"] {
            assert!(answer_of(garbage).is_err(), "{garbage:?}");
        }
    }

    #[test]
    fn a_silent_server_costs_the_timeout() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let started = Instant::now();
        let error = Client::connect(&address, Duration::from_millis(50))?
            .call(&[b"PING"])
            .expect_err("nobody answers");
        assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut));
        assert!(started.elapsed() < Duration::from_secs(5));
        Ok(())
    }
}
