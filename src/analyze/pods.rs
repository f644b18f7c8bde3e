//! The pods of a mesh by their labels, for whoever asks again and again which of them a selector selects.

use std::collections::BTreeMap;

use crate::config::meta::{Labels, selects};
use crate::config::{Object, Spec};

#[derive(Default)]
pub struct Pods<'a> {
    all: Vec<&'a Object>,
    labelled: BTreeMap<(&'a str, &'a str), Vec<&'a Object>>,
}

impl<'a> Pods<'a> {
    pub fn of(objects: &[&'a Object]) -> Self {
        let mut pods = Self::default();
        let is_pod = |object: &&&Object| matches!(object.spec, Spec::Pod(_));
        for pod in objects.iter().filter(is_pod) {
            pods.all.push(pod);
            for (key, value) in pod.meta.labels.iter() {
                let labelled = pods.labelled.entry((key, value)).or_default();
                labelled.push(pod);
            }
        }
        pods
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Looks at those alone that have the rarest of the labels.
    pub fn selected(&self, selector: &Labels) -> Vec<&'a Object> {
        let of_labels = selector.iter().map(|(key, value)| self.having(key, value));
        let fewest = of_labels.min_by_key(|pods| pods.len());
        let candidates = fewest.unwrap_or(&self.all).iter().copied();
        candidates
            .filter(|pod| selects(selector, &pod.meta.labels))
            .collect()
    }

    fn having<'s>(&'s self, key: &'s str, value: &'s str) -> &'s [&'a Object] {
        self.labelled.get(&(key, value)).map_or(&[], Vec::as_slice)
    }
}
