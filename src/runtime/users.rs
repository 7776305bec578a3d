//! A user namespace of rcrun's own, in which an ordinary user is root, with the other ids that /etc/subuid and /etc/subgid
//! give him: what he does with images happens there (docs/adr/0016). Uses: container (its maps), error, plan,
//! subids, sys.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags};

use crate::container::write_maps;
use crate::error::{CallContext, Context};
use crate::plan::{Maps, Unprivileged};
use crate::subids::ranges;
use crate::{Code, Error, Result, sys};

/// The argument by which this program, started anew, knows that it writes the maps of the process that started it: two more
/// arguments. Who is in a new user namespace cannot do it himself.
pub const MAPPER: &str = "rcrun: map the ids of a user";

/// More of them the kernel does not take (user_namespaces(7)).
const LINES_MAX: usize = 340;
/// The most that net.ipv4.ping_group_range takes.
const GROUP_MAX: u64 = i32::MAX as u64;

static ENTERED: OnceLock<Maps> = OnceLock::new();
/// Who this process was before it was root in a namespace.
static CALLER: OnceLock<u32> = OnceLock::new();

/// The maps of the namespace that this process has made for itself, if it has.
pub fn entered() -> Option<&'static Maps> {
    ENTERED.get()
}

/// The user that started this process, as the namespace that it was started in calls him.
pub fn caller() -> u32 {
    CALLER.get().copied().unwrap_or_else(|| rustix::process::getuid().as_raw())
}

/// Goes into a new user namespace and a new mount namespace, and is root there. This process must have one thread.
pub fn enter() -> Result<()> {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    let [passwd, uids, gids] = ["passwd", "subuid", "subgid"]
        .map(|name| std::fs::read_to_string(format!("/etc/{name}")).unwrap_or_default());
    let maps = maps((uid, gid), &passwd, [&uids, &gids]);
    let mut mapper = Command::new("/proc/self/exe")
        .args([MAPPER, &maps.uid, &maps.gid])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .call("execute /proc/self/exe")?;
    let unshared = unshare();
    if let Some(mut go) = mapper.stdin.take()
        && unshared.is_ok()
    {
        // Where it has died, what it said tells why.
        let _ = go.write_all(b"\n");
    }
    let said = mapper.wait_with_output().call("wait for the writer of id maps")?;
    unshared?;
    let _ = CALLER.set(uid);
    if !said.status.success() {
        let why = String::from_utf8_lossy(&said.stderr).trim().to_string();
        return Err(Error::new(Code::Host, format!("a user namespace for images: {why}")));
    }
    let _ = ENTERED.set(maps);
    Ok(())
}

fn unshare() -> Result<()> {
    use nix::sched::{CloneFlags, unshare};
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).map_err(|errno| {
        let message = format!(
            "images of a user need a user namespace, and the kernel gives him none: unshare: {errno}: `rcrun doctor` tells what forbids it"
        );
        Error::new(Code::Host, message).with_errno(errno as i32)
    })
}

/// What [`MAPPER`] means. Its exit status.
pub fn serve_mapper(uid: &str, gid: &str) -> u8 {
    // Its parent is where the maps belong; one that has ended writes nothing.
    if !matches!(std::io::stdin().read(&mut [0]), Ok(1)) {
        return 1;
    }
    let Some(parent) = rustix::process::getppid() else { return 1 };
    let is_more = |map: &str| map.lines().count() > 1;
    let unprivileged = Some(Unprivileged { newuidmap: is_more(uid), newgidmap: is_more(gid) });
    let maps = Maps { uid: uid.to_string(), gid: gid.to_string(), unprivileged };
    match write_maps(parent.as_raw_nonzero().get(), &maps) {
        Ok(()) => 0,
        Err(error) => {
            // There is no config.json whose fields these were.
            let words = error.to_string();
            let words = ["/linux/uidMappings", "/linux/gidMappings"].iter().fold(words, |words, pointer| {
                words.replace(&format!("config.json: {pointer}: "), "").replace(&format!("{pointer}: "), "")
            });
            let _ = writeln!(std::io::stderr(), "{words}");
            1
        }
    }
}

/// Goes into the user namespace of process `pid`, which this user owns, and is root there, with a mount namespace in which it
/// may mount.
pub fn join(pid: i32) -> Result<()> {
    let path = format!("/proc/{pid}/ns/user");
    let call = || format!("open {path}");
    let theirs = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).call(call())?;
    let own = rustix::fs::stat("/proc/self/ns/user").call("stat /proc/self/ns/user")?.st_ino;
    if rustix::fs::fstat(&theirs).call(call())?.st_ino == own {
        return Ok(());
    }
    is_own_child(&theirs, own).context(&path)?;
    nix::sched::setns(&theirs, nix::sched::CloneFlags::CLONE_NEWUSER)
        .map_err(std::io::Error::from)
        .call(format!("setns to {path}"))
        .context("the container's user namespace")?;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
        .map_err(std::io::Error::from)
        .call("unshare CLONE_NEWNS")
}

