//! Who is served what: tokens, certificates, secrets, and what is refused.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::DataSource;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{Secret, secret};
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use envoy_types::pb::envoy::service::status::v3::ClientConfig;
use fairlead::ca::authenticate::Unauthenticated;
use fairlead::ca::pem;
use fairlead::delivery::{Access, Limits};
use fairlead::xds::ResourceType::{Cluster as C, Secret as S};
use fairlead::xds::status::{DiscoveryRequest, DiscoveryResponse};
use prost::Message;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::client::{Call, Client, Credential, names, status, versions};
use crate::plane::Plane;

/// The certificate and key in an SDS answer.
fn credential(message: &DeltaDiscoveryResponse) -> Credential {
    let body = &message.resources[0].resource.as_ref().unwrap().value;
    let Some(secret::Type::TlsCertificate(tls)) = Secret::decode(&body[..]).unwrap().r#type else {
        panic!("no certificate");
    };
    let inline = |source: Option<DataSource>| match source.and_then(|s| s.specifier) {
        Some(Specifier::InlineBytes(bytes)) => bytes,
        Some(Specifier::InlineString(text)) => text.into_bytes(),
        other => panic!("{other:?}"),
    };
    let chain = pem::certificates(&inline(tls.certificate_chain)).unwrap();
    let key = pem::private_key(&inline(tls.private_key)).unwrap();
    (chain, key.clone_key())
}

/// Whose certificate it is.
fn identity((chain, _): &Credential) -> String {
    let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
    let san = leaf.subject_alternative_name().unwrap().unwrap();
    match &san.value.general_names[..] {
        [GeneralName::URI(uri)] => (*uri).to_owned(),
        other => panic!("{other:?}"),
    }
}

async fn ends_at_once(mut client: Client) -> String {
    // Nothing but the status: it came with the headers, and no byte of a body follows.
    let code = status(&client.headers).to_owned();
    assert_ne!(code, "none", "{:?}", client.headers);
    assert_eq!(client.end().await, code);
    code
}

#[tokio::test]
async fn without_a_valid_token_there_is_unauthenticated_and_nothing_else() {
    let plane = Plane::start().await;
    let other = Plane::start().await;
    let tokens = [
        None,
        Some("nonsense".to_owned()),
        Some(plane.token_for("shop", "caller", "somebody-else")),
        Some(other.token("shop", "caller")),
    ];
    let count = tokens.len();
    for token in tokens {
        let client = Client::call(
            &plane,
            Call {
                token,
                ..Call::default()
            },
        )
        .await;
        assert_eq!(client.headers["grpc-message"], Unauthenticated::REPLY);
        assert_eq!(ends_at_once(client).await, "16");
    }
    assert_eq!(plane.server.authenticator.refused(), count as u64);
    assert!(plane.streams().await.is_empty());
    assert_eq!(plane.metrics.opened.get(), 0);
}

#[tokio::test]
async fn a_token_gives_its_own_identitys_certificate_whatever_the_node_says() {
    let plane = Plane::start().await;
    let token = Some(plane.token("shop", "cups"));
    let node = Some("sidecar~10.0.0.1~tea.shop~shop.svc.cluster.local".to_owned());
    let mut client = Client::call(
        &plane,
        Call {
            token,
            node,
            ..Call::default()
        },
    )
    .await;
    client.subscribe(S, &["default"]).await;
    let mine = client.next(S).await;
    assert_eq!(names(&mine), ["default"]);
    let credential = credential(&mine);
    assert_eq!(
        identity(&credential),
        "spiffe://cluster.local/ns/shop/sa/cups"
    );
}

#[tokio::test]
async fn a_node_of_another_namespace_is_denied() {
    let plane = Plane::start().await;
    let token = Some(plane.token("back", "caller"));
    let mut client = Client::call(
        &plane,
        Call {
            token,
            ..Call::default()
        },
    )
    .await;
    client.subscribe(S, &["default"]).await;
    assert_eq!(client.end().await, "7");
    assert_eq!(plane.metrics.opened.get(), 0);
}

