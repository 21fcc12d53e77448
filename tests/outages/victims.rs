//! What is done to the victims.

use std::time::Duration;

use chat_worker::config::environment;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::process::Command;
use tokio::sync::{Mutex, MutexGuard};

use crate::services::{DATABASE, NEEDS};

/// The slowest of it: a broker that starts on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// Waits until no other test uses the victims.
pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    static IN_USE: Mutex<()> = Mutex::const_new(());
    IN_USE.lock().await
}

/// Runs `rabbitmqctl` against the victim.
pub(crate) async fn rabbitmqctl(arguments: &[&str]) {
    control("VICTIM_RABBITMQCTL", arguments).await;
}

/// Runs `pg_ctl` on the victim.
pub(crate) async fn pg_ctl(arguments: &[&str]) {
    control("VICTIM_PG_CTL", arguments).await;
}

/// Ends every connection to the database server but the one that says so.
pub(crate) async fn terminate_backends() {
    let url = environment(DATABASE).expect(NEEDS);
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    connection.execute(all).await.unwrap();
    connection.close().await.ok();
}

async fn control(program: &str, arguments: &[&str]) {
    let mut command = Command::new(environment(program).expect(NEEDS));
    let running = command.args(arguments).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, running)
        .await
        .unwrap_or_else(|_| panic!("{program} {arguments:?} does not end"))
        .unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
