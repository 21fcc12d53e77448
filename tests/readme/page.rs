//! A page of the documentation and what is to be found in it.

/// A page.
pub(crate) struct Page(String);

impl Page {
    /// README.md.
    pub(crate) fn read() -> Self {
        Self::at("README.md")
    }

    /// Another page.
    pub(crate) fn at(path: &str) -> Self {
        let text = std::fs::read_to_string(super::world::root().join(path));
        Self(text.unwrap_or_else(|error| panic!("{path}: {error}")))
    }

    /// The source files that it names in backticks with their directory.
    pub(crate) fn source_files(&self) -> Vec<String> {
        let quoted = self.0.split('`').skip(1).step_by(2);
        let is_file = |text: &&str| {
            text.contains('/')
                && std::path::Path::new(text)
                    .extension()
                    .is_some_and(|end| end == "rs" || end == "sql")
        };
        quoted.filter(is_file).map(str::to_owned).collect()
    }

    /// The contents of all fences of a language.
    pub(crate) fn all(&self, language: &str) -> Vec<String> {
        let opening = format!("```{language}");
        let mut found = Vec::new();
        let mut lines = self.0.lines();
        while let Some(line) = lines.next() {
            if line == opening {
                let body: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
                found.push(body.join("\n") + "\n");
            } else if line.starts_with("```") {
                lines.by_ref().find(|line| *line == "```");
            }
        }
        assert!(!found.is_empty(), "the page has no fence of {language}");
        found
    }

    /// The one fence of a language.
    pub(crate) fn only(&self, language: &str) -> String {
        let found = self.all(language);
        assert_eq!(found.len(), 1, "fences of {language}");
        found.concat()
    }

    /// What stands under a heading, up to the next one of its level or a higher one.
    pub(crate) fn section(&self, heading: &str) -> String {
        let level = heading.bytes().take_while(|byte| *byte == b'#').count();
        let ends = |line: &&str| {
            let hashes = line.bytes().take_while(|byte| *byte == b'#').count();
            (1..=level).contains(&hashes)
        };
        let mut lines = self.0.lines().skip_while(|line| *line != heading);
        assert!(lines.next().is_some(), "the page has no heading {heading}");
        let body: Vec<_> = lines.take_while(|line| !ends(line)).collect();
        body.join("\n")
    }

    /// The rows of the tables under a heading, whose first cell is one name in backticks.
    pub(crate) fn rows(&self, heading: &str) -> Vec<Vec<String>> {
        let section = self.section(heading);
        let rows = section.lines().filter(|line| line.starts_with("| `"));
        rows.map(|line| {
            line.trim_matches('|')
                .split(" | ")
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect()
    }

    /// The first cells of these rows without their backticks, sorted.
    pub(crate) fn first_column(&self, heading: &str) -> Vec<String> {
        let rows = self.rows(heading);
        let cells = rows.iter().filter_map(|row| row.first());
        let mut names: Vec<_> = cells
            .map(|cell| cell.trim_matches('`').to_owned())
            .collect();
        names.sort();
        names
    }

    /// The anchors of its headings, as a link within the page names them.
    pub(crate) fn anchors(&self) -> Vec<String> {
        let headings = self.0.lines().filter(|line| line.starts_with('#'));
        let anchor = |line: &str| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|kept| kept.is_alphanumeric() || matches!(kept, ' ' | '-' | '_'));
            kept.collect::<String>().replace(' ', "-")
        };
        headings.map(anchor).collect()
    }

    /// Where its links within the project go.
    pub(crate) fn links(&self) -> Vec<String> {
        let pieces = self.0.split("](").skip(1);
        let targets = pieces
            .filter_map(|piece| piece.split_once(')'))
            .map(|(target, _)| target.to_owned());
        targets.filter(|target| !target.contains("://")).collect()
    }
}
