//! `start`: finds the shim of the container's group, or leaves one behind; then says where it listens, in the protocol that
//! this containerd speaks. Uses: children, group, info, options,
//! serve.

use crate::args::Flags;
use crate::group::{self, Taken};
use crate::leftover::{self, ADDRESS};
use crate::serve::{self, Serving};
use crate::{children, info, options};
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use rcrun_runtime::error::CallContext;
use rcrun_runtime::foreground::Exit;
use rcrun_runtime::sys::daemon::{self, Side};
use rcrun_runtime::{Code, Error, Result, spec};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

/// More than containerd writes.
pub const INPUT_MAX: u64 = 16 << 20;

/// How a containerd takes the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    /// containerd 1.6: the address.
    Bare,
    /// containerd 1.7 to 2.2: JSON.
    Json,
    /// containerd 2.3: protobuf.
    Protobuf,
}

/// What containerd says beside the flags.
#[derive(Debug)]
struct Asked {
    protocol: Protocol,
    options: Option<Any>,
    ttrpc: String,
    sockets: Option<String>,
}

/// What counts of a config.json here.
#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// A message of which nothing but its type is known; none where nothing was written.
pub fn any(bytes: &[u8]) -> Result<Option<Any>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    Any::parse_from_bytes(bytes)
        .map(Some)
        .map_err(|e| Error::new(Code::Usage, format!("what containerd wrote to stdin cannot be read: {e}")))
}

/// Which of the protocols it is: a message with this container's id and namespace in it is one of the newest.
fn asked(flags: &Flags, stdin: &[u8], variable: impl Fn(&str) -> Option<String>) -> Result<Asked> {
    let named = |value: Option<String>| value.filter(|value| !value.is_empty());
    if let Ok(params) = BootstrapParams::parse_from_bytes(stdin)
        && params.instance_id == flags.id
        && params.namespace == flags.namespace
    {
        let ttrpc = named(Some(params.containerd_ttrpc_address.clone()))
            .or_else(|| named(variable("TTRPC_ADDRESS")))
            .unwrap_or_else(|| format!("{}.ttrpc", flags.address));
        let options = params
            .extensions
            .iter()
            .filter_map(|extension| extension.value.as_ref())
            .find(|value| options::are(value));
        return Ok(Asked {
            protocol: Protocol::Protobuf,
            options: options.cloned(),
            ttrpc,
            sockets: params.socket_dir.clone(),
        });
    }
    let protocol = match named(variable("MAX_SHIM_VERSION")) {
        Some(_) => Protocol::Json,
        None => Protocol::Bare,
    };
    let ttrpc = named(variable("TTRPC_ADDRESS")).unwrap_or_else(|| format!("{}.ttrpc", flags.address));
    Ok(Asked { protocol, options: any(stdin)?, ttrpc, sockets: None })
}

fn answer(protocol: Protocol, address: &str) -> Result<Vec<u8>> {
    match protocol {
        Protocol::Bare => Ok(address.as_bytes().to_vec()),
        // All that speak it know version 2 of the task API.
        Protocol::Json => {
            let answer = serde_json::json!({"version": 2, "address": address, "protocol": "ttrpc"});
            Ok(answer.to_string().into_bytes())
        }
        Protocol::Protobuf => {
            let result = BootstrapResult {
                version: 3,
                address: address.to_string(),
                protocol: "ttrpc".to_string(),
                ..BootstrapResult::default()
            };
            result
                .write_to_bytes()
                .map_err(|e| Error::new(Code::System, format!("the answer cannot be written: {e}")))
        }
    }
}

/// `start`
pub fn start(flags: &Flags) -> Result<()> {
    let mut stdin = Vec::new();
    if !rustix::termios::isatty(std::io::stdin()) {
        std::io::stdin().take(INPUT_MAX).read_to_end(&mut stdin).call("read of stdin")?;
    }
    let asked = asked(flags, &stdin, |name| std::env::var(name).ok())?;
    let options = options::read(asked.options.as_ref())?;
    let bundle = std::env::current_dir().call("getcwd")?;
    let config = bundle.join("config.json");
    // A sandbox may have none.
    let config: Config = match config.try_exists().call(format!("stat {}", config.display()))? {
        false => Config::default(),
        true => serde_json::from_slice(&spec::read(&config)?)
            .map_err(|e| Error::new(Code::Config, format!("config.json: {e}")))?,
    };
    let path = match flags.socket.as_str() {
        "" => {
            let group = group::of(&config.annotations, &flags.id);
            group::socket(asked.sockets.as_deref(), &flags.address, &flags.namespace, group)
        }
        socket => Path::new(socket.strip_prefix("unix://").unwrap_or(socket)).to_path_buf(),
    };
    let address = format!("unix://{}", path.display());
    // Read again by a containerd that is started anew, and by `delete`. Before there is a socket, and then a server: what nobody
    // knows of would stay when this process is killed.
    let next = bundle.join(format!(".{ADDRESS}"));
    std::fs::write(&next, &address).call(format!("write {}", next.display()))?;
    std::fs::rename(&next, bundle.join(ADDRESS)).call(format!("rename {}", next.display()))?;
    let mut left = None;
    if let Taken::Ours(socket, place) = group::listen(&path)? {
        let (answered, answers) = pipe()?;
        let serving = Serving {
            namespace: flags.namespace.clone(),
            ttrpc: asked.ttrpc.clone(),
            bundle: bundle.clone(),
            socket,
            place: place.clone(),
            cgroup: options.shim_cgroup,
            answered,
        };
        left = Some(leave_behind(serving, answers).map_err(|error| match place.leave() {
            Ok(()) => error,
            Err(other) => error.attach(&other),
        })?);
    }
    let mut stdout = std::io::stdout();
    let answered = stdout.write_all(&answer(asked.protocol, &address)?).and_then(|()| stdout.flush());
    // Without a containerd there is nobody to end the server.
    answered
        .inspect_err(|_| {
            if left.is_some() {
                leftover::release(&path, &flags.id);
            }
        })
        .call("write of the answer")?;
    if let Some(answers) = left {
        // EPIPE: it has died since, and containerd finds nobody where it connects.
        let _ = rustix::io::write(&answers, &[READY]);
    }
    Ok(())
}

