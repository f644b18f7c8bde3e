//! Makes `proto/envoy.bin`, the descriptors by which messages are shown as JSON. See proto/README.md.

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use prost::Message;
use prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use prost_reflect::prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
};

/// Folders whose messages may stand in an `Any` of ours, or of an EnvoyFilter's.
const ROOTS: &[&str] = &[
    "envoy/config/cluster/",
    "envoy/config/endpoint/",
    "envoy/config/listener/",
    "envoy/config/route/",
    "envoy/extensions/access_loggers/",
    "envoy/extensions/clusters/",
    "envoy/extensions/common/",
    "envoy/extensions/compression/",
    "envoy/extensions/early_data/",
    "envoy/extensions/filters/common/",
    "envoy/extensions/filters/http/",
    "envoy/extensions/filters/listener/",
    "envoy/extensions/filters/network/",
    "envoy/extensions/formatter/",
    "envoy/extensions/health_check/",
    "envoy/extensions/http/",
    "envoy/extensions/internal_redirect/",
    "envoy/extensions/load_balancing_policies/",
    "envoy/extensions/matching/",
    "envoy/extensions/network/",
    "envoy/extensions/path/",
    "envoy/extensions/rbac/",
    "envoy/extensions/request_id/",
    "envoy/extensions/retry/",
    "envoy/extensions/tracers/",
    "envoy/extensions/transport_sockets/",
    "envoy/extensions/upstreams/",
    "envoy/extensions/wasm/",
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
    let mut all =
        FileDescriptorSet::decode(&bytes[..]).with_context(|| format!("decode {input}"))?;
    all.file.push(cel_matcher());
    let kept = keep(all)?;
    let bytes = kept.encode_to_vec();
    std::fs::write(output, &bytes).with_context(|| format!("write {output}"))?;
    println!("{output}: {} files, {} bytes", kept.file.len(), bytes.len());
    Ok(())
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

/// The files under `ROOTS` and all they import, without comments, services and options that only
/// validators read. Order stays: an import comes before its importer.
fn keep(all: FileDescriptorSet) -> Result<FileDescriptorSet> {
    let files: BTreeMap<&str, &FileDescriptorProto> =
        all.file.iter().map(|f| (f.name(), f)).collect();
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
    let kept = all.file.into_iter().filter(|f| wanted.contains(f.name()));
    Ok(FileDescriptorSet {
        file: kept.map(bare).collect(),
    })
}

fn bare(file: FileDescriptorProto) -> FileDescriptorProto {
    FileDescriptorProto {
        source_code_info: None,
        service: Vec::new(),
        extension: Vec::new(),
        options: None,
        ..file
    }
}
