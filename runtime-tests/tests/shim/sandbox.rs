//! The sandbox API, as containerd 2 calls it: a pod that is namespaces, and the containers in them.

use crate::harness::{Io, Living, Place, Shim, run, text};
use containerd_shim_protos::api::Status;
use containerd_shim_protos::cgroups_v2::metrics::Metrics;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::sandbox_api::*;
use containerd_shim_protos::ttrpc::Code;
use runtime_tests::bundle::Bundle;
use runtime_tests::inside::{is_alive, shell};
use serde_json::json;
use std::io::Read;
use std::process::{Command, Stdio};

/// The calls of one sandbox.
struct Sandbox<'a> {
    shim: &'a Shim,
    id: &'a str,
}

type Answer<A> = Result<A, (Code, String)>;

impl Sandbox<'_> {
    fn create(&self, change: impl FnOnce(&mut CreateSandboxRequest)) -> Answer<CreateSandboxResponse> {
        let mut request = CreateSandboxRequest { sandbox_id: self.id.into(), ..Default::default() };
        request.bundle_path = "/nowhere".into();
        change(&mut request);
        self.shim.sandbox("CreateSandbox", &request)
    }

    fn start(&self) -> Answer<i32> {
        let request = StartSandboxRequest { sandbox_id: self.id.into(), ..Default::default() };
        let started: StartSandboxResponse = self.shim.sandbox("StartSandbox", &request)?;
        assert!(started.created_at.seconds > 1_600_000_000, "{started:?}");
        Ok(started.pid as i32)
    }

    fn stop(&self) -> Answer<StopSandboxResponse> {
        let request =
            StopSandboxRequest { sandbox_id: self.id.into(), timeout_secs: 60, ..Default::default() };
        self.shim.sandbox("StopSandbox", &request)
    }

    fn status(&self) -> Answer<SandboxStatusResponse> {
        let request =
            SandboxStatusRequest { sandbox_id: self.id.into(), verbose: true, ..Default::default() };
        self.shim.sandbox("SandboxStatus", &request)
    }

    fn wait(&self) -> Answer<WaitSandboxResponse> {
        let request = WaitSandboxRequest { sandbox_id: self.id.into(), ..Default::default() };
        self.shim.sandbox("WaitSandbox", &request)
    }

    fn ping(&self) -> Answer<PingResponse> {
        self.shim.sandbox("PingSandbox", &PingRequest { sandbox_id: self.id.into(), ..Default::default() })
    }

    fn platform(&self) -> Answer<PlatformResponse> {
        let request = PlatformRequest { sandbox_id: self.id.into(), ..Default::default() };
        self.shim.sandbox("Platform", &request)
    }

    fn metrics(&self) -> Metrics {
        let request = SandboxMetricsRequest { sandbox_id: self.id.into(), ..Default::default() };
        let answer: SandboxMetricsResponse = self.shim.sandbox("SandboxMetrics", &request).expect("metrics");
        assert_eq!(answer.metrics.id, self.id);
        assert_eq!(answer.metrics.data.type_url, "io.containerd.cgroups.v2.Metrics");
        Metrics::parse_from_bytes(&answer.metrics.data.value).expect("metrics")
    }

    fn shut_down(&self) -> Answer<ShutdownSandboxResponse> {
        let request = ShutdownSandboxRequest { sandbox_id: self.id.into(), ..Default::default() };
        self.shim.sandbox("ShutdownSandbox", &request)
    }
}

/// A shim for a sandbox, which has no config.json.
fn shim_of(place: &Place, id: &str) -> (Shim, Bundle) {
    let bundle = Bundle::new("shim-pod", &["true"]);
    std::fs::remove_file(bundle.path().join("config.json")).expect("unlink");
    let said = run(place.command(&bundle, id).arg("start"), b"");
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    (Shim::at(&said.out), bundle)
}

fn namespace(pid: i32, kind: &str) -> String {
    let link = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a namespace");
    link.display().to_string()
}

