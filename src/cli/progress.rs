//! Progress on standard error: a bar or a spinner on a terminal, little or nothing elsewhere.

use std::time::Duration;

use console::user_attended_stderr;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output;
use super::text::one_line;

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(100);

/// How many of many are done. Only on a terminal.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new(of: usize, what: &'static str) -> Self {
        let bar =
            ProgressBar::with_draw_target(u64::try_from(of).ok(), ProgressDrawTarget::stderr());
        let template = "{bar:30.cyan/dim} {pos}/{len} {msg}, {per_sec}, {eta} to go";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(bar.with_message(what))
    }

    pub(super) fn step(&self) {
        self.step_by(1);
    }

    pub(super) fn step_by(&self, many: u64) {
        self.0.inc(many);
    }

    /// Writes a line while the bar is out of the way.
    pub(super) fn beside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.0.suspend(write)
    }

    /// Takes it off the screen; how many are done.
    pub(super) fn end(&self) -> u64 {
        // To finish a bar fills it.
        let done = self.0.position();
        self.0.finish_and_clear();
        done
    }
}

/// How one job does.
pub(super) struct Spinner {
    bar: ProgressBar,
    attended: bool,
}

impl Spinner {
    pub(super) fn new(first: &str) -> Self {
        let attended = user_attended_stderr();
        let bar = turning(attended);
        if attended {
            bar.set_message(first.to_owned());
        } else {
            output::say(first);
        }
        Self { bar, attended }
    }

    /// Something that is worth a line of its own.
    pub(super) fn line(&self, text: &str) {
        let text = one_line(text);
        if self.attended {
            self.bar.println(&text);
            self.bar.set_message(text);
        } else {
            output::say(&text);
        }
    }

    /// Something that is so for the moment: shown on a terminal only.
    pub(super) fn passing(&self, text: &str) {
        if self.attended {
            self.bar.set_message(one_line(text));
        }
    }

    /// Makes way for what is written on the same terminal.
    pub(super) fn hide(&self) {
        self.bar.finish_and_clear();
    }

    /// Comes back after that.
    pub(super) fn show(&mut self) {
        self.bar = turning(self.attended);
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn turning(attended: bool) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {elapsed} {wide_msg}") {
        bar.set_style(style);
    }
    if attended {
        bar.enable_steady_tick(TICK);
    }
    bar
}
