//! From an image's configuration and what a person says to the config.json of a bundle: image-spec's conversion.md, with
//! the rest as Docker has it. Only [`RootFiles`] makes system calls. Uses: document, error.
//!
//! Decisions that are not the spec's:
//!
//! - The default user is 0:0, and no file of the image is read for it.
//! - A volume of the image is a folder on the container's own layer: the image's data is there, what is written stays
//!   out of the image and goes with the container. [`Converted::volumes`] names them: the caller makes those that are
//!   missing ([`RootFiles::make_folder`]) and leaves them out of a new image. Under a read-only root each is a tmpfs that
//!   begins with the image's data, since Docker's volumes can be written to there. Below a mount of `-v`, where the
//!   container's layer is not seen, a volume is a folder of its own with a copy of that data: [`Converted::nested`]. There
//!   are no named volumes: a folder of the host does that.
//! - HOME is not set: the runtime takes it from /etc/passwd when the process starts, as it does under Docker.
//! - A folder on the host that is to be mounted must be there. Docker makes it, and hides the typing error.

mod amount;
mod defaults;
mod environment;
mod labels;
mod root;
mod said;
pub mod seccomp;
mod user;
mod volume;

use serde_json::{Map, Value, json};

use crate::document::{Config, Execution};
use crate::error::{Code, Error, Result};

pub use amount::{Cpus, bytes, memory};
pub use defaults::hosts;
pub use labels::{DENIED, Denied, denied};
pub use root::RootFiles;
pub use said::{Network, Said, Seccomp, Surroundings};
pub use user::User;
pub use volume::{Source, Volume};

/// What the conversion gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Converted {
    /// The config.json, but for the seccomp profile that is rcrun's own: [`Converted::whole`], [`Converted::text`].
    pub config: Value,
    /// The JSON text of that profile, where it is asked for: `linux.seccomp`.
    pub profile: Option<String>,
    /// Folders of the container that are to be there, made if they are not, and left out of a new image.
    pub volumes: Vec<String>,
    /// Folders of the container that are mounted from [`Surroundings::nested`], where the caller makes them with what the
    /// image has at these paths ([`RootFiles::copy_folder`]).
    pub nested: Vec<String>,
    /// The signal that ends the container, as the image writes it. Empty: TERM.
    pub stop_signal: String,
    /// Labels of the image that are no annotations of the container, since a runtime could act on them. A person is to
    /// hear of them.
    pub denied: Vec<(String, &'static Denied)>,
}

/// Converts `image` as `said` changes it. `root` is the root file system, looked at for names of users and groups.
pub fn config(image: &Config, said: &Said, around: &Surroundings, root: &RootFiles) -> Result<Converted> {
    let os = &image.platform.os;
    if !os.is_empty() && os != "linux" {
        return Err(Error::new(Code::Unsupported, format!("the image is for {os:?}, not for \"linux\"")));
    }
    let execution = &image.config;
    no_nul(execution)?;
    let volumes = volume::of_image(execution, &said.volumes)?;
    let user = match said.user.as_deref().filter(|user| !user.is_empty()) {
        Some(user) => user::resolve(user, root).map_err(|e| e.of("--user"))?,
        None => user::resolve(&execution.user, root).map_err(|e| e.of("the image's User"))?,
    };
    let hostname = said.hostname.as_deref().or(around.hostname.as_deref());
    if let Some(name) = hostname {
        said::check_hostname(name)?;
    }
    let mut process = json!({
        "terminal": said.terminal,
        "user": { "uid": user.uid, "gid": user.gid },
        "args": args(execution, said)?,
        "env": environment::merge(execution, said, hostname, around)?,
        "cwd": working_dir(execution, said)?,
        "capabilities": defaults::capabilities(),
    });
    if !user.additional_gids.is_empty() {
        process["user"]["additionalGids"] = json!(user.additional_gids);
    }
    let (annotations, denied) = labels::annotations(image);
    let mut config = json!({
        "ociVersion": "1.3.0",
        "root": { "path": around.root_path, "readonly": said.read_only },
    });
    // Moved: json! would copy them.
    config["process"] = process;
    config["mounts"] = Value::Array(volume::mounts(said, around, &volumes)?);
    config["linux"] = defaults::linux(said, around);
    let profile = (said.seccomp == Seccomp::Default)
        .then(|| seccomp::text(&defaults::CAPABILITIES, &image.platform.architecture));
    if let Some(name) = hostname {
        config["hostname"] = json!(name);
    }
    if !annotations.is_empty() {
        config["annotations"] =
            Value::Object(annotations.into_iter().map(|(k, v)| (k, Value::String(v))).collect::<Map<_, _>>());
    }
    let volume::Own { on_layer: volumes, nested } = volumes;
    Ok(Converted { config, profile, volumes, nested, stop_signal: execution.stop_signal.clone(), denied })
}

