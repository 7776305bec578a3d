//! Images to and from Debian's registry: what is pushed comes back, over roads that break, with and without a login.
//! Uses: made, server; docker-registry, skopeo, htpasswd, openssl.

#[path = "../../image/tests/made/mod.rs"]
mod made;
mod server;

use std::sync::atomic::Ordering;
use std::time::Duration;

use made::*;
use rcrun_image::document::media;
use rcrun_image::import::{self, Imported};
use rcrun_image::store::Store;
use rcrun_image::{Code, Digest, Error, Name, Platform, Result};
use rcrun_registry::{Credentials, Options, Progress, Pushed};
use server::{Registry, Road, run};

fn quick() -> Options {
    Options { pause: Duration::from_millis(1), patience: Duration::from_secs(20), ..Options::default() }
}

fn pull(store: &Store, name: &str, options: &Options) -> Result<Imported> {
    let name: Name = name.parse()?;
    let import = import::Options { parallel: 3, ..Default::default() };
    rcrun_registry::pull(&name, &Platform::host(), store, options, &import, &|_| {})
}

fn push(store: &Store, digest: &Digest, name: &str, options: &Options) -> Result<Pushed> {
    rcrun_registry::push(store, digest, &name.parse()?, options, &|_| {})
}

/// The image, blobs that came, layers that were unpacked.
fn carried(imported: Result<Imported>) -> (Digest, usize, usize) {
    let Imported { digest, blobs, unpacked, .. } = imported.unwrap();
    (digest, blobs, unpacked)
}

fn said(result: Result<impl std::fmt::Debug>) -> Error {
    result.expect_err("it should fail")
}

/// A store with the image that most tests use.
fn filled() -> (Place, Digest) {
    let place = Place::new();
    let digest = place.import(&layout(), None).unwrap().digest;
    (place, digest)
}

