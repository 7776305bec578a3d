//! Text as a config.json, and what it compiles to on several machines. Uses: rcrun_runtime's spec, compile and plan_text,
//! rcrun_plan, sentence.
//!
//! What holds: an error is a sentence; what compiles can be shown, and laid out for init and read again as the same steps;
//! nothing is mounted before the mount namespace was looked at; no path below the root leads out of it; nobody gets
//! capabilities or ids that were not to be had; execve comes last, and once.

use std::path::Path;

use rcrun_plan::image::{Header, Parts, Steps, encode};
use rcrun_plan::text::Text;
use rcrun_plan::{InRoot, Step};
use rcrun_runtime::compile::{self, ExecRequest, HookPlace, HookRequest, Request};
use rcrun_runtime::host::{Arch, Caller, Host};
use rcrun_runtime::plan::Plan;
use rcrun_runtime::spec::{self, Spec};
use rcrun_runtime::{Error, plan_text};

use crate::sentence;

/// Machines that differ in what the compiler asks: kernel, capabilities, who calls.
const HOSTS: [Host; 4] = [
    Host {
        kernel: (5, 14),
        last_cap: 37,
        bounding: (1 << 38) - 1,
        arch: Arch::X86_64,
        apparmor: false,
        selinux: false,
        caller: Caller::ROOT,
    },
    Host {
        kernel: (6, 12),
        last_cap: 40,
        bounding: (1 << 41) - 1,
        arch: Arch::Aarch64,
        apparmor: true,
        selinux: true,
        caller: Caller::ROOT,
    },
    Host {
        kernel: (6, 6),
        last_cap: 40,
        bounding: 0xa804_25fb,
        arch: Arch::X86_64,
        apparmor: false,
        selinux: false,
        caller: Caller { user_namespace: true, ..Caller::ROOT },
    },
    Host {
        kernel: (6, 8),
        last_cap: 40,
        bounding: 0,
        arch: Arch::X86_64,
        apparmor: false,
        selinux: true,
        caller: Caller { uid: 1000, gid: 1000, privileged: false, clones_mounts: false, ..Caller::ROOT },
    },
];

/// Panics if the property does not hold for `input`.
pub fn holds(input: &[u8]) {
    match spec::parse(input) {
        Err(error) => sentence::is_one(&error),
        Ok(spec) => HOSTS.iter().for_each(|host| compiles(&spec, host)),
    }
    // An exec's process and an update's resources are read by the same rules.
    if let Err(error) = spec::parse_process(input) {
        sentence::is_one(&error);
    }
    if let Err(error) = spec::parse_resources(input) {
        sentence::is_one(&error);
    }
}

fn compiles(spec: &Spec, host: &Host) {
    let create = Request::create("web", Path::new("/bundle"));
    let hidden = ["/sys".to_string(), "/proc".to_string()];
    let run =
        Request { await_start: false, no_pivot: true, left_behind: &hidden, passed_fds: 2, ..create.clone() };
    for request in [&create, &run] {
        match compile::start(spec, host, request) {
            Err(error) => of_a_field(&error),
            Ok(plan) => is_sound(&plan, host),
        }
    }
    compile::warnings(spec, host).iter().for_each(|text| sentence::is_text(text));
    if let Some(process) = spec.process() {
        match compile::exec(spec, host, &ExecRequest::new("web", process)) {
            Err(error) => of_a_field(&error),
            Ok(plan) => is_sound(&plan, host),
        }
    }
    for hook in spec.hooks().iter().flat_map(|hooks| hooks.start_container().iter().flatten()) {
        let request = HookRequest { hook, origin: "/hooks/startContainer/0", place: HookPlace::Container };
        match compile::hook(spec, host, &request) {
            Err(error) => of_a_field(&error),
            Ok(plan) => is_sound(&plan, host),
        }
    }
}

/// A config that is right by itself and wrong here: the sentence says which field.
fn of_a_field(error: &Error) {
    sentence::is_one(error);
    assert!(error.pointer().is_some(), "an error of no field: {error}");
}