/// The config of a container in a pod, as containerd writes it: the pod's namespaces by the path of its pid.
fn in_pod(place: &Place, id: &str, pid: i32, script: &str) -> Bundle {
    shell("shim-in-pod", script, |c| {
        c["linux"]["cgroupsPath"] = json!(format!("/{}/{id}", place.namespace));
        let namespaces = c["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|n| !["network", "ipc", "uts"].contains(&n["type"].as_str().unwrap_or_default()));
        for (kind, file) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
            namespaces.push(json!({"type": kind, "path": format!("/proc/{pid}/ns/{file}")}));
        }
        if let Some(config) = c.as_object_mut() {
            config.remove("hostname");
        }
    })
}

/// What the shim has made: its processes' children, of all its threads.
fn children(shim: i32) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{shim}/task")).expect("tasks").flatten();
    tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default()).collect()
}

fn parent_of(tid: i32, key: &str) -> String {
    let status = text(format!("/proc/{tid}/status").as_ref());
    status.lines().find_map(|line| line.strip_prefix(key)).expect("a line").trim().to_string()
}

#[test]
fn a_pod_is_namespaces_without_a_process_and_goes_with_all_that_is_in_it() {
    let place = Place::new("shim-sandbox");
    let (shim, _bundle) = shim_of(&place, "pod");
    let pod = Sandbox { shim: &shim, id: "pod" };
    // What Kubernetes says: hostname 2; linux 8 with sysctls 3 (shmmni) and namespace_options (pid 2: CONTAINER).
    let sysctl = b"\x0a\x0dkernel.shmmni\x12\x03123";
    let linux = [&b"\x12\x04\x0a\x02\x10\x01\x1a"[..], &[sysctl.len() as u8], sysctl].concat();
    let config = [&b"\x12\x05web-0\x42"[..], &[linux.len() as u8], &linux].concat();
    pod.create(|request| {
        let any = Any { type_url: "runtime.v1.PodSandboxConfig".into(), value: config, ..Any::default() };
        request.options = Some(any).into();
    })
    .expect("create");
    assert_eq!(pod.status().expect("status").state, "SANDBOX_NOTREADY");
    let pid = pod.start().expect("start");
    let status = pod.status().expect("status");
    assert_eq!((status.state.as_str(), status.pid as i32), ("SANDBOX_READY", pid));
    let info: serde_json::Value = serde_json::from_str(&status.info["info"]).expect("JSON");
    assert_eq!(info["namespaces"]["network"], json!(format!("/proc/{pid}/ns/net")));
    let platform = pod.platform().expect("platform").platform;
    assert_eq!(platform.os, "linux");
    assert!(["amd64", "arm64"].contains(&platform.architecture.as_str()));
    pod.ping().expect("ping");
    // By these a containerd that is started anew finds it again.
    assert_eq!(shim.connect("pod").expect("connect").task_pid as i32, pid);
    assert_eq!(shim.pids("pod").expect("pids").len(), 0);
    // A thread of the shim, which is in namespaces that nobody else is in.
    let own: i32 = parent_of(pid, "Tgid:").parse().expect("a pid");
    assert!(text(format!("/proc/{own}/cmdline").as_ref()).contains("containerd-shim-rcrun-v2"));
    assert_eq!(children(own), "");
    for kind in ["net", "ipc", "uts"] {
        assert_ne!(namespace(pid, kind), namespace(own, kind), "{kind}");
        assert_eq!(namespace(own, kind), namespace(std::process::id() as i32, kind), "{kind}");
    }
    // containerd 1.7 asks so before it makes a container in it.
    assert_eq!(shim.connect("first").expect("connect").task_pid, 0);
    // Two containers see the same.
    let script = "hostname; cat /proc/sys/kernel/shmmni; cat /sys/class/net/lo/operstate; readlink /proc/self/ns/net; exec sleep 1000";
    let mut alive = Vec::new();
    for id in ["first", "second"] {
        let bundle = in_pod(&place, id, pid, script);
        let io = Io { stdin: String::new(), ..Io::fifos(place.folder.path(), id) };
        let mut out = io.out();
        shim.create(&bundle, id, &io).expect("create");
        alive.push(shim.start(id, "").expect("start") as i32);
        assert_eq!((out.line().as_str(), out.line().as_str()), ("web-0", "123"));
        // The loopback device has no carrier to tell of: it is up, which is "unknown".
        assert_eq!(out.line(), "unknown");
        assert_eq!(out.line(), namespace(pid, "net"));
    }
    assert!(pod.metrics().cpu.usage_usec > 0);
    // A task that goes takes the shim with it only where there is no sandbox.
    shim.kill("first", "", libc::SIGKILL, false).expect("kill");
    shim.wait("first", "").expect("wait");
    shim.delete("first", "").expect("delete");
    shim.shut_down();
    pod.ping().expect("the sandbox is still there");
    // Who waits for the sandbox hears of its end, and what was left in it has ended.
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| Sandbox { shim: &Shim::at(&shim.address), id: "pod" }.wait());
        pod.stop().expect("stop");
        let ended = waits.join().expect("thread").expect("wait");
        assert!(ended.exit_status == 0 && ended.exited_at.seconds > 1_600_000_000, "{ended:?}");
    });
    pod.stop().expect("a second stop is no error");
    assert_eq!(shim.wait("second", ""), Ok(137));
    assert_eq!(shim.status("second", ""), Status::STOPPED);
    assert!(alive.iter().all(|pid| !is_alive(*pid)));
    let status = pod.status().expect("status");
    assert_eq!((status.state.as_str(), status.pid), ("SANDBOX_NOTREADY", 0));
    assert!(status.exited_at.seconds > 1_600_000_000);
    // A thread that has been joined is on its last steps.
    let limit = std::time::Instant::now() + crate::harness::PATIENCE;
    while std::path::Path::new(&format!("/proc/{pid}")).exists() {
        assert!(std::time::Instant::now() < limit, "the thread has ended");
        pod.ping().expect("ping");
    }
    let late = in_pod(&place, "late", own, "true");
    assert_eq!(shim.create(&late, "late", &Io::none()).expect_err("it is over").0, Code::FAILED_PRECONDITION);
    let living = Living::of(own);
    pod.shut_down().expect("shut down");
    living.ends();
    assert!(!shim.socket().exists());
    let states = std::path::Path::new("/run/containerd/rcrun").join(&place.namespace);
    assert_eq!(std::fs::read_dir(states).expect("states").count(), 0);
}

