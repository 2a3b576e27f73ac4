//! What the sessions of one node have in common.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::cursors::Cursors;

/// One for each node, in an `Arc`.
#[derive(Debug)]
pub struct Shared {
    /// SCAN's cursors.
    pub cursors: Mutex<Cursors>,
    clients: Mutex<BTreeMap<u64, ClientInfo>>,
    clients_ever: AtomicU64,
    commands: AtomicU64,
    /// What the sessions' generators are seeded with, beside their numbers.
    pub(super) seed: u64,
}

/// A connected client, for CLIENT LIST.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientInfo {
    /// Where it connects from.
    pub address: String,
    /// Where it connected to.
    pub local_address: String,
    /// CLIENT SETNAME.
    pub name: String,
    /// CLIENT SETINFO.
    pub library_name: String,
    /// CLIENT SETINFO.
    pub library_version: String,
    /// The selected database.
    pub db: u8,
    /// 2 or 3.
    pub protocol: u8,
}

impl Shared {
    /// `seed` should differ from node to node and start to start.
    pub fn new(seed: u64) -> Shared {
        Shared {
            cursors: Mutex::new(Cursors::new(seed)),
            clients: Mutex::new(BTreeMap::new()),
            clients_ever: AtomicU64::new(0),
            commands: AtomicU64::new(0),
            seed,
        }
    }

    /// Clients connected now.
    pub fn clients_connected(&self) -> usize {
        self.clients.lock().len()
    }

    /// Clients that ever connected.
    pub fn clients_ever(&self) -> u64 {
        self.clients_ever.load(Ordering::Relaxed)
    }

    /// Commands that sessions have taken up.
    pub fn commands(&self) -> u64 {
        self.commands.load(Ordering::Relaxed)
    }

    pub(super) fn count_commands(&self, more: u64) {
        self.commands.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn enter(&self, id: u64, client: ClientInfo) {
        self.clients_ever.fetch_add(1, Ordering::Relaxed);
        let old = self.clients.lock().insert(id, client);
        assert!(old.is_none(), "client {id} is there already: {old:?}");
    }

    pub(super) fn leave(&self, id: u64) {
        self.clients.lock().remove(&id);
    }

    /// Changes what is told about a client that has entered.
    pub(super) fn update<R>(&self, id: u64, change: impl FnOnce(&mut ClientInfo) -> R) -> R {
        change(self.clients.lock().entry(id).or_default())
    }

    /// Lines of CLIENT LIST, of one client or all.
    pub(super) fn list(&self, only: Option<&[u64]>) -> String {
        let clients = self.clients.lock();
        let listed = clients.iter().filter(|(id, _)| only.is_none_or(|only| only.contains(id)));
        listed.map(|(id, client)| client.line(*id)).collect()
    }
}

impl ClientInfo {
    fn line(&self, id: u64) -> String {
        let ClientInfo { address, local_address, name, library_name, library_version, .. } = self;
        let ClientInfo { db, protocol, .. } = self;
        format!(
            "id={id} addr={address} laddr={local_address} name={name} db={db} resp={protocol} \
             lib-name={library_name} lib-ver={library_version}\n"
        )
    }
}
