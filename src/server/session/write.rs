//! Updates: checked, encoded and gathered into a submission.

use bytes::{Bytes, BytesMut};

use super::read::BRIEF;
use super::{Gathered, Session, Taken};
use crate::command::batch;
use crate::command::charge;
use crate::command::parse::{check_command, command_bytes};
use crate::command::ranges::{answers_later, scans};
use crate::command::table::{Check, Spec};
use crate::server::Backend;
use crate::store::keyspace::View;

impl Session {
    pub(super) fn write(
        &mut self,
        spec: &Spec,
        check: Check,
        args: &[Bytes],
        out: &mut BytesMut,
        backend: &dyn Backend,
    ) -> Taken {
        if let Err(refusal) = backend.may_write() {
            let key = spec.keys_of(args).next();
            return self.emit(self.refuse(&refusal, key.map(|key| &key[..])), out);
        }
        if let Err(reply) = check_command(command_bytes(args)).and_then(|()| check(args)) {
            return self.emit(reply, out);
        }
        if scans(spec) {
            // All other updates wait while an entry has rows put in order.
            backend.put_in_order();
        }
        batch::encode_level(&mut self.items, spec.level(args));
        batch::encode_command(&mut self.items, self.db, args);
        self.count += 1;
        let mut charge = self.charge_of(spec, args, self.largest, backend);
        if charge::is_bounded(spec, args) {
            charge = charge.max(self.largest);
        }
        self.charge += charge;
        self.largest = self.largest.max(charge).max(command_bytes(args));
        self.gathered.push(Gathered::Item(self.account.place()));
        self.count_later();
        if answers_later(spec) { Taken::Submit } else { Taken::Done }
    }

    /// What the results of a command may come to. The commands before it may have made its values
    /// larger than the view shows: up to `largest`.
    pub(super) fn charge_of(
        &self,
        spec: &Spec,
        args: &[Bytes],
        largest: usize,
        backend: &dyn Backend,
    ) -> usize {
        if !charge::depends_on_values(spec, args) {
            return charge::of_arguments(spec, args);
        }
        let mut found = None;
        // Refused, or failed: then the write itself will be, too.
        let _ = backend.with_rows(&mut |rows| {
            let view = View::open(rows, self.db, 0, 0).map(|view| view.allowing(BRIEF));
            found = view.ok().and_then(|view| charge::of_values(spec, args, &view).ok());
        });
        let charge = found.unwrap_or_else(|| charge::worst(spec, args));
        if charge::multiplies(spec, args) { charge.max(largest) } else { charge }
    }
}
