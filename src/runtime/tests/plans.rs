//! Golden plans: what each config.json under plans/ compiles to, as text and as JSON. They pin the order of operations; a
//! reviewer of a change reads the difference of the goldens first. No root, no kernel, and no file but config.json.
//! `RCRUN_BLESS=1 cargo test -p rcrun-runtime --test plans` writes them anew.
//! Uses: spec, compile, plan_text of rcrun-runtime.

use rcrun_runtime::compile::{self, ExecRequest, HookPlace, HookRequest, Request};
use rcrun_runtime::host::{Arch, Caller, Host};
use rcrun_runtime::plan::Plan;
use rcrun_runtime::spec::{self, Spec};
use rcrun_runtime::{Result, plan_text};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What is compiled from a config.
#[derive(Clone, Copy)]
enum Verb {
    Create,
    /// With --no-pivot, --no-new-keyring, --preserve-fds and a NOTIFY_SOCKET.
    Run,
    /// Of the config's own process.
    Exec,
    /// Of the config's first hook of the kind.
    CreateContainer,
    StartContainer,
}

/// Linux 6.1 with all capabilities.
const HOST: Host = Host {
    kernel: (6, 1),
    last_cap: 40,
    bounding: (1 << 41) - 1,
    arch: Arch::X86_64,
    apparmor: false,
    selinux: false,
    caller: Caller::ROOT,
};
/// An ordinary user.
const USER: Host = Host {
    caller: Caller { uid: 1000, gid: 1000, privileged: false, clones_mounts: false, ..Caller::ROOT },
    ..HOST
};
/// Root of a user namespace that an engine has made: it owns its mounts.
const GUEST: Host = Host { caller: Caller { user_namespace: true, ..Caller::ROOT }, ..HOST };
/// What runs in most containers: no CAP_SYS_ADMIN.
const CONFINED: Host = Host { bounding: 0xa804_25fb, ..HOST };
/// Before CAP_PERFMON, CAP_BPF, CAP_CHECKPOINT_RESTORE.
const OLDER: Host = Host { kernel: (5, 14), last_cap: 37, bounding: (1 << 38) - 1, ..HOST };
/// The first kernel whose mountinfo lists mounts by their age.
const NEWER: Host = Host { kernel: (6, 8), ..HOST };
/// AppArmor and SELinux at once, which only a plan can have.
const LABELLED: Host = Host { apparmor: true, selinux: true, ..HOST };
/// The first kernel that knows all of what Landlock is asked for.
const RESTRICTED: Host = Host { kernel: (6, 12), ..HOST };
const ARM: Host = Host { arch: Arch::Aarch64, ..HOST };

/// Folder under plans/, the folder whose config.json it is compiled from, how, for which machine.
const PLANS: [(&str, &str, Verb, Host); 49] = [
    ("default", "default", Verb::Create, HOST),
    ("run-with-every-flag", "run-with-every-flag", Verb::Run, HOST),
    ("user-namespace", "user-namespace", Verb::Create, HOST),
    (
        "user-namespace-with-the-machines-network",
        "user-namespace-with-the-machines-network",
        Verb::Create,
        HOST,
    ),
    ("user-namespace-in-a-container", "user-namespace", Verb::Create, CONFINED),
    ("joined-namespaces", "joined-namespaces", Verb::Create, HOST),
    ("joined-user-namespace", "joined-user-namespace", Verb::Create, HOST),
    ("joined-mount-namespace", "joined-mount-namespace", Verb::Create, HOST),
    ("no-mount-namespace", "no-mount-namespace", Verb::Create, HOST),
    ("no-cgroup-namespace", "no-cgroup-namespace", Verb::Create, HOST),
    ("time-namespace", "time-namespace", Verb::Create, HOST),
    ("terminal", "terminal", Verb::Create, HOST),
    ("read-only-root", "read-only-root", Verb::Create, HOST),
    ("read-only-root-since-linux-6.8", "read-only-root", Verb::Create, NEWER),
    ("devices", "devices", Verb::Create, HOST),
    ("devices-in-a-user-namespace", "devices-in-a-user-namespace", Verb::Create, HOST),
    ("dev-of-the-machine", "dev-of-the-machine", Verb::Create, HOST),
    ("process", "process", Verb::Create, HOST),
    ("kept-groups", "kept-groups", Verb::Create, HOST),
    ("kept-groups-of-an-exec", "kept-groups", Verb::Exec, HOST),
    ("scheduling", "scheduling", Verb::Create, HOST),
    ("scheduling-of-an-exec", "scheduling", Verb::Exec, HOST),
    ("scheduling-after-a-fork", "scheduling-after-a-fork", Verb::Exec, HOST),
    ("net-devices", "net-devices", Verb::Create, HOST),
    ("id-mapped-mounts", "id-mapped-mounts", Verb::Create, HOST),
    ("id-mapped-mounts-since-linux-6.8", "id-mapped-mounts", Verb::Create, NEWER),
    ("labels", "labels", Verb::Create, HOST),
    ("labels-enforced", "labels", Verb::Create, LABELLED),
    ("landlock", "landlock", Verb::Create, RESTRICTED),
    ("landlock-of-an-exec", "landlock", Verb::Exec, RESTRICTED),
    ("no-process", "no-process", Verb::Create, HOST),
    ("hooks", "hooks", Verb::Create, HOST),
    ("hook-before-the-root", "hooks", Verb::CreateContainer, HOST),
    ("hook-before-start", "hooks", Verb::StartContainer, HOST),
    ("hook-without-a-mount-namespace", "hook-without-a-mount-namespace", Verb::StartContainer, HOST),
    ("seccomp", "seccomp", Verb::Create, HOST),
    ("seccomp-on-aarch64", "seccomp", Verb::Create, ARM),
    ("seccomp-with-no-new-privileges", "seccomp-with-no-new-privileges", Verb::Create, HOST),
    ("capabilities-on-an-older-kernel", "capabilities", Verb::Create, OLDER),
    ("capabilities-in-a-container", "capabilities", Verb::Create, CONFINED),
    ("capabilities", "capabilities", Verb::Create, HOST),
    ("exec", "exec", Verb::Exec, HOST),
    ("exec-behind-a-filter", "exec-behind-a-filter", Verb::Exec, HOST),
    ("exec-behind-a-filter-without-fork", "exec-behind-a-filter-without-fork", Verb::Exec, HOST),
    ("exec-in-a-user-namespace", "exec-in-a-user-namespace", Verb::Exec, HOST),
    ("exec-without-a-mount-namespace", "exec-without-a-mount-namespace", Verb::Exec, HOST),
    ("rootless", "rootless", Verb::Create, USER),
    ("rootless-with-ranges", "user-namespace", Verb::Create, USER),
    ("default-in-a-user-namespace", "default", Verb::Create, GUEST),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans")
}

