//! What the load runs in: containerd, the relay of events, a pod whose shim is never killed, and who has which container.
//! Uses relay, runtime_tests.

use crate::killer::{of_container, shims};
use crate::relay::{self, Heard};
use runtime_tests::containerd::{self, Containerd, IMAGE, SHIM};
use runtime_tests::runtime::{Said, said};
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, RwLock};
use std::time::Instant;

/// containerd's namespace, and so the name of the cgroup that its containers' are in.
pub const NAMESPACE: &str = "endurance";

/// The annotation that makes a pod, and the container that keeps it.
const POD: &str = "io.containerd.runc.v2.group=pod";
const KEEPER: &str = "keeper";

/// A command that does not end by itself has failed.
const PATIENCE: &str = "90";

/// What a worker has made, or is about to.
#[derive(Debug)]
pub struct Container {
    /// Its name.
    pub id: String,
    /// A container of the pod.
    pub pod: bool,
    /// Its shim was killed: what is asked of it may fail from now on.
    pub hit: AtomicBool,
    /// Who kills its shim and who removes it do so one after the other.
    pub fate: Mutex<Fate>,
}

/// What has become of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Fate {
    /// Nothing yet.
    #[default]
    Open,
    /// Its shim was killed before anybody began to remove it: its end is containerd's to tell.
    Orphaned,
    /// It is removed.
    Removed,
}

/// Containers that are no more.
#[derive(Default)]
pub struct Gone {
    /// Their shims were killed.
    pub hit: BTreeSet<String>,
    /// It is certain that they were started.
    pub ran: BTreeSet<String>,
    /// Processes that ctr has told of: the container, the exec or nothing, the status.
    pub statuses: Vec<(String, String, u32)>,
}

/// What a command of containerd's client has come to.
pub struct Done {
    /// What it said.
    pub said: Said,
    /// containerd was killed meanwhile.
    pub disturbed: bool,
}

/// What has happened so far.
#[derive(Clone, Copy, Default)]
pub struct Counts {
    /// Containers, execs, and commands of all kinds.
    pub containers: u64,
    pub execs: u64,
    pub commands: u64,
    /// Killed by us.
    pub shims_killed: u64,
}

/// All of it.
pub struct Place {
    /// Events that containerd has taken.
    pub heard: Arc<Heard>,
    /// The shim that is never killed.
    pub pod_shim: i32,
    /// Where logs of containers lie.
    pub logs: PathBuf,
    folder: PathBuf,
    containerd: RwLock<Containerd>,
    kills: AtomicU64,
    /// Commands that have ended since containerd was killed last, and not by that.
    answered: Mutex<u64>,
    answer: Condvar,
    containers: Mutex<Vec<Arc<Container>>>,
    gone: Mutex<Gone>,
    counts: Mutex<Counts>,
    /// Those that ran, and whose shims were killed before they were removed.
    orphans: Mutex<BTreeSet<String>>,
    failures: Mutex<Vec<String>>,
    began: Instant,
    /// What was asked of containerd, and what was done to it: for whoever reads of a failure.
    story: Mutex<Vec<String>>,
}

