//! Boots a machine, hands a tar in, passes its output on as it comes, and ends it in time. Uses nix, rustix.
//!
//! ```text
//!   machines ── setpriv ── unshare ── sh ── linux.uml or qemu     a pid namespace: whoever ends, all of it ends
//!      |                                        |
//!      +--> payload.tar --> unpacked, ./run ----+
//!      +<-- output, told <----------------------+                  told: `ready UPTIME`, `alive` now and then, `exit STATUS`
//! ```
//! All files lie on a tmpfs in a mount namespace of our own: nothing is left when we end, however we end.

use crate::tiers::Tier;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a machine may take until it is ready: five times what a busy one takes.
fn boot_limit(tier: Tier) -> Duration {
    Duration::from_secs(if tier == Tier::Qemu { 300 } else { 120 })
}

/// After its last word a machine has this long to power off.
const POWER_OFF: Duration = Duration::from_secs(30);

/// A machine whose script tells nothing for so long stands still: it says `alive` every ten seconds, whatever the tests do
/// (`guest/rcrun-tests`). User-mode Linux was seen in the idle loop of its kernel, at full speed, with nothing running in it.
const SILENCE: Duration = Duration::from_secs(180);

/// What a machine did.
#[derive(Debug, Default)]
pub struct Run {
    /// All output of what ran in it.
    pub output: String,
    /// How long it took from the start to `ready`; never, when it did not boot.
    pub booted: Option<Duration>,
    /// The status of what ran in it; none, when it ended before that or was ended.
    pub status: Option<i32>,
    /// It was ended because it gave no sign of life any more.
    pub stood_still: bool,
    /// It is the second: the first stood still.
    pub again: bool,
}

/// A mount namespace of our own with an empty tmpfs on `folder`. Call this before anything is started.
pub fn own_tmpfs(folder: &Path) -> Result<(), String> {
    let failed = |what: &str, e: nix::Error| format!("{what} {}: {e}", folder.display());
    let nothing = None::<&str>;
    fs::create_dir_all(folder).map_err(|e| format!("mkdir {}: {e}", folder.display()))?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| failed("unshare of the mounts, for", e))?;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
        .map_err(|e| failed("make / private, for", e))?;
    mount(Some("machines"), folder, Some("tmpfs"), MsFlags::empty(), Some("mode=0700"))
        .map_err(|e| failed("mount a tmpfs on", e))
}

/// Boots a machine from what lies in `disk`, runs the tar `payload` in it; all files of it lie in `work`.
///
/// A machine that does not boot, or that gives no sign of life, is tried once more, which is told at the end too: what runs in
/// it has limits of its own. What only failed is never tried again.
pub fn run(tier: Tier, disk: &Path, payload: &Path, work: &Path, limit: Duration) -> Result<Run, String> {
    let mut run = boot(tier, disk, payload, work, limit)?;
    if run.booted.is_none() {
        eprintln!("machines: {} did not boot; its console said:\n{}", tier.name(), console(work));
        eprintln!("machines: {}: once more", tier.name());
        run = boot(tier, disk, payload, work, limit)?;
    } else if run.stood_still {
        eprintln!("machines: {} stood still; its console said:\n{}", tier.name(), console(work));
        eprintln!("machines: {}: all of it once more", tier.name());
        run = Run { again: true, ..boot(tier, disk, payload, work, limit)? };
    }
    if run.status.is_none() {
        eprintln!("machines: {} ended without a status; its console said:\n{}", tier.name(), console(work));
    }
    Ok(run)
}

