//! Broken files: reported with their place, and the last accepted form stays. Waiting is no fault.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Demo, acked_in, restart, routing, split};
use crate::cli::demo::bookshop::{Copy, ROUTING};
use crate::cli::demo::client::Call;
use crate::cli::demo::wait::pass;
use crate::diagnostic::{Code, Diagnostic, Level};
use crate::xds::ResourceType;

/// One way to break `routing.yaml`, and where the fault must be seen.
struct Fault {
    name: &'static str,
    old: &'static str,
    new: &'static str,
    /// The first text of the line that must be told.
    line: &'static str,
    field: &'static str,
    code: Code,
}

const FAULTS: &[Fault] = &[
    Fault {
        name: "an unknown field is reported, the route stays",
        old: "      weight: 90",
        new: "      wieght: 90",
        line: "wieght",
        field: "spec.http[1].route[0].wieght",
        code: Code::UnknownField,
    },
    Fault {
        name: "a broken regex is reported, the route stays",
        old: "          exact: tester",
        new: "          regex: \"test(er\"",
        line: "regex",
        field: "spec.http[0].match[0].headers.x-reader.regex",
        code: Code::InvalidValue,
    },
    Fault {
        name: "a weight of -1 is reported, the route stays",
        old: "      weight: 90",
        new: "      weight: -1",
        line: "weight: -1",
        field: "spec.http[1].route[0].weight",
        code: Code::InvalidValue,
    },
];

/// Time for a version that must not get through to get through.
const QUIET: Duration = Duration::from_millis(500);
/// What the same file says of `ratings` before and after.
const HURRIED: &str = "timeout: 300ms";
const CALMER: &str = "timeout: 600ms";

pub async fn run(demo: &mut Demo<'_>) -> Result<()> {
    let before = demo.traffic.tally();
    let sound = demo.stage.copy.read(ROUTING)?;
    for fault in FAULTS {
        let outcome = broken(demo, fault).await;
        demo.report.check(fault.name, outcome);
        demo.stage.copy.write(ROUTING, &sound)?;
    }
    let others = others_go_on(demo).await;
    demo.report
        .check("another object of the broken file takes effect", others);
    restarted(demo).await;
    let repaired = repaired(demo, &sound).await;
    demo.report
        .check("repaired, and nothing is reported any more", repaired);
    waiting(demo).await;
    demo.stage.copy.write(ROUTING, &sound)?;
    let lossless = demo.lossless(demo.traffic.tally().since(before));
    demo.report.check("traffic through all of this", lossless);
    Ok(())
}

/// Breaks the file, and sees that it is reported and that requests go as before.
async fn broken(demo: &Demo<'_>, fault: &Fault) -> Result<String> {
    let mark = demo.stage.plane.log_mark()?;
    demo.stage.copy.edit(ROUTING, &[(fault.old, fault.new)])?;
    let line = line_of(&demo.stage.copy, fault.line)?;
    let told = format!(
        "{ROUTING}:{line}: error: VirtualService bookshop/reviews: {}: ",
        fault.field
    );
    let told = demo.stage.plane.tells(demo.report, mark, &told).await?;
    let found = analyze(demo).await?;
    let reported = found.iter().any(|d| is_that(d, fault, line));
    ensure!(reported, "`fairlead analyze` reports {found:?}");
    as_before(demo).await?;
    Ok(told)
}

fn is_that(found: &Diagnostic, fault: &Fault, line: u32) -> bool {
    let subject = found.resource.as_ref().map(ToString::to_string);
    found.level == Level::Error
        && found.code == fault.code
        && found.field == fault.field
        && found.line == Some(line)
        && found.file.as_ref().is_some_and(|f| f.ends_with(ROUTING))
        && subject.as_deref() == Some("VirtualService bookshop/reviews")
}

fn line_of(copy: &Copy, text: &str) -> Result<u32> {
    let file = copy.read(ROUTING)?;
    let at = file.lines().position(|l| l.contains(text));
    let at = at.with_context(|| format!("`{text}` stands nowhere in {ROUTING}"))?;
    Ok(u32::try_from(at + 1)?)
}

