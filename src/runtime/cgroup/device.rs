//! `linux.resources.devices` to an eBPF program of type BPF_PROG_TYPE_CGROUP_DEVICE. Pure.
//!
//! The list means: for each kind of access (read, write, mknod), the last rule that names the device and the access
//! decides; where none does, it is denied. An open for reading and writing needs both. Where runc's emulation of
//! v1's devices.allow and devices.deny gives an answer, this is the same one, with two exceptions, both to the letter of
//! the list: denying a range takes away an earlier allowed device inside it (runc: no effect), and denying one
//! device of an allowed range works (runc: an error).

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use crate::{Error, Result};

/// Bits of bpf_cgroup_dev_ctx.access_type, upper half (linux/bpf.h, BPF_DEVCG_ACC_*).
const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

/// The verifier follows at most 8192 branches that are open at a time, and a rule makes up to two.
const RULES_MAX: usize = 2048;

/// The kind of a device node (lower half of access_type, BPF_DEVCG_DEV_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A block device.
    Block = 1,
    /// A character device.
    Char = 2,
}

/// One rule; None is "any".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    allow: bool,
    kind: Option<Kind>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

impl Rule {
    /// Whether every request that `other` is about is one that this is about.
    fn covers(&self, other: &Rule) -> bool {
        fn any_or<T: PartialEq>(mine: Option<T>, its: Option<T>) -> bool {
            mine.is_none() || mine == its
        }
        any_or(self.kind, other.kind)
            && any_or(self.major, other.major)
            && any_or(self.minor, other.minor)
            && other.access & !self.access == 0
    }

    /// Whether there is a request that both are about.
    fn meets(&self, other: &Rule) -> bool {
        fn both<T: PartialEq>(mine: Option<T>, its: Option<T>) -> bool {
            mine.is_none() || its.is_none() || mine == its
        }
        both(self.kind, other.kind)
            && both(self.major, other.major)
            && both(self.minor, other.minor)
            && self.access & other.access != 0
    }
}

/// Which devices a container may use: the list reduced to what makes a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    allow_by_default: bool,
    /// In the list's order: the last one counts.
    rules: Vec<Rule>,
}

/// Devices that a policy allows; None is "any".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Block or character devices.
    pub kind: Option<Kind>,
    /// The major number.
    pub major: Option<u32>,
    /// The minor number.
    pub minor: Option<u32>,
    /// Of r, w and m.
    pub access: String,
}

/// What every container may use, whatever its config says: runc's AllowedDevices, with the path by which `linux.devices`
/// replaces one. mknod of any device is allowed (using it is not), /dev/console is one of 136:*, and /dev/net/tun is
/// not among them since runc 1.2.
const DEFAULT_DEVICES: [(Option<&str>, Rule); 10] = [
    (None, default_device(Kind::Char, None, None, MKNOD)),
    (None, default_device(Kind::Block, None, None, MKNOD)),
    (Some("/dev/null"), default_device(Kind::Char, Some(1), Some(3), ALL)),
    (Some("/dev/random"), default_device(Kind::Char, Some(1), Some(8), ALL)),
    (Some("/dev/full"), default_device(Kind::Char, Some(1), Some(7), ALL)),
    (Some("/dev/tty"), default_device(Kind::Char, Some(5), Some(0), ALL)),
    (Some("/dev/zero"), default_device(Kind::Char, Some(1), Some(5), ALL)),
    (Some("/dev/urandom"), default_device(Kind::Char, Some(1), Some(9), ALL)),
    (None, default_device(Kind::Char, Some(136), None, ALL)),
    (None, default_device(Kind::Char, Some(5), Some(2), ALL)),
];

const fn default_device(kind: Kind, major: Option<u32>, minor: Option<u32>, access: u8) -> Rule {
    Rule { allow: true, kind: Some(kind), major, minor, access }
}

impl Policy {
    /// The policy of `linux.resources.devices` (`rules`), with the default devices after it. A default device whose
    /// path is in `linux.devices` (`devices`) is not added: the config's own node takes its place, and its rules.
    pub fn new(rules: &[LinuxDeviceCgroup], devices: &[LinuxDevice]) -> Result<Policy> {
        let mut list = Vec::with_capacity(rules.len() + DEFAULT_DEVICES.len());
        for (index, rule) in rules.iter().enumerate() {
            list.push(parse(rule, &format!("/linux/resources/devices/{index}"))?);
        }
        for (path, rule) in DEFAULT_DEVICES {
            let replaced =
                path.is_some_and(|path| devices.iter().any(|device| device.path().as_os_str() == path));
            if !replaced {
                list.push(rule);
            }
        }
        if list.len() > RULES_MAX {
            return Err(Error::config(
                "/linux/resources/devices",
                format!(
                    "{} rules are more than the {RULES_MAX} that the kernel's verifier is sure to take",
                    list.len()
                ),
            ));
        }
        Ok(reduce(&list))
    }

    /// Whether nothing is denied: no program is needed then.
    pub fn allows_everything(&self) -> bool {
        self.allow_by_default && self.rules.is_empty()
    }

