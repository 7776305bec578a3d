//! Pods: what containers of one share, how they end, what they may do, and what is left of them.

use crate::node::messages::*;
use crate::node::{Driver, Node, Pod};
use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};

fn processes_of(mode: NamespaceMode, target: &str) -> Option<NamespaceOption> {
    Some(NamespaceOption { pid: mode.into(), target_id: target.into(), ..Default::default() })
}

fn with_security(pod: &Pod<'_>, name: &str, context: LinuxContainerSecurityContext) -> ContainerConfig {
    ContainerConfig {
        linux: Some(LinuxContainerConfig { security_context: Some(context), ..Default::default() }),
        ..pod.config(name, &["sleep", "1000"])
    }
}

#[test]
fn two_containers_of_a_pod_share_its_network_its_processes_and_one_shim() {
    let node = Node::new(Driver::Default);
    let version: VersionResponse = node.call("Version", &Empty {});
    assert_eq!((version.runtime_name.as_str(), version.runtime_api_version.as_str()), ("containerd", "v1"));
    let conditions = node.call::<StatusResponse>("Status", &Empty {}).status.expect("a status").conditions;
    assert!(conditions.len() >= 2 && conditions.iter().all(|c| c.status), "{conditions:?}");

    let pod = node.pod("shares");
    let web = pod.runs("web", &["busybox", "httpd", "-f", "-p", "8080", "-h", "/www"]);
    let side = pod.waits("side");
    node.hears_httpd(&side);
    assert_eq!(node.says(&side, "busybox wget -qO- 127.0.0.1:8080/"), "hello from a pod\n");
    let processes = node.says(&side, "ps -o pid,args");
    let has = |words: &str| processes.lines().any(|line| line.trim().ends_with(words));
    assert!(processes.contains("    1 /pause\n"), "{processes}");
    assert!(has("busybox httpd -f -p 8080 -h /www"), "{processes}");
    let words = "hostname; sed -n 's/^nameserver //p' /etc/resolv.conf";
    assert_eq!(node.says(&side, words), "shares\n10.96.0.10\n");
    // From the node, by the bridge.
    let mut stream = std::net::TcpStream::connect((pod.ip(), 8080)).expect("connect to the pod");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    assert!(answer.ends_with("hello from a pod\n"), "{answer}");

    let shims = node.shims();
    assert_eq!(shims.len(), 1, "{shims:?}");
    for id in [&web, &side] {
        let status = fs::read_to_string(format!("/proc/{}/status", node.pid(id))).expect("status");
        assert!(status.contains(&format!("PPid:\t{}\n", shims[0])), "{status}");
    }
    let listed = node.call::<ListContainersResponse>("ListContainers", &Empty {}).containers;
    assert!(listed.len() == 2 && listed.iter().all(|c| c.state() == ContainerState::Running), "{listed:?}");
    let stats =
        node.call::<ContainerStatsResponse>("ContainerStats", &ContainerId { container_id: side.clone() });
    let used = stats.stats.expect("statistics").cpu.and_then(|cpu| cpu.usage_core_nano_seconds);
    assert!(used.is_some_and(|used| used.value > 0));

    node.remove(&web, 0);
    assert_eq!(node.says(&side, "ps -o args | grep -c '[h]ttpd' || true"), "0\n");
    pod.remove();
    node.is_clean();
}

#[test]
fn a_container_has_processes_of_its_own_or_those_of_the_one_that_is_debugged() {
    let node = Node::new(Driver::Default);
    let mut config = node.pod_config("own");
    let linux = config.linux.as_mut().expect("linux");
    linux.security_context = Some(LinuxSandboxSecurityContext {
        namespace_options: processes_of(NamespaceMode::Container, ""),
        ..Default::default()
    });
    // The runtime that a RuntimeClass names, here by the shim's path.
    let pod = node.run(config, "by-path");
    assert_eq!(pod.status().runtime_handler, "by-path");
    let own = |name, mode, target: &str| {
        let context = LinuxContainerSecurityContext {
            namespace_options: processes_of(mode, target),
            ..Default::default()
        };
        pod.start(with_security(&pod, name, context))
    };
    let alone = own("alone", NamespaceMode::Container, "");
    assert!(node.says(&alone, "ps -o pid,args").contains("    1 sleep 1000\n"));
    let debug = own("debug", NamespaceMode::Target, &alone);
    let processes = node.says(&debug, "ps -o pid,args");
    assert_eq!(processes.matches("sleep 1000").count(), 2, "{processes}");
    assert!(!processes.contains("/pause"), "{processes}");
    let another = node.pod("another");
    assert_eq!(node.shims().len(), 2);
    assert_ne!(pod.ip(), another.ip());

    let config = node.pod_config("unknown");
    let request = RunPodSandboxRequest { config: Some(config), runtime_handler: "nobody".into() };
    let refusal = node.try_call::<PodId>("RunPodSandbox", &request).expect_err("a refusal");
    assert!(refusal.text.contains("nobody"), "{refusal:?}");
    pod.remove();
    another.remove();
    node.is_clean();
}

