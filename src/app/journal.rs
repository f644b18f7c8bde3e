//! The accepted set on disk: a whole one, and what changed since, line by line.
//!
//! A change costs its own bytes. The lines begin with the hash of the whole set that they continue: after a
//! crash between the two, older lines are known as such.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tracing::{info, warn};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::acceptance::{Amendment, Persisted};
use crate::state::LockedDir;

/// Where the accepted set is kept, in the state directory.
pub const ACCEPTED: &str = "accepted.json";
/// What changed since it was written.
pub const CHANGES: &str = "accepted.log";
/// A start reads no larger one, of either.
const MAX: u64 = 1 << 30;
/// Changes up to this length never make the whole set be written.
const SPARE: u64 = 1 << 20;

/// Writes sets down, one after the other.
pub struct Journal {
    dir: Arc<LockedDir>,
    /// Absent until a whole set was written, and after a write that failed.
    open: Option<Open>,
}

struct Open {
    set: Arc<Persisted>,
    lines: File,
    length: u64,
    limit: u64,
}

impl Journal {
    pub fn new(dir: Arc<LockedDir>) -> Self {
        Self { dir, open: None }
    }

    /// After this the set survives whatever happens to the process.
    pub fn keep(&mut self, set: &Arc<Persisted>) -> Result<()> {
        if let Some(mut open) = self.open.take()
            && open.amend(set)?
        {
            self.open = Some(open);
            return Ok(());
        }
        self.open = Some(whole(&self.dir, set)?);
        Ok(())
    }
}

impl Open {
    /// False if the changes have grown longer than it takes to write the whole set.
    fn amend(&mut self, set: &Arc<Persisted>) -> Result<bool> {
        let mut text = Vec::new();
        for amendment in self.set.amendments(set) {
            let line = serde_json::to_vec(&amendment).context("write down a change")?;
            write!(text, "{:016x} ", xxh3_64(&line))?;
            text.extend(line);
            text.push(b'\n');
        }
        self.length += text.len() as u64;
        if self.length > self.limit {
            return Ok(false);
        }
        if !text.is_empty() {
            self.lines.write_all(&text).context("append to the log")?;
            self.lines.sync_data().context("sync the log")?;
        }
        self.set = set.clone();
        Ok(true)
    }
}

fn whole(dir: &LockedDir, set: &Arc<Persisted>) -> Result<Open> {
    let text = serde_json::to_vec(set).context("write down the accepted set")?;
    dir.write(ACCEPTED, &text)?;
    dir.write(CHANGES, header(&text).as_bytes())?;
    Ok(Open {
        set: set.clone(),
        lines: dir.append_to(CHANGES)?,
        length: 0,
        limit: (text.len() as u64).max(SPARE),
    })
}

fn header(text: &[u8]) -> String {
    format!("{:032x}\n", xxh3_128(text))
}

/// The set that was kept last; None if none ever was.
pub fn read(dir: &LockedDir) -> Result<Option<Persisted>> {
    let Some(text) = dir.read(ACCEPTED, MAX)? else {
        return Ok(None);
    };
    let damaged = |name: &str, why: String| {
        let path = dir.path(name);
        let path = path.display();
        anyhow::anyhow!(
            "{path} is damaged: {why}; it keeps the forms in force of objects whose files are faulty, \
             policies among them: restore it from a backup, or move {ACCEPTED} away to go by the files alone"
        )
    };
    let set = Persisted::parse(&text).map_err(|why| damaged(ACCEPTED, why.to_string()))?;
    let Some(lines) = dir.read(CHANGES, MAX)? else {
        warn!("{CHANGES} is not there: what changed after {ACCEPTED} was written is not known");
        return Ok(Some(set));
    };
    let Some(lines) = lines.strip_prefix(header(&text).as_bytes()) else {
        info!("the log of the accepted set continues an older one; it has nothing to add");
        return Ok(Some(set));
    };
    let amendments = amendments(lines).map_err(|why| damaged(CHANGES, format!("{why:#}")))?;
    Ok(Some(set.amended(amendments)))
}

