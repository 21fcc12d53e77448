//! Starting what a choice asks for, both services at once.

use std::path::PathBuf;
use std::time::Instant;

use super::choice::{Choice, Origin, Provider};
use super::docker::Project;
use super::place::Place;
use super::{Started, external, fetch, installed, postgres, rabbitmq};
use crate::failure::Failure;
use crate::process::Daemon;
use crate::{report, sys};

/// What was started; the services that a URL names are missing here.
pub(crate) struct Provisioned {
    pub(crate) postgres: Option<Started>,
    pub(crate) rabbitmq: Option<Started>,
    pub(crate) project: Option<Project>,
    /// Where unpacked packages are, if they were used.
    pub(crate) root: Option<PathBuf>,
}

impl Provisioned {
    /// From now on everything outlives this process.
    pub(crate) fn keep(&mut self) {
        for started in [&mut self.postgres, &mut self.rabbitmq]
            .into_iter()
            .flatten()
        {
            started.daemons.iter_mut().for_each(Daemon::keep);
        }
        if let Some(project) = &mut self.project {
            project.keep();
        }
    }

    /// Takes the programs out, to be held as long as they are needed.
    pub(crate) fn daemons(&mut self) -> Vec<Daemon> {
        let both = [&mut self.postgres, &mut self.rabbitmq];
        both.into_iter()
            .flatten()
            .flat_map(|started| std::mem::take(&mut started.daemons))
            .collect()
    }
}

/// Starts them, a line for each that is ready. If one fails, the other is stopped.
pub(crate) fn run(choice: Choice, place: &Place) -> Result<Provisioned, Failure> {
    match choice.provider {
        Provider::Docker => with_docker(choice, place),
        Provider::Fetch => {
            let root = fetch::unpacked()?;
            private(choice, place, Some(root))
        }
        Provider::Native | Provider::None | Provider::Kept => private(choice, place, None),
    }
}

/// Checks the services that a URL names, a line for each.
pub(crate) fn check_external(choice: Choice) -> Result<(), Failure> {
    let url = |variable| std::env::var(variable).unwrap_or_default();
    if choice.postgres == Origin::External {
        report::line(
            "postgres",
            &format!(
                "{}   from DATABASE_URL",
                external::postgres(&url("DATABASE_URL"))?
            ),
        );
    }
    if choice.rabbitmq == Origin::External {
        report::line(
            "rabbitmq",
            &format!("{}   from AMQP_URL", external::rabbitmq(&url("AMQP_URL"))?),
        );
    }
    Ok(())
}

fn private(choice: Choice, place: &Place, root: Option<PathBuf>) -> Result<Provisioned, Failure> {
    let root_path = root.as_deref();
    let (postgres, rabbitmq) = std::thread::scope(|scope| {
        let postgres = (choice.postgres == Origin::Provided).then(|| {
            scope.spawn(move || {
                let programs =
                    root_path.map_or_else(installed::postgres, installed::unpacked_postgres);
                let programs = programs.ok_or_else(|| gone("PostgreSQL"))?;
                announced("postgres", postgres::start(&programs, place), note(place))
            })
        });
        let rabbitmq = (choice.rabbitmq == Origin::Provided).then(|| {
            scope.spawn(move || {
                let programs =
                    root_path.map_or_else(installed::rabbitmq, installed::unpacked_rabbitmq);
                let programs = programs.ok_or_else(|| gone("RabbitMQ"))?;
                let logs = format!(
                    "{}   logs: {}/",
                    note(place),
                    place.directory.join("log").display()
                );
                announced("rabbitmq", rabbitmq::start(&programs, place), &logs)
            })
        });
        let join = |handle: std::thread::ScopedJoinHandle<'_, Result<Started, Failure>>| {
            handle
                .join()
                .unwrap_or_else(|_panic| Err(Failure::Failed("a thread died".to_owned())))
        };
        (postgres.map(join), rabbitmq.map(join))
    });
    // The failure that came first is the reason; the other service then merely stopped waiting.
    match (postgres.transpose(), rabbitmq.transpose()) {
        (Ok(postgres), Ok(rabbitmq)) => Ok(Provisioned {
            postgres,
            rabbitmq,
            project: None,
            root,
        }),
        (Err(Failure::Interrupted) | Ok(_), Err(reason)) | (Err(reason), _) => Err(reason),
    }
}

fn with_docker(choice: Choice, place: &Place) -> Result<Provisioned, Failure> {
    let project = Project::new(&place.guard);
    let begin = Instant::now();
    let mut wanted = Vec::new();
    if choice.postgres == Origin::Provided {
        wanted.push("postgres");
    }
    if choice.rabbitmq == Origin::Provided {
        wanted.push("rabbitmq");
    }
    project.up(&wanted)?;
    let postgres = (choice.postgres == Origin::Provided)
        .then(|| announced("postgres", project.postgres(begin), ""));
    let rabbitmq = (choice.rabbitmq == Origin::Provided)
        .then(|| announced("rabbitmq", project.rabbitmq(begin), ""));
    let (postgres, rabbitmq) = (postgres.transpose()?, rabbitmq.transpose()?);
    Ok(Provisioned {
        postgres,
        rabbitmq,
        project: Some(project),
        root: None,
    })
}

fn announced(
    label: &str,
    started: Result<Started, Failure>,
    more: &str,
) -> Result<Started, Failure> {
    match started {
        Ok(started) => {
            let took = report::seconds(started.took);
            report::line(
                label,
                &format!(
                    "{:<8} {:<16} {took}{more}",
                    started.version, started.address
                ),
            );
            Ok(started)
        }
        Err(failure) => {
            sys::give_up();
            Err(failure)
        }
    }
}

fn note(place: &Place) -> &'static str {
    if place.victims { "   a victim" } else { "" }
}

fn gone(name: &str) -> Failure {
    Failure::NoServices(format!(
        "{name}'s server programs are not where they were expected"
    ))
}
