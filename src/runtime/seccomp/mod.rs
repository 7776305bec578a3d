//! `linux.seccomp` of config.json to a classic BPF program. Pure: no I/O, no environment, no clock.
//! Uses: error, host (the name of the architecture).
//!
//! For each architecture the program searches the system call number in a balanced tree over ranges of one
//! outcome, then looks at arguments. What a profile means is what runc with libseccomp makes of it:
//!
//! - The native architecture is always included. Calls of architectures that are not listed kill the thread.
//! - A rule whose action is the default one is skipped, also where an earlier rule says otherwise.
//! - Of several rules for a call an unconditional one stands, the first of them; conditional rules are
//!   alternatives (`conditions` tells their order). Conditions within one rule must all hold, unless two of
//!   them are on the same argument: then each is a rule of its own.
//! - Names that no architecture has are ignored, with a warning (runc: a debug message).
//! - Where an architecture has socketcall(2) or ipc(2), a rule for a call they carry holds for both ways; the carrier's
//!   first argument tells the call, and takes the place of a condition on the first argument.
//! - Where the default action forbids, a number above the largest one that the profile names gets ENOSYS
//!   instead: the profile is older than the call, and programs fall back on ENOSYS but not on EPERM. "Names"
//!   counts skipped rules too, and is kept per architecture; one of which no call is named gets no such answer.
//!   runc lets ARM's private calls (0xf0002, far above all others) count and so never answers ENOSYS on ARM;
//!   and it answers ENOSYS to a named call's carrier if that is the greater number. Here neither.
//! - No `flags` at all means SPEC_ALLOW, an empty list means none.

mod arch;
mod conditions;
pub mod machine;
mod program;
mod syscalls;
#[cfg(test)]
mod tests;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompFilterFlag as Flag,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};

use self::arch::{Architecture, Call, X32_BIT};
use self::conditions::{Condition, Contradiction, Rules};
use self::program::{Graph, Id, Range};
use self::syscalls::Column;
use crate::host;
use crate::{Error, Result};

/// One instruction, laid out as the kernel's `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// The operation.
    pub code: u16,
    /// How many instructions to skip if a comparison holds.
    pub jt: u8,
    /// How many instructions to skip if it does not.
    pub jf: u8,
    /// The constant.
    pub k: u32,
}

/// What seccomp(2) takes, and what to tell the person who wrote the profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The program.
    pub program: Vec<Instruction>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
    /// Parts of the profile without effect, a sentence each, for the log.
    pub warnings: Vec<String>,
}

impl Filter {
    /// Whether calls wait for an agent, which must get the listener.
    pub fn notifies(&self) -> bool {
        self.flags & NEW_LISTENER != 0
    }
}

#[allow(clippy::unnecessary_cast, reason = "with musl the constants are c_ulong, too")]
const NEW_LISTENER: u32 = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;

/// The kernel takes no longer program (`BPF_MAXINSNS`).
pub const MOST_INSTRUCTIONS: usize = 4096;

const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
const OTHER_ARCHITECTURE: u32 = libc::SECCOMP_RET_KILL_THREAD;

/// Compiles `linux.seccomp` for a machine of architecture `native`.
pub fn compile(seccomp: &LinuxSeccomp, native: host::Arch) -> Result<Filter> {
    let profile = Profile::read(seccomp)?;
    let mut filter = Filter { program: Vec::new(), flags: 0, warnings: profile.warnings.clone() };
    filter.flags = flags(seccomp, profile.notifies, &mut filter.warnings);

    let mut architectures = vec![Architecture::native(native)];
    for name in seccomp.architectures().iter().flatten() {
        let architecture = Architecture::new(*name, native);
        if !architectures.contains(&architecture) {
            architectures.push(architecture);
        }
    }

    let mut graph = Graph::default();
    let mut roots: Vec<(u32, Id)> = Vec::new();
    for first in &architectures {
        if roots.iter().all(|(audit, _)| *audit != first.audit) {
            let tables = architectures
                .iter()
                .filter(|other| other.audit == first.audit)
                .map(|a| Table::new(*a, &profile))
                .collect::<Result<Vec<_>>>()?;
            roots.push((first.audit, search(&mut graph, &tables, &profile)));
        }
    }
    let other = graph.action(OTHER_ARCHITECTURE);
    let root =
        roots.iter().rev().fold(other, |other, (audit, found)| graph.architecture(*audit, *found, other));
    filter.program = graph.lay_out(root);
    if filter.program.len() > MOST_INSTRUCTIONS {
        return Err(Error::config(
            "/linux/seccomp",
            format!(
                "the profile compiles to {} instructions, and the kernel takes {MOST_INSTRUCTIONS}: \
                 name fewer architectures or conditions",
                filter.program.len()
            ),
        ));
    }
    Ok(filter)
}

