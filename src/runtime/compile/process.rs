//! process: from session and terminal to the last step before execve. Shared by start and exec.

use super::{in_root, labels, landlock, namespaces, scheduling};
use crate::host::{Arch, Host};
use crate::plan::{Plan, Source};
use crate::seccomp::machine::{Data, run};
use crate::seccomp::{self, Instruction};
use crate::{Code, Error, Result};
use oci_spec::runtime::{Capabilities, Capability, Linux, PosixRlimitType, Process};
use rcrun_plan::{InRoot, Step, text::Text};

/// What the process finds around it.
pub(super) struct Surroundings<'a> {
    /// The container's id: names its session keyring.
    pub id: &'a str,
    /// The container's own process: its labels hold where another one in it has none, as with runc.
    pub container: Option<&'a Process>,
    /// Capabilities count inside a user namespace of its own.
    pub user_namespace: bool,
    /// setgroups(2) is not denied in its user namespace.
    pub groups: bool,
    /// By an annotation it keeps the supplementary groups of whoever called rcrun.
    pub keeps_groups: bool,
    /// The annotation that restricts it by Landlock.
    pub landlock: Option<&'a str>,
    /// Join a session keyring.
    pub keyring: bool,
    /// Variables that rcrun adds.
    pub variables: &'a [String],
    /// Wait for `start` on the listening socket.
    pub listen: bool,
    /// Fork into the pid namespace that was joined, as late as can be, and start a session there.
    pub forks: bool,
}

const CAP_SYS_ADMIN: u64 = 1 << 21;

/// Terminal, after pivot_root: nothing of the image decides what is opened (CVE-2025-52565).
pub(super) fn terminal(process: &Process, console: bool, plan: &mut Plan) {
    let size = process.console_size();
    let side = |f: fn(&oci_spec::runtime::Box) -> u64| size.as_ref().map(f).unwrap_or_default() as u16;
    plan.push(
        "/process/terminal",
        Step::Terminal {
            ptmx: InRoot("dev/pts/ptmx".into()),
            console,
            columns: side(|b| b.width()),
            rows: side(|b| b.height()),
            uid: process.user().uid(),
        },
    );
}

