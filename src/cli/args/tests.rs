//! What people type, verb by verb, and what it resolves to.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::*;
use rcrun_runtime::container::{Cgroups, PageServer};

pub(super) fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

pub(super) fn invocation(line: &str) -> Invocation {
    parse(words(line)).1.unwrap_or_else(|e| panic!("{line}: {e}"))
}

pub(super) fn refused(line: &str) -> Error {
    match parse(words(line)).1 {
        Err(error) => error,
        Ok(invocation) => panic!("{line}: {invocation:?}"),
    }
}

fn id() -> String {
    "x".into()
}

fn bare_create() -> Create {
    Create { id: id(), bundle: ".".into(), start: Start::default() }
}

fn bare_run() -> Run {
    Run {
        what: "x".into(),
        command: vec![],
        bundle: None,
        detach: false,
        keep: false,
        rm: false,
        name: None,
        image: Box::default(),
        anywhere: None,
        no_subreaper: false,
        start: Start::default(),
    }
}

/// What a line means for an image, and what for anything else.
fn both(command: &str, anywhere: Run) -> Run {
    Run { command: words(command), anywhere: Some(Box::new(anywhere)), ..bare_run() }
}

fn bare_exec(process: Process) -> Exec {
    Exec {
        id: id(),
        process,
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

fn command(line: &str) -> Command {
    Command { args: words(line), ..Command::default() }
}

fn exec(command: Command) -> Invocation {
    Invocation::Exec(bare_exec(Process::Command(Box::new(command))))
}

#[test]
fn create_and_run_take_their_options_before_and_after_the_id() {
    let start = || Start {
        config: None,
        console_socket: Some("C".into()),
        pidfd_socket: Some("F".into()),
        pid_file: Some("P".into()),
        no_pivot: true,
        no_new_keyring: true,
        preserve_fds: 4,
        timings: true,
    };
    let all = "--console-socket C --pidfd-socket=F -pid-file P --no-pivot -no-new-keyring --preserve-fds 4 --timings";
    for (line, expected) in [
        ("create x".to_string(), bare_create()),
        ("create x --bundle B".into(), Create { bundle: "B".into(), ..bare_create() }),
        ("create -b B x".into(), Create { bundle: "B".into(), ..bare_create() }),
        ("create -bundle=B x".into(), Create { bundle: "B".into(), ..bare_create() }),
        ("create --bundle= x".into(), bare_create()),
        ("create --bundle A --bundle B x".into(), Create { bundle: "B".into(), ..bare_create() }),
        ("create -- -x".into(), Create { id: "-x".into(), ..bare_create() }),
        ("create --no-pivot=false x".into(), bare_create()),
        ("create --no-pivot --no-pivot=false x".into(), bare_create()),
        (
            "create --no-pivot=0 --no-pivot x".into(),
            Create { start: Start { no_pivot: true, ..Start::default() }, ..bare_create() },
        ),
        (format!("create {all} x"), Create { start: start(), ..bare_create() }),
        (format!("create x {all}"), Create { start: start(), ..bare_create() }),
    ] {
        assert_eq!(invocation(&line), Invocation::Create(expected), "{line}");
    }
    for (line, expected) in [
        ("run x".to_string(), bare_run()),
        ("run -d x".into(), Run { detach: true, ..bare_run() }),
        ("run x --detach".into(), both("--detach", Run { detach: true, ..bare_run() })),
        ("run x --bundle B".into(), both("--bundle B", Run { bundle: Some("B".into()), ..bare_run() })),
        ("run x --help".into(), Run { command: words("--help"), ..bare_run() }),
        ("run --keep -no-subreaper x".into(), Run { keep: true, no_subreaper: true, ..bare_run() }),
        ("run x y -- -z".into(), Run { command: words("y -- -z"), ..bare_run() }),
        (format!("run {all} x"), Run { start: start(), ..bare_run() }),
    ] {
        assert_eq!(invocation(&line), Invocation::Run(expected), "{line}");
    }
}

#[test]
fn exec_leaves_everything_after_the_id_to_the_command() {
    for (line, expected) in [
        ("exec x ls", exec(command("ls"))),
        ("exec x ls -l --help -t", exec(command("ls -l --help -t"))),
        ("exec x -- ls -l", exec(command("ls -l"))),
        ("exec -- x ls", exec(command("ls"))),
        ("exec x sh -- -c", exec(command("sh -- -c"))),
        ("exec x -t", exec(command("-t"))),
        ("exec -t x sh", exec(Command { tty: true, ..command("sh") })),
        // It reads its standard input in any case.
        ("exec -it x sh", exec(Command { tty: true, ..command("sh") })),
        ("exec -i x sh", exec(command("sh"))),
        ("exec -tty=true x sh", exec(Command { tty: true, ..command("sh") })),
        (
            "exec -e A=1 --env B=2 -e A=1 -eC= x env",
            exec(Command { env: words("A=1 B=2 A=1 C="), ..command("env") }),
        ),
        (
            "exec -c CAP_SYS_ADMIN --cap=CAP_CHOWN -cap CAP_CHOWN x sh",
            exec(Command {
                caps: vec!["CAP_SYS_ADMIN".into(), "CAP_CHOWN".into(), "CAP_CHOWN".into()],
                ..command("sh")
            }),
        ),
        ("exec -u 1000 x id", exec(Command { user: Some(User { uid: 1000, gid: None }), ..command("id") })),
        (
            "exec --user=1:2 -g 3 --additional-gids 4 x id",
            exec(Command {
                user: Some(User { uid: 1, gid: Some(2) }),
                additional_gids: vec![3, 4],
                ..command("id")
            }),
        ),
        (
            "exec --cwd /tmp --no-new-privs --apparmor P --process-label L x sh",
            exec(Command {
                cwd: Some("/tmp".into()),
                no_new_privs: true,
                apparmor: Some("P".into()),
                process_label: Some("L".into()),
                ..command("sh")
            }),
        ),
        ("exec -p F x", Invocation::Exec(bare_exec(Process::File("F".into())))),
        ("exec -t -p F x", Invocation::Exec(bare_exec(Process::File("F".into())))),
        (
            "exec -d --pid-file P --console-socket C --pidfd-socket S --preserve-fds=2 --cgroup sub \
             --ignore-paused x sh",
            Invocation::Exec(Exec {
                detach: true,
                console_socket: Some("C".into()),
                pidfd_socket: Some("S".into()),
                pid_file: Some("P".into()),
                preserve_fds: 2,
                cgroup: Some("sub".into()),
                ignore_paused: true,
                timings: false,
                ..bare_exec(Process::Command(Box::new(command("sh"))))
            }),
        ),
    ] {
        assert_eq!(invocation(line), expected, "{line}");
    }
}

#[test]
fn a_command_for_exec_need_not_be_utf8() {
    let odd = OsString::from_vec(b"\xff".to_vec());
    let line = vec!["exec".into(), "-e".into(), odd.clone(), "x".into(), odd.clone()];
    let expected = Command { args: vec![odd.clone()], env: vec![odd], ..Command::default() };
    assert_eq!(parse(line).1.unwrap(), exec(expected));
}

#[test]
fn the_other_verbs_resolve() {
    let kill = |signal, all| Invocation::Kill(Kill { id: id(), signal, all, regex: false });
    let delete =
        |force| Invocation::Delete(Delete { id: id(), force, regex: false, store: image::default_store() });
    let mounts = |change, file: &str| Invocation::Mounts(Mounts { change, id: id(), file: file.into() });
    let list = |format, quiet| Invocation::List(List { format, quiet });
    let ps = |format, args: &str| Invocation::Ps(Ps { id: id(), format, args: words(args) });
    let spec = |bundle: &str, rootless| {
        Invocation::Spec(Spec { bundle: bundle.into(), file: "config.json".into(), rootless })
    };
    let plan = |bundle: &str, process: Option<&str>, format| {
        Invocation::Plan(Plan {
            bundle: bundle.into(),
            process: process.map(PathBuf::from),
            format,
            seccomp_out: None,
        })
    };
    let filter_of = |bundle: &str, out: &str| {
        Invocation::Plan(Plan {
            bundle: bundle.into(),
            process: None,
            format: PlanFormat::Text,
            seccomp_out: Some(out.into()),
        })
    };
    for (line, expected) in [
        ("start x", Invocation::Start(StartCreated { id: id(), timings: false })),
        ("start --timings x", Invocation::Start(StartCreated { id: id(), timings: true })),
        ("state x", Invocation::State(Id { id: id() })),
        ("pause x", Invocation::Pause(Id { id: id() })),
        ("resume -- x", Invocation::Resume(Id { id: id() })),
        ("kill x", kill(15, false)),
        ("kill x 9", kill(9, false)),
        ("kill x KILL", kill(9, false)),
        ("kill --all x sigterm", kill(15, true)),
        ("kill x 9 -a", kill(9, true)),
        ("kill -all=false x RTMIN+3", kill(37, false)),
        ("delete x", delete(false)),
        ("delete -f x", delete(true)),
        ("delete x --force", delete(true)),
        ("list", list(Table::Table, false)),
        ("list -q", list(Table::Table, true)),
        ("list -f json", list(Table::Json, false)),
        ("list --format=table -quiet", list(Table::Table, true)),
        ("ps x", ps(Table::Table, "")),
        ("ps x -ef", ps(Table::Table, "-ef")),
        ("ps x -- -ef", ps(Table::Table, "-ef")),
        ("ps -f json x -f table", ps(Table::Json, "-f table")),
        ("spec", spec(".", false)),
        ("spec -b B --rootless", spec("B", true)),
        ("spec -f F", Invocation::Spec(Spec { bundle: ".".into(), file: "F".into(), rootless: false })),
        ("mounts add x F", mounts(MountsChange::Add, "F")),
        ("mounts remove x -", mounts(MountsChange::Remove, "-")),
        ("features", Invocation::Features),
        ("doctor", Invocation::Doctor(Table::Table)),
        ("doctor --format json", Invocation::Doctor(Table::Json)),
        ("check", Invocation::Check(Check { bundle: ".".into(), format: PlanFormat::Text })),
        ("check B -f json", Invocation::Check(Check { bundle: "B".into(), format: PlanFormat::Json })),
        ("check -b B", Invocation::Check(Check { bundle: "B".into(), format: PlanFormat::Text })),
        ("plan", plan(".", None, PlanFormat::Text)),
        ("plan B", plan("B", None, PlanFormat::Text)),
        ("plan --bundle B --format json", plan("B", None, PlanFormat::Json)),
        ("plan B -f text --process F", plan("B", Some("F"), PlanFormat::Text)),
        ("plan --seccomp-out O B", filter_of("B", "O")),
        ("plan B --seccomp-out=O", filter_of("B", "O")),
    ] {
        assert_eq!(invocation(line), expected, "{line}");
    }
}

#[test]
fn help_is_asked_for_in_each_of_the_usual_ways() {
    for line in ["", "help", "--help", "-h", "-help", "--debug help"] {
        assert_eq!(invocation(line), Invocation::Help(None), "{line:?}");
    }
    for verb in flags::VERBS {
        for line in ["VERB --help", "VERB -h", "VERB -help", "help VERB", "--root R VERB --help"] {
            let line = line.replace("VERB", verb.name);
            assert_eq!(invocation(&line), Invocation::Help(Some(verb)), "{line}");
        }
    }
    for line in ["create x --help", "--systemd-cgroup create --help"] {
        assert!(matches!(invocation(line), Invocation::Help(Some(verb)) if verb.name == "create"), "{line}");
    }
    for line in ["--version", "-v", "--systemd-cgroup --version"] {
        assert_eq!(invocation(line), Invocation::Version, "{line}");
    }
}

#[test]
fn a_wrong_command_line_is_one_sentence() {
    for (line, expected) in [
        ("create", "create: an argument is missing: a container id (usage: rcrun create ID)"),
        (
            "run",
            "run: an argument is missing: an image, a bundle or a container id (usage: rcrun run IMAGE|BUNDLE|ID [COMMAND [ARG...]])",
        ),
        ("create x y", "create: one argument too many: \"y\" (usage: rcrun create ID)"),
        ("list x", "list: one argument too many: \"x\" (usage: rcrun list)"),
        ("features x", "features: one argument too many: \"x\" (usage: rcrun features)"),
        ("kill x 9 9", "kill: one argument too many: \"9\" (usage: rcrun kill ID [SIGNAL])"),
        ("create --bundle", "create: flag needs an argument: --bundle"),
        ("create x -b", "create: flag needs an argument: --bundle"),
        ("exec -u", "exec: flag needs an argument: --user"),
        (
            "create --foo x",
            "create: flag provided but not defined: --foo (`rcrun help create` lists the options)",
        ),
        ("create -z x", "create: flag provided but not defined: -z (`rcrun help create` lists the options)"),
        (
            "run -p 80:80 app",
            "run: flag provided but not defined: -p (rcrun makes no networks: --net host has the machine's)",
        ),
        (
            "create --root R x",
            "create: flag provided but not defined: --root (a global option stands before the command: \
             rcrun --root ... create)",
        ),
        ("create --no-pivot=maybe x", "create: --no-pivot: \"maybe\" is neither true nor false"),
        ("create --preserve-fds x x", "create: --preserve-fds: \"x\": invalid digit found in string"),
        ("create --preserve-fds=-1 x", "create: --preserve-fds: \"-1\": -1 is not in 0..=1048576"),
        (
            "run --preserve-fds 4294967296 x",
            "run: --preserve-fds: \"4294967296\": 4294967296 is not in 0..=1048576",
        ),
        ("list -f xml", "list: --format: \"xml\" is not one of table, json"),
        ("check -b B C", "check: --bundle names the bundle already: what is \"C\"?"),
        ("check B C", "check: one argument too many: \"C\" (usage: rcrun check [BUNDLE])"),
        ("plan -f table", "plan: --format: \"table\" is not one of text, json"),
        ("plan -b B C", "plan: --bundle names the bundle already: what is \"C\"?"),
        ("kill x NOPE", "kill: unknown signal \"NOPE\""),
        ("mounts", "mounts: an argument is missing: add or remove (usage: rcrun mounts add|remove ID FILE)"),
        ("mounts x y z", "mounts: \"x\" is neither add nor remove"),
        (
            "mounts add x",
            "mounts: an argument is missing: a file with a list of mounts (-: standard input) (usage: rcrun mounts add|remove ID FILE)",
        ),
        ("mounts add x y z", "mounts: one argument too many: \"z\" (usage: rcrun mounts add|remove ID FILE)"),
        (
            "exec x",
            "exec: an argument is missing: a command (or --process FILE) (usage: rcrun exec ID COMMAND [ARG...])",
        ),
        (
            "exec x --",
            "exec: an argument is missing: a command (or --process FILE) (usage: rcrun exec ID COMMAND [ARG...])",
        ),
        (
            "exec -p F x sh",
            "exec: --process says all about the process: no command and no option that describes one may stand beside it",
        ),
        (
            "exec -p F -u 1 x",
            "exec: --process says all about the process: no command and no option that describes one may stand beside it",
        ),
        (
            "exec -u root x sh",
            "exec: --user: \"root\" is no user number (UID[:GID]; names are not looked up)",
        ),
        ("exec -u 1: x sh", "exec: --user: \"\" is no group number (UID[:GID]; names are not looked up)"),
        (
            "exec -u 4294967295 x sh",
            "exec: --user: \"4294967295\" is no user number (UID[:GID]; names are not looked up)",
        ),
        ("exec -u +1 x sh", "exec: --user: \"+1\" is no user number (UID[:GID]; names are not looked up)"),
        ("exec -g g x sh", "exec: --additional-gids: \"g\": invalid digit found in string"),
        (
            "exec --cgroup a --cgroup b x sh",
            "exec: --cgroup: cgroup v2 has one path for all controllers: give the option once",
        ),
        (
            "exec --cgroup cpu:a x sh",
            "exec: --cgroup: \"cpu:a\": cgroup v2 has no controllers with paths of their own: give the path alone",
        ),
        ("nope", "No help topic for 'nope': `rcrun help` lists the commands"),
        ("help nope", "No help topic for 'nope': `rcrun help` lists the commands"),
        ("--foo create x", "flag provided but not defined: --foo"),
    ] {
        let error = refused(line);
        assert_eq!(error.to_string(), expected, "{line}");
        assert_eq!(error.code(), Code::Usage, "{line}");
    }
}

#[test]
fn what_is_not_utf8_is_refused_where_it_cannot_be_meant() {
    let odd = OsString::from_vec(b"\xff".to_vec());
    for (before, expected) in [
        (vec!["create"], "create: the container id \"\\xFF\" is not UTF-8"),
        (vec!["exec", "-u"], "exec: --user: \"\\xFF\" is not UTF-8"),
        (vec!["list", "-f"], "list: --format: \"\\xFF\" is not UTF-8"),
        (vec![], "No help topic for '�': `rcrun help` lists the commands"),
    ] {
        let mut line: Vec<OsString> = before.iter().map(OsString::from).collect();
        line.push(odd.clone());
        assert_eq!(parse(line).1.unwrap_err().to_string(), expected, "{before:?}");
    }
}

#[test]
fn words_of_a_checkpoint_are_read() {
    let Invocation::Checkpoint(lazy) = invocation(
        "checkpoint --lazy-pages --page-server [::1]:27 --status-fd 5 --manage-cgroups-mode=ignore x",
    ) else {
        panic!("checkpoint")
    };
    assert_eq!(lazy.page_server, Some(PageServer { address: "::1".into(), port: 27 }));
    assert_eq!((lazy.status_fd, lazy.images.cgroups), (Some(5), Cgroups::Ignore));
    assert_eq!(lazy.images.path, std::path::Path::new("checkpoint"));
    for (line, expected) in [
        ("checkpoint --page-server 27 x", "checkpoint: --page-server: \"27\" is not ADDRESS:PORT"),
        ("checkpoint --page-server a:0 x", "checkpoint: --page-server: \"a:0\" is not ADDRESS:PORT"),
        ("checkpoint --status-fd a x", "checkpoint: --status-fd: \"a\" is no number of a descriptor"),
        (
            "restore --manage-cgroups-mode all x",
            "restore: --manage-cgroups-mode: \"all\" is not one of soft, full, strict, ignore",
        ),
        ("checkpoint --empty-ns pid x", "checkpoint: --empty-ns: \"pid\" is not one of network"),
    ] {
        assert_eq!(refused(line).to_string(), expected, "{line}");
    }
}
