//! A shim under test, without a containerd: containerd's side of the protocols is played here, with the ttrpc crate.

use containerd_shim_protos::api::*;
use containerd_shim_protos::events::task as events;
use containerd_shim_protos::protobuf::{Message, MessageFull};
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::shim::oci::CheckpointOptions;
use containerd_shim_protos::{Events, create_events, ttrpc};
use nix::mount::{MsFlags, mount};
use runtime_tests::bundle::{Bundle, Folder};
use runtime_tests::machine::own_mount_namespace;
use runtime_tests::runtime::{Lines, Said, readable, said};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use ttrpc::context::with_timeout;

/// As long as a slow machine may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The shim's binary, beside rcrun's.
pub fn binary() -> PathBuf {
    let rcrun = std::env::var_os("RCRUN").expect("RCRUN is not set: run the tests by `make test`");
    let shim = Path::new(&rcrun).with_file_name("containerd-shim-rcrun-v2");
    assert!(shim.exists(), "{} is not there: run `make build` first", shim.display());
    shim
}

/// A place for shims: a mount namespace with a /run of its own, and somebody who hears of events. Its namespace for
/// containers names a cgroup of the machine.
pub struct Place {
    pub namespace: String,
    pub folder: Folder,
    pub events: Receiver<Event>,
    _server: ttrpc::Server,
}

/// An event in few words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub topic: String,
    /// The container, or the exec.
    pub whose: String,
    pub pid: u32,
    pub status: u32,
}

struct Ear(Mutex<Sender<Event>>);

impl Events for Ear {
    fn forward(&self, _: &ttrpc::TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
        let envelope = request.envelope;
        let value = &envelope.event.value;
        let (whose, pid, status) = match envelope.topic.as_str() {
            "/tasks/create" => read(value, |e: events::TaskCreate| (e.container_id, e.pid, 0)),
            "/tasks/start" => read(value, |e: events::TaskStart| (e.container_id, e.pid, 0)),
            "/tasks/exit" => read(value, |e: events::TaskExit| (e.id, e.pid, e.exit_status)),
            "/tasks/delete" => read(value, |e: events::TaskDelete| (e.container_id, e.pid, e.exit_status)),
            "/tasks/exec-added" => read(value, |e: events::TaskExecAdded| (e.exec_id, 0, 0)),
            "/tasks/exec-started" => read(value, |e: events::TaskExecStarted| (e.exec_id, e.pid, 0)),
            "/tasks/paused" => read(value, |e: events::TaskPaused| (e.container_id, 0, 0)),
            "/tasks/resumed" => read(value, |e: events::TaskResumed| (e.container_id, 0, 0)),
            "/tasks/checkpointed" => read(value, |e: events::TaskCheckpointed| (e.container_id, 0, 0)),
            "/tasks/oom" => read(value, |e: events::TaskOOM| (e.container_id, 0, 0)),
            other => panic!("a topic that containerd does not know: {other}"),
        };
        let event = Event { topic: envelope.topic.clone(), whose, pid, status };
        let _ = self.0.lock().expect("lock").send(event);
        Ok(Empty::new())
    }
}

/// What an event tells, once its type is known.
fn read<M: Message>(value: &[u8], tell: impl FnOnce(M) -> (String, u32, u32)) -> (String, u32, u32) {
    tell(M::parse_from_bytes(value).expect("an event"))
}

impl Place {
    pub fn new(name: &str) -> Place {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        own_mount_namespace();
        let folder = Folder::new(name);
        own_run(folder.path());
        let (sender, events) = channel();
        let address = format!("unix://{}", folder.path().join("events.sock").display());
        let mut server = ttrpc::Server::new()
            .bind(&address)
            .expect("bind")
            .register_service(create_events(Arc::new(Ear(Mutex::new(sender)))));
        server.start().expect("start");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("rcrun-shim-{}-{number}", std::process::id());
        Place { namespace, folder, events, _server: server }
    }

