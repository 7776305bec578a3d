//! Clients that ask in the wrong order, twice or all at once.

use crate::harness::{Io, Place, Refusal, Shim};
use containerd_shim_protos::api::Status;
use containerd_shim_protos::ttrpc::Code;
use runtime_tests::bundle::Bundle;
use std::thread;

/// What was answered: done, or the class of the refusal.
fn class<T>(answered: Result<T, Refusal>) -> Code {
    answered.err().map_or(Code::OK, |(code, _)| code)
}

#[test]
fn what_is_asked_in_the_wrong_order_is_refused_in_containerds_classes_and_changes_nothing() {
    let place = Place::new("shim-order");
    let bundle = Bundle::new("shim-order", &["sleep", "1000"]);
    let shim = place.created(&bundle, "order", &Io::none());
    let id = "order";
    let check = |state: &str, answers: &[(&str, Code, Code)]| {
        for (what, answered, expected) in answers {
            assert_eq!(answered, expected, "{state}: {what}");
        }
    };
    check(
        "created",
        &[
            ("resume", class(shim.resume(id)), Code::FAILED_PRECONDITION),
            ("resize without a terminal", class(shim.resize(id, "", 1, 1)), Code::OK),
            ("close stdin", class(shim.close_stdin(id, "")), Code::OK),
            ("close stdin again", class(shim.close_stdin(id, "")), Code::OK),
            ("statistics", class(shim.stats(id)), Code::OK),
        ],
    );
    assert_eq!(shim.status(id, ""), Status::CREATED);
    shim.start(id, "").expect("start");
    shim.pause(id).expect("pause");
    shim.exec(id, "frozen", &Io::none(), "true").expect("exec");
    check(
        "paused",
        &[
            ("pause", class(shim.pause(id)), Code::FAILED_PRECONDITION),
            ("start", class(shim.start(id, "")), Code::FAILED_PRECONDITION),
            ("start of an exec", class(shim.start(id, "frozen")), Code::FAILED_PRECONDITION),
            ("delete", class(shim.delete(id, "")), Code::FAILED_PRECONDITION),
            ("delete of an exec", class(shim.delete(id, "frozen")), Code::OK),
            ("delete of it again", class(shim.delete(id, "frozen")), Code::NOT_FOUND),
        ],
    );
    assert_eq!(shim.status(id, ""), Status::PAUSED);
    shim.resume(id).expect("resume");
    let nothing = serde_json::json!({"args": [], "cwd": "/"});
    check(
        "running",
        &[
            ("resume", class(shim.resume(id)), Code::FAILED_PRECONDITION),
            ("resize of nobody", class(shim.resize(id, "nobody", 1, 1)), Code::NOT_FOUND),
            ("an exec of nothing", class(shim.exec_of(id, "e", nothing)), Code::INVALID_ARGUMENT),
            ("an exec named ../e", class(shim.exec(id, "../e", &Io::none(), "true")), Code::INVALID_ARGUMENT),
            // containerd would take its end for the container's.
            ("an exec named as it", class(shim.exec(id, id, &Io::none(), "true")), Code::ALREADY_EXISTS),
            ("resources of nonsense", class(shim.update(id, "nonsense")), Code::INVALID_ARGUMENT),
            ("signal -1", class(shim.kill(id, "", -1, false)), Code::INVALID_ARGUMENT),
        ],
    );
    assert_eq!(shim.status(id, ""), Status::RUNNING);
    // A paused container ends all the same.
    shim.pause(id).expect("pause");
    shim.kill(id, "", libc::SIGKILL, false).expect("kill");
    assert_eq!(shim.wait(id, ""), Ok(137));
    check(
        "stopped",
        &[
            ("start", class(shim.start(id, "")), Code::FAILED_PRECONDITION),
            ("pause", class(shim.pause(id)), Code::FAILED_PRECONDITION),
            ("resume", class(shim.resume(id)), Code::FAILED_PRECONDITION),
            ("exec", class(shim.exec(id, "late", &Io::none(), "true")), Code::FAILED_PRECONDITION),
            ("update", class(shim.update(id, "{}")), Code::FAILED_PRECONDITION),
            ("kill", class(shim.kill(id, "", libc::SIGKILL, false)), Code::NOT_FOUND),
            ("close stdin", class(shim.close_stdin(id, "")), Code::OK),
            ("delete", class(shim.delete(id, "")), Code::OK),
            ("delete again", class(shim.delete(id, "")), Code::NOT_FOUND),
            ("kill of what is deleted", class(shim.kill(id, "", libc::SIGKILL, false)), Code::NOT_FOUND),
            ("wait for what is deleted", class(shim.wait(id, "")), Code::NOT_FOUND),
        ],
    );
    // The name is free.
    shim.create(&bundle, id, &Io::none()).expect("create");
    shim.clear(id);
}

#[test]
fn an_exec_that_is_started_and_deleted_at_once_is_one_or_the_other() {
    let place = Place::new("shim-rush");
    let bundle = Bundle::new("shim-rush", &["sleep", "1000"]);
    let shim = place.created(&bundle, "rush", &Io::none());
    shim.start("rush", "").expect("start");
    let (one, other) = (Shim::at(&shim.address), Shim::at(&shim.address));
    for round in 0..40 {
        let name = format!("e{round}");
        shim.exec("rush", &name, &Io::none(), "exit 6").expect("exec");
        let (started, deleted) = thread::scope(|scope| {
            let started = scope.spawn(|| one.start("rush", &name));
            let deleted = scope.spawn(|| other.delete("rush", &name));
            (started.join().expect("start"), deleted.join().expect("delete"))
        });
        match (started, deleted) {
            (Err((code, _)), Ok(_)) => assert_eq!(code, Code::NOT_FOUND),
            (Ok(_), Ok(deleted)) => assert_eq!(deleted.exit_status, 6),
            (Ok(_), Err((code, text))) => {
                assert_eq!(code, Code::FAILED_PRECONDITION, "{text}");
                assert_eq!(shim.wait("rush", &name), Ok(6));
                shim.delete("rush", &name).expect("delete");
            }
            (started, deleted) => panic!("{started:?} {deleted:?}"),
        }
    }
    assert_eq!(shim.pids("rush").expect("pids").len(), 1);
    shim.clear("rush");
}
