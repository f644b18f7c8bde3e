//! What became of each object's present form here, and since when: written by the intake, read by who tells authors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use crate::acceptance::Verdict;
use crate::config::Key;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    pub verdict: Verdict,
    /// When this replica saw the form. What its proxies owe from before includes it.
    pub since: Instant,
}

/// Holds an entry for each object that has an author who looks at its status.
#[derive(Debug, Default)]
pub struct Board {
    posts: Mutex<Posts>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Posts {
    by_key: BTreeMap<Key, Posted>,
    /// Whose entry is another one since somebody looked.
    news: BTreeSet<Key>,
}

impl Board {
    /// To be called once the change is on its way to the proxies: who reads of it here counts their answers.
    pub fn post(&self, verdicts: impl IntoIterator<Item = (Key, Option<Verdict>)>, since: Instant) {
        let mut posts = self.posts();
        for (key, verdict) in verdicts {
            let known = posts.by_key.get(&key).map(|posted| &posted.verdict);
            if known == verdict.as_ref() {
                continue;
            }
            match verdict {
                Some(verdict) => {
                    posts.news.insert(key.clone());
                    posts.by_key.insert(key, Posted { verdict, since });
                }
                // There is nothing left to write to.
                None => {
                    posts.news.remove(&key);
                    posts.by_key.remove(&key);
                }
            }
        }
        let told = !posts.news.is_empty();
        drop(posts);
        if told {
            self.changed.notify_one();
        }
    }

    pub fn get(&self, key: &Key) -> Option<Posted> {
        self.posts().by_key.get(key).cloned()
    }

    /// Every object, once; what was news is none any more.
    pub fn take_all(&self) -> BTreeSet<Key> {
        let mut posts = self.posts();
        posts.news.clear();
        posts.by_key.keys().cloned().collect()
    }

    pub fn take_news(&self) -> BTreeSet<Key> {
        std::mem::take(&mut self.posts().news)
    }

    /// Done when there is news, or was since the last time.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn posts(&self) -> MutexGuard<'_, Posts> {
        self.posts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acceptance::Outcome;
    use crate::clock;
    use crate::config::Kind;
    use crate::text::Str;

    fn key(name: &str) -> Key {
        Key {
            kind: Kind::VirtualService,
            namespace: Str::new_static("shop"),
            name: Str::new(name),
        }
    }

    fn verdict(generation: i64) -> Option<Verdict> {
        Some(Verdict {
            generation,
            created: 0,
            outcome: Outcome::Accepted,
            why: None,
        })
    }

    #[test]
    fn one_made_anew_between_two_looks_is_news() {
        let (board, now) = (Board::default(), clock::mono());
        board.post([(key("a"), verdict(1))], now);
        assert_eq!(board.take_news().len(), 1);
        let anew = verdict(1).map(|v| Verdict { created: 7, ..v });
        board.post([(key("a"), anew)], now);
        assert_eq!(board.take_news(), BTreeSet::from([key("a")]));
    }

    #[test]
    fn only_what_is_another_form_is_news_and_keeps_its_time() {
        let (board, first) = (Board::default(), clock::mono());
        board.post([(key("a"), verdict(1)), (key("b"), verdict(1))], first);
        assert_eq!(board.take_all().len(), 2);
        let later = first + std::time::Duration::from_secs(1);
        board.post([(key("a"), verdict(1)), (key("b"), verdict(2))], later);
        assert_eq!(board.take_news(), BTreeSet::from([key("b")]));
        assert_eq!(board.get(&key("a")).map(|p| p.since), Some(first));
        assert_eq!(board.get(&key("b")).map(|p| p.since), Some(later));
        board.post([(key("b"), None)], later);
        assert_eq!(
            (board.take_news(), board.get(&key("b"))),
            (BTreeSet::new(), None)
        );
    }
}