pub(super) fn compile(
    process: &Process,
    linux: Option<&Linux>,
    host: &Host,
    around: &Surroundings<'_>,
    plan: &mut Plan,
) -> Result<()> {
    let user = process.user();
    let filter = linux.and_then(|l| l.seccomp().as_ref());
    let no_new_privileges = process.no_new_privileges().unwrap_or(false);
    if around.keyring {
        labels::keyring(process, around.container, host, plan);
        plan.push("", Step::Keyring { name: format!("_ses.{}", around.id).into() });
    }
    // runc's default; the spec would keep the caller's, and files of engines' containers would change their modes.
    plan.push("/process/user/umask", Step::Umask { mask: user.umask().unwrap_or(0o022) });
    for (i, limit) in process.rlimits().iter().flatten().enumerate() {
        let resource = rlimit(limit.typ());
        plan.push(
            format!("/process/rlimits/{i}"),
            Step::Rlimit { resource, soft: limit.soft(), hard: limit.hard() },
        );
    }
    scheduling::compile(process, linux, around.forks, plan)?;
    labels::process(process, around.container, host, plan);
    if no_new_privileges {
        plan.push("/process/noNewPrivileges", Step::NoNewPrivileges);
    }
    if user.uid() != 0 {
        plan.push("/process/user/uid", Step::OwnStdio { uid: user.uid() });
    }
    let cwd = in_root(process.cwd());
    plan.push("/process/cwd", Step::ChangeDirectory { path: cwd.clone(), early: true });

    if let Some(rules) = around.landlock {
        landlock::compile(rules, host, plan)?;
    }
    let sets = Sets::new(process, host, around.user_namespace);
    sets.can_be_had()?;
    plan.push(
        "/process/capabilities/bounding",
        Step::BoundingSet { keep: sets.bounding, last: host.last_cap },
    );
    if !around.keeps_groups {
        plan.groups = user.additional_gids().clone().unwrap_or_default();
    }
    if !around.groups {
        // Each user is in the group that he runs with, and images say so; nothing has to be asked of the kernel for that.
        plan.groups.retain(|gid| *gid != user.gid());
    }
    if !around.groups && !plan.groups.is_empty() {
        return Err(Error::config(
            "/process/user/additionalGids",
            "cannot be had: the user namespace denies setgroups(2), since its gidMappings are the user's own gid alone: take them out, or map a range of /etc/subgid",
        )
        .with_code(Code::Host));
    }
    let groups = around.groups && !around.keeps_groups;
    plan.push("/process/user", Step::Ids { uid: user.uid(), gid: user.gid(), groups });

    // Without no_new_privs a filter needs CAP_SYS_ADMIN (seccomp(2)). It is kept until the filter is on, so that the
    // filter has to allow only capset, prctl and execve, and nothing that init needs before.
    let admin = filter.is_some() && !no_new_privileges && sets.effective & CAP_SYS_ADMIN == 0;
    let last = [
        ("/process/capabilities", sets.step(0)),
        ("/process/capabilities/ambient", Step::Ambient { set: sets.ambient }),
    ];
    if admin {
        plan.push("/process/capabilities", sets.step(CAP_SYS_ADMIN));
    } else {
        for (origin, step) in last.clone() {
            plan.push(origin, step);
        }
    }
    plan.push("/process/cwd", Step::ChangeDirectory { path: cwd, early: false });
    plan.push("/process/args/0", Step::FindExecutable);
    plan.push("", Step::Ready);
    if around.listen {
        let listen = plan.slot(Source::Listen);
        plan.push("", Step::AwaitStart { listen });
    }
    let compiled = filter.map(|profile| seccomp::compile(profile, host.arch)).transpose()?;
    let fork = |plan: &mut Plan| {
        plan.push("", Step::Fork);
        if plan.after_fork.is_some() {
            plan.push("/process/scheduler", Step::AwaitScheduler);
        }
        plan.push("", Step::Session { controlling: process.terminal().unwrap_or(false) });
    };
    // Behind the filter no privilege is left, so the fork comes there if the filter lets it through. Else the sibling shows
    // itself with CAP_SYS_ADMIN; but who would trace it is bound by that filter himself.
    let last_of_all = admin
        && compiled.as_ref().is_some_and(|c| may_fork(&c.program, host.arch, plan.after_fork.is_some()));
    if around.forks && !last_of_all {
        fork(plan);
    }
    if let Some(compiled) = compiled {
        self::filter(compiled, plan);
    }
    if admin {
        for (origin, step) in last {
            plan.push(origin, step);
        }
    }
    if around.forks && last_of_all {
        fork(plan);
    }
    plan.push("/process/args", Step::Execute);

    plan.args = process.args().clone().unwrap_or_default();
    environment(process, around.variables, plan);
    plan.candidates = candidates(&plan.args, &plan.env);
    Ok(())
}

/// The step that loads a filter, with its program.
pub(super) fn filter(compiled: seccomp::Filter, plan: &mut Plan) {
    plan.filter = compiled
        .program
        .iter()
        .flat_map(|i| {
            let (code, k) = (i.code.to_ne_bytes(), i.k.to_ne_bytes());
            [code[0], code[1], i.jt, i.jf, k[0], k[1], k[2], k[3]]
        })
        .collect();
    plan.warnings.extend(compiled.warnings);
    plan.push("/linux/seccomp", Step::Filter { flags: compiled.flags });
}

