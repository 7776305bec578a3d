//! The store under several users: names, leases, pruning, damage and its repair. Uses: made.

mod made;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use made::*;
use rcrun_image::document::media;
use rcrun_image::import::{Options, import, restore};
use rcrun_image::store::{Outfit, Store};
use rcrun_image::{Code, Digest, Name, Platform};

fn host() -> String {
    Platform::host().architecture
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A layout of one image with one layer of its own beside one that all share.
fn image(own: &str) -> Files {
    let mut files = Files::new();
    let own_tar = layer(&[("own", own.as_bytes())]);
    let shared = layer(&[("shared", b"by all")]);
    let layers = [(media::LAYER_GZIP, gzip(&shared), shared), (media::LAYER, own_tar.clone(), own_tar)];
    let entry = add(&mut files, &host(), &layers);
    index(&mut files, &[named(entry, &format!("{own}:1"))]);
    files
}

fn in_store(place: &Place, path: &str) -> PathBuf {
    place.folder.path().join("store").join(path)
}

fn blob(place: &Place, digest: &Digest) -> PathBuf {
    in_store(place, &format!("blobs/sha256/{}", digest.hex()))
}

static OUTFIT: Outfit = Outfit { folders: &["upper", "work"], files: &["hosts"] };

/// How many names in tmp begin so.
fn in_tmp(place: &Place, beginning: &str) -> usize {
    let entries = std::fs::read_dir(in_store(place, "tmp")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(beginning)).count()
}

/// What is in a folder, with its permissions.
fn contents(folder: &std::path::Path) -> Vec<(String, u32)> {
    let entry = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().permissions().mode() & 0o7777)
    };
    let mut all: Vec<_> = std::fs::read_dir(folder).unwrap().map(entry).collect();
    all.sort();
    all
}

#[test]
fn what_is_discarded_is_out_of_sight_at_once_and_removed_by_a_later_opener() {
    let place = Place::new();
    let top = in_store(&place, "");
    let left = || in_tmp(&place, "discarded-");
    let discard = |store: &Store| {
        let lock = store.establish("containers", "web", &OUTFIT).unwrap().unwrap();
        std::fs::create_dir_all(in_store(&place, "containers/web/work/work")).unwrap();
        assert!(store.discard_later("containers", "web").unwrap());
        assert!(!in_store(&place, "containers/web").exists());
        assert!(!store.discard_later("containers", "web").unwrap(), "it is gone");
        lock
    };
    let lock = discard(&place.store);
    Store::open(&top).unwrap();
    assert_eq!(left(), 1, "its process has not ended");
    drop(lock);
    Store::open(&top).unwrap();
    assert_eq!(left(), 0);

    for count in 1..=17 {
        drop(discard(&Store::open_in_haste(&top).unwrap()));
        assert_eq!(left(), count);
    }
    let mut hasty = Store::open_in_haste(&top).unwrap();
    assert_eq!(left(), 0, "that many are not left to anybody");
    hasty.tidy(&OUTFIT).unwrap().unwrap().join().unwrap();
    for count in 1..=8 {
        let mut early = Store::open_in_haste(&top).unwrap();
        assert!(early.tidy(&OUTFIT).unwrap().is_none(), "not for so few");
        drop(discard(&hasty));
        assert_eq!(left(), count);
    }
    let mut hasty = Store::open_in_haste(&top).unwrap();
    assert_eq!(left(), 8);
    hasty.tidy(&OUTFIT).unwrap().unwrap().join().unwrap();
    assert_eq!(left(), 0);
    let mut hasty = Store::open_in_haste(&top).unwrap();
    assert!(hasty.tidy(&OUTFIT).unwrap().is_none());
}