#[tokio::test]
async fn a_token_of_one_pod_is_denied_to_another() {
    let plane = Plane::start().await;
    let of = |pod| Call {
        token: Some(plane.token_of_pod("caller", pod)),
        node: Some("sidecar~10.0.0.1~caller-1.shop~shop.svc.cluster.local".to_owned()),
        ..Call::default()
    };
    let mut other = Client::call(&plane, of("caller-2")).await;
    other.subscribe(S, &["default"]).await;
    assert_eq!(other.end().await, "7");
    assert_eq!(plane.metrics.opened.get(), 0);
    let mut own = Client::call(&plane, of("caller-1")).await;
    own.subscribe(S, &["default"]).await;
    assert_eq!(names(&own.next(S).await), ["default"]);
}

#[tokio::test]
async fn a_proxy_whose_object_has_another_account_is_told_so() {
    let plane = Plane::start().await;
    let pod = |account: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: caller-1, namespace: shop}}\nspec: \
             {{serviceAccountName: {account}}}\nstatus: {{podIP: 10.0.0.1}}\n"
        )
    };
    plane.apply(&pod("cups")).await;
    let call = Call {
        token: Some(plane.token_of_pod("caller", "caller-1")),
        node: Some("sidecar~10.0.0.1~caller-1.shop~shop.svc.cluster.local".to_owned()),
        ..Call::default()
    };
    let mut client = Client::call(&plane, call).await;
    client.subscribe(S, &["default"]).await;
    client.next(S).await;
    let account = plane.streams().await[0].other_account.clone();
    assert_eq!(account.as_deref(), Some("cups"));
    plane.apply(&pod("caller")).await;
    client.fence().await;
    assert_eq!(plane.streams().await[0].other_account, None);
}

#[tokio::test]
async fn an_issued_certificate_is_a_credential_too() {
    let plane = Plane::start().await;
    let mut client = Client::connect(&plane).await;
    client.subscribe(S, &["default"]).await;
    let certificate = Some(credential(&client.next(S).await));
    let mut client = Client::call(
        &plane,
        Call {
            certificate,
            ..Call::default()
        },
    )
    .await;
    client.subscribe(S, &["default"]).await;
    let again = credential(&client.next(S).await);
    assert_eq!(identity(&again), "spiffe://cluster.local/ns/shop/sa/caller");
}

#[tokio::test]
async fn who_comes_back_with_a_good_certificate_costs_none() {
    let plane = Plane::start().await;
    let mut client = Client::connect(&plane).await;
    client.subscribe(S, &["default", "ROOTCA"]).await;
    let mut held = versions(&client.next(S).await);
    held.extend(versions(&client.next(S).await));
    assert_eq!(held.len(), 2);
    drop(client);
    let issued = plane.authority.issued();
    let mut client = Client::connect(&plane).await;
    client.resume(S, &["default", "ROOTCA"], &held).await;
    client.fence().await;
    // The fence may overtake the CA's answer, not the stream's standing of it.
    let standing = &plane.streams().await[0].types[S as usize];
    assert_eq!((standing.sent, standing.acked), (2, 2));
    assert_eq!(plane.authority.issued(), issued);
    // Asked for later, it is a new one.
    client.subscribe(S, &["default"]).await;
    let fresh = client.next(S).await;
    assert_ne!(versions(&fresh)["default"], held["default"]);
    assert_eq!(plane.authority.issued(), issued + 1);
}

#[tokio::test]
async fn somebody_elses_version_is_worth_nothing() {
    let plane = Plane::start().await;
    let mut client = Client::connect(&plane).await;
    client.subscribe(S, &["default"]).await;
    let held = versions(&client.next(S).await);
    let token = Some(plane.token("shop", "cups"));
    let mut thief = Client::call(
        &plane,
        Call {
            token,
            ..Call::default()
        },
    )
    .await;
    thief.resume(S, &["default"], &held).await;
    let got = credential(&thief.next(S).await);
    assert_eq!(identity(&got), "spiffe://cluster.local/ns/shop/sa/cups");
}

#[tokio::test]
async fn a_secret_nobody_is_served_is_refused_and_the_stream_goes_on() {
    let plane = Plane::start().await;
    let mut client = Client::connect(&plane).await;
    client.subscribe(S, &["kubernetes://shop/tea-cert"]).await;
    let refused = client.next(S).await;
    assert_eq!(refused.removed_resources, ["kubernetes://shop/tea-cert"]);
    client.fence().await;
    assert_eq!(plane.metrics.secrets_refused.get(), 1);
}

