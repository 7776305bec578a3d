//! Layers, unpacked in parallel and kept apart where they depend on what is below, are mounted by overlayfs and show what
//! they show when they are applied to one folder. Uses: made.
//!
//! As root, in mount namespaces of their own.

mod made;

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use made::*;
use rcrun_image::document::media;
use rcrun_image::import::{Imported, Options, import, restore};
use rcrun_image::jail::Jail;
use rcrun_image::layer::{Form, Limits};
use rcrun_image::source::{Image, Source};
use rcrun_image::store::{LayerId, Store};
use rcrun_image::{Code, Digest, Platform, flat};

/// A layout of one image with these plain layers, the lowest first.
fn image_of(name: &str, tars: &[&Vec<u8>]) -> Files {
    let mut files = Files::new();
    let layers: Vec<_> = tars.iter().map(|tar| (media::LAYER_GZIP, gzip(tar), tar.to_vec())).collect();
    let entry = add(&mut files, &Platform::host().architecture, &layers);
    index(&mut files, &[named(entry, name)]);
    files
}

fn opened(place: &Place, files: &Files) -> (Source, Image) {
    let source = place.open(&place.file("opened.tar", &tarred(files, false))).unwrap();
    let image = source.select(None, &Platform::host()).unwrap();
    (source, image)
}

fn imported(place: &Place, files: &Files, parallel: usize) -> Imported {
    imported_in(None, place, files, parallel)
}

fn imported_in(jail: Option<Jail>, place: &Place, files: &Files, parallel: usize) -> Imported {
    let (source, image) = opened(place, files);
    let options = Options { names: image.names.clone(), parallel, jail, ..Options::default() };
    import(&place.store, &source, &image, &options).unwrap()
}

/// In this process, and in a jail: this test program as [`the_child`].
fn ways() -> [Option<Jail>; 2] {
    [
        None,
        Some(Jail::with_arguments(["--ignored", "--exact", "the_child", "--test-threads=1", "--nocapture"])),
    ]
}

#[test]
#[ignore = "is the child of the tests that unpack in a jail"]
fn the_child() {
    rcrun_image::jail::serve();
}

/// Everything of a tree that find(1) tells, and the sums of its files.
const TELL: &str = "find . -printf '%P %y %#m %U:%G %T@ %n %l\\n' | sort && \
                    find . -type f -exec md5sum {} + | sort";

