//! What a test does to jobs beside publishing them, and how it sees what became of that.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Broker, Program, Properties, Received, Scenario, lock, soon};

impl Scenario {
    /// Does a statement by which somebody else, or the passing of time, changes rows.
    pub(crate) async fn sql(&self, statement: impl AsRef<str>) {
        self.database.execute(statement.as_ref()).await;
    }

    /// Takes the database away from everybody, or gives it back.
    pub(crate) async fn open_database(&self, is_open: bool) {
        self.database.open(is_open).await;
    }

    /// Lets the time come that a parked job waits for.
    pub(crate) async fn make_due(&self, id: &str) {
        self.sql(format!(
            "UPDATE chat.jobs SET due_at = now() WHERE id = '{id}'"
        ))
        .await;
    }

    /// Another connection to the broker.
    pub(crate) async fn another_line(&self) -> Broker {
        Broker::connect(self.setup.prefix()).await
    }

    /// Loses the `count` messages of a queue, once they are there.
    pub(crate) async fn purge(&self, queue: &str, count: u32) {
        let queue = self.name(queue);
        let lost = async {
            let mut lost = 0;
            while lost < count {
                lost += self.broker.purge(&queue).await;
                tokio::task::yield_now().await;
            }
            lost
        };
        assert_eq!(soon("messages to lose", lost).await, count);
    }

    /// Publishes a control message, whatever it is.
    pub(crate) async fn control(&self, body: impl AsRef<[u8]>) {
        self.broker
            .publish(&self.name("control"), body.as_ref(), Properties::default())
            .await;
    }

    /// Calls a job off over the broker.
    pub(crate) async fn cancel(&self, id: &str, reason: &str) {
        let cancel = json!({"version": 1, "type": "cancel", "job_id": id, "reason": reason});
        self.control(cancel.to_string()).await;
    }

    /// Waits until a job waits for `reason`.
    pub(crate) async fn waits(&self, id: &str, reason: &str) -> Value {
        self.job_where(id, |row| {
            row["status"] == "waiting" && row["wait_reason"] == reason
        })
        .await
    }

    /// Waits until a job's row fits.
    pub(crate) async fn job_where(&self, id: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let query = format!("SELECT * FROM chat.jobs WHERE id = '{id}'");
        self.row_where(query, fits).await
    }

    /// The runs of a job: how each ended, and with which error.
    pub(crate) async fn runs_of(&self, id: &str) -> Vec<(String, Option<String>)> {
        let query = format!("SELECT * FROM chat.attempts WHERE job_id = '{id}' ORDER BY attempt");
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let rows = self.rows(query).await;
        let run = |row: &Value| {
            let outcome = text(&row["outcome"]).unwrap_or_else(|| "under way".to_owned());
            (outcome, text(&row["error_code"]))
        };
        rows.iter().map(run).collect()
    }

    /// The seconds between two moments of a job's row.
    pub(crate) async fn seconds(&self, id: &str, from: &str, to: &str) -> f64 {
        let query = format!(
            "SELECT extract(epoch FROM {to} - {from})::double precision AS seconds FROM chat.jobs WHERE id = '{id}'"
        );
        let row = self.row(query).await;
        row["seconds"]
            .as_f64()
            .unwrap_or_else(|| panic!("{from} or {to} is not set for {id}"))
    }

    /// The worker that has a job, or had it last.
    pub(crate) async fn worker_of(&self, id: &str) -> Arc<Program> {
        let query = format!(
            "SELECT w.pid FROM chat.jobs AS j JOIN chat.workers AS w ON w.id = j.worker_id WHERE j.id = '{id}'"
        );
        let pid = self.row(query).await["pid"].clone();
        self.worker_with(&pid)
    }

    /// The worker that sweeps.
    pub(crate) async fn sweeper(&self) -> Arc<Program> {
        let query = "SELECT w.pid FROM chat.installation AS i JOIN chat.workers AS w ON w.id = i.sweeper WHERE i.swept_until > now()";
        let row = self.row_where(query, |_| true).await;
        self.worker_with(&row["pid"])
    }

    /// All workers that were started, in that order.
    pub(crate) fn workers(&self) -> Vec<Arc<Program>> {
        lock(&self.workers).clone()
    }

    fn worker_with(&self, pid: &Value) -> Arc<Program> {
        let workers = self.workers();
        let found = workers.into_iter().find(|worker| *pid == worker.pid());
        found.unwrap_or_else(|| panic!("no worker {pid} of this test"))
    }

    /// The dead letters that came so far, of the queue.
    pub(crate) async fn dead_letters_so_far(&self) -> Vec<Received> {
        let inbox = self.dead_letters().await;
        self.broker.all_of(&self.name("jobs.dead"), inbox).await
    }

    /// Runs a command of the program with this installation's settings; what it prints.
    pub(crate) async fn command(&self, arguments: &[&str]) -> String {
        let (ended, out, err) = self.command_ends(arguments).await;
        assert!(ended.success(), "{arguments:?}: {out}{err}");
        out + &err
    }

    /// The same: what it prints, and what it says on the side.
    pub(crate) async fn command_aloud(&self, arguments: &[&str]) -> (String, String) {
        let (ended, out, err) = self.command_ends(arguments).await;
        assert!(ended.success(), "{arguments:?}: {out}{err}");
        (out, err)
    }

    /// Runs a command that fails; what it complains of.
    pub(crate) async fn failing_command(&self, arguments: &[&str]) -> String {
        let (ended, out, err) = self.command_ends(arguments).await;
        assert_eq!(ended.code(), Some(1), "{arguments:?}: {out}{err}");
        out + &err
    }

    async fn command_ends(&self, arguments: &[&str]) -> (ExitStatus, String, String) {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_chat-worker"));
        command.args(arguments).env_clear();
        command.envs(self.setup.settings(&self.database, &self.model));
        command.current_dir(self.setup.directory());
        command.stdin(Stdio::null()).kill_on_drop(true);
        let ended = soon("the end of a command", command.output())
            .await
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (ended.status, text(&ended.stdout), text(&ended.stderr))
    }
}
