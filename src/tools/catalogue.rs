//! All tools of all servers under the names that the model says, and the choice that a job is
//! offered. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use globset::{Glob, GlobSet, GlobSetBuilder};

use super::error::ToolsError;
use super::listing::{ListedTool, Listing};
use super::names;
use crate::chat::ToolSpec;
use crate::config::{OnInterrupt, ServerConfig};

/// The most tools of one prompt; `OpenAI` refuses more.
const MAX_TOOLS: usize = 128;

/// Which tools a job wants.
#[derive(Clone, Copy, Debug, Default)]
pub struct Selection<'a> {
    /// The servers; none: all.
    pub servers: Option<&'a [String]>,
    /// Globs over the names that the model sees; empty: all.
    pub allow: &'a [String],
    /// Globs over the names that the model sees; wins over `allow`.
    pub deny: &'a [String],
}

/// What becomes of a call of a tool that was under way when its worker died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryClass {
    /// It may be made again: the tool says that this does no harm, or the configuration does.
    Safe,
    /// The model is told that its outcome is unknown.
    Tell,
    /// The job fails.
    Fail,
}

/// Where a call of an offered tool goes.
#[derive(Debug)]
pub struct Route {
    pub(super) server: Arc<str>,
    pub(super) tool: Arc<ListedTool>,
    retry: RetryClass,
    needs_approval: bool,
}

impl Route {
    /// The server's name.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The tool's own name.
    #[must_use]
    pub fn tool(&self) -> &str {
        &self.tool.name
    }

    /// What the tool takes, as its server lists it: the model is shown a form of it that every
    /// provider reads.
    #[must_use]
    pub fn input_schema(&self) -> &serde_json::Value {
        &self.tool.input_schema
    }

    /// What becomes of an interrupted call.
    #[must_use]
    pub fn retry(&self) -> RetryClass {
        self.retry
    }

    /// Whether a person has to say so before it is called.
    #[must_use]
    pub fn needs_approval(&self) -> bool {
        self.needs_approval
    }
}

/// The tools that a job may use, frozen for the job.
#[derive(Debug)]
pub struct Offer {
    specs: Arc<[ToolSpec]>,
    routes: HashMap<String, Arc<Route>>,
    missing: Vec<String>,
    too_many: Option<String>,
}

impl Offer {
    /// The tools as the model sees them, in the order of their names.
    #[must_use]
    pub fn specs(&self) -> &Arc<[ToolSpec]> {
        &self.specs
    }

    /// The servers that were asked for and are down.
    #[must_use]
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// What is to be said of it if there are more tools than can be offered.
    #[must_use]
    pub fn too_many(&self) -> Option<&str> {
        self.too_many.as_deref()
    }

    /// Where a call of `name` goes, if it is offered.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Route> {
        self.routes.get(name).map(Arc::as_ref)
    }
}

/// All tools that there are right now.
#[derive(Debug)]
pub(super) struct Catalogue {
    entries: Vec<(ToolSpec, Arc<Route>)>,
}