fn told(script: &str) -> String {
    let output = Command::new("unshare").args(["-m", "sh", "-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What overlayfs shows of the image as it lies in the store.
fn mounted(place: &Place, digest: &Digest) -> String {
    let layers = place.store.layers_of(digest).unwrap();
    let user = if place.store.form() == Form::UserOverlay { ",userxattr" } else { "" };
    let temp = tempfile::tempdir().unwrap();
    let at = temp.path().display();
    let paths: Vec<&str> = layers.iter().map(|layer| layer.path.to_str().unwrap()).collect();
    // The upper folder is the topmost: it gets the attributes of the root.
    let root = match layers.iter().find(|layer| layer.root) {
        Some(layer) => {
            let path = layer.path.display();
            format!(
                "chown --reference={path} {at}/u; chmod --reference={path} {at}/u; touch -r {path} {at}/u"
            )
        }
        None => format!("chmod 755 {at}/u; touch -d @0 {at}/u"),
    };
    told(&format!(
        "mkdir {at}/u {at}/w {at}/m; {root}; \
         mount -t overlay overlay -o lowerdir={},upperdir={at}/u,workdir={at}/w{user} {at}/m; cd {at}/m; {TELL}",
        paths.join(":"),
    ))
}

/// What the image is when it is applied to one folder.
fn applied(place: &Place, files: &Files) -> String {
    applied_in(None, place, files)
}

fn applied_in(jail: Option<Jail>, place: &Place, files: &Files) -> String {
    let options = flat::Options { jail, ..flat::Options::default() };
    let (source, image) = opened(place, files);
    let temp = tempfile::tempdir().unwrap();
    let into = std::fs::File::open(temp.path()).unwrap();
    assert_eq!(flat::unpack(&source, &image, into.as_fd(), &options).unwrap(), Vec::<String>::new());
    told(&format!("cd {}; {TELL}", temp.path().display()))
}

/// Seconds without their fraction, and no counts of links to folders and files: overlayfs has its own.
fn comparable(told: &str) -> Vec<String> {
    told.lines()
        .map(|line| {
            let mut parts: Vec<&str> = line.split(' ').collect();
            if parts.len() == 7 {
                parts.remove(5);
            }
            parts.join(" ")
        })
        .collect()
}

fn base() -> Vec<u8> {
    Tar::default()
        .dir("./")
        .dir("etc")
        .file("etc/keep", b"keep")
        .file("etc/gone", b"gone")
        .dir("opt")
        .file("opt/old", b"old")
        .dir("opt/deep")
        .file("opt/deep/old", b"old")
        .dir("usr")
        .dir("usr/lib")
        .file("usr/lib/lib", &noise(3, 400_000))
        .sym("lib", "usr/lib")
        .end()
}

/// No parents of its own, through a link of the base, hard links to its files.
fn leaning() -> Vec<u8> {
    Tar::default()
        .hard("etc/again", "etc/keep")
        .file("lib/new", b"new")
        .file("usr/share/made", b"made")
        .file("etc/.wh.gone", b"")
        .end()
}

fn whiteouts() -> Vec<u8> {
    Tar::default()
        .dir("opt")
        .file("opt/.wh..wh..opq", b"")
        .file("opt/new", b"new")
        .dir("etc")
        .file("etc/.wh.again", b"")
        .end()
}

#[test]
fn overlayfs_shows_what_the_layers_make_of_one_folder() {
    for (form, jail) in ["trusted", "user"].into_iter().flat_map(|form| ways().map(|jail| (form, jail))) {
        let place = Place::of_form(form);
        let files = image_of("app:1", &[&base(), &leaning(), &whiteouts()]);
        let done = imported_in(jail.clone(), &place, &files, 4);
        assert_eq!((done.blobs, done.unpacked, &done.notes[..]), (3, 3, &[][..]));
        let (mounted, applied) = (mounted(&place, &done.digest), applied_in(jail, &place, &files));
        assert_eq!(comparable(&mounted), comparable(&applied), "{form}");
        for (name, there) in [
            ("etc/keep f 0644 7:8", true),
            ("usr/lib/new f", true),
            ("usr/share/made f", true),
            ("opt/new f", true),
            (" d 0750 7:8", true),
            ("etc/again ", false),
            ("etc/gone ", false),
            ("opt/deep ", false),
            ("opt/old ", false),
        ] {
            let found = applied.lines().any(|line| line.starts_with(name));
            assert_eq!(found, there, "{name:?} in\n{applied}");
        }
        // Nothing is done twice.
        let again = imported(&place, &files, 4);
        assert_eq!((again.digest, again.blobs, again.unpacked), (done.digest, 0, 0));
        assert_eq!(restore(&place.store, &done.digest, &Options::default()).unwrap().unpacked, 0);
        place.must_be_whole();
    }
}

#[test]
fn hard_links_to_files_of_lower_layers_are_links_to_each_other() {
    let place = Place::new();
    let links = Tar::default().hard("etc/one", "etc/keep").hard("etc/two", "etc/keep").end();
    let done = imported(&place, &image_of("app:1", &[&base(), &links]), 2);
    let top = &place.store.layers_of(&done.digest).unwrap()[0];
    let [one, two, keep] =
        ["one", "two", "keep"].map(|name| top.path.join("etc").join(name).metadata().unwrap());
    assert_eq!((one.ino(), keep.ino()), (two.ino(), two.ino()));
    assert_eq!(keep.nlink(), 3);
}

#[test]
fn a_layer_that_needs_those_below_lies_under_its_chain_and_any_other_under_its_diff_id() {
    let place = Place::new();
    let other_base = Tar::default().dir("etc").file("etc/keep", b"another").dir("lib").end();
    let (base, leaning, whiteouts) = (base(), leaning(), whiteouts());
    let one = imported(&place, &image_of("one:1", &[&base, &leaning, &whiteouts]), 2);
    let two = imported(&place, &image_of("two:1", &[&other_base, &leaning, &whiteouts]), 2);
    assert_eq!((one.unpacked, two.unpacked), (3, 2), "what depends on nothing is shared");
    let there = |kind: &str| {
        let folder = place.folder.path().join("store").join(kind).join("sha256");
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    let ids = |lowest: &Vec<u8>| LayerId::of_chain([lowest, &leaning, &whiteouts].map(|tar| Digest::of(tar)));
    assert_eq!(
        there("layers"),
        sorted([&base, &other_base, &whiteouts].map(|tar| Digest::of(tar).hex()).to_vec())
    );
    assert_eq!(
        there("chains"),
        sorted([&base, &other_base].map(|lowest| ids(lowest)[1].chain_id.hex()).to_vec())
    );
    for (done, content) in [(&one, "keep"), (&two, "another")] {
        let layers = place.store.layers_of(&done.digest).unwrap();
        assert_eq!(std::fs::read_to_string(layers[1].path.join("etc/again")).unwrap(), content);
        assert_eq!(
            layers.iter().map(|layer| layer.root).collect::<Vec<_>>(),
            [false, false, content == "keep"]
        );
    }
    // What one image alone needs goes with it.
    place.store.untag(&"two:1".parse().unwrap()).unwrap();
    place.store.keep_for_container("web", &two.digest, None).unwrap();
    assert_eq!(place.store.prune(&|_| true).unwrap(), Default::default());
    place.store.release_container("web").unwrap();
    let pruned = place.store.prune(&|_| true).unwrap();
    assert_eq!(pruned.chains, [ids(&other_base)[1].chain_id]);
    assert_eq!(pruned.layers, [Digest::of(&other_base)]);
    assert_eq!(place.store.layers_of(&one.digest).unwrap().len(), 3);
    place.must_be_whole();
}

/// Layers each of which needs all below it: a link to the file of the one before, and a file without its parents.
fn tower(height: usize) -> Vec<Vec<u8>> {
    let layer = |i: usize| {
        let size = noise(i as u64 + 10, 40_000 * ((i * 7) % 5 + 1));
        let tar = match i {
            0 => Tar::default().dir("d"),
            _ => Tar::default().hard(&format!("d/link{i}"), &format!("d/file{}", i - 1)),
        };
        tar.file(&format!("d/file{i}"), &size).end()
    };
    (0..height).map(layer).collect()
}

#[test]
fn layers_that_wait_for_each_other_come_out_the_same_with_any_number_of_workers() {
    let tars = tower(9);
    let files = image_of("tower:1", &tars.iter().collect::<Vec<_>>());
    let place = Place::new();
    let expected = comparable(&applied(&place, &files));
    for parallel in [1, 2, 3, 8, 16] {
        for jail in ways().into_iter().chain(ways()) {
            let place = Place::new();
            let done = imported_in(jail, &place, &files, parallel);
            assert_eq!((done.blobs, done.unpacked), (9, 9), "{parallel} workers");
            assert_eq!(comparable(&mounted(&place, &done.digest)), expected, "{parallel} workers");
            place.must_be_whole();
        }
    }
}

#[test]
fn a_layer_that_is_broken_ends_those_that_wait_for_it() {
    let mut tars = tower(6);
    let cut = tars[2].len() / 2;
    tars[2].truncate(cut);
    let files = image_of("tower:1", &tars.iter().collect::<Vec<_>>());
    for (parallel, jail) in [1, 2, 8].into_iter().flat_map(|n| ways().map(|jail| (n, jail))) {
        let place = Place::new();
        let (source, image) = opened(&place, &files);
        let options = Options { parallel, jail, ..Options::default() };
        let error = import(&place.store, &source, &image, &options).unwrap_err();
        assert_eq!(error.code(), Code::Invalid, "{error}");
        assert!(error.to_string().starts_with("layer 3: "), "{error}");
        place.must_be_whole();
    }
}

#[test]
fn a_layer_that_occurs_twice_is_unpacked_for_each_chain_that_it_depends_on() {
    let place = Place::new();
    let link = Tar::default().hard("etc/again", "etc/keep").end();
    let change = Tar::default().dir("etc").file("etc/keep", b"changed").end();
    let files = image_of("twice:1", &[&base(), &link, &change, &link, &change]);
    let done = imported(&place, &files, 3);
    assert_eq!((done.blobs, done.unpacked), (3, 4));
    let layers = place.store.layers_of(&done.digest).unwrap();
    assert_eq!(layers.len(), 4, "overlayfs takes a folder only once");
    let all = place.store.all_layers_of(&done.digest).unwrap();
    assert_eq!((all.len(), &all[2].path), (5, &all[4].path), "who looks at each layer gets each");
    let again = |at: usize| std::fs::read_to_string(layers[at].path.join("etc/again")).unwrap();
    assert_eq!((again(1).as_str(), again(2).as_str()), ("changed", "keep"));
    assert_eq!(comparable(&mounted(&place, &done.digest)), comparable(&applied(&place, &files)));
    place.must_be_whole();
}

#[test]
fn a_layer_that_occurs_twice_shows_what_it_shows_when_it_is_applied_twice() {
    let a = Tar::default()
        .dir("etc")
        .file("etc/.wh.gone", b"")
        .file("etc/new", b"new")
        .dir("opt")
        .file("opt/.wh..wh..opq", b"")
        .dir("opt/deep")
        .end();
    let between = [
        Tar::default()
            .dir("etc")
            .file("etc/gone", b"back")
            .file("etc/.wh.new", b"")
            .file(".wh.opt", b"")
            .end(),
        Tar::default()
            .file("opt", b"a file")
            .dir("etc")
            .file("etc/.wh..wh..opq", b"")
            .file("etc/x", b"x")
            .end(),
        Tar::default().dir("opt").dir("opt/deep").file("opt/deep/more", b"m").dir("etc").dir("etc/new").end(),
        Tar::default().file(".wh.etc", b"").end(),
    ];
    for (i, m) in between.iter().enumerate() {
        let place = Place::new();
        let files = image_of("twice:1", &[&base(), &a, m, &a]);
        let done = imported(&place, &files, 3);
        assert_eq!(place.store.layers_of(&done.digest).unwrap().len(), 3);
        assert_eq!(comparable(&mounted(&place, &done.digest)), comparable(&applied(&place, &files)), "{i}");
    }
}

#[test]
fn images_that_share_layers_are_imported_at_once() {
    let tars = tower(5);
    let whiteouts = whiteouts();
    let images = ["one:1", "two:1"].map(|name| {
        let own = layer(&[(name, name.as_bytes())]);
        let mut layers: Vec<&Vec<u8>> = tars.iter().collect();
        layers.extend([&own, &whiteouts]);
        (name, image_of(name, &layers))
    });
    for _ in 0..6 {
        let place = Place::new();
        let path = place.folder.path().join("store");
        std::thread::scope(|scope| {
            for (name, files) in &images {
                let file = place.file(name, &tarred(files, false));
                let path = &path;
                scope.spawn(move || {
                    let store = Store::open(path).unwrap();
                    let source = Source::open(&file, store.scratch(), Default::default()).unwrap();
                    let image = source.select(None, &Platform::host()).unwrap();
                    let options = Options { names: image.names.clone(), parallel: 3, ..Options::default() };
                    let done = import(&store, &source, &image, &options).unwrap();
                    assert_eq!(store.layers_of(&done.digest).unwrap().len(), 7);
                });
            }
        });
        for (_, files) in &images {
            let again = imported(&place, files, 2);
            assert_eq!((again.blobs, again.unpacked), (0, 0));
            assert_eq!(comparable(&mounted(&place, &again.digest)), comparable(&applied(&place, files)));
        }
        place.must_be_whole();
    }
}

#[test]
fn layers_that_went_are_unpacked_again_in_their_order() {
    let place = Place::new();
    let tars = tower(6);
    let files = image_of("tower:1", &tars.iter().collect::<Vec<_>>());
    let done = imported(&place, &files, 2);
    let expected = mounted(&place, &done.digest);
    let store = place.folder.path().join("store");
    for folder in ["layers/sha256", "chains/sha256"] {
        for entry in std::fs::read_dir(store.join(folder)).unwrap() {
            std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
        }
    }
    assert_eq!(place.store.layers_of(&done.digest).unwrap_err().code(), Code::NotFound);
    let options = Options { parallel: 2, ..Options::default() };
    assert_eq!(restore(&place.store, &done.digest, &options).unwrap().unpacked, 6);
    assert_eq!(mounted(&place, &done.digest), expected);
    place.must_be_whole();
}

#[test]
fn a_blob_whose_tar_is_broken_since_it_was_changed_is_told_as_a_wrong_digest() {
    let tar = base();
    let mut files = image_of("app:1", &[&tar]);
    let layers = [(media::LAYER, tar.clone(), tar.clone())];
    let entry = add(&mut files, &Platform::host().architecture, &layers);
    index(&mut files, &[entry]);
    let blob = files.get_mut(&format!("blobs/sha256/{}", Digest::of(&tar).hex())).unwrap();
    // The checksum of the second header no longer fits.
    blob[512 + 3] ^= 1;
    let place = Place::new();
    let (source, image) = opened(&place, &files);
    let into = tempfile::tempdir().unwrap();
    let folder = std::fs::File::open(into.path()).unwrap();
    let errors = ways().map(|jail| {
        let options = Options { jail: jail.clone(), ..Options::default() };
        let flattened = flat::Options { jail, ..flat::Options::default() };
        [
            import(&place.store, &source, &image, &options).unwrap_err(),
            flat::unpack(&source, &image, folder.as_fd(), &flattened).unwrap_err(),
        ]
    });
    for error in errors.into_iter().flatten() {
        assert_eq!(error.code(), Code::Invalid);
        assert!(
            error.to_string().contains("digest") && error.to_string().starts_with("layer 1: "),
            "{error}"
        );
    }
    assert_eq!(std::fs::read_dir(into.path()).unwrap().count(), 0, "nothing is left of a flat unpack");
    place.must_be_whole();
}

#[test]
fn a_hostile_layer_fails_in_its_class_and_leaves_nothing() {
    let outside = |name: &str| Tar::default().file("a", b"a").hard(name, "no/such/file").end();
    let many = (0..50).fold(Tar::default(), |tar, i| tar.file(&i.to_string(), b"")).end();
    let cases = [
        ("a link to nothing", outside("x"), Code::Invalid, "no such file"),
        ("too many files", many, Code::Limit, "40"),
    ];
    for ((what, tar, code, why), jail) in
        cases.iter().flat_map(|case| ways().map(move |jail| (case.clone(), jail)))
    {
        let place = Place::new();
        let (source, image) = opened(&place, &image_of("app:1", &[&base(), &tar]));
        let limits = Limits { inodes: 40, ..Limits::default() };
        let options = Options { limits, jail: jail.clone(), ..Options::default() };
        let flattened = flat::Options { limits, jail };
        let error = import(&place.store, &source, &image, &options).unwrap_err();
        assert_eq!(error.code(), code, "{what}: {error}");
        assert!(
            error.to_string().contains(why) && error.to_string().starts_with("layer 2: "),
            "{what}: {error}"
        );
        place.must_be_whole();
        let into = tempfile::tempdir().unwrap();
        let folder = std::fs::File::open(into.path()).unwrap();
        assert_eq!(
            flat::unpack(&source, &image, folder.as_fd(), &flattened).unwrap_err().code(),
            code,
            "{what}"
        );
        assert_eq!(std::fs::read_dir(into.path()).unwrap().count(), 0, "{what}");
        std::fs::write(into.path().join("kept"), "").unwrap();
        assert_eq!(
            flat::unpack(&source, &image, folder.as_fd(), &flattened).unwrap_err().code(),
            Code::Usage
        );
        assert!(into.path().join("kept").exists());
    }
}

const WITHOUT: &str = "RCRUN_UNPACKED_TEST_WITHOUT_PRIVILEGE";

/// The child is this test program itself, without CAP_SYS_ADMIN.
#[test]
fn a_store_is_of_the_form_that_its_first_opener_can_mount_and_no_other_is_mixed_in() {
    if let Ok(path) = std::env::var(WITHOUT) {
        let own = Place::new();
        assert_eq!(own.store.form(), Form::UserOverlay);
        imported(&own, &image_of("app:1", &[&base(), &whiteouts()]), 2);
        let store = Store::open(Path::new(&path)).unwrap();
        let (source, image) = opened(&own, &image_of("app:2", &[&base()]));
        let error = import(&store, &source, &image, &Options::default()).unwrap_err();
        assert_eq!(error.code(), Code::Usage, "{error}");
        assert!(error.to_string().contains("CAP_SYS_ADMIN"), "{error}");
        return;
    }
    let place = Place::new();
    assert_eq!(place.store.form(), Form::Overlay);
    let test = "a_store_is_of_the_form_that_its_first_opener_can_mount_and_no_other_is_mixed_in";
    let output = Command::new("setpriv")
        .args(["--bounding-set=-sys_admin", "--inh-caps=-sys_admin"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(WITHOUT, place.folder.path().join("store"))
        .output()
        .unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    place.must_be_whole();
}
