//! The build of a proxy's image: `debug`, `distroless`, or the one that its tag says nothing of.

use super::lists::Pod;
use super::{InjectError, Injection};
use crate::config::proxy_config::{IMAGE_TYPES, ProxyConfig};
use crate::text::Str;

/// By this annotation a pod asks for one.
pub(super) const ANNOTATION: &str = "sidecar.istio.io/proxyImageType";

/// The build that no tag names.
const DEFAULT: &str = "default";

/// The build that is asked for: by the annotation, else by the proxy's configuration.
pub(super) fn chosen(
    pod: &Pod<'_>,
    injection: &Injection,
    proxy: &ProxyConfig,
) -> Result<Str, InjectError> {
    let asked = |key: &str| pod.annotation(key).filter(|text| !text.is_empty());
    let global = &injection.values.global;
    let named = asked("sidecar.istio.io/proxyImage").unwrap_or(&global.proxy.image);
    let (image, annotation) = (global.image(named), asked(ANNOTATION));
    let said = proxy.image.as_ref().map(|image| image.image_type.as_str());
    let Some(wanted) = annotation.or(said.filter(|said| !said.is_empty())) else {
        return Ok(image);
    };
    let wrong = |why: String| match annotation {
        Some(own) => InjectError::annotation(ANNOTATION, own, why),
        None => InjectError::Values(format!("image.imageType {wanted}: {why}")),
    };
    of_type(&image, wanted).map_err(wrong)
}

/// The same image in another build. Envoy's own images say it before the version (`debug-v1.40.0`), Istio's behind it.
fn of_type(image: &str, wanted: &str) -> Result<Str, String> {
    if !IMAGE_TYPES.contains(&wanted) {
        return Err(format!("say one of {}", IMAGE_TYPES.join(", ")));
    }
    if image.contains('@') {
        return Err(format!("{image} is one build, by its digest"));
    }
    // A colon before the last slash is of the registry's port.
    let name = image.rsplit('/').next().unwrap_or(image);
    let Some((_, tag)) = name.rsplit_once(':') else {
        return Err(format!("{image} has no tag that could say it"));
    };
    let repository = image.strip_suffix(tag).unwrap_or(image);
    let others = IMAGE_TYPES.iter().filter(|build| **build != DEFAULT);
    let before = |tag: &str| {
        let mut others = others.clone();
        let bare = others.find_map(|build| tag.strip_prefix(build)?.strip_prefix('-'));
        bare.or(Some(tag))
            .filter(|bare| is_envoys(bare))
            .map(str::to_owned)
    };
    let behind = |tag: &str| {
        let mut others = others.clone();
        let bare = others.find_map(|build| tag.strip_suffix(build)?.strip_suffix('-'));
        bare.unwrap_or(tag).to_owned()
    };
    let tag = match (before(tag), wanted) {
        (Some(bare), DEFAULT) => bare,
        (Some(bare), build) => format!("{build}-{bare}"),
        (None, DEFAULT) => behind(tag),
        (None, build) => format!("{}-{build}", behind(tag)),
    };
    Ok(Str::new(format!("{repository}{tag}")))
}

fn is_envoys(tag: &str) -> bool {
    let mut rest = tag.chars();
    rest.next() == Some('v') && rest.next().is_some_and(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_stands_before_envoys_version_and_behind_others() {
        let of = |image: &str, wanted: &str| of_type(image, wanted).map(|s| s.to_string());
        let envoy = "envoyproxy/envoy:distroless-v1.40.0";
        assert_eq!(
            of(envoy, "debug").unwrap(),
            "envoyproxy/envoy:debug-v1.40.0"
        );
        assert_eq!(of(envoy, "default").unwrap(), "envoyproxy/envoy:v1.40.0");
        assert_eq!(of(envoy, "distroless").unwrap(), envoy);
        let other = "reg.example:5000/mesh/proxy:1.2-debug";
        assert_eq!(
            of(other, "distroless").unwrap(),
            "reg.example:5000/mesh/proxy:1.2-distroless"
        );
        assert_eq!(
            of(other, "default").unwrap(),
            "reg.example:5000/mesh/proxy:1.2"
        );
        for (image, wanted) in [
            ("reg.example:5000/proxy", "debug"),
            ("proxy@sha256:abc", "debug"),
            (envoy, "slim"),
        ] {
            assert!(of(image, wanted).is_err(), "{image} {wanted}");
        }
    }
}
