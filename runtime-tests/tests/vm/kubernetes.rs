//! Pods where cgroups have their controllers, with the systemd driver: limits and statistics; and pods without a process.

use crate::node::messages::*;
use crate::node::{Driver, Node, Pod};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

const MIB: i64 = 1 << 20;

fn limited(pod: &Pod<'_>, name: &str, words: &[&str], resources: LinuxContainerResources) -> ContainerConfig {
    ContainerConfig {
        linux: Some(LinuxContainerConfig { resources: Some(resources), ..Default::default() }),
        ..pod.config(name, words)
    }
}

/// Where systemd puts a container of a pod.
fn scope(pod: &Pod<'_>, id: &str) -> PathBuf {
    let slice = &pod.config.linux.as_ref().expect("linux").cgroup_parent;
    Path::new("/sys/fs/cgroup").join(&slice[1..]).join(format!("cri-containerd-{id}.scope"))
}

#[test]
fn with_the_systemd_driver_containers_are_scopes_of_the_pods_slice_with_their_limits() {
    let node = Node::new(Driver::Systemd);
    // By its own name and options, and as runc's with the path of the shim.
    for runtime in ["rcrun", "by-path"] {
        let pod = node.run(node.pod_config(&format!("limits{}", runtime.len())), runtime);
        let resources = LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: 50_000,
            cpu_shares: 512,
            memory_limit_in_bytes: 64 * MIB,
            oom_score_adj: 500,
            unified: HashMap::from([("memory.oom.group".into(), "1".into())]),
            ..Default::default()
        };
        let words = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"];
        let id = pod.start(limited(&pod, "limited", &words, resources));
        let cgroup = scope(&pod, &id);
        let file = |name: &str| {
            let text = fs::read_to_string(cgroup.join(name));
            text.unwrap_or_else(|e| panic!("{}: {e}", cgroup.join(name).display())).trim().to_string()
        };
        assert!(file("cgroup.procs").lines().any(|pid| pid == node.pid(&id).to_string()));
        assert_eq!(
            (file("memory.max"), file("cpu.max")),
            ((64 * MIB).to_string(), "50000 100000".to_string())
        );
        assert_eq!(file("memory.oom.group"), "1");
        assert_ne!(file("cpu.weight"), "100");
        assert!(scope(&pod, &pod.id).exists(), "the pause process has a scope too");
        assert_eq!(node.says(&id, "cat /proc/self/oom_score_adj"), "500\n");
        let update = UpdateContainerResourcesRequest {
            container_id: id.clone(),
            linux: Some(LinuxContainerResources { memory_limit_in_bytes: 32 * MIB, ..Default::default() }),
        };
        let _: Empty = node.call("UpdateContainerResources", &update);
        assert_eq!(file("memory.max"), (32 * MIB).to_string());

        let of = ContainerId { container_id: id.clone() };
        let stats = node.call::<ContainerStatsResponse>("ContainerStats", &of).stats.expect("statistics");
        let memory = stats.memory.expect("memory");
        let working_set = memory.working_set_bytes.expect("a working set").value;
        assert!(working_set > 0 && working_set < 32 << 20, "{working_set}");
        assert!(stats.cpu.and_then(|cpu| cpu.usage_core_nano_seconds).is_some_and(|used| used.value > 0));
        let of = PodId { pod_sandbox_id: pod.id.clone() };
        let whole = node.call::<PodSandboxStatsResponse>("PodSandboxStats", &of).stats.expect("statistics");
        let whole = whole.linux.expect("linux");
        assert_eq!(whole.containers.len(), 1);
        assert!(whole.memory.and_then(|m| m.working_set_bytes).is_some_and(|bytes| bytes.value > 0));
        assert!(whole.cpu.and_then(|cpu| cpu.usage_core_nano_seconds).is_some_and(|used| used.value > 0));

        let pause = scope(&pod, &pod.id);
        node.remove(&id, 100);
        pod.remove();
        assert!(!cgroup.exists() && !pause.exists());
        node.is_clean();
    }
}

#[test]
fn a_pod_that_is_the_shims_has_no_pause_process_and_what_runs_in_it_is_served_stopped_and_removed() {
    let node = Node::with_sandboxes(Driver::Systemd);
    // As the kubelet says of a pod and of each container in it.
    let own = || Some(NamespaceOption { pid: NamespaceMode::Container.into(), ..Default::default() });
    let mut config = node.pod_config("sandboxed");
    config.linux.as_mut().expect("linux").security_context =
        Some(LinuxSandboxSecurityContext { namespace_options: own(), ..Default::default() });
    let pod = node.run(config, "sandboxed");
    let status = pod.status();
    assert_eq!((status.state, status.runtime_handler.as_str()), (0, "sandboxed"), "it is ready");
    let shims = node.shims();
    assert_eq!(shims.len(), 1, "{shims:?}");
    let children = |shim: i32| -> String {
        let threads = fs::read_dir(format!("/proc/{shim}/task")).expect("threads").flatten();
        threads.map(|one| fs::read_to_string(one.path().join("children")).unwrap_or_default()).collect()
    };
    assert_eq!(children(shims[0]), "", "of a pod alone there is no process");

    let runs = |name: &str, words: &[&str]| {
        let resources = LinuxContainerResources { memory_limit_in_bytes: 64 * MIB, ..Default::default() };
        let mut config = limited(&pod, name, words, resources);
        config.linux.as_mut().expect("linux").security_context =
            Some(LinuxContainerSecurityContext { namespace_options: own(), ..Default::default() });
        pod.start(config)
    };
    let web = runs("web", &["busybox", "httpd", "-f", "-p", "8080", "-h", "/www"]);
    let side = runs("side", &["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"]);
    assert_eq!(node.shims(), shims);
    assert_eq!(fs::read_to_string(scope(&pod, &web).join("memory.max")).expect("a limit").trim(), "67108864");
    node.hears_httpd(&side);
    assert_eq!(
        node.says(&side, "hostname; busybox wget -qO- 127.0.0.1:8080/"),
        "sandboxed\nhello from a pod\n"
    );
    assert!(node.says(&side, "ps -o pid,args").contains("    1 sh -c trap"), "its processes are its own");
    let namespace =
        |id: &str, kind: &str| fs::read_link(format!("/proc/{}/ns/{kind}", node.pid(id))).expect("ns");
    for kind in ["net", "ipc", "uts"] {
        assert_eq!(namespace(&web, kind), namespace(&side, kind), "{kind}");
    }
    // From the node, by the bridge.
    let answers = std::net::TcpStream::connect((pod.ip(), 8080));
    assert!(answers.is_ok(), "{answers:?}");
    assert_eq!(node.exec(&side, "exit 7").0, 7);
    let of = ContainerId { container_id: side.clone() };
    let stats = node.call::<ContainerStatsResponse>("ContainerStats", &of).stats.expect("statistics");
    assert!(stats.memory.and_then(|memory| memory.working_set_bytes).is_some_and(|bytes| bytes.value > 0));

    node.remove(&web, 0);
    // What still runs in it is stopped with it.
    pod.stop();
    assert_eq!(node.status(&side).state(), ContainerState::Exited);
    assert_eq!(pod.status().state, 1);
    pod.remove();
    node.is_clean();
}