#[test]
fn a_container_ends_with_its_code_and_is_started_anew_as_the_next_attempt() {
    let node = Node::new(Driver::Default);
    let pod = node.pod("ends");
    for (name, words, code, reason) in [
        ("well", &["true"][..], 0, "Completed"),
        ("badly", &["sh", "-c", "exit 3"], 3, "Error"),
        ("killed", &["sh", "-c", "kill -9 $$"], 137, "Error"),
    ] {
        let status = node.ended(&pod.runs(name, words));
        assert_eq!((status.exit_code, status.reason.as_str()), (code, reason), "{name}");
        // containerd takes the time of the start after it, of one that is short also after its end.
        assert!(0 < status.created_at && status.created_at < status.finished_at, "{status:?}");
    }
    let mut config = pod.config("well", &["sleep", "1000"]);
    config.metadata.as_mut().expect("metadata").attempt = 1;
    let again = pod.start(config);
    assert_eq!(node.status(&again).state(), ContainerState::Running);

    let nope = pod.create(pod.config("nope", &["nope"])).expect("create");
    let refusal = node.try_call::<Empty>("StartContainer", &ContainerId { container_id: nope.clone() });
    assert!(refusal.expect_err("a refusal").text.contains("executable file not found in $PATH"));
    let status = node.status(&nope);
    assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"), "{status:?}");

    // One that ends when it is asked to, and one that does not.
    let polite = pod.waits("polite");
    node.logged(&pod, "polite", " stdout F up\n");
    let request = StopContainerRequest { container_id: polite.clone(), timeout: 100 };
    let _: Empty = node.call("StopContainer", &request);
    assert_eq!(node.ended(&polite).exit_code, 0);
    let deaf = pod.runs("deaf", &["sh", "-c", "trap '' TERM; echo up; sleep 1000"]);
    node.logged(&pod, "deaf", " stdout F up\n");
    let _: Empty =
        node.call("StopContainer", &StopContainerRequest { container_id: deaf.clone(), timeout: 1 });
    assert_eq!(node.ended(&deaf).exit_code, 137);
    pod.remove();
    node.is_clean();
}

#[test]
fn logs_have_time_stream_and_tag_and_go_on_in_a_new_file() {
    let node = Node::new(Driver::Default);
    let pod = node.pod("logs");
    let id = pod.runs("says", &["sh", "-c", "echo out; echo err >&2; mkfifo /more; cat /more; printf end"]);
    let log = node.logs(&pod).join("says.log");
    let lines = |text: &str| {
        let mut lines: Vec<String> =
            text.lines().map(|line| line.split_once(' ').expect("a time").1.into()).collect();
        // Of two streams nobody knows which comes first.
        lines.sort();
        lines
    };
    let first = crate::node::until("both lines are in the log", || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        (text.matches('\n').count() == 2).then_some(text)
    });
    assert_eq!(lines(&first), ["stderr F err", "stdout F out"]);
    assert!(
        first.starts_with("20") && first.split(' ').next().is_some_and(|time| time.contains('T')),
        "{first}"
    );
    fs::rename(&log, log.with_extension("old")).expect("rename");
    let _: Empty = node.call("ReopenContainerLog", &ContainerId { container_id: id.clone() });
    // 20,000 bytes in one line: containerd cuts it at 16 KiB.
    // Its end ends the container, and that may end the shell that runs it.
    node.exec(&id, "head -c 20000 /dev/zero | tr '\\0' x > /more");
    assert_eq!(node.ended(&id).exit_code, 0);
    let second = crate::node::until("the last line is in the log", || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.ends_with("end\n").then_some(text)
    });
    let x = second.matches('x').count();
    assert!(x == 20_000 && second.contains(" stdout P xxx"), "{x}");
    assert_eq!(fs::read_to_string(log.with_extension("old")).expect("the old log"), first);
    pod.remove();
    node.is_clean();
}

