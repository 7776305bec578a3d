//! The sandbox API: requests to what the pod does, answers back. Uses: events, life,
//! metrics, pod, pod_config, server.

use crate::life::Ended;
use crate::pod::{Pod, SandboxSeen, Waits};
use crate::pod_config::{From, PodConfig};
use crate::server::{Asker, Method, Methods, asked, call};
use crate::{events, metrics};
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim_protos::sandbox_api::{
    CreateSandboxRequest, CreateSandboxResponse, PingRequest, PingResponse, PlatformRequest,
    PlatformResponse, SandboxMetricsRequest, SandboxMetricsResponse, SandboxStatusRequest,
    SandboxStatusResponse, ShutdownSandboxRequest, ShutdownSandboxResponse, StartSandboxRequest,
    StartSandboxResponse, StopSandboxRequest, StopSandboxResponse, WaitSandboxRequest, WaitSandboxResponse,
};
use rcrun_runtime::error::CallContext;
use rcrun_runtime::spec::id::ContainerId;
use rcrun_runtime::{Code, Error, Result};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// PodSandboxState of the CRI, which containerd compares with.
const READY: &str = "SANDBOX_READY";
const NOT_READY: &str = "SANDBOX_NOTREADY";

/// The name of what Kubernetes says of a pod.
const OF_CRI: &str = "runtime.v1.PodSandboxConfig";

const SERVICE: &str = "containerd.runtime.sandbox.v1.Sandbox";

/// What Go calls the machine.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// The service.
pub fn methods(pod: &Arc<Pod>) -> Methods {
    let (waiting, ending) = (Arc::clone(pod), Arc::clone(pod));
    let all: [(&str, Method); 9] = [
        ("CreateSandbox", call(pod, create_sandbox)),
        ("StartSandbox", call(pod, start_sandbox)),
        ("Platform", call(pod, platform)),
        ("StopSandbox", call(pod, stop_sandbox)),
        ("WaitSandbox", Arc::new(move |payload, asker| wait_sandbox(&waiting, payload, asker))),
        ("SandboxStatus", call(pod, sandbox_status)),
        ("PingSandbox", call(pod, ping_sandbox)),
        ("ShutdownSandbox", Arc::new(move |payload, asker| shutdown_sandbox(&ending, payload, &asker))),
        ("SandboxMetrics", call(pod, sandbox_metrics)),
    ];
    all.into_iter().map(|(name, method)| (format!("/{SERVICE}/{name}"), method)).collect()
}

/// What the sandbox is asked to be.
fn wanted(request: &CreateSandboxRequest) -> Result<PodConfig> {
    let _: ContainerId = request.sandbox_id.parse()?;
    if !request.rootfs.is_empty() {
        let text = "a sandbox of rcrun has no process and no root file system: nothing can be mounted as one";
        return Err(Error::new(Code::Unsupported, text));
    }
    let options = request.options.as_ref().filter(|any| !any.type_url.is_empty());
    if let Some(Any { type_url, value, .. }) = options {
        return match type_url.rsplit('/').next() {
            Some(OF_CRI) => PodConfig::of_cri(value, &request.netns_path),
            _ => Err(Error::new(
                Code::Unsupported,
                format!("options of type {type_url} for a sandbox: rcrun takes {OF_CRI}, or a config.json"),
            )),
        };
    }
    let config = Path::new(&request.bundle_path).join("config.json");
    match config.try_exists().call(format!("stat {}", config.display()))? {
        true => PodConfig::of_spec(&rcrun_runtime::spec::read(&config)?, &request.netns_path),
        false => Ok(PodConfig::plain(&request.netns_path)),
    }
}

fn time(at: Option<SystemTime>) -> MessageField<Timestamp> {
    at.map(Timestamp::from).into()
}

/// What `crictl inspectp` shows.
fn info(seen: &SandboxSeen) -> String {
    let from = |from: &From, kind: &str| match from {
        From::Machine => "the machine's".to_string(),
        From::Path(path) => path.display().to_string(),
        From::New if seen.pid == 0 => "none yet, or none any more".to_string(),
        From::New => format!("/proc/{}/ns/{kind}", seen.pid),
    };
    let config = &seen.config;
    serde_json::json!({
        "runtime": crate::info::RUNTIME,
        "shimPid": std::process::id(),
        "pid": seen.pid,
        "hostname": config.hostname,
        "sysctls": config.sysctls,
        "cgroupParent": config.cgroup_parent,
        "namespaces": {
            "network": from(&config.network, "net"),
            "ipc": from(&config.ipc, "ipc"),
            "uts": from(&config.uts, "uts"),
        },
    })
    .to_string()
}

