//! libFuzzer's main loop around one target, which the environment variable FUZZ_TARGET names, or `list` for all that
//! there are. Uses: libfuzzer-sys,
//! rcrun-fuzz. One program for all targets: it is linked once, and a new target is none of its business.
#![no_main]

use std::sync::OnceLock;

use rcrun_fuzz::Target;

static TARGET: OnceLock<&Target> = OnceLock::new();

fn chosen() -> &'static Target {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    if name == "list" {
        rcrun_fuzz::TARGETS.iter().for_each(|target| println!("{} {}", target.name, target.longest));
        std::process::exit(0)
    }
    rcrun_fuzz::TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| {
        let names: Vec<&str> = rcrun_fuzz::TARGETS.iter().map(|target| target.name).collect();
        eprintln!("FUZZ_TARGET is {name:?}; there are {}", names.join(", "));
        std::process::exit(2)
    })
}

libfuzzer_sys::fuzz_target!(
    init: {
        TARGET.get_or_init(chosen);
    },
    |input: &[u8]| TARGET.get_or_init(chosen).hold(input)
);
