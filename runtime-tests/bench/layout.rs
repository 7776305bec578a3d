//! `make layout`: which functions of rcrun a container's life executes, found by single-stepping each command (ptrace(2)),
//! as the linker script that puts them side by side. A page fault brings 64 KiB of a program: scattered over five megabytes,
//! the functions of one command take a fault each.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rcrun_image::{Digest, Platform};
use serde_json::json;

use crate::host::WORK;
use crate::rounds::Bench;
use crate::runtimes::{Quiet, Runtime};
use crate::{Result, fail};

/// The linker script, for an rcrun that was built with its symbols.
pub fn script(bench: &Bench) -> Result<String> {
    let Some(rcrun) = bench.runtimes.iter().find(|r| r.name == "rcrun") else {
        return fail("rcrun is to be laid out");
    };
    let symbols = symbols(&rcrun.binary)?;
    let mut executed: BTreeMap<&str, u32> = BTreeMap::new();
    let id = bench.id();
    let id: &OsStr = id.as_ref();
    let pid_file = pid_file();
    let bundle = |bundle: &'_ PathBuf| bundle.clone().into_os_string();
    let (quick, sleep) = (bundle(&bench.bundles.quick), bundle(&bench.bundles.sleep));
    let other = bench.id();
    let (store, image) = (load(bench, rcrun)?.into_os_string(), bench.id());
    let of_image: [&OsStr; 7] = [
        "run".as_ref(),
        "--store".as_ref(),
        &store,
        "--name".as_ref(),
        image.as_ref(),
        IMAGE.as_ref(),
        "/bin/true".as_ref(),
    ];
    // What an image's first run makes for later ones is made.
    if !rcrun.command(&[], &of_image, false).status()?.success() {
        return fail("the image does not run");
    }
    let life: [&[&OsStr]; 8] = [
        &of_image,
        &["run".as_ref(), "-b".as_ref(), &quick, other.as_ref()],
        &["create".as_ref(), "-b".as_ref(), &sleep, "--pid-file".as_ref(), pid_file.as_ref(), id],
        &["start".as_ref(), id],
        &["state".as_ref(), id],
        &["exec".as_ref(), id, "/bin/true".as_ref()],
        &["kill".as_ref(), id, "KILL".as_ref()],
        &["delete".as_ref(), id],
    ];
    for words in life {
        let verb = words[0].to_string_lossy();
        let mut now = BTreeSet::new();
        let steps = step(rcrun, words, &symbols, &mut now)?;
        eprintln!("bench: {verb}: {steps} instructions in {} functions", now.len());
        for name in now {
            *executed.entry(name).or_default() += 1;
        }
        if verb == "kill" {
            let pid: i32 = fs::read_to_string(&pid_file)?.trim().parse()?;
            waitpid(Pid::from_raw(pid), None)?;
        }
    }
    let mut script = String::from(HEAD);
    for name in order(&symbols, &executed) {
        writeln!(script, "    *(.text.{name})")?;
    }
    Ok(script + TAIL)
}

/// The name of the image that is run.
const IMAGE: &str = "layout:1";

/// Loads an image with the root of a bundle as its layer, in the form of `docker save`, into a store of its own.
fn load(bench: &Bench, rcrun: &Runtime) -> Result<PathBuf> {
    let (folder, store) = (Path::new(WORK).join("saved"), Path::new(WORK).join("store"));
    fs::create_dir(&folder)?;
    let layer = folder.join("layer.tar");
    let root = bench.bundles.quick.join("rootfs");
    if !Command::new("tar").arg("-C").arg(root).arg("-cf").arg(&layer).arg(".").status()?.success() {
        return fail("tar failed");
    }
    let layers = [Digest::of(&fs::read(&layer)?).to_string()];
    let config = json!({
        "architecture": Platform::host().architecture,
        "os": "linux",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": layers },
    });
    fs::write(folder.join("config.json"), config.to_string())?;
    let manifest = json!([{ "Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"] }]);
    fs::write(folder.join("manifest.json"), manifest.to_string())?;
    let words = ["image", "load", "--quiet", "--store"].map(OsStr::new);
    let mut load = rcrun.command(&[], &words, false);
    if !load.arg(&store).arg(&folder).status()?.success() {
        return fail("the image is not loaded");
    }
    Ok(store)
}

