//! The task API: requests to what the pod does, answers back. The same for containerd.task.v2.Task and v3. Uses: metrics,
//! options, pod, rootfs, stdio.

use crate::life::Ended;
use crate::pod::{Pod, Wanted};
use crate::rootfs::Mount;
use crate::stdio::Names;
use crate::{events, metrics, options};
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
use containerd_shim_protos::{Task, create_task};
use rcrun_runtime::container::Status;
use rcrun_runtime::{Code, Error};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use ttrpc::{MethodHandler, TtrpcContext};

/// The services, as the server takes them.
pub type Methods = HashMap<String, Box<dyn MethodHandler + Send + Sync>>;

const V3: &str = "/containerd.task.v3.Task/";
const V2: &str = "/containerd.task.v2.Task/";

/// The task API in both versions: they differ in the name.
pub fn methods(pod: &Arc<Pod>) -> Methods {
    let service = || create_task(Arc::new(Service { pod: Arc::clone(pod) }));
    let mut methods = service();
    methods.extend(service().into_iter().map(|(name, method)| (name.replacen(V3, V2, 1), method)));
    methods
}

struct Service {
    pod: Arc<Pod>,
}

/// An error as containerd tells classes of them apart.
fn refuse(error: &Error) -> ttrpc::Error {
    let code = match error.code() {
        Code::NotFound => ttrpc::Code::NOT_FOUND,
        Code::Exists => ttrpc::Code::ALREADY_EXISTS,
        Code::Status => ttrpc::Code::FAILED_PRECONDITION,
        Code::Unsupported => ttrpc::Code::UNIMPLEMENTED,
        Code::Config | Code::Usage => ttrpc::Code::INVALID_ARGUMENT,
        Code::Host | Code::System | Code::Execute | Code::Hook => ttrpc::Code::UNKNOWN,
    };
    ttrpc::Error::RpcStatus(ttrpc::get_status(code, error))
}

/// A result as ttrpc has it.
pub fn answer<T>(result: rcrun_runtime::Result<T>) -> ttrpc::Result<T> {
    result.map_err(|error| refuse(&error))
}

fn time(ended: Option<Ended>) -> MessageField<Timestamp> {
    ended.map(|ended| Timestamp::from(ended.at)).into()
}

impl Task for Service {
    fn create(&self, _: &TtrpcContext, asked: CreateTaskRequest) -> ttrpc::Result<CreateTaskResponse> {
        if !asked.checkpoint.is_empty() {
            return answer(Err(no_checkpoints("restore")));
        }
        let options = answer(options::read(asked.options.as_ref()))?;
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
        let names = Names {
            stdin: asked.stdin,
            stdout: asked.stdout,
            stderr: asked.stderr,
            terminal: asked.terminal,
        };
        let wanted = Wanted {
            id: &asked.id,
            bundle: Path::new(&asked.bundle),
            rootfs: &rootfs,
            names,
            options: &options,
        };
        let mut made = CreateTaskResponse::new();
        // Docker looks for the words of runc in it to find its exit status.
        made.pid =
            answer(self.pod.create(&wanted).map_err(|error| error.context("OCI runtime create failed")))?
                as u32;
        Ok(made)
    }

    fn start(&self, _: &TtrpcContext, asked: StartRequest) -> ttrpc::Result<StartResponse> {
        let what =
            if asked.exec_id.is_empty() { "OCI runtime start failed" } else { "OCI runtime exec failed" };
        let mut started = StartResponse::new();
        let pid = self.pod.start(&asked.id, &asked.exec_id).map_err(|error| error.context(what));
        started.pid = answer(pid)? as u32;
        Ok(started)
    }

