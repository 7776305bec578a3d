//! A node as the kubelet has it: containerd with its CRI, our shim as the runtime, CNI plugins, images made here, in mount
//! and network namespaces of the test's own. Whoever executes a runtime's binary is found out: those on the PATH leave a
//! mark. Uses runtime_tests, nix, and `shim_harness` of the test that it is part of.

pub mod client;
mod containerd;
pub mod messages;
pub mod streams;

use crate::shim_harness::{Living, all_here, binary, end_all_here, own_run, text};
use client::{Client, Refusal};
use containerd::{BOX, SOCKET, configuration, import, network, ok, start};
use messages::*;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use runtime_tests::bundle::Folder;
use runtime_tests::machine::own_mount_namespace;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const STATES: &str = "/run/containerd/rcrun/k8s.io";

/// How a container's cgroup is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// containerd is told to ask for none: what it asks for takes a cpu controller, which the machine may not have.
    Default,
    /// Scopes of systemd's.
    Systemd,
}

/// A node.
pub struct Node {
    folder: Folder,
    driver: Driver,
    sandboxes: bool,
    child: Child,
    client: Client,
}

impl Node {
    /// One with the images of the tests.
    pub fn new(driver: Driver) -> Node {
        Node::with(driver, false)
    }

    /// The same, with pods that are the shim's: containerd 1.7's experimental mode.
    pub fn with_sandboxes(driver: Driver) -> Node {
        Node::with(driver, true)
    }

    fn with(driver: Driver, sandboxes: bool) -> Node {
        own_mount_namespace();
        unshare(CloneFlags::CLONE_NEWNET).expect("unshare of the network");
        ok(Command::new("busybox").args(["ip", "link", "set", "lo", "up"]));
        let folder = Folder::new("node");
        own_run(folder.path());
        let nothing = None::<&str>;
        let new = |kind: &str, at: &Path| {
            mount(Some(kind), at, Some(kind), MsFlags::empty(), nothing)
                .unwrap_or_else(|e| panic!("mount {kind} on {}: {e}", at.display()));
        };
        for name in ["root", "cni", "logs", "stubs"] {
            fs::create_dir(folder.path().join(name)).expect("mkdir");
        }
        // An overlay's upper folder cannot lie on an overlay, which /tmp may be.
        new("tmpfs", &folder.path().join("root"));
        // The plugins keep addresses and results there.
        new("tmpfs", Path::new("/var/lib"));
        let cgroup = Path::new("/sys/fs/cgroup");
        if !cgroup.join("cgroup.controllers").exists() {
            umount2(cgroup, MntFlags::MNT_DETACH).expect("umount of the cgroups");
            new("cgroup2", cgroup);
        }
        for name in ["runc", "crun", "rcrun", "containerd-shim-runc-v2"] {
            let stub = folder.path().join("stubs").join(name);
            let mark = folder.path().join("executed");
            let script = format!("#!/bin/sh\necho {name} \"$@\" >> {}\nexit 1\n", mark.display());
            fs::write(&stub, script).expect("write");
            fs::set_permissions(&stub, PermissionsExt::from_mode(0o755)).expect("chmod");
        }
        fs::write(folder.path().join("cni/pods.conflist"), network().to_string()).expect("write");
        fs::write(folder.path().join("config.toml"), configuration(folder.path(), driver)).expect("write");
        let child = start(folder.path(), sandboxes);
        import(folder.path());
        let mut node = Node { client: Client::at(SOCKET.as_ref()), folder, driver, sandboxes, child };
        // The CRI hears of images at some time after their import, and of all that are there when it starts.
        node.kill();
        node.start_again();
        node
    }

    /// Ends containerd as nobody should.
    pub fn kill(&mut self) {
        self.child.kill().expect("kill containerd");
        self.child.wait().expect("wait for containerd");
    }

    /// Starts it again.
    pub fn start_again(&mut self) {
        self.child = start(self.folder.path(), self.sandboxes);
        self.client = Client::at(SOCKET.as_ref());
        // It says in its log that it is about to serve, and nowhere that it does.
        until("the CRI serves", || {
            self.client.try_call::<VersionResponse>("Version", &Empty {}).ok().map(drop)
        });
    }

    /// A call that must succeed.
    pub fn call<A: prost::Message + Default>(&self, method: &str, request: &impl prost::Message) -> A {
        self.try_call(method, request).unwrap_or_else(|e| panic!("{method}: {e:?}\n{}", self.log()))
    }

    /// A call.
    pub fn try_call<A: prost::Message + Default>(
        &self,
        method: &str,
        request: &impl prost::Message,
    ) -> Result<A, Refusal> {
        self.client.try_call(method, request)
    }

    /// The end of containerd's log.
    fn log(&self) -> String {
        let log = text(&self.folder.path().join("log"));
        let lines: Vec<&str> = log.lines().filter(|line| !line.contains("level=info")).collect();
        let executed = fs::read_to_string(self.folder.path().join("executed")).unwrap_or_default();
        format!("{}\nexecuted: {executed}", lines[lines.len().saturating_sub(15)..].join("\n"))
    }

