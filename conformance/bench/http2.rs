//! Both ends of the one stream understand each other.

use bytes::Bytes;

use super::push::http2::{Http2, Over, framed};

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const TOKEN: &str = "Bearer of bad news";

/// A frame of headers on the one stream.
fn headers(flags: u8, block: u8) -> [u8; 10] {
    [0, 0, 1, 1, flags, 0, 0, 0, 1, block]
}

fn data(to: &mut Http2, bytes: &[u8]) -> Vec<u8> {
    let mut got = Vec::new();
    to.receive(bytes, |data| got.extend_from_slice(data))
        .unwrap();
    got
}

#[test]
fn a_client_and_a_server_talk_whatever_the_chunks() {
    let (mut client, mut server) = (Http2::client("/a", "b", Some(TOKEN)), Http2::server());
    client.send(Bytes::from_static(b"hello"));
    let mut got = Vec::new();
    for byte in client.take() {
        got.extend(data(&mut server, &[byte]));
    }
    assert_eq!(got, b"hello");
    let answer = [server.take(), framed(&[7; 40_000])].concat();
    assert!(!client.answered());
    assert_eq!(data(&mut client, &answer), [7; 40_000]);
    assert!(client.answered());
}

#[test]
fn no_more_is_sent_than_the_window_allows() {
    let mut client = Http2::client("/a", "b", None);
    client.send(Bytes::from(vec![1; 100_000]));
    let mut far = Http2::server();
    assert_eq!(data(&mut far, &client.take()).len(), 65_535);
    // The server's settings and its credit for the connection.
    data(&mut client, &far.take());
    assert_eq!(data(&mut far, &client.take()).len(), 100_000 - 65_535);
}

#[test]
fn an_answer_without_status_200_and_trailers_end_the_stream() {
    let mut refused = Http2::client("/a", "b", None);
    let refusal = headers(END_HEADERS, 0x8d);
    assert_eq!(refused.receive(&refusal, |_| {}), Err(Over::Refused));
    let mut closed = Http2::client("/a", "b", None);
    let trailers = headers(END_HEADERS | END_STREAM, 0x88);
    assert_eq!(closed.receive(&trailers, |_| {}), Err(Over::Closed));
}