    /// The shim's command with containerd's flags, in the bundle's folder.
    pub fn command(&self, bundle: &Bundle, id: &str) -> Command {
        let mut command = Command::new(binary());
        command
            .args(["-namespace", &self.namespace, "-address", "/run/containerd/containerd.sock"])
            .args(["-publish-binary", "/nowhere/containerd", "-id", id])
            .current_dir(bundle.path())
            // Nothing can be found to be executed.
            .env_clear()
            .env("PATH", "/nowhere")
            .env("TTRPC_ADDRESS", self.folder.path().join("events.sock"))
            .stdin(Stdio::null());
        command
    }

    /// `start`, as containerd 1.6 calls it; the address.
    pub fn start(&self, bundle: &Bundle, id: &str) -> String {
        self.start_with(bundle, id, |_| ())
    }

    /// The same with another command.
    pub fn start_with(&self, bundle: &Bundle, id: &str, change: impl FnOnce(&mut Command)) -> String {
        // Below one cgroup, that of this place.
        let mut config = bundle.config.clone();
        if config["linux"]["cgroupsPath"].is_null() {
            config["linux"]["cgroupsPath"] = format!("/{}/{id}", self.namespace).into();
            std::fs::write(bundle.path().join("config.json"), config.to_string()).expect("write config.json");
        }
        let mut command = self.command(bundle, id);
        change(&mut command);
        let said = run(command.arg("start"), b"");
        assert_eq!((said.status, said.err.as_str()), (0, ""), "{}", said.out);
        said.out
    }

    /// A shim for one container.
    pub fn shim(&self, bundle: &Bundle, id: &str) -> Shim {
        Shim::at(&self.start(bundle, id))
    }

    /// A shim with a container that waits for `start`.
    pub fn created(&self, bundle: &Bundle, id: &str, io: &Io) -> Shim {
        let shim = self.shim(bundle, id);
        shim.create(bundle, id, io).expect("create");
        shim
    }

    /// The next event.
    pub fn event(&self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("an event")
    }

    /// The topics and owners of the next events.
    pub fn heard(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.event()).map(|event| format!("{} {}", event.topic, event.whose)).collect()
    }
}

/// An empty /run in this thread's mount namespace, but for what reaches systemd.
pub fn own_run(folder: &Path) {
    let nothing = None::<&str>;
    let machines = folder.join("run");
    std::fs::create_dir(&machines).expect("mkdir");
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some("/run"), &machines, nothing, bind, nothing).expect("bind /run");
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), nothing).expect("tmpfs on /run");
    for name in ["dbus", "systemd"] {
        let there = machines.join(name);
        if there.is_dir() {
            let here = Path::new("/run").join(name);
            std::fs::create_dir(&here).expect("mkdir");
            mount(Some(&there), &here, nothing, bind, nothing).expect("bind");
        }
    }
    nix::mount::umount2(&machines, nix::mount::MntFlags::MNT_DETACH).expect("umount");
}

impl Drop for Place {
    fn drop(&mut self) {
        end_all_here(&self.namespace);
    }
}

/// The processes in this thread's mount namespace, but for this one.
pub fn all_here() -> Vec<i32> {
    let ours = std::fs::read_link("/proc/thread-self/ns/mnt").expect("ns/mnt");
    let pids = std::fs::read_dir("/proc").expect("/proc").flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse::<i32>().ok()?;
        let here = std::fs::read_link(entry.path().join("ns/mnt")).is_ok_and(|ns| ns == ours);
        (here && pid != std::process::id() as i32).then_some(pid)
    });
    pids.collect()
}

