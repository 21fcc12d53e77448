//! Processes that are kept apart: one for each job, or one for each user. Calls of the same job or
//! user go to the same process, so that what it remembers is there, and to no other.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::core::{Core, Who};
use super::error::StartError;
use super::jobs::Jobs;
use super::pool::{Key, LeaseError};
use super::process::Process;
use super::seat::{Seat, Seated, start};
use crate::config::Protocol;

/// Up to the pool's size of processes.
#[derive(Clone, Debug)]
pub(super) struct Kept(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    core: Arc<Core>,
    /// A permit for each process that has not been let go.
    room: Arc<Semaphore>,
    books: Mutex<Books>,
    /// Calls that wait for room.
    waiting: AtomicUsize,
    /// Told when there is a spare process, or none could be started.
    spared: Notify,
    jobs: Arc<Jobs>,
}

#[derive(Debug, Default)]
struct Books {
    entries: HashMap<Key, Entry>,
    /// One that has served nobody yet.
    spare: Option<(Arc<Process>, OwnedSemaphorePermit)>,
    /// A spare process is being started.
    is_stocking: bool,
}

#[derive(Debug)]
struct Entry {
    seat: Seat,
    /// Servers that take lines answer one call at a time.
    turn: Arc<Semaphore>,
    /// Calls and starts under way.
    users: usize,
    used: Instant,
}

/// The hold of a call on the process of its job or user.
#[derive(Debug)]
pub(super) struct Hold {
    process: Arc<Process>,
    _turn: Option<OwnedSemaphorePermit>,
    _stay: Stay,
}

/// Keeps an entry in the books.
#[derive(Debug)]
struct Stay {
    pool: Kept,
    key: Key,
    seat: Seat,
    turn: Arc<Semaphore>,
}

impl Kept {
    pub(super) fn new(core: &Arc<Core>, jobs: &Arc<Jobs>) -> Self {
        Self(Arc::new(Inner {
            core: Arc::clone(core),
            room: Arc::new(Semaphore::new(core.config().pool.size)),
            books: Mutex::default(),
            waiting: AtomicUsize::new(0),
            spared: Notify::new(),
            jobs: Arc::clone(jobs),
        }))
    }

    /// The process of `key`.
    pub(super) async fn lease(&self, key: &Key) -> Result<Hold, LeaseError> {
        let core = &self.0.core;
        let stay = self.enter(key);
        let turn = match core.config().protocol {
            Protocol::Mcp => None,
            Protocol::Line => Arc::clone(&stay.turn).acquire_owned().await.ok(),
        };
        let mut seated = stay.seat.lock().await;
        if seated.fit(core).is_none() {
            seated.process = None;
            if seated.room.is_none() {
                *seated = self.room().await?;
            }
        }
        let process = match seated.fit(core) {
            Some(process) => process,
            None => start(core, seated, self.enter(key)).await?,
        };
        Ok(Hold {
            process,
            _turn: turn,
            _stay: stay,
        })
    }

    /// A spare process, or room for a new one.
    async fn room(&self) -> Result<Seated, LeaseError> {
        let mut waits = None;
        loop {
            let spared = self.0.spared.notified();
            if let Some(found) = self.try_room() {
                return Ok(found);
            }
            // The keeper may have the room that this waits for, and its try may take long.
            if self.0.core.has_none()
                && let Some(error) = self.0.core.refusal()
            {
                return Err(LeaseError::Start(error));
            }
            if waits.is_none() {
                // Whoever is done from here on makes room; who was done just before is found now.
                waits = Some(Waits::new(&self.0.waiting));
                continue;
            }
            tokio::select! {
                biased;
                () = spared => {}
                room = Arc::clone(&self.0.room).acquire_owned() => {
                    let room = room.map_err(|_closed| LeaseError::Closed)?;
                    return Ok(Seated { process: None, room: Some(room) });
                }
            }
        }
    }

    fn try_room(&self) -> Option<Seated> {
        let mut books = self.books();
        let (spare, is_stocking) = (books.spare.take(), books.is_stocking);
        drop(books);
        if let Some((process, room)) = spare {
            let process = self.0.core.is_fit(&process).then_some(process);
            // The keeper starts another.
            self.0.core.vitals().lost.notify_one();
            return Some(Seated {
                process,
                room: Some(room),
            });
        }
        let free = |room: &Arc<Semaphore>| Arc::clone(room).try_acquire_owned().ok();
        let room = free(&self.0.room).or_else(|| {
            // Where a spare one comes, nobody has to go.
            (!is_stocking).then(|| self.evict());
            free(&self.0.room)
        })?;
        Some(Seated {
            process: None,
            room: Some(room),
        })
    }

