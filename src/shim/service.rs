//! The task API: requests to what the pod does, answers back. The same for containerd.task.v2.Task and v3. Uses: events, life,
//! metrics, options, pod, rootfs, server, stdio.

use crate::life::Ended;
use crate::pod::{Pod, Waits, Wanted, no_exec};
use crate::rootfs::Mount;
use crate::server::{Asker, Method, Methods, asked, call};
use crate::stdio::Names;
use crate::{checkpoint_options, events, metrics, options};
use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest, PauseRequest,
    PidsRequest, PidsResponse, ProcessInfo, ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest,
    StartResponse, StateRequest, StateResponse, StatsRequest, StatsResponse, Status as TaskStatus,
    UpdateTaskRequest, WaitRequest, WaitResponse,
};
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim_protos::shim::oci::ProcessDetails;
use rcrun_runtime::container::Status;
use rcrun_runtime::{Code, Result};
use std::path::Path;
use std::sync::Arc;

const SERVICES: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];

/// The task API in both versions: they differ in the name.
pub fn methods(pod: &Arc<Pod>) -> Methods {
    let (waiting, ending) = (Arc::clone(pod), Arc::clone(pod));
    let all: [(&str, Method); 17] = [
        ("Create", call(pod, create)),
        ("Start", call(pod, start)),
        ("State", call(pod, state)),
        ("Wait", Arc::new(move |payload, asker| wait(&waiting, payload, asker))),
        ("Kill", call(pod, kill)),
        ("Delete", call(pod, delete)),
        ("Exec", call(pod, exec)),
        ("Pids", call(pod, pids)),
        ("Pause", call(pod, pause)),
        ("Resume", call(pod, resume)),
        ("Update", call(pod, update)),
        ("Stats", call(pod, stats)),
        ("ResizePty", call(pod, resize_pty)),
        ("CloseIO", call(pod, close_io)),
        ("Checkpoint", call(pod, checkpoint)),
        ("Connect", call(pod, connect)),
        ("Shutdown", Arc::new(move |payload, asker| shutdown(&ending, payload, &asker))),
    ];
    let named = |service: &'static str| {
        all.iter().map(move |(name, method)| (format!("/{service}/{name}"), Arc::clone(method)))
    };
    SERVICES.into_iter().flat_map(named).collect()
}

fn time(ended: Option<Ended>) -> MessageField<Timestamp> {
    ended.map(|ended| Timestamp::from(ended.at)).into()
}

fn create(pod: &Arc<Pod>, asked: CreateTaskRequest) -> Result<CreateTaskResponse> {
    let options = options::read(asked.options.as_ref())?;
    let rootfs: Vec<Mount> = asked
        .rootfs
        .into_iter()
        .map(|mount| Mount {
            kind: mount.type_,
            source: mount.source,
            target: mount.target,
            options: mount.options,
        })
        .collect();
    let names =
        Names { stdin: asked.stdin, stdout: asked.stdout, stderr: asked.stderr, terminal: asked.terminal };
    let wanted = Wanted {
        id: &asked.id,
        bundle: Path::new(&asked.bundle),
        rootfs: &rootfs,
        names,
        options: &options,
        images: Some(asked.checkpoint.as_str()).filter(|path| !path.is_empty()).map(Path::new),
    };
    let mut made = CreateTaskResponse::new();
    // Docker looks for the words of runc in it to find its exit status.
    made.pid = pod.create(&wanted).map_err(|error| error.context("OCI runtime create failed"))? as u32;
    Ok(made)
}

fn start(pod: &Arc<Pod>, asked: StartRequest) -> Result<StartResponse> {
    let what = if asked.exec_id.is_empty() { "OCI runtime start failed" } else { "OCI runtime exec failed" };
    let mut started = StartResponse::new();
    let pid = pod.start(&asked.id, &asked.exec_id).map_err(|error| error.context(what));
    started.pid = pid? as u32;
    Ok(started)
}

fn state(pod: &Arc<Pod>, asked: StateRequest) -> Result<StateResponse> {
    let seen = pod.state(&asked.id, &asked.exec_id)?;
    let mut state = StateResponse::new();
    state.id = asked.id;
    state.exec_id = asked.exec_id;
    state.bundle = seen.bundle.display().to_string();
    state.pid = seen.pid as u32;
    state.status = match seen.status {
        Status::Creating | Status::Created => TaskStatus::CREATED,
        Status::Running => TaskStatus::RUNNING,
        Status::Paused => TaskStatus::PAUSED,
        Status::Stopped => TaskStatus::STOPPED,
    }
    .into();
    state.stdin = seen.names.stdin;
    state.stdout = seen.names.stdout;
    state.stderr = seen.names.stderr;
    state.terminal = seen.names.terminal;
    state.exit_status = seen.ended.map_or(0, |ended| ended.status);
    state.exited_at = time(seen.ended);
    Ok(state)
}

