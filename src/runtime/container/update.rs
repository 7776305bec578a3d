//! update: other limits and device rules for a container that runs.

use super::process::Status;
use super::state::{Container, State};
use crate::cgroup::{Cgroup, Change, DeviceProgram, Policy, Whose, Write, resources};
use crate::resctrl::{self, Groups};
use crate::spec::Resources;
use crate::systemd::{self, Property};
use crate::{Code, Error, Result};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxIntelRdt, LinuxResources};
use std::path::PathBuf;
use std::time::Duration;

/// How long `safe` tries to make room for a lower memory limit.
const RECLAIM: Duration = Duration::from_secs(5);

/// How an update is made.
#[derive(Clone, Debug, Default)]
pub struct How {
    /// Only find out what would change.
    pub dry_run: bool,
    /// Where a lower memory limit would kill, reclaim first, and give up rather than kill.
    pub safe: bool,
    /// What its class of resctrl is to have from now on.
    pub schemata: Option<LinuxIntelRdt>,
}

/// What an update has changed.
#[derive(Debug)]
pub struct Updated {
    /// Each value.
    pub changes: Vec<Change>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Changes the limits of a container: all that `wanted` names, or after an error none.
pub fn update(container: &mut Container, wanted: &Resources, how: How) -> Result<Updated> {
    // Of two at once the second reads as old what the first has written; a delete waits.
    container.lock()?;
    let state = container.state()?;
    let not_running = || Error::new(Code::Status, "container not running");
    let state = match (container.status(state.as_ref()), state) {
        (Status::Running | Status::Created | Status::Paused, Some(state)) => state,
        _ => return Err(not_running()),
    };
    let classes = match &how.schemata {
        Some(rdt) => Some(Classes::of(resctrl::mounted()?, &state, rdt)?),
        None => None,
    };
    let others = |state: &State| {
        if **wanted == LinuxResources::default() && how.schemata.is_some() {
            return Ok(Updated { changes: Vec::new(), warnings: Vec::new() });
        }
        let cgroup = state.open_cgroup()?.ok_or_else(|| state.without_cgroup("update"))?;
        change(container, state, &cgroup, wanted, &how)
            .map_err(|error| error.in_part("/linux/resources", "resources"))
    };
    match classes {
        None => others(&state),
        Some(classes) => {
            classes.change(container, state, how.dry_run, || super::processes(container), others)
        }
    }
}

/// The class of resctrl that is to change, with what it has now and what it will.
struct Classes {
    groups: Groups,
    /// None: the container has no class yet, and gets this one.
    before: Option<String>,
    root: PathBuf,
    rdt: LinuxIntelRdt,
}

impl Classes {
    fn of(root: PathBuf, state: &State, rdt: &LinuxIntelRdt) -> Result<Classes> {
        let (groups, before) = match &state.resctrl {
            Some(groups) => (groups.clone(), Some(groups.own_schemata()?)),
            None => (Groups::find(&root, &state.id, rdt)?, None),
        };
        Ok(Classes { groups, before, root, rdt: rdt.clone() })
    }