#[test]
fn a_command_in_a_container_gives_back_its_code_its_output_and_ends_in_time() {
    let node = Node::new(Driver::Default);
    let pod = node.pod("exec");
    let mut config = pod.config("stays", &["sleep", "1000"]);
    config.envs = vec![KeyValue { key: "COLOUR".into(), value: "blue".into() }];
    config.working_dir = "/www".into();
    let id = pod.start(config);
    let said = node.exec(&id, "pwd; echo $COLOUR; echo err >&2; exit 5");
    assert_eq!(said, (5, "/www\nblue\n".into(), "err\n".into()));
    assert_eq!(node.exec(&id, "kill -9 $$").0, 137);
    assert_eq!(node.says(&id, "head -c 3000000 /dev/zero | tr '\\0' x").len(), 3_000_000);
    let refusal = node.exec_words(&id, &["nope"], 0).expect_err("a refusal");
    assert!(refusal.text.contains("executable file not found in $PATH"), "{refusal:?}");
    let refusal = node.exec_words(&id, &["sleep", "999"], 1).expect_err("a refusal");
    assert!(refusal.text.contains("timeout"), "{refusal:?}");
    assert_eq!(node.says(&id, "ps -o args | grep -c '[s]leep 999' || true"), "0\n");
    pod.remove();
    node.is_clean();
}

#[test]
fn what_a_security_context_says_holds() {
    let node = Node::new(Driver::Default);
    let mut config = node.pod_config("secure");
    let linux = config.linux.as_mut().expect("linux");
    linux.sysctls = HashMap::from([("net.ipv4.ip_unprivileged_port_start".into(), "0".into())]);
    linux.security_context = Some(LinuxSandboxSecurityContext {
        seccomp: Some(SecurityProfile {
            profile_type: ProfileType::RuntimeDefault.into(),
            ..Default::default()
        }),
        ..Default::default()
    });
    let pod = node.run(config, "");
    let context = LinuxContainerSecurityContext {
        capabilities: Some(Capability { drop_capabilities: vec!["ALL".into()], ..Default::default() }),
        run_as_user: Some(Int64Value { value: 33 }),
        readonly_rootfs: true,
        supplemental_groups: vec![44],
        no_new_privs: true,
        masked_paths: vec!["/proc/version".into()],
        seccomp: Some(SecurityProfile {
            profile_type: ProfileType::RuntimeDefault.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let shared = node.folder().join("shared");
    fs::create_dir(&shared).expect("mkdir");
    fs::write(shared.join("file"), "of the node\n").expect("write");
    let mut config = with_security(&pod, "bound", context);
    config.mounts = vec![Mount {
        container_path: "/shared".into(),
        host_path: shared.display().to_string(),
        readonly: true,
    }];
    let bound = pod.start(config);
    let words = "id -u; id -G; sed -n 's/^CapEff:.0*/caps /p; s/^NoNewPrivs:./nnp /p; s/^Seccomp:./seccomp /p' /proc/self/status; \
                 wc -c < /proc/version; cat /shared/file /proc/sys/net/ipv4/ip_unprivileged_port_start";
    assert_eq!(node.says(&bound, words), "33\n33 44\ncaps \nnnp 1\nseccomp 2\n0\nof the node\n0\n");
    for path in ["/x", "/shared/x"] {
        let (code, _, err) = node.exec(&bound, &format!("touch {path}"));
        assert!(code == 1 && err.contains("Read-only file system"), "{path}: {err}");
    }
    assert_eq!(node.exec(&bound, "mount -t tmpfs none /tmp").0, 1);
    pod.remove();

    let mut config = node.pod_config("privileged");
    let linux = config.linux.as_mut().expect("linux");
    linux.security_context = Some(LinuxSandboxSecurityContext { privileged: true, ..Default::default() });
    let pod = node.run(config, "");
    let context = LinuxContainerSecurityContext { privileged: true, ..Default::default() };
    let free = pod.start(with_security(&pod, "free", context));
    assert_eq!(
        node.says(&free, "mount -t tmpfs none /tmp && touch /tmp/x && test -c /dev/kmsg && echo free"),
        "free\n"
    );
    pod.remove();
    node.is_clean();
}
