//! What stands in the tables: a tutorial, its steps, what a person types at a terminal, and what must come of it.
//! Uses runtime_tests for terminals.

use crate::setup::Need;
use nix::pty::openpty;
use runtime_tests::runtime::{Lines, Said, code, said};
use std::path::Path;
use std::process::{Command, Stdio};

/// Steps that belong together. Those of one tutorial follow each other; tutorials run at the same time, so that each has
/// names, ports and networks of its own.
pub struct Tutorial {
    /// A sentence.
    pub name: &'static str,
    pub steps: &'static [Step],
    /// When it changes what others use, or looks at all that there is: nothing else runs then.
    pub alone: bool,
    /// What it cannot do without.
    pub needs: &'static [Need],
    /// Whose shell it is: an ordinary user's, or root's.
    pub user: bool,
}

/// Steps that others do not mind.
pub const fn tutorial(name: &'static str, steps: &'static [Step]) -> Tutorial {
    Tutorial { name, steps, alone: false, needs: &[], user: false }
}

impl Tutorial {
    pub const fn alone(mut self) -> Tutorial {
        self.alone = true;
        self
    }

    pub const fn needs(mut self, what: &'static [Need]) -> Tutorial {
        self.needs = what;
        self
    }

    /// Typed by an ordinary user.
    pub const fn of_a_user(mut self) -> Tutorial {
        self.user = true;
        self
    }

    /// What it needs, and what its steps show that they need.
    pub fn all_needs(&self) -> impl Iterator<Item = Need> {
        let image = self.steps.iter().any(|step| step.script.contains("debian"));
        self.needs.iter().copied().chain(image.then_some(Need::Image))
    }
}

/// A command line as a shell reads it, in the tutorial's own folder, and what must come of it.
pub struct Step {
    script: &'static str,
    status: i32,
    prints: Option<&'static str>,
    says: &'static [&'static str],
    lacks: &'static [&'static str],
    typed: Option<&'static [(&'static str, &'static str)]>,
}

/// A command that ends with 0.
pub const fn step(script: &'static str) -> Step {
    Step { script, status: 0, prints: None, says: &[], lacks: &[], typed: None }
}

impl Step {
    /// It ends so.
    pub const fn ends(mut self, status: i32) -> Step {
        self.status = status;
        self
    }

    /// Its standard output is this, white space at its ends aside.
    pub const fn prints(mut self, text: &'static str) -> Step {
        self.prints = Some(text);
        self
    }

    /// All of these stand in its output or errors.
    pub const fn says(mut self, words: &'static [&'static str]) -> Step {
        self.says = words;
        self
    }

    /// None of these does.
    pub const fn lacks(mut self, words: &'static [&'static str]) -> Step {
        self.lacks = words;
        self
    }

    /// It runs at a terminal, where a person waits for the first of each pair and types the second.
    pub const fn typed(mut self, dialogue: &'static [(&'static str, &'static str)]) -> Step {
        self.typed = Some(dialogue);
        self
    }

    /// Runs it; says what is not as it must be.
    pub fn go(&self, shell: &Shell<'_>, folder: &Path) -> Result<(), String> {
        let said = match self.typed {
            None => self.plainly(shell, folder),
            // What reads a terminal panics when nothing comes, with what came before.
            Some(dialogue) => std::panic::catch_unwind(|| self.at_a_terminal(shell, folder, dialogue))
                .map_err(|what| format!("  $ {}\n  {:?}", self.script, what.downcast_ref::<String>()))?,
        };
        let all = format!("{}{}", said.out, said.err);
        let mut wrong = Vec::new();
        if said.status != self.status {
            wrong.push(format!("ends with {}, not {}", said.status, self.status));
        }
        if let Some(text) = self.prints.filter(|text| said.out.trim() != text.trim()) {
            wrong.push(format!("does not print {text:?}"));
        }
        wrong.extend(self.says.iter().filter(|w| !all.contains(**w)).map(|w| format!("does not say {w:?}")));
        wrong.extend(self.lacks.iter().filter(|w| all.contains(**w)).map(|w| format!("says {w:?}")));
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "  $ {}\n  {}\n  --- output\n{}  --- errors\n{}",
                self.script,
                wrong.join("\n  "),
                said.out,
                said.err
            )),
        }
    }

    // A step that hangs is a failure of its own, not of the whole run.
    fn limited(&self, shell: &Shell<'_>, folder: &Path, before: &[&str]) -> Command {
        let mut command = shell();
        command.args(before).args(["sh", "-ec", self.script]).current_dir(folder);
        command
    }

    // Through files: a container that lives on may hold what would be a pipe.
    fn plainly(&self, shell: &Shell<'_>, folder: &Path) -> Said {
        let [out, err] = [".out", ".err"].map(|name| folder.join(name));
        let file = |path: &Path| std::fs::File::create(path).expect("a file for what is said");
        let mut command = self.limited(shell, folder, &[]);
        let status =
            command.stdin(Stdio::null()).stdout(file(&out)).stderr(file(&err)).status().expect("timeout");
        let [out, err] = [out, err]
            .map(|path| String::from_utf8_lossy(&std::fs::read(path).expect("what was said")).into_owned());
        Said { status: code(status), out, err }
    }

    fn at_a_terminal(&self, shell: &Shell<'_>, folder: &Path, dialogue: &[(&str, &str)]) -> Said {
        let pty = openpty(None, None).expect("openpty");
        let stdio = || Stdio::from(pty.slave.try_clone().expect("dup"));
        let mut command = self.limited(shell, folder, &["setsid", "--ctty", "--wait"]);
        let command = command.stdin(stdio()).stdout(stdio()).stderr(stdio());
        let mut child = command.spawn().expect("timeout");
        *command = Command::new("true");
        drop(pty.slave);
        let mut keyboard = std::fs::File::from(pty.master.try_clone().expect("dup"));
        let mut screen = Lines::of(pty.master);
        let mut out = String::new();
        for (awaited, typed) in dialogue {
            out += &screen.until(awaited);
            std::io::Write::write_all(&mut keyboard, typed.as_bytes()).expect("type");
        }
        out += &screen.rest();
        Said { status: code(child.wait().expect("wait")), out: out.replace("\r\n", "\n"), err: String::new() }
    }
}

/// Makes the command that a step is run by.
pub type Shell<'a> = dyn Fn() -> Command + std::panic::RefUnwindSafe + 'a;

/// Runs what prepares a tutorial, which must succeed.
pub fn must(command: &mut Command) -> Result<String, String> {
    let done = said(&command.output().map_err(|e| format!("{command:?}: {e}"))?);
    match done.status {
        0 => Ok(done.out),
        status => Err(format!("{command:?} ends with {status}: {}{}", done.out, done.err)),
    }
}
