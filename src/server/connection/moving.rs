//! How a connection goes from one of its places to the other, with everything that it has begun.

use std::io;
use std::os::fd::AsFd;

use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::super::places::Place;
use super::super::residence;
use super::{Connection, ConnectionHandler, End, READ_BYTES_MIN};

impl<H: ConnectionHandler> Connection<H> {
    /// Readiness of a socket is told to the runtime that it was registered in, so it is registered anew.
    /// Returns the connection when it stays.
    pub(super) fn go_on_in(mut self, place: Place) -> Option<Connection<H>> {
        let runtime = self.places.as_ref()?.runtime(place).clone();
        if place == Place::BesideDriver {
            // Before it leaves: the driver may stand still already.
            let Ok(kept) = self.stream.as_fd().try_clone_to_owned() else {
                // There are too many open files.
                self.seat = None;
                self.residence.settles_in(self.residence.place());
                return Some(self);
            };
            self.registration.client().keep_socket(Some(kept));
            self.read_bytes = READ_BYTES_MIN;
        }
        match registered_in(&runtime, self.stream) {
            Ok(stream) => self.stream = stream,
            Err(error) => {
                tracing::warn!(%error, "closes a connection that cannot go on");
                return None;
            }
        }
        self.residence.settles_in(place);
        self.handler.moved_to(place);
        runtime.spawn(self.run());
        None
    }

    /// Where it has to go before it handles what was decoded.
    pub(super) fn leaves_for(&mut self) -> Option<Place> {
        let places = self.places.as_ref()?;
        let mut place = self.residence.place_for(&self.requests, places.short_turns_are_open());
        if !self.handler.may_leave_workers() {
            place = Place::Workers;
        }
        if place == self.residence.place() {
            return None;
        }
        self.seat = match place {
            Place::Workers | Place::ShortTurns => None,
            Place::BesideDriver => places.seat(self.registration.client()),
        };
        if place == Place::BesideDriver && self.seat.is_none() {
            self.residence.settles_in(self.residence.place());
            return None;
        }
        Some(place)
    }

    /// Beside the driver only little is received and decoded.
    pub(super) fn receive_elsewhere(&mut self) -> Result<(), End> {
        if self.residence.place() == Place::BesideDriver
            && (self.buffer.len() >= READ_BYTES_MIN
                || !residence::is_little(self.decoder.missing_bytes(&self.buffer)))
        {
            self.seat = None;
            return Err(End::Moves(Place::Workers));
        }
        Ok(())
    }
}

fn registered_in(runtime: &Handle, stream: TcpStream) -> io::Result<TcpStream> {
    let stream = stream.into_std()?;
    let _entered = runtime.enter();
    TcpStream::from_std(stream)
}
