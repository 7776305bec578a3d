//! What a caller writes, and what it comes to when it is read wrongly: users, lengths, bytes that end a string.

use crate::victim::{Loot, holds, holds_where_crun_falls, holds_where_runc_falls, id, is_crun, is_runc};
use runtime_tests::bundle::Bundle;
use runtime_tests::inside::{give, user_namespace};
use runtime_tests::runtime::Runtime;
use serde_json::{Value, json};

#[test]
fn cve_2026_30892_no_way_to_write_a_user_means_root() {
    const FORMS: [(&str, &str); 24] = [
        ("1", "1"),
        ("33", "33"),
        ("1:1", "1"),
        ("33:33", "33"),
        ("01", "1"),
        ("1:", "1"),
        ("+1", "1"),
        (" 1", "1"),
        ("1 ", "1"),
        ("1:0", "1"),
        ("4294967294", "4294967294"),
        ("4294967295", ""),
        ("4294967296", ""),
        ("4294967297", ""),
        ("18446744073709551616", ""),
        ("-1", ""),
        ("-4294967296", ""),
        ("1x", ""),
        ("x1", ""),
        ("0x1", ""),
        ("1.0", ""),
        ("web", "33"),
        ("nobody", ""),
        (":1", ""),
    ];
    // 4294967296 is root with runc.
    holds_where_runc_falls(|runtime: &Runtime| {
        let id = id("30892");
        let bundle = Bundle::new("cve-user", &["sleep", "1000"]);
        runtime.create(&bundle, &id);
        runtime.ok(["start", &id]);
        let found = FORMS.iter().find_map(|(user, uid)| {
            let option = format!("--user={user}");
            let said = runtime.say(["exec", &option, &id, "id", "-u"]);
            let other = said.status == 0 && said.out.trim() != *uid;
            other.then(|| format!("{user:?} is {}", said.out.trim()))
        });
        runtime.ok(["delete", "--force", &id]);
        found
    });
}

/// runc hands its init records whose length has 16 bits: what is longer was read as records of the attacker's.
#[test]
fn cve_2021_43784_a_string_of_any_length_changes_nothing_but_itself() {
    holds(|runtime: &Runtime| {
        let ids = "cat /proc/self/uid_map; id -u; exit 0";
        // A record of netlink that maps everything, behind 65536 bytes and some.
        let record = "\u{10}\u{1}0 0 4294967295\n";
        [65_535, 65_536, 65_540, 131_072 + 24].iter().find_map(|length| {
            let long = format!("{}{record}", "x".repeat(*length));
            let fields: [fn(&mut Value, &str); 4] = [
                |c, long| {
                    let mounts = c["mounts"].as_array_mut().expect("mounts");
                    mounts.push(json!({"destination": "/tmp", "type": "bind", "source": format!("/{long}"), "options": ["bind"]}));
                },
                |c, long| {
                    let mounts = c["mounts"].as_array_mut().expect("mounts");
                    mounts.push(json!({"destination": "/tmp", "type": "tmpfs", "source": long}));
                },
                |c, long| c["linux"]["rootlessEUID"] = json!(long),
                |c, long| c["process"]["env"].as_array_mut().expect("env").push(json!(format!("LONG={long}"))),
            ];
            fields.iter().find_map(|change| {
                let bundle = Bundle::new("cve-long", &["sh", "-c", ids]).with(|config| {
                    user_namespace(config);
                    change(config, &long);
                });
                give(&bundle.root());
                let said = runtime.run(&bundle, &id("43784"));
                let line = said.out.split_whitespace().collect::<Vec<_>>();
                let other = said.status == 0 && line != ["0", "100000", "65536", "0"];
                other.then(|| format!("{length}: {}", said.out))
            })
        })
    });
}

fn strings(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::String(_) => found.push(at.to_string()),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, v)| strings(v, &format!("{at}/{i}"), found))
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(name, v)| strings(v, &format!("{at}/{name}"), found))
        }
        _ => {}
    }
}