/// An end to read and an end to write.
fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).call("pipe")
}

/// What the server says when it is ready. An end without it is that of a server that has died.
pub const READY: u8 = b'\n';

/// Forks the server; returns when it is ready to serve, or with why it is not. Who gets `answers` back tells the server there
/// that containerd knows of it: without that it ends.
fn leave_behind(serving: Serving, answers: OwnedFd) -> Result<OwnedFd> {
    let (reader, writer) = pipe()?;
    match daemon::fork().call("fork")? {
        Side::Child => {
            drop((reader, answers));
            serve::serve(serving, writer);
        }
        Side::Parent(pid) => {
            drop(writer);
            // The socket stays open here: its file is ours until it is removed.
            let mut said = Vec::new();
            std::fs::File::from(reader).read_to_end(&mut said).call("read from the shim")?;
            drop(serving);
            match said.split_last() {
                Some((&READY, [])) => Ok(answers),
                _ => Err(Error::new(Code::System, format!("{}: {}", info::RUNTIME, why(&said, pid)))),
            }
        }
    }
}

/// Why a server is not ready: its own words, and how it has ended where it had none.
fn why(said: &[u8], pid: i32) -> String {
    let said = String::from_utf8_lossy(said);
    if !said.is_empty() {
        return said.trim_end().to_string();
    }
    let how = match children::end_of(pid) {
        Ok(Exit::Code(status)) => format!("with status {status}"),
        Ok(Exit::Signal(signal)) => format!("by signal {signal}"),
        Err(error) => format!("and how is not known: {error}"),
    };
    format!("the shim has ended before it was ready, {how}: containerd's log has what it has logged")
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim_protos::bootstrap_api::Extension;
    use containerd_shim_protos::protobuf::MessageField;

    fn flags() -> Flags {
        Flags {
            id: "web".into(),
            namespace: "default".into(),
            address: "/run/c.sock".into(),
            ..Flags::default()
        }
    }

    fn options() -> Any {
        Any { type_url: "containerd.runc.v1.Options".into(), ..Any::default() }
    }

    fn params(id: &str, namespace: &str) -> Vec<u8> {
        let params = BootstrapParams {
            instance_id: id.into(),
            namespace: namespace.into(),
            containerd_ttrpc_address: "/run/t.sock".into(),
            socket_dir: Some("/run/sockets".into()),
            extensions: vec![Extension { value: MessageField::some(options()), ..Extension::default() }],
            ..BootstrapParams::default()
        };
        params.write_to_bytes().unwrap()
    }

    #[test]
    fn each_containerd_gets_the_answer_that_it_reads() {
        let of = |stdin: &[u8], variables: &[(&str, &str)]| {
            let variables: BTreeMap<String, String> =
                variables.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            asked(&flags(), stdin, |name| variables.get(name).cloned()).unwrap()
        };
        let given = options().write_to_bytes().unwrap();
        let old = of(&given, &[("TTRPC_ADDRESS", "/run/t.sock")]);
        assert_eq!((old.protocol, old.ttrpc.as_str()), (Protocol::Bare, "/run/t.sock"));
        assert_eq!(old.options, Some(options()));
        let middle = of(&[], &[("MAX_SHIM_VERSION", "2")]);
        assert_eq!((middle.protocol, middle.ttrpc.as_str()), (Protocol::Json, "/run/c.sock.ttrpc"));
        assert_eq!((middle.options, middle.sockets), (None, None));
        let new = of(&params("web", "default"), &[("MAX_SHIM_VERSION", "3")]);
        assert_eq!((new.protocol, new.ttrpc.as_str()), (Protocol::Protobuf, "/run/t.sock"));
        assert_eq!((new.options, new.sockets.as_deref()), (Some(options()), Some("/run/sockets")));
    }

    #[test]
    fn a_message_that_is_not_for_this_container_is_not_the_newest_protocol() {
        for stdin in [params("other", "default"), params("web", "other")] {
            // What is left is options of a type that nobody knows.
            let asked = asked(&flags(), &stdin, |_| None);
            assert!(asked.is_err() || asked.is_ok_and(|asked| asked.protocol == Protocol::Bare));
        }
    }

    #[test]
    fn answers_are_an_address_json_or_protobuf() {
        let address = "unix:///run/containerd/s/x";
        assert_eq!(answer(Protocol::Bare, address).unwrap(), address.as_bytes());
        let json: serde_json::Value =
            serde_json::from_slice(&answer(Protocol::Json, address).unwrap()).unwrap();
        assert_eq!(json, serde_json::json!({"version": 2, "address": address, "protocol": "ttrpc"}));
        let bytes = answer(Protocol::Protobuf, address).unwrap();
        let result = BootstrapResult::parse_from_bytes(&bytes).unwrap();
        assert_eq!(
            (result.version, result.address.as_str(), result.protocol.as_str()),
            (3, address, "ttrpc")
        );
    }
}