/// The profile with its actions as the kernel's values.
struct Profile {
    default: u32,
    /// Numbers above those that the profile names get ENOSYS.
    answers_enosys: bool,
    rules: Vec<Rule>,
    /// Each name of each rule, with the rule's place in `rules`, or none if it is skipped.
    calls: Vec<(Option<usize>, Call)>,
    warnings: Vec<String>,
    /// A rule hands calls to the agent.
    notifies: bool,
}

struct Rule {
    /// Its place in config.json.
    pointer: String,
    action: u32,
    /// Alternatives; each a list of conditions that must all hold.
    alternatives: Vec<Vec<Condition>>,
}

impl Profile {
    fn read(seccomp: &LinuxSeccomp) -> Result<Profile> {
        let path = seccomp.listener_path().as_ref().filter(|path| !path.as_os_str().is_empty());
        if path.is_none() && seccomp.listener_metadata().as_ref().is_some_and(|text| !text.is_empty()) {
            let text = "has nobody to go to: /linux/seccomp/listenerPath is missing";
            return Err(Error::config("/linux/seccomp/listenerMetadata", text));
        }
        let action = seccomp.default_action();
        if action == Action::ScmpActNotify {
            // runc's words. Init could not even say where the listener is.
            let text = "SCMP_ACT_NOTIFY cannot be used as default action";
            return Err(Error::config("/linux/seccomp/defaultAction", text));
        }
        let default = value(action, seccomp.default_errno_ret(), "/linux/seccomp/defaultErrnoRet")?;
        let mut profile = Profile {
            default,
            // A tracer answers for itself, and the rest lets calls pass.
            answers_enosys: !matches!(
                action,
                Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace
            ),
            rules: Vec::new(),
            calls: Vec::new(),
            warnings: Vec::new(),
            notifies: false,
        };
        for (at, syscall) in seccomp.syscalls().iter().flatten().enumerate() {
            profile.add(syscall, format!("/linux/seccomp/syscalls/{at}"))?;
            if syscall.action() == Action::ScmpActNotify {
                profile.notifies = true;
                let refuse =
                    |text: &str| Err(Error::config(format!("/linux/seccomp/syscalls/{at}/action"), text));
                if syscall.names().iter().any(|name| name == "write") {
                    // runc's words, and its reason.
                    return refuse(
                        "SCMP_ACT_NOTIFY cannot be used for the write syscall: with it rcrun hears of the listener",
                    );
                }
                if path.is_none() {
                    return refuse("SCMP_ACT_NOTIFY needs an agent: /linux/seccomp/listenerPath is missing");
                }
            }
        }
        Ok(profile)
    }

    fn add(&mut self, syscall: &LinuxSyscall, pointer: String) -> Result<()> {
        let action = value(syscall.action(), syscall.errno_ret(), &format!("{pointer}/errnoRet"))?;
        let alternatives = alternatives(syscall, &pointer)?;
        if syscall.names().is_empty() {
            return Err(Error::config(format!("{pointer}/names"), "names no system call"));
        }
        let rule = (action != self.default).then_some(self.rules.len());
        for (at, name) in syscall.names().iter().enumerate() {
            if name.is_empty() {
                return Err(Error::config(format!("{pointer}/names/{at}"), "is empty"));
            }
            let near = self.calls.last().map_or(0, |(_, call)| call.row);
            match arch::call(name, near) {
                Some(call) => self.calls.push((rule, call)),
                None => self.warnings.push(format!(
                    "config.json: {pointer}/names/{at}: there is no system call {name:?}: the name is ignored"
                )),
            }
        }
        if rule.is_some() {
            self.rules.push(Rule { pointer, action, alternatives });
        }
        Ok(())
    }
}

