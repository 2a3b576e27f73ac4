//! A client's connection to one node.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use resp::{Reply, ReplyDecoder, encode_request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const CONNECT_WITHIN: Duration = Duration::from_millis(500);
const BULK_BYTES_MAX: usize = 32 << 20;
const ITEMS_MAX: usize = 1 << 20;

pub struct Connection {
    stream: TcpStream,
    decoder: ReplyDecoder,
    received: BytesMut,
}

impl Connection {
    pub async fn open(address: &str) -> io::Result<Connection> {
        let stream = timeout(CONNECT_WITHIN, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        let decoder = ReplyDecoder::new(BULK_BYTES_MAX, ITEMS_MAX);
        Ok(Connection { stream, decoder, received: BytesMut::new() })
    }

    /// Sends requests together and waits for all their replies. After an error, or when it is
    /// dropped half-way, the connection is of no more use.
    pub async fn talk(&mut self, requests: &[Vec<Bytes>]) -> io::Result<Vec<Reply>> {
        let mut bytes = BytesMut::new();
        requests.iter().for_each(|request| encode_request(request, &mut bytes));
        self.stream.write_all(&bytes).await?;
        let mut replies = Vec::with_capacity(requests.len());
        loop {
            let reply = self.decoder.decode(&mut self.received);
            match reply.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))? {
                Some(reply) => replies.push(reply),
                None if self.stream.read_buf(&mut self.received).await? == 0 => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                None => {}
            }
            if replies.len() == requests.len() {
                return Ok(replies);
            }
        }
    }
}
