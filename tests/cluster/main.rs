//! Real `arakoon` processes on this machine, killed and revived under load, with Debian's
//! `redis-cli` as one of the clients.
//!
//! Clusters run one at a time, so that the pauses measured are theirs. `ARAKOON_KILLS=20` makes
//! the failover test longer; `ARAKOON_PROGRAM` names another program to test, such as a release. `redis-cli` must be installed: nothing is skipped without it.

mod catch_up;
mod commands;
mod damage;
mod dev;
mod disk;
mod failover;
mod handover;
mod harness;
mod idle;
mod limits;
mod load;
mod quorum;
mod ranges;
mod redirect;
mod restart;
mod stopped_quorum;
mod strangers;
