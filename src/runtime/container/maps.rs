//! The id maps of a new user namespace: written by rcrun itself where the kernel lets it, else by newuidmap and newgidmap,
//! which are set-uid root and allow what /etc/subuid and /etc/subgid give to the user.
//!
//! They are looked for as runc, crun and podman do: in PATH, which is the caller's own, as are the rights that rcrun has.

use super::proc_file::write_proc;
use crate::error::{CallContext, Context, errno_text};
use crate::plan::Maps;
use crate::sys::spawn::{Program, spawn};
use crate::{Code, Error, Result};
use rustix::fs::{Mode, OFlags};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::ffi::CString;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// How a kind of ids is called.
struct Kind {
    pointer: &'static str,
    file: &'static str,
    tool: &'static str,
    ranges: &'static str,
}

const UIDS: Kind =
    Kind { pointer: "/linux/uidMappings", file: "uid_map", tool: "newuidmap", ranges: "/etc/subuid" };
const GIDS: Kind =
    Kind { pointer: "/linux/gidMappings", file: "gid_map", tool: "newgidmap", ranges: "/etc/subgid" };

/// Writes the maps of the user namespace of `pid`, a child of this process that waits for them.
pub(crate) fn write(pid: i32, maps: &Maps) -> Result<()> {
    let Some(how) = maps.unprivileged else {
        return own(pid, &UIDS, &maps.uid).and_then(|()| own(pid, &GIDS, &maps.gid));
    };
    if !how.newgidmap {
        // Else the kernel lets nobody drop a group that keeps him out (user_namespaces(7)).
        write_proc(pid, "setgroups", "deny").map_err(|e| e.at(GIDS.pointer))?;
    }
    for (kind, text, by_tool) in [(&UIDS, &maps.uid, how.newuidmap), (&GIDS, &maps.gid, how.newgidmap)] {
        match by_tool {
            true => tool(pid, kind, text)?,
            false => own(pid, kind, text)?,
        }
    }
    Ok(())
}

fn own(pid: i32, kind: &Kind, text: &str) -> Result<()> {
    write_proc(pid, kind.file, text).context(kind.pointer).map_err(|e| e.at(kind.pointer))
}

fn tool(pid: i32, kind: &Kind, text: &str) -> Result<()> {
    let fail = |code: Code, why: String| {
        Error::new(code, format!("config.json: {}: {why}", kind.pointer)).at(kind.pointer)
    };
    let Some(path) = find(kind.tool) else {
        return Err(fail(
            Code::Host,
            format!(
                "more than the user's own id takes {}, which is not in PATH: install it (on Debian the package uidmap), or map one id alone",
                kind.tool
            ),
        ));
    };
    let what = || format!("run {}", path.display());
    let c = |text: String| CString::new(text).unwrap_or_default();
    let numbers = text.split_ascii_whitespace().map(str::to_string);
    let args: Vec<CString> =
        [kind.tool.to_string(), pid.to_string()].into_iter().chain(numbers).map(c).collect();
    let program = CString::new(path.clone().into_os_string().into_vec()).unwrap_or_default();
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .call("open /dev/null")?;
    let (said, writer) = std::io::pipe().call("pipe")?;
    let child = spawn(&Program {
        path: &program,
        args: &args,
        // Nothing of the caller's: what it says is looked for in English.
        env: &[],
        cwd: c"/",
        stdio: [null.as_fd(), writer.as_fd(), writer.as_fd()],
        passed: &[],
        own_group: false,
    })
    .call(what())?;
    drop(writer);
    let mut words = String::new();
    // What it says is a line; a pipe that is held open by somebody else must not hold us.
    let read = said.take(4096).read_to_string(&mut words);
    let status = loop {
        match waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other.call(what())?,
        }
    };
    if status.and_then(|s| s.exit_status()) == Some(0) {
        return Ok(());
    }
    let said = match read {
        Ok(_) => words.lines().map(str::trim).collect::<Vec<_>>().join("; "),
        Err(e) => errno_text(e.raw_os_error().unwrap_or_default()),
    };
    let ids: Vec<&str> = text.lines().collect();
    Err(fail(
        Code::Host,
        format!(
            "{} refuses the map {}: {said} (ranges that this user may map stand in {}: `usermod` adds one)",
            kind.tool,
            ids.join(", "),
            kind.ranges
        ),
    ))
}

/// The first `name` in PATH that may be executed; relative folders of PATH are nobody's to trust.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").filter(|p| !p.is_empty()).unwrap_or_else(|| "/usr/bin:/bin".into());
    std::env::split_paths(&path).filter(|folder| folder.is_absolute()).map(|folder| folder.join(name)).find(
        |file| std::fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0),
    )
}