    /// Changes it, puts the container's processes there where it is new, then changes the rest; it is as it was where the rest fails.
    fn change(
        &self,
        container: &Container,
        state: State,
        dry_run: bool,
        processes: impl FnOnce() -> Result<Vec<u32>>,
        rest: impl FnOnce(&State) -> Result<Updated>,
    ) -> Result<Updated> {
        let new = resctrl::schemata(&self.rdt).join(" ");
        let change = Change { file: "schemata".into(), old: self.before.clone(), new };
        let done = |updated: Updated| Updated {
            changes: updated.changes.into_iter().chain([change]).collect(),
            ..updated
        };
        if dry_run {
            return rest(&state).map(done);
        }
        let Some(before) = &self.before else {
            // Remembered first, so that a delete finds it.
            let state = State { resctrl: Some(self.groups.clone()), ..state };
            container.save(&state)?;
            let made = self
                .groups
                .make(&self.root, &self.rdt)
                .and_then(|()| processes()?.iter().try_for_each(|pid| self.groups.join(*pid as i32)));
            return made.and_then(|()| rest(&state)).map(done).map_err(|error| {
                let state = State { resctrl: None, ..state };
                match self.groups.leave_and_remove(&self.root).and_then(|()| container.save(&state)) {
                    Ok(()) => error,
                    Err(left) => error.attach(&left),
                }
            });
        };
        self.groups.write(&self.root, &resctrl::schemata(&self.rdt))?;
        rest(&state).map(done).map_err(|error| {
            let lines: Vec<String> = before.lines().map(|line| line.trim().to_string()).collect();
            match self.groups.write(&self.root, &lines) {
                Ok(()) => error,
                Err(left) => error.attach(&left),
            }
        })
    }
}

fn change(
    container: &Container,
    state: &State,
    cgroup: &Cgroup,
    wanted: &Resources,
    how: &How,
) -> Result<Updated> {
    let spec = container.spec()?;
    let linux = spec.linux().as_ref();
    let mut limits = (**wanted).clone();
    cgroup.complete(&mut limits)?;
    let compiled = resources::compile(&limits)?;
    let mut warnings: Vec<String> =
        compiled.warnings.iter().map(|w| format!("{}: {}", w.pointer, w.message)).collect();

    let config = linux.and_then(|l| l.resources().as_ref());
    let check =
        wanted.memory().as_ref().and_then(|m| m.check_before_update()).or_else(|| {
            config.and_then(|r| r.memory().as_ref()).and_then(|memory| memory.check_before_update())
        });
    let limit = memory_max(&compiled.writes);
    if check == Some(true) {
        let swap = limits.memory().as_ref().and_then(|m| m.swap());
        cgroup.check_usage(limit, swap.and_then(|swap| u64::try_from(swap).ok()).filter(|swap| *swap > 0))?;
    }

    let of_config = config.and_then(|r| r.devices().as_deref()).unwrap_or_default();
    let in_force = state.devices.as_deref().unwrap_or(of_config);
    let rules = new_rules(wanted, in_force, &mut warnings);
    let policy_of =
        |rules| Policy::new(rules, linux.and_then(|l| l.devices().as_deref()).unwrap_or_default());
    // Loaded before anything is changed: what the verifier refuses changes nothing.
    let program = match rules {
        Some(rules) => Some(if how.dry_run { None } else { DeviceProgram::load(&policy_of(rules)?)? }),
        None => None,
    };
    let (mut told, mut untold) = (systemd::limits(&compiled.writes), Vec::new());
    if let (Some(rules), Some(_)) = (rules, &state.unit) {
        told.extend(systemd::devices(&policy_of(rules)?));
        untold.extend(systemd::devices(&policy_of(in_force)?));
    }

    let mut changes = cgroup.changes(&compiled.writes)?;
    untold.splice(0..0, systemd::limits_before(&changes));
    if let Some(rules) = rules {
        let count = |rules: &[LinuxDeviceCgroup]| format!("{} rules", rules.len());
        changes.push(Change { file: "devices".into(), old: Some(count(in_force)), new: count(rules) });
    }
    if how.dry_run {
        return Ok(Updated { changes, warnings });
    }
    let room = match limit.filter(|_| how.safe) {
        Some(limit) => Some(cgroup.make_room(limit, RECLAIM)?),
        None => None,
    };
    if let Some(rules) = rules {
        container.stage(&State { devices: Some(rules.to_vec()), ..state.clone() })?;
    }
    let rest = || {
        tell(state, &told)?;
        let again = if state.unit.is_some() { cgroup.apply(&compiled.writes) } else { Ok(()) };
        let done = again.and_then(|()| match &program {
            Some(program) => {
                let whose = if state.unit.is_some() { Whose::Rcruns } else { Whose::Anybodys };
                cgroup.replace_devices(program.as_ref(), whose).and_then(|()| container.commit())
            }
            None => Ok(()),
        });
        done.map_err(|error| match tell(state, &untold) {
            Ok(()) => error,
            Err(failed) => error.attach(&failed),
        })
    };
    let done = cgroup.change(&compiled.writes).and_then(|()| {
        rest().map_err(|error| match cgroup.put_back(&changes) {
            Ok(()) => error,
            Err(failed) => error.attach(&failed),
        })
    });
    let wants_high = compiled.writes.iter().any(|write| write.file == "memory.high");
    if let Some(room) = room.filter(|_| done.is_err() || !wants_high) {
        let ended = cgroup.end_room(&room);
        done.map_err(|error| match &ended {
            Ok(()) => error,
            Err(failed) => error.attach(failed),
        })?;
        ended?;
    } else {
        done?;
    }
    Ok(Updated { changes, warnings })
}

/// Tells systemd, where the container's cgroup is a unit of its: it would write what it knows again. It does so now, and
/// rounds (cpu.max): the exact values are written after it.
fn tell(state: &State, properties: &[Property]) -> Result<()> {
    state.unit.as_ref().map_or(Ok(()), |unit| unit.set(properties))
}

/// The memory limit that the writes set.
fn memory_max(writes: &[Write]) -> Option<u64> {
    writes.iter().rev().find(|write| write.file == "memory.max")?.value.trim().parse().ok()
}

/// The device rules to put in force. A list alone is what somebody wants. Beside other limits it is what an engine repeats
/// (containerd sends all of its `linux.resources` with each change), and may lack what was added to config.json behind its
/// back (nvidia-container-runtime adds rules): it counts where it says something new.
fn new_rules<'a>(
    wanted: &'a Resources,
    in_force: &[LinuxDeviceCgroup],
    warnings: &mut Vec<String>,
) -> Option<&'a [LinuxDeviceCgroup]> {
    let rules = wanted.devices().as_deref()?;
    if wanted.devices_alone() {
        return Some(rules);
    }
    let mut left = in_force.iter();
    if !rules.iter().all(|rule| left.any(|old| old == rule)) {
        return Some(rules);
    }
    let lacking = in_force.len() - rules.len();
    if lacking > 0 {
        warnings.push(format!(
            "/linux/resources/devices: lacks {lacking} of the rules in force and has no new one: the rules stay (to take some away, give `devices` without other limits)"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::StateRoot;
    use crate::scratch::Folder;
    use crate::spec::parse_resources;

    fn rules(text: &str) -> Vec<LinuxDeviceCgroup> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn device_rules_that_an_engine_repeats_do_not_take_away_what_others_added() {
        let deny = r#"{"allow":false,"access":"rwm"}"#;
        let null = r#"{"allow":true,"type":"c","major":1,"minor":3,"access":"rw"}"#;
        let gpu = r#"{"allow":true,"type":"c","major":195,"minor":0,"access":"rw"}"#;
        let in_force = rules(&format!("[{deny},{null},{gpu}]"));
        for (json, replaced, warned) in [
            (r#"{"cpu":{"cpus":"0"}}"#.to_string(), false, false),
            (format!(r#"{{"devices":[{deny},{null},{gpu}],"cpu":{{"cpus":"0"}}}}"#), false, false),
            (format!(r#"{{"devices":[{deny},{null}],"cpu":{{"cpus":"0"}}}}"#), false, true),
            (format!(r#"{{"devices":[{deny},{null}]}}"#), true, false),
            (format!(r#"{{"devices":[{deny},{gpu},{null}],"pids":{{"limit":4}}}}"#), true, false),
            (r#"{"devices":[],"pids":{"limit":4}}"#.to_string(), false, true),
        ] {
            let wanted = parse_resources(json.as_bytes()).unwrap();
            let mut warnings = Vec::new();
            assert_eq!(new_rules(&wanted, &in_force, &mut warnings).is_some(), replaced, "{json}");
            assert_eq!(!warnings.is_empty(), warned, "{json}: {warnings:?}");
        }
    }

    /// A container's folder and, beside it, one that stands in for resctrl after a boot, with a class of somebody's.
    fn beside_resctrl() -> (Folder, Container, State) {
        let folder = Folder::new("update-resctrl");
        std::fs::create_dir_all(folder.path().join("resctrl/shared")).expect("mkdir");
        std::fs::write(folder.path().join("resctrl/shared/schemata"), "    L3:0=7f0\n").expect("write");
        let id = "web".parse().expect("an id");
        let container = StateRoot::new(folder.path().join("state")).make(&id).expect("a container");
        let state = serde_json::json!({
            "ociVersion": "1.2.0", "id": "web", "bundle": "/b", "rootfs": "/b/r", "created": "now", "owner": 0,
            "cgroup": null, "ownPids": true, "hooks": false, "startable": true, "noPivot": false, "keyring": true,
        });
        (folder, container, serde_json::from_value(state).expect("a state"))
    }

    fn schemata(l3: &str, bandwidth: Option<&str>) -> LinuxIntelRdt {
        let mut rdt = LinuxIntelRdt::default();
        rdt.set_l3_cache_schema(Some(l3.into())).set_mem_bw_schema(bandwidth.map(String::from));
        rdt
    }

    #[test]
    fn a_container_without_a_class_gets_one_and_its_processes_go_there_unless_the_rest_fails() {
        let (folder, container, state) = beside_resctrl();
        let root = folder.path().join("resctrl");
        let read = |name: &str| std::fs::read_to_string(root.join(name)).ok();
        let of = |state: &State, rdt| Classes::of(root.clone(), state, rdt).expect("a class");
        let rdt = schemata("L3:0=f", Some("MB:0=20"));
        let nothing = |_: &State| Ok(Updated { changes: Vec::new(), warnings: Vec::new() });
        let refuses = |_: &State| Err(Error::new(Code::Host, "no memory controller"));
        let two = || Ok(vec![7, 8]);

        let would = of(&state, &rdt).change(&container, state.clone(), true, two, nothing).expect("a look");
        let told: Vec<_> =
            would.changes.iter().map(|c| (c.file.as_str(), c.old.as_deref(), &*c.new)).collect();
        assert_eq!(told, [("schemata", None, "L3:0=f MB:0=20")]);
        assert!(!root.join("web").exists() && container.state().expect("state").is_none());

        let error =
            of(&state, &rdt).change(&container, state.clone(), false, two, refuses).expect_err("it fails");
        assert_eq!(error.to_string(), "no memory controller");
        assert_eq!(container.state().expect("state").expect("saved").resctrl, None);
        assert_eq!(read("tasks").as_deref(), Some("8"), "the last of them is back in the class of all");
        // resctrl's own files go with a group; those of the stand-in do not.
        std::fs::remove_dir_all(root.join("web")).expect("rm");

        of(&state, &rdt).change(&container, state, false, two, nothing).expect("a change");
        assert_eq!(read("web/schemata").as_deref(), Some("L3:0=f\nMB:0=20\n"));
        assert_eq!(read("web/tasks").as_deref(), Some("8"));
        let groups = container.state().expect("state").expect("saved").resctrl.expect("delete finds it");
        assert_eq!(groups.made, [root.join("web")]);
    }

    #[test]
    fn a_class_of_the_containers_own_is_as_before_where_the_rest_fails_and_another_is_not_touched() {
        let (folder, container, mut state) = beside_resctrl();
        let root = folder.path().join("resctrl");
        let own = Groups::find(&root, "web", &schemata("L3:0=f", None)).expect("find");
        own.make(&root, &schemata("L3:0=f", None)).expect("make");
        state.resctrl = Some(own);
        let classes = Classes::of(root.clone(), &state, &schemata("L3:0=3", None)).expect("a class");
        let nobody = || panic!("its processes are there");
        let read = || std::fs::read_to_string(root.join("web/schemata")).expect("schemata");
        // As the kernel writes it.
        std::fs::write(root.join("web/schemata"), "    L3:0=00f\n").expect("write");
        let classes = Classes { before: Some(read()), ..classes };

        let refuses = |_: &State| Err(Error::new(Code::Host, "no memory controller"));
        classes.change(&container, state.clone(), false, nobody, refuses).expect_err("it fails");
        assert_eq!(read(), "L3:0=00f\n");
        let nothing = |_: &State| Ok(Updated { changes: Vec::new(), warnings: Vec::new() });
        classes.change(&container, state.clone(), false, nobody, nothing).expect("a change");
        assert_eq!(read(), "L3:0=3\n");

        state.resctrl = Some(Groups { joined: vec![root.join("shared")], made: Vec::new() });
        let error =
            Classes::of(root.clone(), &state, &schemata("L3:0=3", None)).err().expect("it is refused");
        assert!(error.to_string().contains("others may be in it"), "{error}");
        let shared = std::fs::read_to_string(root.join("shared/schemata")).expect("schemata");
        assert_eq!(shared, "    L3:0=7f0\n");
    }
}
