//! The calls after which this process ends: their answer is on its way before that. The server writes answers in a thread of its
//! own, of which nobody hears when it has, and whoever asked was told that the connection is closed. Uses: pod, service.

use crate::log;
use crate::pod::Pod;
use crate::service::Methods;
use nix::sys::socket::{MsgFlags, send};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::mpsc::channel;
use ttrpc::{MessageHeader, MethodHandler, Request, TtrpcContext};

/// Ends of the calls' names.
const LAST: [&str; 2] = ["/Shutdown", "/ShutdownSandbox"];

struct Last {
    pod: Arc<Pod>,
    method: Box<dyn MethodHandler + Send + Sync>,
}

/// The same methods, with these calls as they have to be.
pub fn methods(methods: Methods, pod: &Arc<Pod>) -> Methods {
    let wrap = |(name, method): (String, Box<dyn MethodHandler + Send + Sync>)| {
        let is_last = LAST.iter().any(|end| name.ends_with(end));
        let method = if is_last { Box::new(Last { pod: Arc::clone(pod), method }) } else { method };
        (name, method)
    };
    methods.into_iter().map(wrap).collect()
}

impl MethodHandler for Last {
    fn handler(&self, mut context: TtrpcContext, request: Request) -> ttrpc::Result<()> {
        let (sender, answers) = channel();
        let connection = context.fd;
        context.res_tx = sender;
        let handled = self.method.handler(context, request);
        for (header, body) in answers.try_iter() {
            write(connection, header, &body);
        }
        self.pod.end_if_shut_down();
        handled
    }
}

/// In one call: the server's thread does the same with what is shorter than a page, so that no two get mixed up.
fn write(connection: RawFd, header: MessageHeader, body: &[u8]) {
    let frame = [Vec::from(header), body.to_vec()].concat();
    if let Err(errno) = send(connection, &frame, MsgFlags::MSG_NOSIGNAL) {
        log::warn(format_args!("the answer to the last call could not be sent: {errno}"));
    }
}