/// Whether the filter allows what `Step::Fork` and the session after it need, and with `waits` the wait between them.
#[allow(clippy::unnecessary_cast, reason = "with musl the constants are c_int")]
fn may_fork(program: &[Instruction], arch: Arch, waits: bool) -> bool {
    let calls = [
        ("clone", [libc::CLONE_PARENT as u64, 0]),
        ("setsid", [0, 0]),
        ("ioctl", [0, libc::TIOCSCTTY as u64]),
        ("sendto", [0, 0]),
        ("exit_group", [0, 0]),
    ];
    let wait = [("recvfrom", [0, 0])];
    calls.iter().chain(wait.iter().filter(|_| waits)).all(|(name, [first, second])| {
        let action = Data::native(name, arch, [*first, *second, 0, 0, 0, 0]).and_then(|d| run(program, &d));
        matches!(action, Some(libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG))
    })
}

/// The variables of config.json, then rcrun's; of several of one name the last counts, as with runc.
fn environment(process: &Process, added: &[String], plan: &mut Plan) {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_string();
    let mut seen = std::collections::HashSet::new();
    let all: Vec<&String> = process.env().iter().flatten().chain(added).collect();
    plan.env = all.iter().rev().filter(|e| seen.insert(name(e))).map(|e| e.to_string()).collect();
    plan.env.reverse();
    if !plan.env.iter().any(|e| e.strip_prefix("HOME=").is_some_and(|h| !h.is_empty())) {
        plan.env.retain(|e| !e.starts_with("HOME="));
        plan.home_of = Some(process.user().uid());
    }
}

/// Where execvp(3) would look: the PATH of the container's own environment.
fn candidates(args: &[String], env: &[String]) -> Vec<String> {
    let Some(program) = args.first() else { return Vec::new() };
    if program.contains('/') {
        return vec![program.clone()];
    }
    let path = env.iter().find_map(|e| e.strip_prefix("PATH=")).unwrap_or_default();
    path.split(':')
        .filter(|_| !path.is_empty())
        .map(|folder| match folder {
            "" => format!("./{program}"),
            folder => format!("{folder}/{program}"),
        })
        .collect()
}

/// The five sets as bits.
struct Sets {
    bounding: u64,
    effective: u64,
    permitted: u64,
    inheritable: u64,
    ambient: u64,
}

impl Sets {
    fn new(process: &Process, host: &Host, user_namespace: bool) -> Self {
        let known = u64::MAX >> (63 - host.last_cap.min(63));
        // A new user namespace starts with all of them (user_namespaces(7)); else nothing outside our own bounding set can
        // be granted, which the spec wants to be a warning.
        let grantable = if user_namespace { known } else { known & host.bounding };
        let caps = process.capabilities().as_ref();
        let bits = |set: Option<&Option<Capabilities>>| {
            set.and_then(Option::as_ref).into_iter().flatten().fold(0, |bits, cap| bits | 1 << number(*cap))
                & grantable
        };
        let permitted = bits(caps.map(|c| c.permitted()));
        let inheritable = bits(caps.map(|c| c.inheritable()));
        Sets {
            bounding: bits(caps.map(|c| c.bounding())),
            effective: bits(caps.map(|c| c.effective())),
            permitted,
            inheritable,
            // capabilities(7): no capability can be ambient that is not permitted and inheritable.
            ambient: bits(caps.map(|c| c.ambient())) & permitted & inheritable,
        }
    }

    /// Of what the kernel would say no more than EPERM (capset(2)).
    fn can_be_had(&self) -> Result<()> {
        for (set, bits, of, within) in [
            ("effective", self.effective, "permitted", self.permitted),
            ("inheritable", self.inheritable, "bounding", self.bounding),
        ] {
            let beyond: Vec<String> = CAPABILITIES
                .iter()
                .enumerate()
                .filter(|(number, _)| bits & !within & 1 << number != 0)
                .map(|(_, capability)| format!("CAP_{capability}"))
                .collect();
            if !beyond.is_empty() {
                return Err(Error::config(
                    format!("/process/capabilities/{set}"),
                    format!(
                        "{} is not in /process/capabilities/{of}, as the kernel wants it (capset)",
                        beyond.join(", ")
                    ),
                ));
            }
        }
        Ok(())
    }

