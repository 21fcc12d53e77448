//! All figures, and the tables that people read.

use serde::Serialize;

use crate::Arguments;
use crate::hand::InHand;
use crate::limits::Limits;
use crate::machine::Machine;
use crate::round::Round;
use crate::table::{Table, Target, amount};

/// Everything that was measured.
#[derive(Serialize)]
pub(crate) struct Figures {
    pub(crate) machine: Machine,
    pub(crate) settings: Settings,
    pub(crate) rounds: Vec<Round>,
    pub(crate) in_hand: Option<InHand>,
    pub(crate) limits: Limits,
}

/// How it was measured.
#[derive(Serialize)]
pub(crate) struct Settings {
    jobs: usize,
    runs: usize,
    concurrency: usize,
    replicas: usize,
    rate: f64,
    rate_secs: f64,
}

impl Settings {
    /// Those of the command line.
    pub(crate) fn of(arguments: &Arguments) -> Self {
        Self {
            jobs: arguments.jobs,
            runs: arguments.runs,
            concurrency: arguments.concurrency,
            replicas: arguments.replicas,
            rate: arguments.rate,
            rate_secs: arguments.rate_secs,
        }
    }
}

/// Label, unit, target, and where the figure is.
type Row = (
    &'static str,
    &'static str,
    Target,
    fn(&Round) -> Option<f64>,
);

#[rustfmt::skip]
const ROWS: [Row; 17] = [
    ("jobs/s", "", Target::AtLeast(500.0), |round| Some(round.jobs_per_s)),
    ("jobs/s, queue filled before", "", Target::None, |round| Some(round.filled_jobs_per_s)),
    ("p50 at {rate} jobs/s", "ms", Target::AtMost(11.0), |round| Some(round.p50_ms)),
    ("p99 at {rate} jobs/s", "ms", Target::None, |round| Some(round.p99_ms)),
    ("commits a job", "", Target::AtMost(4.0), |round| Some(round.commits_per_job)),
    ("CPU a job: worker", "ms", Target::AtMost(1.0), |round| Some(round.cpu_ms.worker)),
    ("  its tool servers", "ms", Target::None, |round| Some(round.cpu_ms.tools)),
    ("  PostgreSQL", "ms", Target::None, |round| round.cpu_ms.postgres),
    ("  RabbitMQ", "ms", Target::None, |round| round.cpu_ms.rabbitmq),
    ("  scripted model", "ms", Target::None, |round| Some(round.cpu_ms.model)),
    ("  this driver", "ms", Target::None, |round| Some(round.cpu_ms.driver)),
    ("  together", "ms", Target::None, |round| Some(round.cpu_ms.total())),
    ("CPU used by strangers meanwhile", "%", Target::None, |round| Some(round.strangers_percent)),
    ("worker's memory, idle", "MiB", Target::Below(40.0), |round| Some(mib(round.idle_kib))),
    ("worker's memory, peak", "MiB", Target::None, |round| Some(mib(round.peak_kib))),
    ("its tool servers' memory, peak", "MiB", Target::None, |round| Some(mib(round.tools_kib))),
    ("start until ready", "s", Target::None, |round| Some(round.starting_s)),
];

impl Figures {
    /// The tables, aligned for a terminal or in Markdown.
    pub(crate) fn tables(&self, markdown: bool) -> String {
        let tables = [self.table_of_rounds(), self.table_of_limits()];
        let mut text = format!("{}\n\n", self.heading());
        for table in tables.iter().chain(&self.table_of_memory()) {
            text.push_str(&table.text(markdown));
            text.push('\n');
        }
        text
    }