#[test]
fn a_folder_that_was_made_ahead_is_as_one_that_is_made_anew() {
    let place = Place::new();
    let top = in_store(&place, "");
    let web = in_store(&place, "containers/web");
    let establish = |store: &Store, name: &str| store.establish("containers", name, &OUTFIT).unwrap();
    drop(establish(&place.store, "anew").unwrap());
    let anew = contents(&in_store(&place, "containers/anew"));
    let expected = [("hosts", 0o644), ("lease", 0o600), ("upper", 0o700), ("work", 0o700)];
    assert_eq!(anew, expected.map(|(name, mode)| (name.to_string(), mode)));

    let mut first = Store::open_in_haste(&top).unwrap();
    first.tidy(&OUTFIT).unwrap().unwrap().join().unwrap();
    assert_eq!(in_tmp(&place, ""), 8);
    // Both see the same eight.
    let (one, other) = (Store::open_in_haste(&top).unwrap(), Store::open_in_haste(&top).unwrap());
    let lock = establish(&one, "web").unwrap();
    assert_eq!((contents(&web), in_tmp(&place, "")), (anew.clone(), 7));
    assert!(establish(&other, "web").is_none(), "it is there");
    assert_eq!(in_tmp(&place, ""), 7, "what was not needed stays");
    Store::open(&top).unwrap();
    assert!(one.discard_later("containers", "web").unwrap(), "it is locked, so that nobody took it for dead");
    drop(lock);
    let locks: Vec<_> = (0..9).map(|count| establish(&other, &format!("web{count}")).unwrap()).collect();
    assert_eq!(in_tmp(&place, "spare-"), 0, "the last two are made anew");
    for count in 0..9 {
        assert_eq!(contents(&in_store(&place, &format!("containers/web{count}"))), anew);
    }
    drop(locks);
    Store::open(&top).unwrap();
    place.must_be_whole();
}

#[test]
fn folders_that_were_made_ahead_are_of_one_boot_and_go_with_prune() {
    let place = Place::new();
    let top = in_store(&place, "");
    let spares = || in_tmp(&place, "spare-");
    let make = || {
        let mut store = Store::open_in_haste(&top).unwrap();
        store.tidy(&OUTFIT).unwrap().unwrap().join().unwrap();
        assert_eq!(spares(), 8);
    };
    make();
    Store::open(&top).unwrap();
    assert_eq!(spares(), 8, "who lists images leaves them");
    place.store.prune(&|_| true).unwrap();
    assert_eq!(spares(), 0);
    make();
    std::fs::write(in_store(&place, "boot"), "another").unwrap();
    Store::open_in_haste(&top).unwrap();
    assert_eq!(spares(), 0, "who knows what of them has reached the disk");
    // Of an rcrun that has other files in them.
    std::fs::create_dir(in_store(&place, "tmp/spare-0-1-2")).unwrap();
    Store::open_in_haste(&top).unwrap();
    assert_eq!(spares(), 0);
}

#[test]
fn layers_are_shared_and_prune_keeps_what_names_and_containers_use() {
    let place = Place::new();
    let one = place.import(&image("one"), None).unwrap();
    let two = place.import(&image("two"), None).unwrap();
    assert_eq!((one.unpacked, two.unpacked), (2, 1), "the shared layer is unpacked once");
    assert_eq!(place.store.prune(&|_| true).unwrap(), Default::default());

    place.store.keep_for_container("web", &one.digest, None).unwrap();
    assert!(place.store.untag(&name("one:1")).unwrap());
    assert!(!place.store.untag(&name("one:1")).unwrap());
    assert_eq!(place.store.prune(&|id| id == "web").unwrap(), Default::default());
    assert!(place.store.remove_image(&one.digest).unwrap_err().to_string().contains("container web"));

    assert!(place.store.release_container("web").unwrap());
    let pruned = place.store.prune(&|_| true).unwrap();
    assert_eq!(pruned.images, [one.digest]);
    assert_eq!((pruned.blobs.len(), pruned.layers.len()), (3, 1), "manifest, configuration and own layer");
    assert!(place.store.has_layer(&alone(&layer(&[("shared", b"by all")]))).unwrap());
    place.store.image(&two.digest).unwrap();
    place.must_be_whole();
}

#[test]
fn what_is_held_before_it_is_imported_needs_no_name_to_stay() {
    let place = Place::new();
    let source = place.open(&place.file("image.tar", &tarred(&image("one"), false))).unwrap();
    let image = source.select(None, &Platform::host()).unwrap();
    let hold = place.store.hold(&image).unwrap();
    let done = import(&place.store, &source, &image, &Options::default()).unwrap();
    assert_eq!(place.store.prune(&|_| true).unwrap(), Default::default());
    // As `run` does: the container's lease comes before the other goes.
    place.store.keep_for_container("web", &done.digest, None).unwrap();
    drop(hold);
    assert_eq!(place.store.prune(&|_| true).unwrap(), Default::default());
    place.store.release_container("web").unwrap();
    assert_eq!(place.store.prune(&|_| true).unwrap().images, [done.digest]);
    place.must_be_whole();
}

