//! Renders users' own filters. Where they stand among the others says `http`.

use envoy_types::pb::envoy::config::core::v3::DataSource;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::extensions::filters::http::lua::v3::Lua;

use crate::ir::Extension;

/// As Istio's filters are called.
pub fn name(extension: &Extension) -> String {
    format!("extensions.istio.io/trafficextension/{}", extension.name)
}

/// A script that is no Lua would have Envoy refuse the whole listener. So it is compiled by another one, which answers
/// every request with 500 and logs why if that fails.
pub fn lua(extension: &Extension) -> Lua {
    let quoted = quoted(&extension.script);
    let name = &extension.name;
    let code = format!(
        r#"local chunk, fault = loadstring({quoted}, "={name}")
local sound = chunk ~= nil
if sound then sound, fault = pcall(chunk) end
if not sound then
  envoy_on_response = nil
  function envoy_on_request(handle)
    handle:logErr(tostring(fault))
    handle:respond({{[":status"] = "500"}}, "")
  end
end
"#
    );
    Lua {
        default_source_code: Some(DataSource {
            specifier: Some(Specifier::InlineString(code)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Text in long brackets, of a level that the text does not close. The line break at its start is not part of it.
fn quoted(text: &str) -> String {
    let mut level = String::new();
    // What follows the text could close it together with the text's end.
    while text.contains(&format!("]{level}]")) || text.ends_with(&format!("]{level}")) {
        level.push('=');
    }
    format!("[{level}[\n{text}]{level}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_script_ends_its_own_quotation() {
        assert_eq!(quoted("a"), "[[\na]]");
        assert_eq!(quoted("a[b[1]]"), "[=[\na[b[1]]]=]");
        assert_eq!(quoted("]=] ]]"), "[==[\n]=] ]]]==]");
        assert_eq!(quoted("x]"), "[=[\nx]]=]");
    }
}
