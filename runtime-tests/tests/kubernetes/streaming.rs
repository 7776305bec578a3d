//! What `kubectl exec`, `attach` and `port-forward` come to: streams that containerd serves.

use crate::node::messages::*;
use crate::node::streams::{STDERR, STDIN, STDOUT, Stream};
use crate::node::{Driver, Node};

fn exec(node: &Node, id: &str, tty: bool, words: &[&str]) -> Stream {
    let request = ExecRequest {
        container_id: id.into(),
        cmd: words.iter().map(ToString::to_string).collect(),
        tty,
        stdin: true,
        stdout: true,
        stderr: !tty,
    };
    Stream::open(&node.call::<Url>("Exec", &request).url)
}

#[test]
fn a_shell_in_a_container_is_typed_to_and_gives_back_its_code() {
    let node = Node::new(Driver::Default);
    let pod = node.pod("shell");
    let id = pod.waits("stays");
    let mut plain = exec(&node, &id, false, &["sh"]);
    plain.write(STDIN, b"echo out; echo err >&2\n");
    assert_eq!(plain.until(STDOUT, "\n"), "out\n");
    assert_eq!(plain.until(STDERR, "\n"), "err\n");
    plain.write(STDIN, b"exit 7\n");
    assert_eq!(plain.exit_code(), 7);

    let mut terminal = exec(&node, &id, true, &["sh"]);
    terminal.resize(90, 30);
    terminal.until(STDOUT, "# ");
    // The size comes when it comes: its signal ends the loop.
    terminal.write(STDIN, b"until test \"$(stty size)\" = '30 90'; do :; done; tty; stty size\n");
    terminal.until(STDOUT, "/dev/pts/0\r\n30 90\r\n");
    terminal.resize(120, 40);
    terminal.write(STDIN, b"until test \"$(stty size)\" = '40 120'; do :; done; echo re\"sized\"\n");
    terminal.until(STDOUT, "resized\r\n");
    terminal.write(STDIN, b"exit 4\n");
    assert_eq!(terminal.exit_code(), 4);

    let mut short = exec(&node, &id, false, &["echo", "short"]);
    assert_eq!((short.rest(STDOUT).as_str(), short.exit_code()), ("short\n", 0));
    pod.remove();
    node.is_clean();
}

#[test]
fn who_attaches_reads_and_writes_what_the_container_does_and_goes_without_ending_it() {
    let node = Node::new(Driver::Default);
    let pod = node.pod("attach");
    let mut config = pod.config("echoes", &["sh", "-c", "while read line; do echo got $line; done; exit 6"]);
    config.stdin = true;
    let id = pod.start(config);
    let attach = || {
        let request =
            AttachRequest { container_id: id.clone(), stdin: true, tty: false, stdout: true, stderr: true };
        Stream::open(&node.call::<Url>("Attach", &request).url)
    };
    // containerd may read what is written before it writes what is read.
    let talk = |stream: &mut Stream, word: &str| {
        crate::node::until("an answer", || {
            stream.write(STDIN, format!("{word}\n").as_bytes());
            stream.hears(STDOUT, &format!("got {word}\n")).then_some(())
        });
    };
    let mut first = attach();
    talk(&mut first, "one");
    // Two at once read the same.
    let mut second = attach();
    talk(&mut second, "two");
    first.until(STDOUT, "got two\n");
    first.leave();
    second.leave();
    assert_eq!(node.status(&id).state(), ContainerState::Running);
    let mut third = attach();
    talk(&mut third, "three");
    for word in ["one", "two", "three"] {
        node.logged(&pod, "echoes", &format!(" stdout F got {word}\n"));
    }
    node.remove(&id, 0);
    assert_eq!(third.rest(STDERR), "");
    pod.remove();
    node.is_clean();
}

#[test]
fn a_port_of_a_pod_is_forwarded_into_its_network() {
    let node = Node::new(Driver::Default);
    let pod = node.pod("ports");
    // Of the pod's own loopback: from the node nobody reaches it.
    pod.runs("web", &["busybox", "httpd", "-f", "-p", "127.0.0.1:8080", "-h", "/www"]);
    let beside = pod.waits("beside");
    node.hears_httpd(&beside);
    let request = PortForwardRequest { pod_sandbox_id: pod.id.clone(), port: vec![8080] };
    let url = node.call::<Url>("PortForward", &request).url;
    let mut stream = Stream::open(&format!("{url}?port=8080"));
    stream.write(STDIN, b"GET / HTTP/1.0\r\n\r\n");
    let answer = stream.rest_of(STDIN);
    // The channel begins with the port's number.
    let (port, answer) = answer.split_at_checked(2).expect("a port");
    assert_eq!(port, 8080_u16.to_le_bytes());
    let answer = String::from_utf8_lossy(answer);
    assert!(answer.ends_with("hello from a pod\n"), "{answer}");
    pod.remove();
    node.is_clean();
}