    fn heading(&self) -> String {
        let (machine, settings) = (&self.machine, &self.settings);
        let durable = if machine.durable {
            "commits wait for the disk"
        } else {
            "commits do NOT wait for the disk"
        };
        format!(
            "{} jobs with one tool call, {} at once on each of {} replicas, median of {} runs\n\
             {} cores, {:.0} GiB, {}; PostgreSQL {}, {durable}",
            settings.jobs,
            settings.concurrency,
            settings.replicas,
            settings.runs,
            machine.cores,
            machine.memory_gib,
            machine.system,
            machine.postgres,
        )
    }

    fn table_of_rounds(&self) -> Table {
        let mut head = vec![String::new()];
        let models = self.rounds.iter();
        head.extend(models.map(|round| format!("model {} ms", round.latency_ms)));
        head.push("target (0 ms)".to_owned());
        let rows = ROWS.iter().map(|row| self.row(row)).collect();
        Table { head, rows }
    }

    /// The target is one for an immediate model: only that column is held against it.
    fn row(&self, (label, unit, target, of): &Row) -> Vec<String> {
        let label = label.replace("{rate}", &self.settings.rate.to_string());
        let mut row = vec![label];
        row.extend(self.rounds.iter().map(|round| amount(of(round), unit)));
        let first = self.rounds.iter().find(|round| round.latency_ms == 0);
        row.push(target.text(unit, first.and_then(of)));
        row
    }

    fn table_of_limits(&self) -> Table {
        let limits = &self.limits;
        let fastest = self
            .rounds
            .iter()
            .map(|round| round.jobs_per_s)
            .fold(0.0, f64::max);
        let row = |label: String, limit: f64| {
            vec![
                label,
                amount(Some(limit), ""),
                format!("{:.2}", fastest / limit),
            ]
        };
        Table {
            head: vec![
                "the machine's own limits".to_owned(),
                "a second".to_owned(),
                "jobs/s ÷ this".to_owned(),
            ],
            rows: vec![
                row(
                    "confirmed publishes, pipelined".to_owned(),
                    limits.publishes_per_s,
                ),
                row(
                    "confirmed publishes, one by one".to_owned(),
                    limits.single_publishes_per_s,
                ),
                row(
                    format!("commits, {} connections", limits.commit_connections),
                    limits.commits_per_s,
                ),
                row(
                    "commits, one connection".to_owned(),
                    limits.single_commits_per_s,
                ),
            ],
        }
    }

    fn table_of_memory(&self) -> Option<Table> {
        let hand = self.in_hand.as_ref()?;
        let row = |label: &str, figure: f64, unit: &str, target: &Target| {
            vec![
                label.to_owned(),
                amount(Some(figure), unit),
                target.text(unit, Some(figure)),
            ]
        };
        let title = format!("{} jobs in hand, model {} ms", hand.jobs, hand.latency_ms);
        Some(Table {
            head: vec![title, String::new(), "target".to_owned()],
            rows: vec![
                row(
                    "worker's memory, idle",
                    mib(hand.idle_kib),
                    "MiB",
                    &Target::Below(40.0),
                ),
                row(
                    "worker's memory, all in hand",
                    mib(hand.busy_kib),
                    "MiB",
                    &Target::None,
                ),
                row("  a job", hand.kib_per_job, "KiB", &Target::Below(64.0)),
                row(
                    "worker's memory, peak",
                    mib(hand.peak_kib),
                    "MiB",
                    &Target::None,
                ),
                row("  a job", hand.peak_kib_per_job, "KiB", &Target::None),
            ],
        })
    }
}

fn mib(kib: u64) -> f64 {
    f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1024.0
}

/// The middle one, or the mean of the middle two.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (
        sorted.get(sorted.len().saturating_sub(1) / 2),
        sorted.get(sorted.len() / 2),
    );
    low.zip(high)
        .map_or(0.0, |(low, high)| f64::midpoint(*low, *high))
}

/// The smallest of the sorted figures that so many per cent do not exceed (nearest rank).
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "an index into a few thousand figures"
)]
pub(crate) fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let rank = (sorted.len() as f64 * percent / 100.0).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied().unwrap_or_default()
}
