//! Looking around: what a choice of services depends on, and the words for it.

use std::env;
use std::time::Duration;

use super::choice::{Choice, Facts, NoChoice, Origin, Provider, Source};
use super::kept::State;
use super::{Purpose, Request, docker, installed};
use crate::failure::Failure;
use crate::process;

/// Gathers them; Docker is asked only if it may be the answer, since that can take seconds.
pub(crate) fn gather(request: Request, kept: Option<&State>) -> Facts {
    let is_set = |name: &str| env::var(name).is_ok_and(|value| !value.is_empty());
    if request.purpose == Purpose::Victims {
        return for_victims(request.source);
    }
    let no_rabbitmq = request.purpose == Purpose::PrivatePostgres;
    let has_database_url = is_set("DATABASE_URL") && !no_rabbitmq;
    let has_amqp_url = is_set("AMQP_URL");
    let fits = kept.is_some_and(|kept| {
        let has_postgres = has_database_url || kept.database_url.is_some();
        let has_rabbitmq = no_rabbitmq || has_amqp_url || kept.amqp_url.is_some();
        has_postgres && has_rabbitmq && (kept.durable || !request.durable)
    });
    let postgres_installed = installed::postgres().is_some();
    let rabbitmq_installed = installed::rabbitmq().is_some();
    let has_postgres = has_database_url || postgres_installed;
    let enough = fits || (has_postgres && (no_rabbitmq || has_amqp_url || rabbitmq_installed));
    let docker = match request.source {
        Some(Source::Docker) => docker::answers(),
        Some(Source::Env | Source::Native | Source::Fetch) => false,
        None => !enough && docker::answers(),
    };
    let apt_counts = request.source == Some(Source::Fetch) || (!enough && !docker);
    Facts {
        no_rabbitmq,
        wanted: request.source,
        has_database_url,
        has_amqp_url,
        kept: fits,
        postgres_installed,
        rabbitmq_installed,
        docker,
        apt: apt_counts && has_apt(),
    }
}

/// Nobody else's, nothing that is kept, no container: only what this command starts as a process here may be stopped.
fn for_victims(source: Option<Source>) -> Facts {
    Facts {
        wanted: source.filter(|source| matches!(source, Source::Native | Source::Fetch)),
        postgres_installed: installed::postgres().is_some(),
        rabbitmq_installed: installed::rabbitmq().is_some(),
        apt: has_apt(),
        ..Facts::default()
    }
}

fn has_apt() -> bool {
    let has = |program| process::succeeds(program, &["--version"], Duration::from_secs(5));
    has("apt-get") && has("dpkg-deb")
}

/// One line: which, and why.
pub(crate) fn describe(choice: Choice) -> String {
    let rest = match choice.provider {
        Provider::None => return "yours, from DATABASE_URL and AMQP_URL".to_owned(),
        Provider::Kept => "the ones that `cargo xtask up` keeps",
        Provider::Native => "private instances from installed programs",
        Provider::Docker => "private containers (docker-compose.yml)",
        Provider::Fetch => {
            "private instances from the distribution's packages, unpacked, not installed"
        }
    };
    match (choice.postgres, choice.rabbitmq) {
        (Origin::External, _) => format!("PostgreSQL from DATABASE_URL; RabbitMQ: {rest}"),
        (_, Origin::External) => format!("RabbitMQ from AMQP_URL; PostgreSQL: {rest}"),
        (_, Origin::Unused) => rest.to_owned(),
        (Origin::Provided | Origin::Unused, Origin::Provided) => {
            format!("{rest} (set DATABASE_URL / AMQP_URL to use yours)")
        }
    }
}

const INSTALL: &str = "apt-get install postgresql rabbitmq-server   (dnf install postgresql-server rabbitmq-server; \
                       brew install postgresql rabbitmq)";

/// The same for servers that may be stopped.
pub(crate) fn describe_victims(choice: Choice) -> String {
    let whence = match choice.provider {
        Provider::Fetch => "the distribution's packages, unpacked, not installed",
        Provider::None | Provider::Kept | Provider::Native | Provider::Docker => {
            "installed programs"
        }
    };
    format!("a pair of their own that may be stopped and killed, from {whence}")
}

/// The error for no servers that may be stopped.
pub(crate) fn explain_victims(reason: NoChoice) -> Failure {
    let missing = match reason {
        NoChoice::NotInstalled(name) => format!("{name}'s server is not installed"),
        NoChoice::NoApt => "there is no apt-get and dpkg-deb".to_owned(),
        NoChoice::Unset(_) | NoChoice::NoDocker | NoChoice::Nothing => {
            "they are not installed, and there is no apt-get to fetch them".to_owned()
        }
    };
    Failure::NoServices(format!(
        "servers that may be stopped and killed have to run as processes of this machine (containers and servers of \
         others will not do), but {missing}\n  {INSTALL}"
    ))
}

/// The error for no choice.
pub(crate) fn explain(reason: NoChoice) -> Failure {
    let install = INSTALL;
    Failure::NoServices(match reason {
        NoChoice::Unset(name) => format!("`env` services were asked for, but {name} is not set"),
        NoChoice::NotInstalled(name) => {
            format!(
                "`native` services were asked for, but {name}'s server is not installed\n  {install}"
            )
        }
        NoChoice::NoDocker => {
            "`docker` services were asked for, but `docker info` or `docker compose version` fails"
                .to_owned()
        }
        NoChoice::NoApt => {
            "`fetch` services were asked for, but there is no apt-get and dpkg-deb".to_owned()
        }
        NoChoice::Nothing => format!(
            "RabbitMQ and PostgreSQL are needed. Three ways out:\n  \
             install them:      {install}\n  \
             or start Docker:   an engine and its compose plugin, nothing else\n  \
             or name yours:     DATABASE_URL=postgres://… AMQP_URL=amqp://…"
        ),
    })
}