fn config(name: &str) -> Spec {
    let path = folder().join(name).join("config.json");
    spec::load(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn compiled(spec: &Spec, verb: Verb, host: &Host) -> Result<Plan> {
    let notify = ["NOTIFY_SOCKET=/run/notify/notify.sock".to_string()];
    let create = Request::create("web", Path::new("/bundle"));
    let hook = |list: &Option<Vec<oci_spec::runtime::Hook>>, origin: &str, place| {
        let hook = list.iter().flatten().next().expect("the config has such a hook");
        compile::hook(spec, host, &HookRequest { hook, origin, place })
    };
    let hooks = || spec.hooks().as_ref().expect("the config has hooks");
    match verb {
        Verb::Create => compile::start(spec, host, &create),
        Verb::Run => compile::start(
            spec,
            host,
            &Request {
                await_start: false,
                no_pivot: true,
                left_behind: &["/sys".to_string(), "/proc".to_string()],
                keyring: false,
                passed_fds: 2,
                variables: &notify,
                cgroup: true,
                notify: true,
                ..create
            },
        ),
        Verb::Exec => {
            let process = spec.process().as_ref().expect("the config has a process");
            compile::exec(spec, host, &ExecRequest::new("web", process))
        }
        Verb::CreateContainer => {
            let place = HookPlace::Machine { root: Path::new("/bundle/rootfs") };
            hook(hooks().create_container(), "/hooks/createContainer/0", place)
        }
        Verb::StartContainer => {
            hook(hooks().start_container(), "/hooks/startContainer/0", HookPlace::Container)
        }
    }
}

/// A line without the number of its step or slot: one step more is one line of difference.
fn unnumbered(line: &str) -> &str {
    let line = line.trim_start();
    line.strip_prefix("slot ").unwrap_or(line).trim_start_matches(|c: char| c.is_ascii_digit()).trim_start()
}

/// The lines that one text has and the other has not, in order: the shortest list, by the longest common subsequence.
fn difference(golden: &str, now: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (golden.lines().collect(), now.lines().collect());
    let same = |i: usize, j: usize| unnumbered(a[i]) == unnumbered(b[j]);
    let mut longest = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            longest[i][j] = match same(i, j) {
                true => longest[i + 1][j + 1] + 1,
                false => longest[i + 1][j].max(longest[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, String::new());
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && same(i, j) {
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || (i < a.len() && longest[i + 1][j] >= longest[i][j + 1]) {
            out += &format!("-{}\n", a[i]);
            i += 1;
        } else {
            out += &format!("+{}\n", b[j]);
            j += 1;
        }
    }
    out
}

#[test]
fn each_config_compiles_to_its_golden_plan() {
    let bless = std::env::var_os("RCRUN_BLESS").is_some();
    let mut wrong = String::new();
    for (name, from, verb, host) in PLANS {
        let plan = compiled(&config(from), verb, &host).unwrap_or_else(|e| panic!("{name}: {e}"));
        let json = plan_text::json(&plan).expect("a plan is JSON");
        for (file, now) in [("plan.txt", plan_text::text(&plan)), ("plan.json", json)] {
            let path = folder().join(name).join(file);
            if bless {
                std::fs::create_dir_all(folder().join(name)).expect("the folder is made");
                std::fs::write(&path, &now).expect("the golden plan is written");
            }
            let golden = std::fs::read_to_string(&path).unwrap_or_default();
            if golden != now {
                let lines = match difference(&golden, &now) {
                    none if none.is_empty() => "only numbers and blanks differ\n".to_string(),
                    lines => lines,
                };
                wrong += &format!("plans/{name}/{file}:\n{lines}\n");
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "plans are not as their goldens say; where that is meant, RCRUN_BLESS=1 writes them anew:\n{wrong}"
    );
}

#[test]
fn every_folder_of_plans_is_compiled_by_the_test_above() {
    let there: BTreeSet<String> = std::fs::read_dir(folder())
        .expect("plans/ is there")
        .map(|entry| entry.expect("plans/ can be read").file_name().into_string().expect("UTF-8"))
        .collect();
    let told: BTreeSet<String> = PLANS.iter().map(|(name, ..)| name.to_string()).collect();
    assert_eq!(there, told);
    for name in there {
        let own = folder().join(&name).join("config.json").exists();
        let listed = PLANS.iter().any(|(_, from, ..)| *from == name);
        assert_eq!(own, listed, "{name}: a config.json stands where a line of the table reads it");
    }
}

#[test]
fn the_default_plan_is_that_of_what_rcrun_spec_writes() {
    let written = spec::default::text(spec::default::For::Root);
    let golden = std::fs::read_to_string(folder().join("default/config.json")).expect("config.json is there");
    let (golden, written) = (golden.trim_end(), written.trim_end());
    assert!(golden == written, "{}", difference(golden, written));
}

#[test]
fn a_plan_printed_as_json_is_the_plan() {
    let plan = compiled(&config("process"), Verb::Create, &HOST).expect("it compiles");
    let printed: serde_json::Value =
        serde_json::from_str(&plan_text::json(&plan).expect("a plan is JSON")).expect("JSON");
    assert_eq!(printed, serde_json::to_value(&plan).expect("a plan is JSON"));
}

#[test]
fn steps_that_touch_mounts_come_after_the_check_of_the_mount_namespace() {
    use rcrun_plan::Step;
    for (name, from, verb, host) in PLANS {
        let plan = compiled(&config(from), verb, &host).unwrap_or_else(|e| panic!("{name}: {e}"));
        let first = |wanted: fn(&Step<rcrun_plan::text::Text>) -> bool| {
            plan.steps.iter().position(|p| wanted(&p.step))
        };
        let touches = first(|s| {
            matches!(
                s,
                Step::SetPropagation { .. }
                    | Step::AttachRoot { .. }
                    | Step::Attach { .. }
                    | Step::Mask { .. }
                    | Step::ReadOnly { .. }
                    | Step::Pivot
                    | Step::Detach { .. }
                    | Step::MoveRoot
            )
        });
        let check = first(|s| matches!(s, Step::CheckMountNamespace { .. }));
        assert!(touches.is_none() || check.is_some_and(|c| Some(c) < touches), "{name}");
    }
}

#[test]
fn what_needs_a_mount_namespace_does_not_compile_without_one() {
    for (field, value, pointer) in [
        ("/root", r#"{"path": "rootfs", "readonly": true}"#, "/root/readonly"),
        ("/linux/maskedPaths", r#"["/proc/kcore"]"#, "/linux/maskedPaths"),
        ("/linux/readonlyPaths", r#"["/proc/sys"]"#, "/linux/readonlyPaths"),
        ("/linux/rootfsPropagation", r#""shared""#, "/linux/rootfsPropagation"),
        ("/linux/devices", r#"[{"type": "p", "path": "/dev/pipe"}]"#, "/linux/devices"),
    ] {
        let text = std::fs::read(folder().join("no-mount-namespace/config.json")).expect("it is there");
        let mut changed: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        let (above, name) = field.rsplit_once('/').expect("a pointer");
        let value: serde_json::Value = serde_json::from_str(value).expect("JSON");
        changed.pointer_mut(above).expect("it is there")[name] = value;
        let error = spec::parse(changed.to_string().as_bytes())
            .and_then(|spec| compiled(&spec, Verb::Create, &HOST))
            .expect_err(field);
        assert_eq!(error.pointer(), Some(pointer));
        let text = error.to_string();
        assert!(["mount namespace", "MNT namespace"].iter().any(|words| text.contains(words)), "{text}");
    }
}

#[test]
fn a_security_label_is_given_where_its_module_is_on_and_harmless_where_it_is_off() {
    use rcrun_plan::Step;
    let config = config("labels");
    for (apparmor, selinux, expected) in [
        (false, false, &[][..]),
        (true, false, &["apparmor/exec=exec web-profile"][..]),
        (false, true, &["keycreate=web_t", "exec=web_t", "context=web_file_t", "context=web_file_t"][..]),
        (
            true,
            true,
            &[
                "keycreate=web_t",
                "apparmor/exec=exec web-profile",
                "exec=web_t",
                "context=web_file_t",
                "context=web_file_t",
            ],
        ),
    ] {
        let host = Host { apparmor, selinux, ..HOST };
        for verb in [Verb::Create, Verb::Exec] {
            let plan = compiled(&config, verb, &host).expect("it compiles");
            let told = |planned: &rcrun_runtime::plan::Planned| match &planned.step {
                Step::Label { name, value, .. } => Some(format!("{name}={value}")),
                Step::FsString { key, value } if key.0.ends_with("context") => Some(format!("{key}={value}")),
                _ => None,
            };
            let mut labels: Vec<String> = plan.steps.iter().filter_map(told).collect();
            // One entry has a context of its own.
            labels.retain(|label| label != "fscontext=own_t");
            labels.sort();
            let of_exec = |label: &&&str| matches!(verb, Verb::Create) || !label.contains("context");
            let mut expected: Vec<String> =
                expected.iter().filter(of_exec).map(|label| label.to_string()).collect();
            expected.sort();
            assert_eq!(labels, expected, "AppArmor {apparmor}, SELinux {selinux}");
            // Each is closed after its step: what a container can trace has no procfs of the machine.
            let mut slots: Vec<_> = plan
                .steps
                .iter()
                .filter_map(|planned| match planned.step {
                    Step::Label { proc, .. } => Some(proc.0),
                    _ => None,
                })
                .collect();
            let all = slots.len();
            slots.dedup();
            assert_eq!(slots.len(), all);
        }
    }
}

#[test]
fn a_process_without_labels_of_its_own_has_those_of_its_container() {
    use rcrun_plan::Step;
    let spec = config("labels");
    let mut process = spec.process().clone().expect("a process");
    process.set_apparmor_profile(None);
    process.set_selinux_label(Some(String::new()));
    let request = ExecRequest::new("web", &process);
    let plan = compile::exec(&spec, &LABELLED, &request).expect("it compiles");
    let names = plan.steps.iter().filter_map(|planned| match &planned.step {
        Step::Label { name, value, .. } => Some(format!("{name}={value}")),
        _ => None,
    });
    let names: Vec<String> = names.collect();
    assert_eq!(names, ["keycreate=web_t", "apparmor/exec=exec web-profile", "exec=web_t"]);
}

#[test]
fn capabilities_that_cannot_be_granted_are_named_in_one_warning() {
    let spec = config("capabilities");
    for (host, names) in [
        (HOST, None),
        (OLDER, Some("CAP_CHECKPOINT_RESTORE")),
        (CONFINED, Some("CAP_CHECKPOINT_RESTORE, CAP_SYS_ADMIN")),
    ] {
        let expected: Vec<String> = names
            .map(|names| {
                format!(
                    "config.json: /process/capabilities: {names} cannot be granted: rcrun itself does not have them"
                )
            })
            .into_iter()
            .collect();
        assert_eq!(compile::warnings(&spec, &host), expected);
    }
    // A user namespace gives all of them to who makes it.
    assert!(compile::warnings(&config("user-namespace"), &CONFINED).is_empty());
}

#[test]
fn a_capability_in_a_set_that_the_kernel_would_not_give_is_refused_by_name() {
    for (set, of) in [("effective", "permitted"), ("inheritable", "bounding")] {
        let mut text = serde_json::json!({
            "ociVersion": "1.3.0", "root": {"path": "rootfs"}, "linux": {"namespaces": [{"type": "mount"}]},
            "process": {"cwd": "/", "args": ["x"], "user": {"uid": 0, "gid": 0}, "capabilities": {
                "bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"],
            }},
        });
        text["process"]["capabilities"][set] = serde_json::json!(["CAP_KILL", "CAP_SYS_ADMIN", "CAP_CHOWN"]);
        let spec = spec::parse(text.to_string().as_bytes()).unwrap();
        let error = compiled(&spec, Verb::Create, &HOST).unwrap_err();
        assert_eq!(error.pointer(), Some(format!("/process/capabilities/{set}").as_str()));
        let said = format!("CAP_CHOWN, CAP_SYS_ADMIN is not in /process/capabilities/{of}");
        assert!(error.to_string().contains(&said), "{error}");
    }
}
