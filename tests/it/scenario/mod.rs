//! The ground of a test: a database of its own, a prefix of its own on the broker, a scripted model
//! within the test, and the built program. Whatever the test does, nothing of it is left.

mod acts;
mod broker;
mod database;
mod process;
mod setup;
mod words;

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::stub_model::StubModel;
use database::Database;

pub(crate) use broker::{Broker, Inbox, Properties, Received, broker_url};
pub(crate) use process::{Program, runs};
pub(crate) use setup::{API_KEY, Setup, example};
pub(crate) use words::{ask, call, puppet, said, systems, with};

/// Nothing here takes long; who waits longer waits for ever.
pub(crate) const LONG: Duration = Duration::from_secs(40);

/// A running installation.
pub(crate) struct Scenario {
    pub(crate) model: StubModel,
    pub(crate) broker: Broker,
    setup: Setup,
    database: Database,
    workers: Mutex<Vec<Arc<Program>>>,
    results: OnceCell<Inbox>,
    dead: OnceCell<Inbox>,
}

impl Setup {
    /// Starts it all, has `test` done, and clears up, also after a failure.
    pub(crate) async fn run(mut self, test: impl AsyncFnOnce(&Scenario)) {
        let database = Database::create().await;
        let broker = Broker::connect(self.prefix()).await;
        let scenario = Scenario {
            model: self.start_model(),
            broker,
            database,
            setup: self,
            workers: Mutex::default(),
            results: OnceCell::new(),
            dead: OnceCell::new(),
        };
        let running = async {
            scenario.start().await;
            test(&scenario).await;
            scenario.check();
        };
        let ended = AssertUnwindSafe(Box::pin(running)).catch_unwind().await;
        if ended.is_err() {
            scenario.show_logs();
        }
        scenario.clear_up().await;
        if let Err(panic) = ended {
            resume_unwind(panic);
        }
    }
}

impl Scenario {
    async fn start(&self) {
        let starting = (0..self.setup.replicas).map(|_| self.start_worker());
        futures_util::future::join_all(starting).await;
    }

    /// A worker more, which is ready.
    pub(crate) async fn start_worker(&self) -> Arc<Program> {
        self.start_worker_with(&[]).await
    }

    /// A worker more, with other settings.
    pub(crate) async fn start_worker_with(&self, settings: &[(&str, &str)]) -> Arc<Program> {
        let worker = self.launch(settings);
        worker.log_says("the worker takes jobs").await;
        if !self.setup.unready {
            worker.ready().await;
        }
        worker
    }

    /// The program's `run`, whatever comes of it.
    pub(crate) fn launch(&self, settings: &[(&str, &str)]) -> Arc<Program> {
        let mut all = self.setup.settings(&self.database, &self.model);
        for (name, value) in settings {
            all.insert((*name).to_owned(), (*value).to_owned());
        }
        let worker = Arc::new(Program::start(&all, self.setup.directory()));
        lock(&self.workers).push(Arc::clone(&worker));
        worker
    }

    /// Stops all workers in good order.
    pub(crate) async fn stop_all(&self) {
        let workers = lock(&self.workers).clone();
        for worker in workers {
            assert!(worker.stop().await.success());
        }
    }

    /// The first worker.
    pub(crate) fn worker(&self) -> Arc<Program> {
        Arc::clone(&lock(&self.workers)[0])
    }

    /// A file below the directory of this test.
    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.setup.directory().join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Publishes a job, with an id if it has none, and returns its id.
    pub(crate) async fn send(&self, job: &Value) -> String {
        self.send_with(job, Properties::default()).await
    }

    /// The same with properties.
    pub(crate) async fn send_with(&self, job: &Value, properties: Properties) -> String {
        let mut job = job.clone();
        if job.get("job_id").is_none() {
            job["job_id"] = uuid::Uuid::now_v7().to_string().into();
        }
        let body = job.to_string();
        self.broker
            .publish(&self.name("jobs"), body.as_bytes(), properties)
            .await;
        job["job_id"].as_str().expect("a job_id").to_owned()
    }

    /// Publishes any bytes where jobs go.
    pub(crate) async fn send_bytes(&self, body: &[u8], properties: Properties) {
        self.broker
            .publish(&self.name("jobs"), body, properties)
            .await;
    }

