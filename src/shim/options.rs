//! What containerd's configuration says of the runtime: the options of the runc shim, as its own message, or as TOML in the
//! message for runtimes that containerd does not know, or in a file that this one names.

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::well_known_types::empty::Empty;
use containerd_shim_protos::protobuf::{Message, UnknownValueRef};
use containerd_shim_protos::shim::oci;
use rcrun_runtime::error::CallContext;
use rcrun_runtime::{Code, Error, Result};
use std::io::Read;

/// Where containers' states lie where the options name no other place; a folder for each of containerd's namespaces.
const ROOT: &str = "/run/containerd/rcrun";

/// More than anybody writes about a runtime.
const FILE_MAX: u64 = 64 << 10;

/// The options that rcrun has an answer to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// chroot in place of pivot_root.
    pub no_pivot_root: bool,
    /// Stay in the shim's session keyring.
    pub no_new_keyring: bool,
    /// Cgroups are scopes of systemd's.
    pub systemd_cgroup: bool,
    /// The cgroup that the shim goes to.
    pub shim_cgroup: String,
    /// Whose pipes are.
    pub io_uid: u32,
    /// The same of the group.
    pub io_gid: u32,
    /// Where containers' states lie.
    pub root: String,
    /// CRIU, if another than the one in PATH.
    pub criu_path: String,
    /// Where CRIU's logs go.
    pub criu_work_path: String,
    /// What was named and is not used; to be told.
    pub unused: Vec<String>,
}

type Reader = fn(&[u8]) -> Result<Options>;

/// The types that options come in, and what reads each.
const TYPES: [(&str, Reader); 2] =
    [("containerd.runc.v1.Options", of_runc), ("runtimeoptions.v1.Options", of_any_runtime)];

/// Whether that is a type of options: containerd's bootstrap has other things beside them.
pub fn are(any: &Any) -> bool {
    TYPES.iter().any(|(name, _)| any.type_url.ends_with(name))
}

/// Reads them. None are given where `any` is missing or names no type.
pub fn read(any: Option<&Any>) -> Result<Options> {
    let Some(any) = any.filter(|any| !any.type_url.is_empty()) else { return Ok(Options::default()) };
    let name = any.type_url.rsplit('/').next().unwrap_or_default();
    match TYPES.iter().find(|(known, _)| *known == name) {
        Some((_, read)) => read(&any.value),
        None => Err(Error::new(
            Code::Unsupported,
            format!(
                "runtime options of type {name}: rcrun takes those of the runc shim (containerd.runc.v1.Options), also as \
                 TOML (runtimeoptions.v1.Options)"
            ),
        )),
    }
}

fn of_runc(bytes: &[u8]) -> Result<Options> {
    let given = oci::Options::parse_from_bytes(bytes).map_err(unreadable)?;
    // containerd 2 has it no more, and its description of the message neither.
    let criu_path = unknown_text(&given, 8)?;
    let mut options = Options {
        no_pivot_root: given.no_pivot_root,
        no_new_keyring: given.no_new_keyring,
        systemd_cgroup: given.systemd_cgroup,
        shim_cgroup: given.shim_cgroup,
        io_uid: given.io_uid,
        io_gid: given.io_gid,
        root: given.root,
        criu_path,
        criu_work_path: given.criu_work_path,
        unused: Vec::new(),
    };
    for (name, value) in [("BinaryName", &given.binary_name), ("CriuImagePath", &given.criu_image_path)] {
        if !value.is_empty() {
            options.not_used(name, value);
        }
    }
    Ok(options)
}

// The message's fields are type_url, config_path and config_body. The CRI of containerd 1.7 and 2 puts the options of its
// configuration into the last, that of 1.6 knows only the file; dockerd writes either.
fn of_any_runtime(bytes: &[u8]) -> Result<Options> {
    let message = Empty::parse_from_bytes(bytes).map_err(unreadable)?;
    let (path, body) = (unknown_text(&message, 2)?, unknown_text(&message, 3)?);
    if !body.is_empty() || path.is_empty() {
        return of_toml(&body).map_err(|e| e.context("runtime options"));
    }
    let mut body = String::new();
    std::fs::File::open(&path)
        .and_then(|file| file.take(FILE_MAX).read_to_string(&mut body))
        .call(format!("runtime options: read of {path}"))?;
    of_toml(&body).map_err(|e| e.context(format!("runtime options: {path}")))
}

