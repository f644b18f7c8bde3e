//! How much a file's aliases may repeat.
//!
//! An alias costs as much as all that it stands for, in a few bytes of text. So it is counted: by file,
//! and for the files that are read together, of which each keeps a little whatever the others took.

/// Values that the aliases of one file may stand for; a file by hand stays far below.
pub const MAX_REPEATS: usize = 100_000;
/// The same for all files of one read.
const MAX_TOGETHER: usize = 1_000_000;
/// What is left to a file when others have used up the read's.
const LEAST: usize = 1_000;

/// What the files of one read have left.
#[derive(Debug)]
pub struct Repeats(usize);

impl Default for Repeats {
    fn default() -> Self {
        Self(MAX_TOGETHER)
    }
}

impl Repeats {
    pub(super) fn file(&self) -> Allowance {
        let of = self.0.clamp(LEAST, MAX_REPEATS);
        Allowance { of, left: of }
    }

    pub(super) fn close(&mut self, file: &Allowance) {
        self.0 = self.0.saturating_sub(file.of - file.left);
    }
}

/// What one file has left.
#[derive(Debug)]
pub(super) struct Allowance {
    of: usize,
    left: usize,
}

impl Allowance {
    /// For text inside a document, of which a file may hold many.
    pub(super) fn least() -> Self {
        Self {
            of: LEAST,
            left: LEAST,
        }
    }

    pub(super) fn of(&self) -> usize {
        self.of
    }

    pub(super) fn left(&self) -> usize {
        self.left
    }

    pub(super) fn spend(&mut self, values: usize) {
        self.left = self.left.saturating_sub(values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_together_have_a_bound_and_each_keeps_a_little() {
        let mut repeats = Repeats::default();
        for _ in 0..20 {
            let mut file = repeats.file();
            file.spend(usize::MAX);
            repeats.close(&file);
        }
        assert_eq!(repeats.file().left(), LEAST);
    }
}
