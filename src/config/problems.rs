use std::fmt;
use std::str::FromStr;

/// What is wrong with the configuration: every problem, each with the setting's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<String>);

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the configuration has {} problem(s):", self.0.len())?;
        for problem in &self.0 {
            writeln!(f, "  - {problem}")?;
        }
        Ok(())
    }
}

impl Problems {
    /// Notes that `setting` is wrong. The text must not hold a secret.
    pub fn note(&mut self, setting: &str, what: impl fmt::Display) {
        self.0.push(format!("{setting}: {what}"));
    }

    /// The problems one by one.
    #[must_use]
    pub fn list(&self) -> &[String] {
        &self.0
    }

    /// What `build` makes, if there is no problem.
    ///
    /// # Errors
    /// The problems noted so far. (`build` gives nothing only where a problem was noted.)
    pub fn none_or<T>(mut self, build: impl FnOnce() -> Option<T>) -> Result<T, Self> {
        if !self.0.is_empty() {
            return Err(self);
        }
        build().ok_or_else(|| {
            self.note("configuration", "a setting was not read");
            self
        })
    }

    /// `text` as a whole number between `least` and `most`.
    pub fn number<N>(&mut self, setting: &str, text: &str, least: N, most: N) -> Option<N>
    where
        N: Copy + FromStr + PartialOrd + fmt::Display,
    {
        match text.trim().parse::<N>() {
            Ok(number) if number >= least && number <= most => Some(number),
            Ok(_) | Err(_) => {
                self.note(
                    setting,
                    format!("expected a whole number from {least} to {most}, got {text:?}"),
                );
                None
            }
        }
    }

    /// `text` as one of `choices`.
    pub fn choice<T: Copy>(
        &mut self,
        setting: &str,
        text: &str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let found = choices.iter().find(|(name, _)| *name == text.trim());
        if found.is_none() {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            self.note(
                setting,
                format!("expected one of {}, got {text:?}", names.join(", ")),
            );
        }
        found.map(|(_, value)| *value)
    }
}
