//! Links rcrun-init alone: no start files, no libraries, fixed addresses, no dynamic section.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for argument in [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        // One file page instead of a page for each kind of section: fewer pages to read and to fault in.
        "-Wl,-z,noseparate-code",
        "-Wl,--no-eh-frame-hdr",
    ] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
