//! RabbitMQ and PostgreSQL for a command: found or started, and stopped again.
//!
//! [`choice`] decides where they come from; [`postgres`] and [`rabbitmq`] start private ones from programs that
//! [`installed`] finds or [`fetch`] unpacks; [`docker`] asks compose; [`external`] checks what URLs name; [`kept`]
//! remembers what outlives a command. Does not know what the services are used for.

pub(crate) mod choice;
mod docker;
mod external;
mod facts;
mod fetch;
mod installed;
pub(crate) mod kept;
mod place;
pub(crate) mod postgres;
mod provision;
pub(crate) mod rabbitmq;
mod script;
pub(crate) mod user;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

use choice::{Choice, Origin, Provider, Source};
use docker::Project;
use place::{Place, RunDirectory};
use provision::Provisioned;
use user::User;

use crate::failure::Failure;
use crate::guard::Guard;
use crate::process::Daemon;
use crate::{paths, process, report, sys};

/// A service that was started.
pub(crate) struct Started {
    version: String,
    address: String,
    url: String,
    /// Of the server itself, if it runs here.
    pid: Option<u32>,
    /// The program that stops it and starts it again, if others may.
    control: Option<PathBuf>,
    took: Duration,
    daemons: Vec<Daemon>,
}

/// The programs with which servers are stopped and started by those who may.
#[derive(Debug)]
pub(crate) struct Controls {
    /// `pg_ctl`: `stop -m fast`, `start`.
    pub(crate) postgres: PathBuf,
    /// `rabbitmqctl`: `stop_app`, `start_app`, `close_all_connections`.
    pub(crate) rabbitmq: PathBuf,
}

const STOPPED: &str = "services stopped, nothing left running";
const KEPT: &str = "services are kept, to stop them: cargo xtask down";
const THEIRS: &str = "your services are left as they were";

/// What services are wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To work with both.
    Both,
    /// For a script on a PostgreSQL that is ours in any case.
    PrivatePostgres,
    /// To be stopped, killed and restarted: nobody else's, and not to be kept.
    Victims,
}

/// What a command wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// Which services.
    pub(crate) purpose: Purpose,
    /// `--services`.
    pub(crate) source: Option<Source>,
    /// Write to disk as a real installation does.
    pub(crate) durable: bool,
    /// Let them outlive the command.
    pub(crate) keep: bool,
}

/// Services that are on their way, so that something else can be done meanwhile.
pub(crate) struct Starting {
    choice: Choice,
    request: Request,
    guard: Guard,
    place: Option<(Place, Option<RunDirectory>)>,
    work: Option<JoinHandle<Result<Provisioned, Failure>>>,
    kept: Option<kept::State>,
    _lock: Option<std::fs::File>,
}

/// Services that answer. Dropping this stops those which were started for this command alone.
pub(crate) struct Services {
    /// For the child's environment.
    pub(crate) database_url: String,
    /// For the child's environment.
    pub(crate) amqp_url: String,
    /// Of a server that is ours and runs here.
    pub(crate) postgres_pid: Option<u32>,
    /// Of the Erlang machine.
    pub(crate) rabbitmq_pid: Option<u32>,
    /// What became of them, once they are finished: the end of a command's last line.
    pub(crate) epilogue: &'static str,
    /// Of servers that may be stopped.
    pub(crate) controls: Option<Controls>,
    daemons: Vec<Daemon>,
    project: Option<Project>,
    directory: Option<RunDirectory>,
}

impl Request {
    fn place(
        self,
        base: &Path,
        user: Option<User>,
        guard: &Guard,
    ) -> Result<(Place, Option<RunDirectory>), Failure> {
        if self.keep {
            return Ok((Place::kept(base, self.durable, user, guard)?, None));
        }
        let (place, directory) = if self.purpose == Purpose::Victims {
            Place::of_victims(base, user, guard)?
        } else {
            Place::throw_away(base, self.durable, user, guard)?
        };
        Ok((place, Some(directory)))
    }
}

impl Controls {
    fn of(ready: &mut Provisioned) -> Option<Self> {
        Some(Self {
            postgres: ready.postgres.as_mut()?.control.take()?,
            rabbitmq: ready.rabbitmq.as_mut()?.control.take()?,
        })
    }
}

/// Whoever started PostgreSQL last is none of our children: it is stopped by the number that it wrote down.
impl Drop for Controls {
    fn drop(&mut self) {
        let mut stop = Command::new(&self.postgres);
        drop(process::capture(stop.args(["stop", "-m", "immediate"])));
    }
}

