//! The systemd driver: a container's cgroup is a scope, which systemd makes, and which it knows the limits of.
//!
//! `name`, `property`, `device`, `annotation`, `value` and `wire` are pure. Nothing here runs unless systemd is asked for.
//!
//! A scope is made around a process (StartTransientUnit with PIDs). A process of rcrun's that does nothing is that one; when
//! the job is done, init is born into the cgroup as with the cgroupfs driver, and the other ends. So no step of a
//! container's set-up is outside of its limits, and its cgroup namespace has the right root.

mod annotation;
mod bus;
mod device;
mod name;
mod property;
mod value;
mod wire;

use std::collections::HashMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cgroup::{CgroupPath, Change, Policy, Write, line_of_v2};
use crate::error::{CallContext, Context};
use crate::sys::hold::Hold;
use crate::{Code, Error, Result};
use bus::{Bus, Refusal};
pub use name::Name;
pub use value::{Property, Value};
use wire::Method;

const MANAGER: Method = Method {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
    member: "",
};

const PING: Method = Method { interface: "org.freedesktop.DBus.Peer", member: "Ping", ..MANAGER };

/// A container's unit, as its state remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// `libpod-ID.scope`.
    pub scope: String,
    /// It is the user's manager that has it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub user: bool,
    /// systemd may keep it as failed: the config has a CollectMode of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kept: bool,
}

/// A unit that was started just now.
#[derive(Debug)]
pub struct Started {
    /// Its cgroup.
    pub cgroup: CgroupPath,
    /// The only process in it.
    pub hold: Hold,
}

/// All that a new unit is told.
pub struct Wanted<'a> {
    /// Of the container.
    pub id: &'a str,
    /// The scope and its slice.
    pub name: &'a Name,
    /// Limits.
    pub writes: &'a [Write],
    /// Devices.
    pub policy: &'a Policy,
    /// Of config.json.
    pub annotations: Option<&'a HashMap<String, String>>,
}

impl Wanted<'_> {
    /// The properties. The config's own come last, and win.
    pub fn properties(&self) -> Result<Vec<Property>> {
        let yes = |name: &str| Property::new(name, Value::Bool(true));
        let mut properties = vec![
            Property::new("Description", Value::text(format!("rcrun container {}", self.id))),
            Property::new("Slice", Value::text(&self.name.slice)),
            yes("Delegate"),
            // Else a scope is stopped at shutdown before the engine that has it, and waits for basic.target.
            Property::new("DefaultDependencies", Value::Bool(false)),
            // Of a container that was killed nothing stays.
            Property::new("CollectMode", Value::text("inactive-or-failed")),
            yes("CPUAccounting"),
            yes("MemoryAccounting"),
            yes("IOAccounting"),
            yes("TasksAccounting"),
        ];
        let writes = self.writes.iter().filter(|write| !counts_hold(write)).cloned();
        properties.extend(property::of_writes(&writes.collect::<Vec<_>>()));
        properties.extend(device::properties(self.policy));
        let mut annotations: Vec<_> = self.annotations.into_iter().flatten().collect();
        annotations.sort();
        for (key, value) in annotations {
            properties.extend(annotation::property(key, value)?);
        }
        Ok(properties)
    }
}

impl Name {
    /// What the container's state remembers.
    pub fn unit(&self, annotations: Option<&HashMap<String, String>>) -> Unit {
        let kept = annotations.is_some_and(|all| all.contains_key("org.systemd.property.CollectMode"));
        Unit { scope: self.scope.clone(), user: self.user, kept }
    }
}

/// Whether it is the user's manager that is asked: only root of the machine may ask the system's.
pub fn is_users() -> bool {
    let initial = std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]));
    !(initial && rustix::process::geteuid().is_root())
}

/// Where the manager that would be asked answers.
pub fn answers() -> Result<PathBuf> {
    let mut bus = Bus::connect(is_users())?;
    refused(bus.call(&PING, &[])?.map(drop))?;
    Ok(bus.path().to_path_buf())
}

/// Whether a limit leaves no room for the process that holds a new scope beside init.
pub fn counts_hold(write: &Write) -> bool {
    write.file == "pids.max" && write.value.trim() == "1"
}

/// The properties that say the same as `writes`.
pub fn limits(writes: &[Write]) -> Vec<Property> {
    property::of_writes(writes)
}

/// The properties that say what was before `changes`.
pub fn limits_before(changes: &[Change]) -> Vec<Property> {
    property::of_old(changes)
}

