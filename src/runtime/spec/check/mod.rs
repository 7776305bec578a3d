//! One walk over a config: every field that reaches the kernel is there, well-formed, bounded, and
//! something rcrun does. Pure. Uses: fault, landlock, list, mount, of_crun, sysctl.

mod intel_rdt;
mod linux;
mod mounts;
mod net_devices;
mod process;
mod scheduling;
mod text;

use oci_spec::runtime::{self as oci, LinuxNamespaceType};

use self::text::{Checked, count, path, string};
use super::Namespace;
use super::fault::{Fault, Quoted, Token};
use super::{landlock, of_crun};

pub(super) use self::linux::resources;
pub(super) use self::mounts::{all as mounts, destinations};
pub(super) use self::process::process;

/// Most hooks of one kind: each is a process at every start.
const MAX_HOOKS: usize = 1024;
/// __NEW_UTS_LEN of the kernel.
const MAX_UTS_NAME: usize = 64;

/// Checks a whole config. What a person should know but which is no error goes to `warnings`.
pub(in crate::spec) fn spec(spec: &oci::Spec, warnings: &mut Vec<String>) -> Checked {
    version(spec.version())?;
    platforms(spec)?;
    if let Some(found) = spec.process() {
        process(found, "/process")?;
    }
    root(spec)?;
    uts_name(spec, "hostname", spec.hostname())?;
    uts_name(spec, "domainname", spec.domainname())?;
    mounts::all(spec, warnings)?;
    if let Some(found) = spec.hooks() {
        hooks(found)?;
    }
    for (key, value) in spec.annotations().iter().flatten() {
        if key.is_empty() {
            return Err(Fault::new("/annotations/", "the key of an annotation may not be empty"));
        }
        if key == landlock::ANNOTATION {
            landlock::Rules::parse(value).map_err(|why| Fault::new(entry("/annotations", key), why))?;
        }
        of_crun::check(key, value)?;
    }
    warnings.extend(of_crun::warning(spec));
    linux::linux(spec)?;
    match spec.process() {
        Some(found) => linux::user_is_mapped(found, spec),
        None => Ok(()),
    }
}

/// Where the namespace of type `kind` comes from; an empty path is none, as for runc.
pub(in crate::spec) fn namespace(spec: &oci::Spec, kind: LinuxNamespaceType) -> Namespace<'_> {
    let listed = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    match listed.into_iter().flatten().find(|ns| ns.typ() == kind) {
        None => Namespace::Inherit,
        Some(ns) => match ns.path() {
            Some(path) if !path.as_os_str().is_empty() => Namespace::Join(path),
            _ => Namespace::New,
        },
    }
}

fn version(version: &str) -> Checked {
    let at = "/ociVersion";
    if version.is_empty() {
        return Err(Fault::new(at, "is required"));
    }
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numeric = |part: &str| {
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        digits && (part == "0" || !part.starts_with('0')) && part.len() < 10
    };
    let mut parts = core.split('.');
    let major = parts.next().unwrap_or_default();
    let rest: Vec<&str> = parts.collect();
    // What follows the core is empty only where a sign stands alone.
    let tail = version[core.len()..].split(['-', '+']).skip(1).all(|part| !part.is_empty());
    if version.len() > 128 || !numeric(major) || rest.len() != 2 || !rest.iter().all(|p| numeric(p)) || !tail
    {
        let shown = Quoted(version);
        return Err(Fault::new(at, format_args!("{shown} is not a semantic version such as \"1.3.0\"")));
    }
    if major != "1" {
        let shown = Quoted(version);
        return Err(Fault::unsupported(at, format_args!("version {shown} is not supported, any 1.x is")));
    }
    Ok(())
}

fn platforms(spec: &oci::Spec) -> Checked {
    let others = [
        ("/solaris", spec.solaris().is_some()),
        ("/windows", spec.windows().is_some()),
        ("/vm", spec.vm().is_some()),
        ("/zos", spec.zos().is_some()),
    ];
    match others.into_iter().find(|(_, there)| *there) {
        Some((at, _)) => Err(Fault::unsupported(at, "rcrun runs Linux containers only")),
        None => Ok(()),
    }
}

fn root(spec: &oci::Spec) -> Checked {
    let Some(root) = spec.root() else {
        return Err(Fault::new("/root", "root must be specified"));
    };
    path(root.path(), format_args!("/root/path"))?;
    let own_mounts = namespace(spec, LinuxNamespaceType::Mount) != Namespace::Inherit;
    if root.readonly() == Some(true) && !own_mounts {
        return Err(Fault::new("/root/readonly", "needs a mount namespace in /linux/namespaces"));
    }
    Ok(())
}

fn uts_name(spec: &oci::Spec, field: &str, name: &Option<String>) -> Checked {
    let name = match name {
        Some(name) if !name.is_empty() => name,
        _ => return Ok(()),
    };
    if name.len() > MAX_UTS_NAME {
        let long = name.len();
        return Err(Fault::new(
            format_args!("/{field}"),
            format_args!("is {long} bytes long, the kernel takes at most {MAX_UTS_NAME}"),
        ));
    }
    if namespace(spec, LinuxNamespaceType::Uts) == Namespace::Inherit {
        // runc's words. Without one it would be the machine's name that changes.
        let text = format_args!("unable to set {field} without a private UTS namespace");
        return Err(Fault::new(format_args!("/{field}"), text));
    }
    string(name, format_args!("/{field}"))
}

fn hooks(hooks: &oci::Hooks) -> Checked {
    let prestart = hooks.prestart();
    for (kind, list) in [
        ("prestart", prestart),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ] {
        let Some(list) = list else { continue };
        count(list.len(), MAX_HOOKS, format_args!("/hooks/{kind}"))?;
        for (i, hook) in list.iter().enumerate() {
            text::absolute(hook.path(), format_args!("/hooks/{kind}/{i}/path"))?;
            let args = hook.args().as_deref().unwrap_or_default();
            let env = hook.env().as_deref().unwrap_or_default();
            process::strings(args, env, format_args!("/hooks/{kind}/{i}"))?;
            if hook.timeout().is_some_and(|seconds| seconds <= 0) {
                let at = format_args!("/hooks/{kind}/{i}/timeout").to_string();
                return Err(Fault::new(at, "must be greater than zero"));
            }
        }
    }
    Ok(())
}

/// The pointer of an entry of a map.
fn entry(map: &str, key: &str) -> String {
    format!("{map}/{}", Token(key))
}