    fn state(&self, _: &TtrpcContext, asked: StateRequest) -> ttrpc::Result<StateResponse> {
        let seen = answer(self.pod.state(&asked.id, &asked.exec_id))?;
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

    fn wait(&self, _: &TtrpcContext, asked: WaitRequest) -> ttrpc::Result<WaitResponse> {
        let ended = answer(self.pod.wait(&asked.id, &asked.exec_id))?;
        let mut response = WaitResponse::new();
        response.exit_status = ended.status;
        response.exited_at = time(Some(ended));
        Ok(response)
    }

    fn kill(&self, _: &TtrpcContext, asked: KillRequest) -> ttrpc::Result<Empty> {
        let killed = self.pod.kill(&asked.id, &asked.exec_id, asked.signal as i32, asked.all);
        answer(killed.map_err(|error| match (error.code(), asked.exec_id.is_empty()) {
            // Who stops a container that has ended means no error: containerd looks for this class.
            (Code::Status, true) => error.with_code(Code::NotFound),
            _ => error,
        }))?;
        Ok(Empty::new())
    }

    fn delete(&self, _: &TtrpcContext, asked: DeleteRequest) -> ttrpc::Result<DeleteResponse> {
        let (pid, ended) = answer(self.pod.delete(&asked.id, &asked.exec_id))?;
        let mut response = DeleteResponse::new();
        response.pid = pid as u32;
        response.exit_status = ended.map_or(0, |ended| ended.status);
        response.exited_at = time(ended);
        Ok(response)
    }

    fn exec(&self, _: &TtrpcContext, asked: ExecProcessRequest) -> ttrpc::Result<Empty> {
        let names = Names {
            stdin: asked.stdin,
            stdout: asked.stdout,
            stderr: asked.stderr,
            terminal: asked.terminal,
        };
        let process = asked.spec.into_option().map(|any| any.value).unwrap_or_default();
        answer(self.pod.exec(&asked.id, &asked.exec_id, names, &process))?;
        Ok(Empty::new())
    }

    fn pids(&self, _: &TtrpcContext, asked: PidsRequest) -> ttrpc::Result<PidsResponse> {
        let mut response = PidsResponse::new();
        for (pid, exec) in answer(self.pod.pids(&asked.id))? {
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

    fn pause(&self, _: &TtrpcContext, asked: PauseRequest) -> ttrpc::Result<Empty> {
        answer(self.pod.pause(&asked.id)).map(|()| Empty::new())
    }

    fn resume(&self, _: &TtrpcContext, asked: ResumeRequest) -> ttrpc::Result<Empty> {
        answer(self.pod.resume(&asked.id)).map(|()| Empty::new())
    }

    fn update(&self, _: &TtrpcContext, asked: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        let resources = asked.resources.into_option().map(|any| any.value).unwrap_or_default();
        answer(self.pod.update(&asked.id, &resources)).map(|()| Empty::new())
    }

    fn stats(&self, _: &TtrpcContext, asked: StatsRequest) -> ttrpc::Result<StatsResponse> {
        let stats = answer(self.pod.stats(&asked.id))?;
        let mut response = StatsResponse::new();
        response.stats =
            MessageField::some(events::any("io.containerd.cgroups.v2.Metrics", &metrics::of(&stats)));
        Ok(response)
    }

    fn resize_pty(&self, _: &TtrpcContext, asked: ResizePtyRequest) -> ttrpc::Result<Empty> {
        answer(self.pod.resize(&asked.id, &asked.exec_id, asked.height, asked.width)).map(|()| Empty::new())
    }

    fn close_io(&self, _: &TtrpcContext, asked: CloseIORequest) -> ttrpc::Result<Empty> {
        if asked.stdin {
            answer(self.pod.close_stdin(&asked.id, &asked.exec_id))?;
        }
        Ok(Empty::new())
    }

    fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> ttrpc::Result<Empty> {
        answer(Err(no_checkpoints("checkpoint")))
    }

    fn connect(&self, _: &TtrpcContext, asked: ConnectRequest) -> ttrpc::Result<ConnectResponse> {
        let mut response = ConnectResponse::new();
        response.task_pid = answer(self.pod.pid(&asked.id))? as u32;
        response.shim_pid = std::process::id();
        response.version = env!("CARGO_PKG_VERSION").to_string();
        Ok(response)
    }

    fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> ttrpc::Result<Empty> {
        answer(self.pod.shut_down()).map(|()| Empty::new())
    }
}

fn no_checkpoints(what: &str) -> Error {
    Error::new(
        Code::Unsupported,
        format!("{what}: rcrun has no checkpoints yet: stop the container and start a new one"),
    )
}
