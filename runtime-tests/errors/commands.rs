//! Commands on containers that are not in the state for them, and command lines that are none.

use super::programs::foreign_elf;
use super::scene::{BUNDLE, ROOT, STATE, Scene, program};
use super::{Case, Told, case, told};
use serde_json::json;
use std::fs;

const PART: &str = "verbs";

/// A verb on an id that no container has.
fn nobody(name: &'static str, words: &'static [&'static str], status: i32) -> Case {
    case(PART, name, told("not-found", "", &["does not exist"]).status(status), move |s| s.say(words))
}

fn line(name: &'static str, words: &'static [&'static str], told: Told) -> Case {
    case(PART, name, told.unnamed(), move |s| s.say(words))
}

/// A verb on a container in this state.
fn on(
    name: &'static str,
    state: fn(&mut Scene) -> &mut Scene,
    words: &'static [&'static str],
    told: Told,
) -> Case {
    case(PART, name, told, move |s| state(s).say(words))
}

fn up(s: &mut Scene) -> &mut Scene {
    s.up()
}

fn stopped(s: &mut Scene) -> &mut Scene {
    s.stopped()
}

fn created(s: &mut Scene) -> &mut Scene {
    s.created()
}

fn paused(s: &mut Scene) -> &mut Scene {
    s.up().ready(&["pause", "ID"])
}

pub(super) fn cases() -> Vec<Case> {
    let mut all = vec![
        nobody("start of a container that is not there", &["start", "ID"], 1),
        nobody("state of a container that is not there", &["state", "ID"], 1),
        nobody("kill of a container that is not there", &["kill", "ID"], 1),
        nobody("delete of a container that is not there", &["delete", "ID"], 1),
        nobody("exec in a container that is not there", &["exec", "ID", "true"], 255),
        nobody("pause of a container that is not there", &["pause", "ID"], 1),
        nobody("resume of a container that is not there", &["resume", "ID"], 1),
        nobody("ps of a container that is not there", &["ps", "ID"], 1),
        nobody("update of a container that is not there", &["update", "--pids-limit", "5", "ID"], 1),
        nobody("events of a container that is not there", &["events", "--stats", "ID"], 1),
    ];
    all.extend(states());
    all.extend(execs());
    all.extend(lines());
    all.extend(broken());
    all
}

fn states() -> Vec<Case> {
    vec![
        on(
            "create with an id that is taken",
            created,
            &["create", "--bundle", BUNDLE, "ID"],
            told("exists", "", &["container with given ID already exists", "rcrun delete"]),
        ),
        on(
            "run with an id that a stopped container has",
            stopped,
            &["run", "--bundle", BUNDLE, "ID"],
            told("exists", "", &["container with given ID already exists", "rcrun delete"]),
        ),
        on(
            "start of a running container",
            up,
            &["start", "ID"],
            told("status", "", &["cannot start an already running container"]),
        ),
        on(
            "start of a stopped container",
            stopped,
            &["start", "ID"],
            told("status", "", &["cannot start a container that has stopped"]),
        ),
        on(
            "kill of a stopped container",
            stopped,
            &["kill", "ID", "TERM"],
            told("status", "", &["container not running"]),
        ),
        on(
            "kill with a signal that nobody knows",
            up,
            &["kill", "ID", "FOO"],
            told("usage", "", &["FOO", "signal"]).unnamed(),
        ),
        on(
            "kill with a signal beyond the last",
            up,
            &["kill", "ID", "65"],
            told("usage", "", &["65", "signal"]).unnamed(),
        ),
        on(
            "delete of a running container",
            up,
            &["delete", "ID"],
            told("status", "", &["not stopped", "--force"]),
        ),
        on(
            "delete of a paused container",
            paused,
            &["delete", "ID"],
            told("status", "", &["not stopped", "--force"]),
        ),
        on("pause of a paused container", paused, &["pause", "ID"], told("status", "", &["paused"])),
        on("pause of a stopped container", stopped, &["pause", "ID"], told("status", "", &["not running"])),
        on("resume of a running container", up, &["resume", "ID"], told("status", "", &["not paused"])),
        on(
            "update of a stopped container",
            stopped,
            &["update", "--pids-limit", "5", "ID"],
            told("status", "", &["not running"]),
        ),
        on(
            "update with a limit that has no controller",
            up,
            &["update", "--memory", "64m", "ID"],
            told("host", "/memory/limit", &["memory", "controller"]),
        ),
        on(
            "update with an amount that is none",
            up,
            &["update", "--memory", "much", "ID"],
            told("usage", "", &["--memory", "much", "512m"]).unnamed(),
        ),
        on(
            "update with a file that is missing",
            up,
            &["update", "--resources", "/mnt/nowhere.json", "ID"],
            told("config", "", &["--resources /mnt/nowhere.json", "not found in /mnt"]),
        ),
        case(
            PART,
            "update with a file that is no JSON",
            told("config", "", &["--resources /mnt/r.json", "not valid JSON"]),
            |s| {
                fs::write("/mnt/r.json", "memory: 64m").expect("write");
                s.up().say(&["update", "--resources", "/mnt/r.json", "ID"])
            },
        ),
        on(
            "events of a stopped container",
            stopped,
            &["events", "--stats", "ID"],
            told("status", "", &["not running"]),
        ),
    ]
}

fn execs() -> Vec<Case> {
    let exec = |code, field: &str, words: &[&'static str]| told(code, field, words).status(255);
    vec![
        on(
            "exec in a stopped container",
            stopped,
            &["exec", "ID", "true"],
            exec("status", "", &["cannot exec in a container that is not running", "container not running"]),
        ),
        on(
            "exec in a paused container",
            paused,
            &["exec", "ID", "true"],
            exec("status", "", &["cannot exec in a paused container", "--ignore-paused"]),
        ),
        on(
            "exec of a program that is not in $PATH",
            up,
            &["exec", "ID", "nginx"],
            exec("execute", "/process/args/0", &["exec: \"nginx\": executable file not found in $PATH"]),
        ),
        on(
            "exec of a program that is not there",
            up,
            &["exec", "ID", "/usr/bin/nginx"],
            exec("execute", "/process/args/0", &["exec: \"/usr/bin/nginx\"", "no such file or directory"]),
        ),
        on(
            "exec of a folder",
            up,
            &["exec", "ID", "/etc"],
            exec("execute", "/process/args/0", &["exec: \"/etc\"", "is a directory", "permission denied"]),
        ),
        case(
            PART,
            "exec of a program that nobody may execute",
            exec("execute", "/process/args/0", &["exec /run.sh:", "permission denied", "chmod +x"]),
            |s| {
                program(&format!("{ROOT}/run.sh"), "#!/bin/sh\n", 0o644);
                s.up().say(&["exec", "ID", "/run.sh"])
            },
        ),
        case(
            PART,
            "exec of a program that the user may not execute",
            exec("execute", "/process/args/0", &["exec /run.sh:", "permission denied", "uid 1000"]),
            |s| {
                program(&format!("{ROOT}/run.sh"), "#!/bin/sh\n", 0o700);
                s.up().say(&["exec", "--user", "1000", "ID", "/run.sh"])
            },
        ),
        case(
            PART,
            "exec of a script whose interpreter is missing",
            exec(
                "execute",
                "/process/args/0",
                &["exec: \"/run.sh\"", "no such file or directory", "/bin/bash"],
            ),
            |s| {
                program(&format!("{ROOT}/run.sh"), "#!/bin/bash\n", 0o755);
                s.up().say(&["exec", "ID", "/run.sh"])
            },
        ),
        case(
            PART,
            "exec of a program for another architecture",
            exec("execute", "/process/args/0", &["exec /ia64:", "exec format error", "architecture"]),
            |s| {
                program(&format!("{ROOT}/ia64"), foreign_elf(), 0o755);
                s.up().say(&["exec", "ID", "/ia64"])
            },
        ),
        on(
            "exec in a folder that is missing",
            up,
            &["exec", "--cwd", "/nowhere", "ID", "true"],
            exec("system", "/process/cwd", &["change to the folder /nowhere", "no such file or directory"]),
        ),
        on(
            "exec as a user by name",
            up,
            &["exec", "--user", "web", "ID", "true"],
            told("usage", "", &["--user", "web", "names are not looked up"]).unnamed(),
        ),
        on(
            "exec with a variable without a name",
            up,
            &["exec", "--env", "=HOME", "ID", "true"],
            exec("config", "/env/2", &["invalid environment variable", "HOME"]),
        ),
        on(
            "exec without a command",
            up,
            &["exec", "ID"],
            told("usage", "", &["exec", "a command"]).unnamed(),
        ),
        on(
            "exec with a file that is missing",
            up,
            &["exec", "--process", "/mnt/p.json", "ID"],
            exec("config", "", &["p.json", "not found in /mnt"]),
        ),
        case(
            PART,
            "exec with a file that is no JSON",
            exec("config", "", &["process.json", "not valid JSON"]),
            |s| {
                fs::write("/mnt/p.json", "args: [true]").expect("write");
                s.up().say(&["exec", "--process", "/mnt/p.json", "ID"])
            },
        ),
        case(
            PART,
            "exec with a file that lacks a field",
            exec("config", "/cwd", &["process.json", "required"]),
            |s| {
                fs::write(
                    "/mnt/p.json",
                    json!({ "args": ["true"], "user": { "uid": 0, "gid": 0 } }).to_string(),
                )
                .expect("write");
                s.up().say(&["exec", "--process", "/mnt/p.json", "ID"])
            },
        ),
        on(
            "exec with a terminal and no console socket",
            up,
            &["exec", "--tty", "--detach", "ID", "true"],
            exec(
                "usage",
                "/process/terminal",
                &["cannot allocate tty if runc will detach without setting console socket"],
            ),
        ),
        on(
            "exec with a capability that nobody knows",
            up,
            &["exec", "--cap", "CAP_FLY", "ID", "true"],
            exec("usage", "", &["CAP_FLY"]),
        ),
        on(
            "exec in a cgroup that is not there",
            up,
            &["exec", "--cgroup", "nowhere", "ID", "true"],
            exec("system", "", &["--cgroup", "nowhere", "no such file or directory"]),
        ),
    ]
}

fn lines() -> Vec<Case> {
    let usage = |words: &[&'static str]| told("usage", "", words);
    vec![
        line("a verb that nobody knows", &["strat", "web"], usage(&["strat", "rcrun help"])),
        line("no container id", &["state"], usage(&["state", "id"])),
        line("two container ids", &["state", "a", "b"], usage(&["b"])),
        line("a flag that nobody knows", &["create", "--bundel", BUNDLE, "web"], usage(&["bundel"])),
        line("a flag without its value", &["create", "web", "--pid-file"], usage(&["--pid-file"])),
        line(
            "a flag whose value is no number",
            &["create", "--preserve-fds", "many", "web"],
            usage(&["--preserve-fds", "many"]),
        ),
        line("an id that is a path", &["state", "../web"], usage(&["../web"])),
        line("an id with a space", &["state", "a b"], usage(&["a b"])),
        line("a format that nobody knows", &["list", "--format", "yaml"], usage(&["--format", "yaml"])),
        line("spec where a config.json is", &["spec"], told("exists", "", &["config.json", "exists"])),
    ]
}

fn broken() -> Vec<Case> {
    let state = |s: &Scene, text: &str| {
        let folder = format!("{STATE}/{}", s.id);
        fs::create_dir(&folder).expect("mkdir");
        fs::write(format!("{folder}/state.json"), text).expect("write");
    };
    vec![
        case(
            PART,
            "a state that was cut in the middle",
            told("system", "", &["/mnt/state/web/state.json", "EOF", "delete --force"]),
            move |s| {
                state(s, "{\"pid\": ");
                s.say(&["state", "ID"])
            },
        ),
        case(
            PART,
            "a folder of a container without a state",
            told("status", "", &["cannot start a container that has stopped"]),
            |s| {
                fs::create_dir(format!("{STATE}/{}", s.id)).expect("mkdir");
                s.say(&["start", "ID"])
            },
        ),
        case(
            PART,
            "a state of a newer version",
            told("system", "", &["/mnt/state/web/state.json", "ociVersion", "delete --force"]),
            move |s| {
                state(s, "{\"version\": 999}");
                s.say(&["kill", "ID"])
            },
        ),
    ]
}
