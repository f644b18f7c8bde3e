//! Bytes of a stream become messages and fields.

use bytes::{BufMut as _, BytesMut};
use fairlead::xds::ResourceType;

use super::push::wire::{Intake, Item, Malformed, PREFIX, Packed, put, seal};
fn message(fields: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_bytes(0, PREFIX);
    for (tag, content) in fields {
        put(&mut out, *tag, content);
    }
    seal(out).to_vec()
}

fn items(chunks: &[&[u8]]) -> Result<Vec<String>, Malformed> {
    let mut seen = Vec::new();
    let mut intake = Intake::default();
    for chunk in chunks {
        intake.push(chunk, |item| {
            seen.push(match item {
                Item::Field(n, content) => format!("{n}:{}", content.len()),
                Item::End(size) => format!("end {size}"),
            });
        })?;
    }
    Ok(seen)
}

#[test]
fn messages_are_cut_alike_wherever_the_chunks_end() {
    let long = vec![b'x'; 300];
    let stream = [
        message(&[(2, &long), (4, b"type"), (5, b"1")]),
        message(&[]),
        message(&[(6, b"gone")]),
    ]
    .concat();
    let whole = items(&[&stream]).unwrap();
    assert_eq!(
        whole,
        ["2:300", "4:4", "5:1", "end 317", "end 5", "6:4", "end 11"]
    );
    for size in [1, 2, 3, 7, 64, 299] {
        let chunks: Vec<&[u8]> = stream.chunks(size).collect();
        assert_eq!(items(&chunks).unwrap(), whole, "in chunks of {size}");
    }
}

#[test]
fn a_field_longer_than_its_message_is_malformed() {
    let mut cut = message(&[(2, b"abcdef")]);
    cut[4] -= 1;
    let short = cut.len() - 1;
    assert_eq!(items(&[&cut[..short]]), Err(Malformed));
    assert_eq!(items(&[&[0, 0, 0, 0, 2, 0x17, 1]]), Err(Malformed));
}

#[test]
fn a_resource_is_read_without_decoding_its_body() {
    let mut any = BytesMut::new();
    put(&mut any, 1, ResourceType::Cluster.type_url().as_bytes());
    put(&mut any, 2, b"body");
    let mut resource = BytesMut::new();
    put(&mut resource, 1, b"v7");
    put(&mut resource, 3, b"outbound|80||a");
    put(&mut resource, 2, &any);
    let packed = Packed::scan(&resource).unwrap();
    assert_eq!(
        (packed.kind, packed.name, packed.version, packed.body),
        (ResourceType::Cluster, "outbound|80||a", "v7", &b"body"[..])
    );
    assert!(Packed::scan(b"\x12\x02no").is_none());
}
