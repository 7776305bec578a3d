//! The device program, run by a small eBPF interpreter, against the rule list read as it is written.

use super::*;

/// What the programs use of eBPF. Panics on what the kernel's verifier would refuse.
fn run(program: &[u64], kind: u32, major: u32, minor: u32, access: u8) -> bool {
    let context = [kind | u32::from(access) << 16, major, minor];
    let mut registers: [Option<u32>; 11] = [None; 11];
    let mut at = 0;
    loop {
        let bytes = program[at].to_le_bytes();
        let (dst, src) = (usize::from(bytes[1] & 15), usize::from(bytes[1] >> 4));
        let off = i16::from_le_bytes([bytes[2], bytes[3]]);
        let imm = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        at += 1;
        let value = |register: usize| registers[register].expect("a register is read before it is written");
        let mut jump = false;
        match bytes[0] {
            LDXW => {
                assert_eq!(src, 1, "only the context can be read");
                registers[dst] = Some(context[usize::try_from(off).unwrap() / 4]);
            }
            MOV_REG => registers[dst] = Some(value(src)),
            MOV => registers[dst] = Some(imm),
            AND => registers[dst] = Some(value(dst) & imm),
            RSH => registers[dst] = Some(value(dst) >> imm),
            JEQ => jump = value(dst) == imm,
            JNE => jump = value(dst) != imm,
            JSET => jump = value(dst) & imm != 0,
            EXIT => match value(0) {
                0 => return false,
                1 => return true,
                other => panic!("a device program may not return {other}"),
            },
            other => panic!("instruction {other:#x}"),
        }
        if jump {
            assert!(off >= 0, "only forward jumps");
            at += usize::try_from(off).unwrap();
        }
    }
}

/// Every instruction can be reached: the verifier refuses a program with dead code.
fn assert_no_dead_code(program: &[u64]) {
    let mut reached = vec![false; program.len()];
    let mut todo = vec![0];
    while let Some(at) = todo.pop() {
        if std::mem::replace(&mut reached[at], true) {
            continue;
        }
        let bytes = program[at].to_le_bytes();
        if bytes[0] == EXIT {
            continue;
        }
        todo.push(at + 1);
        if matches!(bytes[0], JEQ | JNE | JSET) {
            todo.push(at + 1 + usize::try_from(i16::from_le_bytes([bytes[2], bytes[3]])).unwrap());
        }
    }
    assert!(reached.iter().all(|reached| *reached), "dead code: {reached:?}");
}

/// The definition: for each access the last rule that names device and access decides, else the answer is no.
fn by_definition(rules: &[Rule], kind: u32, major: u32, minor: u32, access: u8) -> bool {
    [MKNOD, READ, WRITE].into_iter().filter(|bit| access & bit != 0).all(|bit| {
        rules
            .iter()
            .rfind(|rule| {
                rule.access & bit != 0
                    && rule.kind.is_none_or(|its| its as u32 == kind)
                    && rule.major.is_none_or(|its| its == major)
                    && rule.minor.is_none_or(|its| its == minor)
            })
            .is_some_and(|rule| rule.allow)
    })
}

fn policy(json: &str) -> Policy {
    Policy::new(&serde_json::from_str::<Vec<LinuxDeviceCgroup>>(json).unwrap(), &[]).unwrap()
}

fn allows(policy: &Policy, kind: u32, major: u32, minor: u32, access: u8) -> bool {
    match policy.program() {
        None => true,
        Some(program) => {
            assert_no_dead_code(&program);
            run(&program, kind, major, minor, access)
        }
    }
}

const B: u32 = Kind::Block as u32;
const C: u32 = Kind::Char as u32;
const DENY_ALL: &str = r#"{"allow":false,"access":"rwm"}"#;