#[tokio::test]
async fn the_plaintext_port_serves_configuration_and_no_secret() {
    let plane = Plane::start().await;
    // Not even a good token makes anybody somebody there.
    let token = Some(plane.token("shop", "caller"));
    let mut client = Client::plaintext(
        &plane,
        Call {
            token,
            ..Call::default()
        },
    )
    .await;
    client.subscribe(C, &[]).await;
    client.next(C).await;
    client.subscribe(S, &["default", "ROOTCA", "other"]).await;
    client.fence().await;
    assert_eq!(plane.authority.issued(), 1, "our own certificate alone");
}

/// A question as `istioctl` puts it.
async fn asked(plane: &Plane, token: Option<String>, type_url: &str, names: &[&str]) -> Client {
    let call = Call {
        path: Some(fairlead::debug::status::METHOD),
        token,
        ..Call::default()
    };
    let client = Client::call(plane, call).await;
    let question = DiscoveryRequest {
        type_url: type_url.to_owned(),
        resource_names: names.iter().map(|n| (*n).to_owned()).collect(),
        ..DiscoveryRequest::default()
    };
    client.send_raw(&question.encode_to_vec()).await;
    client
}

async fn asked_without_token(plane: &Plane) -> Client {
    let call = Call {
        path: Some(fairlead::debug::status::METHOD),
        ..Call::default()
    };
    Client::call(plane, call).await
}

#[tokio::test]
async fn state_of_the_world_is_not_served_to_proxies_and_says_so() {
    let plane = Plane::start().await;
    let token = plane.token("shop", "reviews");
    let mut client = asked(&plane, Some(token), C.type_url(), &[]).await;
    assert_eq!(client.end().await, "12");
    let client = asked_without_token(&plane).await;
    assert_eq!(status(&client.headers), "16");
}

/// `<name>.<namespace>` of the only proxy in an answer.
fn proxy_name(answer: &DiscoveryResponse) -> String {
    let status = ClientConfig::decode(&answer.resources[0].value[..]).unwrap();
    let id = status.node.unwrap().id;
    id.split('~').nth(2).unwrap().to_owned()
}

#[tokio::test]
async fn who_may_see_a_proxy_is_told_how_it_stands() {
    let plane = Plane::start().await;
    let mut proxy = Client::connect(&plane).await;
    proxy.subscribe(C, &[]).await;
    let clusters = proxy.next(C).await;
    proxy.ack(&clusters).await;
    proxy.fence().await;
    let system = Some(plane.token("istio-system", "reader"));
    let mut reader = asked(&plane, system.clone(), "istio.io/debug/syncz", &[]).await;
    let answer = DiscoveryResponse::decode(reader.raw().await).unwrap();
    assert_eq!(answer.resources.len(), 1);
    let plane_id = &answer.control_plane.as_ref().unwrap().identifier;
    assert!(plane_id.contains("istiod"), "{plane_id}");
    let named = proxy_name(&answer);
    let mut reader = asked(&plane, system, "istio.io/debug/config_dump", &[&named]).await;
    let dump = DiscoveryResponse::decode(reader.raw().await).unwrap();
    assert_eq!(dump.resources.len(), 5, "one dump a type");
    let stranger = Some(plane.token("elsewhere", "reader"));
    let mut reader = asked(&plane, stranger, "istio.io/debug/syncz", &[]).await;
    let answer = DiscoveryResponse::decode(reader.raw().await).unwrap();
    assert!(answer.resources.is_empty());
}

/// What a question of Istio's own types is answered by, as JSON.
async fn page(plane: &Plane, namespace: &str, type_url: &str, names: &[&str]) -> serde_json::Value {
    let token = Some(plane.token(namespace, "reader"));
    let mut reader = asked(plane, token, type_url, names).await;
    let answer = DiscoveryResponse::decode(reader.raw().await).unwrap();
    let [resource] = &answer.resources[..] else {
        panic!("{} resources", answer.resources.len());
    };
    assert_eq!(resource.type_url, "istio.io/debug");
    serde_json::from_slice(&resource.value).unwrap()
}

