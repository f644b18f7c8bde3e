//! What a person watching sees: a line per check, progress while waiting, the count. JUnit too.

use std::cell::Cell;
use std::fs;
use std::io::{IsTerminal as _, Write as _, stdout};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use quick_junit::{NonSuccessKind, Report as Junit, TestCase, TestCaseStatus, TestSuite};

use crate::clock;

/// How often progress is told where lines cannot be overwritten.
const PROGRESS: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, PartialEq)]
enum Screen {
    /// Progress stands in the last line, which is written again and again.
    Terminal,
    /// A log: progress is a line now and then.
    Lines,
}

/// One finished check.
struct Checked {
    section: &'static str,
    name: &'static str,
    took: Duration,
    outcome: Result<String, String>,
}

/// All checks of one run.
pub struct Report {
    screen: Screen,
    section: &'static str,
    checked: Vec<Checked>,
    /// When the last check ended: the next one's time counts from there.
    since: Instant,
    told: Cell<Option<Instant>>,
}

impl Report {
    pub fn new() -> Self {
        Self {
            screen: if stdout().is_terminal() {
                Screen::Terminal
            } else {
                Screen::Lines
            },
            section: "",
            checked: Vec::new(),
            since: clock::mono(),
            told: Cell::new(None),
        }
    }

    pub fn section(&mut self, title: &'static str) {
        self.clear();
        println!("\n{title}");
        self.section = title;
        self.since = clock::mono();
    }

    /// Why we are waiting, and how far it is.
    pub fn progress(&self, text: &str) {
        let now = clock::mono();
        match self.screen {
            Screen::Terminal => {
                print!("\r\x1b[2K  ...   {text}");
                // A terminal that is gone does not stop the checks.
                let _ = stdout().flush();
            }
            Screen::Lines => {
                let last = self.told.get().unwrap_or(self.since).max(self.since);
                if now - last >= PROGRESS {
                    println!("  ...   {text}");
                    self.told.set(Some(now));
                }
            }
        }
    }

    /// A check that ended: what it found, or why it failed.
    pub fn check(&mut self, name: &'static str, outcome: Result<String>) {
        self.clear();
        let now = clock::mono();
        let outcome = outcome.map_err(|e| format!("{e:#}"));
        match &outcome {
            Ok(found) if found.is_empty() => println!("  ok    {name}"),
            Ok(found) => println!("  ok    {name}: {found}"),
            Err(why) => println!("  FAIL  {name}: {why}"),
        }
        self.checked.push(Checked {
            section: self.section,
            name,
            took: now - self.since,
            outcome,
        });
        self.since = now;
    }

    pub fn failed(&self) -> usize {
        self.checked.iter().filter(|c| c.outcome.is_err()).count()
    }

    /// The closing line.
    pub fn close(&self) {
        self.clear();
        let failed = self.failed();
        let passed = self.checked.len() - failed;
        println!("\ndemo: {passed} passed, {failed} failed");
    }

    pub fn write_junit(&self, file: &Path) -> Result<()> {
        let tried = || format!("write {}", file.display());
        let mut suite = TestSuite::new("demo");
        for checked in &self.checked {
            suite.add_test_case(checked.case());
        }
        let mut junit = Junit::new("fairlead demo");
        junit.add_test_suite(suite);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).with_context(tried)?;
        }
        let text = junit.to_string().with_context(tried)?;
        fs::write(file, text).with_context(tried)
    }

    fn clear(&self) {
        if self.screen == Screen::Terminal {
            print!("\r\x1b[2K");
        }
    }
}

impl Checked {
    fn case(&self) -> TestCase {
        let status = match &self.outcome {
            Ok(_) => TestCaseStatus::success(),
            Err(why) => {
                let mut failure = TestCaseStatus::non_success(NonSuccessKind::Failure);
                failure.set_message(why.clone());
                failure
            }
        };
        let mut case = TestCase::new(self.name, status);
        case.set_classname(self.section).set_time(self.took);
        if let Ok(found) = &self.outcome {
            case.set_system_out(found.clone());
        }
        case
    }
}

/// `0.4 s`, `38 ms`: as exact as a reader needs.
pub fn span(time: Duration) -> String {
    match time.as_millis() {
        ms @ 0..1000 => format!("{ms} ms"),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_check_is_a_failure_in_junit_too() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new/demo.xml");
        let mut report = Report::new();
        report.check("one", Ok("fine".to_owned()));
        report.check("two", Err(anyhow::anyhow!("a < b")));
        assert_eq!(report.failed(), 1);
        report.write_junit(&file).unwrap();
        let text = fs::read_to_string(file).unwrap();
        assert!(text.contains(r#"tests="2""#) && text.contains(r#"failures="1""#));
        assert!(text.contains("a &lt; b"), "{text}");
    }

    #[test]
    fn spans_are_short() {
        assert_eq!(span(Duration::from_millis(38)), "38 ms");
        assert_eq!(span(Duration::from_millis(1449)), "1.4 s");
    }
}
