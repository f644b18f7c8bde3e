//! Users' own filters, as requests meet them.

use anyhow::{Result, ensure};

use crate::Scenario;
use crate::harness::wait::eventually;
use crate::shop::Shop;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("a_script_sees_what_its_match_says_on_either_side", sides),
    (
        "a_script_that_is_no_lua_answers_500_and_harms_nothing_else",
        broken,
    ),
];

const REVIEWS: &str = "http://reviews:9080/";

fn extension(name: &str, spec: &str) -> String {
    format!(
        "---
apiVersion: extensions.istio.io/v1alpha1
kind: TrafficExtension
metadata: {{name: {name}, namespace: shop}}
spec:
{spec}
"
    )
}

fn sides() -> Result<()> {
    let shop = Shop::enter()?;
    let server = "  selector: {matchLabels: {app: reviews}}
  match: [{mode: SERVER, ports: [{number: 9080}]}]
  lua:
    inlineCode: |
      function envoy_on_request(handle)
        handle:headers():add('x-passed', handle:headers():get('x-passed-client') or 'nobody')
      end
      function envoy_on_response(handle) handle:headers():add('x-answered', ']]') end
";
    let client = "  selector: {matchLabels: {app: storefront}}
  match: [{mode: CLIENT}]
  phase: AUTHN
  lua: {inlineCode: \"function envoy_on_request(h) h:headers():add('x-passed-client', 'storefront') end\"}
";
    let server = shop.mesh.apply("server", &extension("server", server))?;
    let _client = shop.mesh.apply("client", &extension("client", client))?;
    eventually("both scripts see the request", || {
        let reply = shop.storefront.get(REVIEWS)?;
        let seen = reply.seen()?;
        let passed = &seen["headers"]["x-passed"];
        ensure!(
            passed == "storefront" && reply.header("x-answered") == "]]",
            "{seen}"
        );
        Ok(())
    })?;
    // Another workload has neither script.
    let seen = shop.storefront.get("http://ratings/")?;
    ensure!(seen.header("x-answered").is_empty(), "{seen:?}");
    drop(server);
    eventually("the script of the server is gone", || {
        let reply = shop.storefront.get(REVIEWS)?;
        ensure!(
            reply.status == 200 && reply.header("x-answered").is_empty(),
            "{reply:?}"
        );
        Ok(())
    })?;
    shop.until_as_before()
}

fn broken() -> Result<()> {
    let shop = Shop::enter()?;
    let spec = |code: &str| {
        let selector = "  selector: {matchLabels: {app: reviews}}\n  match: [{mode: SERVER}]\n";
        extension(
            "broken",
            &format!("{selector}  lua: {{inlineCode: \"{code}\"}}"),
        )
    };
    for code in ["this is no Lua", "error('not today')"] {
        let _broken = shop.apply(&spec(code))?;
        eventually("nothing passes the script", || {
            let reply = shop.storefront.get(REVIEWS)?;
            ensure!(reply.status == 500, "{}", reply.status);
            Ok(())
        })?;
        ensure!(shop.storefront.get("http://ratings/")?.status == 200);
    }
    // Both workloads pass requests again, and that is what is left behind.
    let mended = shop.apply(&spec("function envoy_on_request(h) end"))?;
    shop.until_as_before()?;
    drop(mended);
    shop.until_as_before()
}
