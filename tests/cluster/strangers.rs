//! Whoever is no Redis client and connects to the client port: told so, and parted from.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::harness::Cluster;

/// Sends, and returns all that comes until the node closes the connection.
fn until_closed(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("it accepts");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    stream.write_all(bytes).expect("it takes bytes");
    let mut heard = Vec::new();
    match stream.read_to_end(&mut heard) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{error}, not closed, after {:?}", String::from_utf8_lossy(&heard)),
    }
    String::from_utf8_lossy(&heard).into_owned()
}

#[test]
fn http_tls_and_garbage_are_answered_with_an_error_and_closed() {
    let cluster = Cluster::alone();
    let address = cluster.address(0);
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaaaaaaaaaaaaaaaaa";
    for (what, bytes) in [
        ("GET", &b"GET / HTTP/1.1\r\nHost: example\r\nAccept: */*\r\n\r\n"[..]),
        ("POST", b"POST / HTTP/1.1\r\nHost: example\r\nContent-Length: 10\r\n\r\nSET a 1\r\n"),
        ("HEAD", b"HEAD / HTTP/1.1\r\nHost: example\r\n\r\n"),
        ("OPTIONS", b"OPTIONS * HTTP/1.1\r\nHost: example\r\n\r\n"),
        ("TLS", hello),
        ("TLS 1.0", b"\x16\x03\x00\x00\x05hello"),
        ("a reply", b"*1\r\n+OK\r\n"),
        ("a long array", b"*99999999999\r\n"),
        ("a long string", b"*1\r\n$99999999999\r\n"),
        ("quotes", b"SET a \"b\r\n"),
    ] {
        let heard = until_closed(address, bytes);
        assert!(heard.starts_with("-ERR "), "{what}: {heard:?}");
        assert!(heard.ends_with("\r\n"), "{what}: {heard:?}");
    }
    let log = cluster.log(0);
    assert!(log.contains("speaks HTTP") && log.contains("speaks TLS"), "{log}");
    // Nothing of it was taken for a command, and the node serves others.
    assert_eq!(cluster.redis_cli(0, &["get", "a"]), "");
}
