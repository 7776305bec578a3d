//! GNU tar as oracle: both ways, with everything in it.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

use super::super::{Diff, Form, diff};
use super::unpack_into;
use super::walk::{Tell, assert_same, everything, walk};

fn gnu(arguments: &[&str], folder: &Path, input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("tar")
        .args(arguments)
        .args(["--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "-C"])
        .arg(folder)
        .args(if arguments[0] == "-c" { &["."][..] } else { &[] })
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("these tests compare with GNU tar");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &input));
    let mut output = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
    let done = child.wait_with_output().unwrap();
    // The writer may find the reader gone once the archive has ended.
    let _ = writer.join().unwrap();
    assert!(done.status.success(), "tar {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    output
}

#[test]
fn archives_of_gnu_tar_unpack_to_the_tree_they_were_made_of() {
    let temp = tempfile::tempdir().unwrap();
    let first = temp.path().join("first");
    std::fs::create_dir(&first).unwrap();
    everything(&first);
    for (i, format) in [
        &["-c", "--format=posix"][..],
        &["-c", "--format=posix", "--sort=inode"],
        &["-c", "--format=posix", "--sparse", "--sparse-version=0.0"],
        &["-c", "--format=posix", "--sparse", "--sparse-version=0.1"],
        &["-c", "--format=posix", "--sparse", "--sparse-version=1.0"],
    ]
    .into_iter()
    .enumerate()
    {
        let tar = gnu(format, &first, b"");
        for form in [Form::Flat, Form::Overlay] {
            let ours = temp.path().join(format!("ours{i}{form:?}"));
            let summary = unpack_into(&tar, &ours, form).unwrap();
            assert_eq!(summary.notes, Vec::<String>::new());
            let theirs = temp.path().join(format!("theirs{i}{form:?}"));
            std::fs::create_dir(&theirs).unwrap();
            gnu(&["-xp"], &theirs, &tar);
            // Not every extended attribute goes through GNU tar: what it makes is what counts.
            assert_same(&walk(&theirs, Tell::Holes), &walk(&ours, Tell::Holes), &format!("{format:?}"));
        }
    }
}

#[test]
fn gnu_format_with_its_long_names_sparse_files_and_large_numbers_unpacks() {
    let temp = tempfile::tempdir().unwrap();
    let first = temp.path().join("first");
    std::fs::create_dir(&first).unwrap();
    everything(&first);
    let deep = first.join(["d".repeat(90), "e".repeat(90), "f".repeat(90)].join("/"));
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("x"), "x").unwrap();
    std::fs::hard_link(deep.join("x"), first.join("x")).unwrap();
    // A file of more stretches than a header and an extension block hold.
    let file = File::create(first.join("comb")).unwrap();
    for i in 0..100u64 {
        std::os::unix::fs::FileExt::write_all_at(&file, b"tooth", i << 16).unwrap();
    }
    for format in [&["-c", "--format=gnu"][..], &["-c", "--format=gnu", "--sparse"]] {
        let run = |arguments: &[&str], folder: &Path, input: &[u8]| {
            let mut command = Command::new("tar");
            command.args(arguments).args(["--numeric-owner", "-C"]).arg(folder);
            if arguments[0] == "-c" {
                command.arg(".");
            }
            let path = folder.with_extension("tar");
            std::fs::write(&path, input).unwrap();
            let output = command.stdin(File::open(path).unwrap()).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            output.stdout
        };
        let tar = run(format, &first, b"");
        let name = format.len();
        let (ours, theirs) =
            (temp.path().join(format!("ours{name}")), temp.path().join(format!("theirs{name}")));
        std::fs::create_dir(&theirs).unwrap();
        run(&["-xp"], &theirs, &tar);
        unpack_into(&tar, &ours, Form::Flat).unwrap();
        assert_same(&walk(&theirs, Tell::Holes), &walk(&ours, Tell::Holes), &format!("{format:?}"));
    }
}

#[test]
fn gnu_tar_unpacks_what_we_write_to_the_tree_it_was_made_of() {
    let temp = tempfile::tempdir().unwrap();
    let (first, theirs) = (temp.path().join("first"), temp.path().join("theirs"));
    std::fs::create_dir(&first).unwrap();
    std::fs::create_dir(&theirs).unwrap();
    everything(&first);
    // GNU tar writes and reads ACLs as text of its own.
    for name in ["owned", "sticky"] {
        for acl in ["system.posix_acl_access", "system.posix_acl_default"] {
            let _ = rustix::fs::lremovexattr(first.join(name), acl);
        }
    }
    let mut tar = Vec::new();
    diff(File::open(&first).unwrap().as_fd(), &Diff { form: Form::Flat, root: true, latest: None }, &mut tar)
        .unwrap();
    gnu(&["-xp"], &theirs, &tar);
    assert_same(&walk(&first, Tell::All), &walk(&theirs, Tell::All), "first and GNU tar's");
}
