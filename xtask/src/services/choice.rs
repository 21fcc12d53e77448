//! Which services to use, as a pure function of what is there.

/// A way to get services, as it is named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// `DATABASE_URL` and `AMQP_URL`.
    Env,
    /// Installed servers, as private instances.
    Native,
    /// Containers, by docker compose.
    Docker,
    /// The distribution's packages, unpacked into a cache.
    Fetch,
}

/// What was found. The slow questions are asked only when the answer may count.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent findings, each yes or no"
)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts {
    /// The command has no use for RabbitMQ.
    pub(crate) no_rabbitmq: bool,
    /// `--services` or `SERVICES`.
    pub(crate) wanted: Option<Source>,
    /// `DATABASE_URL` is set.
    pub(crate) has_database_url: bool,
    /// `AMQP_URL` is set.
    pub(crate) has_amqp_url: bool,
    /// Services of an earlier `up` answer, and fit.
    pub(crate) kept: bool,
    /// PostgreSQL's server programs are installed.
    pub(crate) postgres_installed: bool,
    /// RabbitMQ's are.
    pub(crate) rabbitmq_installed: bool,
    /// A Docker engine and its compose plugin answer.
    pub(crate) docker: bool,
    /// apt-get and dpkg-deb are there.
    pub(crate) apt: bool,
}

/// What provides the services that no URL names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Provider {
    /// Nothing is needed.
    None,
    /// The kept ones.
    Kept,
    /// Private instances of installed servers.
    Native,
    /// Containers.
    Docker,
    /// Unpacked packages.
    Fetch,
}

/// Who provides one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Somebody else, at the URL in the environment.
    External,
    /// The provider.
    Provided,
    /// Nobody: it is not used.
    Unused,
}

/// The decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Who provides PostgreSQL.
    pub(crate) postgres: Origin,
    /// Who provides RabbitMQ.
    pub(crate) rabbitmq: Origin,
    /// Where what is provided comes from.
    pub(crate) provider: Provider,
}

/// Why there is no choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoChoice {
    /// `--services env`, but this variable is not set.
    Unset(&'static str),
    /// `--services native`, but this is not installed.
    NotInstalled(&'static str),
    /// `--services docker`, but no engine with compose answers.
    NoDocker,
    /// `--services fetch`, but there is no apt.
    NoApt,
    /// Nothing at all.
    Nothing,
}

/// Decides. A wanted source is taken or is an error, never replaced by another.
pub(crate) fn decide(facts: &Facts) -> Result<Choice, NoChoice> {
    let mut choice = Choice {
        postgres: Origin::Provided,
        rabbitmq: if facts.no_rabbitmq {
            Origin::Unused
        } else {
            Origin::Provided
        },
        provider: Provider::None,
    };
    let Some(wanted) = facts.wanted else {
        take_external(&mut choice, facts);
        choice.provider = find(facts, choice)?;
        return Ok(choice);
    };
    choice.provider = match wanted {
        Source::Env => {
            take_external(&mut choice, facts);
            match unprovided(choice) {
                Some(name) => return Err(NoChoice::Unset(name)),
                None => Provider::None,
            }
        }
        Source::Native => match missing(facts, choice) {
            Some(name) => return Err(NoChoice::NotInstalled(name)),
            None => Provider::Native,
        },
        Source::Docker if facts.docker => Provider::Docker,
        Source::Docker => return Err(NoChoice::NoDocker),
        Source::Fetch if facts.apt => Provider::Fetch,
        Source::Fetch => return Err(NoChoice::NoApt),
    };
    Ok(choice)
}

fn take_external(choice: &mut Choice, facts: &Facts) {
    if facts.has_database_url {
        choice.postgres = Origin::External;
    }
    if facts.has_amqp_url && choice.rabbitmq == Origin::Provided {
        choice.rabbitmq = Origin::External;
    }
}

fn find(facts: &Facts, choice: Choice) -> Result<Provider, NoChoice> {
    if unprovided(choice).is_none() {
        Ok(Provider::None)
    } else if facts.kept {
        Ok(Provider::Kept)
    } else if missing(facts, choice).is_none() {
        Ok(Provider::Native)
    } else if facts.docker {
        Ok(Provider::Docker)
    } else if facts.apt {
        Ok(Provider::Fetch)
    } else {
        Err(NoChoice::Nothing)
    }
}

/// The variable of the first service that nobody but a provider can give.
fn unprovided(choice: Choice) -> Option<&'static str> {
    match (choice.postgres, choice.rabbitmq) {
        (Origin::Provided, _) => Some("DATABASE_URL"),
        (Origin::External | Origin::Unused, Origin::Provided) => Some("AMQP_URL"),
        (Origin::External | Origin::Unused, Origin::External | Origin::Unused) => None,
    }
}

