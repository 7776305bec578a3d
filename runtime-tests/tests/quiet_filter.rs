//! A seccomp filter that forbids what init would say to its parent.

use runtime_tests::bundle::Bundle;
use runtime_tests::runtime::Runtime;
use serde_json::json;

fn forbids_to_send(name: &str, args: &[&str]) -> Bundle {
    Bundle::new(name, args).with(|config| {
        let rule = json!({ "names": ["sendto", "sendmsg"], "action": "SCMP_ACT_ERRNO" });
        config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] });
    })
}

#[test]
fn run_gives_the_payloads_exit_status_although_init_may_not_send() {
    let runtime = Runtime::new();
    let bundle = forbids_to_send("quiet-run", &["sh", "-c", "echo heard; exit 7"]);
    let said = runtime.run(&bundle, "quiet-run");
    assert_eq!((said.status, said.out.as_str(), said.err.as_str()), (7, "heard\n", ""));
}

#[test]
fn start_succeeds_although_init_may_not_send() {
    let runtime = Runtime::new();
    let bundle = forbids_to_send("quiet-start", &["sleep", "1000"]);
    let created = runtime.create(&bundle, "quiet-start");
    assert_eq!(created.status, 0, "{}", created.err);
    runtime.ok(["start", "quiet-start"]);
    assert_eq!(runtime.status("quiet-start"), "running");
    runtime.ok(["delete", "--force", "quiet-start"]);
}