/// A text that the description of the message does not have; empty where it is not there.
fn unknown_text(message: &impl Message, number: u32) -> Result<String> {
    let found = message.special_fields().unknown_fields().iter().find_map(|field| match field {
        (of, UnknownValueRef::LengthDelimited(bytes)) if of == number => Some(bytes.to_vec()),
        _ => None,
    });
    String::from_utf8(found.unwrap_or_default()).map_err(unreadable)
}

/// A value of TOML.
enum Value<'t> {
    Bool(bool),
    Number(u32),
    Text(&'t str),
}

// A table of plain values, which is what options are. What else TOML has is refused by its line.
fn of_toml(text: &str) -> Result<Options> {
    let mut options = Options::default();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what: &str| Error::new(Code::Usage, format!("line {}: {what}: {line}", number + 1));
        let (name, value) = line.split_once('=').ok_or_else(|| wrong("not of the form NAME = VALUE"))?;
        let name = name.trim().trim_matches('"');
        let value =
            value_of(value.trim()).ok_or_else(|| wrong("neither true, false, a number nor a text"))?;
        match (name, value) {
            ("NoPivotRoot", Value::Bool(set)) => options.no_pivot_root = set,
            ("NoNewKeyring", Value::Bool(set)) => options.no_new_keyring = set,
            ("SystemdCgroup", Value::Bool(set)) => options.systemd_cgroup = set,
            ("ShimCgroup", Value::Text(text)) => options.shim_cgroup = text.into(),
            ("IoUid", Value::Number(id)) => options.io_uid = id,
            ("IoGid", Value::Number(id)) => options.io_gid = id,
            ("Root", Value::Text(text)) => options.root = text.into(),
            ("CriuPath", Value::Text(text)) => options.criu_path = text.into(),
            ("CriuWorkPath", Value::Text(text)) => options.criu_work_path = text.into(),
            // What containerd's default configuration has beside these.
            ("BinaryName" | "CriuImagePath", Value::Text("")) => {}
            ("BinaryName" | "CriuImagePath", Value::Text(text)) => options.not_used(name, text),
            // Of the message itself, which containerd puts into its body too.
            ("TypeUrl", Value::Text(_)) => {}
            _ => return Err(wrong("no option of the runc shim, or of another type")),
        }
    }
    Ok(options)
}

fn value_of(text: &str) -> Option<Value<'_>> {
    let only = |rest: &str| rest.trim().is_empty() || rest.trim().starts_with('#');
    for quote in ['"', '\''] {
        if let Some(rest) = text.strip_prefix(quote) {
            let (inside, rest) = rest.split_once(quote)?;
            // A text in double quotes has escapes, of which no path needs one.
            return (only(rest) && !(quote == '"' && inside.contains('\\'))).then_some(Value::Text(inside));
        }
    }
    let (word, rest) =
        text.split_at(text.find(|c: char| c.is_whitespace() || c == '#').unwrap_or(text.len()));
    match word {
        _ if !only(rest) => None,
        "true" => Some(Value::Bool(true)),
        "false" => Some(Value::Bool(false)),
        _ => word.parse().ok().map(Value::Number),
    }
}

fn unreadable(e: impl std::fmt::Display) -> Error {
    Error::new(Code::Usage, format!("runtime options cannot be read: {e}"))
}

impl Options {
    fn not_used(&mut self, name: &str, value: &str) {
        self.unused.push(format!("the option {name} = {value} is not used: this shim does all by itself"));
    }

