//! The errors that want controllers of cgroup v2: each is told as it declares and leaves nothing. With ERRORS_ROWS the rows of
//! docs/errors.md are printed, with what runc and crun say.

use runtime_tests::errors::document::{cell, class, row};
use runtime_tests::errors::scene::meet;
use runtime_tests::errors::{of_machines, page, wrong};
use std::io::Write;
use std::path::Path;

#[test]
fn every_case_that_wants_controllers_is_told_with_its_field_and_cause_and_leaves_nothing() {
    let rcrun = std::env::var_os("RCRUN").expect("RCRUN is not set");
    let (mut all, mut faults) = (0, Vec::new());
    for case in of_machines() {
        let outcome = meet(&case, Path::new(&rcrun));
        all += 1;
        faults.extend(wrong(&case, &outcome));
        if std::env::var_os("ERRORS_ROWS").is_some() {
            let [runc, crun] =
                ["/usr/sbin/runc", "/usr/bin/crun"].map(|path| cell(&meet(&case, Path::new(path))));
            let line = row(&page::cell(case.name), [&class(&outcome), &cell(&outcome), &runc, &crun]);
            // Not print, which libtest keeps to itself when all is well; libtest's own line has no end yet.
            std::io::stdout().write_all(format!("\n{line}").as_bytes()).expect("stdout");
        }
    }
    assert!(faults.is_empty(), "{} of {all} cases:\n{}", faults.len(), faults.join("\n"));
}
