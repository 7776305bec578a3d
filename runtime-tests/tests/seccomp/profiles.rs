//! Profiles to try: samples of what engines emit, small ones that single out a rule of libseccomp, and random ones.

use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

/// A profile from samples/seccomp.
pub fn sample(name: &str) -> LinuxSeccomp {
    let path = format!("{}/samples/seccomp/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The engines' profiles.
pub const SAMPLES: [&str; 5] =
    ["docker-20-x86_64", "docker-default", "docker-26-aarch64", "podman-5-x86_64", "podman-5-aarch64"];

/// A profile of `rules`, given as (names, action, errno, args as (index, op, value, value two)).
fn profile(default: &str, rules: Vec<Value>) -> LinuxSeccomp {
    serde_json::from_value(json!({"defaultAction": default, "syscalls": rules})).unwrap()
}

fn arg(index: usize, op: &str, value: u64, two: u64) -> Value {
    json!({"index": index, "op": format!("SCMP_CMP_{op}"), "value": value, "valueTwo": two})
}

/// Small profiles, each about one thing.
pub fn small() -> Vec<(&'static str, LinuxSeccomp)> {
    let allow =
        |names: &[&str], args: Vec<Value>| json!({"names": names, "action": "SCMP_ACT_ALLOW", "args": args});
    let errno = |names: &[&str], errno: u32, args: Vec<Value>| json!({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": args});
    let big = 0x1_0000_0005u64;
    let mut all = vec![
        ("nothing named", profile("SCMP_ACT_ALLOW", vec![])),
        ("nothing named, all refused", profile("SCMP_ACT_ERRNO", vec![])),
        ("runtime-tools' getcwd", profile("SCMP_ACT_ALLOW", vec![errno(&["getcwd"], 1, vec![])])),
        (
            "the first unconditional rule stands",
            profile("SCMP_ACT_ALLOW", vec![errno(&["read"], 2, vec![]), errno(&["read"], 3, vec![])]),
        ),
        (
            "unconditional over conditional",
            profile(
                "SCMP_ACT_KILL",
                vec![
                    errno(&["read"], 2, vec![arg(0, "EQ", 3, 0)]),
                    allow(&["read"], vec![]),
                    errno(&["read"], 2, vec![arg(0, "EQ", 4, 0)]),
                ],
            ),
        ),
        (
            "a rule of the default action is skipped",
            profile("SCMP_ACT_ERRNO", vec![errno(&["read", "statx"], 1, vec![]), allow(&["read"], vec![])]),
        ),
        (
            "two conditions on one argument are alternatives",
            profile(
                "SCMP_ACT_KILL_PROCESS",
                vec![allow(&["ioctl"], vec![arg(1, "EQ", 5, 0), arg(1, "EQ", 9, 0), arg(2, "GT", 7, 0)])],
            ),
        ),
        (
            "carried calls",
            profile(
                "SCMP_ACT_ERRNO",
                vec![
                    allow(&["socket"], vec![arg(0, "NE", 40, 0)]),
                    allow(&["bind", "semop", "read", "recv"], vec![]),
                    allow(&["shmget"], vec![arg(1, "LE", 4096, 0)]),
                ],
            ),
        ),
        (
            "carriers themselves",
            profile("SCMP_ACT_KILL", vec![allow(&["socketcall", "ipc"], vec![]), allow(&["socket"], vec![])]),
        ),
        (
            "podman's audit socket",
            profile(
                "SCMP_ACT_ERRNO",
                vec![
                    errno(&["socket"], 22, vec![arg(0, "EQ", 16, 0), arg(2, "EQ", 9, 0)]),
                    allow(&["socket"], vec![arg(2, "NE", 9, 0)]),
                    allow(&["socket"], vec![arg(0, "NE", 16, 0)]),
                ],
            ),
        ),
        (
            "actions overlap on different arguments",
            profile(
                "SCMP_ACT_KILL",
                vec![
                    errno(&["mmap"], 5, vec![arg(0, "EQ", 1, 0)]),
                    allow(&["mmap"], vec![arg(3, "NE", 2, 0)]),
                ],
            ),
        ),
        (
            "actions overlap on one argument",
            profile(
                "SCMP_ACT_KILL",
                vec![
                    errno(&["mmap"], 5, vec![arg(0, "GT", 10, 0)]),
                    allow(&["mmap"], vec![arg(0, "EQ", 12, 0)]),
                    errno(&["mmap"], 7, vec![arg(0, "LT", 3, 0)]),
                ],
            ),
        ),
        (
            "a condition that always holds, beside another on its argument",
            profile(
                "SCMP_ACT_TRAP",
                vec![
                    allow(&["futex"], vec![arg(2, "GE", 0, 0), arg(5, "MASKED_EQ", 40, 40)]),
                    errno(&["futex"], 5, vec![arg(2, "LT", 0xffff_ffff, 0)]),
                ],
            ),
        ),
        (
            "a shorter rule first",
            profile(
                "SCMP_ACT_KILL",
                vec![
                    allow(&["mmap"], vec![arg(0, "EQ", 1, 0)]),
                    errno(&["mmap"], 5, vec![arg(0, "EQ", 1, 0), arg(1, "EQ", 2, 0)]),
                ],
            ),
        ),
        (
            "a shorter rule later is refused",
            profile(
                "SCMP_ACT_KILL",
                vec![
                    errno(&["mmap"], 5, vec![arg(0, "EQ", 1, 0), arg(1, "EQ", 2, 0)]),
                    allow(&["mmap"], vec![arg(0, "EQ", 1, 0)]),
                ],
            ),
        ),
        (
            "a contradiction is refused",
            profile(
                "SCMP_ACT_KILL",
                vec![
                    errno(&["mmap"], 5, vec![arg(0, "EQ", 1, 0)]),
                    allow(&["mmap"], vec![arg(0, "EQ", 1, 0)]),
                ],
            ),
        ),
        (
            "ARM's own calls",
            profile(
                "SCMP_ACT_ERRNO",
                vec![allow(&["cacheflush", "set_tls", "read", "arm_fadvise64_64", "breakpoint"], vec![])],
            ),
        ),
        ("traced", profile("SCMP_ACT_TRACE", vec![allow(&["read"], vec![])])),
        ("logged", profile("SCMP_ACT_LOG", vec![errno(&["read"], 13, vec![])])),
        (
            "a mask of nothing",
            profile(
                "SCMP_ACT_ERRNO",
                vec![
                    allow(&["read"], vec![arg(0, "MASKED_EQ", 0, 7)]),
                    allow(&["write"], vec![arg(0, "MASKED_EQ", 0xff << 32, 7 << 32)]),
                ],
            ),
        ),
    ];
    for op in ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"] {
        let rules = vec![
            allow(&["read"], vec![arg(0, op, big, 5)]),
            allow(&["write"], vec![arg(1, op, 7, 3), arg(5, op, u64::MAX, big)]),
            allow(&["openat"], vec![arg(2, op, 0, 0)]),
            allow(
                &["close"],
                vec![arg(0, op, u64::MAX, 1 << 40), arg(1, op, 1 << 32, 1 << 32), arg(2, op, 8, 8)],
            ),
            allow(&["lseek"], vec![arg(3, op, big, 5), arg(3, op, 6, 6)]),
        ];
        all.push((op, profile("SCMP_ACT_ERRNO", rules)));
    }
    all
}

/// A linear congruential generator: the same profiles on each run.
pub struct Random(pub u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn operator(&mut self) -> &'static str {
        const OPERATORS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
        OPERATORS[self.below(OPERATORS.len() as u64) as usize]
    }

    fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    /// A profile about some of `names`. `mixed`: with several actions, so that the order of rules matters.
    pub fn profile(&mut self, names: &[String], mixed: bool) -> LinuxSeccomp {
        const ACTIONS: [&str; 4] =
            ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRACE", "SCMP_ACT_ALLOW"];
        const DEFAULTS: [&str; 6] = [
            "SCMP_ACT_ERRNO",
            "SCMP_ACT_KILL",
            "SCMP_ACT_TRAP",
            "SCMP_ACT_ALLOW",
            "SCMP_ACT_LOG",
            "SCMP_ACT_TRACE",
        ];
        const VALUES: [u64; 9] = [0, 1, 2, 40, 0xffff_ffff, 1 << 32, 0x1_0000_0002, 0x7e02_0000, u64::MAX];
        let default = *self.of(&DEFAULTS);
        let action = if default == "SCMP_ACT_ALLOW" { "SCMP_ACT_ERRNO" } else { "SCMP_ACT_ALLOW" };
        let mut rules = Vec::new();
        for _ in 0..1 + self.below(4) {
            let names: Vec<_> = (0..self.below(60) + 1).map(|_| self.of(names).clone()).collect();
            rules.push(json!({"names": names, "action": action}));
        }
        // Few names, so that their rules meet.
        let few: Vec<_> = (0..3).map(|_| self.of(names).clone()).collect();
        for _ in 0..self.below(10) {
            let args: Vec<_> = (0..self.below(3) + 1)
                .map(|_| arg(self.below(6) as usize, self.operator(), *self.of(&VALUES), *self.of(&VALUES)))
                .collect();
            let action = if mixed { *self.of(&ACTIONS) } else { action };
            rules.push(json!({"names": [self.of(&few)], "action": action, "args": args}));
        }
        profile(default, rules)
    }
}