fn create_sandbox(pod: &Arc<Pod>, request: CreateSandboxRequest) -> Result<CreateSandboxResponse> {
    wanted(&request)
        .and_then(|config| pod.create_sandbox(&request.sandbox_id, config))
        .map(|()| CreateSandboxResponse::new())
}

fn start_sandbox(pod: &Arc<Pod>, request: StartSandboxRequest) -> Result<StartSandboxResponse> {
    let seen = pod.start_sandbox(&request.sandbox_id)?;
    let mut response = StartSandboxResponse::new();
    response.pid = seen.pid as u32;
    response.created_at = time(seen.started);
    Ok(response)
}

fn platform(pod: &Arc<Pod>, request: PlatformRequest) -> Result<PlatformResponse> {
    pod.sandbox_status(&request.sandbox_id)?;
    let mut response = PlatformResponse::new();
    let platform = response.platform.mut_or_insert_default();
    platform.os = "linux".to_string();
    platform.architecture = ARCHITECTURE.to_string();
    Ok(response)
}

fn stop_sandbox(pod: &Arc<Pod>, request: StopSandboxRequest) -> Result<StopSandboxResponse> {
    let patience = (request.timeout_secs > 0).then(|| Duration::from_secs(request.timeout_secs.into()));
    pod.stop_sandbox(&request.sandbox_id, patience).map(|()| StopSandboxResponse::new())
}

fn wait_sandbox(pod: &Arc<Pod>, payload: &[u8], asker: Asker) {
    let wait = |asked: WaitSandboxRequest| {
        let waiting = Waiting { asker: asker.clone(), id: asked.sandbox_id.clone() };
        pod.wait_sandbox(&asked.sandbox_id, Box::new(waiting))
    };
    if let Err(error) = asked(payload).and_then(wait) {
        asker.answer::<WaitSandboxResponse>(Err(error));
    }
}

/// Who waits for the end of a sandbox.
struct Waiting {
    asker: Asker,
    id: String,
}

impl Waits for Waiting {
    fn is_there(&self) -> bool {
        self.asker.is_there()
    }

    fn hear(&self, how: Option<Ended>) {
        let response = how.map(|ended| {
            let mut response = WaitSandboxResponse::new();
            response.exit_status = ended.status;
            response.exited_at = time(Some(ended.at));
            response
        });
        let never = || Error::new(Code::NotFound, format!("sandbox {} was never stopped", self.id));
        self.asker.answer(response.ok_or_else(never));
    }
}

fn sandbox_status(pod: &Arc<Pod>, request: SandboxStatusRequest) -> Result<SandboxStatusResponse> {
    let seen = pod.sandbox_status(&request.sandbox_id)?;
    let mut response = SandboxStatusResponse::new();
    response.sandbox_id = request.sandbox_id;
    response.pid = seen.pid as u32;
    response.state = if seen.pid == 0 { NOT_READY } else { READY }.to_string();
    response.created_at = time(seen.started);
    response.exited_at = time(seen.ended);
    if request.verbose {
        response.info.insert("info".to_string(), info(&seen));
    }
    Ok(response)
}

fn ping_sandbox(pod: &Arc<Pod>, request: PingRequest) -> Result<PingResponse> {
    pod.sandbox_status(&request.sandbox_id).map(|_| PingResponse::new())
}

/// The answer is on its way before this process ends.
fn shutdown_sandbox(pod: &Arc<Pod>, payload: &[u8], asker: &Asker) {
    let work = |asked: ShutdownSandboxRequest| pod.shut_down_sandbox(&asked.sandbox_id);
    asker.answer(asked(payload).and_then(work).map(|()| ShutdownSandboxResponse::new()));
    pod.end_if_shut_down();
}

fn sandbox_metrics(pod: &Arc<Pod>, request: SandboxMetricsRequest) -> Result<SandboxMetricsResponse> {
    let stats = pod.sandbox_stats(&request.sandbox_id)?;
    let mut response = SandboxMetricsResponse::new();
    let metric = response.metrics.mut_or_insert_default();
    metric.timestamp = time(Some(SystemTime::now()));
    metric.id = request.sandbox_id;
    metric.data = MessageField::some(events::any("io.containerd.cgroups.v2.Metrics", &metrics::of(&stats)));
    Ok(response)
}
