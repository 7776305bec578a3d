//! The compiler against libseccomp: both programs run on the same calls, and have to answer the same.
//! What rcrun does differently is modelled here: the ENOSYS answer, libseccomp's pseudo numbers, and what it gets
//! wrong. rcrun's answers are also checked against the rules as they read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSyscall};
use rcrun_runtime::host;
use rcrun_runtime::seccomp::{Filter, compile};

use super::profiles::{Random, SAMPLES, sample, small};
use super::sys::{self, Comparison, Scmp};
use rcrun_runtime::seccomp::machine::{self, Data};

const NATIVE: u32 = Arch::ScmpArchX86_64 as u32;
const X32: u32 = Arch::ScmpArchX32 as u32;
const ENOSYS: u32 = 0x0005_0026;
const EEXIST: i32 = 17;

/// The one call whose name libseccomp 2.5.4 knows, and the kernel gave to one more architecture since.
const NEWER_THAN_LIBSECCOMP: (u32, &str) = (X32, "map_shadow_stack");
const X32_MAP_SHADOW_STACK: u32 = 0x4000_0000 + 453;

/// Each architecture that libseccomp 2.5 knows, with its byte order and the width of what it compares.
const ARCHITECTURES: [(Arch, bool, bool); 19] = {
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

/// The numbers that libseccomp has names for, asked for once.
fn known(token: u32) -> &'static BTreeMap<String, u32> {
    static ALL: OnceLock<BTreeMap<u32, BTreeMap<String, u32>>> = OnceLock::new();
    let table = |token: u32| {
        let bit = if token == X32 { 0x4000_0000 } else { 0 };
        // mips' numbers are found without their base too: the higher one stands.
        let numbers = (0..7000u32).chain(0x000f_0000..0x000f_0010).map(|n| n | bit);
        numbers.filter_map(|n| Some((sys::name(token, n as i32)?, n))).collect()
    };
    &ALL.get_or_init(|| ARCHITECTURES.iter().map(|(a, _, _)| (*a as u32, table(*a as u32))).collect())[&token]
}

/// The largest number that the profile names, as runc's stub finds it; ARM's private calls do not count here.
fn last(profile: &LinuxSeccomp, token: u32) -> Option<u32> {
    let numbers = rules(profile).iter().flat_map(|r| r.names()).filter_map(|name| direct(token, name));
    numbers.filter(|n| token != Arch::ScmpArchArm as u32 || *n < 0x000f_0000).max().filter(|n| *n != 0)
}