    /// What may be allowed at most, for who cannot deny anything of it; None where all devices are that are not denied.
    pub fn allowed(&self) -> Option<Vec<Allowed>> {
        let letters = |access: u8| {
            let letters = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
            letters.into_iter().filter(|(bit, _)| access & bit != 0).map(|(_, letter)| letter).collect()
        };
        let rules = self.rules.iter().filter(|rule| rule.allow);
        (!self.allow_by_default).then(|| {
            rules
                .map(|rule| Allowed {
                    kind: rule.kind,
                    major: rule.major,
                    minor: rule.minor,
                    access: letters(rule.access),
                })
                .collect()
        })
    }

    /// The program to load; None when nothing is denied.
    pub fn program(&self) -> Option<Vec<u64>> {
        (!self.allows_everything())
            .then(|| emit(self).iter().map(|instruction| instruction.encode()).collect())
    }
}

fn parse(rule: &LinuxDeviceCgroup, pointer: &str) -> Result<Rule> {
    let kind = match rule.typ() {
        None | Some(LinuxDeviceType::A) => None,
        Some(LinuxDeviceType::B) => Some(Kind::Block),
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(Kind::Char),
        Some(LinuxDeviceType::P) => {
            return Err(Error::config(
                format!("{pointer}/type"),
                "\"p\" (a FIFO) is no device that a cgroup controls",
            ));
        }
    };
    let number = |name: &str, value: Option<i64>| match value {
        None | Some(-1) => Ok(None),
        Some(value) => u32::try_from(value)
            .map(Some)
            .map_err(|_| Error::config(format!("{pointer}/{name}"), format!("{value} is no device number"))),
    };
    let letters = rule.access().as_deref().unwrap_or_default();
    if letters.is_empty() {
        return Err(Error::config(format!("{pointer}/access"), "device access field cannot be empty"));
    }
    let mut access = 0;
    for letter in letters.chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            _ => {
                return Err(Error::config(
                    format!("{pointer}/access"),
                    format!("{letters:?} has letters other than r, w and m"),
                ));
            }
        };
    }
    Ok(Rule {
        allow: rule.allow(),
        kind,
        major: number("major", rule.major())?,
        minor: number("minor", rule.minor())?,
        access,
    })
}

/// Drops what changes nothing: everything up to a rule about all devices, which is the default from there on; a rule
/// hidden by a later one; and a rule that repeats the default where nothing before it says otherwise.
fn reduce(list: &[Rule]) -> Policy {
    let everything = Rule { allow: true, kind: None, major: None, minor: None, access: ALL };
    let reset = list.iter().rposition(|rule| rule.covers(&everything));
    let allow_by_default = reset.is_some_and(|at| list[at].allow);
    let list = &list[reset.map_or(0, |at| at + 1)..];

    let mut rules: Vec<Rule> = Vec::new();
    for (index, rule) in list.iter().enumerate() {
        let hidden = list[index + 1..].iter().any(|later| later.covers(rule));
        let repeats = rule.allow == allow_by_default
            && !rules.iter().any(|before| before.allow != allow_by_default && before.meets(rule));
        if !hidden && !repeats {
            rules.push(*rule);
        }
    }
    Policy { allow_by_default, rules }
}

/// One eBPF instruction (linux/bpf.h, struct bpf_insn).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    dst: u8,
    src: u8,
    off: i16,
    imm: u32,
}

impl Instruction {
    fn encode(self) -> u64 {
        let mut bytes = [0; 8];
        bytes[0] = self.code;
        // struct bpf_insn has dst_reg and src_reg as bit fields, whose order follows the machine's byte order.
        bytes[1] =
            if cfg!(target_endian = "little") { self.dst | self.src << 4 } else { self.dst << 4 | self.src };
        bytes[2..4].copy_from_slice(&self.off.to_ne_bytes());
        bytes[4..].copy_from_slice(&self.imm.to_ne_bytes());
        u64::from_ne_bytes(bytes)
    }
}

// BPF_LDX|BPF_W|BPF_MEM; the rest 32 bit: BPF_ALU|..|BPF_X or BPF_K, BPF_JMP32|..|BPF_K (since 5.1), BPF_JMP.
const LDXW: u8 = 0x61;
const MOV_REG: u8 = 0xbc;
const MOV: u8 = 0xb4;
const AND: u8 = 0x54;
const RSH: u8 = 0x74;
const JEQ: u8 = 0x16;
const JSET: u8 = 0x46;
const JNE: u8 = 0x56;
const EXIT: u8 = 0x95;

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
/// The accesses asked for and not allowed yet.
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// The program while it is written: jumps to the two ends are filled in last.
struct Code {
    instructions: Vec<Instruction>,
    to_allow: Vec<usize>,
    to_deny: Vec<usize>,
}