fn wait(pod: &Arc<Pod>, payload: &[u8], asker: Asker) {
    let wait = |asked: WaitRequest| {
        let waiting = Waiting { asker: asker.clone(), name: asked.exec_id.clone() };
        pod.wait(&asked.id, &asked.exec_id, Box::new(waiting))
    };
    if let Err(error) = asked(payload).and_then(wait) {
        asker.answer::<WaitResponse>(Err(error));
    }
}

/// Who waits for the end of a process.
struct Waiting {
    asker: Asker,
    name: String,
}

impl Waits for Waiting {
    fn is_there(&self) -> bool {
        self.asker.is_there()
    }

    fn hear(&self, how: Option<Ended>) {
        let response = how.map(|ended| {
            let mut response = WaitResponse::new();
            response.exit_status = ended.status;
            response.exited_at = time(Some(ended));
            response
        });
        self.asker.answer(response.ok_or_else(|| no_exec(&self.name)));
    }
}

fn kill(pod: &Arc<Pod>, asked: KillRequest) -> Result<Empty> {
    let killed = pod.kill(&asked.id, &asked.exec_id, asked.signal as i32, asked.all);
    killed.map_err(|error| match (error.code(), asked.exec_id.is_empty()) {
        // Who stops a container that has ended means no error: containerd looks for this class.
        (Code::Status, true) => error.with_code(Code::NotFound),
        _ => error,
    })?;
    Ok(Empty::new())
}

fn delete(pod: &Arc<Pod>, asked: DeleteRequest) -> Result<DeleteResponse> {
    let (pid, ended) = pod.delete(&asked.id, &asked.exec_id)?;
    let mut response = DeleteResponse::new();
    response.pid = pid as u32;
    response.exit_status = ended.map_or(0, |ended| ended.status);
    response.exited_at = time(ended);
    Ok(response)
}

fn exec(pod: &Arc<Pod>, asked: ExecProcessRequest) -> Result<Empty> {
    let names =
        Names { stdin: asked.stdin, stdout: asked.stdout, stderr: asked.stderr, terminal: asked.terminal };
    let process = asked.spec.into_option().map(|any| any.value).unwrap_or_default();
    pod.exec(&asked.id, &asked.exec_id, names, &process)?;
    Ok(Empty::new())
}

fn pids(pod: &Arc<Pod>, asked: PidsRequest) -> Result<PidsResponse> {
    let mut response = PidsResponse::new();
    for (pid, exec) in pod.pids(&asked.id)? {
        let mut info = ProcessInfo::new();
        info.pid = pid;
        info.info = exec
            .map(|exec_id| {
                events::any(
                    "containerd.runc.v1.ProcessDetails",
                    &ProcessDetails { exec_id, ..ProcessDetails::default() },
                )
            })
            .into();
        response.processes.push(info);
    }
    Ok(response)
}

fn pause(pod: &Arc<Pod>, asked: PauseRequest) -> Result<Empty> {
    pod.pause(&asked.id).map(|()| Empty::new())
}

fn resume(pod: &Arc<Pod>, asked: ResumeRequest) -> Result<Empty> {
    pod.resume(&asked.id).map(|()| Empty::new())
}

fn update(pod: &Arc<Pod>, asked: UpdateTaskRequest) -> Result<Empty> {
    let resources = asked.resources.into_option().map(|any| any.value).unwrap_or_default();
    pod.update(&asked.id, &resources).map(|()| Empty::new())
}

fn stats(pod: &Arc<Pod>, asked: StatsRequest) -> Result<StatsResponse> {
    let stats = pod.stats(&asked.id)?;
    let mut response = StatsResponse::new();
    response.stats =
        MessageField::some(events::any("io.containerd.cgroups.v2.Metrics", &metrics::of(&stats)));
    Ok(response)
}

fn resize_pty(pod: &Arc<Pod>, asked: ResizePtyRequest) -> Result<Empty> {
    pod.resize(&asked.id, &asked.exec_id, asked.height, asked.width).map(|()| Empty::new())
}

fn close_io(pod: &Arc<Pod>, asked: CloseIORequest) -> Result<Empty> {
    if asked.stdin {
        pod.close_stdin(&asked.id, &asked.exec_id)?;
    }
    Ok(Empty::new())
}

fn checkpoint(pod: &Arc<Pod>, asked: CheckpointTaskRequest) -> Result<Empty> {
    let options = checkpoint_options::read(&asked.path, asked.options.as_ref())?;
    pod.checkpoint(&asked.id, options).map(|()| Empty::new())
}

fn connect(pod: &Arc<Pod>, asked: ConnectRequest) -> Result<ConnectResponse> {
    let mut response = ConnectResponse::new();
    response.task_pid = pod.pid(&asked.id)? as u32;
    response.shim_pid = std::process::id();
    response.version = env!("CARGO_PKG_VERSION").to_string();
    Ok(response)
}

/// The answer is on its way before this process ends.
fn shutdown(pod: &Arc<Pod>, payload: &[u8], asker: &Asker) {
    asker.answer(asked(payload).and_then(|_: ShutdownRequest| pod.shut_down()).map(|()| Empty::new()));
    pod.end_if_shut_down();
}
