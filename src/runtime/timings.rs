//! `--timings`: where a start spent its time. rcrun notes when it has done something, and init, where it was told to, when
//! each of its steps began (docs/adr/0021). Off, it costs the look at one flag. Uses: error, plan, words.

use crate::error::CallContext;
use crate::plan::Plan;
use crate::{Result, words};
use rcrun_plan::image::STAMP_SIZE;
use rustix::fs::MemfdFlags;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

static ON: AtomicBool = AtomicBool::new(false);
static NOTES: Mutex<Notes> =
    Mutex::new(Notes { last: 0, rows: Vec::new(), meanwhile: Vec::new(), stamps: None });

/// What was noted by now.
struct Notes {
    /// When the last thing was done.
    last: u64,
    rows: Vec<Row>,
    meanwhile: Vec<Row>,
    stamps: Option<OwnedFd>,
}

/// Something that took time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// `rcrun` or `init`.
    pub who: &'static str,
    /// The place in config.json that asks for it; may be empty.
    pub pointer: String,
    /// What was done.
    pub what: String,
    /// How long it took.
    pub nanoseconds: u64,
}

/// Where the time went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// All of it.
    pub nanoseconds: u64,
    /// One after the other: together they are all of it.
    pub steps: Vec<Row>,
    /// What rcrun did while init worked.
    pub meanwhile: Vec<Row>,
}

/// A clock that is the same in each time namespace; the clocks that never jump are not (time_namespaces(7)).
fn now() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn notes() -> MutexGuard<'static, Notes> {
    NOTES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on it is noted.
pub fn begin() {
    notes().last = now();
    ON.store(true, Ordering::Relaxed);
}

fn on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// `what` has been done since the mark before.
#[inline]
pub fn mark(what: &str) {
    if on() {
        note(what);
    }
}

#[cold]
fn note(what: &str) {
    let now = now();
    let mut notes = notes();
    let nanoseconds = now.saturating_sub(notes.last);
    notes.rows.push(Row { who: "rcrun", pointer: String::new(), what: what.to_string(), nanoseconds });
    notes.last = now;
}

/// Notes how long `work` takes that rcrun does while init works, or waits for it.
#[inline]
pub(crate) fn meanwhile<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begun = if on() { Some(now()) } else { None };
    let done = work();
    if let Some(begun) = begun {
        let nanoseconds = now().saturating_sub(begun);
        let row = Row { who: "rcrun", pointer: String::new(), what: what.to_string(), nanoseconds };
        notes().meanwhile.push(row);
    }
    done
}

/// The memory in which init notes when the steps of `plan` begin, if it is to.
pub(crate) fn stamps(plan: &Plan) -> Result<Option<OwnedFd>> {
    if !on() {
        return Ok(None);
    }
    let name = "rcrun-timings";
    let memory = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC).call(format!("memfd_create {name}"))?;
    rustix::fs::ftruncate(&memory, (plan.steps.len() * STAMP_SIZE) as u64)
        .call(format!("ftruncate {name}"))?;
    notes().stamps = Some(rustix::io::fcntl_dupfd_cloexec(&memory, 3).call(format!("dup of {name}"))?);
    Ok(Some(memory))
}

/// Init has carried out `plan`, as far as it goes before whoever called rcrun gets an answer.
pub(crate) fn init_is_done(plan: &Plan) {
    if !on() {
        return;
    }
    let end = now();
    let mut notes = notes();
    let Some(memory) = notes.stamps.take() else { return };
    let mut bytes = vec![0; plan.steps.len() * STAMP_SIZE];
    let read = rustix::io::pread(&memory, bytes.as_mut_slice(), 0).unwrap_or(0);
    let began = times(&bytes[..read]);
    let rows = of_init(plan, &began, (notes.last, end));
    notes.rows.extend(rows);
    notes.last = end;
}

/// struct timespec, one for each step; zero where it was not come to, or could not be told any more.
fn times(bytes: &[u8]) -> Vec<u64> {
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
    let stamps = bytes.chunks_exact(STAMP_SIZE).map(|stamp| (word(&stamp[..8]), word(&stamp[8..])));
    // From a process of the container's, which could write it, any number may come.
    stamps.map(|(seconds, more)| seconds.saturating_mul(1_000_000_000).saturating_add(more)).collect()
}

