//! Makes `proto/envoy.bin`, the descriptors by which messages are shown as JSON, read and patched. See proto/README.md.

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use prost::Message;
use prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use prost_reflect::prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};
use prost_reflect::{DescriptorPool, DynamicMessage};

/// Folders whose messages may stand in an `Any` of ours, or of an EnvoyFilter's.
const ROOTS: &[&str] = &[
    "envoy/config/",
    "envoy/extensions/",
    "google/protobuf/",
    "udpa/type/",
    "xds/type/",
];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, output] = &arguments[..] else {
        bail!("usage: descriptors <types.bin of envoy-types> <output>");
    };
    let bytes = std::fs::read(input).with_context(|| format!("read {input}"))?;
    let mut pool = DescriptorPool::decode(&bytes[..]).with_context(|| format!("decode {input}"))?;
    let [udpa, xds] = ["udpa.type.v1", "xds.type.v3"].map(typed_struct);
    for file in [cel_matcher(), udpa, xds] {
        pool.add_file_descriptor_proto(file)
            .context("add what envoy-types lacks")?;
    }
    let kept = keep(&pool)?;
    let files = kept.iter().map(|file| bare(&pool, file));
    let files: Vec<Vec<u8>> = files.collect::<Result<_>>()?;
    let bytes = FileSet { files }.encode_to_vec();
    DescriptorPool::decode(&bytes[..]).context("decode what is left")?;
    std::fs::write(output, &bytes).with_context(|| format!("write {output}"))?;
    println!("{output}: {} files, {} bytes", kept.len(), bytes.len());
    Ok(())
}

/// A `FileDescriptorSet` of files that are encoded already: prost's own type would lose the options by which Envoy
/// bounds its fields.
#[derive(Clone, PartialEq, Message)]
struct FileSet {
    #[prost(bytes = "vec", repeated, tag = "1")]
    files: Vec<Vec<u8>>,
}

/// `xds/type/matcher/v3`, as far as envoy-types lacks it: how a filter is left out by an expression.
fn cel_matcher() -> FileDescriptorProto {
    let expression = FieldDescriptorProto {
        name: Some("expr_match".to_owned()),
        number: Some(1),
        label: Some(Label::Optional.into()),
        r#type: Some(Type::Message.into()),
        type_name: Some(".xds.type.v3.CelExpression".to_owned()),
        json_name: Some("exprMatch".to_owned()),
        ..Default::default()
    };
    let message = |name: &str, field| DescriptorProto {
        name: Some(name.to_owned()),
        field,
        ..Default::default()
    };
    FileDescriptorProto {
        name: Some("xds/type/matcher/v3/cel.proto".to_owned()),
        package: Some("xds.type.matcher.v3".to_owned()),
        dependency: vec!["xds/type/v3/cel.proto".to_owned()],
        message_type: vec![
            message("CelMatcher", vec![expression]),
            message("HttpAttributesCelMatchInput", Vec::new()),
        ],
        syntax: Some("proto3".to_owned()),
        ..Default::default()
    }
}

/// A configuration as a plain structure, by which EnvoyFilters often bring one: envoy-types lacks it.
fn typed_struct(package: &str) -> FileDescriptorProto {
    let field = |name: &str, number, json: &str| FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(Label::Optional.into()),
        json_name: Some(json.to_owned()),
        ..Default::default()
    };
    let type_url = FieldDescriptorProto {
        r#type: Some(Type::String.into()),
        ..field("type_url", 1, "typeUrl")
    };
    let value = FieldDescriptorProto {
        r#type: Some(Type::Message.into()),
        type_name: Some(".google.protobuf.Struct".to_owned()),
        ..field("value", 2, "value")
    };
    FileDescriptorProto {
        name: Some(format!("{}/typed_struct.proto", package.replace('.', "/"))),
        package: Some(package.to_owned()),
        dependency: vec!["google/protobuf/struct.proto".to_owned()],
        message_type: vec![DescriptorProto {
            name: Some("TypedStruct".to_owned()),
            field: vec![type_url, value],
            ..Default::default()
        }],
        syntax: Some("proto3".to_owned()),
        ..Default::default()
    }
}

/// The files under `ROOTS` and all they import. Order stays: an import comes before its importer.
fn keep(pool: &DescriptorPool) -> Result<Vec<String>> {
    let files: BTreeMap<&str, &FileDescriptorProto> = pool
        .file_descriptor_protos()
        .map(|f| (f.name(), f))
        .collect();
    let mut wanted = BTreeSet::new();
    let mut open: Vec<&str> = files
        .keys()
        .copied()
        .filter(|name| ROOTS.iter().any(|root| name.starts_with(root)))
        .collect();
    while let Some(name) = open.pop() {
        let Some(file) = files.get(name) else {
            bail!("{name} is imported, and not in the set");
        };
        if wanted.insert(name.to_owned()) {
            open.extend(file.dependency.iter().map(String::as_str));
        }
    }
    let all = pool.file_descriptor_protos().map(|f| f.name().to_owned());
    Ok(all.filter(|name| wanted.contains(name)).collect())
}

/// A file without comments, services and its own options. Those of fields stay.
fn bare(pool: &DescriptorPool, name: &str) -> Result<Vec<u8>> {
    let file = pool.get_file_by_name(name).context("a file of the pool")?;
    let descriptor = pool
        .get_message_by_name("google.protobuf.FileDescriptorProto")
        .context("descriptor.proto is in the set")?;
    let mut file = DynamicMessage::decode(descriptor, &file.encode_to_vec()[..])?;
    for field in ["source_code_info", "service", "options"] {
        file.clear_field_by_name(field);
    }
    Ok(file.encode_to_vec())
}
