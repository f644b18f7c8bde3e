//! Counts of one object, of one replica and of all together. Pure.

/// What a replica knows of an object's form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// The form that is in force; another one counts for nothing.
    pub generation: i64,
    /// Proxies connected to it, and those of them that owe no answer as old as the form.
    pub proxies: u64,
    pub current: u64,
    /// Proxies that rejected something made of the object, and what one of them said.
    pub refusing: u64,
    pub said: String,
}

/// The sum over replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub replicas: u64,
    /// Those of them that answered.
    pub seen: u64,
    pub proxies: u64,
    pub current: u64,
    pub refusing: u64,
    pub said: String,
}

impl Tally {
    /// Adds one replica's answer about the form `generation`, or that it gave none.
    pub fn add(&mut self, generation: i64, count: Option<&Count>) {
        self.replicas += 1;
        let Some(count) = count else {
            return;
        };
        self.seen += 1;
        self.proxies += count.proxies;
        if count.generation == generation {
            self.current += count.current;
        }
        self.refusing += count.refusing;
        if self.said.is_empty() {
            self.said.clone_from(&count.said);
        }
    }

    /// Every replica answered, and every proxy holds the form.
    pub fn is_complete(&self) -> bool {
        self.seen == self.replicas && self.current == self.proxies && self.refusing == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(generation: i64, current: u64, proxies: u64) -> Count {
        Count {
            generation,
            proxies,
            current,
            ..Count::default()
        }
    }

    #[test]
    fn a_replica_that_is_silent_or_behind_makes_no_sum_complete() {
        let mut all = Tally::default();
        all.add(2, Some(&count(2, 3, 3)));
        all.add(2, Some(&count(2, 4, 4)));
        assert!(all.is_complete());
        let mut silent = all.clone();
        silent.add(2, None);
        assert!(!silent.is_complete());
        assert_eq!((silent.seen, silent.replicas), (2, 3));
        let mut behind = all.clone();
        behind.add(2, Some(&count(1, 5, 5)));
        assert!(!behind.is_complete());
        assert_eq!((behind.current, behind.proxies), (7, 12));
        let refusing = Count {
            refusing: 1,
            said: "no".to_owned(),
            ..count(2, 0, 1)
        };
        all.add(2, Some(&refusing));
        assert!(!all.is_complete());
    }
}