/// From the last rule to the first. An allowing rule takes its accesses off those asked for, and when none is left the
/// answer is yes; a denying rule that finds one of its accesses among those left answers no.
fn emit(policy: &Policy) -> Vec<Instruction> {
    let mut code = Code { instructions: Vec::new(), to_allow: Vec::new(), to_deny: Vec::new() };
    code.push(LDXW, ACCESS, CONTEXT, 0, 0);
    code.push(MOV_REG, KIND, ACCESS, 0, 0);
    code.push(AND, KIND, 0, 0, 0xffff);
    code.push(RSH, ACCESS, 0, 0, 16);
    code.push(LDXW, MAJOR, CONTEXT, 4, 0);
    code.push(LDXW, MINOR, CONTEXT, 8, 0);
    // access(path, F_OK) asks for nothing.
    code.jump_to_end((ACCESS, 0), true);

    let mut end = policy.rules.len();
    while end > 0 {
        let allow = policy.rules[end - 1].allow;
        let start = policy.rules[..end].iter().rposition(|rule| rule.allow != allow).map_or(0, |at| at + 1);
        code.run(&policy.rules[start..end]);
        end = start;
    }

    // The other end only where something jumps to it: the verifier refuses dead code.
    let ends = if policy.allow_by_default { [true, false] } else { [false, true] };
    for (index, allow) in ends.into_iter().enumerate() {
        let jumps =
            if allow { std::mem::take(&mut code.to_allow) } else { std::mem::take(&mut code.to_deny) };
        if index == 0 || !jumps.is_empty() {
            for jump in jumps {
                code.land(jump);
            }
            code.push(MOV, RESULT, 0, 0, u32::from(allow));
            code.push(EXIT, 0, 0, 0, 0);
        }
    }
    code.instructions
}

impl Code {
    fn push(&mut self, code: u8, dst: u8, src: u8, off: i16, imm: u32) {
        self.instructions.push(Instruction { code, dst, src, off, imm });
    }

    /// Makes the jump at `from` end up behind the last instruction.
    fn land(&mut self, from: usize) {
        let distance = self.instructions.len() - from - 1;
        // RULES_MAX rules are at most some 9000 instructions.
        self.instructions[from].off = i16::try_from(distance).unwrap_or(i16::MAX);
    }

    fn jump_to_end(&mut self, (register, value): (u8, u32), allow: bool) {
        let at = self.instructions.len();
        self.push(JEQ, register, 0, 0, value);
        if allow { self.to_allow.push(at) } else { self.to_deny.push(at) }
    }

    /// Neighbouring rules that all allow or all deny: their order does not matter, so they are sorted, and each
    /// kind and each major number is compared once.
    fn run(&mut self, rules: &[Rule]) {
        let mut sorted: Vec<Rule> = Vec::with_capacity(rules.len());
        for rule in rules {
            match sorted
                .iter_mut()
                .find(|one| (one.kind, one.major, one.minor) == (rule.kind, rule.major, rule.minor))
            {
                Some(same) => same.access |= rule.access,
                None => sorted.push(*rule),
            }
        }
        // The verifier refuses what can never be reached: nothing may follow a rule that covers it.
        let all = sorted.clone();
        sorted.retain(|rule| !all.iter().any(|other| other != rule && other.covers(rule)));
        sorted.sort_by_key(|rule| (rule.kind, rule.major, rule.minor));

        for of_kind in sorted.chunk_by(|a, b| a.kind == b.kind) {
            let kind = of_kind[0].kind.map(|kind| (KIND, kind as u32));
            self.group(kind, of_kind, |code, of_kind| {
                for of_major in of_kind.chunk_by(|a, b| a.major == b.major) {
                    let major = of_major[0].major.map(|major| (MAJOR, major));
                    code.group(major, of_major, |code, of_major| {
                        for rule in of_major {
                            let minor = rule.minor.map(|minor| (MINOR, minor));
                            code.group(minor, &[*rule], |code, rules| code.decide(&rules[0]));
                        }
                    });
                }
            });
        }
    }

    /// `body` where the condition holds. A single rule that decides by this condition alone is one jump.
    fn group(&mut self, condition: Option<(u8, u32)>, rules: &[Rule], body: impl FnOnce(&mut Code, &[Rule])) {
        let Some((register, value)) = condition else { return body(self, rules) };
        if let [rule] = rules {
            let last = match register {
                KIND => rule.major.is_none() && rule.minor.is_none(),
                MAJOR => rule.minor.is_none(),
                _ => true,
            };
            if last && rule.access == ALL {
                return self.jump_to_end((register, value), rule.allow);
            }
        }
        let skip = self.instructions.len();
        self.push(JNE, register, 0, 0, value);
        body(self, rules);
        self.land(skip);
    }

    /// The device is the rule's: what of the access.
    fn decide(&mut self, rule: &Rule) {
        if rule.allow {
            self.push(AND, ACCESS, 0, 0, !u32::from(rule.access));
            self.jump_to_end((ACCESS, 0), true);
        } else {
            self.to_deny.push(self.instructions.len());
            self.push(JSET, ACCESS, 0, 0, rule.access.into());
        }
    }
}

#[cfg(test)]
#[path = "device_test.rs"]
mod tests;