impl Converted {
    /// The config.json.
    pub fn whole(&self) -> Value {
        let mut config = self.config.clone();
        if let Some(profile) = &self.profile {
            config["linux"]["seccomp"] = serde_json::from_str(profile).expect("the profile is JSON");
        }
        config
    }

    /// The config.json as text.
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(TEXT_SIZE);
        object(&mut text, &self.config, |text, key, value| match (key, &self.profile) {
            ("linux", Some(profile)) => {
                object(text, value, one);
                // Its end: an object that has more to say.
                text.pop();
                text.extend_from_slice(b",\"seccomp\":");
                text.extend_from_slice(profile.as_bytes());
                text.push(b'}');
            }
            _ => one(text, key, value),
        });
        text
    }
}

/// More than the most of what is written has, seccomp's profile included.
const TEXT_SIZE: usize = 16 << 10;

fn one(text: &mut Vec<u8>, _: &str, value: &Value) {
    serde_json::to_writer(text, value).expect("a value is written to memory");
}

/// The object `value`, each value of which `write` writes.
fn object(text: &mut Vec<u8>, value: &Value, mut write: impl FnMut(&mut Vec<u8>, &str, &Value)) {
    text.push(b'{');
    for (i, (key, value)) in value.as_object().into_iter().flatten().enumerate() {
        if i > 0 {
            text.push(b',');
        }
        serde_json::to_writer(&mut *text, key).expect("a string is written to memory");
        text.push(b':');
        write(text, key, value);
    }
    text.push(b'}');
}

/// JSON can say NUL, the kernel cannot hear it.
fn no_nul(execution: &Execution) -> Result<()> {
    let one = |field: &'static str, text: &str| (field, text.contains('\0'));
    let all = [one("User", &execution.user), one("WorkingDir", &execution.working_dir)]
        .into_iter()
        .chain(execution.env.iter().map(|v| one("Env", v)))
        .chain(execution.entrypoint.iter().map(|v| one("Entrypoint", v)))
        .chain(execution.cmd.iter().map(|v| one("Cmd", v)))
        .chain(execution.volumes.keys().map(|v| one("Volumes", v)));
    match all.into_iter().find(|(_, found)| *found) {
        Some((field, _)) => Err(Error::invalid(format!("the image's {field} contains a NUL byte"))),
        None => Ok(()),
    }
}

/// An entrypoint that is said drops the image's Cmd too; an empty one leaves only the command that is said.
fn args(execution: &Execution, said: &Said) -> Result<Vec<String>> {
    let mut args: Vec<String> = match &said.entrypoint {
        Some(word) if word.is_empty() => Vec::new(),
        Some(word) => vec![word.clone()],
        None => execution.entrypoint.clone(),
    };
    if !said.command.is_empty() {
        args.extend_from_slice(&said.command);
    } else if said.entrypoint.is_none() {
        args.extend_from_slice(&execution.cmd);
    }
    if args.is_empty() {
        let message = "no command is given, and the image has neither Entrypoint nor Cmd";
        let message = match said.entrypoint {
            Some(_) => "no command is given, and --entrypoint drops that of the image",
            None => message,
        };
        return Err(Error::new(Code::Usage, message));
    }
    Ok(args)
}

fn working_dir(execution: &Execution, said: &Said) -> Result<String> {
    let (whose, code, path) = match &said.working_dir {
        Some(path) => ("--workdir", Code::Usage, path.as_str()),
        None if execution.working_dir.is_empty() => return Ok("/".into()),
        None => ("the image's WorkingDir", Code::Invalid, execution.working_dir.as_str()),
    };
    if !path.starts_with('/') {
        return Err(Error::new(code, format!("{whose} is {path:?}, not an absolute path")));
    }
    Ok(path.into())
}

#[cfg(test)]
mod tests;