impl Place {
    /// Starts all of it.
    pub fn start(folder: &Path) -> Result<Place, String> {
        let rcrun = std::env::var_os("RCRUN").ok_or("RCRUN is not set: run this by `make endurance`")?;
        let shim = containerd::shim_beside(Path::new(&rcrun))?;
        let [bin, logs] = ["bin", "logs"].map(|name| folder.join(name));
        for made in [&bin, &logs] {
            fs::create_dir(made).map_err(|e| format!("mkdir {}: {e}", made.display()))?;
        }
        let events = Path::new("/run/relay.sock");
        // containerd tells a shim where it takes events: this tells it of the relay.
        let wrapper =
            format!("#!/bin/sh\nTTRPC_ADDRESS={} exec {} \"$@\"\n", events.display(), shim.display());
        let mark = format!("#!/bin/sh\necho \"$0 $*\" >> {}\nexit 1\n", folder.join("executed").display());
        for (name, text) in [(SHIM.1, &wrapper), ("runc", &mark), ("crun", &mark), ("rcrun", &mark)] {
            let path = bin.join(name);
            fs::write(&path, text).map_err(|e| format!("write {}: {e}", path.display()))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(|e| e.to_string())?;
        }
        // Before it looks on its PATH, containerd 1.7 looks for a shim in its working folder; in a machine ours lies there.
        std::env::set_current_dir(folder).map_err(|e| format!("chdir {}: {e}", folder.display()))?;
        let heard = relay::start(events, "/run/containerd/containerd.sock.ttrpc".into())?;
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display());
        let mut place = Place {
            heard,
            pod_shim: 0,
            logs,
            folder: folder.into(),
            containerd: RwLock::new(Containerd::start(folder, NAMESPACE, path.into())?),
            kills: AtomicU64::new(0),
            answered: Mutex::default(),
            answer: Condvar::new(),
            containers: Mutex::default(),
            gone: Mutex::default(),
            counts: Mutex::default(),
            orphans: Mutex::default(),
            failures: Mutex::default(),
            began: Instant::now(),
            story: Mutex::default(),
        };
        let done = place.run(&["-d", "--null-io"], true, KEEPER, "sleep 100000");
        if done.said.status != 0 {
            return Err(format!("the pod does not start: {}\n{}", done.said.err, place.log(20)));
        }
        let serves = shims().into_iter().find(|(_, words)| of_container(words, KEEPER));
        place.pod_shim = serves.ok_or("the pod has no shim")?.0;
        Ok(place)
    }

    /// Runs a command of containerd's client, when containerd serves.
    pub fn ctr(&self, words: &[&str]) -> Done {
        let before = {
            let _serves = self.containerd.read().expect("lock");
            self.kills.load(Ordering::SeqCst)
        };
        self.counted(|counts| counts.commands += 1);
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", PATIENCE, "ctr", "-n", NAMESPACE]).args(words).stdin(Stdio::null());
        let begin = self.began.elapsed();
        let said = said(&command.output().expect("execute timeout"));
        let disturbed = self.kills.load(Ordering::SeqCst) != before;
        if !disturbed {
            *self.answered.lock().expect("lock") += 1;
            self.answer.notify_all();
        }
        let meanwhile = if disturbed { ", containerd killed meanwhile" } else { "" };
        let line = words.join(" ");
        self.tell(format!("since {begin:.1?}: {line}: {}{meanwhile} {}", said.status, said.err.trim_end()));
        Done { said, disturbed }
    }

    /// `ctr run` of a shell's script, by our shim. (ctr's default of CPU shares needs a controller, which the machine may
    /// not have.)
    pub fn run(&self, options: &[&str], pod: bool, id: &str, script: &str) -> Done {
        let mut words = vec!["run", "--cpu-shares", "0", "--runtime", SHIM.0];
        words.extend(options);
        if pod {
            words.extend(["--annotation", POD]);
        }
        words.extend([IMAGE, id, "sh", "-c", script]);
        self.ctr(&words)
    }

    /// Waits until containerd has answered that many commands since it was killed last, or until it is over.
    pub fn answers(&self, count: u64, over: &AtomicBool) {
        let too_few = |answered: &mut u64| *answered < count && !over.load(Ordering::Relaxed);
        drop(self.answer.wait_while(self.answered.lock().expect("lock"), too_few));
    }

    /// Whoever waits for answers looks whether it is over.
    pub fn wake(&self) {
        let _answered = self.answered.lock().expect("lock");
        self.answer.notify_all();
    }

    /// Kills containerd and starts it again.
    pub fn kill_containerd(&self) -> Result<(), String> {
        let mut containerd = self.containerd.write().expect("lock");
        self.kills.fetch_add(1, Ordering::SeqCst);
        *self.answered.lock().expect("lock") = 0;
        self.tell("containerd is killed".into());
        containerd.daemon.kill();
        containerd.daemon.start_again()?;
        self.tell("containerd serves again".into());
        Ok(())
    }

    /// The pod's shim is connected to the containerd that serves now, and has told it something.
    pub fn warm_up(&self) -> Result<(), String> {
        let done = self.ctr(&["task", "exec", "--exec-id", "warm", KEEPER, "true"]);
        if done.said.status != 0 {
            return Err(format!("ctr task exec in the pod: {}", done.said.err));
        }
        self.heard.ends(KEEPER, "warm")
    }

    /// Something for the story.
    pub fn tell(&self, what: String) {
        self.story.lock().expect("lock").push(format!("{:.1?} {what}", self.began.elapsed()));
    }

    /// All that is known of the containers that a sentence names: from the story, and from containerd's log.
    pub fn about(&self, sentence: &str) -> String {
        let words = sentence.split(|c: char| !c.is_ascii_alphanumeric());
        let ids: BTreeSet<&str> =
            words.filter(|word| word.len() > 5 && word.starts_with('r') && word.contains('w')).collect();
        let named = |line: &&String| {
            ids.iter().any(|id| line.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == *id))
                || line.contains(" containerd ")
        };
        let story = self.story.lock().expect("lock");
        let log: Vec<String> =
            self.containerd.read().expect("lock").daemon.log().lines().map(String::from).collect();
        let told: Vec<&String> = story.iter().filter(named).chain(log.iter().filter(named)).collect();
        told.iter().map(|line| format!("  {line}\n")).collect()
    }

    /// The same, while nobody asks it anything: it ends as it should.
    pub fn restart_containerd(&self) -> Result<(), String> {
        let mut containerd = self.containerd.write().expect("lock");
        containerd.daemon.end();
        containerd.daemon.start_again()
    }

    /// Its process.
    pub fn containerd_pid(&self) -> i32 {
        self.containerd.read().expect("lock").daemon.pid()
    }

    /// Somebody is about to make it.
    pub fn announce(&self, container: &Arc<Container>) {
        self.containers.lock().expect("lock").push(Arc::clone(container));
        self.counted(|counts| counts.containers += 1);
    }

    /// It is no more; `ran` says whether it is certain that it was started.
    pub fn forget(&self, container: &Arc<Container>, ran: bool) {
        self.containers.lock().expect("lock").retain(|other| other.id != container.id);
        let mut gone = self.gone.lock().expect("lock");
        if container.hit.load(Ordering::SeqCst) {
            gone.hit.insert(container.id.clone());
        }
        if ran {
            gone.ran.insert(container.id.clone());
        }
    }

    /// ctr has told how a process ended.
    pub fn has_ended(&self, id: &str, exec: &str, status: u32) {
        self.gone.lock().expect("lock").statuses.push((id.into(), exec.into(), status));
    }

    /// Its shim was killed while it ran.
    pub fn is_orphaned(&self, id: &str) {
        self.orphans.lock().expect("lock").insert(id.into());
    }

    /// Those of which that was said, since this was last asked.
    pub fn forget_orphans(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.orphans.lock().expect("lock"))
    }

    /// Those that were forgotten since this was last asked. The pod's keeper is not one of them: it lives.
    pub fn forget_containers(&self) -> Gone {
        let mut gone = std::mem::take(&mut *self.gone.lock().expect("lock"));
        gone.hit.insert(KEEPER.into());
        gone
    }

    /// Those that are no more and whose shims were killed, since `forget_containers` was called.
    pub fn hit(&self) -> BTreeSet<String> {
        self.gone.lock().expect("lock").hit.clone()
    }

    /// Those whose shims may be killed.
    pub fn victims(&self) -> Vec<Arc<Container>> {
        self.containers.lock().expect("lock").iter().filter(|c| !c.pod).cloned().collect()
    }

    /// Something that should not be.
    pub fn fails(&self, sentence: String) {
        println!("{sentence}");
        self.failures.lock().expect("lock").push(sentence);
    }

    /// All of that.
    pub fn failures(&self) -> Vec<String> {
        self.failures.lock().expect("lock").clone()
    }

    /// Counts.
    pub fn counted(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut self.counts.lock().expect("lock"));
    }

    /// What was counted, in words.
    pub fn counts(&self) -> String {
        let kills = self.kills.load(Ordering::SeqCst);
        format!("{}, containerd killed {kills} times", self.counts.lock().expect("lock"))
    }

    /// The shim executes nothing for a task.
    pub fn no_runtime_was_executed(&self) -> Result<(), String> {
        match fs::read_to_string(self.folder.join("executed")) {
            Ok(text) => Err(format!("these were executed:\n{text}")),
            Err(_) => Ok(()),
        }
    }

    /// containerd's last words.
    pub fn log(&self, lines: usize) -> String {
        let text = self.containerd.read().expect("lock").daemon.log();
        let quiet = ["level=info", "devmapper", "notify stopping"];
        let all: Vec<&str> =
            text.lines().filter(|line| !quiet.iter().any(|word| line.contains(word))).collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { containers, execs, commands, shims_killed } = self;
        write!(f, "{containers} containers, {execs} execs, {commands} commands, {shims_killed} shims killed")
    }
}