#[tokio::test]
async fn what_the_mesh_is_made_of_is_told_as_internal_debug_asks() {
    let plane = Plane::start().await;
    let system = "istio-system";
    let services = page(&plane, system, "istio.io/debug", &["registryz"]).await;
    let named = |host: &str| {
        let all = services.as_array().unwrap();
        all.iter().find(|s| s["hostname"] == host).cloned()
    };
    let tea = named("tea.shop.svc.cluster.local").unwrap();
    assert_eq!(tea["Attributes"]["Namespace"], "shop");
    assert!(tea["ports"][0]["port"].is_u64(), "{tea}");
    let shards = page(&plane, system, "istio.io/debug/endpointz", &[]).await;
    let set = &shards["tea.shop.svc.cluster.local"]["shop"]["Shards"];
    let members = &set["Kubernetes/Kubernetes"];
    assert!(members[0]["Addresses"][0].is_string(), "{shards}");
    let mesh = page(&plane, system, "istio.io/debug", &["mesh"]).await;
    assert_eq!(mesh["trustDomain"], "cluster.local");
    let objects = page(&plane, system, "istio.io/debug", &["configz"]).await;
    assert!(objects.is_array(), "{objects}");
    // With a question behind the page's name, and of pages that everybody may read.
    let listed = page(&plane, "shop", "istio.io/debug", &["list?x=y"]).await;
    assert!(
        listed
            .as_array()
            .unwrap()
            .iter()
            .any(|p| p["name"] == "registryz")
    );
}

#[tokio::test]
async fn the_whole_mesh_is_shown_to_the_root_namespace_alone() {
    let plane = Plane::start().await;
    for (namespace, names, status) in [
        ("shop", &["registryz"][..], "7"),
        ("istio-system", &["nosuchz"], "5"),
        ("istio-system", &["config_dump?proxyID=a.b"], "5"),
        ("istio-system", &["config_dump"], "3"),
        ("istio-system", &["registryz", "configz"], "3"),
        ("istio-system", &[], "3"),
    ] {
        let token = Some(plane.token(namespace, "reader"));
        let mut reader = asked(&plane, token, "istio.io/debug", names).await;
        assert_eq!(reader.end().await, status, "{names:?}");
    }
}

#[tokio::test]
async fn requests_out_of_bounds_end_their_stream() {
    let plane = Plane::start().await;
    let mut nameless = Client::connect(&plane).await;
    nameless.without_node();
    nameless.subscribe(C, &[]).await;
    assert_eq!(nameless.end().await, "3");
    let mut malformed = Client::connect(&plane).await;
    malformed.send_raw(b"\xff\xff\xff").await;
    assert_eq!(malformed.end().await, "3");
    let mut huge = Client::connect(&plane).await;
    huge.send_bytes(b"\x00\x7f\xff\xff\xff").await;
    assert_eq!(huge.end().await, "8");
    let mut compressed = Client::connect(&plane).await;
    compressed.send_bytes(b"\x01\x00\x00\x00\x00").await;
    assert_eq!(compressed.end().await, "12");
    let mut long = Client::connect(&plane).await;
    long.subscribe(C, &["x".repeat(2000).as_str()]).await;
    assert_eq!(long.end().await, "3");
}

#[tokio::test]
async fn streams_of_one_identity_are_counted() {
    let access = Access {
        streams_per_identity: 1,
        ..Access::default()
    };
    let plane = Plane::with(Limits::default(), access).await;
    let mut first = Client::connect(&plane).await;
    first.subscribe(C, &[]).await;
    first.next(C).await;
    assert_eq!(ends_at_once(Client::connect(&plane).await).await, "8");
    let token = Some(plane.token("shop", "cups"));
    let mut other = Client::call(
        &plane,
        Call {
            token,
            ..Call::default()
        },
    )
    .await;
    other.subscribe(C, &[]).await;
    other.next(C).await;
}

#[tokio::test]
async fn a_certificate_is_renewed_while_the_stream_lives() {
    let lifetimes =
        fairlead::ca::authority::Lifetimes::new(Duration::from_secs(10), Duration::from_secs(3600));
    let plane = Plane::with_lifetimes(lifetimes.unwrap()).await;
    let mut client = Client::connect(&plane).await;
    client.subscribe(S, &["default"]).await;
    let first = client.next(S).await;
    client.ack(&first).await;
    let second = client.next(S).await;
    assert_ne!(versions(&first), versions(&second));
}
