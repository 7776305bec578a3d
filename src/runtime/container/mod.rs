//! Containers on disk and the verbs of their lives. Plain functions; only what starts a process goes through a plan.

mod cgroup_place;
mod checkpoint;
mod create;
mod decide;
mod delete;
mod end;
mod events;
mod exec;
mod hooks;
mod list;
mod lock;
mod maps;
mod mounts;
mod proc_file;
mod process;
mod signal;
mod start;
mod start_socket;
mod state;
mod undo;
mod update;

pub use checkpoint::{
    Cgroups, CheckpointOptions, Images, NetworkLock, PageServer, RestoreOptions, checkpoint, restore,
};
pub use create::{Options, Run, create, run};
pub(crate) use decide::{Decision, decide};
pub use delete::{Left, delete, delete_ended};
pub use end::{End, Usage};
pub use events::{Happening, events, notices, stats};
pub use exec::{Exec, ExecOptions, exec};
pub use list::{Listed, list};
pub(crate) use maps::write as write_maps;
pub use mounts::{add_mounts, remove_mounts};
pub use process::{Process, Status};
pub use signal::{kill, pause, processes, resume};
pub use start::start;
pub use state::{Container, State, StateRoot};
pub use update::{How, Updated, update};
