//! The compiler against libseccomp: both programs run on the same calls, and have to answer the same.
//! What rcrun does differently is modelled here: the ENOSYS answer, libseccomp's pseudo numbers, and the rules it loses.

use std::collections::BTreeSet;

use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSyscall};
use rcrun_runtime::host;
use rcrun_runtime::seccomp::{Filter, compile};

use super::machine::{Data, run};
use super::profiles::{Random, SAMPLES, sample, small};
use super::sys::{self, Comparison, Scmp};

const NATIVE: u32 = Arch::ScmpArchX86_64 as u32;
const X32: u32 = Arch::ScmpArchX32 as u32;
const ENOSYS: u32 = 0x0005_0026;
const EEXIST: i32 = 17;

/// Each architecture that libseccomp 2.5 knows, with its byte order and the width of what it compares.
const ARCHITECTURES: [(Arch, bool, bool); 20] = {
    use Arch::*;
    [
        (ScmpArchX86_64, false, true),
        (ScmpArchX86, false, false),
        (ScmpArchX32, false, false),
        (ScmpArchArm, false, false),
        (ScmpArchAarch64, false, true),
        (ScmpArchMips, true, false),
        (ScmpArchMips64, true, true),
        (ScmpArchMips64n32, true, false),
        (ScmpArchMipsel, false, false),
        (ScmpArchMipsel64, false, true),
        (ScmpArchMipsel64n32, false, false),
        (ScmpArchPpc, true, false),
        (ScmpArchPpc64, true, true),
        (ScmpArchPpc64le, false, true),
        (ScmpArchS390, true, false),
        (ScmpArchS390x, true, true),
        (ScmpArchParisc, true, false),
        (ScmpArchParisc64, true, true),
        (ScmpArchRiscv64, false, true),
        (ScmpArchX86_64, false, true),
    ]
};

fn action(action: Action, errno: Option<u32>) -> u32 {
    // oci-spec's own values are a second opinion here.
    action.as_u32(errno)
}

fn rules(profile: &LinuxSeccomp) -> &[LinuxSyscall] {
    profile.syscalls().as_deref().unwrap_or_default()
}

fn alternatives(rule: &LinuxSyscall) -> Vec<Vec<Comparison>> {
    let all: Vec<_> = rule
        .args()
        .iter()
        .flatten()
        .map(|a| Comparison {
            arg: a.index() as u32,
            op: a.op() as i32,
            a: a.value(),
            b: a.value_two().unwrap_or(0),
        })
        .collect();
    let indices: BTreeSet<_> = all.iter().map(|c| c.arg).collect();
    if indices.len() < all.len() { all.into_iter().map(|c| vec![c]).collect() } else { vec![all] }
}

/// What runc does with libseccomp. An error is libseccomp's errno.
fn by_libseccomp(
    profile: &LinuxSeccomp,
    tokens: &[u32],
    big_endian: bool,
) -> Result<Vec<rcrun_runtime::seccomp::Instruction>, i32> {
    let default = action(profile.default_action(), profile.default_errno_ret());
    let mut scmp = Scmp::new(default, tokens);
    for rule in rules(profile) {
        let action = action(rule.action(), rule.errno_ret());
        for name in rule.names().iter().filter(|_| action != default) {
            let Some(number) = sys::number(NATIVE, name) else { continue };
            for comparisons in alternatives(rule) {
                scmp.rule(action, number, &comparisons)?;
            }
        }
    }
    Ok(scmp.program(big_endian))
}

/// The largest number that the profile names, as runc's stub finds it; ARM's private calls do not count here.
fn last(profile: &LinuxSeccomp, token: u32) -> Option<u32> {
    let numbers = rules(profile).iter().flat_map(|r| r.names()).filter_map(|name| direct(token, name));
    numbers.filter(|n| token != Arch::ScmpArchArm as u32 || *n < 0x000f_0000).max().filter(|n| *n != 0)
}

/// The number of a call made directly, also where libseccomp prefers to tell the carried one.
fn direct(token: u32, name: &str) -> Option<u32> {
    match sys::number(token, name)? {
        number if number >= 0 => Some(number as u32),
        // Its own table has it for x86_64 only; the kernel's headers have it for x32 too.
        _ if token == X32 && name == "map_shadow_stack" => Some(0x4000_0000 + 453),
        // From above: on MIPS it knows numbers without their base too.
        -300..=-100 => {
            (0..5000).rev().find(|n| sys::name(token, *n).as_deref() == Some(name)).map(|n| n as u32)
        }
        _ => None,
    }
}