/// The properties that say what `policy` allows at most.
pub fn devices(policy: &Policy) -> Vec<Property> {
    device::properties(policy)
}

impl Unit {
    /// Starts it around a process that does nothing, and returns when its cgroup is there.
    pub fn start(&self, properties: &[Property]) -> Result<Started> {
        self.try_start(properties).context(format!("start unit {} of systemd", self.scope))
    }

    /// Where its cgroup will lie, as far as one can tell before it is made: the system's manager has it at `path`, and the
    /// user's below its own.
    pub fn expected(&self, path: &CgroupPath) -> Result<CgroupPath> {
        if !self.user {
            return Ok(path.clone());
        }
        let own = std::fs::read_to_string("/proc/self/cgroup").call("read /proc/self/cgroup")?;
        CgroupPath::parse(&format!("{}{path}", users_manager(&own, rustix::process::geteuid().as_raw())))
    }

    fn try_start(&self, properties: &[Property]) -> Result<Started> {
        let mut bus = Bus::connect(self.user)
            .map_err(|error| error.hint(Some("without --systemd-cgroup rcrun makes cgroups itself")))?;
        if self.user {
            enter(&mut bus)?;
        }
        let hold = Hold::new().call("fork")?;
        let pid = hold.pid().as_raw_nonzero().get().cast_unsigned();
        let (start, arguments) = start_transient(&self.scope, properties, pid);
        let mut answer = bus.call(&start, &arguments)?;
        if matches!(&answer, Err(refusal) if refusal.name == "org.freedesktop.systemd1.UnitExists") {
            // One that has failed stays until it is reset.
            self.reset(&mut bus)?;
            answer = bus.call(&start, &arguments)?;
        }
        let job = first(answer)?;
        let result = bus.job(&job)?;
        if result != "done" {
            let error = Error::new(Code::System, format!("its job ended with the result {result:?}"));
            let hint = format!("`systemctl status {}` and the journal say more", self.scope);
            let error = error.hint(Some(&hint));
            return Err(match self.reset(&mut bus) {
                Ok(()) => error,
                Err(failed) => error.attach(&failed),
            });
        }
        // Where it is depends on where systemd itself is.
        let file = format!("/proc/{pid}/cgroup");
        let text = std::fs::read_to_string(&file).call(format!("read {file}"))?;
        let path = line_of_v2(&text);
        match path.filter(|path| path.ends_with(self.scope.as_str())) {
            Some(path) => Ok(Started { cgroup: CgroupPath::parse(path)?, hold }),
            None => {
                let text = format!("systemd says that it is done, but process {pid} is in cgroup {path:?}");
                Err(Error::new(Code::System, text))
            }
        }
    }

    /// Makes sure that a process can be born in its cgroup by this one.
    pub fn join(&self) -> Result<()> {
        if self.user { enter(&mut Bus::connect(true)?) } else { Ok(()) }
    }

    /// Changes it, and returns when the cgroup is as systemd has it now: all properties or none.
    pub fn set(&self, properties: &[Property]) -> Result<()> {
        if properties.is_empty() {
            return Ok(());
        }
        let set = || {
            let mut bus = Bus::connect(self.user)?;
            let arguments = [Value::text(&self.scope), Value::Bool(true), Property::list(properties)];
            let serial = bus.post(&Method { member: "SetUnitProperties", ..MANAGER }, &arguments)?;
            // systemd answers before it writes the files. It writes them before it looks at the next message.
            let after = bus.post(&PING, &[])?;
            first(bus.answer(serial)?.map(|_| vec![String::new()]))?;
            refused(bus.answer(after)?.map(drop))
        };
        set().context(format!("set properties of unit {} of systemd", self.scope))
    }

    /// Ends it, with all that is in it, and returns when it has ended. One that is not there is no error.
    pub fn stop(&self) -> Result<()> {
        let stop = || {
            let mut bus = Bus::connect(self.user)?;
            let arguments = [Value::text(&self.scope), Value::text("replace")];
            match bus.call(&Method { member: "StopUnit", ..MANAGER }, &arguments)? {
                Err(refusal) if refusal.is_gone() => return Ok(()),
                answer => {
                    let job = first(answer)?;
                    bus.job(&job)?;
                }
            }
            if self.kept { self.reset(&mut bus) } else { Ok(()) }
        };
        stop().context(format!("stop unit {} of systemd", self.scope))
    }

