//! A process that imports or prunes is killed at any moment: the store stays valid and loses nothing that was complete.
//! The child is this test program itself. Uses: made.

mod made;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use made::*;
use rcrun_image::import::{Options, import};
use rcrun_image::jail::Jail;
use rcrun_image::source::Source;
use rcrun_image::store::Store;
use rcrun_image::{Digest, Name, Platform};

const STORE: &str = "RCRUN_CRASH_TEST_STORE";
const ARCHIVE: &str = "RCRUN_CRASH_TEST_ARCHIVE";

/// Who waits for all children must have them all.
static ALONE: Mutex<()> = Mutex::new(());

/// What the child does, over and over until it is killed. Run by itself it is a test too: one round is undisturbed.
#[test]
fn a_round_of_import_and_prune_leaves_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(path) = std::env::var(STORE) else {
        let place = Place::new();
        round(&place.folder.path().join("store"), &place.file("image.tar", &tarred(&layout(), false)));
        assert_eq!(place.store.images().unwrap(), []);
        assert!(!place.store.has_layer(&alone(&layers()[0].2)).unwrap());
        return place.must_be_whole();
    };
    let archive = std::env::var(ARCHIVE).unwrap();
    println!("\nready");
    loop {
        round(Path::new(&path), Path::new(&archive));
    }
}

#[test]
#[ignore = "is the jailed child of the children"]
fn the_unpacker() {
    rcrun_image::jail::serve();
}

fn round(store: &Path, archive: &Path) {
    let store = Store::open(store).unwrap();
    let done = import_into(&store, archive);
    store.prune(&|_| true).unwrap();
    store.remove_image(&done).unwrap();
    store.prune(&|_| true).unwrap();
}

fn import_into(store: &Store, archive: &Path) -> Digest {
    let source = Source::open(archive, store.scratch(), Default::default()).unwrap();
    let image = source.select(None, &Platform::host()).unwrap();
    let child = ["--ignored", "--exact", "the_unpacker", "--test-threads=1", "--nocapture"];
    let jail = Some(Jail::with_arguments(child));
    let options = Options { names: image.names.clone(), jail, ..Options::default() };
    import(store, &source, &image, &options).unwrap().digest
}

#[test]
fn a_kill_at_any_moment_leaves_the_store_whole_and_what_was_complete_in_it() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let place = Place::new();
    let path = place.folder.path().join("store");
    let name: Name = "kept:1".parse().unwrap();
    let small = layer(&[("kept", b"for ever")]);
    let mut files = Files::new();
    let plain = rcrun_image::document::media::LAYER;
    let entry = add(&mut files, &Platform::host().architecture, &[(plain, small.clone(), small.clone())]);
    index(&mut files, &[named(entry, "kept:1")]);
    let kept = place.import(&files, None).unwrap().digest;
    let archive = place.file("killed.tar", &tarred(&layout(), false));

    // How long one round takes undisturbed: the kills are spread over it.
    let begun = Instant::now();
    let scratch = Place::new();
    import_into(&scratch.store, &archive);
    let undisturbed = begun.elapsed() * 2;
    const KILLS: u32 = 60;
    let mut unfinished = 0;
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_round_of_import_and_prune_leaves_nothing", "--nocapture"])
            .env(STORE, &path)
            .env(ARCHIVE, &archive)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "ready"), "the child did not begin");
        // No event tells of the moment: any is as good as any other.
        std::thread::park_timeout(undisturbed * kill / KILLS + Duration::from_micros(u64::from(kill) * 37));
        assert!(
            child.try_wait().unwrap().is_none(),
            "the child ended by itself: {:?}",
            child.wait_with_output()
        );
        child.kill().unwrap();
        child.wait().unwrap();
        // Its unpackers die with it, a moment later; now they are this process's children.
        while rustix::process::wait(rustix::process::WaitOptions::empty()).is_ok() {}
        unfinished += usize::from(std::fs::read_dir(path.join("tmp")).unwrap().next().is_some());

        let store = Store::open(&path).unwrap();
        assert_eq!(store.fsck(false).unwrap(), [], "kill {kill}");
        assert_eq!(
            std::fs::read_dir(path.join("tmp")).unwrap().count(),
            0,
            "kill {kill}: tmp is not cleared"
        );
        assert_eq!(store.find(&name).unwrap(), Some(kept));
        assert_eq!(read_in_layer(&place, &small, "kept"), b"for ever");
    }
    assert!(unfinished > KILLS as usize / 4, "only {unfinished} of {KILLS} kills met work under way");
    place.store.prune(&|_| true).unwrap();
    place.must_be_whole();
    import_into(&place.store, &archive);
    assert_eq!(read_in_layer(&place, &layers()[1].2, "big"), noise(2, 600_000));
    place.must_be_whole();
}
