//! Replies as one line of text, with the sign of their RESP type.

use resp::Reply;

/// The reply as it is shown in scripts.
pub fn of(reply: &Reply) -> String {
    let list = |replies: &[Reply]| replies.iter().map(of).collect::<Vec<_>>().join(", ");
    match reply {
        Reply::Simple(text) => format!("+{text}"),
        Reply::Error(text) => format!("-{text}"),
        Reply::Integer(number) => format!(":{number}"),
        Reply::Bulk(bytes) => format!("\"{}\"", bytes.escape_ascii()),
        Reply::Null => "null".to_owned(),
        Reply::NullArray => "null array".to_owned(),
        Reply::Array(replies) => format!("[{}]", list(replies)),
        Reply::Set(replies) => format!("~[{}]", list(replies)),
        Reply::Push(replies) => format!(">[{}]", list(replies)),
        Reply::Map(pairs) => {
            let pair = |(key, value): &(Reply, Reply)| format!("{}: {}", of(key), of(value));
            format!("{{{}}}", pairs.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
        Reply::Double(number) => format!(",{number}"),
        Reply::Boolean(truth) => format!("#{truth}"),
        Reply::Verbatim(format, bytes) => format!("{format}:\"{}\"", bytes.escape_ascii()),
    }
}
