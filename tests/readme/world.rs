//! A worker of one's own: its database, its names on the broker, a scripted model, a tool server.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::{Connection, ConnectionProperties};
use sqlx::postgres::{PgPool, PgPoolOptions, PgRow};
use tempfile::TempDir;
use uuid::Uuid;

const NEEDS: &str = "needs RabbitMQ and PostgreSQL: run `cargo xtask test`, or `eval \"$(cargo xtask env)\"` after `cargo xtask up`";
const WORKER: &str = env!("CARGO_BIN_EXE_chat-worker");
/// Nothing here takes long; who waits longer waits for ever.
const LONG: Duration = Duration::from_mins(2);

/// Everything that a snippet needs. What it started ends with it.
pub(crate) struct World {
    amqp_url: String,
    server_url: String,
    database: String,
    database_url: String,
    prefix: String,
    pool: PgPool,
    /// Where snippets run.
    pub(crate) directory: PathBuf,
    _directory: TempDir,
    _model: Process,
    worker: Process,
}

impl World {
    /// Starts a worker and waits until it is ready.
    pub(crate) async fn open() -> Self {
        let amqp_url = setting("AMQP_URL").expect(NEEDS);
        let server_url = setting("DATABASE_URL").expect(NEEDS);
        let id = Uuid::new_v4().simple().to_string();
        let (database, prefix) = (format!("readme_{id}"), format!("readme-{id}"));
        let server = PgPoolOptions::new()
            .max_connections(1)
            .connect(&server_url)
            .await
            .expect("Postgres");
        let create = format!("CREATE DATABASE {database}");
        sqlx::query(sqlx::AssertSqlSafe(create))
            .execute(&server)
            .await
            .expect("a database");
        server.close().await;
        let mut database_url = url::Url::parse(&server_url).expect("DATABASE_URL");
        database_url.set_path(&database);
        let database_url = database_url.to_string();

        let holder = TempDir::new().expect("a directory");
        let directory = holder.path().to_owned();
        let mut model = Process::start(
            Command::new(example("stub_model"))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped()),
        );
        let base_url = model.line_after("listening on ");
        let address = free_address();
        let worker = Process::start(
            Command::new(WORKER)
                .arg("run")
                .current_dir(&directory)
                .env("AMQP_URL", &amqp_url)
                .env("DATABASE_URL", &database_url)
                .env("CHAT_PREFIX", &prefix)
                .env("OPENAI_BASE_URL", base_url)
                .env("MCP_SERVER_PATH", example("calc_server"))
                .env("CHAT_HTTP_ADDR", &address)
                .env("RUST_LOG", "warn"),
        );
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .connect_lazy(&database_url)
            .expect("a pool");
        let mut world = Self {
            amqp_url,
            server_url,
            database,
            database_url,
            prefix,
            pool,
            directory,
            _directory: holder,
            _model: model,
            worker,
        };
        world.wait_until_ready(&address).await;
        world
    }

    async fn wait_until_ready(&mut self, address: &str) {
        let give_up = Instant::now() + LONG;
        while !answers_ok(address) {
            let ended = self.worker.0.try_wait().expect("the worker's state");
            assert!(ended.is_none(), "the worker ended: {ended:?}");
            assert!(Instant::now() < give_up, "the worker did not get ready");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Runs a snippet; what it printed on standard output.
    pub(crate) fn run(&self, command: &mut Command) -> String {
        let output = self
            .at_home(command)
            .output()
            .expect("a program that starts");
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(
            output.status.success(),
            "{command:?}\n{}\n{out}\n{err}",
            output.status
        );
        out.into_owned()
    }

    /// Fails with instructions if a program is not there.
    pub(crate) fn needs(&self, program: &str, what: &str) {
        let ran = self
            .at_home(Command::new(program).arg("--version"))
            .output();
        assert!(
            ran.is_ok_and(|ran| ran.status.success()),
            "this test needs {what}"
        );
    }

    /// Sends a job that fails, and waits for that.
    pub(crate) fn enqueue_to_fail(&self, job: &str) {
        let script = format!("! echo '{job}' | {WORKER} enqueue --file - --wait");
        self.run(Command::new("bash").args(["-c", &script]));
    }

    /// The rows of a query on the worker's database.
    pub(crate) async fn query(&self, query: &str) -> Vec<PgRow> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(query.to_owned()))
            .fetch_all(&self.pool)
            .await;
        rows.unwrap_or_else(|error| panic!("{error}\n{query}"))
    }

    /// Waits until a query has a row.
    pub(crate) async fn row_comes(&self, query: &str) {
        let coming = async { while self.query(query).await.is_empty() {} };
        let came = tokio::time::timeout(LONG, coming).await;
        came.unwrap_or_else(|_late| panic!("no row comes:\n{query}"));
    }

    /// Stops the worker in good order, and leaves nothing behind.
    pub(crate) fn close(mut self) {
        let pid = self.worker.0.id().to_string();
        let told = Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .expect("kill");
        assert!(told.success());
        let status = self.worker.0.wait().expect("the worker's end");
        assert!(status.success(), "the worker ended with {status}");
    }

    /// A command in the directory and with the settings of this world.
    fn at_home<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let binaries = Path::new(WORKER).parent().expect("a directory");
        let path = setting("PATH").unwrap_or_default();
        command
            .current_dir(&self.directory)
            .env("PATH", format!("{}:{path}", binaries.display()))
            .env("AMQP_URL", &self.amqp_url)
            .env("DATABASE_URL", &self.database_url)
            .env("CHAT_PREFIX", &self.prefix)
            .stdin(Stdio::null())
    }
}

