//! The allocator of rcrun's own program: dlmalloc over memory that is mapped with its pages present.
#![allow(unsafe_code)]

use dlmalloc::{Allocator, Dlmalloc};
use std::alloc::{GlobalAlloc, Layout};
use std::sync::Mutex;

/// For `#[global_allocator]`. musl's own maps and unmaps a page or two at a time, sixty calls in a start; and a start
/// touches most of what it maps, so that asking for the pages at once saves a fault for each.
pub struct Populated(Mutex<Dlmalloc<Mapped>>);

impl Populated {
    /// Empty.
    pub const fn new() -> Self {
        Populated(Mutex::new(Dlmalloc::new_with_allocator(Mapped)))
    }
}

impl Default for Populated {
    fn default() -> Self {
        Populated::new()
    }
}

/// Memory from mmap(2).
struct Mapped;

// SAFETY: alloc gives a fresh private mapping of the size asked for, free unmaps exactly such a one.
unsafe impl Allocator for Mapped {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        // Only the smallest step of growth is sure to be used: a larger one is a large file's buffer or the stack of a child,
        // of which a page or two is touched.
        let populate = if size <= 64 << 10 { libc::MAP_POPULATE } else { 0 };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | populate;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), size, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
        };
        if at == libc::MAP_FAILED { (std::ptr::null_mut(), 0, 0) } else { (at.cast(), size, 0) }
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        std::ptr::null_mut()
    }

    fn free_part(&self, _: *mut u8, _: usize, _: usize) -> bool {
        false
    }

    fn free(&self, at: *mut u8, size: usize) -> bool {
        // SAFETY: dlmalloc gives back whole mappings of `alloc`.
        unsafe { libc::munmap(at.cast(), size) == 0 }
    }

    fn can_release_part(&self, _: u32) -> bool {
        false
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        4096
    }
}

// SAFETY: every call goes to dlmalloc under the lock; a lock that is poisoned by a panic aborts the program anyway.
unsafe impl GlobalAlloc for Populated {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Ok(mut heap) = self.0.lock() else { return std::ptr::null_mut() };
        // SAFETY: dlmalloc takes any size and alignment of a Layout.
        unsafe { heap.malloc(layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Ok(mut heap) = self.0.lock() else { return std::ptr::null_mut() };
        // SAFETY: as alloc.
        unsafe { heap.calloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if let Ok(mut heap) = self.0.lock() {
            // SAFETY: the caller gives what alloc gave, with its layout.
            unsafe { heap.free(at, layout.size(), layout.align()) }
        }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Ok(mut heap) = self.0.lock() else { return std::ptr::null_mut() };
        // SAFETY: as dealloc and alloc.
        unsafe { heap.realloc(at, layout.size(), layout.align(), size) }
    }
}
