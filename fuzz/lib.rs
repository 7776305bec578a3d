//! What must hold for every input, however it was made. Each target is a file with one function that takes bytes and
//! panics where its property does not hold; the table below names them all. `make fuzz` looks for such bytes, and
//! `cargo test -p rcrun-fuzz` tries those that were found once (`found/`). Uses: the crates under test.
//!
//! A new target is a file, a line in [`TARGETS`], and, where random bytes would not get far, seeds in tests/seeds.rs.

mod archive;
mod compression;
mod config;
mod ids;
mod layer;
mod manifest;
mod mount_options;
mod name;
mod passwd;
mod plan;
mod seccomp;
mod sentence;
mod start;
mod state;

pub use config::image;

/// A property, and what is needed to look for inputs that break it.
pub struct Target {
    /// Its name, which is that of its file and of its folders of seeds and finds.
    pub name: &'static str,
    holds: fn(&[u8]),
    /// Longer inputs are not tried.
    pub longest: usize,
}

impl Target {
    /// Panics if the property does not hold for this input.
    pub fn hold(&self, input: &[u8]) {
        // What errors are looked through for may not come from the input, which they repeat.
        let outside = sentence::OUTSIDE.as_bytes();
        if !input.windows(outside.len()).any(|part| part == outside) {
            (self.holds)(input);
        }
    }
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "layer", holds: layer::holds, longest: 32 << 10 },
    Target { name: "archive", holds: archive::holds, longest: 64 << 10 },
    Target { name: "manifest", holds: manifest::holds, longest: 8 << 10 },
    Target { name: "passwd", holds: passwd::holds, longest: 4 << 10 },
    Target { name: "compression", holds: compression::holds, longest: 8 << 10 },
    // An error repeats what was typed, escaped: six bytes for one, and no more than a sentence has.
    Target { name: "name", holds: name::holds, longest: 512 },
    Target { name: "config", holds: config::holds, longest: 16 << 10 },
    Target { name: "plan", holds: plan::holds, longest: 8 << 10 },
    Target { name: "seccomp", holds: seccomp::holds, longest: 512 },
    Target { name: "mount_options", holds: mount_options::holds, longest: 512 },
    Target { name: "ids", holds: ids::holds, longest: 512 },
    Target { name: "state", holds: state::holds, longest: 4 << 10 },
    Target { name: "start", holds: start::holds, longest: 512 },
];
