//! A job on the screen while it goes on: what it does, and what the model says.

use serde::Deserialize;

use super::super::output::{self, Screen};
use super::super::progress::Spinner;
use crate::escape::disarm_text;

/// The part of an event that is shown.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Shown {
    event: String,
    reason: Option<String>,
    model: Option<String>,
    tool: Option<String>,
    status: Option<String>,
    message: Option<String>,
    text: Option<String>,
    servers: Vec<String>,
    error: Option<Wrong>,
}

#[derive(Clone, Debug, Deserialize)]
struct Wrong {
    message: String,
}

/// How an event is shown.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    /// As a line.
    Line(String),
    /// For the moment.
    Passing(String),
    /// For the moment; and what is said from now on is a reply of its own.
    Asked(String),
    /// As words of the reply.
    Words(String),
    /// Not at all.
    Nothing,
}

impl Shown {
    /// Whether nothing more happens to the job.
    pub(super) fn is_last(&self) -> bool {
        self.event == "job.finished"
    }

    fn told(self) -> Told {
        let why = |error: Option<Wrong>| {
            error.map_or_else(String::new, |error| format!(": {}", error.message))
        };
        let tool = self.tool.unwrap_or_default();
        match self.event.as_str() {
            "job.started" => Told::Line("the job runs".to_owned()),
            "job.waiting" => {
                let reason = self.reason.as_deref().unwrap_or_default();
                Told::Line(format!("the job waits ({reason}){}", why(self.error)))
            }
            "job.finished" => Told::Passing("the job has ended".to_owned()),
            "tools.missing" => {
                Told::Line(format!("tools of {} are missing", self.servers.join(", ")))
            }
            "model.started" => {
                let model = self.model.unwrap_or_default();
                Told::Asked(format!("the model {model} is asked"))
            }
            "model.delta" => Told::Words(self.text.unwrap_or_default()),
            "model.restarted" => Told::Line(format!("the model is asked again{}", why(self.error))),
            "model.finished" => Told::Passing("the model has answered".to_owned()),
            "tool.started" => Told::Line(format!("{tool} is called")),
            "tool.progress" => {
                let message = self.message.unwrap_or_default();
                Told::Passing(format!("{tool}: {message}"))
            }
            "tool.finished" => {
                let status = self.status.unwrap_or_default();
                Told::Line(format!("{tool} {status}"))
            }
            _ => Told::Nothing,
        }
    }
}

/// One job on the screen.
pub(super) struct Watch {
    spinner: Spinner,
    /// Whether words are shown as they come: where people read them.
    aloud: bool,
    /// What of the model's words the screen is in the middle of.
    said: String,
    speaking: bool,
}

impl Watch {
    pub(super) fn new(first: &str, wants_words: bool) -> Self {
        Self {
            spinner: Spinner::new(first),
            aloud: wants_words && Screen::stdout().terminal,
            said: String::new(),
            speaking: false,
        }
    }

    /// Shows an event.
    pub(super) fn show(&mut self, event: Shown) -> anyhow::Result<()> {
        match event.told() {
            Told::Words(text) if self.aloud => {
                if !std::mem::replace(&mut self.speaking, true) {
                    self.spinner.hide();
                }
                let text = disarm_text(&text);
                output::piece(&Screen::stdout().safe(&text))?;
                self.said.push_str(&text);
            }
            Told::Words(_) | Told::Nothing => {}
            Told::Line(text) => {
                self.pause()?;
                self.spinner.line(&text);
            }
            Told::Asked(text) => {
                self.pause()?;
                self.spinner.passing(&text);
            }
            Told::Passing(_) if self.speaking => {}
            Told::Passing(text) => self.spinner.passing(&text),
        }
        Ok(())
    }

    /// What was said is no reply, or not the last one.
    fn pause(&mut self) -> anyhow::Result<()> {
        if std::mem::take(&mut self.speaking) {
            self.said.clear();
            output::line("")?;
            self.spinner.show();
        }
        Ok(())
    }

    /// Takes it off the screen; what of the reply stands there already, in a line that is not ended.
    pub(super) fn end(self) -> String {
        self.spinner.end();
        self.said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(json: &str) -> Told {
        serde_json::from_str::<Shown>(json).unwrap().told()
    }

    #[test]
    fn what_a_job_does_is_a_line_and_what_the_model_says_are_words() {
        let line = |text: &str| Told::Line(text.to_owned());
        for (json, expected) in [
            (
                r#"{"event":"job.started","model":"m"}"#,
                line("the job runs"),
            ),
            (
                r#"{"event":"job.waiting","reason":"retry","error":{"code":"x","message":"busy"}}"#,
                line("the job waits (retry): busy"),
            ),
            (
                r#"{"event":"tool.finished","tool":"calc__add","status":"failed"}"#,
                line("calc__add failed"),
            ),
            (
                r#"{"event":"tools.missing","servers":["a","b"]}"#,
                line("tools of a, b are missing"),
            ),
            (
                r#"{"event":"model.delta","text":"Hi"}"#,
                Told::Words("Hi".to_owned()),
            ),
            (
                r#"{"event":"model.restarted","error":{"message":"busy"}}"#,
                line("the model is asked again: busy"),
            ),
            (r#"{"event":"of.tomorrow"}"#, Told::Nothing),
        ] {
            assert_eq!(told(json), expected, "{json}");
        }
    }
}
