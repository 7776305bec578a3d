//! The events that this process waits for, on one thread: ends of processes, bytes to move, what the OOM killer does. Each
//! has a function that says what it waits for next. Knows no containers.

use rcrun_runtime::Result;
use rcrun_runtime::error::CallContext;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

/// What to wait for after an event.
pub enum Next {
    /// The same.
    Same,
    /// Another descriptor.
    Other(Arc<OwnedFd>, EventFlags),
    /// Nothing more.
    Nothing,
}

/// Is called when its descriptor is ready.
pub type React = Box<dyn FnMut() -> Next + Send>;

/// Names something that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(u64);

struct Waiting {
    fd: Arc<OwnedFd>,
    react: React,
}

#[derive(Default)]
struct Table {
    last: u64,
    /// Empty while it is called.
    all: HashMap<u64, Option<Waiting>>,
}

/// All that is waited for.
pub struct Watches {
    epoll: OwnedFd,
    table: Mutex<Table>,
}

impl Watches {
    /// Nothing yet.
    pub fn new() -> Result<Watches> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).call("epoll_create")?;
        Ok(Watches { epoll, table: Mutex::new(Table::default()) })
    }

    /// Calls `react` when `fd` is ready for `flags`, from any thread's point of view at once.
    pub fn add(&self, fd: Arc<OwnedFd>, flags: EventFlags, react: React) -> Result<Token> {
        let mut table = self.table();
        table.last += 1;
        let token = table.last;
        epoll::add(&self.epoll, &fd, EventData::new_u64(token), flags).call("epoll_ctl")?;
        table.all.insert(token, Some(Waiting { fd, react }));
        Ok(Token(token))
    }

    /// Waits for it no more. Its function and what that holds are dropped, at once or when it returns.
    pub fn remove(&self, token: Token) {
        let removed = self.table().all.remove(&token.0);
        if let Some(Some(waiting)) = removed {
            let _ = epoll::delete(&self.epoll, &waiting.fd);
        }
    }

    /// Lets go of all: nobody waits for anything any more, and who is connected hears of the end.
    pub fn clear(&self) {
        // What goes may want to remove something itself.
        let all = std::mem::take(&mut self.table().all);
        for waiting in all.values().flatten() {
            let _ = epoll::delete(&self.epoll, &waiting.fd);
        }
    }

    /// Waits once, and calls what is ready.
    pub fn turn(&self) -> Result<()> {
        let mut events: [std::mem::MaybeUninit<Event>; 16] = [const { std::mem::MaybeUninit::uninit() }; 16];
        let ready = match epoll::wait(&self.epoll, &mut events, None) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            other => other.call("epoll_wait")?.0,
        };
        for event in ready {
            self.call(Token(event.data.u64()));
        }
        Ok(())
    }

    /// Calls what waits under this name, ready or not. Only for the thread that waits, and not from that function itself.
    pub fn call(&self, Token(token): Token) {
        let taken = self.table().all.get_mut(&token).and_then(Option::take);
        let Some(mut waiting) = taken else { return };
        let next = (waiting.react)();
        let mut table = self.table();
        // Removed meanwhile, perhaps by its own function.
        let still = table.all.contains_key(&token);
        let went_on = match next {
            Next::Same if still => true,
            Next::Other(fd, flags) if still => {
                let _ = epoll::delete(&self.epoll, &waiting.fd);
                waiting.fd = fd;
                epoll::add(&self.epoll, &waiting.fd, EventData::new_u64(token), flags).is_ok()
            }
            _ => false,
        };
        if went_on {
            table.all.insert(token, Some(waiting));
        } else {
            table.all.remove(&token);
            let _ = epoll::delete(&self.epoll, waiting.fd.as_fd());
            drop(table);
            // Not under the lock: what it holds may add or remove others as it goes.
            drop(waiting);
        }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
