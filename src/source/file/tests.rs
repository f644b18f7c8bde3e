use std::fs;

use super::*;
use crate::config::decode::Item;

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

    /// Each file told of, with the names of its objects.
    fn refresh(&mut self) -> Vec<(String, Vec<String>)> {
        let names = |items: &[Item]| {
            let name = |i: &Item| match i {
                Item::Object(object) => Some(object.object.meta.name.to_string()),
                Item::Rejected(_) | Item::Notice(_) | Item::Template(_) => None,
            };
            items.iter().filter_map(name).collect()
        };
        let events = self.directory.refresh().unwrap();
        let told = events.iter().filter_map(|event| match event {
            Event::File(decoded) => Some((decoded.file.to_string(), names(&decoded.items))),
            _ => None,
        });
        told.collect()
    }
}

fn told(file: &str, names: &[&str]) -> (String, Vec<String>) {
    (
        file.to_owned(),
        names.iter().map(|n| (*n).to_owned()).collect(),
    )
}

#[test]
fn only_files_whose_bytes_differ_are_read_again() {
    let mut checkout =
        Checkout::new(&[("a.yaml", &namespace("a")), ("sub/b.yml", &namespace("b"))]);
    assert_eq!(
        checkout.refresh(),
        [told("a.yaml", &["a"]), told("sub/b.yml", &["b"])]
    );
    checkout.write("a.yaml", &namespace("a"));
    checkout.write("sub/b.yml", &namespace("c"));
    assert_eq!(checkout.refresh(), [told("sub/b.yml", &["c"])]);
}

#[test]
fn a_deleted_file_is_told_as_empty() {
    let mut checkout = Checkout::new(&[("a.yaml", &namespace("a"))]);
    checkout.refresh();
    fs::remove_file(checkout.folder.path().join("a.yaml")).unwrap();
    assert_eq!(checkout.refresh(), [told("a.yaml", &[])]);
    assert!(checkout.refresh().is_empty());
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
    assert_eq!(checkout.refresh(), [told("k.json", &["k"])]);
}