/// What init did between two moments: rcrun's last note, after which it bears init, and the word that it is done.
fn of_init(plan: &Plan, began: &[u64], (from, to): (u64, u64)) -> Vec<Row> {
    let known: Vec<(usize, u64)> =
        began.iter().copied().enumerate().filter(|(_, at)| (from..=to).contains(at)).collect();
    let birth = |until: u64| Row {
        who: "rcrun",
        pointer: String::new(),
        what: "clone3, exec of init".to_string(),
        nanoseconds: until.saturating_sub(from),
    };
    let Some((_, first)) = known.first() else { return vec![birth(to)] };
    let mut rows = vec![birth(*first)];
    let mut group: Option<(String, Vec<(usize, u64)>)> = None;
    let ends = known.iter().skip(1).map(|(_, at)| *at).chain([to]);
    for ((step, at), end) in known.iter().zip(ends) {
        let place = place(plan.steps.get(*step).map_or("", |planned| planned.origin.as_str()));
        let took = (*step, end.saturating_sub(*at));
        match &mut group {
            Some((same, steps)) if *same == place => steps.push(took),
            _ => {
                rows.extend(group.take().map(|group| told(plan, group)));
                group = Some((place, vec![took]));
            }
        }
    }
    rows.extend(group.map(|group| told(plan, group)));
    rows
}

/// Steps of one part of config.json stand in one row: of a mount, of all masks, of the process.
fn place(origin: &str) -> String {
    let tokens = if origin.starts_with("/process") || origin.starts_with("/root") { 1 } else { 2 };
    origin.split('/').take(tokens + 1).collect::<Vec<_>>().join("/")
}

/// The row of a group: what took longest of it, and how many more there were.
fn told(plan: &Plan, (pointer, steps): (String, Vec<(usize, u64)>)) -> Row {
    let longest = steps.iter().max_by_key(|(_, took)| *took).map_or(0, |(step, _)| *step);
    let mut what = words::tell(plan, longest);
    match steps.len() {
        0 | 1 => {}
        2 => what += ", and 1 step more",
        count => what += &format!(", and {} steps more", count - 1),
    }
    Row { who: "init", pointer, what, nanoseconds: steps.iter().map(|(_, took)| took).sum() }
}

/// What was noted, if it was; no more is.
pub fn report() -> Option<Report> {
    if !ON.swap(false, Ordering::Relaxed) {
        return None;
    }
    let mut notes = notes();
    let (steps, meanwhile) = (std::mem::take(&mut notes.rows), std::mem::take(&mut notes.meanwhile));
    Some(Report { nanoseconds: steps.iter().map(|row| row.nanoseconds).sum(), steps, meanwhile })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcrun_plan::Step;

    #[test]
    fn what_init_did_fills_the_time_between_its_birth_and_its_word() {
        let mut plan = Plan::default();
        plan.push("/mounts/0", Step::FsOpen { kind: "proc".into() });
        plan.push("/mounts/0", Step::FsMount { attributes: 0 });
        plan.push("/mounts/1", Step::FsOpen { kind: "sysfs".into() });
        plan.push("", Step::Pivot);
        plan.push("/process/umask", Step::Umask { mask: 0o22 });
        plan.push("/process/args", Step::Execute);
        let rows = of_init(&plan, &[110, 130, 180, 200, 205, 0], (100, 250));
        let told: Vec<(&str, &str, u64)> =
            rows.iter().map(|row| (row.who, row.pointer.as_str(), row.nanoseconds)).collect();
        let expected = [
            ("rcrun", "", 10),
            ("init", "/mounts/0", 70),
            ("init", "/mounts/1", 20),
            ("init", "", 5),
            ("init", "/process", 45),
        ];
        assert_eq!(told, expected);
        assert_eq!(rows[1].what, "make the new proc, and 1 step more".replace("new ", ""));
        assert_eq!(rows.iter().map(|row| row.nanoseconds).sum::<u64>(), 150);
        // Nothing that a container may have written there is believed: times before and after are left out.
        let rows = of_init(&plan, &[u64::MAX, 5, 0, 0, 0, 0], (100, 250));
        assert_eq!((rows.len(), rows[0].nanoseconds), (1, 150));
    }

    #[test]
    fn a_stamp_is_a_timespec() {
        let bytes: Vec<u8> =
            [1_u64, 5, 0, 0, u64::MAX, 7].iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(times(&bytes), [1_000_000_005, 0, u64::MAX]);
    }
}