    /// Where containers' logs of a pod are.
    pub fn logs(&self, pod: &Pod<'_>) -> PathBuf {
        self.folder.path().join("logs").join(&pod.name)
    }

    /// A folder of the node's, for what is mounted into containers.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What a pod is to be: with a network, an ipc and a process namespace of its own, which its containers share.
    pub fn pod_config(&self, name: &str) -> PodSandboxConfig {
        let uid = format!("{}-{}", std::process::id(), name);
        let cgroup_parent = match self.driver {
            Driver::Default => String::new(),
            Driver::Systemd => format!("/kubepods.slice/kubepods-pod{}.slice", uid.replace('-', "_")),
        };
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata { name: name.into(), uid, namespace: "default".into() }),
            hostname: name.to_string(),
            log_directory: self.folder.path().join("logs").join(name).display().to_string(),
            dns_config: Some(DnsConfig {
                servers: vec!["10.96.0.10".into()],
                searches: vec!["cluster.test".into()],
            }),
            linux: Some(LinuxPodSandboxConfig { cgroup_parent, ..Default::default() }),
            ..Default::default()
        }
    }

    /// Runs it with the default runtime, or the one that a RuntimeClass names.
    pub fn run(&self, config: PodSandboxConfig, runtime_handler: &str) -> Pod<'_> {
        fs::create_dir_all(&config.log_directory).expect("mkdir");
        let name = config.metadata.as_ref().expect("metadata").name.clone();
        let request =
            RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: runtime_handler.into() };
        let id = self.call_of_network::<PodId>("RunPodSandbox", &request).pod_sandbox_id;
        Pod { node: self, id, name, config }
    }

    /// A call that sets a network up or takes it down and must succeed, asked for again as the kubelet does whatever was
    /// refused, but here for one reason only: a plugin built with netlink 1.2.1 or 1.3.0 (trixie's) gives up with EINTR when
    /// addresses change while it lists them, which the kernel allows itself (NLM_F_DUMP_INTR; containernetworking/plugins
    /// issue 1121).
    fn call_of_network<A: prost::Message + Default>(&self, method: &str, request: &impl prost::Message) -> A {
        for _ in 0..5 {
            match self.try_call(method, request) {
                Err(refusal) if refusal.text.ends_with("interrupted system call") => {
                    eprintln!("{method}: once more: {}", refusal.text);
                }
                answer => return answer.unwrap_or_else(|e| panic!("{method}: {e:?}\n{}", self.log())),
            }
        }
        panic!("{method} is interrupted each time\n{}", self.log());
    }

    /// A pod with nothing special.
    pub fn pod(&self, name: &str) -> Pod<'_> {
        self.run(self.pod_config(name), "")
    }

    /// A pod that runs already.
    pub fn again(&self, id: &str, config: PodSandboxConfig) -> Pod<'_> {
        let name = config.metadata.as_ref().expect("metadata").name.clone();
        Pod { node: self, id: id.into(), name, config }
    }

    /// The processes that are our shim.
    pub fn shims(&self) -> Vec<i32> {
        let of_ours = |pid: &i32| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.contains("containerd-shim-rcrun-v2")
        };
        all_here().into_iter().filter(of_ours).collect()
    }

    /// What CRI tells of a container.
    pub fn status(&self, id: &str) -> ContainerStatus {
        let request = ContainerStatusRequest { container_id: id.into(), verbose: false };
        self.call::<ContainerStatusResponse>("ContainerStatus", &request).status.expect("a status")
    }

    /// The same, once it has ended.
    pub fn ended(&self, id: &str) -> ContainerStatus {
        until("a container ends", || {
            let status = self.status(id);
            (status.state() == ContainerState::Exited).then_some(status)
        })
    }

    /// The pid of a container's first process.
    pub fn pid(&self, id: &str) -> i32 {
        let request = ContainerStatusRequest { container_id: id.into(), verbose: true };
        let info = self.call::<ContainerStatusResponse>("ContainerStatus", &request).info;
        let info: serde_json::Value = serde_json::from_str(&info["info"]).expect("JSON");
        info["pid"].as_i64().expect("a pid") as i32
    }

    /// Runs a script in a container: exit code, output, errors.
    pub fn exec(&self, id: &str, script: &str) -> (i32, String, String) {
        let answer =
            self.exec_words(id, &["sh", "-c", script], 0).unwrap_or_else(|e| panic!("{script}: {e:?}"));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (answer.exit_code, text(answer.stdout), text(answer.stderr))
    }

    /// Runs a command in a container, for so many seconds at most; 0 is for ever.
    pub fn exec_words(&self, id: &str, words: &[&str], timeout: i64) -> Result<ExecSyncResponse, Refusal> {
        let cmd = words.iter().map(ToString::to_string).collect();
        self.try_call("ExecSync", &ExecSyncRequest { container_id: id.into(), cmd, timeout })
    }

    /// What a script in a container prints that must succeed.
    pub fn says(&self, id: &str, script: &str) -> String {
        let (code, out, err) = self.exec(id, script);
        assert_eq!((code, err.as_str()), (0, ""), "{script}: {out}");
        out
    }

    /// Waits until a web server of the container's network serves: it listens a while after it has been started.
    pub fn hears_httpd(&self, id: &str) {
        let script = "busybox wget -qO /dev/null 127.0.0.1:8080/";
        until("httpd answers", || (self.exec(id, script).0 == 0).then_some(()));
    }

    /// Waits until a container's log has a text.
    pub fn logged(&self, pod: &Pod<'_>, name: &str, word: &str) {
        let log = self.logs(pod).join(name).with_extension("log");
        until(word, || fs::read_to_string(&log).unwrap_or_default().contains(word).then_some(()));
    }

    /// Stops a container, with so many seconds of grace, and removes it.
    pub fn remove(&self, id: &str, grace: i64) {
        let _: Empty =
            self.call("StopContainer", &StopContainerRequest { container_id: id.into(), timeout: grace });
        let _: Empty = self.call("RemoveContainer", &ContainerId { container_id: id.into() });
    }

    /// No runtime was executed, and nothing is left.
    pub fn is_clean(&self) {
        // A shim has answered before it ends.
        self.shims().into_iter().filter_map(Living::of_some).for_each(|shim| shim.ends());
        let mark = self.folder.path().join("executed");
        assert!(!mark.exists(), "these were executed: {}", text(&mark));
        let mounts = text("/proc/thread-self/mountinfo".as_ref());
        let of_pods = ["/rootfs ", "/shm ", "/netns/"];
        let left: Vec<_> = mounts
            .lines()
            .filter(|line| line.contains("/run/") && of_pods.iter().any(|part| line.contains(part)))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        for folder in ["s", "rcrun/k8s.io", "io.containerd.runtime.v2.task/k8s.io", "../netns"]
            .map(|name| Path::new("/run/containerd").join(name))
        {
            // containerd removes a bundle after it has answered.
            until(&format!("{} is empty", folder.display()), || {
                fs::read_dir(&folder).into_iter().flatten().flatten().next().is_none().then_some(())
            });
        }
        let pods = self.call::<ListPodSandboxResponse>("ListPodSandbox", &Empty {});
        assert!(pods.items.is_empty(), "{pods:?}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What a test that has failed leaves.
        end_all_here("k8s.io");
        let rcrun = binary().with_file_name("rcrun");
        for id in fs::read_dir(STATES).into_iter().flatten().flatten() {
            let mut delete = Command::new(&rcrun);
            delete.args(["--root", STATES, "delete", "--force"]).arg(id.file_name());
            let _ = delete.stdin(Stdio::null()).output();
        }
    }
}