    /// Publishes a job and waits for its result.
    pub(crate) async fn answer(&self, job: &Value) -> Value {
        let id = self.send(job).await;
        self.result_of(&id).await.json()
    }

    /// The result of a job in the results queue.
    pub(crate) async fn result_of(&self, job_id: &str) -> Received {
        self.results()
            .await
            .find(|result| result.json()["job_id"] == job_id)
            .await
    }

    /// The reader of the results queue.
    pub(crate) async fn results(&self) -> &Inbox {
        let queue = self.name("results");
        self.results
            .get_or_init(async || self.broker.consume(&queue).await)
            .await
    }

    /// The reader of the dead letters' queue.
    pub(crate) async fn dead_letters(&self) -> &Inbox {
        let queue = self.name("jobs.dead");
        self.dead
            .get_or_init(async || self.broker.consume(&queue).await)
            .await
    }

    /// All results that were published and not read yet. What is published later does not count.
    pub(crate) async fn results_so_far(&self) -> Vec<Received> {
        let inbox = self.results().await;
        self.broker.all_of(&self.name("results"), inbox).await
    }

    /// The URL of this test's database.
    pub(crate) fn database_url(&self) -> String {
        self.database.url()
    }

    /// A name on the broker, without the prefix.
    pub(crate) fn name(&self, rest: &str) -> String {
        format!("{}.{rest}", self.setup.prefix())
    }

    /// The rows of a query, as JSON objects.
    pub(crate) async fn rows(&self, query: impl AsRef<str>) -> Vec<Value> {
        self.database.rows(query.as_ref()).await
    }

    /// The only row of a query.
    pub(crate) async fn row(&self, query: impl AsRef<str>) -> Value {
        let mut rows = self.rows(query.as_ref()).await;
        assert_eq!(rows.len(), 1, "{}: {rows:#?}", query.as_ref());
        rows.remove(0)
    }

    /// Waits until a query has a row that fits.
    pub(crate) async fn row_where(
        &self,
        query: impl AsRef<str>,
        fits: impl Fn(&Value) -> bool,
    ) -> Value {
        let query = query.as_ref();
        eventually(query, async || {
            self.rows(query).await.into_iter().find(&fits)
        })
        .await
    }

    /// The row of a job.
    pub(crate) async fn job(&self, id: &str) -> Value {
        self.row(format!("SELECT * FROM chat.jobs WHERE id = '{id}'"))
            .await
    }

    /// The rows of a job's tool calls, in order.
    pub(crate) async fn tool_calls(&self, id: &str) -> Vec<Value> {
        let query = format!(
            "SELECT * FROM chat.tool_calls WHERE job_id = '{id}' ORDER BY iteration, position"
        );
        self.rows(query).await
    }

    /// The messages of the last request to the model.
    pub(crate) fn last_prompt(&self) -> Vec<Value> {
        let requests = self.model.requests();
        let last = requests.last().expect("the model was not asked");
        last.body["messages"].as_array().expect("messages").clone()
    }

    /// What holds after every test.
    fn check(&self) {
        assert_eq!(
            self.model.refusals(),
            Vec::<String>::new(),
            "the model was sent something illegal"
        );
        for worker in lock(&self.workers).iter() {
            let log = worker.log();
            let panicked = log.contains("panicked") && !self.setup.may_panic();
            assert!(!panicked, "a worker panicked");
            assert!(!log.contains(API_KEY), "the log holds the API key");
        }
    }

    #[expect(
        clippy::print_stderr,
        reason = "a failure is read with the workers' logs"
    )]
    fn show_logs(&self) {
        for worker in lock(&self.workers).iter() {
            eprintln!("--- log of worker {}:\n{}", worker.pid(), worker.log());
        }
        for refusal in self.model.refusals() {
            eprintln!("--- the model refused: {refusal}");
        }
    }

    async fn clear_up(self) {
        let workers = std::mem::take(&mut *lock(&self.workers));
        for worker in workers {
            worker.kill().await;
        }
        self.broker.clear_up().await;
        self.database.drop_it().await;
    }
}

/// Waits for what nothing tells of.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, looking)
        .await
        .unwrap_or_else(|_| panic!("this never came: {what}"))
}

/// Waits for what must come soon.
pub(crate) async fn soon<T>(what: &str, coming: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, coming)
        .await
        .unwrap_or_else(|_| panic!("this never came: {what}"))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
