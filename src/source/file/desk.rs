//! Which files are complete, told from the file system's signs. Pure; reading is the directory's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What the file system says of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// It is being written; what it holds now may be half of what it will.
    Writing(PathBuf),
    /// Its writer closed it.
    Written(PathBuf),
    /// It came, left or was replaced as a whole.
    Moved(PathBuf),
    /// Its owner or mode changed.
    Touched(PathBuf),
    /// A folder changed, or signs were lost.
    Everything,
}

/// What to read now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) look: BTreeSet<PathBuf>,
    /// Whether to list the whole directory.
    pub(super) everything: bool,
    /// Files that are being written: not to be read, nor to be taken for gone.
    pub(super) writing: BTreeSet<PathBuf>,
}

#[derive(Debug, Default)]
pub(super) struct Desk {
    /// Files being written, with the time of the last sign of it.
    writing: BTreeMap<PathBuf, Instant>,
    look: BTreeSet<PathBuf>,
    everything: bool,
    /// Listing everything failed and is not tried before this time.
    held: Option<Instant>,
}

/// A writer that is silent for so long without closing its file (a log, a mapped file) is done.
const PATIENCE: Duration = Duration::from_secs(1);

impl Desk {
    pub(super) fn note(&mut self, signs: Vec<Sign>, now: Instant) {
        for sign in signs {
            match sign {
                Sign::Writing(path) => {
                    self.look.remove(&path);
                    self.writing.insert(path, now);
                }
                Sign::Written(path) | Sign::Moved(path) => {
                    self.writing.remove(&path);
                    self.look.insert(path);
                }
                Sign::Touched(path) => {
                    if !self.writing.contains_key(&path) {
                        self.look.insert(path);
                    }
                }
                Sign::Everything => self.everything = true,
            }
        }
    }

    pub(super) fn due(&mut self, now: Instant) -> Work {
        let (silent, writing): (Vec<_>, Vec<_>) = std::mem::take(&mut self.writing)
            .into_iter()
            .partition(|(_, last)| now.saturating_duration_since(*last) >= PATIENCE);
        self.look.extend(silent.into_iter().map(|(path, _)| path));
        self.writing = writing.into_iter().collect();
        let everything = self.everything && self.held.is_none_or(|until| until <= now);
        if everything {
            (self.everything, self.held) = (false, None);
        }
        Work {
            look: std::mem::take(&mut self.look),
            everything,
            writing: self.writing.keys().cloned().collect(),
        }
    }

    /// Takes back a listing that failed: all is to be listed then, whatever comes meanwhile.
    pub(super) fn hold(&mut self, until: Instant) {
        (self.everything, self.held) = (true, Some(until));
    }

    /// When a silent writer's file, or a listing that failed, is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let silent = self.writing.values().min().map(|last| *last + PATIENCE);
        silent.into_iter().chain(self.held).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(desk: &mut Desk, now: Instant) -> Vec<String> {
        let work = desk.due(now);
        work.look.iter().map(|p| p.display().to_string()).collect()
    }

    #[test]
    fn a_file_is_read_when_its_writer_closed_it_and_not_before() {
        let (mut desk, now) = (Desk::default(), crate::clock::mono());
        desk.note(
            vec![Sign::Writing("a".into()), Sign::Touched("a".into())],
            now,
        );
        assert!(looks(&mut desk, now).is_empty());
        desk.note(vec![Sign::Written("a".into())], now);
        assert_eq!(looks(&mut desk, now), ["a"]);
        assert_eq!(desk.deadline(), None);
    }

    #[test]
    fn a_file_written_again_before_it_was_read_is_not_read_half() {
        let (mut desk, now) = (Desk::default(), crate::clock::mono());
        let signs = ["a", "b"].map(|p| Sign::Written(p.into())).to_vec();
        desk.note(signs, now);
        desk.note(vec![Sign::Writing("a".into())], now);
        let work = desk.due(now);
        assert_eq!(work.look, BTreeSet::from(["b".into()]));
        assert_eq!(work.writing, BTreeSet::from(["a".into()]));
    }

    #[test]
    fn a_writer_that_never_closes_is_waited_for_a_second() {
        let (mut desk, now) = (Desk::default(), crate::clock::mono());
        desk.note(vec![Sign::Writing("a".into())], now);
        let deadline = desk.deadline().unwrap();
        assert!(looks(&mut desk, now).is_empty());
        assert_eq!(looks(&mut desk, deadline), ["a"]);
        assert_eq!(desk.deadline(), None);
    }

    #[test]
    fn a_listing_that_failed_is_due_again_at_its_time_and_single_files_at_once() {
        let (mut desk, now) = (Desk::default(), crate::clock::mono());
        desk.note(vec![Sign::Everything], now);
        assert!(desk.due(now).everything);
        let then = now + Duration::from_secs(5);
        desk.hold(then);
        desk.note(vec![Sign::Everything, Sign::Moved("a".into())], now);
        let work = desk.due(now);
        assert!(!work.everything);
        assert_eq!(work.look, BTreeSet::from(["a".into()]));
        assert_eq!(desk.deadline(), Some(then));
        assert!(desk.due(then).everything);
        assert_eq!((desk.due(then), desk.deadline()), (Work::default(), None));
    }

    #[test]
    fn a_rename_over_a_file_being_written_ends_the_wait() {
        let (mut desk, now) = (Desk::default(), crate::clock::mono());
        desk.note(
            vec![Sign::Writing("a".into()), Sign::Moved("a".into())],
            now,
        );
        assert_eq!(looks(&mut desk, now), ["a"]);
    }
}
