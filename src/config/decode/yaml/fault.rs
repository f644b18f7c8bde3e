//! Why text is no tree, in words for who wrote it: no place but the file's, no parser's options.

use std::borrow::Cow;

use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{Error, Localizer, Location, MessageFormatter as _, UserMessageFormatter};

use super::{Document, MAX_DEPTH, YamlFault};

const MAX_MESSAGE: usize = 300;

/// `repeats` is what the aliases of the file might stand for.
pub(super) fn tell(error: &Error, document: Document<'_>, repeats: usize) -> YamlFault {
    let line = error
        .location()
        .map_or(1, |l| u32::try_from(l.line()).unwrap_or(u32::MAX));
    YamlFault {
        line: line.max(1) + document.lines_before,
        message: match original(error) {
            Error::Budget { breach, .. } => over(breach, repeats),
            Error::AliasReplayLimitExceeded { .. }
            | Error::AliasReplayCounterOverflow { .. }
            | Error::AliasExpansionLimitExceeded { .. }
            | Error::AliasReplayStackDepthExceeded { .. } => too_many(repeats),
            other => text(other),
        },
    }
}

fn original(mut error: &Error) -> &Error {
    while let Error::AliasError { error: inner, .. } | Error::WithSnippet { error: inner, .. } =
        error
    {
        error = inner;
    }
    error
}

fn over(breach: &BudgetBreach, repeats: usize) -> String {
    match breach {
        BudgetBreach::Depth { .. } => format!("this is nested deeper than {MAX_DEPTH} levels"),
        BudgetBreach::Aliases { .. }
        | BudgetBreach::Anchors { .. }
        | BudgetBreach::RecordedAnchorEvents { .. }
        | BudgetBreach::RecordedAnchorBytes { .. } => too_many(repeats),
        _ => "the document holds more values than one may; split it".to_owned(),
    }
}

fn too_many(repeats: usize) -> String {
    format!(
        "aliases here stand for more than the {repeats} values that those of a file may; write the \
         values out, or leave some away"
    )
}

fn text(error: &Error) -> String {
    let formatter = UserMessageFormatter.with_localizer(&Nowhere);
    let message = formatter.format_message(error);
    let first = message.lines().next().unwrap_or("").trim();
    let cut = first
        .char_indices()
        .nth(MAX_MESSAGE)
        .map_or(first.len(), |(i, _)| i);
    first[..cut].to_owned()
}

/// Leaves the parser's own places out: they count from the document's start.
struct Nowhere;

impl Localizer for Nowhere {
    fn attach_location<'a>(&self, base: Cow<'a, str>, _: Location) -> Cow<'a, str> {
        base
    }

    fn alias_defined_at(&self, _: Location) -> String {
        String::new()
    }

    fn alias_used_at(&self, _: Location) -> String {
        String::new()
    }
}
