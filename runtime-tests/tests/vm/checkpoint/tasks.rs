//! The shim's checkpoints, as containerd asks for them.

use super::{COUNT, Images, number};
use crate::shim_harness::{Io, Place, Shim, binary, end_all_here, own_run};
use containerd_shim_protos::api::{CreateTaskRequest, Status};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::shim::oci::{CheckpointOptions, Options};
use containerd_shim_protos::ttrpc::Code;
use runtime_tests::bundle::{Bundle, Folder};
use runtime_tests::containerd::{Containerd, IMAGE, SHIM};
use runtime_tests::inside::shell;
use runtime_tests::machine::own_mount_namespace;
use runtime_tests::runtime::said;
use serde_json::json;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Runtimes that nobody may execute: each leaves a mark. A PATH on which they come first.
fn stubs(folder: &Path) -> String {
    let stubs = folder.join("stubs");
    if !stubs.exists() {
        std::fs::create_dir(&stubs).expect("mkdir");
        for name in ["runc", "crun", "rcrun"] {
            let mark = folder.join("executed");
            std::fs::write(
                stubs.join(name),
                format!("#!/bin/sh\necho {name} >>{}\nexit 1\n", mark.display()),
            )
            .expect("write");
            std::fs::set_permissions(stubs.join(name), PermissionsExt::from_mode(0o755)).expect("chmod");
        }
    }
    let beside = binary();
    let beside = beside.parent().expect("a folder").display();
    format!("{}:{beside}:{}", stubs.display(), std::env::var("PATH").expect("PATH"))
}

/// What a containerd in a mount namespace of its own has in its namespace, and leaves.
struct Left(String);

impl Drop for Left {
    fn drop(&mut self) {
        end_all_here(&self.0);
    }
}

fn nobody_was_executed(folder: &Path) {
    let executed = std::fs::read_to_string(folder.join("executed")).unwrap_or_default();
    assert_eq!(executed, "", "the runtimes of the stubs");
}

/// A shim that finds CRIU, and what CRIU executes.
fn shim(place: &Place, bundle: &Bundle, id: &str) -> Shim {
    let path = stubs(place.folder.path());
    let address = place.start_with(bundle, id, |command| {
        command.env("PATH", path);
    });
    Shim::at(&address)
}

fn exit() -> CheckpointOptions {
    CheckpointOptions { exit: true, ..CheckpointOptions::default() }
}

#[test]
fn a_task_is_written_and_another_made_of_it_goes_on_with_fifos_of_its_own() {
    let (place, images) = (Place::new("shim-written"), Images::new());
    let script = format!("read word; {}", COUNT.replace("echo $i", "echo $i; echo $word >&2"));
    let bundle = shell("shim-written", &script, |_| ());
    let (whole, rest) = (images.path().join("whole"), images.path().join("rest"));
    let io = Io::fifos(place.folder.path(), "first");
    let mut out = io.out();
    let first = shim(&place, &bundle, "first");
    first.create(&bundle, "first", &io).expect("create");
    first.start("first", "").expect("start");
    writeln!(io.input(), "word").expect("write");
    out.until("2\n");
    first.checkpoint("first", &rest, &CheckpointOptions::default()).expect("checkpoint");
    assert_eq!(first.status("first", ""), Status::RUNNING);
    out.line();
    // Clients of containerd pause it first.
    first.pause("first").expect("pause");
    first.checkpoint("first", &whole, &exit()).expect("checkpoint");
    assert_eq!(first.wait("first", ""), Ok(137));
    let last = out.rest().lines().last().map(number);
    first.clear("first");
    let topics = ["create", "start", "checkpointed", "paused", "checkpointed", "exit", "delete"];
    assert_eq!(place.heard(7), topics.map(|topic| format!("/tasks/{topic} first")));

    let io = Io::fifos(place.folder.path(), "second");
    let (mut out, mut err) = (io.out(), io.err());
    let second = shim(&place, &bundle, "second");
    let checkpoint = whole.display().to_string();
    let made = second.create_with(&bundle, "second", &io, |request| request.checkpoint = checkpoint);
    assert_eq!(made, Ok(0));
    assert_eq!(second.status("second", ""), Status::CREATED);
    let pid = second.start("second", "").expect("start");
    assert_eq!(second.state("second", "").expect("state").pid, pid);
    assert_eq!(second.status("second", ""), Status::RUNNING);
    let next = number(&out.line());
    assert!(last.is_none_or(|last| next == last + 1), "{next} after {last:?}");
    assert_eq!(err.line(), "word");
    second.exec("second", "e", &Io::none(), "exit 3").expect("exec");
    second.start("second", "e").expect("start");
    assert_eq!(second.wait("second", "e"), Ok(3));
    second.delete("second", "e").expect("delete");
    assert!(second.stats("second").is_ok() && !second.pids("second").expect("pids").is_empty());
    second.clear("second");
    let expected = [
        "/tasks/create second",
        "/tasks/start second",
        "/tasks/exec-added e",
        "/tasks/exec-started e",
        "/tasks/exit e",
        "/tasks/exit second",
        "/tasks/delete second",
    ];
    assert_eq!(place.heard(7), expected);
    nobody_was_executed(place.folder.path());
}