/// The kernel's value of an action.
fn value(action: Action, errno: Option<u32>, errno_pointer: &str) -> Result<u32> {
    let data = match (action, errno) {
        (Action::ScmpActErrno | Action::ScmpActTrace, None) => libc::EPERM as u32,
        (Action::ScmpActErrno | Action::ScmpActTrace, Some(errno)) if errno <= 0xffff => errno,
        (Action::ScmpActErrno | Action::ScmpActTrace, Some(errno)) => {
            return Err(Error::config(errno_pointer, format!("{errno} does not fit in 16 bits")));
        }
        (_, Some(_)) => return Err(Error::config(errno_pointer, format!("{action} takes no errno"))),
        (_, None) => 0,
    };
    Ok(data
        | match action {
            Action::ScmpActKill | Action::ScmpActKillThread => libc::SECCOMP_RET_KILL_THREAD,
            Action::ScmpActKillProcess => libc::SECCOMP_RET_KILL_PROCESS,
            Action::ScmpActTrap => libc::SECCOMP_RET_TRAP,
            Action::ScmpActErrno => libc::SECCOMP_RET_ERRNO,
            Action::ScmpActTrace => libc::SECCOMP_RET_TRACE,
            Action::ScmpActAllow => libc::SECCOMP_RET_ALLOW,
            Action::ScmpActLog => libc::SECCOMP_RET_LOG,
            Action::ScmpActNotify => libc::SECCOMP_RET_USER_NOTIF,
        })
}

/// The conditions of a rule: all in one list, or one list each if two are on the same argument.
fn alternatives(syscall: &LinuxSyscall, pointer: &str) -> Result<Vec<Vec<Condition>>> {
    let mut conditions = Vec::new();
    let mut seen = [false; 6];
    let mut repeated = false;
    for (at, arg) in syscall.args().iter().flatten().enumerate() {
        let Some(seen) = seen.get_mut(arg.index()) else {
            return Err(Error::config(
                format!("{pointer}/args/{at}/index"),
                format!("{} is more than 5, the index of a system call's last argument", arg.index()),
            ));
        };
        repeated |= std::mem::replace(seen, true);
        let (mask, value) = match arg.op() {
            Operator::ScmpCmpMaskedEq => (arg.value(), arg.value_two().unwrap_or(0)),
            _ => (u64::MAX, arg.value()),
        };
        conditions.push(Condition { index: arg.index() as u8, operator: arg.op(), mask, value });
    }
    Ok(if repeated { conditions.into_iter().map(|c| vec![c]).collect() } else { vec![conditions] })
}

/// The kernel's bits of `flags`, and those that a listener takes.
#[allow(clippy::unnecessary_cast, reason = "with musl the constants are c_ulong, too")]
fn flags(seccomp: &LinuxSeccomp, notifies: bool, warnings: &mut Vec<String>) -> u32 {
    let mut bits = if notifies { NEW_LISTENER } else { 0 };
    let Some(flags) = seccomp.flags() else {
        return bits | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32;
    };
    for (at, flag) in flags.iter().enumerate() {
        bits |= match flag {
            // With a listener the answer is its fd, and threads that differ need another (seccomp(2), EINVAL).
            Flag::SeccompFilterFlagTsync if notifies => {
                (libc::SECCOMP_FILTER_FLAG_TSYNC | libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH) as u32
            }
            Flag::SeccompFilterFlagTsync => libc::SECCOMP_FILTER_FLAG_TSYNC as u32,
            Flag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG as u32,
            Flag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32,
            Flag::SeccompFilterFlagWaitKillableRecv if notifies => {
                libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV as u32
            }
            // The kernel refuses it for a filter without a listener.
            Flag::SeccompFilterFlagWaitKillableRecv => {
                warnings.push(format!(
                    "config.json: /linux/seccomp/flags/{at}: {flag} has no effect without SCMP_ACT_NOTIFY"
                ));
                0
            }
        };
    }
    bits
}

/// One architecture's calls.
struct Table {
    arch: Architecture,
    /// Sorted by number.
    rules: Vec<(u32, Rules)>,
    /// The largest number that the profile names.
    last: Option<u32>,
}