fn holds(c: &Comparison, value: u64, wide: bool) -> bool {
    let cut = |v: u64| if wide { v } else { v & 0xffff_ffff };
    let (value, a, b) = (cut(value), cut(c.a), cut(c.b));
    match c.op {
        1 => value != a,
        2 => value < a,
        3 => value <= a,
        4 => value == a,
        5 => value >= a,
        6 => value > a,
        7 => value & a == b & a,
        op => panic!("operator {op}"),
    }
}

/// One rule about one number, as anybody would read it.
struct Plain {
    action: u32,
    comparisons: Vec<Comparison>,
}

/// The calls to try: numbers, and for numbers with conditions the arguments around each value.
struct Calls {
    numbers: BTreeSet<u32>,
    conditional: BTreeSet<u32>,
    values: [Vec<u64>; 6],
}

/// How many calls were compared.
#[derive(Debug, Default)]
struct Count {
    tried: usize,
    /// libseccomp's answer is not that of the one action that matches.
    wrong: usize,
    /// Two actions match, and rcrun and libseccomp choose differently.
    disputed: usize,
}

impl Count {
    fn add(&mut self, other: Count) {
        self.tried += other.tried;
        self.wrong += other.wrong;
        self.disputed += other.disputed;
    }
}

struct Subject<'a> {
    profile: &'a LinuxSeccomp,
    arch: Arch,
    /// x32 shares its AUDIT_ARCH with x86_64: which of the two a number belongs to.
    with_x32: bool,
    big_endian: bool,
    wide: bool,
}