#[test]
fn what_is_pushed_comes_back_and_skopeo_sees_the_same() {
    let registry = Registry::new();
    let (from, digest) = filled();
    let name = format!("{}/team/app:1", registry.address);
    let pushed = push(&from.store, &digest, &name, &quick()).unwrap();
    assert_eq!(pushed, Pushed { digest, sent: 4, mounted: 0, there: 0 });

    let manifest = run("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]);
    assert_eq!(Digest::of(&manifest), digest);

    let to = Place::new();
    assert_eq!(carried(pull(&to.store, &name, &quick())), (digest, 3, 3));
    assert_eq!(to.store.find(&name.parse().unwrap()).unwrap(), Some(digest));
    for (_, _, tar) in layers() {
        assert!(to.store.layer(&alone(&tar)).unwrap().is_some());
    }
    to.must_be_whole();

    // A layer that is only not unpacked is unpacked from the store.
    let road = Road::to(registry.address);
    let lost = to.store.layer(&alone(&layers()[1].2)).unwrap().unwrap().path;
    std::fs::remove_dir_all(lost.parent().unwrap()).unwrap();
    let again = pull(&to.store, &format!("{}/team/app:1", road.address), &quick()).unwrap();
    assert_eq!(carried(Ok(again)), (digest, 0, 1));
    assert!(road.came.load(Ordering::SeqCst) < 10_000);

    // Both ways a second time: nothing is carried.
    assert_eq!(carried(pull(&to.store, &name, &quick())), (digest, 0, 0));
    let again = push(&from.store, &digest, &name, &quick()).unwrap();
    assert_eq!((again.sent, again.mounted, again.there), (0, 0, 4));

    // By digest, from a tool that is not ours, in Docker's spelling, which has no zstd.
    let mut files = Files::new();
    let entry = add(&mut files, &Platform::host().architecture, &layers()[1..2]);
    index(&mut files, &[entry]);
    let digest = from.import(&files, None).unwrap().digest;
    push(&from.store, &digest, &name, &quick()).unwrap();
    let other = format!("{}/other:1", registry.address);
    let arguments = ["copy", "--format=v2s2", "--src-tls-verify=false", "--dest-tls-verify=false"];
    let (source, target) = (format!("docker://{name}"), format!("docker://{other}"));
    run("skopeo", &[&arguments[..], &[&source, &target]].concat());
    let manifest = run("skopeo", &["inspect", "--raw", "--tls-verify=false", &target]);
    let docker = Digest::of(&manifest);
    let by_digest = format!("{}/other@{docker}", registry.address);
    let third = Place::new();
    assert_eq!(pull(&third.store, &by_digest, &quick()).unwrap().digest, docker);
    assert_eq!(third.store.names().unwrap(), []);
    third.must_be_whole();
}

#[test]
fn a_blob_that_another_repository_has_is_mounted_and_large_ones_go_in_chunks() {
    let registry = Registry::new();
    let (place, digest) = filled();
    let one = format!("{}/one:1", registry.address);
    let options = Options { chunk: Some(100_000), ..quick() };
    let told = std::sync::Mutex::new(Vec::new());
    let report = |progress: Progress| told.lock().unwrap().push(progress);
    let name: Name = one.parse().unwrap();
    let pushed = rcrun_registry::push(&place.store, &digest, &name, &options, &report).unwrap();
    assert_eq!(pushed.sent, 4);
    let told = told.into_inner().unwrap();
    let mut whole = std::collections::BTreeMap::new();
    for progress in &told {
        if let Progress::Blob { digest, done, size } = progress
            && done == size
        {
            assert_eq!(std::fs::metadata(registry.blob(&digest.hex())).unwrap().len(), *size);
            whole.insert(*digest, *size);
        }
    }
    assert_eq!(told[0], Progress::Ahead { blobs: 4, bytes: whole.values().sum() });
    assert_eq!(whole.len(), 4);
    place.store.tag(&name, &digest).unwrap();
    let two = format!("{}/two:1", registry.address);
    let pushed = push(&place.store, &digest, &two, &quick()).unwrap();
    assert_eq!((pushed.sent, pushed.mounted, pushed.there), (1, 3, 0), "the configuration is sent");
    assert_eq!(pull(&Place::new().store, &two, &quick()).unwrap().digest, digest);
}

#[test]
fn a_push_goes_on_over_a_road_that_breaks_whole_or_in_chunks() {
    let (place, digest) = filled();
    for (chunk, each) in [(Some(150_000), 5_000), (None, 2_500)] {
        let registry = Registry::new();
        let road = Road::to(registry.address);
        road.each.store(each, Ordering::SeqCst);
        let options = Options { chunk, parallel: 1, ..quick() };
        push(&place.store, &digest, &format!("{}/app:1", road.address), &options).unwrap();
        assert!(road.broke.load(Ordering::SeqCst) > 0, "the road never broke");
        let name = format!("{}/app:1", registry.address);
        assert_eq!(pull(&Place::new().store, &name, &quick()).unwrap().digest, digest);
    }
}

#[test]
fn who_is_logged_in_is_read_from_the_auth_file() {
    let registry = Registry::for_user("ann", "pass:word");
    let (from, digest) = filled();
    let name = format!("{}/app:1", registry.address);
    let error = said(push(&from.store, &digest, &name, &quick()));
    assert_eq!(error.code(), Code::Denied);
    assert!(error.to_string().contains("nobody is logged in"), "{error}");

    let login = |password: &str| {
        let file = from.folder.path().join("auth.json");
        let arguments = ["login", "--tls-verify=false", "--authfile", file.to_str().unwrap()];
        let address = registry.address.to_string();
        run("skopeo", &[&arguments[..], &["-u", "ann", "-p", password, &address]].concat());
        Options { auth_files: vec![file], ..quick() }
    };
    let options = login("pass:word");
    push(&from.store, &digest, &name, &options).unwrap();
    let to = Place::new();
    assert_eq!(pull(&to.store, &name, &options).unwrap().digest, digest);

    let wrong = Credentials::Password { user: "ann".into(), password: "secret".into() };
    let wrong = Options { credentials: Some(wrong), ..quick() };
    let error = said(pull(&Place::new().store, &name, &wrong));
    assert_eq!(error.code(), Code::Denied);
    let text = error.to_string();
    assert!(text.contains("ann") && text.contains("401") && !text.contains("secret"), "{text}");
}

#[test]
fn a_download_goes_on_where_the_road_broke() {
    let registry = Registry::new();
    let (from, digest) = filled();
    push(&from.store, &digest, &format!("{}/app:1", registry.address), &quick()).unwrap();
    let road = Road::to(registry.address);
    let name = format!("{}/app:1", road.address);
    let size: u64 = layers().iter().map(|(_, blob, _)| blob.len() as u64).sum();

    // Within one pull: each connection breaks after a part.
    road.each.store(70_000, Ordering::SeqCst);
    let to = Place::new();
    assert_eq!(pull(&to.store, &name, &quick()).unwrap().blobs, 3);
    to.must_be_whole();
    assert!(road.came.load(Ordering::SeqCst) < size * 3 / 2, "it does not begin anew each time");

    // From one pull to the next: the road ends, and is mended.
    road.each.store(u64::MAX, Ordering::SeqCst);
    let before = road.came.load(Ordering::SeqCst);
    road.all.store(before + size / 2, Ordering::SeqCst);
    let to = Place::new();
    let error = said(pull(&to.store, &name, &quick()));
    assert!(error.to_string().contains(" bytes came"), "{error}");
    to.must_be_whole();
    let kept: u64 = walk(&to.folder.path().join("store/partials"));
    let kept_or_done = kept + walk(&to.folder.path().join("store/blobs"));
    assert!(kept > 0 && kept_or_done > size / 4, "{kept} of {size} bytes were kept");

    road.all.store(u64::MAX, Ordering::SeqCst);
    let before = road.came.load(Ordering::SeqCst);
    pull(&to.store, &name, &quick()).unwrap();
    let came = road.came.load(Ordering::SeqCst) - before;
    assert!(came < size - kept_or_done + 20_000, "{came} bytes came, {kept_or_done} of {size} were there");
    to.must_be_whole();
    assert_eq!(walk(&to.folder.path().join("store/partials")), 0);
}

/// Bytes of the files below.
fn walk(at: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(at).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| match entry.file_type().unwrap().is_dir() {
            true => walk(&entry.path()),
            false => entry.metadata().unwrap().len(),
        })
        .sum()
}

