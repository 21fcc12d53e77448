//! A process of a tool server, ready to be called.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::{CancellationToken, DropGuard};

use super::child::{Child, Vitals, hint};
use super::core::Core;
use super::era::Era;
use super::error::{StartError, Stillborn};
use super::http::{self, Remote};
use super::line::LineSession;
use super::mcp::{McpSession, Pipes};
use super::session::{Answer, CallError, Halt, Listed, Request, Session};
use crate::config::{PoolConfig, Protocol, StdioConfig, Transport};

/// A process, or a session with a server elsewhere, that has shaken hands and listed its tools.
#[derive(Debug)]
pub(super) struct Process {
    // Dropped first, so that the process sees its input end before it is told to.
    session: Session,
    link: Link,
    calls: AtomicU64,
    retired: AtomicBool,
    _news: Option<DropGuard>,
    born: Instant,
    ready: Ready,
}

/// What the session runs over. Dropping it ends the process, or the session with its server.
#[derive(Debug)]
enum Link {
    Child(Child),
    Remote(Remote),
}

impl Link {
    fn ended(&self) -> &CancellationToken {
        match self {
            Self::Child(child) => child.ended(),
            Self::Remote(remote) => remote.ended(),
        }
    }

    fn is_usable(&self) -> bool {
        match self {
            Self::Child(child) => !child.ended().is_cancelled(),
            Self::Remote(remote) => !remote.ended().is_cancelled() && !remote.is_lost(),
        }
    }

    fn hurry(&self) {
        match self {
            Self::Child(child) => child.hurry(),
            // Nobody waits for its end.
            Self::Remote(_) => {}
        }
    }
}

/// Counts a process as ready for as long as it is held.
#[derive(Debug)]
struct Ready(Arc<Vitals>);

impl Ready {
    fn new(vitals: &Arc<Vitals>) -> Self {
        vitals.ready.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(vitals))
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        self.0.ready.fetch_sub(1, Ordering::Relaxed);
        self.0.lost.notify_one();
    }
}

fn slow(within: Duration) -> StartError {
    StartError::Slow(within.as_secs())
}

impl Process {
    /// Starts a process, or opens a session with a server elsewhere, and lists its tools.
    pub(super) async fn start(core: &Core, era: Era) -> Result<(Self, Listed), Stillborn> {
        let within = core.config().start_timeout;
        let (session, link, tools) = match &core.config().transport {
            Transport::Stdio(command) => Self::start_child(core, command, era).await?,
            Transport::Http(http) => {
                let opened = tokio::time::timeout(within, http::open(core, http, era)).await;
                let opened = opened.unwrap_or_else(|_elapsed| Err(slow(within)));
                let (session, remote, tools) = opened.map_err(Stillborn::silent)?;
                (session, Link::Remote(remote), tools)
            }
        };
        let news = session.news(core.changed());
        let process = Self {
            _news: news.map(|news| core.nursery().accompany(news)),
            session,
            link,
            calls: AtomicU64::new(0),
            retired: AtomicBool::new(false),
            born: Instant::now(),
            ready: Ready::new(core.vitals()),
        };
        Ok((process, tools))
    }

    async fn start_child(
        core: &Core,
        command: &StdioConfig,
        era: Era,
    ) -> Result<(Session, Link, Listed), Stillborn> {
        let config = core.config();
        let started = core.nursery().start(&config.name, command, core.vitals());
        let (child, stdin, stdout) = started.map_err(Stillborn::silent)?;
        let pipes = Pipes {
            stdin,
            stdout,
            max_line: config.max_answer_bytes(),
        };
        let ready = async {
            let session = match config.protocol {
                Protocol::Mcp => Session::Mcp(McpSession::open(pipes, core.terms(era)).await?),
                Protocol::Line => Session::Line(LineSession::new(pipes)),
            };
            let tools = session.list().await?;
            Ok((session, tools))
        };
        let ended = async {
            child.ended().cancelled().await;
            // What it said last is worth more than the fact that it ended.
            tokio::time::sleep(super::session::LAST_BYTES).await;
        };
        let started = tokio::select! {
            biased;
            started = tokio::time::timeout(config.start_timeout, ready) => {
                started.unwrap_or_else(|_elapsed| Err(slow(config.start_timeout)))
            }
            () = ended => Err(StartError::Refused("it ended".to_owned())),
        };
        match started {
            Ok((session, tools)) => Ok((session, Link::Child(child), tools)),
            Err(error) => {
                let said = Some(child.last_words().await).filter(|said| !said.is_empty());
                let told = said.into_iter().chain(hint(command));
                let last_words = told.collect::<Vec<_>>().join("\n");
                Err(Stillborn { error, last_words })
            }
        }
    }

    /// Makes one call, called off when `cancelled` is.
    pub(super) async fn call(
        &self,
        request: Request,
        cancelled: &CancellationToken,
    ) -> Result<Answer, CallError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let halt = Halt {
            cancelled,
            ended: self.link.ended(),
        };
        self.session.call(request, halt).await
    }

    /// Lists the tools again.
    pub(super) async fn list(&self, within: Duration) -> Result<Listed, StartError> {
        let listed = tokio::time::timeout(within, self.session.list()).await;
        listed.unwrap_or_else(|_elapsed| Err(slow(within)))
    }

    /// Whether it is as good as before for other calls after one that ended so.
    ///
    /// A process is not: its tool may still be running in it. A server elsewhere has many clients
    /// and keeps them apart itself.
    pub(super) fn survives(&self, error: &CallError) -> bool {
        match error {
            CallError::Refused(_) | CallError::Settled => true,
            CallError::TimedOut(_) | CallError::Silent(_) | CallError::Abandoned => {
                matches!(self.link, Link::Remote(_))
            }
            CallError::NotSent | CallError::Gone | CallError::TooLong(_) => false,
        }
    }

    /// The handshake that it wants, if there is one.
    pub(super) fn era(&self) -> Option<Era> {
        self.session.era()
    }

    /// No later call is to have it: it does not do as it should, and is ended at once when nobody
    /// has it any more.
    pub(super) fn retire(&self) {
        self.link.hurry();
        self.retired.store(true, Ordering::Relaxed);
        self.ready.0.lost.notify_one();
    }

    /// Whether it can be called.
    pub(super) fn is_usable(&self) -> bool {
        !self.retired.load(Ordering::Relaxed) && self.link.is_usable() && self.session.is_open()
    }

    /// Whether it has served its time.
    pub(super) fn is_worn(&self, pool: &PoolConfig) -> bool {
        pool.max_calls
            .is_some_and(|most| self.calls.load(Ordering::Relaxed) >= most)
            || pool.max_age.is_some_and(|most| self.born.elapsed() >= most)
    }
}
