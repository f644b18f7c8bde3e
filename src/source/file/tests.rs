//! A real directory under a real watch: what is told, and what never is.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::config::decode::Item;
use crate::text::Str;

fn namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n")
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A file and the names of its objects; a leaving file as `<name> leaves`.
type Told = (String, Vec<String>);

fn told(event: &Event) -> Option<Told> {
    let name = |item: &Item| match item {
        Item::Object(object) => object.object.meta.name.to_string(),
        Item::Rejected(_) => "rejected".to_owned(),
        Item::Notice(_) | Item::Template(_) => "notice".to_owned(),
    };
    match event {
        Event::File(d) => Some((d.file.to_string(), d.items.iter().map(name).collect())),
        Event::Leaving(file) => Some((format!("{file} leaves"), Vec::new())),
        Event::Init | Event::Apply(_) | Event::Refuse(_) | Event::Delete(_) | Event::InitDone => {
            None
        }
    }
}

fn is(file: &str, names: &[&str]) -> Told {
    let names = names.iter().map(|n| (*n).to_owned()).collect();
    (file.to_owned(), names)
}

/// `run` on a folder, with what it has told.
struct Watched {
    batches: mpsc::Receiver<Batch>,
    shutdown: CancellationToken,
    running: tokio::task::JoinHandle<Result<(), FileSourceError>>,
}

impl Watched {
    #[expect(clippy::disallowed_methods, reason = "a test is its own app")]
    async fn start(directory: Directory) -> (Self, Vec<Told>) {
        let (sink, batches) = mpsc::channel(4);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(run(directory, sink, shutdown.clone(), Arc::default()));
        let mut own = Self {
            batches,
            shutdown,
            running,
        };
        let listed = own.batch().await;
        (own, listed)
    }

    async fn batch(&mut self) -> Vec<Told> {
        let waited = tokio::time::timeout(Duration::from_secs(20), self.batches.recv()).await;
        let (events, _) = waited.expect("a batch in time").expect("a running source");
        events.iter().filter_map(told).collect()
    }

    /// What is told until `last` is, in order.
    async fn until(&mut self, last: &Told) -> Vec<Told> {
        let mut all = Vec::new();
        while !all.contains(last) {
            all.extend(self.batch().await);
        }
        all
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap();
    }
}

#[test]
fn a_listing_skips_hidden_folders_and_other_files() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), ".git/a.yaml", &namespace("a"));
    write(folder.path(), "readme.md", "hello");
    write(folder.path(), "sub/b.yml", &namespace("b"));
    let json = r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"k"}}"#;
    write(folder.path(), "k.json", json);
    let events = Directory::new(folder.path()).list().unwrap();
    let listed: Vec<Told> = events.iter().filter_map(told).collect();
    assert_eq!(listed, [is("k.json", &["k"]), is("sub/b.yml", &["b"])]);
}

#[test]
fn a_root_that_is_not_there_says_so() {
    let error = Directory::new(Path::new("/no/such/folder"))
        .list()
        .unwrap_err();
    assert!(
        error.to_string().starts_with("read /no/such/folder: "),
        "{error}"
    );
}

#[test]
fn what_is_no_utf_8_is_a_fault_of_that_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), b"a: 1\nb: \xff\n").unwrap();
    let events = Directory::new(folder.path()).list().unwrap();
    let Event::File(decoded) = &events[1] else {
        panic!("{events:?}")
    };
    let Item::Rejected(rejected) = &decoded.items[0] else {
        panic!("{decoded:?}")
    };
    assert_eq!(rejected.diagnostics[0].message, "line 2 is no UTF-8 text");
}

#[cfg(unix)]
#[test]
fn a_link_to_nothing_and_a_socket_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::os::unix::fs::symlink(at("none.yaml"), at("a.yaml")).unwrap();
    std::os::unix::fs::symlink("..data/b.yaml", at("b.yaml")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("c.yaml")).unwrap();
    std::os::unix::fs::symlink(at("none"), at("README")).unwrap();
    let events = Directory::new(folder.path()).list().unwrap();
    let told: Vec<Told> = events.iter().filter_map(told).collect();
    assert_eq!(
        told,
        [is("a.yaml", &["rejected"]), is("c.yaml", &["rejected"])]
    );
}

#[test]
fn why_a_folder_cannot_be_read_is_said_once() {
    let error = Directory::new(Path::new("/nonexistent"))
        .list()
        .unwrap_err();
    let said = format!("{:#}", anyhow::Error::new(error));
    assert_eq!(said.matches("No such file").count(), 1, "{said}");
}

