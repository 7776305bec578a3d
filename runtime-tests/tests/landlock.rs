//! The annotation org.rcrun.landlock: what the kernel's Landlock keeps from a container's processes, and from those that
//! exec adds.

use runtime_tests::bundle::Bundle;
use runtime_tests::inside::shell;
use runtime_tests::runtime::{Runtime, Said};
use serde_json::{Value, json};

fn restricted(name: &str, script: &str, rules: &Value) -> Bundle {
    shell(name, script, |c| {
        c["annotations"] = json!({ "org.rcrun.landlock": rules.to_string() });
        c["root"]["readonly"] = json!(false);
    })
}

fn run(name: &str, script: &str, rules: &Value) -> Said {
    Runtime::new().run(&restricted(name, script, rules), name)
}

/// Lets busybox run, and the shell look around in /proc.
fn files(more: Value) -> Value {
    let mut rules = json!({ "execute": ["/bin"], "read": ["/proc"], "write": ["/dev/null"] });
    for (name, list) in more.as_object().expect("an object") {
        let known = rules[name].as_array().cloned().unwrap_or_default();
        rules[name] = known.into_iter().chain(list.as_array().expect("a list").iter().cloned()).collect();
    }
    rules
}

/// Tries each thing, and tells which work.
const TRY: &str = "t() { n=$1; shift; \"$@\" 2>/dev/null >/dev/null && echo $n; };
    t read cat /etc/passwd; t list ls /etc; t write sh -c 'echo x >/tmp/new'; t make mkdir /tmp/folder;
    t change sh -c 'echo x >>/etc/passwd'; t remove rm /etc/passwd; t link ln -s x /tmp/link; true";

#[test]
fn files_can_be_read_executed_and_written_where_the_annotation_says() {
    for (rules, expected) in [
        (json!({}), "read list write make change remove link"),
        (files(json!({})), ""),
        (files(json!({ "read": ["/etc"] })), "read list"),
        (files(json!({ "read": ["/etc/passwd"] })), "read"),
        (files(json!({ "write": ["/tmp"] })), "write make link"),
        (files(json!({ "write": ["/"] })), "read list write make change remove link"),
        (files(json!({ "write": ["/etc/passwd"] })), "read change"),
        // Ports alone keep nobody from files.
        (json!({ "bindTcp": [], "connectTcp": [] }), "read list write make change remove link"),
    ] {
        let said = run("llfiles", TRY, &rules);
        let seen = said.out.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!((seen.as_str(), said.err.as_str()), (expected, ""), "{rules}");
    }
}

#[test]
fn what_may_not_be_executed_is_not_even_at_the_start() {
    let said = run("llexec", "true", &json!({ "read": ["/"] }));
    assert_eq!(said.status, 1);
    assert!(said.err.contains("permission denied"), "{}", said.err);
}

#[test]
fn tcp_ports_can_be_bound_and_connected_to_where_the_annotation_says() {
    // A port that may be bound is refused by nobody but the kernel's own rules; one that may not gives EACCES.
    let script = "t() { n=$1; shift; \"$@\" 2>&1 | grep -q 'Permission denied' || echo $n; };
        ip link set lo up 2>/dev/null;
        t bind80 nc -l -p 8080 -w 1; t bind81 nc -l -p 8081 -w 1; t to80 nc -w 1 127.0.0.1 8080; t to81 nc -w 1 127.0.0.1 8081; true";
    for (rules, expected) in [
        (json!({}), "bind80 bind81 to80 to81"),
        (json!({ "bindTcp": [8080], "connectTcp": [8081] }), "bind80 to81"),
        (json!({ "bindTcp": [] }), "to80 to81"),
        (json!({ "connectTcp": [8080] }), "bind80 bind81 to80"),
    ] {
        let said = run("llports", script, &rules);
        assert_eq!(
            said.out.split_whitespace().collect::<Vec<_>>().join(" "),
            expected,
            "{rules}: {}",
            said.err
        );
    }
}

#[test]
fn an_exec_is_restricted_as_the_container_and_cannot_signal_out_of_its_scope() {
    let runtime = Runtime::new();
    let mut rules = files(json!({ "read": ["/etc"] }));
    rules["scope"] = json!(["signal"]);
    let bundle = restricted("llinside", "echo up; exec sleep 1000", &rules);
    let mut lines = runtime.detached(&bundle, "llinside");
    assert_eq!(lines.line(), "up");
    let said = runtime.ok(["exec", "llinside", "sh", "-c", TRY]);
    assert_eq!(said.out.split_whitespace().collect::<Vec<_>>(), ["read", "list"]);
    // The first process is in another domain than what exec adds.
    let said = runtime.say(["exec", "llinside", "sh", "-c", "kill -0 1"]);
    assert!(said.status != 0 && said.err.contains("Operation not permitted"), "{}", said.err);
    runtime.ok(["delete", "--force", "llinside"]);
}

#[test]
fn a_path_that_is_not_there_is_told_by_name() {
    let said = run("llpath", "true", &files(json!({ "read": ["/nowhere"] })));
    assert_eq!(said.status, 1);
    assert!(
        said.err.contains("/annotations/org.rcrun.landlock") && said.err.contains("/nowhere"),
        "{}",
        said.err
    );
}

#[test]
fn without_no_new_privileges_and_for_an_ordinary_user_it_holds_too() {
    for (no_new_privileges, uid) in [(true, 33), (false, 0), (false, 33)] {
        let bundle = restricted(
            "lluser",
            "cat /etc/passwd >/dev/null && echo read; echo x 2>/dev/null >/tmp/x || echo kept",
            &files(json!({ "read": ["/etc"] })),
        )
        .with(|c| {
            c["process"]["noNewPrivileges"] = json!(no_new_privileges);
            c["process"]["user"] = json!({ "uid": uid, "gid": uid });
        });
        let said = Runtime::new().run(&bundle, "lluser");
        assert_eq!(
            (said.out.as_str(), said.status),
            ("read\nkept\n", 0),
            "{no_new_privileges} {uid}: {}",
            said.err
        );
    }
}
