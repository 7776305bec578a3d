//! containerd or the shim killed while pods run.

use crate::node::messages::*;
use crate::node::{Driver, Node, until};
use crate::shim_harness::Living;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn a_pod_outlives_containerd_and_an_end_meanwhile_is_known_afterwards() {
    let mut node = Node::new(Driver::Default);
    let (pod, [stays, ends, pid], config) = {
        let pod = node.pod("outlives");
        let stays = pod.waits("stays");
        let ends = pod.waits("ends");
        let pid = node.pid(&ends).to_string();
        (pod.id.clone(), [stays, ends, pid], pod.config)
    };
    let shims = node.shims();
    node.kill();
    let pid: i32 = pid.parse().expect("a pid");
    let living = Living::of(pid);
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill");
    living.ends();
    node.start_again();
    assert_eq!(node.shims(), shims);
    assert_eq!(node.says(&stays, "echo there"), "there\n");
    assert_eq!(node.ended(&ends).exit_code, 137);
    let pod = node.again(&pod, config);
    assert_eq!(pod.status().state, 0);
    let third = pod.waits("third");
    assert_eq!(node.shims(), shims);
    node.remove(&third, 0);
    pod.remove();
    node.is_clean();
}

#[test]
fn a_pod_whose_shim_was_killed_is_seen_as_ended_and_removed() {
    let node = Node::new(Driver::Default);
    let pod = node.pod("lost");
    let id = pod.waits("stays");
    let living = Living::of(node.pid(&id));
    kill(Pid::from_raw(node.shims()[0]), Signal::SIGKILL).expect("kill");
    // containerd runs the shim's `delete`.
    living.ends();
    assert_ne!(node.ended(&id).exit_code, 0);
    until("the pod is not ready", || (pod.status().state == 1).then_some(()));
    let refusal = node.exec_words(&id, &["true"], 0).expect_err("a refusal");
    assert!(refusal.text.contains("CONTAINER_EXITED"), "{refusal:?}");
    pod.remove();
    node.is_clean();
    // The next one of the same name.
    let pod = node.pod("lost");
    pod.waits("stays");
    pod.remove();
    node.is_clean();
}

#[test]
fn a_pod_is_removed_when_containerd_and_the_shim_were_killed() {
    let mut node = Node::new(Driver::Default);
    let (id, config) = {
        let pod = node.pod("both");
        pod.waits("stays");
        (pod.id.clone(), pod.config)
    };
    let shim = node.shims()[0];
    node.kill();
    kill(Pid::from_raw(shim), Signal::SIGKILL).expect("kill");
    node.start_again();
    let pod = node.again(&id, config);
    let listed = node.call::<ListContainersResponse>("ListContainers", &Empty {}).containers;
    assert!(listed.iter().all(|c| c.state() != ContainerState::Running), "{listed:?}");
    pod.remove();
    node.is_clean();
}