/// A last line without its end was being written when the process ended: nobody was told that it stands.
fn amendments(lines: &[u8]) -> Result<Vec<Amendment>> {
    let mut out = Vec::new();
    for (number, line) in lines.split_inclusive(|b| *b == b'\n').enumerate() {
        let Some(line) = line.strip_suffix(b"\n") else {
            break;
        };
        let sum = line.get(..16).and_then(|s| std::str::from_utf8(s).ok());
        let sum = sum.and_then(|s| u64::from_str_radix(s, 16).ok());
        let body = line.get(17..).unwrap_or_default();
        if sum != Some(xxh3_64(body)) {
            bail!("line {} is not what was written", number + 2);
        }
        out.push(Amendment::parse(body).with_context(|| format!("line {}", number + 2))?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;
    use crate::acceptance::{Acceptance, Options};
    use crate::config::decode;
    use crate::config::event::Event;
    use crate::state::StateDir;
    use crate::text::Str;

    fn services(names: &[&str]) -> Arc<Persisted> {
        let options = Options {
            hold_unresolved: true,
            domain: Str::new_static("cluster.local"),
        };
        let mut acceptance = Acceptance::new(options);
        let documents = names.iter().map(|n| {
            let spec = "spec: {ports: [{port: 80}]}";
            format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {n}}}\n{spec}\n---\n")
        });
        let text: String = documents.collect();
        let file = Event::File(decode::documents(&text, "f.yaml"));
        acceptance.on(vec![Event::Init, file, Event::InitDone]);
        Arc::new(acceptance.persist(&|_| true))
    }

    fn names(dir: &LockedDir) -> Vec<String> {
        let set = read(dir).unwrap().unwrap();
        let objects = set.objects.iter();
        objects.map(|k| k.object.meta.name.to_string()).collect()
    }

    fn opened() -> (tempfile::TempDir, Arc<LockedDir>) {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::prepare(&root.path().join("state")).unwrap();
        let dir = Arc::new(dir.lock().unwrap());
        (root, dir)
    }

    #[test]
    fn what_changed_is_read_back_over_the_whole_and_the_whole_stays() {
        let (_root, dir) = opened();
        let mut journal = Journal::new(dir.clone());
        journal.keep(&services(&["a", "b"])).unwrap();
        let whole = dir.read(ACCEPTED, MAX).unwrap().unwrap();
        journal.keep(&services(&["b", "c"])).unwrap();
        journal.keep(&services(&["b", "c", "d"])).unwrap();
        assert_eq!(names(&dir), ["b", "c", "d"]);
        assert_eq!(dir.read(ACCEPTED, MAX).unwrap().unwrap(), whole);
        // The next run begins with a whole one.
        Journal::new(dir.clone()).keep(&services(&["d"])).unwrap();
        assert_eq!(names(&dir), ["d"]);
    }

    #[test]
    fn a_line_cut_off_by_a_crash_never_stood_and_a_damaged_one_is_no_start() {
        let (_root, dir) = opened();
        let mut journal = Journal::new(dir.clone());
        journal.keep(&services(&["a"])).unwrap();
        journal.keep(&services(&["a", "b"])).unwrap();
        let log = dir.path(CHANGES);
        let good = std::fs::read(&log).unwrap();
        std::fs::write(&log, &good[..good.len() - 3]).unwrap();
        assert_eq!(names(&dir), ["a"]);
        let mut bad = good.clone();
        bad[good.len() - 3] ^= 1;
        std::fs::write(&log, bad).unwrap();
        let why = read(&dir).unwrap_err().to_string();
        assert!(why.contains("accepted.log is damaged: line 3"), "{why}");
    }

    #[test]
    fn lines_that_continue_an_older_set_are_passed_over() {
        let (_root, dir) = opened();
        let mut journal = Journal::new(dir.clone());
        journal.keep(&services(&["a"])).unwrap();
        journal.keep(&services(&["b"])).unwrap();
        let text = serde_json::to_vec(&*services(&["c"])).unwrap();
        dir.write(ACCEPTED, &text).unwrap();
        assert_eq!(names(&dir), ["c"]);
    }

    #[test]
    fn many_changes_are_written_as_a_whole() {
        let (_root, dir) = opened();
        let mut journal = Journal::new(dir.clone());
        journal.keep(&services(&["a"])).unwrap();
        if let Some(open) = &mut journal.open {
            open.limit = 10;
        }
        journal.keep(&services(&["b"])).unwrap();
        let lines = dir.read(CHANGES, MAX).unwrap().unwrap();
        assert_eq!((names(&dir), lines.len()), (vec!["b".to_owned()], 33));
    }

    #[test]
    fn a_write_that_failed_is_followed_by_a_whole_one() {
        let (_root, dir) = opened();
        let mut journal = Journal::new(dir.clone());
        journal.keep(&services(&["a"])).unwrap();
        if let Some(open) = &mut journal.open {
            // Not open for writing.
            open.lines = OpenOptions::new()
                .read(true)
                .open(dir.path(CHANGES))
                .unwrap();
        }
        assert!(journal.keep(&services(&["b"])).is_err());
        journal.keep(&services(&["b"])).unwrap();
        assert_eq!(names(&dir), ["b"]);
    }
}
