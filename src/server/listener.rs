//! Accepts clients.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::connection::{Connection, ConnectionHandler};
use super::limits::ConnectionLimits;
use super::places::Places;
use super::registry::{Client, ClientRegistry};

/// Everything that serves clients on one port. Dropping it stops accepting; connections go on.
#[derive(Debug)]
pub struct ClientListener {
    registry: Arc<ClientRegistry>,
    accepting: JoinHandle<()>,
}

impl ClientListener {
    /// Accepts from now on, each connection with a handler of its own. Must be called inside a
    /// Tokio runtime: where connections are first.
    pub fn start<H: ConnectionHandler>(
        listener: TcpListener,
        limits: ConnectionLimits,
        places: Option<Places>,
        make_handler: impl Fn(Arc<Client>) -> H + Send + Sync + 'static,
    ) -> ClientListener {
        let registry = Arc::new(ClientRegistry::new(limits.clients_max));
        let accepting =
            tokio::spawn(accept_all(listener, Arc::clone(&registry), limits, places, make_handler));
        ClientListener { registry, accepting }
    }

    /// Who is connected.
    pub fn registry(&self) -> &Arc<ClientRegistry> {
        &self.registry
    }

    /// Stops accepting, lets every connection finish what it began, for `patience` at most, and
    /// closes all.
    pub async fn shutdown(&self, patience: Duration) {
        self.accepting.abort();
        self.registry.close_clients(|_| true);
        if timeout(patience, self.registry.wait_until_empty()).await.is_err() {
            for client in self.registry.list() {
                client.kill();
            }
        }
    }
}

impl Drop for ClientListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept_all<H: ConnectionHandler>(
    listener: TcpListener,
    registry: Arc<ClientRegistry>,
    limits: ConnectionLimits,
    places: Option<Places>,
    make_handler: impl Fn(Arc<Client>) -> H + Send + Sync + 'static,
) {
    let mut failing = false;
    loop {
        match accept_one(&listener, &registry, limits, &places, &make_handler).await {
            Ok(()) => failing = false,
            Err(error) => {
                // One line, not one per attempt: out of file descriptors, it can last.
                if !failing {
                    tracing::warn!("cannot accept clients: {error}");
                }
                failing = true;
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn accept_one<H: ConnectionHandler>(
    listener: &TcpListener,
    registry: &Arc<ClientRegistry>,
    limits: ConnectionLimits,
    places: &Option<Places>,
    make_handler: &(impl Fn(Arc<Client>) -> H + Send + Sync + 'static),
) -> io::Result<()> {
    let (stream, address) = listener.accept().await?;
    let Some(registration) = registry.register(address) else {
        refuse(&stream);
        return Ok(());
    };
    if stream.set_nodelay(true).is_err() {
        // It is gone already.
        return Ok(());
    }
    let handler = make_handler(Arc::clone(registration.client()));
    let connection = Connection::new(stream, handler, registration, limits);
    tokio::spawn(connection.with_places(places.clone()).run());
    Ok(())
}

fn refuse(stream: &TcpStream) {
    // A fresh socket has room for a line; if not, the client sees only that it was closed.
    let _ = stream.try_write(b"-ERR max number of clients reached\r\n");
}