    /// Lets the process go of the user who has not called for longest. What a job has is not taken
    /// from it.
    fn evict(&self) {
        let mut books = self.books();
        let idle = books.entries.iter().filter(|(key, entry)| match key {
            Key::User(_) => entry.users == 0,
            Key::Job(_) | Key::Anybody => false,
        });
        let oldest = idle
            .min_by_key(|(_, entry)| entry.used)
            .map(|(key, _)| key.clone());
        let evicted = oldest.and_then(|key| books.entries.remove(&key));
        drop(books);
        drop(evicted);
    }

    /// Whether a newcomer would have to wait for a start that could be made now.
    pub(super) fn wants(&self) -> bool {
        self.books().spare.is_none() && self.0.room.available_permits() > 0
    }

    /// Starts a spare process.
    pub(super) async fn stock(&self) -> Result<(), StartError> {
        let Ok(room) = Arc::clone(&self.0.room).try_acquire_owned() else {
            return Ok(());
        };
        self.books().is_stocking = true;
        let started = self.0.core.start_process(Who::Keeper).await;
        let mut books = self.books();
        books.is_stocking = false;
        let stocked = started.map(|process| books.spare = Some((Arc::new(process), room)));
        drop(books);
        // In either case: who waits looks again.
        self.0.spared.notify_waiters();
        stocked
    }

    /// The job has ended, and so does its process, as soon as its calls have.
    pub(super) fn end(&self, key: &Key) {
        let ended = self.books().entries.remove(key);
        if ended.is_some() {
            drop(ended);
            self.0.core.vitals().lost.notify_one();
        }
    }

    /// Some process, to be asked what has nothing to do with anybody.
    pub(super) fn any(&self) -> Option<Arc<Process>> {
        let books = self.books();
        if let Some((process, _)) = &books.spare {
            return Some(Arc::clone(process));
        }
        let mut seats = books.entries.values();
        seats.find_map(|entry| entry.seat.try_lock()?.fit(&self.0.core))
    }

    /// Lets go of those that cannot be called.
    pub(super) fn purge(&self) {
        let core = &self.0.core;
        let mut books = self.books();
        let spare = books.spare.take_if(|(process, _)| !core.is_fit(process));
        let unfit: Vec<_> = books
            .entries
            .extract_if(|_, entry| entry.users == 0 && !entry.is_fit(core))
            .collect();
        drop(books);
        drop((spare, unfit));
    }

    pub(super) fn close(&self) {
        self.0.room.close();
        let books = std::mem::take(&mut *self.books());
        drop(books);
    }

    fn enter(&self, key: &Key) -> Stay {
        let mut books = self.books();
        let entry = books.entries.entry(key.clone()).or_insert_with(|| Entry {
            seat: Seat::default(),
            turn: Arc::new(Semaphore::new(1)),
            users: 0,
            used: Instant::now(),
        });
        entry.users += 1;
        Stay {
            pool: self.clone(),
            key: key.clone(),
            seat: entry.seat.clone(),
            turn: Arc::clone(&entry.turn),
        }
    }

    /// Whether an entry that nobody uses stays.
    fn stays(&self, key: &Key, entry: &Entry) -> bool {
        let wanted = match key {
            // Of a job that has ended already, this was the last call.
            Key::Job(job) => self.0.jobs.is_live(*job),
            Key::User(_) => self.0.waiting.load(Ordering::Relaxed) == 0,
            Key::Anybody => false,
        };
        wanted && entry.is_fit(&self.0.core)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn is_fit(&self, core: &Core) -> bool {
        let seated = self.seat.try_lock();
        seated.is_some_and(|seated| seated.fit(core).is_some())
    }
}

impl Hold {
    pub(super) fn process(&self) -> &Process {
        &self.process
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let mut books = self.pool.books();
        let Some(entry) = books.entries.get_mut(&self.key) else {
            return;
        };
        // Its job may have ended and have begun again.
        if !entry.seat.is(&self.seat) {
            return;
        }
        entry.users -= 1;
        entry.used = Instant::now();
        let goes = entry.users == 0 && !self.pool.stays(&self.key, entry);
        let gone = goes.then(|| books.entries.remove(&self.key));
        drop(books);
        if gone.is_some() {
            drop(gone);
            self.pool.0.core.vitals().lost.notify_one();
        }
    }
}

/// Counts a call that waits.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
