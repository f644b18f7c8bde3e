use std::fs;

use super::*;
use crate::config::Kind;

fn namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n")
}

struct Checkout {
    folder: tempfile::TempDir,
    directory: Directory,
}

impl Checkout {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::new(folder.path());
        let own = Self { folder, directory };
        for (name, text) in files {
            own.write(name, text);
        }
        own
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Names applied and deleted.
    fn refresh(&mut self) -> (Vec<String>, Vec<String>) {
        let events = self.directory.refresh().unwrap();
        let mut out = (Vec::new(), Vec::new());
        for event in events {
            match event {
                Event::Apply(object) => out.0.push(object.object.key().name.to_string()),
                Event::Delete(key) => out.1.push(key.name.to_string()),
                Event::Init | Event::Reject(_) | Event::Notices { .. } | Event::InitDone => {}
            }
        }
        out
    }
}

#[test]
fn only_files_whose_bytes_differ_are_applied_again() {
    let mut checkout =
        Checkout::new(&[("a.yaml", &namespace("a")), ("sub/b.yml", &namespace("b"))]);
    assert_eq!(checkout.refresh().0, ["a", "b"]);
    checkout.write("a.yaml", &namespace("a"));
    checkout.write("sub/b.yml", &namespace("c"));
    assert_eq!(
        checkout.refresh(),
        (vec!["c".to_owned()], vec!["b".to_owned()])
    );
}

#[test]
fn a_file_that_cannot_be_read_keeps_what_it_had() {
    let mut checkout = Checkout::new(&[("a.yaml", &namespace("a"))]);
    checkout.refresh();
    checkout.write("a.yaml", "kind: [");
    assert_eq!(checkout.refresh(), (vec![], vec![]));
    checkout.write("a.yaml", &namespace("b"));
    assert_eq!(
        checkout.refresh(),
        (vec!["b".to_owned()], vec!["a".to_owned()])
    );
}

#[test]
fn of_two_files_with_one_key_the_first_counts_until_it_goes() {
    let mut checkout = Checkout::new(&[("a.yaml", &namespace("x")), ("b.yaml", &namespace("x"))]);
    let events = checkout.directory.list().unwrap();
    let duplicates = events.iter().filter(|e| {
        matches!(e, Event::Notices { file, notices, .. }
            if file == "b.yaml" && notices.iter().any(|n| n.code == Code::Duplicate))
    });
    assert_eq!(duplicates.count(), 1);
    fs::remove_file(checkout.folder.path().join("a.yaml")).unwrap();
    assert_eq!(checkout.refresh(), (vec!["x".to_owned()], vec![]));
    fs::remove_file(checkout.folder.path().join("b.yaml")).unwrap();
    assert_eq!(checkout.refresh(), (vec![], vec!["x".to_owned()]));
}

#[test]
fn hidden_folders_and_other_files_are_no_configuration() {
    let mut checkout = Checkout::new(&[
        (".git/a.yaml", &namespace("a")),
        ("readme.md", "hello"),
        (
            "k.json",
            r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"k"}}"#,
        ),
    ]);
    assert_eq!(checkout.refresh().0, ["k"]);
}

#[test]
fn a_moved_object_is_applied_from_its_new_file_and_never_deleted() {
    let mut checkout = Checkout::new(&[("a.yaml", &namespace("x"))]);
    checkout.refresh();
    fs::rename(
        checkout.folder.path().join("a.yaml"),
        checkout.folder.path().join("b.yaml"),
    )
    .unwrap();
    assert_eq!(checkout.refresh(), (vec!["x".to_owned()], vec![]));
    assert_eq!(
        checkout.directory.holders.keys().next().map(|k| k.kind),
        Some(Kind::Namespace)
    );
}
