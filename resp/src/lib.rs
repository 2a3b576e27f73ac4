//! RESP, the Redis serialization protocol, versions 2 and 3: bytes <-> values, no sockets.
//!
//! A server decodes requests ([`RequestDecoder`]) and encodes answers ([`Reply::encode`]); a client
//! writes requests ([`encode_request`]) and decodes answers ([`ReplyDecoder`]). Both decoders take
//! bytes as they arrive, remember how far they have looked, and hold no more memory than a small
//! multiple of what has been received, whatever lengths the headers announce.
//!
//! Single RESP3 values are parsed by `redis-protocol`. Requests and the frame of aggregates are
//! parsed here, because that crate starts over whenever bytes are missing, recurses without bound
//! and loses the order of maps.

mod encode;
mod inline;
mod number;
mod reply;
mod reply_decoder;
mod request_decoder;

pub use encode::encode_request;
pub use number::format_double;
pub use reply::{Protocol, Reply};
pub use reply_decoder::{ReplyDecodeError, ReplyDecoder};
pub use request_decoder::{DecodeError, Request, RequestDecoder, RequestLimits};
