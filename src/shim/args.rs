//! The command line that containerd gives a shim: flags as Go's flag package reads them, then an action. Pure.

use rcrun_runtime::{Code, Error, Result};

/// What a shim is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `-v`
    Version,
    /// `-info`
    Info,
    /// `start`: leave a server behind, or name the one that is there.
    Start,
    /// `delete`: clear away what a shim that was killed has left.
    Delete,
}

/// The flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// containerd's namespace of the container.
    pub namespace: String,
    /// The container, or the pod's sandbox.
    pub id: String,
    /// containerd's gRPC address: part of the name of the shim's socket.
    pub address: String,
    /// The bundle's folder, with `delete`; else it is the working directory.
    pub bundle: String,
    /// The containerd binary, for `publish`. Events go over the ttrpc address instead.
    pub publish_binary: String,
    /// An address to listen on, in place of one made from the others.
    pub socket: String,
    /// Log more.
    pub debug: bool,
}

/// Reads the words after the program's name.
pub fn parse(words: &[String]) -> Result<(Action, Flags)> {
    let mut flags = Flags::default();
    let mut asked = None;
    let mut words = words.iter();
    let action = loop {
        let Some(word) = words.next() else { break None };
        let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
            break Some(word.as_str());
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_string())),
            None => (flag, None),
        };
        if let "v" | "info" | "debug" = name {
            let on = match value.as_deref() {
                None | Some("true" | "1") => true,
                Some("false" | "0") => false,
                Some(other) => return Err(usage(format!("-{name}={other}: is neither true nor false"))),
            };
            match name {
                "debug" => flags.debug = on,
                "v" if on => asked = Some(Action::Version),
                "info" if on => asked = asked.or(Some(Action::Info)),
                _ => {}
            }
            continue;
        }
        let field = match name {
            "namespace" => &mut flags.namespace,
            "id" => &mut flags.id,
            "address" => &mut flags.address,
            "bundle" => &mut flags.bundle,
            "publish-binary" => &mut flags.publish_binary,
            "socket" => &mut flags.socket,
            "h" | "help" => return Err(usage(ABOUT.to_string())),
            _ => return Err(usage(format!("-{name}: is no flag of a shim"))),
        };
        *field = match value.or_else(|| words.next().cloned()) {
            Some(value) => value,
            None => return Err(usage(format!("-{name}: a value is missing"))),
        };
    };
    if let Some(action) = asked {
        return Ok((action, flags));
    }
    let action = match action {
        Some("start") => Action::Start,
        Some("delete") => Action::Delete,
        Some(other) => {
            return Err(usage(format!("{other}: is no action of a shim, which are start and delete")));
        }
        None => {
            return Err(usage(ABOUT.to_string()));
        }
    };
    for (name, value) in [("namespace", &flags.namespace), ("id", &flags.id)] {
        if value.is_empty() {
            return Err(usage(format!("-{name}: is missing")));
        }
    }
    Ok((action, flags))
}

const ABOUT: &str = "this is a shim that containerd starts (ctr run --runtime io.containerd.rcrun.v2): -v, -info, start and delete are its actions";

fn usage(message: String) -> Error {
    Error::new(Code::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> std::result::Result<(Action, Flags), String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_string).collect();
        parse(&words).map_err(|e| e.to_string())
    }

    #[test]
    fn flags_are_read_as_go_reads_them() {
        let all = Flags {
            namespace: "default".into(),
            id: "web".into(),
            address: "/run/c.sock".into(),
            publish_binary: "/usr/bin/containerd".into(),
            bundle: "/b".into(),
            socket: String::new(),
            debug: true,
        };
        let line = "-namespace default -address /run/c.sock -publish-binary /usr/bin/containerd -id web -bundle /b -debug delete";
        assert_eq!(read(line), Ok((Action::Delete, all.clone())));
        let line = "--namespace=default --address=/run/c.sock --publish-binary=/usr/bin/containerd --id=web -bundle=/b -debug=true start";
        assert_eq!(read(line), Ok((Action::Start, all)));
        for (line, action) in
            [("-v", Action::Version), ("-info", Action::Info), ("-info -v -id x", Action::Version)]
        {
            assert_eq!(read(line).unwrap().0, action, "{line}");
        }
        for (line, why) in [
            ("", "this is a shim that containerd starts"),
            ("--help", "this is a shim that containerd starts"),
            ("-namespace d -id", "-id: a value is missing"),
            ("-namespace d start", "-id: is missing"),
            ("-id d start", "-namespace: is missing"),
            ("-colour d start", "-colour: is no flag of a shim"),
            ("-namespace d -id x stop", "stop: is no action of a shim"),
            ("-debug=maybe start", "-debug=maybe: is neither true nor false"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(why), "{line:?}: {error}");
        }
    }
}