#[test]
#[ignore = "the process that other tests begin"]
fn a_pull_in_a_process_of_its_own() {
    let [store, name] = ["STORE", "NAME"].map(|name| std::env::var(name).unwrap());
    let auth_files = std::env::var_os("AUTH").map(Into::into).into_iter().collect();
    pull(&Store::open(store.as_ref()).unwrap(), &name, &Options { auth_files, ..quick() }).unwrap();
}

fn in_a_process(store: &std::path::Path, name: &str) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_pull_in_a_process_of_its_own", "--ignored"]);
    command.env("STORE", store).env("NAME", name).stdout(std::process::Stdio::null());
    command
}

#[test]
fn a_program_that_keeps_passwords_is_asked_as_docker_asks_it() {
    let registry = Registry::for_user("ann", "pass");
    let (place, digest) = filled();
    let name = format!("{}/app:1", registry.address);
    let ann = Credentials::Password { user: "ann".into(), password: "pass".into() };
    push(&place.store, &digest, &name, &Options { credentials: Some(ann), ..quick() }).unwrap();
    let address = registry.address;
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = get ] && [ \"$(cat)\" = {address} ] || exit 1\n\
         echo '{{\"ServerURL\":\"x\",\"Username\":\"ann\",\"Secret\":\"pass\"}}'\n"
    );
    // Installed by another process: a file that this one has open for writing cannot be executed.
    let (file, program) =
        (place.file("script", script.as_bytes()), place.folder.path().join("docker-credential-test"));
    run("install", &["-m", "755", file.to_str().unwrap(), program.to_str().unwrap()]);
    let path = format!("{}:{}", place.folder.path().display(), std::env::var("PATH").unwrap());
    for text in [
        format!("{{\"credHelpers\":{{\"{address}\":\"test\"}}}}"),
        format!("{{\"credsStore\":\"test\",\"auths\":{{\"{address}\":{{}}}}}}"),
    ] {
        let auth = place.file("config.json", text.as_bytes());
        let to = Place::new();
        let path_of_store = to.folder.path().join("store");
        let status =
            in_a_process(&path_of_store, &name).env("AUTH", auth).env("PATH", &path).status().unwrap();
        assert!(status.success(), "{text}");
        assert_eq!(to.store.find(&name.parse().unwrap()).unwrap(), Some(digest));
    }
}

