//! Access tokens for a tool server: OAuth 2.1 with client credentials, the grant of machines.
//!
//! One token serves all sessions with a server. It is fetched once, however many need it, again
//! shortly before it expires, and again when the server refuses it. Nothing here is ever logged but
//! addresses.

mod assertion;
mod discovery;
mod grant;

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::error::HttpError;
use crate::config::{OauthConfig, Secret};
use discovery::Issuer;

/// A token that expires within this is fetched anew.
const MARGIN: Duration = Duration::from_mins(1);

/// The tokens for one server.
#[derive(Debug)]
pub(super) struct Tokens {
    config: OauthConfig,
    /// The address of the tool server.
    server: String,
    /// Locked while a token is fetched, so that it is fetched once.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    token: Option<Token>,
    issuer: Option<Issuer>,
    /// Who gave the first token: nobody else is shown the credentials.
    pinned: Option<String>,
}

/// A token as it was given.
#[derive(Clone, Debug)]
struct Token {
    text: Secret,
    /// When it is to be fetched anew, and when it is of no more use.
    expiry: Option<(Instant, Instant)>,
}

impl Token {
    fn new(text: String, lifetime: Option<Duration>, now: Instant) -> Self {
        let expiry = lifetime.map(|lifetime| {
            // A short-lived token is used for most of its life.
            let margin = MARGIN.min(lifetime / 4);
            (now + lifetime.saturating_sub(margin), now + lifetime)
        });
        Self {
            text: Secret::new(text),
            expiry,
        }
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.expiry.is_none_or(|(renew, _)| now < renew)
    }

    fn is_of_use(&self, now: Instant) -> bool {
        self.expiry.is_none_or(|(_, end)| now < end)
    }
}

impl Tokens {
    pub(super) fn new(config: OauthConfig, server: &str) -> Self {
        Self {
            config,
            server: server.to_owned(),
            state: Mutex::default(),
        }
    }

    /// The token to send. None: it is not known yet who gives one; the server's refusal will tell.
    pub(super) async fn get(&self, http: &reqwest::Client) -> Result<Option<Secret>, HttpError> {
        let mut state = self.state.lock().await;
        if let Some(token) = state
            .token
            .as_ref()
            .filter(|token| token.is_fresh(Instant::now()))
        {
            return Ok(Some(token.text.clone()));
        }
        match self.fetch(&mut state, http, None).await {
            Ok(token) => Ok(token),
            Err(error) => {
                let old = state.token.as_ref();
                let old = old.filter(|token| token.is_of_use(Instant::now()));
                let Some(old) = old else { return Err(error) };
                tracing::warn!(%error, "a token could not be renewed before its time");
                Ok(Some(old.text.clone()))
            }
        }
    }

    /// Another token than `refused`, which the server did not take; `challenge` is what it said.
    ///
    /// # Errors
    /// There is no other.
    pub(super) async fn renew(
        &self,
        http: &reqwest::Client,
        refused: Option<&Secret>,
        challenge: Option<&str>,
    ) -> Result<Secret, HttpError> {
        let mut state = self.state.lock().await;
        if let Some(token) = &state.token
            && refused.is_none_or(|refused| *refused != token.text)
        {
            // Somebody else was quicker.
            return Ok(token.text.clone());
        }
        state.token = None;
        let token = self.fetch(&mut state, http, challenge).await?;
        token.ok_or_else(|| {
            HttpError::NoToken(format!(
                "{} does not say who its authorization server is; set \"oauth\" \"issuer\" or \"token_endpoint\"",
                self.server
            ))
        })
    }

    async fn fetch(
        &self,
        state: &mut State,
        http: &reqwest::Client,
        challenge: Option<&str>,
    ) -> Result<Option<Secret>, HttpError> {
        let issuer = match state.issuer.take() {
            Some(issuer) => issuer,
            None => match discovery::find(&self.config, &self.server, http, challenge).await? {
                Some(issuer) => issuer,
                None => return Ok(None),
            },
        };
        self.pin(state, &issuer)?;
        let asked = Instant::now();
        let granted = grant::ask(&self.config, &issuer, http).await?;
        let token = Token::new(granted.access_token, granted.lifetime, asked);
        let text = token.text.clone();
        // Kept only where it gave a token: what is wrong with it may have been mended elsewhere.
        (state.token, state.issuer) = (Some(token), Some(issuer));
        Ok(Some(text))
    }

    /// A tool server that was taken over must not be able to have the credentials sent elsewhere.
    fn pin(&self, state: &mut State, issuer: &Issuer) -> Result<(), HttpError> {
        let place = issuer.place();
        match &state.pinned {
            Some(pinned) if *pinned != place => Err(HttpError::NoToken(format!(
                "{} names another authorization server than before: {place} instead of {pinned}; if that is right, set \"oauth\" \"issuer\" or start again",
                self.server
            ))),
            Some(_) => Ok(()),
            None => {
                if issuer.is_strange(&self.server) && !self.config.names_its_server() {
                    tracing::warn!(
                        server = self.server,
                        issuer = place,
                        "a tool server elsewhere says who gets the client's credentials; \"oauth\" \"issuer\" would pin it down"
                    );
                }
                state.pinned = Some(place);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_before_it_expires_and_used_until_it_does() {
        let now = Instant::now();
        let after = |secs| now + Duration::from_secs(secs);
        let long = Token::new("t".to_owned(), Some(Duration::from_hours(1)), now);
        assert!(long.is_fresh(after(3539)) && !long.is_fresh(after(3540)));
        assert!(long.is_of_use(after(3599)) && !long.is_of_use(after(3600)));
        let short = Token::new("t".to_owned(), Some(Duration::from_secs(8)), now);
        assert!(short.is_fresh(after(5)) && !short.is_fresh(after(6)));
        let endless = Token::new("t".to_owned(), None, now);
        assert!(endless.is_fresh(after(1_000_000)));
        assert!(!format!("{:?}", Token::new("s3cret".to_owned(), None, now)).contains("s3cret"));
    }
}
