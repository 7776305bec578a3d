//! rcrun-init as a container and the machine see it: small while it waits, a sealed memfd as /proc/1/exe, and no fd that
//! the payload was not given.

use runtime_tests::bundle::Bundle;
use runtime_tests::machine::own_mount_namespace;
use runtime_tests::runtime::{Runtime, said};
use serde_json::json;
use std::fs;
use std::process::Command;

/// With a cgroup that no other test has.
fn bundle(name: &str, args: &[&str]) -> Bundle {
    let bundle = Bundle::new(name, args);
    let path = format!("/{}", bundle.path().file_name().expect("a name").to_string_lossy());
    bundle.with(|config| config["linux"]["cgroupsPath"] = json!(path))
}

#[test]
fn a_created_container_waits_in_little_memory_as_a_file_that_nobody_can_write() {
    own_mount_namespace();
    let runtime = Runtime::new();
    let bundle = bundle("waiting", &["sleep", "1000"]);
    let own = fs::read(runtime.binary()).expect("the runtime");
    let created = runtime.create(&bundle, "box");
    assert_eq!(created.status, 0, "{}", created.err);
    let pid = runtime.pid("box");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("VmRSS").trim();
    println!("a created container waits with VmRSS {rss}");
    let kib: u32 = rss.trim_end_matches(" kB").parse().expect("a number");
    assert!(kib < 256, "{rss}");
    let exe = format!("/proc/{pid}/exe");
    let link = fs::read_link(&exe).expect("readlink of exe");
    assert_eq!(link.to_str(), Some("/memfd:rcrun-init (deleted)"));
    let file = fs::File::open(&exe).expect("root reads it");
    let seals = nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_GET_SEALS).expect("F_GET_SEALS");
    let wanted = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    assert_eq!(seals & wanted, wanted, "seals {seals:#x}");
    let refused = fs::OpenOptions::new().write(true).open(&exe).expect_err("it can be opened for writing");
    assert!([libc::ETXTBSY, libc::EPERM, libc::EACCES].contains(&refused.raw_os_error().unwrap_or_default()));
    let elf = fs::read(&exe).expect("init's file");
    assert!(elf.len() <= 64 << 10 && elf != own, "{} bytes", elf.len());
    runtime.ok(["start", "box"]);
    assert!(fs::read(runtime.binary()).expect("the runtime") == own, "the runtime's file has changed");
}

/// Runs the runtime by a shell that leaves fds 3 to 20 open to the bundle's folder.
fn with_leaks(runtime: &Runtime, bundle: &Bundle, words: &[&str]) -> runtime_tests::runtime::Said {
    let leaks: String = (3..=20).map(|fd| format!("eval 'exec {fd}<.'; ")).collect();
    let command = runtime.command(words);
    let mut shell = Command::new("bash");
    shell.args(["-c", &format!("{leaks} exec \"$@\""), "bash"]).arg(command.get_program());
    shell.args(command.get_args()).current_dir(bundle.path()).stdin(std::process::Stdio::null());
    said(&shell.output().expect("bash"))
}

#[test]
fn payloads_of_run_exec_and_hooks_have_only_their_three_fds_whatever_the_runtime_inherited() {
    own_mount_namespace();
    let runtime = Runtime::new();
    // The folder itself is the fourth: ls has it open while it looks.
    let look = "ls /proc/self/fd | tr '\\n' ' '";
    let bundle = bundle("leaks", &["sh", "-c", look]).with(|config| {
        let hook = |name: &str| {
            json!([{"path": "/bin/bash", "args": ["bash", "-c", format!("ls /proc/self/fd | tr '\\n' ' ' > {name}")]}])
        };
        config["hooks"] = json!({"createRuntime": hook("create-runtime"), "createContainer": hook("create-container")});
    });
    // A createContainer hook is started where init stands, so its file is named whole.
    let place = bundle.path().join("create-container");
    let bundle = bundle.with(|config| {
        let script = format!("ls /proc/self/fd | tr '\\n' ' ' > {}", place.display());
        config["hooks"]["createContainer"][0]["args"][2] = json!(script);
    });
    let path = bundle.path().to_str().expect("a path").to_string();
    let ran = with_leaks(&runtime, &bundle, &["run", "--bundle", &path, "box"]);
    assert_eq!((ran.status, ran.out.as_str()), (0, "0 1 2 3 "), "{}", ran.err);
    for hook in ["create-runtime", "create-container"] {
        let fds = fs::read_to_string(bundle.path().join(hook)).expect(hook);
        assert_eq!(fds, "0 1 2 3 ", "{hook}");
    }
    let bundle = bundle.with(|config| {
        config["process"]["args"] = json!(["sleep", "1000"]);
        config.as_object_mut().expect("an object").remove("hooks");
    });
    assert_eq!(runtime.create(&bundle, "box").status, 0);
    runtime.ok(["start", "box"]);
    let executed = with_leaks(&runtime, &bundle, &["exec", "box", "sh", "-c", look]);
    assert_eq!((executed.status, executed.out.as_str()), (0, "0 1 2 3 "), "{}", executed.err);
}

