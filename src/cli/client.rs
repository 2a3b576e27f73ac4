//! A small blocking client: one command, one reply, and a deadline for both.
//!
//! For `status` and `dev`, which ask a node one thing and must not hang on it. Left out:
//! pipelining, reconnecting.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use resp::{Reply, ReplyDecoder, encode_request};

/// The longest string in a reply.
const BULK_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The most values in a reply.
const ITEMS_MAX: usize = 1024 * 1024;
/// Room for reading at a time.
const READ_BYTES: usize = 16 * 1024;

/// A connection to one server.
pub struct Client {
    stream: TcpStream,
    decoder: ReplyDecoder,
    received: BytesMut,
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
        Ok(Client {
            stream,
            decoder: ReplyDecoder::new(BULK_BYTES_MAX, ITEMS_MAX),
            received: BytesMut::new(),
            deadline,
        })
    }

    /// Gives what follows another `timeout`.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.deadline = Instant::now() + timeout;
    }

    /// Sends one command and waits for its reply. After an error the connection is of no more use:
    /// a late reply would be taken for the next one's.
    pub fn call<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> io::Result<Reply> {
        let mut request = BytesMut::new();
        encode_request(arguments, &mut request);
        self.stream.set_write_timeout(Some(left(self.deadline)?))?;
        self.stream.write_all(&request)?;
        let mut bytes = [0; READ_BYTES];
        loop {
            let reply = self
                .decoder
                .decode(&mut self.received)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if let Some(reply) = reply {
                return Ok(reply);
            }
            // The deadline, not each read, bounds the wait: what is left is the read's timeout.
            self.stream.set_read_timeout(Some(left(self.deadline)?))?;
            match self.stream.read(&mut bytes)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => self.received.extend_from_slice(&bytes[..length]),
            }
        }
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A server that answers the first bytes it gets with `reply`, then closes.
    fn answer_of(reply: &'static [u8]) -> io::Result<Reply> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let server = std::thread::spawn(move || -> io::Result<Vec<u8>> {
            let (mut stream, _) = listener.accept()?;
            let mut request = [0; 64];
            let length = stream.read(&mut request)?;
            stream.write_all(reply)?;
            Ok(request[..length].to_vec())
        });
        let answer = Client::connect(&address, Duration::from_secs(5))?.call(&["PING", ""]);
        let request = server.join().expect("the server does not panic")?;
        assert_eq!(request, b"*2\r\n$4\r\nPING\r\n$0\r\n\r\n");
        answer
    }

    #[test]
    fn one_reply_is_read() -> io::Result<()> {
        assert_eq!(answer_of(b"$4\r\na\r\nb\r\n")?, Reply::bulk("a\r\nb"));
        Ok(())
    }

    #[test]
    fn garbage_and_cut_replies_are_errors() {
        for garbage in [&b"hello\r\n"[..], b"$99999999999\r\n", b"$4\r\nab", b""] {
            assert!(answer_of(garbage).is_err(), "{garbage:?}");
        }
    }

    #[test]
    fn a_silent_server_costs_the_timeout() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let started = Instant::now();
        let error = Client::connect(&address, Duration::from_millis(50))?
            .call(&["PING"])
            .expect_err("nobody answers");
        assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut));
        assert!(started.elapsed() < Duration::from_secs(5));
        Ok(())
    }
}
