//! Inputs that once broke a target (`found/TARGET/`), tried again, with a few that have always been tried.
//! Uses: rcrun_fuzz.

use std::path::Path;

use rcrun_fuzz::TARGETS;

#[test]
fn what_once_broke_a_target_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("found");
    let mut tried = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let target = TARGETS.iter().find(|target| target.name == name);
        let target = target.unwrap_or_else(|| panic!("found/{name} is of no target"));
        for input in std::fs::read_dir(entry.path()).unwrap() {
            let input = input.unwrap().path();
            println!("{}", input.display());
            target.hold(&std::fs::read(&input).unwrap());
            tried += 1;
        }
    }
    assert!(tried > 0, "nothing is in {}", folder.display());
}

#[test]
fn each_target_takes_what_is_broken_empty_or_large() {
    for target in TARGETS {
        for input in [&b""[..], b"\0", &[0; 1024], &[0xff; 2000], &vec![b'a'; target.longest]] {
            target.hold(input);
        }
    }
}
