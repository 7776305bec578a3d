//! A container's life from outside: what each verb says and leaves.

use runtime_tests::bundle::Bundle;
use runtime_tests::runtime::Runtime;

#[test]
fn run_prints_what_the_payload_prints_and_exits_as_it_does() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("run", &["sh", "-c", "echo hello from $$; exit 7"]);
    let said = runtime.run(&bundle, "run");
    assert_eq!((said.status, said.out.as_str()), (7, "hello from 1\n"), "{}", said.err);
    assert_eq!(runtime.ok(["list", "-q"]).out, "");
}
