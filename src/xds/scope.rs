//! Renders scopes, and how a listener finds the scope of a request. Their tables are in `route`.
//!
//! Envoy has no scope for "everything else", so a listener asks three times: for the host as it was sent, for
//! the host in its one spelling, and for the table's fallback. Each later filter acts only while no virtual host is
//! found; a request that has one but no route in it keeps its 404.

use envoy_types::pb::cel::expr::expr::{ExprKind, Ident, Select};
use envoy_types::pb::cel::expr::{Expr, ParsedExpr};
use envoy_types::pb::envoy::config::common::mutation_rules::v3::HeaderMutation;
use envoy_types::pb::envoy::config::common::mutation_rules::v3::header_mutation::Action;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{
    CidrRange, DataSource, HeaderValue, HeaderValueOption, TypedExtensionConfig,
};
use envoy_types::pb::envoy::config::route::v3::ScopedRouteConfiguration;
use envoy_types::pb::envoy::config::route::v3::scoped_route_configuration::Key;
use envoy_types::pb::envoy::config::route::v3::scoped_route_configuration::key::{
    Fragment, fragment,
};
use envoy_types::pb::envoy::extensions::common::matching::v3::ExtensionWithMatcher;
use envoy_types::pb::envoy::extensions::filters::common::matcher::action::v3::SkipFilter;
use envoy_types::pb::envoy::extensions::filters::http::ip_tagging::v3::IpTagging;
use envoy_types::pb::envoy::extensions::filters::http::ip_tagging::v3::ip_tagging::{
    IpTag, IpTagHeader, ip_tag_header::HeaderAction,
};
use envoy_types::pb::envoy::extensions::filters::http::lua::v3::Lua;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as pb;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::scoped_routes::scope_key_builder::{
    FragmentBuilder, fragment_builder::{HeaderValueExtractor, Type, header_value_extractor::ExtractType},
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::scoped_routes::{
    ConfigSpecifier, ScopeKeyBuilder,
};
use envoy_types::pb::envoy::extensions::http::early_header_mutation::header_mutation::v3::HeaderMutation as EarlyMutation;
use envoy_types::pb::xds::r#type::matcher::v3::Matcher;
use envoy_types::pb::xds::r#type::matcher::v3::matcher::matcher_list::predicate::{
    MatchType, SinglePredicate, single_predicate,
};
use envoy_types::pb::xds::r#type::matcher::v3::matcher::matcher_list::{FieldMatcher, Predicate};
use envoy_types::pb::xds::r#type::matcher::v3::matcher::{
    MatcherList, MatcherType, OnMatch, on_match,
};
use envoy_types::pb::xds::core::v3::TypedExtensionConfig as XdsExtension;
use envoy_types::pb::xds::r#type::v3::CelExpression;
use prost::{Message, Name};

use super::{Ref, Render, ResourceType, proto};
use crate::ir::{Loading, RouteScope, Scoping, scopes};
use crate::text::Str;

/// Carries the key from the listener's first look at a request to its route. Written over whatever the client sent,
/// and taken off by the table that it led to.
pub const HEADER: &str = "x-fairlead-scope";

/// All listeners say the same here: Envoy keeps one set of scopes for those whose sources are equal.
const SCOPES: &str = "outbound";

/// Lower case, no port, no dot at the end, and no colon, which would end the host in the key.
const SPELLING: &str = r#"function envoy_on_request(handle)
  local headers = handle:headers()
  local host = string.lower(headers:get(":authority") or "")
  host = host:gsub(":%d*$", ""):gsub("%.$", ""):gsub(":", "_")
  local table = string.match(headers:get("x-fairlead-scope"), "^[^/]*/")
  headers:replace("x-fairlead-scope", table .. host)
end
"#;

impl Render for RouteScope {
    type Message = ScopedRouteConfiguration;
    const KIND: ResourceType = ResourceType::ScopedRoute;
    const EPOCH: u32 = 1;

    fn name(&self) -> Str {
        self.key.clone()
    }

    fn render(&self) -> ScopedRouteConfiguration {
        let fragment = Fragment {
            r#type: Some(fragment::Type::StringKey(self.key.to_string())),
        };
        ScopedRouteConfiguration {
            name: self.key.to_string(),
            on_demand: self.loading == Loading::OnDemand,
            route_configuration_name: self.table.to_string(),
            key: Some(Key {
                fragments: vec![fragment],
            }),
            ..Default::default()
        }
    }

    /// The table that requests fail without: not one that a request waits for.
    fn refs(&self) -> Vec<Ref> {
        let table = Ref {
            kind: ResourceType::Route,
            name: self.table.clone(),
        };
        match self.loading {
            Loading::AtOnce => vec![table],
            Loading::OnDemand => Vec::new(),
        }
    }
}

/// The scope that a listener cannot do without.
pub fn reference(scoping: &Scoping) -> Ref {
    Ref {
        kind: ResourceType::ScopedRoute,
        name: scopes::fallback_of(&scoping.table),
    }
}

pub fn routes() -> pb::ScopedRoutes {
    let host = HeaderValueExtractor {
        name: HEADER.to_owned(),
        // `80/reviews:9080` is `80/reviews`.
        element_separator: ":".to_owned(),
        extract_type: Some(ExtractType::Index(0)),
    };
    pb::ScopedRoutes {
        name: SCOPES.to_owned(),
        scope_key_builder: Some(ScopeKeyBuilder {
            fragments: vec![FragmentBuilder {
                r#type: Some(Type::HeaderValueExtractor(host)),
            }],
        }),
        rds_config_source: Some(proto::ads(proto::seconds(0))),
        config_specifier: Some(ConfigSpecifier::ScopedRds(pb::ScopedRds {
            scoped_rds_config_source: Some(proto::ads(proto::seconds(0))),
            ..Default::default()
        })),
    }
}