impl Table {
    fn new(arch: Architecture, profile: &Profile) -> Result<Table> {
        let mut last = None;
        // Number, the carrier's first argument if it is a carrier's number, rule.
        let mut uses: Vec<(u32, Option<u32>, usize)> = Vec::with_capacity(profile.calls.len());
        for (rule, call) in &profile.calls {
            let number = arch.number(call);
            last = last.max(number.filter(|n| arch.tells_age(*n)));
            let Some(rule) = rule else { continue };
            uses.extend(arch.carrier(call).map(|(number, first)| (number, Some(first), *rule)));
            uses.extend(number.map(|number| (number, None, *rule)));
        }
        // As with runc, number 0 alone says nothing about age.
        let last = last.filter(|last| *last != 0);
        // By number, then by place in the profile: plain integers sort in a third of the time.
        let mut order: Vec<u64> = uses
            .iter()
            .enumerate()
            .map(|(at, (number, _, _))| u64::from(*number) << 32 | at as u64)
            .collect();
        order.sort_unstable();

        let mut rules: Vec<(u32, Rules)> = Vec::with_capacity(uses.len());
        for at in order {
            let (number, carried, rule) = uses[at as u32 as usize];
            let Rule { pointer, action, alternatives } = &profile.rules[rule];
            for conditions in alternatives {
                let new = match carried {
                    None => Rules::new(&arch, conditions, *action),
                    Some(call) => Rules::new(&arch, &in_carrier(conditions, call), *action),
                };
                match rules.last_mut().filter(|(other, _)| *other == number) {
                    None => rules.push((number, new)),
                    Some((_, old)) => old.add(new).map_err(|Contradiction| {
                        Error::config(
                            pointer,
                            format!(
                                "an earlier rule wants another action for the same conditions (system call \
                                 number {number:#x} of architecture {:#x})",
                                arch.audit
                            ),
                        )
                    })?,
                }
            }
        }
        Ok(Table { arch, rules, last })
    }
}

/// The conditions as they are on the carrier, whose first argument says which call it carries.
fn in_carrier(conditions: &[Condition], call: u32) -> Vec<Condition> {
    let which = Condition { index: 0, operator: Operator::ScmpCmpEq, mask: u64::MAX, value: u64::from(call) };
    std::iter::once(which).chain(conditions.iter().filter(|c| c.index != 0).copied()).collect()
}

/// The search over the numbers of the architectures that share one AUDIT_ARCH: one, or x86_64 and x32.
fn search(graph: &mut Graph, tables: &[Table], profile: &Profile) -> Id {
    let mut firsts = vec![0, 1, X32_BIT, 2 * X32_BIT, 3 * X32_BIT, u32::MAX];
    for table in tables {
        firsts.extend(table.last.map(|last| last + 1));
        firsts.extend(table.rules.iter().flat_map(|(number, _)| [*number, number + 1]));
    }
    // Nearly sorted already, which the stable sort sees.
    firsts.sort();
    firsts.dedup();

    let default = graph.action(profile.default);
    let mut ranges: Vec<Range> = Vec::with_capacity(firsts.len());
    // Each table's numbers are among `firsts`, in the same order, and no two tables share one.
    let mut ahead: Vec<_> = tables.iter().map(|t| t.rules.iter().peekable()).collect();
    for first in firsts {
        let named = tables.iter().zip(&mut ahead).find_map(|(table, ahead)| {
            ahead.next_if(|(number, _)| *number == first).map(|(_, rules)| (table, rules))
        });
        let outcome = match named {
            _ if first == 0 && profile.answers_enosys && tables[0].arch.zero_is_unknown() => {
                graph.action(ENOSYS)
            }
            Some((table, rules)) => graph.rules(&table.arch, rules, default),
            None => graph.action(unnamed(first, tables, profile)),
        };
        if ranges.last().is_none_or(|range| range.outcome != outcome) {
            ranges.push(Range { first, outcome });
        }
    }
    graph.search(&ranges)
}

/// The action for a number that no rule is about.
fn unnamed(number: u32, tables: &[Table], profile: &Profile) -> u32 {
    let table = |column| tables.iter().find(|t| t.arch.column == column);
    let (x86_64, x32) = (table(Column::X86_64), table(Column::X32));
    let owner = match (x86_64, x32) {
        (None, None) => tables.first(),
        _ if number & X32_BIT != 0 => x32,
        _ => x86_64,
    };
    if profile.answers_enosys && owner.and_then(|t| t.last).is_some_and(|last| number > last) {
        return ENOSYS;
    }
    match (x86_64, x32) {
        // A tracer that skips a call makes its number -1, which is not one of x32's.
        (Some(_), None) if number >= X32_BIT && number != u32::MAX => OTHER_ARCHITECTURE,
        (None, Some(_)) if number < X32_BIT => OTHER_ARCHITECTURE,
        _ => profile.default,
    }
}
