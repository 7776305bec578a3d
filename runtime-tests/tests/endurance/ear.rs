//! What containerd tells whoever listens to it, which is `ctr events`. Of a container whose shim was killed its end is
//! containerd's to tell. Uses place.

use crate::place::{NAMESPACE, Place};
use runtime_tests::containerd;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Child;

/// How often is asked for something that comes, each time by `ctr`, which takes its time.
const LOOKS: usize = 300;

/// One who listens until he is dropped. He hears nothing of a containerd that is started anew.
pub struct Ear {
    child: Child,
    heard: PathBuf,
}

impl Ear {
    /// He listens when this returns.
    pub fn new(place: &Place) -> Result<Ear, String> {
        let heard = place.logs.with_file_name("events");
        let file = fs::File::create(&heard).map_err(|e| format!("create {}: {e}", heard.display()))?;
        let mut command = containerd::ctr(NAMESPACE, ["events"]);
        let child = command.stdout(file).spawn().map_err(|e| format!("execute ctr events: {e}"))?;
        let ear = Ear { child, heard };
        ear.comes(place, || !ear.text().is_empty())
            .then_some(())
            .ok_or("ctr events hears nothing of containerd".to_string())?;
        Ok(ear)
    }

    /// The end of each of these was told.
    pub fn has_heard_ends_of(&self, place: &Place, all: &BTreeSet<String>) -> Result<(), String> {
        let untold = || -> Vec<String> {
            let text = self.text();
            let ends: Vec<&str> = text.lines().filter(|line| line.contains(" /tasks/exit ")).collect();
            let told = |id: &String| {
                let field = format!("\"container_id\":\"{id}\"");
                ends.iter().any(|line| line.contains(&field))
            };
            all.iter().filter(|id| !told(id)).cloned().collect()
        };
        match self.comes(place, || untold().is_empty()) {
            true => Ok(()),
            false => Err(format!(
                "their shims were killed, and containerd has not told that they ended: {:?}",
                untold()
            )),
        }
    }

    /// Makes containerd tell something, until this is so.
    fn comes(&self, place: &Place, is_so: impl Fn() -> bool) -> bool {
        (0..LOOKS).any(|turn| {
            place.ctr(&["namespaces", "label", NAMESPACE, &format!("turn={turn}")]);
            is_so()
        })
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.heard).unwrap_or_default()
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
