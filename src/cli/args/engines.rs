//! What the engines say, word by word: each command line that containerd, BuildKit, Docker, podman
//! with conmon, CRI-O and conmon-rs are known to write.

use super::image::default_store;
use super::tests::{invocation, refused, words};
use super::*;
use rcrun_runtime::container::Images;
use std::path::Path;

const CONTAINERD: &str = "--root /run/containerd/runc/k8s.io --log /b/log.json --log-format json ";

fn globals(line: &str) -> Globals {
    parse(words(line)).0
}

fn create(start: Start) -> Invocation {
    Invocation::Create(Create { id: "ID".into(), bundle: "/b".into(), start })
}

fn exec_file(file: &str) -> Exec {
    Exec {
        id: "ID".into(),
        process: Process::File(file.into()),
        detach: false,
        console_socket: None,
        pidfd_socket: None,
        pid_file: None,
        preserve_fds: 0,
        cgroup: None,
        ignore_paused: false,
        timings: false,
    }
}

fn kill(signal: i32, all: bool) -> Invocation {
    Invocation::Kill(Kill { id: "ID".into(), signal, all, regex: false })
}

fn delete(force: bool) -> Invocation {
    Invocation::Delete(Delete { id: "ID".into(), force, regex: false, store: default_store() })
}

fn only(id: &str) -> Id {
    Id { id: id.into() }
}

#[test]
fn containerds_shim_is_understood() {
    let pid_file = || Some(PathBuf::from("/b/init.pid"));
    for (line, expected) in [
        (
            "create --bundle /b --pid-file /b/init.pid ID",
            create(Start { pid_file: pid_file(), ..Start::default() }),
        ),
        (
            "create --bundle /b --pid-file /b/init.pid --console-socket /tmp/pty1/pty.sock --no-pivot \
             --no-new-keyring ID",
            create(Start {
                pid_file: pid_file(),
                console_socket: Some("/tmp/pty1/pty.sock".into()),
                no_pivot: true,
                no_new_keyring: true,
                ..Start::default()
            }),
        ),
        ("start ID", Invocation::Start(StartCreated { id: "ID".into(), timings: false })),
        (
            "exec --process /run/runc-process1 --console-socket /tmp/pty1/pty.sock --detach --pid-file /b/e.pid ID",
            Invocation::Exec(Exec {
                detach: true,
                console_socket: Some("/tmp/pty1/pty.sock".into()),
                pid_file: Some("/b/e.pid".into()),
                ..exec_file("/run/runc-process1")
            }),
        ),
        ("kill ID 9", kill(9, false)),
        ("kill --all ID 9", kill(9, true)),
        ("delete ID", delete(false)),
        ("delete --force ID", delete(true)),
        ("pause ID", Invocation::Pause(only("ID"))),
        ("resume ID", Invocation::Resume(only("ID"))),
        ("ps --format json ID", Invocation::Ps(Ps { id: "ID".into(), format: Table::Json, args: vec![] })),
        ("features", Invocation::Features),
    ] {
        let line = format!("{CONTAINERD}{line}");
        assert_eq!(invocation(&line), expected, "{line}");
        assert_eq!(
            globals(&line),
            Globals {
                root: Some("/run/containerd/runc/k8s.io".into()),
                log: Some("/b/log.json".into()),
                log_format: LogFormat::Json,
                ..Globals::default()
            }
        );
    }
}

#[test]
fn go_runcs_other_options_are_understood() {
    assert_eq!(invocation("--debug --rootless=auto state ID"), Invocation::State(only("ID")));
    assert_eq!(
        invocation("create --bundle /b --pidfd-socket /s --preserve-fds 2 ID"),
        create(Start { pidfd_socket: Some("/s".into()), preserve_fds: 2, ..Start::default() })
    );
    assert_eq!(globals("--rootless=true state ID").rootless, Some(true));
}

#[test]
fn buildkit_is_understood() {
    let line = "--log /r/runc-log.json --log-format json run --bundle /b --no-pivot --keep ID";
    assert_eq!(
        invocation(line),
        Invocation::Run(Run {
            what: "ID".into(),
            command: vec![],
            bundle: Some("/b".into()),
            detach: false,
            keep: true,
            rm: false,
            name: None,
            image: Box::default(),
            anywhere: None,
            no_subreaper: false,
            start: Start { no_pivot: true, ..Start::default() },
        })
    );
    assert_eq!(globals(line).root, None);
    for (line, expected) in [
        (
            "exec --process /p --pid-file /f ID",
            Invocation::Exec(Exec { pid_file: Some("/f".into()), ..exec_file("/p") }),
        ),
        ("kill ID 9", kill(9, false)),
        ("state ID", Invocation::State(only("ID"))),
        ("delete ID", delete(false)),
    ] {
        let line = format!("--log /r/runc-log.json --log-format json {line}");
        assert_eq!(invocation(&line), expected, "{line}");
    }
}

#[test]
fn docker_is_understood() {
    assert_eq!(invocation("features"), Invocation::Features);
    assert_eq!(invocation("--version"), Invocation::Version);
    assert_eq!(
        globals("--root /run/docker/runtime-runc/moby --log /b/log.json --log-format json start ID").root,
        Some(PathBuf::from("/run/docker/runtime-runc/moby"))
    );
}