impl Subject<'_> {
    fn audit(&self) -> u32 {
        if self.arch == Arch::ScmpArchX32 { NATIVE } else { self.arch as u32 }
    }

    fn carrier(&self, name: &str) -> Option<(u32, u32)> {
        use Arch::*;
        let multiplexes = matches!(
            self.arch,
            ScmpArchX86
                | ScmpArchMips
                | ScmpArchMipsel
                | ScmpArchPpc
                | ScmpArchPpc64
                | ScmpArchPpc64le
                | ScmpArchS390
                | ScmpArchS390x
        );
        let pseudo = -sys::number(self.arch as u32, name).filter(|_| multiplexes)?;
        match pseudo {
            101..=120 => Some((direct(self.arch as u32, "socketcall")?, (pseudo % 100) as u32)),
            201..=224 => Some((direct(self.arch as u32, "ipc")?, (pseudo % 200) as u32)),
            _ => None,
        }
    }

    fn plain(&self) -> std::collections::BTreeMap<u32, Vec<Plain>> {
        let mut all = std::collections::BTreeMap::<u32, Vec<Plain>>::new();
        let default = action(self.profile.default_action(), self.profile.default_errno_ret());
        for rule in rules(self.profile) {
            let action = action(rule.action(), rule.errno_ret());
            for name in rule.names().iter().filter(|_| action != default) {
                for comparisons in alternatives(rule) {
                    if let Some(number) = direct(self.arch as u32, name) {
                        all.entry(number)
                            .or_default()
                            .push(Plain { action, comparisons: comparisons.clone() });
                    }
                    if let Some((number, call)) = self.carrier(name) {
                        let mut comparisons: Vec<_> =
                            comparisons.into_iter().filter(|c| c.arg != 0).collect();
                        comparisons.push(Comparison { arg: 0, op: 4, a: u64::from(call), b: 0 });
                        all.entry(number).or_default().push(Plain { action, comparisons });
                    }
                }
            }
        }
        all
    }

    fn calls(&self, plain: &std::collections::BTreeMap<u32, Vec<Plain>>) -> Calls {
        let mut calls =
            Calls { numbers: BTreeSet::new(), conditional: BTreeSet::new(), values: Default::default() };
        let token = self.arch as u32;
        let base = if self.arch == Arch::ScmpArchX32 { 0x4000_0000u32 } else { 0 };
        let known = (0..7000u32).chain(0x000f_0000..0x000f_0010).map(|n| n | base);
        let known = known.filter(|n| sys::name(token, *n as i32).is_some());
        let edges = [
            0,
            1,
            0x3fff_ffff,
            0x4000_0000,
            0x4000_0001,
            0x7fff_ffff,
            0x8000_0000,
            0xbfff_ffff,
            0xc000_0000,
            0xffff_fffe,
            0xffff_ffff,
        ];
        let newer = (440..500).map(|n| n | base);
        for number in
            known.chain(edges).chain(newer).chain(plain.keys().copied()).chain(last(self.profile, token))
        {
            calls.numbers.extend([number.saturating_sub(1), number, number.saturating_add(1)]);
        }
        for values in &mut calls.values {
            values.extend([0, u64::MAX]);
        }
        for (number, rules) in plain {
            for c in rules.iter().flat_map(|r| &r.comparisons) {
                calls.conditional.insert(*number);
                let around = [
                    c.a,
                    c.a.wrapping_sub(1),
                    c.a.wrapping_add(1),
                    c.b,
                    c.b | !c.a,
                    c.a ^ (1 << 32),
                    c.a ^ (1 << 63),
                    c.a << 32,
                    c.a >> 32,
                    c.a & 0xffff_ffff,
                ];
                calls.values[c.arg as usize].extend(around);
            }
        }
        for values in &mut calls.values {
            values.sort_unstable();
            values.dedup();
        }
        calls
    }

    /// Compares the programs on all calls.
    fn compare(
        &self,
        ours: &Filter,
        theirs: &[rcrun_runtime::seccomp::Instruction],
        random: &mut u64,
    ) -> Count {
        let default = action(self.profile.default_action(), self.profile.default_errno_ret());
        let answers = !matches!(
            self.profile.default_action(),
            Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace
        );
        let plain = self.plain();
        let mut count = Count::default();
        let calls = self.calls(&plain);
        let stub = |token| last(self.profile, token).filter(|_| answers);
        let (mine, x32) = (stub(self.arch as u32), stub(X32));
        let zero = matches!(self.arch, Arch::ScmpArchS390 | Arch::ScmpArchS390x) && answers;
        for number in calls.numbers.iter().copied() {
            // The other half of x86_64's numbers is tried as its own subject.
            let foreign =
                self.audit() == NATIVE && (number & 0x4000_0000 != 0) != (self.arch == Arch::ScmpArchX32);
            let newest = if !foreign {
                mine
            } else if self.arch == Arch::ScmpArchX32 {
                None
            } else if self.with_x32 {
                x32
            } else {
                None
            };
            let named = plain.contains_key(&number);
            if foreign && self.with_x32 && self.arch == Arch::ScmpArchX32 {
                continue;
            }
            let enosys = (zero && number == 0) || (!named && newest.is_some_and(|newest| number > newest));
            // libseccomp keeps rules for calls that an architecture lacks under negative numbers, and emits them.
            let pseudo = (-20_000..=-100).contains(&(number as i32));
            let mut argument_sets = vec![[0; 6], [u64::MAX; 6]];
            if calls.conditional.contains(&number) {
                for _ in 0..600 {
                    argument_sets.push(std::array::from_fn(|i| {
                        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        calls.values[i][(*random >> 33) as usize % calls.values[i].len()]
                    }));
                }
                for (i, values) in calls.values.iter().enumerate() {
                    argument_sets
                        .extend(values.iter().map(|v| std::array::from_fn(|j| if i == j { *v } else { 0 })));
                }
            }
            for args in argument_sets {
                count.tried += 1;
                let data = Data { number, arch: self.audit(), big_endian: self.big_endian, args };
                let (our, their) = (run(&ours.program, &data), run(theirs, &data));
                let says = || {
                    format!(
                        "{:?} {data:x?}: rcrun {our:#x}, libseccomp {their:#x}, profile {}",
                        self.arch,
                        serde_json::to_string(self.profile).unwrap()
                    )
                };
                if enosys {
                    assert_eq!(our, ENOSYS, "{}", says());
                    continue;
                }
                if pseudo {
                    continue;
                }
                let matching: BTreeSet<_> = plain
                    .get(&number)
                    .into_iter()
                    .flatten()
                    .filter(|r| r.comparisons.iter().all(|c| holds(c, args[c.arg as usize], self.wide)))
                    .map(|r| r.action)
                    .collect();
                // Where all rules that match agree, or none does, there is no question what the answer is; but libseccomp
                // forgets some such rules, and shares comparisons of `<` and `>` among rules that it should not.
                let plainly = matching.first().copied().unwrap_or(default);
                if our != their && matching.len() <= 1 && our == plainly {
                    // For a call that its table lacks on this architecture it has no rule at all.
                    count.wrong +=
                        usize::from(!named || sys::name(self.arch as u32, number as i32).is_some());
                    continue;
                }
                // Rules that match disagree, and libseccomp's order decides; the tests bound how often it is not ours.
                if our != their && matching.contains(&our) && matching.contains(&their) {
                    count.disputed += 1;
                    continue;
                }
                assert_eq!(our, their, "{}", says());
            }
        }
        count
    }
}

fn with_architectures(profile: &LinuxSeccomp, architectures: &[Arch]) -> LinuxSeccomp {
    let mut profile = profile.clone();
    profile.set_architectures(Some(architectures.to_vec()));
    profile
}