/// The patterns of all that was executed. First those of which most is, and of these first what the most commands execute;
/// last those that name many functions for the sake of one.
fn order(symbols: &[(u64, String)], executed: &BTreeMap<&str, u32>) -> Vec<String> {
    #[derive(Default)]
    struct Found {
        bytes: u64,
        executed: u64,
        commands: u32,
    }
    let mut patterns: BTreeMap<String, Found> = BTreeMap::new();
    for (place, (address, name)) in symbols.iter().enumerate() {
        let end = symbols[place..].iter().map(|(address, _)| *address).find(|next| next > address);
        let bytes = end.unwrap_or(*address) - address;
        let found = patterns.entry(pattern(name)).or_default();
        found.bytes += bytes;
        if let Some(commands) = executed.get(&name[..]) {
            found.executed += bytes;
            found.commands = found.commands.max(*commands);
        }
    }
    let mut order: Vec<_> = patterns.into_iter().filter(|(_, found)| found.commands > 0).collect();
    order.sort_by_key(|(_, found)| (found.executed * 2 < found.bytes, std::cmp::Reverse(found.commands)));
    order.into_iter().map(|(name, _)| name).collect()
}

fn pid_file() -> PathBuf {
    Path::new(WORK).join("pid")
}

/// Address and name of every function, in their order.
fn symbols(binary: &Path) -> Result<Vec<(u64, String)>> {
    let nm = Command::new("nm").args(["--numeric-sort", "--defined-only"]).arg(binary).output()?;
    let text = String::from_utf8(nm.stdout)?;
    let symbols: Vec<(u64, String)> = text.lines().filter_map(symbol).collect();
    if symbols.len() < 1000 {
        return fail(format!("{} has no symbols: `make layout` builds one that has", binary.display()));
    }
    Ok(symbols)
}

/// A function's line of nm.
fn symbol(line: &str) -> Option<(u64, String)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [address, "t" | "T" | "w" | "W", name] = words[..] else { return None };
    Some((u64::from_str_radix(address, 16).ok()?, name.to_owned()))
}