    fn step(&self, more: u64) -> Step<Text> {
        Step::Capabilities {
            effective: self.effective | more,
            permitted: self.permitted | more,
            inheritable: self.inheritable,
        }
    }
}

/// The capabilities that are asked for and cannot be granted, by name.
pub(super) fn ungrantable(process: &Process, host: &Host) -> Vec<String> {
    let caps = process.capabilities().as_ref();
    let mut names: Vec<String> = caps
        .iter()
        .flat_map(|c| [c.bounding(), c.effective(), c.permitted(), c.inheritable()])
        .flatten()
        .flatten()
        .filter(|cap| number(**cap) > host.last_cap || host.bounding & 1 << number(**cap) == 0)
        .map(|cap| format!("CAP_{cap}"))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// All capabilities that config.json gives to a process in any set, a bit each.
pub(crate) fn given(process: &Process) -> u64 {
    let caps = process.capabilities().as_ref();
    caps.iter()
        .flat_map(|c| [c.bounding(), c.effective(), c.permitted(), c.inheritable(), c.ambient()])
        .flatten()
        .flatten()
        .fold(0, |bits, cap| bits | 1 << number(*cap))
}

/// The capabilities in the order of their numbers in the kernel (linux/capability.h).
pub const CAPABILITIES: [Capability; 41] = {
    use Capability as C;
    [
        C::Chown,
        C::DacOverride,
        C::DacReadSearch,
        C::Fowner,
        C::Fsetid,
        C::Kill,
        C::Setgid,
        C::Setuid,
        C::Setpcap,
        C::LinuxImmutable,
        C::NetBindService,
        C::NetBroadcast,
        C::NetAdmin,
        C::NetRaw,
        C::IpcLock,
        C::IpcOwner,
        C::SysModule,
        C::SysRawio,
        C::SysChroot,
        C::SysPtrace,
        C::SysPacct,
        C::SysAdmin,
        C::SysBoot,
        C::SysNice,
        C::SysResource,
        C::SysTime,
        C::SysTtyConfig,
        C::Mknod,
        C::Lease,
        C::AuditWrite,
        C::AuditControl,
        C::Setfcap,
        C::MacOverride,
        C::MacAdmin,
        C::Syslog,
        C::WakeAlarm,
        C::BlockSuspend,
        C::AuditRead,
        C::Perfmon,
        C::Bpf,
        C::CheckpointRestore,
    ]
};

/// The number of a capability in the kernel.
fn number(cap: Capability) -> u32 {
    CAPABILITIES.iter().position(|c| *c == cap).unwrap_or(63) as u32
}

#[allow(clippy::unnecessary_cast, reason = "with musl the constants are c_int")]
fn rlimit(kind: PosixRlimitType) -> u32 {
    use PosixRlimitType as R;
    let number = match kind {
        R::RlimitCpu => libc::RLIMIT_CPU,
        R::RlimitFsize => libc::RLIMIT_FSIZE,
        R::RlimitData => libc::RLIMIT_DATA,
        R::RlimitStack => libc::RLIMIT_STACK,
        R::RlimitCore => libc::RLIMIT_CORE,
        R::RlimitRss => libc::RLIMIT_RSS,
        R::RlimitNproc => libc::RLIMIT_NPROC,
        R::RlimitNofile => libc::RLIMIT_NOFILE,
        R::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        R::RlimitAs => libc::RLIMIT_AS,
        R::RlimitLocks => libc::RLIMIT_LOCKS,
        R::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        R::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        R::RlimitNice => libc::RLIMIT_NICE,
        R::RlimitRtprio => libc::RLIMIT_RTPRIO,
        R::RlimitRttime => libc::RLIMIT_RTTIME,
    };
    number as u32
}

/// CLONE_NEW* bits of the namespaces that a container has apart from the machine's.
pub(super) fn namespaces_of(spec: &crate::spec::Spec) -> i32 {
    spec.linux()
        .iter()
        .flat_map(|l| l.namespaces().iter().flatten())
        .fold(0, |kinds, n| kinds | namespaces::flag(n.typ()))
}