#[test]
fn alias_bombs_in_many_files_hurt_only_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for i in 1..9 {
        let prior = format!("*a{}", i - 1);
        bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![prior; 10].join(",")));
    }
    for i in 0..40 {
        write(
            folder.path(),
            &format!("a{i:02}.yaml"),
            &format!("{bomb}---\n").repeat(3),
        );
    }
    let sound = namespace("z").replace("  name", "  labels: &l {a: b}\n  annotations: *l\n  name");
    write(folder.path(), "z.yaml", &sound);
    let events = Directory::new(folder.path()).list().unwrap();
    let told: Vec<Told> = events.iter().filter_map(told).collect();
    assert_eq!(
        told[0],
        is("a00.yaml", &["rejected", "rejected", "rejected"])
    );
    assert_eq!(told[40], is("z.yaml", &["z"]));
}

#[test]
fn a_link_out_of_the_directory_is_refused() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(other.path(), "secret.yaml", &namespace("secret"));
    let link = folder.path().join("a.yaml");
    std::os::unix::fs::symlink(other.path().join("secret.yaml"), link).unwrap();
    let events = Directory::new(folder.path()).list().unwrap();
    assert_eq!(told(&events[1]), Some(is("a.yaml", &["rejected"])));
}

#[tokio::test]
async fn an_edit_is_told_once_and_an_equal_text_never() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.yaml", &namespace("a"));
    let (mut watched, listed) = Watched::start(Directory::new(folder.path())).await;
    assert_eq!(listed, [is("a.yaml", &["a"])]);
    write(folder.path(), "a.yaml", &namespace("a"));
    write(folder.path(), "b.yaml", &namespace("b"));
    assert_eq!(watched.batch().await, [is("b.yaml", &["b"])]);
    watched.stop().await;
}

#[tokio::test]
async fn a_file_is_never_read_while_it_is_written() {
    use std::io::Write as _;
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.yaml", &namespace("a"));
    let (mut watched, _) = Watched::start(Directory::new(folder.path())).await;
    let mut file = fs::File::create(folder.path().join("a.yaml")).unwrap();
    file.write_all(b"apiVersion: v1\n").unwrap();
    // The watch has seen the half by the time it tells of the other file.
    write(folder.path(), "b.yaml", &namespace("b"));
    assert_eq!(watched.batch().await, [is("b.yaml", &["b"])]);
    file.write_all(b"kind: Namespace\nmetadata: {name: c}\n")
        .unwrap();
    drop(file);
    assert_eq!(watched.batch().await, [is("a.yaml", &["c"])]);
    watched.stop().await;
}

#[tokio::test]
async fn a_file_deleted_and_created_anew_is_never_gone() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.yaml", &namespace("a"));
    let (mut watched, _) = Watched::start(Directory::new(folder.path())).await;
    fs::remove_file(folder.path().join("a.yaml")).unwrap();
    write(folder.path(), "a.yaml", &namespace("b"));
    let all = watched.until(&is("a.yaml", &["b"])).await;
    assert!(!all.contains(&is("a.yaml", &[])), "{all:?}");
    fs::remove_file(folder.path().join("a.yaml")).unwrap();
    let all = watched.until(&is("a.yaml", &[])).await;
    assert_eq!(all, [is("a.yaml leaves", &[]), is("a.yaml", &[])]);
    watched.stop().await;
}