async fn analyze(demo: &Demo<'_>) -> Result<Vec<Diagnostic>> {
    let text = demo.stage.plane.analyze().await?;
    serde_json::from_str(&text).with_context(|| format!("read what analyze printed: {text}"))
}

/// The header route and the split are those of the last accepted form.
async fn as_before(demo: &Demo<'_>) -> Result<()> {
    pass(demo.report, "a moment for it to spread", QUIET, String::new).await;
    routing::header(demo).await?;
    split::check(demo, 90).await?;
    Ok(())
}

/// One object of the file is broken and another one is changed, in one edit.
async fn others_go_on(demo: &Demo<'_>) -> Result<String> {
    let fault = &FAULTS[0];
    let took = demo
        .change(ResourceType::Route, |copy| {
            copy.edit(ROUTING, &[(fault.old, fault.new), (HURRIED, CALMER)])
        })
        .await?;
    let timeout = routing::timeout(demo, Duration::from_millis(600)).await?;
    as_before(demo).await?;
    Ok(format!("{}; {timeout}", acked_in(took)))
}

/// The broken file is all that the new process finds beside its state directory.
async fn restarted(demo: &mut Demo<'_>) {
    let back = again(demo).await;
    demo.report
        .check("killed and started again on the broken file", back);
    let resumed = restart::resumed(demo).await;
    demo.report
        .check("the last accepted form is still in force", resumed);
    let seen = as_before(demo).await.map(|()| String::new());
    demo.report.check("and is what requests see", seen);
}

async fn again(demo: &mut Demo<'_>) -> Result<String> {
    demo.stage.plane.process.kill().await?;
    restart::come_back(demo).await
}

async fn repaired(demo: &Demo<'_>, sound: &str) -> Result<String> {
    let took = demo
        .change(ResourceType::Route, |copy| copy.write(ROUTING, sound))
        .await?;
    let found = analyze(demo).await?;
    let faults = found.iter().filter(|d| d.level == Level::Error).count();
    ensure!(faults == 0, "`fairlead analyze` reports {found:?}");
    Ok(acked_in(took))
}

/// A route to a subset that is defined later: held, told, and in force once its partner is there.
async fn waiting(demo: &mut Demo<'_>) {
    const TO_V9: (&str, &str) = (
        "subset: v1\n      weight: 90",
        "subset: v9\n      weight: 90",
    );
    const V9: (&str, &str) = (
        "  - name: v3\n",
        "  - name: v9\n    labels:\n      version: v3\n  - name: v3\n",
    );
    let held = held(demo, TO_V9).await;
    demo.report
        .check("a route to an undefined subset waits", held);
    let defined = demo
        .change(ResourceType::Route, |copy| copy.edit(ROUTING, &[V9]))
        .await;
    demo.report.check(
        "the subset is defined, both take effect",
        defined.map(acked_in),
    );
    let seen = v9_answers(demo).await;
    demo.report.check("and is what requests see", seen);
}

async fn held(demo: &Demo<'_>, edit: (&str, &str)) -> Result<String> {
    let mark = demo.stage.plane.log_mark()?;
    demo.stage.copy.edit(ROUTING, &[edit])?;
    let line = line_of(&demo.stage.copy, "subset: v9")?;
    let told = demo
        .stage
        .plane
        .tells(demo.report, mark, "subset `v9`")
        .await?;
    ensure!(
        told.contains(&format!(
            "{ROUTING}:{line}: warning: VirtualService bookshop/reviews"
        )) && told.contains("waits"),
        "it was told: {told}"
    );
    as_before(demo).await?;
    Ok(told)
}

/// Subset v9 is served by the pods of v3.
async fn v9_answers(demo: &Demo<'_>) -> Result<String> {
    const REQUESTS: usize = 200;
    let found = demo.versions(REQUESTS, &Call::new("reviews", "/")).await?;
    let of = |version: &str| found.get(version).copied().unwrap_or(0);
    let told = format!("v2 {}, v3 {} of {REQUESTS} requests", of("v2"), of("v3"));
    ensure!(of("v1") == 0 && of("v3") > of("v2"), "{told}: {found:?}");
    Ok(told)
}
