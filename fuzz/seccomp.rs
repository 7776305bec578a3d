//! Bytes as a seccomp profile and calls to try on it: the compiler against the rules as they read. (The comparison with
//! libseccomp is runtime-tests' `seccomp`, which asks for one more library.) Uses: rcrun_runtime's seccomp, sentence.
//!
//! What holds: a profile is refused by a sentence, or becomes a program that seccomp(2) takes; to each call it answers what
//! the rules want: the action of the unconditional rule, else of a rule whose conditions hold, else the default one, or
//! ENOSYS for a call that is newer than the profile.

use oci_spec::runtime::LinuxSeccomp;
use rcrun_runtime::host::Arch;
use rcrun_runtime::seccomp::machine::{self, Data};
use rcrun_runtime::seccomp::{MOST_INSTRUCTIONS, compile};
use serde_json::{Value, json};

use crate::sentence;

/// Calls with small and large numbers on both architectures, without those that only one has.
const NAMES: [&str; 16] = [
    "read",
    "write",
    "openat",
    "close",
    "socket",
    "ioctl",
    "mmap",
    "clone",
    "execve",
    "personality",
    "bpf",
    "statx",
    "clone3",
    "openat2",
    "futex",
    "mseal",
];
/// An action in the profile, and what seccomp(2) calls it.
const ACTIONS: [(&str, u32); 7] = [
    ("SCMP_ACT_ALLOW", 0x7fff_0000),
    ("SCMP_ACT_ERRNO", 0x0005_0001),
    ("SCMP_ACT_KILL_PROCESS", 0x8000_0000),
    ("SCMP_ACT_KILL_THREAD", 0),
    ("SCMP_ACT_TRAP", 0x0003_0000),
    ("SCMP_ACT_TRACE", 0x7ff0_0001),
    ("SCMP_ACT_LOG", 0x7ffc_0000),
];
const OPERATORS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
/// Values where halves of 32 bits meet.
const VALUES: [u64; 12] =
    [0, 1, 2, 5, 40, 0x7e02_0000, 0x7fff_ffff, 0xffff_ffff, 1 << 32, 0x1_0000_0005, 1 << 63, u64::MAX];
const ENOSYS: u32 = 0x0005_0026;

/// Bytes as choices, and zeroes behind their end.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn next(&mut self) -> usize {
        self.0.next().copied().unwrap_or_default().into()
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.next() % all.len()]
    }

    fn value(&mut self) -> u64 {
        match self.next() {
            // A value of its own, byte by byte.
            255 => (0..8).fold(0, |value, _| value << 8 | self.next() as u64),
            choice => VALUES[choice % VALUES.len()],
        }
    }
}

struct Condition {
    index: usize,
    operator: &'static str,
    value: u64,
    two: u64,
}

impl Condition {
    fn holds(&self, args: &[u64; 6]) -> bool {
        let found = args[self.index];
        match self.operator {
            "NE" => found != self.value,
            "LT" => found < self.value,
            "LE" => found <= self.value,
            "EQ" => found == self.value,
            "GE" => found >= self.value,
            "GT" => found > self.value,
            _ => found & self.value == self.two & self.value,
        }
    }

    /// It says nothing: a mask of no bit.
    fn is_void(&self) -> bool {
        self.operator == "MASKED_EQ" && self.value == 0
    }
}

struct Rule {
    names: Vec<&'static str>,
    action: u32,
    /// Conditions that must all hold; several lists are alternatives.
    alternatives: Vec<Vec<Condition>>,
}