#[tokio::test]
async fn a_new_folder_is_watched_from_its_first_file_on() {
    let folder = tempfile::tempdir().unwrap();
    let (mut watched, listed) = {
        write(folder.path(), "z.yaml", &namespace("z"));
        Watched::start(Directory::new(folder.path())).await
    };
    assert_eq!(listed.len(), 1);
    write(folder.path(), "x/y/a.yaml", &namespace("a"));
    watched.until(&is("x/y/a.yaml", &["a"])).await;
    write(folder.path(), "x/y/a.yaml", &namespace("b"));
    watched.until(&is("x/y/a.yaml", &["b"])).await;
    fs::rename(folder.path().join("x"), folder.path().join("w")).unwrap();
    let all = watched.until(&is("x/y/a.yaml", &[])).await;
    assert!(all.contains(&is("w/y/a.yaml", &["b"])), "{all:?}");
    watched.stop().await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_mounted_config_map_is_read_when_its_data_is_swapped() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write(folder.path(), "..1/a.yaml", &namespace("a"));
    write(folder.path(), "..2/a.yaml", &namespace("b"));
    symlink("..1", at("..data")).unwrap();
    symlink("..data/a.yaml", at("a.yaml")).unwrap();
    let (mut watched, listed) = Watched::start(Directory::new(folder.path())).await;
    assert_eq!(listed, [is("a.yaml", &["a"])]);
    symlink("..2", at("..tmp")).unwrap();
    fs::rename(at("..tmp"), at("..data")).unwrap();
    assert_eq!(watched.batch().await, [is("a.yaml", &["b"])]);
    watched.stop().await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_root_that_is_a_swapped_link_is_followed() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write(folder.path(), "one/mesh/a.yaml", &namespace("a"));
    write(folder.path(), "two/mesh/a.yaml", &namespace("b"));
    symlink("one", at("current")).unwrap();
    let root = at("current").join("mesh");
    let (mut watched, listed) = Watched::start(Directory::new(&root)).await;
    assert_eq!(listed, [is("a.yaml", &["a"])]);
    symlink("two", at("next")).unwrap();
    fs::rename(at("next"), at("current")).unwrap();
    watched.until(&is("a.yaml", &["b"])).await;
    write(folder.path(), "two/mesh/a.yaml", &namespace("c"));
    watched.until(&is("a.yaml", &["c"])).await;
    watched.stop().await;
}

#[tokio::test]
async fn a_root_that_goes_keeps_all_and_is_read_again_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("mesh");
    write(&root, "a.yaml", &namespace("a"));
    let (mut watched, _) = Watched::start(Directory::new(&root)).await;
    fs::rename(&root, folder.path().join("away")).unwrap();
    fs::create_dir(&root).unwrap();
    write(&root, "a.yaml", &namespace("b"));
    let all = watched.until(&is("a.yaml", &["b"])).await;
    assert!(!all.contains(&is("a.yaml", &[])), "{all:?}");
    watched.stop().await;
}

#[tokio::test]
async fn the_mesh_file_is_read_and_watched_beside_the_directory() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mesh = other.path().join("mesh.yaml");
    write(other.path(), "mesh.yaml", "trustDomain: a\n");
    let directory = Directory::new(folder.path()).with_mesh(Some(&mesh));
    let name = mesh.display().to_string();
    let (mut watched, listed) = Watched::start(directory).await;
    assert_eq!(listed, [is(&name, &["istio"])]);
    write(other.path(), "mesh.yaml", "trustDomain: b\n");
    assert_eq!(watched.batch().await, [is(&name, &["istio"])]);
    fs::remove_file(&mesh).unwrap();
    assert_eq!(watched.batch().await, [is(&name, &["rejected"])]);
    watched.stop().await;
}

/// What a directory says of `work`, and once more when nothing has changed for a second.
fn followed(
    directory: &mut Directory,
    everything: Everything,
    look: &[&Path],
) -> (Vec<Told>, Option<FileSourceError>) {
    let now = clock::mono();
    let work = Work {
        everything: true,
        look: look.iter().map(|p| p.to_path_buf()).collect(),
        ..Work::default()
    };
    let Followed { mut events, failed } = match everything {
        Everything::Listed => directory.follow(work, now, &mut |_| Ok(())),
        Everything::Unreadable => directory.follow(work, now, &mut |folder| {
            Err(FileSourceError::Read {
                path: folder.to_owned(),
                reason: std::io::ErrorKind::PermissionDenied.into(),
            })
        }),
    };
    let later = now + Duration::from_secs(1);
    events.extend(
        directory
            .follow(Work::default(), later, &mut |_| Ok(()))
            .events,
    );
    (events.iter().filter_map(told).collect(), failed)
}

#[derive(Clone, Copy)]
enum Everything {
    Listed,
    Unreadable,
}

#[test]
fn a_new_folder_does_not_take_the_mesh_file_for_deleted() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(other.path(), "mesh.yaml", "trustDomain: a\n");
    let mesh = other.path().join("mesh.yaml");
    let mut directory = Directory::new(folder.path()).with_mesh(Some(&mesh));
    directory.list().unwrap();
    write(folder.path(), "new/a.yaml", &namespace("a"));
    let (told, failed) = followed(&mut directory, Everything::Listed, &[]);
    assert!(failed.is_none(), "{failed:?}");
    assert_eq!(told, [is("new/a.yaml", &["a"])]);
}

#[test]
fn a_mesh_file_inside_the_directory_is_a_fault_when_it_goes_and_no_deletion() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "mesh.yaml", "trustDomain: a\n");
    let mesh = folder.path().join("mesh.yaml");
    let mut directory = Directory::new(folder.path()).with_mesh(Some(&mesh));
    directory.list().unwrap();
    fs::remove_file(&mesh).unwrap();
    let (told, _) = followed(&mut directory, Everything::Listed, &[&mesh]);
    assert_eq!(told, [is("mesh.yaml", &["rejected"])]);
}