#[test]
fn a_pod_has_the_network_that_it_is_given_or_that_of_a_config_json() {
    let place = Place::new("shim-netns");
    let mut other = Command::new("unshare")
        .args(["-n", "sh", "-c", "echo; exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare");
    other.stdout.take().expect("stdout").read_exact(&mut [0]).expect("a line");
    let netns = format!("/proc/{}/ns/net", other.id());
    let theirs = namespace(other.id() as i32, "net");
    let (shim, _bundle) = shim_of(&place, "plain");
    let pod = Sandbox { shim: &shim, id: "plain" };
    pod.create(|request| request.netns_path = netns.clone()).expect("create");
    let pid = pod.start().expect("start");
    assert_eq!(namespace(pid, "net"), theirs);
    pod.shut_down().expect("shut down");

    let config = json!({"ociVersion": "1.0.2", "hostname": "of-config", "linux": {"namespaces": [
        {"type": "network", "path": netns}, {"type": "uts"}, {"type": "mount"},
    ]}});
    let (shim, bundle) = shim_of(&place, "config");
    std::fs::write(bundle.path().join("config.json"), config.to_string()).expect("write");
    let pod = Sandbox { shim: &shim, id: "config" };
    pod.create(|request| request.bundle_path = bundle.path().display().to_string()).expect("create");
    let pid = pod.start().expect("start");
    let own: i32 = parent_of(pid, "Tgid:").parse().expect("a pid");
    assert_eq!(namespace(pid, "net"), theirs);
    assert_eq!(namespace(pid, "ipc"), namespace(own, "ipc"), "the machine's");
    assert_ne!(namespace(pid, "uts"), namespace(own, "uts"));
    pod.shut_down().expect("shut down");
    other.kill().expect("kill");
    other.wait().expect("wait");
}

#[test]
fn what_a_sandbox_cannot_be_is_answered_in_containerds_classes() {
    let place = Place::new("shim-sandbox-classes");
    let (shim, bundle) = shim_of(&place, "pod");
    let pod = Sandbox { shim: &shim, id: "pod" };
    let code = |answer: Answer<()>| answer.expect_err("a refusal").0;
    assert_eq!(code(pod.ping().map(drop)), Code::NOT_FOUND);
    assert_eq!(code(pod.start().map(drop)), Code::NOT_FOUND);
    let of = |name: &str, value: &[u8]| {
        let (type_url, value) = (name.to_string(), value.to_vec());
        move |request: &mut CreateSandboxRequest| {
            request.options = Some(Any { type_url, value, ..Any::default() }).into();
        }
    };
    // Kubernetes' zero is a pid namespace for the pod.
    let (refused, why) = pod.create(of("runtime.v1.PodSandboxConfig", b"")).expect_err("a refusal");
    assert_eq!(refused, Code::UNIMPLEMENTED);
    assert!(why.contains("shareProcessNamespace"), "{why}");
    assert_eq!(code(pod.create(of("else.v1.Config", b"")).map(drop)), Code::UNIMPLEMENTED);
    let broken = pod.create(of("runtime.v1.PodSandboxConfig", b"\x0a\x09x"));
    assert_eq!(code(broken.map(drop)), Code::INVALID_ARGUMENT);
    assert_eq!(code(pod.create(|r| r.rootfs.push(Default::default())).map(drop)), Code::UNIMPLEMENTED);
    assert_eq!(code(pod.create(|r| r.sandbox_id = "../x".into()).map(drop)), Code::INVALID_ARGUMENT);
    // No namespace of the kind.
    let file = bundle.path().join("no-namespace");
    std::fs::write(&file, "").expect("write");
    pod.create(|r| r.netns_path = file.display().to_string()).expect("create");
    assert_eq!(code(pod.create(|_| ()).map(drop)), Code::ALREADY_EXISTS);
    let (_, why) = pod.start().expect_err("a refusal");
    assert!(why.contains("is no namespace of the wanted kind"), "{why}");
    let other = Sandbox { shim: &shim, id: "other" };
    assert_eq!(code(other.shut_down().map(drop)), Code::NOT_FOUND);
    pod.stop().expect("stop");
    assert_eq!(code(pod.start().map(drop)), Code::FAILED_PRECONDITION);
    // As containerd does after a start that has failed.
    let connected = Shim::at(&shim.address);
    pod.shut_down().expect("shut down");
    // And after a create that has failed.
    drop(connected);
    let (shim, _bundle) = shim_of(&place, "pod");
    let pod = Sandbox { shim: &shim, id: "pod" };
    pod.shut_down().expect("shut down a shim without a sandbox");
    assert!(!shim.socket().exists());
}

#[test]
fn of_a_pod_whose_shim_was_killed_nothing_stays_but_containers_that_can_be_deleted() {
    let place = Place::new("shim-sandbox-killed");
    let (shim, bundle) = shim_of(&place, "pod");
    let pod = Sandbox { shim: &shim, id: "pod" };
    pod.create(|_| ()).expect("create");
    let pid = pod.start().expect("start");
    let own: i32 = parent_of(pid, "Tgid:").parse().expect("a pid");
    let inside = in_pod(&place, "inside", pid, "exec sleep 1000");
    shim.create(&inside, "inside", &Io::none()).expect("create");
    let init = shim.start("inside", "").expect("start") as i32;
    let living = Living::of(own);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(own), nix::sys::signal::Signal::SIGKILL).expect("kill");
    living.ends();
    assert!(is_alive(init));
    for (bundle, id) in [(&inside, "inside"), (&bundle, "pod")] {
        let mut command = place.command(bundle, id);
        command.arg("-bundle").arg(bundle.path()).arg("delete");
        let said = run(&mut command, b"");
        assert_eq!(said.status, 0, "{}", said.err);
    }
    assert!(!is_alive(init) && !shim.socket().exists());
}
