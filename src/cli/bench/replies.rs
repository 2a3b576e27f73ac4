//! Finds the ends of replies without decoding them: the load generator only counts.

/// One reply at the start of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// Bytes it takes.
    pub length: usize,
    /// The text of an error, without `-` and line end.
    pub error: Option<&'a [u8]>,
}

/// The first reply in `bytes`: none when it is not whole yet. Errors on what no command of the
/// load is answered with (arrays, RESP3), and on garbage.
pub fn first(bytes: &[u8]) -> Result<Option<Found<'_>>, NotAReply> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() > LINE_BYTES_MAX { Err(NotAReply) } else { Ok(None) };
    };
    let line = bytes[..end].strip_suffix(b"\r").ok_or(NotAReply)?;
    let (kind, rest) = line.split_first().ok_or(NotAReply)?;
    match kind {
        b'+' | b':' => Ok(Some(Found { length: end + 1, error: None })),
        b'-' => Ok(Some(Found { length: end + 1, error: Some(rest) })),
        b'$' if rest == b"-1" => Ok(Some(Found { length: end + 1, error: None })),
        b'$' => {
            let text = std::str::from_utf8(rest).map_err(|_| NotAReply)?;
            let size: usize = text.parse().map_err(|_| NotAReply)?;
            let length = size.checked_add(end + 3).ok_or(NotAReply)?;
            Ok((bytes.len() >= length).then_some(Found { length, error: None }))
        }
        _ => Err(NotAReply),
    }
}

/// These bytes are no reply that the load can have.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAReply;

/// No line of a reply is longer.
const LINE_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_replies_are_found_and_cut_ones_are_waited_for() {
        for reply in [&b"+OK\r\n"[..], b":12\r\n", b"$-1\r\n", b"$3\r\na\nb\r\n", b"$0\r\n\r\n"] {
            let followed = [reply, b"+OK\r\n"].concat();
            assert_eq!(first(&followed), Ok(Some(Found { length: reply.len(), error: None })));
            for cut in 0..reply.len() {
                assert_eq!(first(&reply[..cut]), Ok(None), "{reply:?} cut at {cut}");
            }
        }
        assert_eq!(
            first(b"-MOVED 1 h:2\r\n"),
            Ok(Some(Found { length: 14, error: Some(b"MOVED 1 h:2") }))
        );
    }

    #[test]
    fn garbage_is_refused() {
        for garbage in
            [&b"hello\r\n"[..], b"\n", b"$x\r\n", b"$18446744073709551615\r\n", b"*1\r\n"]
        {
            assert_eq!(first(garbage), Err(NotAReply), "{garbage:?}");
        }
    }
}
