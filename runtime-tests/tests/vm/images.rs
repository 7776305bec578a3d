//! The limits that a person gives to `run IMAGE` are in force, as the payload sees them and as they bite.

use runtime_tests::bundle::Folder;
use runtime_tests::image::Image;
use runtime_tests::runtime::{Runtime, Said};
use std::ffi::OsString;
use std::path::Path;

use super::limits::EATS_MEMORY;

/// `run` with these options of an image that has busybox, and what it then executes.
fn run(options: &[&str], args: &[&str]) -> Said {
    let folder = Folder::new("limited-image");
    let file = folder.path().join("app.tar");
    Image::new("limited").docker_save(&file, &["app:1"]);
    let runtime = Runtime::new();
    let store = folder.path().join("store");
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let path = |path: &Path| OsString::from(path);
    runtime.say(
        [words(&["run", "--store"]), vec![path(&store)], words(options), vec![path(&file)], words(args)]
            .concat(),
    )
}

#[test]
fn limits_of_an_image_are_those_of_its_options() {
    let read = |file: &str| format!("/sys/fs/cgroup/{file}");
    for (options, file, value) in [
        (&["--memory", "64m"][..], "memory.max", "67108864"),
        // Docker gives as much swap as memory.
        (&["--memory", "64m"], "memory.swap.max", "67108864"),
        (&["--cpus", "0.5"], "cpu.max", "50000 100000"),
        (&["--pids-limit", "17"], "pids.max", "17"),
        (&[], "memory.max", "max"),
    ] {
        let said = run(options, &["/bin/busybox", "cat", &read(file)]);
        assert_eq!((said.out.trim(), said.status), (value, 0), "{options:?}: {}", said.err);
    }
}

#[test]
fn an_image_that_eats_more_than_its_memory_ends_with_137() {
    let eats = [&["/bin/busybox"][..], &EATS_MEMORY].concat();
    let said = run(&["--memory", "16m"], &eats);
    assert_eq!(said.status, 137, "{}{}", said.out, said.err);
}

#[test]
fn an_image_with_a_limit_of_processes_cannot_fork_on() {
    let script = "for i in 1 2 3 4 5 6 7 8; do sleep 100 & done; echo all";
    let said = run(&["--pids-limit", "4"], &["/bin/busybox", "sh", "-c", script]);
    assert!(!said.out.contains("all") && said.err.contains("can't fork"), "{}{}", said.out, said.err);
}