/// The first look: `80/` and the host as it was sent.
pub fn first_key(scoping: &Scoping) -> TypedExtensionConfig {
    let header = HeaderValueOption {
        header: Some(HeaderValue {
            key: HEADER.to_owned(),
            value: format!("{}/%REQ(:AUTHORITY)%", scoping.table),
            ..Default::default()
        }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..Default::default()
    };
    extension(
        "envoy.http.early_header_mutation.header_mutation",
        &EarlyMutation {
            mutations: vec![HeaderMutation {
                action: Some(Action::Append(header)),
            }],
        },
    )
}

/// The filters' names, for dumps and logs.
pub const SECOND_LOOK: &str = "fairlead.scope_spelling";
/// See `SECOND_LOOK`.
pub const THIRD_LOOK: &str = "fairlead.scope_fallback";

/// For the host in its one spelling.
pub fn second_look() -> ExtensionWithMatcher {
    let spelling = Lua {
        default_source_code: Some(DataSource {
            specifier: Some(Specifier::InlineString(SPELLING.to_owned())),
            ..Default::default()
        }),
        ..Default::default()
    };
    unless_found("envoy.filters.http.lua", &spelling)
}

/// For the fallback. Writes its key for any caller: of Envoy's filters that write a header and look for the route
/// again, the one without a script.
pub fn third_look(scoping: &Scoping) -> ExtensionWithMatcher {
    let any = |address: &str| CidrRange {
        address_prefix: address.to_owned(),
        prefix_len: proto::uint32(0),
    };
    let tagging = IpTagging {
        ip_tags: vec![IpTag {
            ip_tag_name: scopes::fallback_of(&scoping.table).to_string(),
            ip_list: vec![any("0.0.0.0"), any("::")],
        }],
        ip_tag_header: Some(IpTagHeader {
            header: HEADER.to_owned(),
            action: HeaderAction::Sanitize.into(),
        }),
        ..Default::default()
    };
    unless_found("envoy.filters.http.ip_tagging", &tagging)
}

/// A filter that requests with a virtual host pass by.
fn unless_found<M: Message + Name>(name: &str, config: &M) -> ExtensionWithMatcher {
    let found = SinglePredicate {
        input: Some(xds_extension("attributes", &CelInput {})),
        matcher: Some(single_predicate::Matcher::CustomMatch(xds_extension(
            "envoy.matching.matchers.cel_matcher",
            &CelMatcher {
                expr_match: Some(has("xds", "virtual_host_name")),
            },
        ))),
    };
    let skip = xds_extension("skip", &SkipFilter {});
    let when_found = FieldMatcher {
        predicate: Some(Predicate {
            match_type: Some(MatchType::SinglePredicate(found)),
        }),
        on_match: Some(OnMatch {
            on_match: Some(on_match::OnMatch::Action(skip)),
            ..Default::default()
        }),
    };
    ExtensionWithMatcher {
        extension_config: Some(extension(name, config)),
        xds_matcher: Some(Matcher {
            matcher_type: Some(MatcherType::MatcherList(MatcherList {
                matchers: vec![when_found],
            })),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// CEL's `has(object.field)`; Envoy 1.40 takes the parsed form alone.
fn has(object: &str, field: &str) -> CelExpression {
    let object = Expr {
        id: 1,
        expr_kind: Some(ExprKind::IdentExpr(Ident {
            name: object.to_owned(),
        })),
    };
    let field = Expr {
        id: 2,
        expr_kind: Some(ExprKind::SelectExpr(Box::new(Select {
            operand: Some(Box::new(object)),
            field: field.to_owned(),
            test_only: true,
        }))),
    };
    CelExpression {
        cel_expr_parsed: Some(ParsedExpr {
            expr: Some(field),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn extension<M: Message + Name>(name: &str, config: &M) -> TypedExtensionConfig {
    TypedExtensionConfig {
        name: name.to_owned(),
        typed_config: Some(proto::any(config)),
    }
}

fn xds_extension<M: Message + Name>(name: &str, config: &M) -> XdsExtension {
    XdsExtension {
        name: name.to_owned(),
        typed_config: Some(proto::any(config)),
    }
}

/// `xds.type.matcher.v3.CelMatcher`, which envoy-types lacks.
#[derive(Clone, PartialEq, Message)]
struct CelMatcher {
    #[prost(message, optional, tag = "1")]
    expr_match: Option<CelExpression>,
}

/// `xds.type.matcher.v3.HttpAttributesCelMatchInput`, likewise.
#[derive(Clone, PartialEq, Message)]
struct CelInput {}

impl Name for CelMatcher {
    const NAME: &'static str = "CelMatcher";
    const PACKAGE: &'static str = MATCHERS;

    fn type_url() -> String {
        format!("type.googleapis.com/{MATCHERS}.{}", Self::NAME)
    }
}

impl Name for CelInput {
    const NAME: &'static str = "HttpAttributesCelMatchInput";
    const PACKAGE: &'static str = MATCHERS;

    fn type_url() -> String {
        format!("type.googleapis.com/{MATCHERS}.{}", Self::NAME)
    }
}

const MATCHERS: &str = "xds.type.matcher.v3";