#[test]
fn a_listing_that_fails_loses_nothing_else_that_was_due() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(other.path(), "mesh.yaml", "trustDomain: a\n");
    write(folder.path(), "a.yaml", &namespace("a"));
    let (mesh, a) = (other.path().join("mesh.yaml"), folder.path().join("a.yaml"));
    let mut directory = Directory::new(folder.path()).with_mesh(Some(&mesh));
    directory.list().unwrap();
    write(other.path(), "mesh.yaml", "trustDomain: b\n");
    write(folder.path(), "a.yaml", &namespace("b"));
    let (told, failed) = followed(&mut directory, Everything::Unreadable, &[&a]);
    assert!(failed.is_some());
    let mesh = mesh.display().to_string();
    assert_eq!(told, [is(&mesh, &["istio"]), is("a.yaml", &["b"])]);
}

#[tokio::test]
async fn the_mesh_file_stays_when_the_whole_directory_is_listed_anew() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mesh = other.path().join("mesh.yaml");
    write(other.path(), "mesh.yaml", "trustDomain: a\n");
    let directory = Directory::new(folder.path()).with_mesh(Some(&mesh));
    let (mut watched, _) = Watched::start(directory).await;
    write(folder.path(), "new/a.yaml", &namespace("a"));
    watched.until(&is("new/a.yaml", &["a"])).await;
    fs::remove_file(folder.path().join("new/a.yaml")).unwrap();
    let all = watched.until(&is("new/a.yaml", &[])).await;
    let name = mesh.display().to_string();
    assert!(!all.iter().any(|(file, _)| file.contains(&name)), "{all:?}");
    watched.stop().await;
}

#[tokio::test]
async fn the_mesh_file_is_followed_where_there_is_no_directory() {
    let folder = tempfile::tempdir().unwrap();
    let mesh = folder.path().join("mesh.yaml");
    write(folder.path(), "mesh.yaml", "trustDomain: a\n");
    let name = mesh.display().to_string();
    let (mut watched, listed) = Watched::start(Directory::alone(&mesh)).await;
    assert_eq!(listed, [is(&name, &["istio"])]);
    write(folder.path(), "other.yaml", &namespace("a"));
    write(folder.path(), "mesh.yaml", "trustDomain: b\n");
    assert_eq!(watched.batch().await, [is(&name, &["istio"])]);
    watched.stop().await;
}

#[tokio::test]
async fn a_checkout_by_git_never_takes_an_object_away() {
    let folder = tempfile::tempdir().unwrap();
    let git = |args: &[&str]| {
        let done = std::process::Command::new("git")
            .args(["-c", "user.name=a", "-c", "user.email=a@b"])
            .args(args)
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(done.status.success(), "git {args:?}: {done:?}");
    };
    git(&["init", "-q", "-b", "one"]);
    for i in 0..40 {
        write(
            folder.path(),
            &format!("d{}/f{i}.yaml", i % 5),
            &namespace(&format!("n{i}")),
        );
    }
    git(&["add", "-A"]);
    git(&["commit", "-qm", "a"]);
    git(&["checkout", "-qb", "two"]);
    for i in 0..40 {
        let text = format!("# edited\n{}", namespace(&format!("n{i}")));
        write(folder.path(), &format!("d{}/f{i}.yaml", i % 5), &text);
    }
    git(&["mv", "d0/f0.yaml", "d4/moved.yaml"]);
    git(&["add", "-A"]);
    git(&["commit", "-qm", "b"]);
    let (mut watched, listed) = Watched::start(Directory::new(folder.path())).await;
    assert_eq!(listed.len(), 40);
    git(&["checkout", "-q", "one"]);
    let all = watched.until(&is("d4/moved.yaml", &[])).await;
    let empty: Vec<&Told> = all
        .iter()
        .filter(|(n, o)| o.is_empty() && !n.ends_with("leaves"))
        .collect();
    assert_eq!(empty, [&is("d4/moved.yaml", &[])]);
    assert!(all.contains(&is("d0/f0.yaml", &["n0"])));
    let last: std::collections::BTreeMap<Str, Vec<String>> = all
        .into_iter()
        .map(|(name, objects)| (Str::from(name), objects))
        .collect();
    assert_eq!(last.values().filter(|o| !o.is_empty()).count(), 40);
    watched.stop().await;
}