impl Starting {
    /// Decides, says so, and starts what is to be started.
    pub(crate) fn begin(request: Request, guard: &Guard) -> Result<Self, Failure> {
        let user = user::for_postgres()?;
        let base = paths::services(user.as_ref())?;
        let lock = if request.keep {
            Some(kept::lock(&base)?)
        } else {
            None
        };
        let kept = kept::State::read(&base).filter(kept::State::answers);
        let facts = facts::gather(request, kept.as_ref());
        let choice = if request.purpose == Purpose::Victims {
            let choice = choice::decide(&facts).map_err(facts::explain_victims)?;
            report::line("victims", &facts::describe_victims(choice));
            choice
        } else {
            let choice = choice::decide(&facts).map_err(facts::explain)?;
            report::line("services", &facts::describe(choice));
            provision::check_external(choice)?;
            choice
        };
        let mut starting = Self {
            choice,
            request,
            guard: guard.clone(),
            place: None,
            work: None,
            kept: None,
            _lock: lock,
        };
        match choice.provider {
            Provider::None => {}
            Provider::Kept => starting.kept = kept,
            Provider::Native | Provider::Docker | Provider::Fetch => {
                let (place, directory) = request.place(&base, user, guard)?;
                let theirs = place.clone();
                starting.work = Some(std::thread::spawn(move || provision::run(choice, &theirs)));
                starting.place = Some((place, directory));
            }
        }
        Ok(starting)
    }

    /// Waits until they answer.
    pub(crate) fn wait(mut self) -> Result<Services, Failure> {
        let Some(work) = self.work.take() else {
            return Ok(self.without_work());
        };
        let joined = work
            .join()
            .map_err(|_panic| Failure::Failed("the thread that starts services died".to_owned()))?;
        let place = self.place.take();
        let mut ready = match joined {
            Ok(ready) => ready,
            Err(failure) => {
                let directory = place.and_then(|(_, directory)| directory);
                if !matches!(failure, Failure::Interrupted) {
                    save_logs(directory.as_ref());
                }
                return Err(failure);
            }
        };
        if self.request.keep
            && let Some((place, _)) = &place
        {
            kept::State::of(&ready, place.durable).write(place)?;
            ready.keep();
            self.guard.keep_directory(&place.directory);
        }
        let directory = place.and_then(|(_, directory)| directory);
        Ok(Services {
            database_url: Self::url(ready.postgres.as_ref(), "DATABASE_URL"),
            amqp_url: Self::url(ready.rabbitmq.as_ref(), "AMQP_URL"),
            postgres_pid: ready.postgres.as_ref().and_then(|started| started.pid),
            rabbitmq_pid: ready.rabbitmq.as_ref().and_then(|started| started.pid),
            epilogue: if self.request.keep { KEPT } else { STOPPED },
            controls: Controls::of(&mut ready),
            daemons: ready.daemons(),
            project: ready.project.take(),
            directory,
        })
    }

    /// Somebody else's, or kept ones, or a mix.
    fn without_work(&self) -> Services {
        let kept = self.kept.clone().unwrap_or_default();
        let url = |origin: Origin, of_kept: Option<&String>, variable: &str| match (origin, of_kept)
        {
            (Origin::Provided, Some(url)) => url.clone(),
            (Origin::External, _) | (Origin::Provided, None) => {
                std::env::var(variable).unwrap_or_default()
            }
            (Origin::Unused, _) => String::new(),
        };
        let provided =
            |origin: Origin, pid: Option<u32>| pid.filter(|_| origin == Origin::Provided);
        let amqp_url = url(self.choice.rabbitmq, kept.amqp_url.as_ref(), "AMQP_URL");
        let database_url = url(
            self.choice.postgres,
            kept.database_url.as_ref(),
            "DATABASE_URL",
        );
        let is_kept = self.choice.provider == Provider::Kept;
        Services {
            database_url,
            amqp_url,
            postgres_pid: provided(self.choice.postgres, kept.pid("postgres")),
            rabbitmq_pid: provided(self.choice.rabbitmq, kept.pid("rabbitmq")),
            epilogue: if is_kept { KEPT } else { THEIRS },
            controls: None,
            daemons: Vec::new(),
            project: None,
            directory: None,
        }
    }

    fn url(started: Option<&Started>, variable: &str) -> String {
        started.map_or_else(
            || std::env::var(variable).unwrap_or_default(),
            |started| started.url.clone(),
        )
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            sys::give_up();
            drop(work.join());
        }
    }
}

impl Services {
    /// Stops what is ours. `failed`: the logs are moved to where they stay.
    pub(crate) fn finish(self, failed: bool) {
        let Self {
            controls,
            daemons,
            project,
            directory,
            ..
        } = self;
        drop((controls, daemons, project));
        if failed && !sys::interrupted() {
            save_logs(directory.as_ref());
        }
    }
}

fn save_logs(directory: Option<&RunDirectory>) {
    if let Some(saved) = directory.and_then(RunDirectory::save_logs) {
        report::line("logs", &saved.display().to_string());
    }
}