#[test]
fn a_size_that_lies_is_found_where_the_blob_is_not_read_again() {
    let lying = |sizes: [u64; 2]| {
        let mut files = Files::new();
        let tar = layer(&[("twice", b"x")]);
        let mut entry = add(
            &mut files,
            &host(),
            &[(media::LAYER, tar.clone(), tar.clone()), (media::LAYER, tar.clone(), tar)],
        );
        let digest = entry["digest"].as_str().unwrap().replace(':', "/");
        let text = files.remove(&format!("blobs/{digest}")).unwrap();
        let mut manifest: serde_json::Value = serde_json::from_slice(&text).unwrap();
        for (i, more) in sizes.iter().enumerate() {
            let size = manifest["layers"][i]["size"].as_u64().unwrap();
            manifest["layers"][i]["size"] = (size + more).into();
        }
        let text = serde_json::to_vec(&manifest).unwrap();
        put(&mut files, &text);
        entry["digest"] = Digest::of(&text).to_string().into();
        entry["size"] = text.len().into();
        index(&mut files, &[named(entry, "lies:1")]);
        files
    };
    let place = Place::new();
    let error = place.import(&lying([0, 512]), None).unwrap_err();
    assert_eq!(error.code(), Code::Invalid);
    assert!(error.to_string().starts_with("layer 2: blob sha256:"), "{error}");
    place.must_be_whole();
    place.import(&lying([0, 0]), None).unwrap();
    let error = place.import(&lying([512, 512]), None).unwrap_err().to_string();
    assert!(
        error.starts_with("layer 1: ") && error.contains(" bytes in the store, and its descriptor says "),
        "{error}"
    );
    place.must_be_whole();
}

#[test]
fn a_folder_beside_the_store_comes_to_its_place_locked() {
    use rustix::fs::{FlockOperation, Mode, OFlags, flock};
    let place = Place::new();
    let lock = place.store.establish("containers", "web", &OUTFIT).unwrap().unwrap();
    assert!(place.store.establish("containers", "web", &OUTFIT).unwrap().is_none(), "it is there");
    let open =
        || rustix::fs::open(in_store(&place, "containers/web"), OFlags::RDONLY, Mode::empty()).unwrap();
    let try_lock = || flock(open(), FlockOperation::NonBlockingLockExclusive).is_ok();
    assert!(!try_lock());
    // The next opener does not sweep it away either.
    Store::open(&place.folder.path().join("store")).unwrap();
    assert!(in_store(&place, "containers/web").is_dir());
    drop(lock);
    assert!(try_lock());
    place.must_be_whole();
}

#[test]
fn the_lease_of_a_container_that_is_gone_goes_and_that_of_a_living_process_stays() {
    let place = Place::new();
    let one = place.import(&image("one"), None).unwrap();
    place.store.untag(&name("one:1")).unwrap();
    place.store.keep_for_container("gone", &one.digest, None).unwrap();
    let other = Store::open(&place.folder.path().join("store")).unwrap();
    let hold = other.hold_image(&one.digest).unwrap();
    assert_eq!(place.store.prune(&|_| false).unwrap(), Default::default());
    drop(hold);
    assert_eq!(place.store.prune(&|_| false).unwrap().images, [one.digest]);
    assert_eq!(other.hold_image(&one.digest).unwrap_err().code(), Code::NotFound);
    place.must_be_whole();
}

#[test]
fn names_mean_what_they_were_last_given_to() {
    let place = Place::new();
    let one = place.import(&image("one"), None).unwrap().digest;
    let two = place.import(&image("two"), None).unwrap().digest;
    place.store.tag(&name("localhost:5000/app:1"), &one).unwrap();
    place.store.tag(&name("app"), &one).unwrap();
    place.store.tag(&name("docker.io/library/app:latest"), &two).unwrap();
    for (text, digest) in [
        ("localhost:5000/app:1", Some(one)),
        ("app", Some(two)),
        ("localhost:5000/app", None),
        (&format!("any@{one}"), Some(one)),
        (&format!("any@{}", Digest::of(b"x")), None),
    ] {
        assert_eq!(place.store.find(&name(text)).unwrap(), digest, "{text}");
    }
    assert_eq!(place.store.tag(&name("x"), &Digest::of(b"x")).unwrap_err().code(), Code::NotFound);
    assert_eq!(place.store.names().unwrap().len(), 4);
    place.store.remove_image(&two).unwrap();
    assert_eq!(place.store.find(&name("app")).unwrap(), None, "an image takes its names with it");
    place.must_be_whole();
}