/// The end of what the kernel and systemd wrote.
fn console(work: &Path) -> String {
    let text = fs::read(work.join("console")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

fn boot(tier: Tier, disk: &Path, payload: &Path, work: &Path, limit: Duration) -> Result<Run, String> {
    let io = |what: &str, e: std::io::Error| format!("{}: {what}: {e}", tier.name());
    let mut follow = Vec::new();
    for name in ["output", "told"] {
        let path = work.join(name);
        File::create(&path).map_err(|e| io("create a file", e))?;
        follow.push(File::open(&path).map_err(|e| io("open a file", e))?);
    }
    let written =
        Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(|e| io("inotify", e.into()))?;
    for name in ["output", "told"] {
        written.add_watch(&work.join(name), AddWatchFlags::IN_MODIFY).map_err(|e| io("inotify", e.into()))?;
    }
    let console = File::create(work.join("console")).map_err(|e| io("create a file", e))?;
    let mut command = contained(&command(tier, disk, payload, work));
    command.env("TMPDIR", work).stdin(Stdio::null());
    command.stdout(console.try_clone().map_err(|e| io("dup", e))?).stderr(console);
    let began = Instant::now();
    let mut child = command.spawn().map_err(|e| io("start it", e))?;
    let pid = Pid::from_child(&child);
    let ended = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| io("pidfd_open", e.into()))?;

    let mut run = Run::default();
    let mut told = String::new();
    let mut deadline = began + boot_limit(tier);
    let mut sign = began;
    loop {
        // Until it is ready nobody in it gives signs, and after its last word nobody has to.
        let signs_are_due = run.booted.is_some() && run.status.is_none();
        let end = if signs_are_due { deadline.min(sign + SILENCE) } else { deadline };
        let wait = end.saturating_duration_since(Instant::now());
        let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        let mut fds = [
            PollFd::from_borrowed_fd(ended.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(written.as_fd(), PollFlags::IN),
        ];
        let ready = match poll(&mut fds, Some(&wait)) {
            Ok(ready) => ready,
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(io("poll", e.into())),
        };
        let over = fds[0].revents().contains(PollFlags::IN);
        // Emptied before the files are read: what is written after that wakes us again.
        while written.read_events().is_ok_and(|events| !events.is_empty()) {}
        run.output += &pass_on(&mut follow[0]).map_err(|e| io("read its output", e))?;
        if follow[1].read_to_string(&mut told).map_err(|e| io("read what it told", e))? > 0 {
            sign = Instant::now();
        }
        let word = |name: &str| {
            told.lines().find_map(|line| line.strip_prefix(name)).filter(|_| told.ends_with('\n'))
        };
        if run.booted.is_none() && word("ready ").is_some() {
            run.booted = Some(began.elapsed());
            deadline = Instant::now() + limit;
        }
        if run.status.is_none()
            && let Some(status) = word("exit ")
        {
            run.status =
                Some(status.trim().parse().map_err(|e| format!("{}: exit {status}: {e}", tier.name()))?);
            deadline = deadline.min(Instant::now() + POWER_OFF);
        }
        if over {
            break;
        }
        if ready == 0 {
            run.stood_still = signs_are_due && sign.elapsed() >= SILENCE;
            if run.stood_still {
                eprintln!("machines: {}: no sign of life for {} s", tier.name(), SILENCE.as_secs());
            }
            if run.status.is_none() {
                eprintln!("machines: {} is ended after {} s", tier.name(), began.elapsed().as_secs());
            }
            pidfd_send_signal(&ended, Signal::KILL).map_err(|e| io("kill", e.into()))?;
            break;
        }
    }
    child.wait().map_err(|e| io("wait", e))?;
    Ok(run)
}

/// Copies what has been written since the last time to standard output, and returns it.
fn pass_on(file: &mut File) -> std::io::Result<String> {
    let mut new = Vec::new();
    file.read_to_end(&mut new)?;
    let mut out = std::io::stdout().lock();
    out.write_all(&new)?;
    out.flush()?;
    Ok(String::from_utf8_lossy(&new).into_owned())
}

/// In a pid namespace: when we end, setpriv's process is killed; when that ends, so does the namespace with all in it.
fn contained(words: &[String]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    // The shell stays as PID 1: a kernel that is one would not get its own signals.
    command.args(["sh", "-c", "\"$@\"; exit $?", "machine"]).args(words);
    command
}

/// One of the processors that we may use, for all of UML: each system call in it goes from one of its processes on the
/// host to another and back, and across two processors that takes up to twice as long.
fn processor() -> usize {
    let allowed = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap_or_default();
    let allowed: Vec<usize> =
        (0..nix::sched::CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false)).collect();
    // Runs at the same time do not all take the same one.
    allowed.get(std::process::id() as usize % allowed.len().max(1)).copied().unwrap_or(0)
}

fn command(tier: Tier, disk: &Path, payload: &Path, work: &Path) -> Vec<String> {
    let at = |folder: &Path, name: &str| folder.join(name).display().to_string();
    let image = at(disk, "disk.img");
    // audit=0 and selinux=0: work for nobody; the host's own address randomization is no matter of tests.
    let common = "systemd.unit=rcrun-tests.service systemd.show_status=0 audit=0 selinux=0 loglevel=5";
    let words = |text: &str| text.split_whitespace().map(String::from).collect::<Vec<_>>();
    match tier {
        Tier::Native => words("false"),
        Tier::Uml => {
            fs::remove_file(work.join("layer")).ok();
            let mut line = vec!["taskset".to_string(), "--cpu-list".to_string(), processor().to_string()];
            line.extend(words(
                "linux.uml mem=1536M root=/dev/ubda rw con=null con0=null,fd:1 umid=machine norandmaps",
            ));
            line.extend(words(common));
            line.push(format!("ubd0={},{image}", at(work, "layer")));
            line.push(format!("uml_dir={}", at(work, "umid")));
            line.push(format!("rcrun.share={}", work.display()));
            line
        }
        Tier::Qemu => {
            let mut line = words(
                "qemu-system-x86_64 -M q35 -accel tcg,thread=multi,tb-size=512 -cpu max,-svm,-la57 -smp 2 -m 2048 \
                 -nodefaults -no-user-config -display none -no-reboot -device virtio-serial-pci -device virtio-rng-pci",
            );
            let mut more = |option: &str, value: String| line.extend([option.to_string(), value]);
            more("-kernel", at(disk, "vmlinux"));
            more("-initrd", at(disk, "initrd"));
            let kernel = "console=ttyS0 rw panic=-1 net.ifnames=0 mitigations=off nokaslr init_on_alloc=0";
            more("-append", format!("{kernel} {common}"));
            more("-serial", format!("file:{}", at(work, "console")));
            for (name, file, options) in [
                // What is written to the root goes to a file in TMPDIR that has no name.
                ("root", PathBuf::from(image), "format=raw,snapshot=on,cache=unsafe,file.locking=off"),
                ("payload", payload.to_path_buf(), "format=raw,readonly=on"),
            ] {
                more("-drive", format!("file={},if=none,id={name},{options}", file.display()));
                more("-device", format!("virtio-blk-pci,drive={name}"));
            }
            for name in ["output", "told"] {
                more("-chardev", format!("file,id={name},path={},append=on", at(work, name)));
                more("-device", format!("virtserialport,chardev={name},name={name}"));
            }
            line
        }
    }
}