#[test]
fn rules_answer_as_v1_would() {
    const RW: u8 = READ | WRITE;
    for (rules, requests) in [
        // No list at all: the default devices, and nothing else.
        (
            String::new(),
            &[
                (C, 1, 3, ALL, true),
                (C, 1, 5, RW, true),
                (C, 1, 7, RW, true),
                (C, 1, 8, RW, true),
                (C, 1, 9, RW, true),
                (C, 5, 0, RW, true),
                (C, 5, 2, RW, true),
                (C, 136, 17, RW, true),
                (C, 1, 11, READ, false),
                (C, 5, 1, READ, false),
                (C, 10, 200, RW, false),
                (B, 8, 0, READ, false),
                (B, 1, 3, READ, false),
                (B, 8, 0, MKNOD, true),
                (C, 1, 11, MKNOD, true),
                (C, 1, 11, MKNOD | READ, false),
                (C, 1, 11, 0, true),
            ][..],
        ),
        (DENY_ALL.into(), &[(C, 1, 3, RW, true), (C, 1, 11, READ, false), (B, 8, 0, WRITE, false)]),
        // A device with some accesses.
        (
            format!(r#"{DENY_ALL},{{"allow":true,"type":"c","major":10,"minor":200,"access":"r"}}"#),
            &[(C, 10, 200, READ, true), (C, 10, 200, WRITE, false), (C, 10, 200, RW, false), (B, 10, 200, READ, false)],
        ),
        // Accesses of one device in two rules add up.
        (
            r#"{"allow":true,"type":"c","major":10,"minor":200,"access":"r"},{"allow":true,"type":"u","major":10,"minor":200,"access":"w"}"#.into(),
            &[(C, 10, 200, RW, true)],
        ),
        // -1 and absent are any; a deny of everything in between forgets what came before.
        (
            format!(r#"{{"allow":true,"type":"b","major":8,"access":"rw"}},{DENY_ALL},{{"allow":true,"type":"b","major":9,"minor":-1,"access":"rw"}}"#),
            &[(B, 8, 0, READ, false), (B, 9, 4, RW, true), (B, 9, 5, ALL, true), (C, 9, 4, READ, false)],
        ),
        // Everything but.
        (
            r#"{"allow":true,"type":"a","access":"rwm"},{"allow":false,"type":"b","major":8,"minor":0,"access":"w"}"#.into(),
            &[(B, 8, 0, READ, true), (B, 8, 0, RW, false), (B, 8, 0, WRITE, false), (B, 8, 1, RW, true), (C, 10, 200, RW, true)],
        ),
        // A hole in an allowed range (v1 and runc: an error), and a range that covers an allowed device (no effect).
        (
            r#"{"allow":true,"type":"c","major":10,"access":"rw"},{"allow":false,"type":"c","major":10,"minor":200,"access":"rw"}"#.into(),
            &[(C, 10, 200, READ, false), (C, 10, 201, READ, true)],
        ),
        (
            r#"{"allow":true,"type":"c","major":10,"minor":200,"access":"rw"},{"allow":false,"type":"c","major":10,"access":"rw"}"#.into(),
            &[(C, 10, 200, READ, false)],
        ),
        // The default devices come after the list: they cannot be denied, as with runc.
        (
            r#"{"allow":false,"type":"c","major":1,"minor":3,"access":"rwm"}"#.into(),
            &[(C, 1, 3, RW, true)],
        ),
    ] {
        let policy = policy(&format!("[{rules}]"));
        for &(kind, major, minor, access, expected) in requests {
            assert_eq!(allows(&policy, kind, major, minor, access), expected, "[{rules}]: {kind} {major}:{minor} {access}");
        }
    }
}

#[test]
fn a_policy_that_allows_everything_needs_no_program() {
    for rules in [
        r#"[{"allow":true,"access":"rwm"}]"#,
        r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"a","major":-1,"minor":-1,"access":"mwr"}]"#,
        r#"[{"allow":true,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]"#,
    ] {
        let policy = policy(rules);
        assert!(policy.allows_everything() && policy.program().is_none(), "{rules}");
    }
    assert!(!policy(r#"[{"allow":true,"access":"rw"}]"#).allows_everything());
}

#[test]
fn a_node_of_the_configs_own_takes_the_default_device_s_place() {
    let device: LinuxDevice =
        serde_json::from_str(r#"{"path":"/dev/null","type":"c","major":10,"minor":1}"#).unwrap();
    let policy = Policy::new(&[], &[device]).unwrap();
    assert!(!allows(&policy, C, 1, 3, READ));
    assert!(allows(&policy, C, 1, 5, READ));
}

#[test]
fn a_wrong_rule_is_refused_where_it_stands() {
    for (rule, field, reason) in [
        (r#"{"allow":true,"type":"c"}"#, "access", "cannot be empty"),
        (r#"{"allow":true,"type":"c","access":""}"#, "access", "cannot be empty"),
        (r#"{"allow":true,"type":"c","access":"rx"}"#, "access", "other than r, w and m"),
        (r#"{"allow":true,"type":"p","access":"r"}"#, "type", "FIFO"),
        (r#"{"allow":true,"type":"c","major":-2,"access":"r"}"#, "major", "no device number"),
        (r#"{"allow":true,"type":"c","minor":4294967296,"access":"r"}"#, "minor", "no device number"),
    ] {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(&format!("[{DENY_ALL},{rule}]")).unwrap();
        let error = Policy::new(&rules, &[]).unwrap_err();
        assert_eq!(error.pointer(), Some(format!("/linux/resources/devices/1/{field}").as_str()));
        assert!(error.to_string().contains(reason), "{error}");
    }
    let rule: LinuxDeviceCgroup = serde_json::from_str(DENY_ALL).unwrap();
    let many = vec![rule; RULES_MAX];
    assert_eq!(Policy::new(&many, &[]).unwrap_err().pointer(), Some("/linux/resources/devices"));
}

#[test]
fn docker_s_default_list_is_a_short_program() {
    let docker = r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":5,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":9,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":8,"access":"rwm"},{"allow":true,"type":"c","major":5,"minor":0,"access":"rwm"},{"allow":true,"type":"c","major":5,"minor":1,"access":"rwm"},{"allow":false,"type":"c","major":10,"minor":229,"access":"rwm"}]"#;
    let policy = policy(docker);
    assert!(allows(&policy, C, 5, 1, READ | WRITE));
    assert!(!allows(&policy, C, 10, 229, READ));
    let length = policy.program().unwrap().len();
    assert!(length <= 30, "{length} instructions");
}

/// xorshift64*: the same lists on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    fn rule(&mut self) -> Rule {
        let number = |random: &mut Random| (random.below(3) != 0).then(|| random.below(4) as u32);
        Rule {
            allow: self.below(2) == 0,
            kind: [None, Some(Kind::Block), Some(Kind::Char)][self.below(3) as usize],
            major: number(self),
            minor: number(self),
            access: if self.below(2) == 0 { ALL } else { self.below(7) as u8 + 1 },
        }
    }
}

#[test]
fn random_lists_mean_what_the_definition_says() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut allowed, mut denied) = (0, 0);
    for _ in 0..4000 {
        let list: Vec<Rule> = (0..random.below(13)).map(|_| random.rule()).collect();
        let policy = reduce(&list);
        let program = policy.program();
        if let Some(program) = &program {
            assert_no_dead_code(program);
        }
        for kind in [B, C] {
            for (major, minor) in (0..5).flat_map(|major| (0..5).map(move |minor| (major, minor))) {
                for access in 0..8 {
                    let expected = by_definition(&list, kind, major, minor, access);
                    let got = program.as_ref().is_none_or(|program| run(program, kind, major, minor, access));
                    assert_eq!(got, expected, "{list:?}: {kind} {major}:{minor} {access}");
                    if expected { allowed += 1 } else { denied += 1 }
                }
            }
        }
    }
    assert!(allowed > 100_000 && denied > 100_000, "{allowed} allowed, {denied} denied");
}

#[test]
fn the_longest_list_stays_within_a_jump_s_reach() {
    let list: Vec<Rule> = (0..RULES_MAX as u32)
        .map(|index| Rule {
            allow: true,
            kind: Some(Kind::Char),
            major: Some(index),
            minor: Some(7),
            access: READ,
        })
        .collect();
    let program = reduce(&list).program().unwrap();
    assert!(program.len() < i16::MAX as usize, "{}", program.len());
    assert!(run(&program, C, RULES_MAX as u32 - 1, 7, READ));
    assert!(!run(&program, C, RULES_MAX as u32 - 1, 8, READ));
}
