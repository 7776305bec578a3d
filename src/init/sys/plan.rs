//! The plan in memory: a private mapping of the sealed memfd, in which offsets become the pointers that execve(2) wants.
#![allow(unsafe_code)]

use super::{
    Failure, Fd, Result, call,
    errno::{EBADF, EINVAL},
    file, n,
    numbers::*,
};
use core::ffi::{CStr, c_char};
use rcrun_plan::{
    Slot,
    image::{Header, NO_HOME, STAMP_SIZE, Steps, Table},
};

/// The mapped plan. It stays mapped until execve.
pub struct Plan {
    base: *mut u8,
    header: Header,
}

/// Where init notes when its steps begin: memory that it shares with rcrun, which was asked for `--timings`.
pub struct Stamps {
    base: usize,
    steps: u32,
}

impl Stamps {
    /// Maps what the plan names, if it does, and closes it.
    pub fn map(plan: &Plan) -> Option<Self> {
        const PROT_WRITE: usize = 2;
        const MAP_SHARED: usize = 1;
        if plan.header.stamps <= 0 {
            return None;
        }
        let (fd, steps) = (Fd::own(plan.header.stamps), plan.header.steps.count);
        let size = steps as usize * STAMP_SIZE;
        // SAFETY: the kernel chooses the address of a new mapping.
        let base = unsafe { call(MMAP, [0, size, PROT_WRITE, MAP_SHARED, n(fd.raw()), 0]) }.ok()?;
        Some(Stamps { base, steps })
    }

    /// Step `number` begins.
    pub fn note(&self, number: u32) {
        const CLOCK_REALTIME: usize = 0;
        if number < self.steps {
            let at = self.base + number as usize * STAMP_SIZE;
            // SAFETY: a timespec of this step lies inside the mapping, to which nobody here has a reference.
            let _ = unsafe { call(CLOCK_GETTIME, [CLOCK_REALTIME, at, 0, 0, 0, 0]) };
        }
    }
}

impl Plan {
    /// Maps and checks what `fd` holds, and closes it.
    pub fn map(fd: Fd) -> Result<Self> {
        const PROT_READ_WRITE: usize = 3;
        const MAP_PRIVATE: usize = 2;
        let size = file::stat_fd(fd.raw())?.size as usize;
        // SAFETY: the kernel chooses the address of a new mapping.
        let base = unsafe { call(MMAP, [0, size, PROT_READ_WRITE, MAP_PRIVATE, n(fd.raw()), 0]) }? as *mut u8;
        // SAFETY: the mapping is new, `size` bytes long, never unmapped, and its file is sealed.
        let bytes: &[u8] = unsafe { core::slice::from_raw_parts(base, size) };
        let header = Header::decode(bytes).ok_or(Failure::found(EINVAL))?;
        let plan = Plan { base, header };
        for table in [header.args, header.env, header.candidates] {
            plan.turn_into_pointers(table)?;
        }
        Ok(plan)
    }

    fn turn_into_pointers(&self, table: Table) -> Result<()> {
        for i in 0..table.count as usize {
            // SAFETY: Header::decode saw that the table lies inside the mapping, 8-aligned; no reference to it exists.
            unsafe {
                let entry = self.base.add(table.offset as usize + i * 8).cast::<u64>();
                let offset = entry.read();
                if offset >= u64::from(self.header.length) {
                    return Err(Failure::found(EINVAL));
                }
                entry.write(self.base as u64 + offset);
            }
        }
        Ok(())
    }

    fn entries<T>(&self, table: Table) -> &[T] {
        // SAFETY: Header::decode saw that the table lies inside the mapping with entries of T's size, 8-aligned; tables
        // are of plain numbers, and are written to only under &mut self.
        unsafe {
            core::slice::from_raw_parts(
                self.base.add(table.offset as usize).cast::<T>(),
                table.count as usize,
            )
        }
    }

    /// The fd that a slot is, which stays in the slot. EBADF if it was taken.
    pub fn slot(&self, slot: Slot) -> Result<i32> {
        let slots: &[i32] = self.entries(self.header.slots);
        let fd = slots.get(usize::from(slot.0)).copied().ok_or(Failure::found(EINVAL))?;
        if fd < 0 { Err(Failure::found(EBADF)) } else { Ok(fd) }
    }

    /// Takes the fd out of a slot: its number may be another file's after it was closed.
    pub fn take(&mut self, slot: Slot) -> Result<Fd> {
        let fd = self.slot(slot)?;
        self.write_slot(slot, -1);
        Ok(Fd::own(fd))
    }

    /// Puts an fd that came later into an empty slot.
    pub fn fill(&mut self, slot: Slot, fd: Fd) -> Result<()> {
        match self.slot(slot) {
            Err(Failure { errno: EBADF, .. }) => {
                self.write_slot(slot, fd.into_raw());
                Ok(())
            }
            _ => Err(Failure::found(EINVAL)),
        }
    }

    /// `slot` was found inside the table.
    fn write_slot(&mut self, slot: Slot, fd: i32) {
        // SAFETY: both callers saw the entry inside the table, which lies inside the mapping; no reference to it exists.
        unsafe {
            self.base.add(self.header.slots.offset as usize).cast::<i32>().add(usize::from(slot.0)).write(fd);
        }
    }

    /// Supplementary groups.
    pub fn groups(&self) -> &[u32] {
        self.entries(self.header.groups)
    }

    /// The seccomp program.
    pub fn filter(&self) -> &[u64] {
        self.entries(self.header.filter)
    }

    /// The socket to the parent.
    pub fn parent(&self) -> i32 {
        self.header.parent
    }

    /// First fd that is not the payload's.
    pub fn first_own_fd(&self) -> u32 {
        self.header.first_own_fd
    }

    /// The steps, from the first. They do not borrow from the plan: the mapping outlives every step.
    pub fn steps(&self) -> Option<Steps<'static>> {
        // SAFETY: steps lie behind all tables that are ever written to, in a mapping that is never unmapped.
        let bytes: &'static [u8] =
            unsafe { core::slice::from_raw_parts(self.base, self.header.length as usize) };
        Steps::new(bytes, &self.header)
    }

    /// The candidates for the executable.
    pub fn candidates(&self) -> impl Iterator<Item = &CStr> {
        self.entries::<*const c_char>(self.header.candidates)
            .iter()
            // SAFETY: `map` made each entry a pointer into the mapping, where the encoder ended the text with NUL.
            .map(|pointer| unsafe { CStr::from_ptr(*pointer) })
    }

    /// execve(2) of a candidate with the plan's arguments and environment; comes back only on failure.
    pub fn execute(&mut self, candidate: usize, home: &CStr) -> Failure {
        let pointers = self.entries::<usize>(self.header.candidates);
        let Some(&path) = pointers.get(candidate) else { return Failure::found(EINVAL) };
        if self.header.args.count == 0 {
            return Failure::found(EINVAL);
        }
        let table = |table: Table| self.base as usize + table.offset as usize;
        let (args, env) = (table(self.header.args), table(self.header.env));
        // SAFETY: entry `home` lies in env, as Header::decode saw. Both tables hold pointers to texts in the mapping and
        // end with the encoder's zero entry; `home` lives during the call.
        let outcome = unsafe {
            if self.header.home != NO_HOME {
                (env as *mut usize).add(self.header.home as usize).write(super::p(home));
            }
            call(EXECVE, [path, args, env, 0, 0, 0])
        };
        outcome.err().unwrap_or(Failure::found(EINVAL))
    }
}