#[test]
fn a_killed_pull_leaves_the_store_whole_and_the_next_goes_on() {
    let registry = Registry::new();
    let (from, digest) = filled();
    push(&from.store, &digest, &format!("{}/app:1", registry.address), &quick()).unwrap();
    let size: u64 = layers().iter().map(|(_, blob, _)| blob.len() as u64).sum();
    for after in [2_000, 100_000, 400_000, 700_000] {
        let road = Road::to(registry.address);
        let (hang, hung) = std::sync::mpsc::channel();
        *road.hung.lock().unwrap() = Some(hang);
        road.all.store(after, Ordering::SeqCst);
        let to = Place::new();
        let path = to.folder.path().join("store");
        let name = format!("{}/app:1", road.address);
        let mut child = in_a_process(&path, &name).spawn().unwrap();
        hung.recv().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();

        *road.hung.lock().unwrap() = None;
        road.all.store(u64::MAX, Ordering::SeqCst);
        let store = Store::open(&path).unwrap();
        let kept = walk(&path.join("partials")) + walk(&path.join("blobs"));
        let before = road.came.load(Ordering::SeqCst);
        assert_eq!(pull(&store, &name, &quick()).unwrap().digest, digest);
        let came = road.came.load(Ordering::SeqCst) - before;
        // Manifest, configuration and the heads of answers; and what the road still had on its way to the dead.
        assert!(came < size - kept + 65_536, "{came} bytes came, {kept} of {size} were there");
        // The lease of the dead goes with the next prune.
        store.prune(&|_| true).unwrap();
        to.must_be_whole();
    }
}

#[test]
fn what_a_pull_left_goes_with_prune() {
    let registry = Registry::new();
    let (from, digest) = filled();
    push(&from.store, &digest, &format!("{}/app:1", registry.address), &quick()).unwrap();
    let road = Road::to(registry.address);
    road.all.store(300_000, Ordering::SeqCst);
    let to = Place::new();
    said(pull(&to.store, &format!("{}/app:1", road.address), &quick()));
    let partials = to.folder.path().join("store/partials");
    assert!(walk(&partials) > 0);
    to.store.prune(&|_| true).unwrap();
    assert_eq!(walk(&partials), 0);
}

#[test]
fn two_pulls_at_once_carry_each_blob_once() {
    let registry = Registry::new();
    let (from, digest) = filled();
    push(&from.store, &digest, &format!("{}/app:1", registry.address), &quick()).unwrap();
    let road = Road::to(registry.address);
    let name = format!("{}/app:1", road.address);
    let to = Place::new();
    let path = to.folder.path().join("store");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                assert_eq!(pull(&Store::open(&path).unwrap(), &name, &quick()).unwrap().digest, digest)
            });
        }
    });
    to.must_be_whole();
    let size: u64 = layers().iter().map(|(_, blob, _)| blob.len() as u64).sum();
    let came = road.came.load(Ordering::SeqCst);
    assert!(came < size + size / 2, "{came} bytes for {size}");
    assert_eq!(walk(&path.join("partials")), 0);
}

#[test]
fn a_blob_with_another_content_is_refused_and_nothing_of_it_stays() {
    let registry = Registry::new();
    let (from, digest) = filled();
    let name = format!("{}/app:1", registry.address);
    push(&from.store, &digest, &name, &quick()).unwrap();
    let blob = Digest::of(&layers()[1].1);
    let path = registry.blob(&blob.hex());
    let whole = std::fs::read(&path).unwrap();
    let mut changed = whole.clone();
    changed[300_000] ^= 1;
    std::fs::write(&path, changed).unwrap();
    let to = Place::new();
    let error = said(pull(&to.store, &name, &quick()));
    assert_eq!(error.code(), Code::Invalid);
    assert!(error.to_string().contains(&format!("blob {blob}: its content has the digest")), "{error}");
    to.must_be_whole();
    assert!(!to.store.has_blob(&blob).unwrap() && to.store.names().unwrap().is_empty());

    // Mended, the next pull does not go on from what was wrong.
    std::fs::write(&path, whole).unwrap();
    pull(&to.store, &name, &quick()).unwrap();
    to.must_be_whole();
}