#[test]
fn podman_and_conmon_are_understood() {
    for (line, expected) in [
        ("start ID", Invocation::Start(StartCreated { id: "ID".into(), timings: false })),
        ("kill ID 15", kill(15, false)),
        ("kill --all ID 9", kill(9, true)),
        ("delete --force ID", delete(true)),
        ("pause ID", Invocation::Pause(only("ID"))),
        ("resume ID", Invocation::Resume(only("ID"))),
        (
            "--log-format=json --log /r/oci-log create --bundle /b --pid-file /p --no-pivot --no-new-keyring \
             --console-socket /s ID",
            create(Start {
                pid_file: Some("/p".into()),
                console_socket: Some("/s".into()),
                no_pivot: true,
                no_new_keyring: true,
                ..Start::default()
            }),
        ),
        (
            "exec --pid-file /p --process /f --detach --tty --preserve-fds 3 --console-socket /s ID",
            Invocation::Exec(Exec {
                pid_file: Some("/p".into()),
                detach: true,
                preserve_fds: 3,
                console_socket: Some("/s".into()),
                ..exec_file("/f")
            }),
        ),
    ] {
        assert_eq!(invocation(line), expected, "{line}");
    }
}

#[test]
fn crio_and_conmon_rs_are_understood() {
    for (line, expected) in [
        (
            "--root=/run/rcrun create --bundle /b --pid-file /p ID",
            create(Start { pid_file: Some("/p".into()), ..Start::default() }),
        ),
        (
            "--root=/run/rcrun create --bundle /b --pid-file /p --console-socket=/s ID",
            create(Start {
                pid_file: Some("/p".into()),
                console_socket: Some("/s".into()),
                ..Start::default()
            }),
        ),
        (
            "--root=/run/rcrun exec -d --console-socket=/s --tty --pid-file=/p ID sh -c true",
            Invocation::Exec(Exec {
                detach: true,
                console_socket: Some("/s".into()),
                pid_file: Some("/p".into()),
                process: Process::Command(Box::new(Command {
                    args: words("sh -c true"),
                    tty: true,
                    ..Command::default()
                })),
                ..exec_file("")
            }),
        ),
        ("--root /run/rcrun start ID", Invocation::Start(StartCreated { id: "ID".into(), timings: false })),
        ("--root /run/rcrun state ID", Invocation::State(only("ID"))),
        ("--root /run/rcrun pause ID", Invocation::Pause(only("ID"))),
        ("--root /run/rcrun resume ID", Invocation::Resume(only("ID"))),
        ("--root /run/rcrun kill ID KILL", kill(9, false)),
        ("--root /run/rcrun kill ID TERM", kill(15, false)),
        ("--root /run/rcrun delete --force ID", delete(true)),
        ("--root /run/rcrun exec --process /f ID", Invocation::Exec(exec_file("/f"))),
        ("features", Invocation::Features),
    ] {
        assert_eq!(invocation(line), expected, "{line}");
        if line.starts_with("--root") {
            assert_eq!(globals(line).root, Some(PathBuf::from("/run/rcrun")));
        }
    }
}

#[test]
fn updates_and_events_of_containerd_podman_and_cri_o_are_understood() {
    let update = |wanted| {
        let schemata = update::Schemata::default();
        Invocation::Update(update::Update { id: "ID".into(), wanted, schemata, dry_run: false, safe: false })
    };
    for (line, expected) in [
        ("update --resources=- ID", update(update::Wanted::Stdin)),
        ("update --resources - ID", update(update::Wanted::Stdin)),
        ("update --resources=/tmp/podman1 ID", update(update::Wanted::File("/tmp/podman1".into()))),
        (
            "events --interval=5s ID",
            Invocation::Events(Events { id: "ID".into(), interval: Duration::from_secs(5), stats: false }),
        ),
        (
            "events --stats --interval=1m1.5s ID",
            Invocation::Events(Events {
                id: "ID".into(),
                interval: Duration::from_millis(61_500),
                stats: true,
            }),
        ),
    ] {
        assert_eq!(invocation(line), expected, "{line}");
    }
}

#[test]
fn checkpoint_and_restore_are_read_as_engines_say_them() {
    let images = Images { path: "P".into(), work: Some("W".into()), ..Images::default() };
    let line = "checkpoint --image-path P --work-path W --parent-path ../X --tcp-established --ext-unix-sk --shell-job --file-locks --empty-ns network --leave-running ID";
    let Invocation::Checkpoint(checkpoint) = invocation(line) else { panic!("{line}") };
    assert_eq!(
        checkpoint.images,
        Images {
            tcp_established: true,
            ext_unix_sk: true,
            shell_job: true,
            file_locks: true,
            empty_network: true,
            ..images.clone()
        }
    );
    assert!(checkpoint.leave_running && checkpoint.parent == Some("../X".into()));
    let line =
        "restore --image-path P --work-path W --detach --pid-file F --no-pivot -no-subreaper --bundle B ID";
    let Invocation::Restore(restore) = invocation(line) else { panic!("{line}") };
    assert_eq!(restore.images, images);
    assert!(restore.detach && restore.no_subreaper && restore.bundle == Path::new("B"));
    // podman probes these two.
    assert!(matches!(invocation("checkpoint --help"), Invocation::Help(Some(_))));
    let error = refused("restore --lsm-mount-context");
    assert!(error.to_string().contains("flag needs an argument"), "{error}");
}

#[test]
fn global_options_of_containerd_stand_before_the_verb() {
    let globals = globals(&format!("{CONTAINERD}--systemd-cgroup start ID"));
    assert_eq!(globals.log, Some("/b/log.json".into()));
    assert_eq!(globals.cgroups, Cgroups::Systemd);
}