/// A container's user namespace was made by this user, in the one that he is in. The process may have gone since its number was
/// written down, and the number be that of one in a namespace inside of a container, whose maps somebody else has written.
fn is_own_child(theirs: &OwnedFd, own: u64) -> Result<()> {
    let refuse = |why: &str| {
        Err(Error::new(Code::Host, format!("is no user namespace of a container of yours: {why}")))
    };
    let parent = sys::namespace::parent(theirs.as_fd()).call("NS_GET_PARENT")?;
    if rustix::fs::fstat(&parent).call("fstat of a user namespace")?.st_ino != own {
        return refuse("it was made in another user namespace than this process is in");
    }
    match sys::namespace::owner(theirs.as_fd()).call("NS_GET_OWNER_UID")? {
        owner if owner == rustix::process::geteuid().as_raw() => Ok(()),
        owner => refuse(&format!("it is user {owner}'s")),
    }
}

/// The last group of those that this process's user namespace has, from 0 on.
pub fn last_group() -> Result<u32> {
    let text = std::fs::read_to_string("/proc/self/gid_map").call("read /proc/self/gid_map")?;
    Ok(last(&text))
}

fn last(map: &str) -> u32 {
    let mut lines: Vec<(u64, u64)> = map
        .lines()
        .filter_map(|line| {
            let mut numbers = line.split_ascii_whitespace().map(|word| word.parse::<u64>().ok());
            let (first, _, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
            Some((first, count))
        })
        .collect();
    lines.sort_unstable();
    let end = lines.iter().fold(0, |end, (first, count)| if *first == end { first + count } else { end });
    end.saturating_sub(1).min(GROUP_MAX) as u32
}

/// Root is the user; the ids from 1 on are those of his ranges. Without ranges of both sorts there is root alone.
fn maps((uid, gid): (u32, u32), passwd: &str, files: [&str; 2]) -> Maps {
    let [uids, gids] = files.map(|file| ranges(file, passwd, uid));
    let alone = uids.is_empty() || gids.is_empty();
    let lines = |own: u32, ranges: &[(u32, u32)]| {
        let mut text = format!("0 {own} 1\n");
        let mut next = 1_u32;
        for (first, count) in ranges.iter().take(if alone { 0 } else { LINES_MAX - 1 }) {
            let Some(after) = next.checked_add(*count) else { break };
            text += &format!("{next} {first} {count}\n");
            next = after;
        }
        text
    };
    Maps { uid: lines(uid, &uids), gid: lines(gid, &gids), unprivileged: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_the_user_and_the_others_are_those_of_his_ranges() {
        let passwd = "root:x:0:0::/:/bin/sh\nann:x:7:8::/:/bin/sh\n";
        for (subuid, subgid, uid, gid) in [
            (
                "ann:100000:65536\n",
                "7:200000:10\nann:9:1\n",
                "0 7 1\n1 100000 65536\n",
                "0 8 1\n1 200000 10\n11 9 1\n",
            ),
            ("anne:100000:65536\n", "ann:200000:10\n", "0 7 1\n", "0 8 1\n"),
            ("ann:1:0\nann:x:1\n", "ann:1:5\n", "0 7 1\n", "0 8 1\n"),
            ("", "", "0 7 1\n", "0 8 1\n"),
        ] {
            let found = maps((7, 8), passwd, [subuid, subgid]);
            assert_eq!((found.uid.as_str(), found.gid.as_str()), (uid, gid), "{subuid} {subgid}");
        }
        let many = "ann:100000:1\n".repeat(500);
        assert_eq!(maps((7, 8), passwd, [&many, &many]).uid.lines().count(), LINES_MAX);
    }

    #[test]
    fn a_user_namespace_of_another_user_or_inside_of_another_one_is_not_joined() {
        use std::os::unix::process::CommandExt;
        for (program, uid, why) in [
            (&["unshare", "-Ur", "unshare", "-U"][..], None, "made in another user namespace"),
            (&["unshare", "-U"], Some(12345), "it is user 12345's"),
        ] {
            let mut command = Command::new(program[0]);
            command.args(&program[1..]).args(["sh", "-c", "echo; exec cat"]);
            if let Some(uid) = uid {
                command.uid(uid);
            }
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
            let joined = join(child.id() as i32);
            drop(child.stdin.take());
            child.wait().unwrap();
            let error = joined.unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn the_last_group_is_the_end_of_what_is_mapped_without_a_gap() {
        for (map, last_one) in [
            ("         0          0 4294967295\n", i32::MAX as u32),
            ("0 1000 1\n1 100000 65536\n", 65536),
            ("1 100000 10\n0 1000 1\n", 10),
            ("0 1000 1\n5 100000 10\n", 0),
            ("", 0),
        ] {
            assert_eq!(last(map), last_one, "{map}");
        }
    }
}