    /// The state root of the containers of `namespace`.
    pub fn state_root(&self, namespace: &str) -> std::path::PathBuf {
        let root = if self.root.is_empty() { ROOT } else { &self.root };
        std::path::Path::new(root).join(namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(options: &oci::Options) -> Any {
        Any {
            type_url: "types.containerd.io/containerd.runc.v1.Options".into(),
            value: options.write_to_bytes().unwrap(),
            ..Any::default()
        }
    }

    #[test]
    fn options_are_those_of_the_runc_shim() {
        assert_eq!(read(None).unwrap(), Options::default());
        assert_eq!(
            read(Some(&Any::default())).unwrap().state_root("k8s.io").as_os_str(),
            "/run/containerd/rcrun/k8s.io"
        );
        let mut given = oci::Options::new();
        given.no_pivot_root = true;
        given.io_uid = 7;
        given.systemd_cgroup = true;
        given.root = "/run/other".into();
        given.binary_name = "/usr/sbin/runc".into();
        given.special_fields.mut_unknown_fields().add_length_delimited(8, b"/opt/criu".to_vec());
        let read_back = read(Some(&any(&given))).unwrap();
        assert!(read_back.no_pivot_root && !read_back.no_new_keyring && read_back.systemd_cgroup);
        assert_eq!((read_back.io_uid, read_back.io_gid), (7, 0));
        assert_eq!(read_back.state_root("moby").as_os_str(), "/run/other/moby");
        assert_eq!((read_back.criu_path.as_str(), read_back.unused.len()), ("/opt/criu", 1));
    }

    // Fields 1 to 3: type_url, config_path, config_body.
    fn of_any(path: &str, body: &str) -> Any {
        let mut message = Empty::new();
        for (number, text) in [(1, "some.type"), (2, path), (3, body)] {
            let fields = message.special_fields.mut_unknown_fields();
            fields.add_length_delimited(number, text.as_bytes().to_vec());
        }
        Any {
            type_url: "runtimeoptions.v1.Options".into(),
            value: message.write_to_bytes().unwrap(),
            ..Any::default()
        }
    }

    #[test]
    fn options_for_a_runtime_that_containerd_does_not_know_are_toml_in_the_message_or_in_a_file() {
        assert_eq!(read(Some(&of_any("", ""))).unwrap(), Options::default());
        let body = "SystemdCgroup = true\nIoUid = 7 # whose\n\n# a comment\n  Root = '/run/other'\nShimCgroup = \"/shims\"#\nBinaryName = \"\"\nCriuPath = \"/x\"\nCriuImagePath = \"/y\"\n";
        let given = read(Some(&of_any("/not/read", body))).unwrap();
        assert!(given.systemd_cgroup && !given.no_pivot_root);
        assert_eq!(
            (given.io_uid, given.root.as_str(), given.shim_cgroup.as_str()),
            (7, "/run/other", "/shims")
        );
        assert_eq!(given.criu_path, "/x");
        assert_eq!(given.unused, ["the option CriuImagePath = /y is not used: this shim does all by itself"]);
        let file = std::env::temp_dir().join(format!("rcrun-options-{}.toml", std::process::id()));
        std::fs::write(&file, "NoPivotRoot = true\n").unwrap();
        let given = read(Some(&of_any(file.to_str().unwrap(), "")));
        std::fs::remove_file(&file).unwrap();
        assert!(given.unwrap().no_pivot_root);
        let error = read(Some(&of_any("/no/such/file", ""))).unwrap_err().to_string();
        assert!(error.contains("/no/such/file: no such file"), "{error}");
    }

    #[test]
    fn a_line_that_is_no_option_is_refused() {
        for line in [
            "SystemdCgroup",
            "SystemdCgroup = yes",
            "SystemdCgroup = 1",
            "SystemdCgroup = true false",
            "Systemdcgroup = true",
            "Root = \"/run/\\u0041\"",
            "Root = '/run",
            "IoUid = -1",
            "[options]",
            "Root = ['/run']",
        ] {
            let error = read(Some(&of_any("", &format!("# first\n{line}\n")))).unwrap_err();
            assert_eq!(error.code(), Code::Usage, "{line}");
            assert!(error.to_string().contains("line 2") && error.to_string().contains(line), "{error}");
        }
    }

    #[test]
    fn options_of_another_type_are_refused_by_name() {
        let mut other = any(&oci::Options::new());
        other.type_url = "io.kata.v1.Options".into();
        let error = read(Some(&other)).unwrap_err();
        assert_eq!(error.code(), Code::Unsupported);
        assert!(error.to_string().contains("io.kata.v1.Options"), "{error}");
    }
}