fn is_sound(plan: &Plan, host: &Host) {
    let shown = plan_text::text(plan);
    assert!(!shown.is_empty());
    let json = plan_text::json(plan).expect("a plan is JSON");
    serde_json::from_str::<serde_json::Value>(&json).expect("a plan is JSON");
    is_read_again(plan);
    let steps: Vec<&Step<Text>> = plan.steps.iter().map(|planned| &planned.step).collect();
    let count = |wanted: fn(&Step<Text>) -> bool| steps.iter().filter(|step| wanted(step)).count();
    assert!(matches!(steps.last(), Some(Step::Execute)), "{shown}");
    assert_eq!(count(|step| matches!(step, Step::Execute)), 1, "{shown}");
    assert_eq!(count(|step| matches!(step, Step::Ready)), 1, "{shown}");
    let mut looked = false;
    for step in &steps {
        looked |= matches!(step, Step::CheckMountNamespace { .. });
        let mounts = matches!(
            step,
            Step::SetPropagation { .. }
                | Step::AttachRoot { .. }
                | Step::Attach { .. }
                | Step::Attributes { .. }
                | Step::Mask { .. }
                | Step::ReadOnly { .. }
                | Step::Pivot
                | Step::Detach { .. }
                | Step::MoveRoot
        );
        assert!(looked || !mounts, "{step:?} before the mount namespace was looked at: {shown}");
        if let Some(path) = below_root(step) {
            let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
            assert!(path.is_empty() || path.split('/').all(plain), "{step:?}: {shown}");
        }
        match step {
            Step::Capabilities { effective, permitted, inheritable } => {
                let beyond = (effective | permitted | inheritable) & !((1 << (host.last_cap + 1)) - 1);
                assert!(beyond == 0 && effective & !permitted == 0, "{step:?}: {shown}");
            }
            Step::Ids { uid, gid, .. } => assert!(*uid != u32::MAX && *gid != u32::MAX, "{step:?}: {shown}"),
            Step::FsString { key, value } => {
                assert!(key.0.len() < 256 && value.0.len() < 256, "{step:?} is more than fsconfig(2) takes");
            }
            _ => {}
        }
    }
    assert!(plan.groups.iter().all(|gid| *gid != u32::MAX), "{shown}");
}

/// The path of a step that init resolves below the container's root.
fn below_root(step: &Step<Text>) -> Option<&str> {
    let (Step::Directory { path, .. }
    | Step::MountPoint { path, .. }
    | Step::File { path }
    | Step::Clone { path, .. }
    | Step::MountedAt { path }
    | Step::CopyUp { path }
    | Step::InheritMode { path }
    | Step::Attach { path, .. }
    | Step::Mask { path, .. }
    | Step::ReadOnly { path, .. }
    | Step::Node { path, .. }
    | Step::Symlink { path, .. }
    | Step::Terminal { ptmx: path, .. }
    | Step::LandlockPath { path, .. }
    | Step::ChangeDirectory { path, .. }) = step
    else {
        return None;
    };
    let InRoot(Text(path)) = path;
    Some(path)
}

/// What init reads of the plan of a config, for seeds; None where it has none.
pub fn image(config: &[u8]) -> Option<Vec<u8>> {
    let spec = spec::parse(config).ok()?;
    let plan = compile::start(&spec, &HOSTS[0], &Request::create("web", Path::new("/bundle"))).ok()?;
    Some(laid_out(&plan))
}

/// As `launch` does it.
fn laid_out(plan: &Plan) -> Vec<u8> {
    fn borrowed(texts: &[String]) -> Vec<&str> {
        texts.iter().map(String::as_str).collect()
    }
    let steps: Vec<Step<Text>> = plan.steps.iter().map(|planned| planned.step.clone()).collect();
    let slots: Vec<i32> = (0..plan.slots.len() as i32).collect();
    encode(&Parts {
        steps: &steps,
        slots: &slots,
        groups: &plan.groups,
        filter: &plan.filter,
        args: &borrowed(&plan.args),
        env: &borrowed(&plan.env),
        candidates: &borrowed(&plan.candidates),
        parent: 3,
        home: plan.home_of.is_some(),
        first_own_fd: 3 + plan.passed_fds,
        stamps: None,
    })
    .expect("what compiles can be laid out")
}

fn is_read_again(plan: &Plan) {
    let image = laid_out(plan);
    let header = Header::decode(&image).expect("what is laid out can be read");
    assert_eq!(header.first_own_fd, 3 + plan.passed_fds);
    assert_eq!(header.slots.count as usize, plan.slots.len());
    let read: Vec<_> = Steps::new(&image, &header).expect("the steps lie in the image").collect();
    assert!(read.len() == plan.steps.len() && read.iter().all(Result::is_ok), "{read:?}");
}
