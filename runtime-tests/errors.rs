//! The corpus of what goes wrong: broken bundles, hosts and commands, each with what rcrun's error must hold. A case runs in a
//! mount namespace of its own, so that what it breaks is its own. The tests and docs/errors.md are made of it.

mod cgroups;
mod commands;
mod configs;
mod controllers;
pub mod document;
mod hooks;
mod hosts;
mod mounts;
mod namespaces;
pub mod page;
mod programs;
pub mod scene;
mod seccomp;

use crate::runtime::Said;
use scene::{Outcome, Scene};
use std::fmt;

/// The chapters of the corpus, in the document's order, each with the sentence that opens it.
pub const PARTS: [(&str, &str); 11] = [
    ("programs", "What cannot be executed."),
    ("roots and mounts", "Roots, mount targets, sources and devices that are not what the config says."),
    ("namespaces", "Paths of namespaces that lead elsewhere, and ids that cannot be mapped."),
    ("seccomp", "Profiles that cannot be compiled, and agents that do not answer."),
    (
        "cgroups",
        "Limits, paths and trees of cgroup v2 that the kernel does not take. The machine has no controllers there.",
    ),
    (
        "controllers",
        "Limits of controllers that are there. These are met in a machine of our own (`make errors-vm`), with runc 1.1.15 and \
         crun 1.21 beside.",
    ),
    ("hooks", "Hooks that are missing, fail, or do not end."),
    ("hosts", "A machine that is full, read-only, or lacks what a start needs."),
    ("terminals and files", "Sockets, pid files and descriptors that a caller names."),
    ("verbs", "Commands on containers that are not in the state for them, and command lines that are none."),
    ("configs", "One fault in a config.json that is good otherwise."),
];

/// What rcrun's error must hold.
#[derive(Clone, Debug)]
pub struct Told {
    /// The exit status.
    pub status: i32,
    /// The stable word of its class.
    pub code: &'static str,
    /// The field: a JSON pointer; empty where the fault lies in no field.
    pub field: String,
    /// Parts of the sentence: the call, the cause, the words that engines look for, the remedy.
    pub words: Vec<&'static str>,
    /// Whether the sentence names the container. A wrong command line may name none.
    pub named: bool,
}

impl Told {
    /// Another exit status than 1.
    pub fn status(mut self, status: i32) -> Told {
        self.status = status;
        self
    }

    /// A sentence about no container.
    pub fn unnamed(mut self) -> Told {
        self.named = false;
        self
    }
}

/// Exit status 1, this class, this field, these parts of the sentence.
fn told(code: &'static str, field: &str, words: &[&'static str]) -> Told {
    Told { status: 1, code, field: field.to_string(), words: words.to_vec(), named: true }
}

type Act = Box<dyn Fn(&mut Scene) -> Said + Send + Sync>;

/// One thing that is broken.
pub struct Case {
    /// A name of `PARTS`.
    pub part: &'static str,
    /// What is broken, in words; no two cases have the same.
    pub name: &'static str,
    /// What rcrun must say.
    pub told: Told,
    /// Breaks it and runs the command.
    act: Act,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.part, self.name)
    }
}

fn case(
    part: &'static str,
    name: &'static str,
    told: Told,
    act: impl Fn(&mut Scene) -> Said + Send + Sync + 'static,
) -> Case {
    Case { part, name, told, act: Box::new(act) }
}

/// What is wrong with what a runtime made of a case, in words.
pub fn wrong(case: &Case, outcome: &Outcome) -> Option<String> {
    let Told { status, code, field, words, named } = &case.told;
    let mut wrong = Vec::new();
    if outcome.status != *status {
        wrong.push(format!("exit status {} and not {status}", outcome.status));
    }
    if outcome.code != *code {
        wrong.push(format!("code {:?} and not {code:?}", outcome.code));
    }
    if outcome.field != *field {
        wrong.push(format!("field {:?} and not {field:?}", outcome.field));
    }
    if !outcome.whole.contains(field.as_str()) {
        wrong.push("does not name its field".into());
    }
    if *named && !outcome.whole.contains(" web: ") {
        wrong.push("does not name the container".into());
    }
    wrong.extend(
        words
            .iter()
            .filter(|word| !outcome.whole.contains(**word))
            .map(|word| format!("does not say {word:?}")),
    );
    // What a hook has printed is told as it is.
    let bound = if *code == "hook" { 6000 } else { 1500 };
    if outcome.whole.contains("(os error") || outcome.whole.contains('\n') && *code != "hook" {
        wrong.push("is no sentence".into());
    }
    if outcome.whole.len() > bound {
        wrong.push(format!("has {} bytes", outcome.whole.len()));
    }
    if outcome.errors != 1 {
        wrong.push(format!("is told {} times", outcome.errors));
    }
    wrong.extend(outcome.left.iter().map(|left| format!("leaves {left}")));
    (!wrong.is_empty()).then(|| format!("{case:?}:\n    {}\n    {}", outcome.whole, wrong.join("; ")))
}

/// The cases that want the controllers of cgroup v2.
pub fn of_machines() -> Vec<Case> {
    controllers::cases()
}

/// All cases that any machine can show, in the document's order.
pub fn corpus() -> Vec<Case> {
    let all = [
        programs::cases(),
        mounts::cases(),
        namespaces::cases(),
        seccomp::cases(),
        cgroups::cases(),
        hooks::cases(),
        hosts::cases(),
        commands::cases(),
        configs::cases(),
    ];
    let mut all: Vec<Case> = all.into_iter().flatten().collect();
    let place = |case: &Case| PARTS.iter().position(|(name, _)| *name == case.part);
    all.sort_by_key(place);
    all
}