impl Catalogue {
    /// The tools of `servers` that their configurations let through.
    pub(super) fn new(servers: &[(&ServerConfig, Arc<Listing>)]) -> Self {
        let mut found = Vec::new();
        for (config, listing) in servers {
            let filter = Filter::new(&config.allow, &config.deny);
            // Both were read when the configuration was.
            let (Ok(filter), Ok(held)) = (filter, globs(&config.approval)) else {
                continue;
            };
            let server: Arc<str> = config.name.as_str().into();
            for tool in listing.tools.iter().filter(|tool| filter.lets(&tool.name)) {
                let needs_approval = held.is_match(&tool.name);
                let route = (Arc::clone(&server), Arc::clone(tool), needs_approval);
                found.push((*config, route));
            }
        }
        let full: Vec<_> = found
            .iter()
            .map(|(config, (server, tool, _))| {
                (config.prefixed.then_some(&**server), &tool.name[..])
            })
            .collect();
        let names = names::assign(&full);
        let mut entries: Vec<_> = names
            .into_iter()
            .zip(&found)
            .map(|(name, (config, (server, tool, needs_approval)))| {
                let route = Route {
                    server: Arc::clone(server),
                    tool: Arc::clone(tool),
                    retry: retry_class(tool, config.on_interrupt),
                    needs_approval: *needs_approval,
                };
                let spec = ToolSpec {
                    name,
                    description: tool.description.clone(),
                    schema: Arc::clone(&tool.schema.shown),
                };
                (spec, Arc::new(route))
            })
            .collect();
        entries.sort_by(|one, other| one.0.name.cmp(&other.0.name));
        // Only a tool that is made to look like another's hashed name gets this far.
        entries.dedup_by(|one, other| one.0.name == other.0.name);
        Self { entries }
    }

    /// What a job is offered; `missing` are the servers of its choice that are down.
    ///
    /// # Errors
    /// A glob that cannot be read.
    pub(super) fn offer(
        &self,
        selection: &Selection<'_>,
        missing: Vec<String>,
    ) -> Result<Offer, ToolsError> {
        let filter = Filter::new(selection.allow, selection.deny)?;
        let chosen = |route: &Route| {
            selection
                .servers
                .is_none_or(|servers| servers.iter().any(|name| **name == *route.server))
        };
        let fits: Vec<_> = self
            .entries
            .iter()
            .filter(|(spec, route)| chosen(route) && filter.lets(&spec.name))
            .collect();
        let too_many = fits.get(MAX_TOOLS).map(|(first, _)| {
            format!(
                "{} tools could be offered and models take no more than {MAX_TOOLS}: those from {:?} on, by name, are left out. \
                 Choose: `allow` and `deny` of a server, `tools.servers`, `tools.allow` and `tools.deny` of a job",
                fits.len(), first.name
            )
        });
        if let Some(too_many) = &too_many {
            tracing::warn!("{too_many}");
        }
        let fits = fits.into_iter().take(MAX_TOOLS);
        let (specs, routes): (Vec<_>, HashMap<_, _>) = fits
            .map(|(spec, route)| (spec.clone(), (spec.name.clone(), Arc::clone(route))))
            .unzip();
        Ok(Offer {
            specs: specs.into(),
            routes,
            missing,
            too_many,
        })
    }
}

fn retry_class(tool: &ListedTool, on_interrupt: OnInterrupt) -> RetryClass {
    if tool.repeatable {
        return RetryClass::Safe;
    }
    match on_interrupt {
        OnInterrupt::Retry => RetryClass::Safe,
        OnInterrupt::Tell => RetryClass::Tell,
        OnInterrupt::Fail => RetryClass::Fail,
    }
}

/// Globs that let names through.
struct Filter {
    allow: Option<GlobSet>,
    deny: GlobSet,
}

impl Filter {
    fn new(allow: &[String], deny: &[String]) -> Result<Self, ToolsError> {
        let allow = if allow.is_empty() {
            None
        } else {
            Some(globs(allow)?)
        };
        Ok(Self {
            allow,
            deny: globs(deny)?,
        })
    }

    fn lets(&self, name: &str) -> bool {
        self.allow.as_ref().is_none_or(|allow| allow.is_match(name)) && !self.deny.is_match(name)
    }
}

fn globs(patterns: &[String]) -> Result<GlobSet, ToolsError> {
    let mut set = GlobSetBuilder::new();
    let bad = |glob: &str, error: &globset::Error| ToolsError::BadGlob {
        glob: glob.to_owned(),
        reason: error.kind().to_string(),
    };
    for pattern in patterns {
        set.add(Glob::new(pattern).map_err(|error| bad(pattern, &error))?);
    }
    set.build()
        .map_err(|error| bad(&patterns.join(", "), &error))
}