#[test]
fn fsck_finds_each_damage_and_repair_leaves_a_store_that_is_whole() {
    type Damage = (&'static str, fn(&Place, &rcrun_image::import::Imported), &'static str);
    let damages: &[Damage] = &[
        (
            "a blob that was changed",
            |place, _| {
                let shared = gzip(&layer(&[("shared", b"by all")]));
                std::fs::write(blob(place, &Digest::of(&shared)), "other").unwrap();
            },
            "has another content",
        ),
        (
            "a blob that is gone",
            |place, _| std::fs::remove_file(blob(place, &Digest::of(&layer(&[("own", b"one")])))).unwrap(),
            "is not there",
        ),
        (
            "a manifest that is gone",
            |place, done| std::fs::remove_file(blob(place, &done.digest)).unwrap(),
            "is not there",
        ),
        (
            "a link in the place of a blob",
            |place, done| {
                std::fs::remove_file(blob(place, &done.digest)).unwrap();
                std::os::unix::fs::symlink("/etc/passwd", blob(place, &done.digest)).unwrap();
            },
            "blob sha256",
        ),
        (
            "a layer without its tree",
            |place, _| {
                let id = Digest::of(&layer(&[("own", b"one")]));
                std::fs::remove_dir_all(in_store(place, &format!("layers/sha256/{}/fs", id.hex()))).unwrap();
            },
            "has no folder fs",
        ),
        (
            "a layer of one chain without its tree",
            |place, _| {
                std::fs::create_dir(in_store(place, &format!("chains/sha256/{}", "0".repeat(64)))).unwrap()
            },
            "chain sha256:0000000000000000000000000000000000000000000000000000000000000000 has no folder fs",
        ),
        (
            "a record of something else",
            |place, done| {
                let record = in_store(place, &format!("images/sha256/{}", done.digest.hex()));
                let text = std::fs::read_to_string(&record).unwrap();
                std::fs::write(&record, text.replacen(r#""layers":["#, r#""layers":[],"x":["#, 1)).unwrap();
            },
            "its record differs",
        ),
        (
            "a record that is cut",
            |place, done| {
                std::fs::write(in_store(place, &format!("images/sha256/{}", done.digest.hex())), "{")
                    .unwrap();
            },
            "record of image",
        ),
        (
            "a name of nothing",
            |place, done| {
                std::fs::remove_file(in_store(place, &format!("images/sha256/{}", done.digest.hex())))
                    .unwrap();
            },
            "which is not there",
        ),
        (
            "files of others",
            |place, _| {
                for folder in ["blobs", "layers", "chains", "images"] {
                    std::fs::write(in_store(place, &format!("{folder}/sha256/../sha256/x")), "").unwrap();
                }
            },
            "is no digest",
        ),
    ];
    for (what, damage, why) in damages {
        let place = Place::new();
        let done = place.import(&image("one"), None).unwrap();
        damage(&place, &done);
        let found = place.store.fsck(false).unwrap();
        assert!(found.iter().any(|p| p.what.contains(why) && !p.repaired), "{what}: {found:?}");
        let repaired = place.store.fsck(true).unwrap();
        assert!(!repaired.is_empty() && repaired.iter().all(|p| p.repaired), "{what}: {repaired:?}");
        place.must_be_whole();
        place.import(&image("one"), None).unwrap();
        place.must_be_whole();
        assert_eq!(read_in_layer(&place, &layer(&[("own", b"one")]), "own"), b"one", "{what}");
        assert_eq!(read_in_layer(&place, &layer(&[("shared", b"by all")]), "shared"), b"by all", "{what}");
    }
}

#[test]
fn after_a_reboot_what_was_not_on_the_disk_is_verified_or_unpacked_again() {
    let place = Place::new();
    let done = place.import(&image("one"), None).unwrap();
    let own = layer(&[("own", b"one")]);
    let path = blob(&place, &Digest::of(&own));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    // What a file system may leave after its power went: a name, and zeros.
    std::fs::write(&path, vec![0; own.len()]).unwrap();
    std::fs::write(in_store(&place, "boot"), "another boot\n").unwrap();
    let store = Store::open(&place.folder.path().join("store")).unwrap();
    assert!(!store.has_blob(&Digest::of(&own)).unwrap());
    assert!(!store.has_layer(&alone(&own)).unwrap());
    let shared = layer(&[("shared", b"by all")]);
    assert!(store.has_blob(&Digest::of(&gzip(&shared))).unwrap(), "what is whole stays");
    let error = restore(&store, &done.digest, &Options::default()).unwrap_err();
    assert_eq!(error.code(), Code::Damaged, "{error}");
    place.import(&image("one"), None).unwrap();

    store.settle().unwrap();
    std::fs::write(in_store(&place, "boot"), "a third boot\n").unwrap();
    let store = Store::open(&place.folder.path().join("store")).unwrap();
    assert!(store.has_layer(&alone(&own)).unwrap(), "what is on the disk stays");
    std::fs::remove_dir_all(in_store(&place, "layers/sha256")).unwrap();
    let store = Store::open(&place.folder.path().join("store")).unwrap();
    assert_eq!(restore(&store, &done.digest, &Options::default()).unwrap().unpacked, 2);
    assert_eq!(read_in_layer(&place, &own, "own"), b"one");
    place.must_be_whole();
}

#[test]
fn any_number_of_imports_prunes_and_checks_at_once_leave_it_whole() {
    let place = Place::new();
    let path = place.folder.path().join("store");
    let images: Vec<PathBuf> =
        ["one", "two", "three"].iter().map(|n| place.file(n, &tarred(&image(n), false))).collect();
    std::thread::scope(|scope| {
        for worker in 0..6 {
            let (path, images) = (&path, &images);
            scope.spawn(move || {
                // Each with a store of its own, as another process has: flock knows opened files, not processes.
                for round in 0..8 {
                    let store = Store::open(path).unwrap();
                    if worker == 5 {
                        store.prune(&|_| true).unwrap();
                        assert_eq!(store.fsck(false).unwrap(), []);
                        continue;
                    }
                    let file = &images[(worker + round) % 3];
                    let source =
                        rcrun_image::source::Source::open(file, store.scratch(), Default::default()).unwrap();
                    let image = source.select(None, &Platform::host()).unwrap();
                    let options = Options { names: image.names.clone(), ..Options::default() };
                    let done = rcrun_image::import::import(&store, &source, &image, &options).unwrap();
                    let hold = store.hold_image(&done.digest);
                    if worker % 2 == 0 {
                        store.untag(&image.names[0]).unwrap();
                    }
                    // Between the import and this, another worker may have taken the name, and prune the image.
                    if hold.is_ok() {
                        assert_eq!(store.layers_of(&done.digest).unwrap().len(), image.layers.len());
                    }
                }
            });
        }
    });
    place.must_be_whole();
}

#[test]
fn a_blob_and_a_layer_that_are_there_must_still_belong_together() {
    let place = Place::new();
    place.import(&image("one"), None).unwrap();
    place.import(&image("two"), None).unwrap();
    // Both are in the store; this image claims that the one's shared blob is the other's own layer.
    let mut files = Files::new();
    let shared = gzip(&layer(&[("shared", b"by all")]));
    let entry = add(&mut files, &host(), &[(media::LAYER_GZIP, shared, layer(&[("own", b"two")]))]);
    index(&mut files, &[entry]);
    let error = place.import(&files, None).unwrap_err();
    assert!(error.code() == Code::Invalid && error.to_string().contains("diffID"), "{error}");
    place.must_be_whole();
}

#[test]
fn an_image_that_is_there_is_not_read_again() {
    let place = Place::new();
    let done = place.import(&image("one"), None).unwrap();
    // Its layers could not be read: only the documents are left in the archive.
    let mut files = image("one");
    for tar in [layer(&[("own", b"one")]), gzip(&layer(&[("shared", b"by all")]))] {
        files.remove(&format!("blobs/sha256/{}", Digest::of(&tar).hex())).unwrap();
    }
    let again = place.import(&files, None).unwrap();
    assert_eq!((again.digest, again.blobs, again.unpacked), (done.digest, 0, 0));
}