    /// Returns when systemd has heard what a create that was killed may have asked for just before.
    pub fn settle(&self) -> Result<()> {
        let ping = || refused(Bus::connect(self.user)?.call(&PING, &[])?.map(drop));
        ping().context(format!("ask systemd for unit {}", self.scope))
    }

    /// Makes systemd forget that it has failed.
    pub fn forget(&self) -> Result<()> {
        let forget = || self.reset(&mut Bus::connect(self.user)?);
        forget().context(format!("reset unit {} of systemd", self.scope))
    }

    fn reset(&self, bus: &mut Bus) -> Result<()> {
        let reset = Method { member: "ResetFailedUnit", ..MANAGER };
        match bus.call(&reset, &[Value::text(&self.scope)])? {
            Err(refusal) if refusal.is_gone() => Ok(()),
            answer => refused(answer.map(drop)),
        }
    }
}

/// The call that makes a scope around process `pid`.
fn start_transient(scope: &str, properties: &[Property], pid: u32) -> (Method, [Value; 4]) {
    let mut all = properties.to_vec();
    all.push(Property::new("PIDs", Value::Array("u".to_string(), vec![Value::Uint32(pid)])));
    // Auxiliary units: none.
    let none = Value::Array("(sa(sv))".to_string(), Vec::new());
    let method = Method { member: "StartTransientUnit", ..MANAGER };
    (method, [Value::text(scope), Value::text("replace"), Property::list(&all), none])
}

/// Makes sure that this process, a user's, is in what the user's manager has: no process is born in a cgroup there by one
/// outside of it, since the kernel asks for leave to write to the first cgroup above both (cgroups(7), "Delegation
/// containment"). podman does this before it calls a runtime; a shell in a session has not.
fn enter(bus: &mut Bus) -> Result<()> {
    let own = std::fs::read_to_string("/proc/self/cgroup").call("read /proc/self/cgroup")?;
    if line_of_v2(&own).unwrap_or_default().split('/').any(is_users_manager) {
        return Ok(());
    }
    let pid = std::process::id();
    let scope = format!("rcrun-{pid}.scope");
    let properties = [
        Property::new("Description", Value::text(format!("rcrun, process {pid}"))),
        Property::new("CollectMode", Value::text("inactive-or-failed")),
    ];
    let (start, arguments) = start_transient(&scope, &properties, pid);
    let job = first(bus.call(&start, &arguments)?)?;
    match bus.job(&job)?.as_str() {
        "done" => Ok(()),
        result => Err(Error::new(Code::System, format!("the job of unit {scope} ended with {result:?}"))),
    }
    .context("enter the user's manager")
}

/// Where the user's manager is that the process with this `/proc/self/cgroup` is in; elsewhere, where systemd puts it.
fn users_manager(own: &str, uid: u32) -> String {
    let names: Vec<&str> = line_of_v2(own).unwrap_or_default().split('/').collect();
    match names.iter().position(|name| is_users_manager(name)) {
        Some(at) => names[..=at].join("/"),
        None => format!("/user.slice/user-{uid}.slice/user@{uid}.service"),
    }
}

fn is_users_manager(unit: &str) -> bool {
    unit.starts_with("user@") && unit.ends_with(".service")
}

impl Refusal {
    fn is_gone(&self) -> bool {
        self.name == "org.freedesktop.systemd1.NoSuchUnit"
    }
}

fn refused(answer: std::result::Result<(), Refusal>) -> Result<()> {
    // systemd's own words: kubelet and people look for them ("was already loaded or has a fragment file").
    answer
        .map_err(|Refusal { name, text }| Error::new(Code::System, if text.is_empty() { name } else { text }))
}

/// The first text of an answer.
fn first(answer: std::result::Result<Vec<String>, Refusal>) -> Result<String> {
    match answer {
        Ok(texts) => Ok(texts.into_iter().next().unwrap_or_default()),
        Err(refusal) => refused(Err(refusal)).map(|()| String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::users_manager;

    #[test]
    fn the_users_manager_is_the_one_that_a_process_is_in_or_has_its_usual_place() {
        let usual = "/user.slice/user-7.slice/user@7.service";
        for (own, expected) in [
            ("0::/user.slice/user-7.slice/session-1.scope\n", usual),
            (
                "1:name=systemd:/\n0::/user.slice/user-9.slice/user@9.service/app.slice/a.scope\n",
                "/user.slice/user-9.slice/user@9.service",
            ),
            ("0::/box/user@9.service\n", "/box/user@9.service"),
            ("0::/\n", usual),
        ] {
            assert_eq!(users_manager(own, 7), expected, "{own}");
        }
    }
}