/// A pod that runs.
pub struct Pod<'n> {
    node: &'n Node,
    pub id: String,
    pub name: String,
    pub config: PodSandboxConfig,
}

impl Pod<'_> {
    /// What a container is to be that runs these words.
    pub fn config(&self, name: &str, words: &[&str]) -> ContainerConfig {
        ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.into(), attempt: 0 }),
            image: Some(ImageSpec { image: BOX.into() }),
            command: words.iter().map(ToString::to_string).collect(),
            log_path: format!("{name}.log"),
            ..Default::default()
        }
    }

    /// Creates a container.
    pub fn create(&self, config: ContainerConfig) -> Result<String, Refusal> {
        let request = CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        self.node.try_call::<ContainerId>("CreateContainer", &request).map(|made| made.container_id)
    }

    /// Creates and starts one.
    pub fn start(&self, config: ContainerConfig) -> String {
        let id =
            self.create(config).unwrap_or_else(|e| panic!("CreateContainer: {e:?}\n{}", self.node.log()));
        let _: Empty = self.node.call("StartContainer", &ContainerId { container_id: id.clone() });
        id
    }

    /// One that runs these words.
    pub fn runs(&self, name: &str, words: &[&str]) -> String {
        self.start(self.config(name, words))
    }

    /// One that does nothing, for ever.
    pub fn waits(&self, name: &str) -> String {
        // As the first process of a pid namespace `sleep` would not end by SIGTERM.
        self.runs(name, &["sh", "-c", "trap 'exit 0' TERM; echo up; while :; do sleep 1000 & wait; done"])
    }

    /// What CRI tells of it.
    pub fn status(&self) -> PodSandboxStatus {
        let request = PodId { pod_sandbox_id: self.id.clone() };
        self.node.call::<PodSandboxStatusResponse>("PodSandboxStatus", &request).status.expect("a status")
    }

    /// Its address.
    pub fn ip(&self) -> String {
        self.status().network.expect("a network").ip
    }

    /// Stops it, with what runs in it.
    pub fn stop(&self) {
        let _: Empty =
            self.node.call_of_network("StopPodSandbox", &PodId { pod_sandbox_id: self.id.clone() });
    }

    /// Stops and removes it.
    pub fn remove(self) {
        self.stop();
        let _: Empty = self.node.call("RemovePodSandbox", &PodId { pod_sandbox_id: self.id.clone() });
    }
}

/// Asks again until there is an answer: of some things CRI tells only when it is asked. Each question is a call that
/// waits for containerd.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let limit = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < limit, "not after two minutes: {what}");
    }
}
