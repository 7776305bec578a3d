//! Hooks that are missing, fail, or do not end.

use super::scene::{ROOT, program};
use super::{Case, case, told};
use serde_json::{Value, json};

const PART: &str = "hooks";

fn hooks(kind: &str, hook: Value) -> Value {
    json!({ kind: [hook] })
}

pub(super) fn cases() -> Vec<Case> {
    let script = |text: &str| program("/mnt/hook", format!("#!/bin/sh\n{text}\n"), 0o755);
    let hook = || json!({ "path": "/mnt/hook" });
    let mut all = vec![
        case(
            PART,
            "a hook that is missing",
            told("hook", "/hooks/createRuntime/0", &["/mnt/nohook", "no such file or directory"]),
            |s| s.put("/hooks", hooks("createRuntime", json!({ "path": "/mnt/nohook" }))).create(),
        ),
        case(
            PART,
            "a hook that is not executable",
            told("hook", "/hooks/createRuntime/0", &["/mnt/hook", "permission denied"]),
            move |s| {
                program("/mnt/hook", "#!/bin/sh\n", 0o644);
                s.put("/hooks", hooks("createRuntime", hook())).create()
            },
        ),
        case(
            PART,
            "a hook that is a folder",
            told("hook", "/hooks/createRuntime/0", &["/mnt", "permission denied"]),
            |s| s.put("/hooks", hooks("createRuntime", json!({ "path": "/mnt" }))).create(),
        ),
        case(
            PART,
            "a hook whose interpreter is missing",
            told(
                "hook",
                "/hooks/createRuntime/0",
                &["/mnt/hook", "no such file or directory", "the file is there", "interpreter"],
            ),
            move |s| {
                program("/mnt/hook", "#!/bin/nosuch\n", 0o755);
                s.put("/hooks", hooks("createRuntime", hook())).create()
            },
        ),
        case(
            PART,
            "a hook without a first line",
            told("hook", "/hooks/createRuntime/0", &["/mnt/hook", "exec format error"]),
            move |s| {
                program("/mnt/hook", "true\n", 0o755);
                s.put("/hooks", hooks("createRuntime", hook())).create()
            },
        ),
        case(
            PART,
            "a hook that is killed",
            told("hook", "/hooks/createRuntime/0", &["/mnt/hook", "signal"]),
            move |s| {
                script("kill -SEGV $$");
                s.put("/hooks", hooks("createRuntime", hook())).create()
            },
        ),
        case(
            PART,
            "a hook that does not end",
            told("hook", "/hooks/createRuntime/0", &["/mnt/hook", "1 s"]),
            move |s| {
                script("sleep 1000");
                s.put("/hooks", hooks("createRuntime", json!({ "path": "/mnt/hook", "timeout": 1 }))).create()
            },
        ),
        case(
            PART,
            "a hook that says much and fails",
            told("hook", "/hooks/createRuntime/0", &["exit status 2", "the last word"]),
            move |s| {
                script(
                    "i=0; while [ $i -lt 2000 ]; do echo line $i >&2; i=$((i+1)); done; echo the last word >&2; exit 2",
                );
                s.put("/hooks", hooks("createRuntime", hook())).create()
            },
        ),
    ];
    for (kind, field, name) in [
        ("prestart", "/hooks/prestart/0", "a prestart hook that fails"),
        ("createRuntime", "/hooks/createRuntime/0", "a createRuntime hook that fails"),
        ("createContainer", "/hooks/createContainer/0", "a createContainer hook that fails"),
    ] {
        all.push(case(
            PART,
            name,
            told("hook", field, &["/mnt/hook", "exit status 3", "no address is free"]),
            move |s| {
                script("echo no address is free >&2; exit 3");
                s.put("/hooks", hooks(kind, hook())).run()
            },
        ));
    }
    all.push(case(
        PART,
        "a startContainer hook that fails",
        told("hook", "/hooks/startContainer/0", &["/hook", "exit status 3", "no address is free"]),
        move |s| {
            program(&format!("{ROOT}/hook"), "#!/bin/sh\necho no address is free >&2\nexit 3\n", 0o755);
            s.put("/hooks", hooks("startContainer", json!({ "path": "/hook" }))).run()
        },
    ));
    all.push(case(
        PART,
        "a startContainer hook that the container has not",
        told("hook", "/hooks/startContainer/0", &["/mnt/hook", "no such file or directory"]),
        move |s| {
            script("true");
            s.put("/hooks", hooks("startContainer", hook())).run()
        },
    ));
    all
}