/// Panics if the property does not hold for `input`.
pub fn holds(input: &[u8]) {
    // What people write may have anything in it.
    if let Ok(profile) = serde_json::from_slice::<LinuxSeccomp>(input)
        && let Err(error) = compile(&profile, Arch::X86_64)
    {
        sentence::is_one(&error);
    }
    let mut choices = Choices(input.iter());
    let (default_name, default) = choices.of(&ACTIONS);
    let native = choices.of(&[Arch::X86_64, Arch::Aarch64]);
    let mut rules = Vec::new();
    let mut said = Vec::new();
    for _ in 0..choices.next() % 12 {
        let (rule, json) = one_rule(&mut choices);
        rules.push(rule);
        said.push(json);
    }
    let text = json!({"defaultAction": default_name, "syscalls": said});
    let profile: LinuxSeccomp = serde_json::from_value(text.clone()).expect("a profile");
    let filter = match compile(&profile, native) {
        Ok(filter) => filter,
        Err(error) => return sentence::is_one(&error),
    };
    assert!(
        filter.program.len() <= MOST_INSTRUCTIONS && filter.warnings.is_empty(),
        "{text}: {:?}",
        filter.warnings
    );
    let number = |name| Data::native(name, native, [0; 6]).expect("each architecture has the call").number;
    // A profile is as old as the newest call that it names.
    let newest = rules
        .iter()
        .flat_map(|rule| &rule.names)
        .map(|name| number(name))
        .max()
        .filter(|newest| *newest != 0);
    let lets_pass = matches!(default_name, "SCMP_ACT_ALLOW" | "SCMP_ACT_LOG" | "SCMP_ACT_TRACE");
    for name in NAMES {
        for args in arguments(&rules, &mut choices) {
            let data = Data::native(name, native, args).expect("each architecture has the call");
            let answer = machine::run(&filter.program, &data);
            let answer = answer.unwrap_or_else(|| panic!("seccomp(2) would not take the program of {text}"));
            let wanted = wanted(&rules, name, &args, default);
            let says =
                || format!("{name}{args:x?} on {native:?}: {answer:#x} of {wanted:x?}, profile {text}");
            let named = rules.iter().any(|rule| rule.action != default && rule.names.contains(&name));
            match &wanted[..] {
                [] if named => assert_eq!(answer, default, "{}", says()),
                [] if !lets_pass && newest.is_some_and(|newest| data.number > newest) => {
                    assert_eq!(answer, ENOSYS, "{}", says());
                }
                [] => assert_eq!(answer, default, "{}", says()),
                // Of several it is libseccomp's order that picks.
                some => assert!(some.contains(&answer), "{}", says()),
            }
        }
    }
}

fn one_rule(choices: &mut Choices<'_>) -> (Rule, Value) {
    let (action_name, action) = choices.of(&ACTIONS);
    let names: Vec<&str> = (0..1 + choices.next() % 3).map(|_| choices.of(&NAMES)).collect();
    let mut conditions = Vec::new();
    for _ in 0..choices.next() % 4 {
        let (index, operator) = (choices.next() % 6, choices.of(&OPERATORS));
        conditions.push(Condition { index, operator, value: choices.value(), two: choices.value() });
    }
    let args: Vec<Value> = conditions
        .iter()
        .map(|c| {
            let operator = format!("SCMP_CMP_{}", c.operator);
            json!({"index": c.index, "op": operator, "value": c.value, "valueTwo": c.two})
        })
        .collect();
    let json = json!({"names": names, "action": action_name, "args": args});
    let repeated =
        (1..conditions.len()).any(|at| conditions[..at].iter().any(|c| c.index == conditions[at].index));
    let alternatives = match repeated {
        true => conditions.into_iter().map(|condition| vec![condition]).collect(),
        false => vec![conditions],
    };
    (Rule { names, action, alternatives }, json)
}

/// Arguments around the values of the conditions, and some of the input's own.
fn arguments(rules: &[Rule], choices: &mut Choices<'_>) -> Vec<[u64; 6]> {
    let mut all = vec![[0; 6], [u64::MAX; 6], std::array::from_fn(|_| choices.value())];
    for condition in rules.iter().flat_map(|rule| &rule.alternatives).flatten() {
        let value = condition.value;
        for near in [value, value.wrapping_sub(1), value.wrapping_add(1), condition.two, value ^ 1 << 32] {
            let mut args: [u64; 6] = std::array::from_fn(|_| choices.value());
            args[condition.index] = near;
            all.push(args);
        }
    }
    all
}

/// What the rules want of the call: nothing, one action, or several.
fn wanted(rules: &[Rule], name: &str, args: &[u64; 6], default: u32) -> Vec<u32> {
    let of_it = || rules.iter().filter(|rule| rule.action != default && rule.names.contains(&name));
    let unconditional =
        of_it().find(|rule| rule.alternatives.iter().any(|all| all.iter().all(Condition::is_void)));
    if let Some(rule) = unconditional {
        return vec![rule.action];
    }
    let matching =
        of_it().filter(|rule| rule.alternatives.iter().any(|all| all.iter().all(|c| c.holds(args))));
    matching.map(|rule| rule.action).collect()
}