#[test]
fn cve_2021_43784_a_nul_in_any_string_of_a_config_is_refused() {
    holds(|runtime: &Runtime| {
        let plain = Bundle::new("cve-nul", &["true"]).with(|config| {
            config["annotations"] = json!({"a": "b"});
            config["linux"]["sysctl"] = json!({"net.ipv4.ip_default_ttl": "77"});
            config["linux"]["cgroupsPath"] = json!(format!("/{}", id("nul-cgroup")));
            config["linux"]["rootfsPropagation"] = json!("private");
            config["hooks"] =
                json!({"createRuntime": [{"path": "/bin/true", "args": ["true"], "env": ["A=b"]}]});
        });
        let mut places = Vec::new();
        strings(&plain.config, "", &mut places);
        assert!(places.len() > 50, "{places:?}");
        // runc shows here that the sample runs at all; a few places are enough.
        let step = if is_runc(runtime) { 16 } else { 1 };
        let said = runtime.run(&plain, &id("nul"));
        assert!(is_runc(runtime) || said.status == 0, "{}", said.err);
        places.iter().step_by(step).find_map(|place| -> Loot {
            let mut config = plain.config.clone();
            let field = config.pointer_mut(place).expect("a string");
            *field = json!(format!("{}\0x", field.as_str().expect("a string")));
            let bundle = Bundle::new("cve-nul", &["true"]).with(|c| *c = config);
            let said = runtime.run(&bundle, &id("nul"));
            (said.status == 0).then(|| format!("{place} was taken"))
        })
    });
}

#[test]
fn cve_2024_25621_the_state_of_containers_is_closed_to_others() {
    holds(|runtime: &Runtime| {
        let id = id("25621");
        // As root has it where nobody has narrowed it.
        let bundle = Bundle::new("cve-state", &["sleep", "1000"]);
        let root = runtime.root().join("new");
        let say = |words: &[&str]| {
            let mut command = std::process::Command::new(runtime.binary());
            command.arg("--root").arg(&root).args(words).stdin(std::process::Stdio::null());
            runtime.without_pipes(&mut command)
        };
        let said = say(&["create", "--bundle", bundle.path().to_str().expect("UTF-8"), &id]);
        if is_runc(runtime) && said.status != 0 {
            return None;
        }
        assert_eq!(said.status, 0, "{}", said.err);
        let open: Vec<_> = runtime_tests::machine::tree(&root, &[])
            .into_iter()
            .filter(|(_, words)| {
                let mode = words.split(' ').nth(1).expect("a mode");
                let mode = u32::from_str_radix(mode, 8).expect("an octal mode");
                // Whoever may not search the top reaches nothing below; a folder that is searched only tells no names.
                mode & 0o066 != 0
            })
            .map(|(path, _)| path)
            .collect();
        let top = std::fs::metadata(&root).expect("the state root");
        let closed = std::os::unix::fs::PermissionsExt::mode(&top.permissions()) & 0o077 == 0;
        assert!(say(&["delete", "--force", &id]).status == 0 || is_runc(runtime));
        (!closed && !open.is_empty()).then(|| format!("others may read or write {open:?}"))
    });
}

/// Whoever may name a container names one below another state root. Mended in crun 1.28, without a number; other ids that
/// are none, and paths of cgroups, are in bad_input.rs and cgroups.rs.
#[test]
fn cve_crun_1_28_no_id_leads_out_of_the_state_root() {
    holds_where_crun_falls(|runtime: &Runtime| {
        let other = Runtime::of(runtime.binary().to_path_buf());
        let bundle = Bundle::new("cve-id", &["true"]);
        // crun wants more of this machine than it has, which has nothing to do with ids.
        let global: &[&str] = if is_crun(runtime) { &["--cgroup-manager=disabled"] } else { &[] };
        let create = ["create", "--no-new-keyring", "--bundle", bundle.path().to_str().expect("UTF-8")];
        let say = |by: &Runtime, words: &[&str], id: &str| {
            by.without_pipes(&mut by.command(global.iter().chain(words).chain([&id])))
        };
        let (id, new) = (id("other"), id("new"));
        let made = say(&other, &create, &id);
        assert_eq!(made.status, 0, "{}", made.err);
        let root = other.root().file_name().expect("a folder").display();
        let beside = |id: &str| format!("../{root}/{id}");
        let found: Vec<&str> = [
            (say(runtime, &["state"], &beside(&id)).status == 0, "it is told of"),
            (say(runtime, &create, &beside(&new)).status == 0, "one was made"),
            (other.root().join(&new).exists(), "the other root has a new folder"),
            (say(runtime, &["kill"], &beside(&id)).status == 0, "it was killed"),
            (say(runtime, &["delete", "--force"], &beside(&id)).status == 0, "it is deleted"),
            (!other.root().join(&id).exists(), "the other root lacks its folder"),
        ]
        .into_iter()
        .filter_map(|(done, words)| done.then_some(words))
        .collect();
        for id in [&id, &new] {
            say(&other, &["delete", "--force"], id);
        }
        (!found.is_empty()).then(|| found.join(", "))
    });
}
