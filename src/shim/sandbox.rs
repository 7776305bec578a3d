//! The sandbox API, which rcrun does not serve yet: each call is refused in the class that tells containerd so.

use crate::service::Methods;
use containerd_shim_protos::sandbox_api::{
    CreateSandboxRequest, CreateSandboxResponse, PingRequest, PingResponse, PlatformRequest,
    PlatformResponse, SandboxMetricsRequest, SandboxMetricsResponse, SandboxStatusRequest,
    SandboxStatusResponse, ShutdownSandboxRequest, ShutdownSandboxResponse, StartSandboxRequest,
    StartSandboxResponse, StopSandboxRequest, StopSandboxResponse, WaitSandboxRequest, WaitSandboxResponse,
};
use containerd_shim_protos::sandbox_sync::{Sandbox, create_sandbox};
use std::sync::Arc;
use ttrpc::TtrpcContext;

struct Refused;

/// The service.
pub fn methods() -> Methods {
    create_sandbox(Arc::new(Refused))
}

macro_rules! refuse {
    ($($method:ident $request:ident $response:ident)*) => {
        impl Sandbox for Refused {
            $(fn $method(&self, _: &TtrpcContext, _: $request) -> ttrpc::Result<$response> {
                let text = "rcrun has no sandbox API yet: let containerd make pods itself (sandboxer = \"podsandbox\")";
                Err(ttrpc::Error::RpcStatus(ttrpc::get_status(ttrpc::Code::UNIMPLEMENTED, text)))
            })*
        }
    };
}

refuse! {
    create_sandbox CreateSandboxRequest CreateSandboxResponse
    start_sandbox StartSandboxRequest StartSandboxResponse
    platform PlatformRequest PlatformResponse
    stop_sandbox StopSandboxRequest StopSandboxResponse
    wait_sandbox WaitSandboxRequest WaitSandboxResponse
    sandbox_status SandboxStatusRequest SandboxStatusResponse
    ping_sandbox PingRequest PingResponse
    shutdown_sandbox ShutdownSandboxRequest ShutdownSandboxResponse
    sandbox_metrics SandboxMetricsRequest SandboxMetricsResponse
}