#[test]
fn what_the_registry_does_not_have_is_told_in_one_sentence() {
    let registry = Registry::new();
    let address = registry.address;
    let place = Place::new();
    let nobody = Digest::of(b"nobody");
    for (name, wanted) in [
        (
            format!("{address}/app:1"),
            format!("pull {address}/app:1: registry {address} has no image app with the tag 1"),
        ),
        (
            format!("{address}/app"),
            format!(
                "pull {address}/app:latest: registry {address} has no image app with the tag latest, which a name \
                 without one means"
            ),
        ),
        (
            format!("{address}/app@{nobody}"),
            format!("pull {address}/app:latest@{nobody}: registry {address} has no image app with {nobody}"),
        ),
    ] {
        let error = said(pull(&place.store, &name, &quick()));
        assert_eq!((error.code(), error.to_string()), (Code::NotFound, wanted));
    }
    drop(registry);
    let options = Options { attempts: 2, ..quick() };
    let error = said(pull(&place.store, &format!("{address}/app:1"), &options)).to_string();
    assert!(error.starts_with(&format!("pull {address}/app:1: registry {address}: ")), "{error}");
    assert!(error.contains("refused") && error.contains("is it running"), "{error}");
}

#[test]
fn an_index_gives_the_image_of_the_platform() {
    let registry = Registry::new();
    let mut files = Files::new();
    let other = of_platform(add(&mut files, "s390x", &layers()[..1]), "s390x");
    let host = Platform::host().architecture;
    let own = of_platform(add(&mut files, &host, &layers()[1..]), &host);
    index(&mut files, &[other, own.clone()]);
    let folder = tempfile::tempdir().unwrap();
    // An index within an index: skopeo copies the inner one.
    let inner = files["index.json"].clone();
    put(&mut files, &inner);
    index(&mut files, &[named(descriptor(media::INDEX, &inner), "app")]);
    write_folder(&files, folder.path());
    let target = format!("docker://{}/app:1", registry.address);
    let source = format!("oci:{}:app", folder.path().display());
    run("skopeo", &["copy", "--all", "--dest-tls-verify=false", &source, &target]);

    let place = Place::new();
    let name = format!("{}/app:1", registry.address);
    let pulled = pull(&place.store, &name, &quick()).unwrap();
    assert_eq!((pulled.digest.to_string().as_str(), pulled.blobs), (own["digest"].as_str().unwrap(), 2));
    let name: Name = name.parse().unwrap();
    let windows = "windows/amd64".parse().unwrap();
    let import = import::Options::default();
    let pulled = rcrun_registry::pull(&name, &windows, &place.store, &quick(), &import, &|_| {});
    let error = said(pulled);
    assert_eq!(error.code(), Code::Platform);
    assert!(
        error.to_string().contains("has no image for windows/amd64, only for linux/s390x, linux/"),
        "{error}"
    );
}

#[test]
fn a_certificate_must_be_trusted_and_then_tls_is_spoken() {
    let registry = Registry::over_tls();
    let (from, digest) = filled();
    let name = format!("{}/app:1", registry.address);
    // That the registry is on this machine does not make a bad certificate good.
    let error = said(push(&from.store, &digest, &name, &quick())).to_string();
    assert!(error.contains("invalid peer certificate"), "{error}");

    let trusted = from.folder.path().join("certs.d");
    let options = Options { certificates: vec![trusted.clone()], ..quick() };
    let error = said(push(&from.store, &digest, &name, &options)).to_string();
    let remedy =
        format!("put the authority's certificate into {}/{}/ca.crt", trusted.display(), registry.address);
    assert!(error.contains(&remedy), "{error}");
    let folder = trusted.join(registry.address.to_string());
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(registry.folder().join("ca.crt"), folder.join("ca.crt")).unwrap();
    let options = Options { certificates: vec![trusted], ..quick() };
    push(&from.store, &digest, &name, &options).unwrap();
    assert_eq!(pull(&Place::new().store, &name, &options).unwrap().digest, digest);
}