impl Drop for World {
    /// Also when a test fails: the server is somebody's.
    fn drop(&mut self) {
        self.worker.end();
        let (amqp_url, prefix) = (self.amqp_url.clone(), self.prefix.clone());
        let (server_url, database) = (self.server_url.clone(), self.database.clone());
        let cleaner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                delete_names(&amqp_url, &prefix).await.ok();
                drop_database(&server_url, &database).await.ok();
            });
        });
        cleaner.join().ok();
    }
}

async fn delete_names(url: &str, prefix: &str) -> lapin::Result<()> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    for queue in ["jobs", "results", "jobs.dead", "control"] {
        let name = format!("{prefix}.{queue}");
        channel
            .queue_delete(name.as_str().into(), QueueDeleteOptions::default())
            .await?;
    }
    for exchange in ["dlx", "events"] {
        let name = format!("{prefix}.{exchange}");
        channel
            .exchange_delete(name.as_str().into(), ExchangeDeleteOptions::default())
            .await?;
    }
    connection.close(200, "done".into()).await
}

async fn drop_database(url: &str, database: &str) -> sqlx::Result<()> {
    let server = PgPoolOptions::new().max_connections(1).connect(url).await?;
    let drop = format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)");
    sqlx::query(sqlx::AssertSqlSafe(drop))
        .execute(&server)
        .await?;
    server.close().await;
    Ok(())
}

/// A child that ends with its owner.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        Self(
            command
                .spawn()
                .unwrap_or_else(|error| panic!("{command:?}: {error}")),
        )
    }

    /// The rest of the first line that begins so.
    fn line_after(&mut self, beginning: &str) -> String {
        let stdout = self.0.stdout.take().expect("a pipe");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        line.trim()
            .strip_prefix(beginning)
            .expect("the expected line")
            .to_owned()
    }

    fn end(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The checkout.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn setting(name: &str) -> Option<String> {
    chat_worker::config::environment(name).filter(|text| !text.is_empty())
}

fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").to_string()
}

/// Whether `/readyz` says 200.
fn answers_ok(address: &str) -> bool {
    use std::io::{Read as _, Write as _};
    let Ok(mut stream) = std::net::TcpStream::connect(address) else {
        return false;
    };
    let mut answer = String::new();
    stream.set_read_timeout(Some(LONG)).is_ok()
        && stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer
            .lines()
            .next()
            .is_some_and(|status| status.contains(" 200 "))
}

/// An example's program.
fn example(name: &str) -> PathBuf {
    let path = Path::new(WORKER).with_file_name("examples").join(name);
    assert!(
        path.exists(),
        "{} is not built: run `cargo build --examples`",
        path.display()
    );
    path
}

/// A Python that has pika, made once under the build directory.
pub(crate) fn python_with_pika() -> PathBuf {
    let home = tools().join("python");
    let python = home.join("bin/python");
    let works = |python: &Path| quiet(Command::new(python).args(["-c", "import pika"]));
    if works(&python) {
        return python;
    }
    let made = quiet(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&home),
    );
    assert!(
        made,
        "this test needs python3 with venv (Debian: apt-get install python3 python3-venv)"
    );
    let installed =
        quiet(Command::new(&python).args(["-m", "pip", "install", "--quiet", "pika==1.3.2"]));
    assert!(
        installed && works(&python),
        "this test needs pika: `pip install pika` did not work"
    );
    python
}

/// A directory in which Node finds amqplib, made once under the build directory.
pub(crate) fn node_with_amqplib() -> PathBuf {
    let home = tools().join("node");
    if home.join("node_modules/amqplib/package.json").exists() {
        return home;
    }
    assert!(
        quiet(Command::new("node").arg("--version")),
        "this test needs node (Debian: apt-get install nodejs npm)"
    );
    std::fs::create_dir_all(&home).expect("a directory");
    std::fs::write(home.join("package.json"), "{\"private\": true}\n").expect("a file");
    let mut npm = Command::new("npm");
    npm.args([
        "install",
        "--no-audit",
        "--no-fund",
        "--silent",
        "amqplib@0.10",
    ])
    .current_dir(&home);
    assert!(
        quiet(&mut npm),
        "this test needs amqplib: `npm install amqplib` did not work (Debian: apt-get install npm)"
    );
    home
}

/// Where the tests keep what they install.
fn tools() -> PathBuf {
    let target = Path::new(WORKER)
        .ancestors()
        .nth(2)
        .expect("the build directory");
    target.join("readme")
}

fn quiet(command: &mut Command) -> bool {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