fn missing(facts: &Facts, choice: Choice) -> Option<&'static str> {
    if choice.postgres == Origin::Provided && !facts.postgres_installed {
        return Some("PostgreSQL");
    }
    (choice.rabbitmq == Origin::Provided && !facts.rabbitmq_installed).then_some("RabbitMQ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything() -> Facts {
        Facts {
            no_rabbitmq: false,
            wanted: None,
            has_database_url: true,
            has_amqp_url: true,
            kept: true,
            postgres_installed: true,
            rabbitmq_installed: true,
            docker: true,
            apt: true,
        }
    }

    fn provider(facts: Facts) -> Provider {
        decide(&facts).expect("a choice").provider
    }

    #[test]
    fn the_order_is_urls_kept_installed_docker_packages() {
        let mut facts = everything();
        let all_external = Choice {
            postgres: Origin::External,
            rabbitmq: Origin::External,
            provider: Provider::None,
        };
        assert_eq!(decide(&facts), Ok(all_external));
        (facts.has_database_url, facts.has_amqp_url) = (false, false);
        assert_eq!(provider(facts), Provider::Kept);
        facts.kept = false;
        assert_eq!(provider(facts), Provider::Native);
        facts.rabbitmq_installed = false;
        assert_eq!(provider(facts), Provider::Docker);
        facts.docker = false;
        assert_eq!(provider(facts), Provider::Fetch);
        facts.apt = false;
        assert_eq!(decide(&facts), Err(NoChoice::Nothing));
    }

    #[test]
    fn one_url_alone_leaves_the_other_service_to_us() {
        let facts = Facts {
            has_database_url: true,
            rabbitmq_installed: true,
            ..Facts::default()
        };
        let choice = decide(&facts).expect("PostgreSQL need not be installed");
        assert_eq!(
            (choice.postgres, choice.rabbitmq),
            (Origin::External, Origin::Provided)
        );
        assert_eq!(choice.provider, Provider::Native);
    }

    #[test]
    fn a_wanted_source_is_never_replaced() {
        let wanting = |source, facts: Facts| {
            decide(&Facts {
                wanted: Some(source),
                ..facts
            })
        };
        let bare = Facts::default();
        assert_eq!(
            wanting(
                Source::Native,
                Facts {
                    docker: true,
                    ..bare
                }
            ),
            Err(NoChoice::NotInstalled("PostgreSQL"))
        );
        assert_eq!(
            wanting(
                Source::Docker,
                Facts {
                    docker: false,
                    ..everything()
                }
            ),
            Err(NoChoice::NoDocker)
        );
        assert_eq!(
            wanting(
                Source::Fetch,
                Facts {
                    apt: false,
                    ..everything()
                }
            ),
            Err(NoChoice::NoApt)
        );
        let no_amqp = Facts {
            has_amqp_url: false,
            ..everything()
        };
        assert_eq!(
            wanting(Source::Env, no_amqp),
            Err(NoChoice::Unset("AMQP_URL"))
        );
        let native = wanting(Source::Native, everything()).expect("a choice");
        assert_eq!(
            (native.postgres, native.provider),
            (Origin::Provided, Provider::Native),
            "even with URLs set"
        );
    }

    #[test]
    fn a_service_that_is_not_used_need_not_be_there() {
        let facts = Facts {
            no_rabbitmq: true,
            has_amqp_url: true,
            postgres_installed: true,
            ..Facts::default()
        };
        let choice = decide(&facts).expect("RabbitMQ is of no interest");
        assert_eq!(
            (choice.postgres, choice.rabbitmq),
            (Origin::Provided, Origin::Unused)
        );
        assert_eq!(choice.provider, Provider::Native);
    }
}