/// Names that libseccomp does not know yet cannot be asked of it.
fn known_to_libseccomp(mut profile: LinuxSeccomp) -> LinuxSeccomp {
    let rules = rules(&profile)
        .iter()
        .cloned()
        .map(|mut rule| {
            let names = rule.names().iter().filter(|n| sys::number(NATIVE, n).is_some()).cloned().collect();
            rule.set_names(names);
            rule
        })
        .filter(|rule| !rule.names().is_empty())
        .collect();
    profile.set_syscalls(Some(rules));
    profile
}

/// All architectures, each beside the native one, and x86_64 with x32 together.
fn compare_everywhere(title: &str, profile: &LinuxSeccomp) -> Count {
    let (mut count, mut random) = (Count::default(), 1);
    let profile = known_to_libseccomp(profile.clone());
    for (arch, big_endian, wide) in ARCHITECTURES {
        for with_x32 in [false, true] {
            let native =
                if arch == Arch::ScmpArchX32 && !with_x32 { host::Arch::Aarch64 } else { host::Arch::X86_64 };
            let x86 = matches!(arch, Arch::ScmpArchX86_64 | Arch::ScmpArchX32);
            if with_x32 && !x86 {
                continue;
            }
            let both = [Arch::ScmpArchX86_64, Arch::ScmpArchX32];
            let architectures = if with_x32 { &both[..] } else { &[arch][..] };
            let tokens: Vec<_> = architectures.iter().map(|a| *a as u32).collect();
            let profile = with_architectures(&profile, architectures);
            let ours = compile(&profile, native);
            let theirs = by_libseccomp(&profile, &tokens, big_endian);
            let (ours, theirs) = match (ours, theirs) {
                (Ok(ours), Ok(theirs)) => (ours, theirs),
                (Err(error), Err(EEXIST)) => {
                    assert!(
                        error.pointer().is_some_and(|p| p.starts_with("/linux/seccomp/syscalls/")),
                        "{error}"
                    );
                    continue;
                }
                // The native architecture is in our program too, and may be what is contradictory.
                (Err(_), Ok(_)) if by_libseccomp(&profile, &[NATIVE], false).is_err() => continue,
                (ours, theirs) => panic!(
                    "{title}, {arch}: rcrun {:?}, libseccomp {:?}, profile {}",
                    ours.err().map(|e| e.to_string()),
                    theirs.err(),
                    serde_json::to_string(&profile).unwrap()
                ),
            };
            let subject = Subject { profile: &profile, arch, with_x32, big_endian, wide };
            count.add(subject.compare(&ours, &theirs, &mut random));
        }
    }
    count
}

fn names() -> Vec<String> {
    let mut names = BTreeSet::new();
    for (arch, _, _) in ARCHITECTURES {
        names.extend((0..7000).filter_map(|n| sys::name(arch as u32, n)));
    }
    // libseccomp gave it switch_endian's pseudo number, so that a rule about it is one about both.
    names.remove("sys_debug_setcontext");
    names.into_iter().collect()
}

#[test]
fn engines_profiles_answer_as_with_libseccomp_on_every_architecture() {
    for name in SAMPLES {
        let count = compare_everywhere(name, &sample(name));
        println!("{name}: {count:?}");
        assert!(count.tried > 10_000 && count.wrong == 0 && count.disputed == 0, "{name}: {count:?}");
    }
}

/// The kernel checks and translates each instruction at each start: 372 was the size of the first tree.
#[test]
fn dockers_profile_is_a_small_tree() {
    let size = compile(&sample("docker-default"), host::Arch::X86_64).unwrap().program.len();
    assert!(size <= 240, "{size} instructions");
}

#[test]
fn small_profiles_answer_as_with_libseccomp_on_every_architecture() {
    for (title, profile) in small() {
        let count = compare_everywhere(title, &profile);
        println!("{title}: {count:?}");
        assert_eq!(count.disputed, 0, "{title}");
        assert_eq!(count.tried == 0, title.ends_with("is refused"), "{title}: {count:?}");
    }
}

#[test]
fn random_profiles_answer_as_with_libseccomp_on_every_architecture() {
    let names = names();
    let mut random = Random(1);
    let mut count = Count::default();
    for round in 0..60 {
        let profile = random.profile(&names, round % 2 == 1);
        count.add(compare_everywhere(&format!("round {round}"), &profile));
    }
    println!("{count:?}");
    // Twelve when this was written, on 32-bit architectures.
    assert!(count.disputed * 100_000 < count.tried, "{count:?}");
}
