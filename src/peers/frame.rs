//! Frames: how messages follow each other on a connection.
//!
//! Eight bytes of header, then the payload: its length and the CRC32C of its bytes, both u32,
//! little endian. A frame without payload says only that the sender lives. TCP's own checksum is
//! too weak to trust a replicated log to.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest payload, in bytes.
pub const FRAME_BYTES_MAX: usize = 80 * 1024 * 1024;

pub(super) const HEADER_BYTES: usize = 8;

/// Payloads up to here are copied out of the buffer.
const COPY_BYTES_MAX: usize = 16 * 1024;

/// How much is asked for in one read.
const READ_BYTES: usize = 64 * 1024;

/// Appends the header of a payload; the payload must follow.
pub(super) fn put_header(payload: &[u8], out: &mut BytesMut) {
    assert!(
        payload.len() <= FRAME_BYTES_MAX,
        "a frame of {} bytes, {FRAME_BYTES_MAX} are allowed",
        payload.len()
    );
    out.put_u32_le(payload.len() as u32);
    out.put_u32_le(crc32c::crc32c(payload));
}

/// Appends a whole frame.
pub(super) fn put_frame(payload: &[u8], out: &mut BytesMut) {
    put_header(payload, out);
    out.extend_from_slice(payload);
}

/// Takes the first frame off the buffer; `None`: more bytes are needed.
pub(super) fn take_frame(buffer: &mut BytesMut, bytes_max: usize) -> io::Result<Option<Bytes>> {
    let Some((header, _)) = buffer.split_at_checked(HEADER_BYTES) else {
        return Ok(None);
    };
    let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let checksum = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    if length > bytes_max {
        return Err(invalid(format!("a frame of {length} bytes, {bytes_max} are allowed")));
    }
    if buffer.len() < HEADER_BYTES + length {
        return Ok(None);
    }
    if crc32c::crc32c(&buffer[HEADER_BYTES..HEADER_BYTES + length]) != checksum {
        return Err(invalid("a frame with a wrong checksum".to_owned()));
    }
    if length > COPY_BYTES_MAX {
        return Ok(Some(buffer.split_to(HEADER_BYTES + length).freeze().slice(HEADER_BYTES..)));
    }
    // Cut out of it, one small entry would keep the whole buffer, and each read need a new one.
    let payload = Bytes::copy_from_slice(&buffer[HEADER_BYTES..HEADER_BYTES + length]);
    buffer.advance(HEADER_BYTES + length);
    Ok(Some(payload))
}

/// Waits for a whole frame. Cancel safe: what was read stays in the buffer.
pub(super) async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    bytes_max: usize,
) -> io::Result<Bytes> {
    loop {
        if let Some(frame) = take_frame(buffer, bytes_max)? {
            return Ok(frame);
        }
        read_more(stream, buffer).await?;
    }
}

/// Reads once. An orderly end is an error as well: nobody closes here without a reason. Cancel
/// safe.
pub(super) async fn read_more(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> io::Result<()> {
    // Room grows with what has been received, never with what a header announces.
    buffer.reserve(READ_BYTES);
    if stream.read_buf(buffer).await? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the other node"));
    }
    Ok(())
}

pub(super) fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_flipped_bit_is_found() {
        let mut whole = BytesMut::new();
        put_frame(b"payload", &mut whole);
        for bit in 32..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(take_frame(&mut damaged, 100).is_err(), "bit {bit}");
        }
        assert_eq!(take_frame(&mut whole, 7).expect("sound").expect("whole"), &b"payload"[..]);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            if let Ok(Some(payload)) = take_frame(&mut buffer, FRAME_BYTES_MAX) {
                prop_assert_eq!(payload.len() + HEADER_BYTES + buffer.len(), bytes.len());
            }
        }
    }
}