/// Executes one command instruction by instruction; its children go by themselves. Adds all names of the functions it is in,
/// and says how many instructions that were.
fn step<'a>(
    rcrun: &Runtime,
    words: &[&OsStr],
    symbols: &'a [(u64, String)],
    executed: &mut BTreeSet<&'a str>,
) -> Result<u64> {
    // It waits for a word before it becomes the command, and is seized meanwhile.
    let shell = ["sh", "-c", "read word; exec \"$@\" </dev/null", "sh"].map(OsStr::new);
    let mut command = rcrun.command(&shell, words, false);
    Quiet::new("layout")?.apply(&mut command)?;
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    ptrace::seize(pid, Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_EXITKILL)?;
    child.stdin.take().ok_or("no pipe")?.write_all(b"\n")?;
    let (mut begun, mut steps) = (false, 0);
    let mut current = 0..0;
    loop {
        let signal = match waitpid(pid, Some(WaitPidFlag::__WALL))? {
            WaitStatus::Exited(_, 0) => return Ok(steps),
            WaitStatus::PtraceEvent(..) => {
                begun = true;
                None
            }
            WaitStatus::Stopped(_, Signal::SIGTRAP) => None,
            WaitStatus::Stopped(_, signal) => Some(signal),
            ended => return fail(format!("{words:?}: {ended:?}")),
        };
        if !begun {
            ptrace::cont(pid, signal)?;
            continue;
        }
        let at = instruction(pid)?;
        steps += 1;
        if !current.contains(&at) {
            let next = symbols.partition_point(|(address, _)| *address <= at);
            if let Some((start, _)) = next.checked_sub(1).map(|last| &symbols[last]) {
                current = *start..symbols.get(next).map_or(*start, |(address, _)| *address);
                let same = symbols[..next].iter().rev().take_while(|(address, _)| address == start);
                executed.extend(same.map(|(_, name)| name.as_str()));
            }
        }
        match ptrace::step(pid, signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn instruction(pid: Pid) -> Result<u64> {
    Ok(ptrace::getregs(pid)?.rip)
}

#[cfg(not(target_arch = "x86_64"))]
fn instruction(_: Pid) -> Result<u64> {
    fail("the layout is made on x86_64: the names are those of every architecture")
}

/// The name without what changes with each build: the hash of a function, that of a crate, and LLVM's numbers.
fn pattern(name: &str) -> String {
    let mut name = name.to_owned();
    if let Some(dot) = name.rfind('.')
        && name[dot + 1..].bytes().all(|byte| byte.is_ascii_digit())
    {
        name.truncate(dot);
        name.push('*');
    }
    let hash = |text: &str| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if let Some(at) = name.find("17h")
        && name.get(at + 3..at + 19).is_some_and(hash)
    {
        name.replace_range(at + 3..at + 19, "*");
    }
    if !name.starts_with("_R") {
        return name;
    }
    // v0 mangling: Cs, a number in base 62, _, the crate's name.
    let mut rest = name.as_str();
    let mut out = String::new();
    while let Some(at) = rest.find("Cs") {
        let (before, crate_of) = rest.split_at(at + 2);
        out += before;
        let end = crate_of.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(crate_of.len());
        rest = match crate_of.get(end..=end) {
            Some("_") => {
                out += "*_";
                &crate_of[end + 1..]
            }
            _ => crate_of,
        };
    }
    out + rest
}

const HEAD: &str = "/*
 * The functions that a container's life executes (run of an image and of a bundle, create, start, state, exec, kill,
 * delete), side by side, so that few pages of the program are touched. Written by `make layout`; a name that is not there any
 * more does no harm, and a function that is missing here is found behind the others.
 */
SECTIONS
{
  .text.start : {
";

const TAIL: &str = "  }
}
INSERT BEFORE .text;
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_with_each_build_is_no_part_of_a_pattern() {
        for (name, expected) in [
            ("memcmp", "memcmp"),
            ("_ZN5rcrun4args5words4read17h6495f50360fd0c23E", "_ZN5rcrun4args5words4read17h*E"),
            (
                "_ZN5rcrun4args17hashed4read17h6495f50360fd0c23E",
                "_ZN5rcrun4args17hashed4read17h6495f50360fd0c23E",
            ),
            ("_RNvNtNtCs7BliBxkEZsN_4core3fmt5write", "_RNvNtNtCs*_4core3fmt5write"),
            (
                "_RNvXsZ_NtCs2Nb3gJ4iU0I_5alloc6stringNtB5_6StringNtNtCs7BliBxkEZsN_4core3fmt5Write9write_str.39",
                "_RNvXsZ_NtCs*_5alloc6stringNtB5_6StringNtNtCs*_4core3fmt5Write9write_str*",
            ),
        ] {
            assert_eq!(pattern(name), expected);
        }
    }

    #[test]
    fn what_all_commands_execute_comes_first_and_what_is_mostly_not_executed_last() {
        let symbols =
            [(0, "one"), (10, "_ZN1a17h0000000000000000E"), (20, "_ZN1a17h0000000000000001E"), (90, "two")];
        let symbols: Vec<_> = symbols.iter().map(|(at, name)| (*at, (*name).to_owned())).collect();
        let executed = BTreeMap::from([("one", 1), ("_ZN1a17h0000000000000000E", 7), ("two", 7)]);
        assert_eq!(order(&symbols, &executed), ["two", "one", "_ZN1a17h*E"]);
    }

    #[test]
    fn only_functions_of_nm_are_symbols() {
        assert_eq!(symbol("00000000004bef0b T _start"), Some((0x4b_ef0b, "_start".into())));
        assert_eq!(symbol("0000000000a03820 r Bi"), None);
        assert_eq!(symbol("                 U environ"), None);
    }
}