#[test]
fn a_restored_task_has_its_terminal_and_one_that_fails_can_be_deleted() {
    let (place, images) = (Place::new("shim-screen"), Images::new());
    let script = "echo up; while read line; do echo got $line; stty size; done";
    let bundle = shell("shim-screen", script, |c| c["process"]["terminal"] = json!(true));
    let terminal =
        |name| Io { terminal: true, stderr: String::new(), ..Io::fifos(place.folder.path(), name) };
    let io = terminal("screen");
    let mut out = io.out();
    let first = shim(&place, &bundle, "screen");
    first.create(&bundle, "screen", &io).expect("create");
    first.start("screen", "").expect("start");
    out.until("up\r\n");
    let checkpoint = images.path().join("a");
    first.checkpoint("screen", &checkpoint, &exit()).expect("checkpoint");
    first.clear("screen");

    let io = terminal("again");
    let mut out = io.out();
    let second = shim(&place, &bundle, "again");
    let path = checkpoint.display().to_string();
    second.create_with(&bundle, "again", &io, |request| request.checkpoint = path.clone()).expect("create");
    // As long as there are no images its start fails, and then it does not.
    std::fs::rename(checkpoint.join("pstree.img"), images.path().join("kept")).expect("rename");
    let (_, text) = second.start("again", "").expect_err("a refusal");
    assert!(text.contains("OCI runtime start failed: restore again: "), "{text}");
    assert_eq!(second.status("again", ""), Status::CREATED);
    std::fs::rename(images.path().join("kept"), checkpoint.join("pstree.img")).expect("rename");
    second.start("again", "").expect("start");
    second.resize("again", "", 12, 34).expect("resize");
    writeln!(io.input(), "this").expect("write");
    out.until("got this\r\n");
    assert_eq!(out.line().trim_end(), "12 34");
    let again = second.checkpoint(
        "again",
        &images.path().join("b"),
        &CheckpointOptions { empty_namespaces: vec!["ipc".into()], ..exit() },
    );
    assert_eq!(again.expect_err("a refusal").0, Code::UNIMPLEMENTED);
    second.clear("again");
}

#[test]
fn criu_is_the_one_that_the_options_name() {
    let (place, images) = (Place::new("shim-criu"), Images::new());
    let file = |name: &str, body: String| {
        let path = place.folder.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("write");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("chmod");
        path.display().to_string()
    };
    let asked = place.folder.path().join("asked");
    let named = file("named", format!("echo named >>{}\nexec /usr/sbin/criu \"$@\"", asked.display()));
    std::fs::create_dir(place.folder.path().join("other")).expect("mkdir");
    // The first in PATH is another.
    file("other/criu", format!("echo other >>{}\nexit 1", asked.display()));
    let path = format!("{}:{}", place.folder.path().join("other").display(), stubs(place.folder.path()));
    let bundle = shell("shim-criu", COUNT, |_| ());
    let shim = |id: &str| {
        let address = place.start_with(&bundle, id, |command| {
            command.env("PATH", &path);
        });
        Shim::at(&address)
    };
    let mut options = Options::default();
    // Its field, which this library does not know.
    options.special_fields.mut_unknown_fields().add_length_delimited(8, named.into_bytes());
    let given = Any {
        type_url: "containerd.runc.v1.Options".into(),
        value: options.write_to_bytes().expect("options"),
        ..Any::default()
    };
    let checkpoint = images.path().join("a");
    for (id, from) in [("first", String::new()), ("second", checkpoint.display().to_string())] {
        let io = Io::fifos(place.folder.path(), id);
        let mut out = io.out();
        let shim = shim(id);
        let create = |request: &mut CreateTaskRequest| {
            request.options = Some(given.clone()).into();
            request.checkpoint = from.clone();
        };
        std::fs::remove_file(&asked).ok();
        shim.create_with(&bundle, id, &io, create).expect("create");
        shim.start(id, "").expect("start");
        number(&out.line());
        if from.is_empty() {
            shim.checkpoint(id, &checkpoint, &exit()).expect("checkpoint");
            assert_eq!(shim.wait(id, ""), Ok(137));
        }
        let asked = std::fs::read_to_string(&asked).expect("who was asked");
        assert!(asked.lines().all(|line| line == "named"), "{id}: {asked}");
        shim.clear(id);
    }
    nobody_was_executed(place.folder.path());
}

#[test]
fn a_person_checkpoints_a_container_with_ctr_and_restores_it_with_its_files() {
    own_mount_namespace();
    let folder = Folder::new("ctr-checkpoint");
    own_run(folder.path());
    let path = stubs(folder.path());
    let left = Left(format!("rcrun-checkpoint-{}", std::process::id()));
    let containerd = Containerd::start(folder.path(), &left.0, path.into()).expect("containerd");
    let ok = |words: &[&str]| {
        let said = said(&containerd.ctr(words.iter().copied()).output().expect("ctr"));
        assert_eq!(said.status, 0, "ctr {words:?}: {}{}", said.out, said.err);
        said.out
    };
    // Begun anew it would say so.
    let script = "if [ -e /begun ]; then echo twice >/begun; else echo once >/begun; fi; \
                  while :; do echo on >/goes; sleep 0.1; done";
    let begun = "until [ -e /goes ]; do sleep 0.1; done; rm /goes; until [ -e /goes ]; do sleep 0.1; done; cat /begun";
    let ask = |id: &str| ok(&["tasks", "exec", "--exec-id", "e", id, "sh", "-c", begun]);
    ok(&["run", "-d", "--cpu-shares", "0", "--runtime", SHIM.0, IMAGE, "first", "sh", "-c", script]);
    assert_eq!(ask("first"), "once\n");
    ok(&["containers", "checkpoint", "--task", "--rw", "--image", "first", "example.test/first:1"]);
    assert_eq!(ask("first"), "once\n", "it goes on");
    let end = |id: &str| {
        ok(&["tasks", "kill", "--signal", "KILL", id]);
        ok(&["tasks", "delete", "--force", id]);
        ok(&["containers", "delete", id]);
    };
    end("first");
    // Without a terminal it returns when the container runs.
    ok(&["containers", "restore", "--live", "--rw", "second", "example.test/first:1"]);
    assert_eq!(ask("second"), "once\n");
    end("second");
    nobody_was_executed(folder.path());
}
