//! A table for a terminal or in Markdown.

/// A figure that there is a target for.
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
    None,
}

/// Labels and figures.
pub(crate) struct Table {
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Target {
    pub(crate) fn text(&self, unit: &str, figure: Option<f64>) -> String {
        let (sign, bound, met) = match self {
            Self::AtLeast(bound) => ("≥", bound, figure.map(|figure| figure >= *bound)),
            Self::AtMost(bound) => ("≤", bound, figure.map(|figure| figure <= *bound)),
            Self::Below(bound) => ("<", bound, figure.map(|figure| figure < *bound)),
            Self::None => return String::new(),
        };
        let verdict = match met {
            Some(true) => ", met",
            Some(false) => ", missed",
            None => "",
        };
        format!("{}{verdict}", format!("{sign} {bound} {unit}").trim_end())
    }
}

impl Table {
    pub(crate) fn text(&self, markdown: bool) -> String {
        let lines: Vec<_> = std::iter::once(&self.head).chain(&self.rows).collect();
        let columns = self.head.len();
        let width = |column: usize| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (number, line) in lines.iter().enumerate() {
            let cells: Vec<_> = line.iter().zip(&widths).enumerate().map(pad).collect();
            let line = if markdown {
                format!("| {} |", cells.join(" | "))
            } else {
                cells.join("  ").trim_end().to_owned()
            };
            text.push_str(&line);
            text.push('\n');
            if markdown && number == 0 {
                text.push_str("|---|");
                text.push_str(&"---:|".repeat(columns - 1));
                text.push('\n');
            }
        }
        text
    }
}

/// Labels to the left, figures to the right.
fn pad((column, (cell, width)): (usize, (&String, &usize))) -> String {
    let width = *width;
    if column == 0 {
        format!("{cell:<width$}")
    } else {
        format!("{cell:>width$}")
    }
}

/// A figure with three places and its unit.
pub(crate) fn amount(figure: Option<f64>, unit: &str) -> String {
    let Some(figure) = figure else {
        return "not known".to_owned();
    };
    let text = match figure.abs() {
        100.0.. => format!("{figure:.0}"),
        10.0.. => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    };
    format!("{text} {unit}").trim_end().to_owned()
}