#[test]
fn what_preserve_fds_passes_on_reaches_the_payload_and_no_hook() {
    own_mount_namespace();
    let runtime = Runtime::new();
    let kinds = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    // Hooks in the container's namespaces see its root from startContainer on, which is why that one has busybox's shell.
    let bundle = bundle("preserved", &["sh", "-c", "cat <&3; ls /proc/self/fd | tr '\\n' ' '"]);
    let here = bundle.path().to_path_buf();
    let place = |kind: &str| match kind {
        "startContainer" => here.join("rootfs/tmp").join(kind),
        _ => here.join(kind),
    };
    let hooks = kinds.map(|kind| {
        let to = if kind == "startContainer" { "/tmp/startContainer".into() } else { place(kind) };
        let script = format!("ls /proc/self/fd | tr '\\n' ' ' > {}", to.display());
        (
            kind.to_string(),
            json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}]),
        )
    });
    let bundle = bundle.with(|config| {
        config["root"]["readonly"] = json!(false);
        config["hooks"] = serde_json::Value::Object(hooks.into_iter().collect());
    });
    let path = bundle.path().to_str().expect("a path").to_string();
    fs::write(bundle.path().join("given"), "given ").expect("a file");
    let command = runtime.command(["run", "--preserve-fds", "2", "--bundle", &path, "preserved"]);
    let mut shell = Command::new("bash");
    shell
        .args(["-c", "exec \"$@\" 3<given 4<. 5<.", "bash"])
        .arg(command.get_program())
        .args(command.get_args());
    let ran =
        said(&shell.current_dir(bundle.path()).stdin(std::process::Stdio::null()).output().expect("bash"));
    // The last is the folder itself, which ls has open.
    assert_eq!((ran.status, ran.out.as_str()), (0, "given 0 1 2 3 4 5 "), "{}", ran.err);
    for kind in kinds {
        assert_eq!(fs::read_to_string(place(kind)).expect(kind), "0 1 2 3 ", "{kind}");
    }
}

#[test]
fn a_machine_that_refuses_executable_memfds_runs_containers_too() {
    own_mount_namespace();
    let runtime = Runtime::new();
    let bundle = bundle("noexec", &["echo", "hello"]);
    let path = bundle.path().to_str().expect("a path").to_string();
    // The sysctl belongs to a pid namespace (Linux 6.6), so that the machine's is left alone.
    let before = fs::read_to_string("/proc/sys/vm/memfd_noexec").expect("vm.memfd_noexec");
    let command = runtime.command(["run", "--bundle", &path, "box"]);
    let script = "echo 2 > /proc/sys/vm/memfd_noexec && cat /proc/sys/vm/memfd_noexec && \"$@\"";
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--mount-proc", "sh", "-c", script, "sh"]).arg(command.get_program());
    let said = said(&unshare.args(command.get_args()).output().expect("unshare"));
    assert_eq!((said.status, said.out.as_str()), (0, "2\nhello\n"), "{}", said.err);
    assert_eq!(fs::read_to_string("/proc/sys/vm/memfd_noexec").expect("vm.memfd_noexec"), before);
}
