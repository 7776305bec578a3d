//! The sandbox API: requests to what the pod does, answers back. Uses: events, metrics, pod, pod_config, service.

use crate::pod::{Pod, SandboxSeen};
use crate::pod_config::{From, PodConfig};
use crate::service::{Methods, answer};
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
use containerd_shim_protos::sandbox_sync::{Sandbox, create_sandbox};
use rcrun_runtime::error::CallContext;
use rcrun_runtime::spec::id::ContainerId;
use rcrun_runtime::{Code, Error, Result};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use ttrpc::TtrpcContext;

/// PodSandboxState of the CRI, which containerd compares with.
const READY: &str = "SANDBOX_READY";
const NOT_READY: &str = "SANDBOX_NOTREADY";

/// The name of what Kubernetes says of a pod.
const OF_CRI: &str = "runtime.v1.PodSandboxConfig";

/// What Go calls the machine.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

struct Service {
    pod: Arc<Pod>,
}

/// The service.
pub fn methods(pod: &Arc<Pod>) -> Methods {
    create_sandbox(Arc::new(Service { pod: Arc::clone(pod) }))
}

/// What the sandbox is asked to be.
fn asked(request: &CreateSandboxRequest) -> Result<PodConfig> {
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

impl Sandbox for Service {
    fn create_sandbox(
        &self,
        _: &TtrpcContext,
        request: CreateSandboxRequest,
    ) -> ttrpc::Result<CreateSandboxResponse> {
        answer(asked(&request).and_then(|config| self.pod.create_sandbox(&request.sandbox_id, config)))
            .map(|()| CreateSandboxResponse::new())
    }

    fn start_sandbox(
        &self,
        _: &TtrpcContext,
        request: StartSandboxRequest,
    ) -> ttrpc::Result<StartSandboxResponse> {
        let seen = answer(self.pod.start_sandbox(&request.sandbox_id))?;
        let mut response = StartSandboxResponse::new();
        response.pid = seen.pid as u32;
        response.created_at = time(seen.started);
        Ok(response)
    }

    fn platform(&self, _: &TtrpcContext, request: PlatformRequest) -> ttrpc::Result<PlatformResponse> {
        answer(self.pod.sandbox_status(&request.sandbox_id))?;
        let mut response = PlatformResponse::new();
        let platform = response.platform.mut_or_insert_default();
        platform.os = "linux".to_string();
        platform.architecture = ARCHITECTURE.to_string();
        Ok(response)
    }

    fn stop_sandbox(
        &self,
        _: &TtrpcContext,
        request: StopSandboxRequest,
    ) -> ttrpc::Result<StopSandboxResponse> {
        let patience = (request.timeout_secs > 0).then(|| Duration::from_secs(request.timeout_secs.into()));
        answer(self.pod.stop_sandbox(&request.sandbox_id, patience)).map(|()| StopSandboxResponse::new())
    }

    fn wait_sandbox(
        &self,
        _: &TtrpcContext,
        request: WaitSandboxRequest,
    ) -> ttrpc::Result<WaitSandboxResponse> {
        let ended = answer(self.pod.wait_sandbox(&request.sandbox_id))?;
        let mut response = WaitSandboxResponse::new();
        response.exit_status = ended.status;
        response.exited_at = time(Some(ended.at));
        Ok(response)
    }

    fn sandbox_status(
        &self,
        _: &TtrpcContext,
        request: SandboxStatusRequest,
    ) -> ttrpc::Result<SandboxStatusResponse> {
        let seen = answer(self.pod.sandbox_status(&request.sandbox_id))?;
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

    fn ping_sandbox(&self, _: &TtrpcContext, request: PingRequest) -> ttrpc::Result<PingResponse> {
        answer(self.pod.sandbox_status(&request.sandbox_id)).map(|_| PingResponse::new())
    }

    fn shutdown_sandbox(
        &self,
        _: &TtrpcContext,
        request: ShutdownSandboxRequest,
    ) -> ttrpc::Result<ShutdownSandboxResponse> {
        answer(self.pod.shut_down_sandbox(&request.sandbox_id)).map(|()| ShutdownSandboxResponse::new())
    }

    fn sandbox_metrics(
        &self,
        _: &TtrpcContext,
        request: SandboxMetricsRequest,
    ) -> ttrpc::Result<SandboxMetricsResponse> {
        let stats = answer(self.pod.sandbox_stats(&request.sandbox_id))?;
        let mut response = SandboxMetricsResponse::new();
        let metric = response.metrics.mut_or_insert_default();
        metric.timestamp = time(Some(SystemTime::now()));
        metric.id = request.sandbox_id;
        metric.data =
            MessageField::some(events::any("io.containerd.cgroups.v2.Metrics", &metrics::of(&stats)));
        Ok(response)
    }
}