/// The number of a call made directly, also where libseccomp prefers to tell the carried one.
fn direct(token: u32, name: &str) -> Option<u32> {
    if (token, name) == NEWER_THAN_LIBSECCOMP {
        return Some(X32_MAP_SHADOW_STACK);
    }
    match sys::number(token, name)? {
        number if number >= 0 => Some(number as u32),
        -300..=-100 => known(token).get(name).copied(),
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

/// What the rules want of a call with these arguments: nothing, one action, or several, of which libseccomp's order
/// picks one.
fn actions(rules: &[Plain], args: &[u64; 6], wide: bool) -> Vec<u32> {
    let nothing = |c: &Comparison| c.op == 7 && c.a & if wide { u64::MAX } else { 0xffff_ffff } == 0;
    if let Some(rule) = rules.iter().find(|r| r.comparisons.iter().all(nothing)) {
        return vec![rule.action];
    }
    let matching =
        rules.iter().filter(|r| r.comparisons.iter().all(|c| holds(c, args[c.arg as usize], wide)));
    let actions: BTreeSet<_> = matching.map(|r| r.action).collect();
    actions.into_iter().collect()
}

/// The calls to try: numbers, and for numbers with conditions the arguments around each value.
struct Calls {
    numbers: BTreeSet<u32>,
    conditional: BTreeSet<u32>,
    values: [Vec<u64>; 6],
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

    fn plain(&self) -> BTreeMap<u32, Vec<Plain>> {
        let mut all = BTreeMap::<u32, Vec<Plain>>::new();
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

    fn calls(&self, plain: &BTreeMap<u32, Vec<Plain>>) -> Calls {
        let mut calls =
            Calls { numbers: BTreeSet::new(), conditional: BTreeSet::new(), values: Default::default() };
        let token = self.arch as u32;
        let base = if self.arch == Arch::ScmpArchX32 { 0x4000_0000u32 } else { 0 };
        let known = known(token).values().copied();
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
            10_001u32.wrapping_neg(),
            101u32.wrapping_neg(),
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

    /// Compares the programs on all calls, and gives the number of those tried and of those that libseccomp gets wrong.
    fn compare(
        &self,
        ours: &Filter,
        theirs: &[rcrun_runtime::seccomp::Instruction],
        random: &mut u64,
    ) -> (usize, usize) {
        let default = action(self.profile.default_action(), self.profile.default_errno_ret());
        let answers = !matches!(
            self.profile.default_action(),
            Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace
        );
        let plain = self.plain();
        let (mut tried, mut wrong) = (0, 0);
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
            let rules = plain.get(&number).map(Vec::as_slice).unwrap_or_default();
            // libseccomp 2.5 joins `<` and `>` of several rules for one call wrongly: it loses some, and widens others.
            let confusing = rules.len() > 1
                && rules.iter().flat_map(|r| &r.comparisons).any(|c| matches!(c.op, 2 | 3 | 5 | 6));
            if foreign && self.with_x32 && self.arch == Arch::ScmpArchX32 {
                continue;
            }
            let enosys = (zero && number == 0) || (!named && newest.is_some_and(|newest| number > newest));
            // libseccomp keeps rules for calls that an architecture lacks under negative numbers, and emits them.
            let pseudo = (-20_000..=-100).contains(&(number as i32));
            let mut argument_sets = vec![[0; 6], [u64::MAX; 6]];
            if calls.conditional.contains(&number) {
                for _ in 0..300 {
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
                tried += 1;
                let data = Data { number, arch: self.audit(), big_endian: self.big_endian, args };
                let run = |program| machine::run(program, &data).expect("a program that seccomp(2) takes");
                let (our, their) = (run(&ours.program), run(theirs));
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
                    let nearby = Data { number: 0xfffe_0000, ..data };
                    assert_eq!(Some(our), machine::run(&ours.program, &nearby), "{}", says());
                    continue;
                }
                let wanted = actions(rules, &args, self.wide);
                match &wanted[..] {
                    [] if named => assert_eq!(our, default, "{}", says()),
                    [] => {}
                    [one] => assert_eq!(our, *one, "{}", says()),
                    several => assert!(several.contains(&our), "{}", says()),
                }
                if our == their || (self.arch as u32, number) == (X32, X32_MAP_SHADOW_STACK) {
                    continue;
                }
                assert!(confusing, "{}", says());
                wrong += 1;
            }
        }
        (tried, wrong)
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

/// Compares the programs for `group`, architectures of one byte order, on each of them.
fn compare_group(title: &str, profile: &LinuxSeccomp, group: &[Arch]) -> (usize, usize) {
    let (mut tried, mut wrong, mut random) = (0, 0, 1);
    let tokens: Vec<_> = group.iter().map(|a| *a as u32).collect();
    // x32 without x86_64 needs another native architecture, which is always included.
    let native = if group == [Arch::ScmpArchX32] { host::Arch::Aarch64 } else { host::Arch::X86_64 };
    let profile = with_architectures(profile, group);
    let subject = |arch| {
        let (_, big_endian, wide) = ARCHITECTURES.into_iter().find(|a| a.0 == arch).unwrap();
        let with_x32 = group.contains(&Arch::ScmpArchX86_64) && group.contains(&Arch::ScmpArchX32);
        Subject { profile: &profile, arch, with_x32, big_endian, wide }
    };
    match (compile(&profile, native), by_libseccomp(&profile, &tokens, subject(group[0]).big_endian)) {
        (Ok(ours), Ok(theirs)) => {
            for arch in group {
                let (t, w) = subject(*arch).compare(&ours, &theirs, &mut random);
                (tried, wrong) = (tried + t, wrong + w);
            }
        }
        (Err(error), Err(EEXIST)) => {
            assert!(error.pointer().is_some_and(|p| p.starts_with("/linux/seccomp/syscalls/")), "{error}");
        }
        // The native architecture is in our program too, and may be what is contradictory.
        (Err(_), Ok(_)) if by_libseccomp(&profile, &[NATIVE], false).is_err() => {}
        (ours, theirs) => panic!(
            "{title}, {group:?}: rcrun {:?}, libseccomp {:?}, profile {}",
            ours.err().map(|e| e.to_string()),
            theirs.err(),
            serde_json::to_string(&profile).unwrap()
        ),
    }
    (tried, wrong)
}

/// Each architecture for itself, and x86_64 with x32; with `together` also all of a byte order in one program.
fn compare_everywhere(title: &str, profile: &LinuxSeccomp, together: bool) -> (usize, usize) {
    let profile = known_to_libseccomp(profile.clone());
    let mut groups: Vec<Vec<Arch>> = ARCHITECTURES.iter().map(|(arch, _, _)| vec![*arch]).collect();
    groups.push(vec![Arch::ScmpArchX86_64, Arch::ScmpArchX32]);
    if together {
        for order in [false, true] {
            groups.push(ARCHITECTURES.iter().filter(|a| a.1 == order).map(|a| a.0).collect());
        }
    }
    let counts = groups.iter().map(|group| compare_group(title, &profile, group));
    counts.fold((0, 0), |(tried, wrong), (t, w)| (tried + t, wrong + w))
}

fn names() -> Vec<String> {
    let tables = ARCHITECTURES.iter().flat_map(|(arch, _, _)| known(*arch as u32).keys().cloned());
    let mut names: BTreeSet<String> = tables.collect();
    // Two names have one pseudo number on x86_64: libseccomp takes a rule for the one as a rule for the other.
    let confused =
        |name: &String| sys::number(NATIVE, name).and_then(|n| sys::name(NATIVE, n)).as_ref() != Some(name);
    assert_eq!(names.iter().filter(|n| confused(n)).collect::<Vec<_>>(), ["sys_debug_setcontext"]);
    names.remove("sys_debug_setcontext");
    names.into_iter().collect()
}

/// The kernel's time to load a program grows with its length: 1.1 ms for the thousand instructions of libseccomp.
#[test]
fn dockers_profile_comes_to_few_instructions() {
    for (name, native, most) in [
        ("docker-default", host::Arch::X86_64, 240),
        ("docker-26-aarch64", host::Arch::Aarch64, 200),
        ("podman-5-x86_64", host::Arch::X86_64, 500),
        ("image", host::Arch::X86_64, 300),
    ] {
        let profile = if name == "image" { super::image::dockers_capabilities() } else { sample(name) };
        let filter = compile(&profile, native).unwrap();
        assert_eq!(filter.warnings, [""; 0]);
        let tokens: Vec<_> = profile.architectures().iter().flatten().map(|a| *a as u32).collect();
        let theirs = by_libseccomp(&profile, &tokens, false).unwrap().len();
        println!("{name}: {} instructions, libseccomp {theirs}", filter.program.len());
        assert!(filter.program.len() <= most && 2 * filter.program.len() < theirs, "{name}");
    }
}

#[test]
fn engines_profiles_answer_as_with_libseccomp_on_every_architecture() {
    for name in SAMPLES {
        let (tried, wrong) = compare_everywhere(name, &sample(name), true);
        println!("{name}: {tried} calls");
        assert!(tried > 10_000 && wrong == 0, "{name}: {tried} calls, {wrong} wrong");
    }
}

#[test]
fn the_profile_of_images_answers_as_with_libseccomp_on_every_architecture() {
    for (title, profile) in super::image::profiles() {
        let (tried, wrong) = compare_everywhere(title, &profile, true);
        println!("{title}: {tried} calls");
        assert!(tried > 10_000 && wrong == 0, "{title}: {tried} calls, {wrong} wrong");
    }
}

#[test]
fn small_profiles_answer_as_with_libseccomp_on_every_architecture() {
    for (title, profile) in small() {
        let (tried, wrong) = compare_everywhere(title, &profile, true);
        println!("{title}: {tried} calls, {wrong} of them wrong in libseccomp");
        assert_eq!(tried == 0, title.ends_with("is refused"), "{title}");
    }
}

#[test]
fn random_profiles_answer_as_with_libseccomp_on_every_architecture() {
    let names = names();
    let mut random = Random(1);
    let (mut tried, mut wrong) = (0, 0);
    for round in 0..40 {
        let profile = random.profile(&names, round % 2 == 1);
        let (t, l) = compare_everywhere(&format!("round {round}"), &profile, false);
        (tried, wrong) = (tried + t, wrong + l);
    }
    println!("{tried} calls, {wrong} of them wrong in libseccomp");
    // One in a thousand when this was written.
    assert!(wrong * 300 < tried, "{wrong} of {tried}");
}