/// Ends what a test that has failed leaves: the processes in this thread's mount namespace, and those in cgroups below that
/// of `namespace`; then the cgroups.
pub fn end_all_here(namespace: &str) {
    for pid in all_here() {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    let own = runtime_tests::machine::cgroup2().join(namespace);
    let _ = std::fs::write(own.join("cgroup.kill"), "1");
    for entry in std::fs::read_dir(&own).into_iter().flatten().flatten() {
        let _ = std::fs::remove_dir(entry.path());
    }
    let _ = std::fs::remove_dir(own);
}

/// Runs a command with something to read.
pub fn run(command: &mut Command, input: &[u8]) -> Said {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("execute the shim");
    child.stdin.take().expect("stdin").write_all(input).expect("write");
    said(&child.wait_with_output().expect("wait"))
}

/// What a process's stdio is to be.
#[derive(Clone, Debug, Default)]
pub struct Io {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub terminal: bool,
    /// Who reads stderr, whether or not a test does: the shim waits for him, as runc's does.
    pub attended: Option<Arc<OwnedFd>>,
}

impl Io {
    /// None.
    pub fn none() -> Io {
        Io::default()
    }

    /// FIFOs in `folder`, as containerd makes them.
    pub fn fifos(folder: &Path, name: &str) -> Io {
        let make = |end: &str| {
            let path = folder.join(format!("{name}-{end}"));
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
            path.display().to_string()
        };
        let stderr = make("stderr");
        let attended = Some(Arc::new(open(&stderr, true)));
        Io { stdin: make("stdin"), stdout: make("stdout"), stderr, terminal: false, attended }
    }

    /// The reading end of stdout, which does not wait for a writer.
    pub fn out(&self) -> Lines {
        Lines::of(open(&self.stdout, true))
    }

    /// The same of stderr.
    pub fn err(&self) -> Lines {
        Lines::of(self.attended.as_ref().expect("a FIFO").try_clone().expect("dup"))
    }

    /// The writing end of stdin. The shim must have opened it.
    pub fn input(&self) -> std::fs::File {
        open(&self.stdin, false).into()
    }
}

fn open(path: &str, read: bool) -> OwnedFd {
    let mut options = std::fs::File::options();
    options.read(read).write(!read).custom_flags(libc::O_NONBLOCK);
    let file = options.open(path).unwrap_or_else(|e| panic!("open {path}: {e}"));
    let fd: OwnedFd = file.into();
    let flags = rustix::fs::fcntl_getfl(&fd).expect("F_GETFL");
    // Reading looks first whether there is something: without a writer there would be an end of file.
    if !read {
        rustix::fs::fcntl_setfl(&fd, flags & !rustix::fs::OFlags::NONBLOCK).expect("F_SETFL");
    }
    fd
}

/// A shim that serves.
pub struct Shim {
    client: ttrpc::Client,
    service: &'static str,
    pub address: String,
}

/// What the shim answers where it refuses.
pub type Refusal = (ttrpc::Code, String);

impl Shim {
    /// The one that listens at `address`, by version 2 of the task API.
    pub fn at(address: &str) -> Shim {
        Shim {
            client: ttrpc::Client::connect(address).expect("connect to the shim"),
            service: "containerd.task.v2.Task",
            address: address.to_string(),
        }
    }

    /// By version 3.
    pub fn v3(mut self) -> Shim {
        self.service = "containerd.task.v3.Task";
        self
    }

    /// The socket's path.
    pub fn socket(&self) -> PathBuf {
        PathBuf::from(self.address.strip_prefix("unix://").expect("unix://"))
    }

    /// A call of the sandbox API.
    pub fn sandbox<Q: Message, A: MessageFull>(&self, method: &str, request: &Q) -> Result<A, Refusal> {
        let sandbox = Shim {
            service: "containerd.runtime.sandbox.v1.Sandbox",
            client: self.client.clone(),
            address: self.address.clone(),
        };
        sandbox.call(method, request)
    }

    fn call<Q: Message, A: MessageFull>(&self, method: &str, request: &Q) -> Result<A, Refusal> {
        // CRIU takes minutes in an emulated machine that others keep busy.
        let longer = if matches!(method, "Checkpoint" | "Start") { 5 } else { 1 };
        let context = with_timeout((PATIENCE * longer).as_nanos() as i64);
        let mut asked = ttrpc::Request::new();
        asked.service = self.service.to_string();
        asked.method = method.to_string();
        asked.timeout_nano = context.timeout_nano;
        asked.payload = request.write_to_bytes().expect("encode");
        match self.client.request(asked) {
            Ok(answer) => Ok(A::parse_from_bytes(&answer.payload).expect("an answer")),
            Err(ttrpc::Error::RpcStatus(status)) => Err((status.code(), status.message)),
            Err(other) => panic!("{method}: {other}"),
        }
    }

    pub fn create(&self, bundle: &Bundle, id: &str, io: &Io) -> Result<u32, Refusal> {
        self.create_with(bundle, id, io, |_| ())
    }

    pub fn create_with(
        &self,
        bundle: &Bundle,
        id: &str,
        io: &Io,
        change: impl FnOnce(&mut CreateTaskRequest),
    ) -> Result<u32, Refusal> {
        let mut request = CreateTaskRequest::new();
        request.id = id.to_string();
        request.bundle = bundle.path().display().to_string();
        request.terminal = io.terminal;
        request.stdin = io.stdin.clone();
        request.stdout = io.stdout.clone();
        request.stderr = io.stderr.clone();
        change(&mut request);
        self.call::<_, CreateTaskResponse>("Create", &request).map(|made| made.pid)
    }

    pub fn start(&self, id: &str, exec: &str) -> Result<u32, Refusal> {
        let request = StartRequest { id: id.into(), exec_id: exec.into(), ..StartRequest::default() };
        self.call::<_, StartResponse>("Start", &request).map(|started| started.pid)
    }

    pub fn wait(&self, id: &str, exec: &str) -> Result<u32, Refusal> {
        let request = WaitRequest { id: id.into(), exec_id: exec.into(), ..WaitRequest::default() };
        let ended = self.call::<_, WaitResponse>("Wait", &request)?;
        assert!(ended.exited_at.seconds > 1_600_000_000, "{ended:?}");
        Ok(ended.exit_status)
    }

    pub fn state(&self, id: &str, exec: &str) -> Result<StateResponse, Refusal> {
        let request = StateRequest { id: id.into(), exec_id: exec.into(), ..StateRequest::default() };
        self.call("State", &request)
    }

    /// The status in one word.
    pub fn status(&self, id: &str, exec: &str) -> Status {
        self.state(id, exec).expect("state").status.enum_value().expect("a status")
    }

    pub fn kill(&self, id: &str, exec: &str, signal: i32, all: bool) -> Result<(), Refusal> {
        let request = KillRequest {
            id: id.into(),
            exec_id: exec.into(),
            signal: signal as u32,
            all,
            ..KillRequest::default()
        };
        self.call::<_, Empty>("Kill", &request).map(drop)
    }

    pub fn delete(&self, id: &str, exec: &str) -> Result<DeleteResponse, Refusal> {
        let request = DeleteRequest { id: id.into(), exec_id: exec.into(), ..DeleteRequest::default() };
        self.call("Delete", &request)
    }

    /// Adds a process that runs `script`.
    pub fn exec(&self, id: &str, exec: &str, io: &Io, script: &str) -> Result<(), Refusal> {
        let process = serde_json::json!({
            "terminal": io.terminal,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh", "-c", script],
            "env": ["PATH=/bin"],
            "cwd": "/",
        });
        self.exec_with(id, exec, io, &process)
    }

    /// Adds this process, without stdio.
    pub fn exec_of(&self, id: &str, exec: &str, process: serde_json::Value) -> Result<(), Refusal> {
        self.exec_with(id, exec, &Io::none(), &process)
    }

    fn exec_with(&self, id: &str, exec: &str, io: &Io, process: &serde_json::Value) -> Result<(), Refusal> {
        let mut request = ExecProcessRequest::new();
        request.id = id.to_string();
        request.exec_id = exec.to_string();
        request.terminal = io.terminal;
        request.stdin = io.stdin.clone();
        request.stdout = io.stdout.clone();
        request.stderr = io.stderr.clone();
        let any = request.spec.mut_or_insert_default();
        any.type_url = "types.containerd.io/opencontainers/runtime-spec/1/Process".into();
        any.value = process.to_string().into_bytes();
        self.call::<_, Empty>("Exec", &request).map(drop)
    }

    pub fn resize(&self, id: &str, exec: &str, rows: u32, columns: u32) -> Result<(), Refusal> {
        let request = ResizePtyRequest {
            id: id.into(),
            exec_id: exec.into(),
            width: columns,
            height: rows,
            ..ResizePtyRequest::default()
        };
        self.call::<_, Empty>("ResizePty", &request).map(drop)
    }

    pub fn close_stdin(&self, id: &str, exec: &str) -> Result<(), Refusal> {
        let request =
            CloseIORequest { id: id.into(), exec_id: exec.into(), stdin: true, ..CloseIORequest::default() };
        self.call::<_, Empty>("CloseIO", &request).map(drop)
    }

    pub fn pause(&self, id: &str) -> Result<(), Refusal> {
        self.call::<_, Empty>("Pause", &PauseRequest { id: id.into(), ..PauseRequest::default() }).map(drop)
    }

    pub fn resume(&self, id: &str) -> Result<(), Refusal> {
        self.call::<_, Empty>("Resume", &ResumeRequest { id: id.into(), ..ResumeRequest::default() })
            .map(drop)
    }

    pub fn pids(&self, id: &str) -> Result<Vec<ProcessInfo>, Refusal> {
        let request = PidsRequest { id: id.into(), ..PidsRequest::default() };
        self.call::<_, PidsResponse>("Pids", &request).map(|response| response.processes)
    }

    pub fn stats(&self, id: &str) -> Result<StatsResponse, Refusal> {
        self.call("Stats", &StatsRequest { id: id.into(), ..StatsRequest::default() })
    }

    pub fn update(&self, id: &str, resources: &str) -> Result<(), Refusal> {
        let mut request = UpdateTaskRequest { id: id.into(), ..UpdateTaskRequest::default() };
        let any = request.resources.mut_or_insert_default();
        any.type_url = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".into();
        any.value = resources.as_bytes().to_vec();
        self.call::<_, Empty>("Update", &request).map(drop)
    }

    /// Writes it to `images`, with the options of the runc shim.
    pub fn checkpoint(&self, id: &str, images: &Path, options: &CheckpointOptions) -> Result<(), Refusal> {
        let path = images.display().to_string();
        let mut request = CheckpointTaskRequest { id: id.into(), path, ..CheckpointTaskRequest::default() };
        let any = request.options.mut_or_insert_default();
        any.type_url = "containerd.runc.v1.CheckpointOptions".into();
        any.value = options.write_to_bytes().expect("encode");
        self.call::<_, Empty>("Checkpoint", &request).map(drop)
    }

    pub fn connect(&self, id: &str) -> Result<ConnectResponse, Refusal> {
        self.call("Connect", &ConnectRequest { id: id.into(), ..ConnectRequest::default() })
    }

    /// The shim's own pid.
    pub fn pid(&self, id: &str) -> i32 {
        self.connect(id).expect("connect").shim_pid as i32
    }

    /// Asks it to end, which it does after it has answered.
    pub fn shut_down(&self) {
        let mut asked = ttrpc::Request::new();
        asked.service = self.service.to_string();
        asked.method = "Shutdown".to_string();
        asked.timeout_nano = PATIENCE.as_nanos() as i64;
        self.client.request(asked).expect("Shutdown");
    }

    /// Ends a container, if it has not ended, and the shim.
    pub fn clear(&self, id: &str) {
        let pid = self.pid(id);
        if self.status(id, "") != Status::STOPPED {
            self.kill(id, "", libc::SIGKILL, false).expect("kill");
            self.wait(id, "").expect("wait");
        }
        self.delete(id, "").expect("delete");
        let shim = Living::of(pid);
        self.shut_down();
        shim.ends();
    }
}

impl Shim {
    /// Asks a shim that may be killed meanwhile; whether it has done as asked.
    pub fn try_call<Q: Message>(&self, method: &str, request: &Q) -> bool {
        let mut asked = ttrpc::Request::new();
        asked.service = self.service.to_string();
        asked.method = method.to_string();
        asked.timeout_nano = PATIENCE.as_nanos() as i64;
        asked.payload = request.write_to_bytes().expect("encode");
        self.client.request(asked).is_ok()
    }
}

/// A process that is expected to end.
pub struct Living(OwnedFd);

impl Living {
    /// The process with that pid, if it has not ended.
    pub fn of_some(pid: i32) -> Option<Living> {
        let pid = rustix::process::Pid::from_raw(pid)?;
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok().map(Living)
    }

    /// The process with that pid.
    pub fn of(pid: i32) -> Living {
        Living::of_some(pid).expect("a process")
    }

    /// Waits for its end.
    pub fn ends(&self) {
        assert!(readable(self.0.as_fd()), "a process does not end");
    }
}

/// All that comes from a file.
pub fn text(path: &Path) -> String {
    let mut text = String::new();
    std::fs::File::open(path).expect("open").read_to_string(&mut text).expect("read");
    text
}
