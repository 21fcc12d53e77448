//! Workers, jobs, and what one may do to the other: each deed is checked for what it may change.

use std::collections::HashMap;
use std::time::Duration;

use chat_worker::chat::{Answer, Stop, ToolCall, Usage};
use chat_worker::clock::{Clock as _, SystemClock};
use chat_worker::fault::{ErrorCode, Failure};
use chat_worker::ids::{JobId, WorkerId};
use chat_worker::store::{
    Claimant, Claimed, Ending, Finished, NewIteration, NewJob, RouteOf, Run, Wants, Written,
};
use chat_worker::wire::Status;
use serde_json::value::RawValue;

use crate::ground::{Ground, claimant, completed};
use crate::laws::{Row, breaches, rows};

const HOUR: Duration = Duration::from_hours(1);
const MANY: u32 = 1000;

/// What somebody does. Workers, jobs and runs are meant by their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// A worker takes a delivery of a job.
    Take(usize, usize),
    /// The same, without a free slot.
    HandOver(usize, usize),
    /// A worker takes the wake-up of a job.
    Wake(usize, usize),
    /// The same, while it runs another job that may be what workers died of.
    WakeSuspecting(usize, usize),
    /// A worker's run of a job stores an answer.
    Append(usize, usize),
    /// It ends the job.
    Finish(usize, usize),
    /// It fails for a while.
    Park(usize, usize),
    /// It gives the job back.
    GiveBack(usize, usize),
    /// It breaks off, and the job with it.
    CloseRun(usize, usize),
    /// It gets lost within its worker.
    Lose(usize, usize),
    /// A worker dies.
    Die(usize),
    /// Those that died, or were taken for dead, go on with a job where they stood.
    Ghosts(usize),
    /// A worker stops in good order and leaves what it runs.
    SignOff(usize),
    /// Somebody calls a job off.
    Cancel(usize),
    /// The sweep's steps.
    SweepDead,
    SweepOver,
    SweepDue,
    SweepStranded,
    /// The time comes that all jobs wait for.
    TimePasses,
}

pub(crate) struct World<'a> {
    pub(crate) ground: &'a Ground,
    pub(crate) jobs: Vec<NewJob<'a>>,
    pub(crate) workers: Vec<WorkerId>,
    dead: Vec<WorkerId>,
    /// What each worker has in hand.
    in_hand: HashMap<(WorkerId, JobId), Run>,
    /// Every run that there ever was.
    pub(crate) runs: Vec<Run>,
    answers: HashMap<JobId, u32>,
    told: Vec<String>,
    /// The rows after the last deed.
    last: Vec<Row>,
}

impl<'a> World<'a> {
    pub(crate) async fn new(ground: &'a Ground, jobs: Vec<NewJob<'a>>, workers: usize) -> Self {
        let mut world = Self {
            ground,
            jobs,
            workers: Vec::new(),
            dead: Vec::new(),
            in_hand: HashMap::new(),
            runs: Vec::new(),
            answers: HashMap::new(),
            told: Vec::new(),
            last: Vec::new(),
        };
        for _ in 0..workers {
            world.workers.push(ground.worker().await);
        }
        world
    }

    /// What happened, for whoever has to find out why.
    pub(crate) fn story(&self) -> String {
        self.told.join("\n")
    }

    pub(crate) async fn rows(&self) -> Vec<Row> {
        let ids: Vec<_> = self.jobs.iter().map(|job| job.id).collect();
        rows(self.ground, &ids).await
    }

    /// Does it, and sees that every law holds.
    pub(crate) async fn does(&mut self, deed: Deed) {
        let before = std::mem::take(&mut self.last);
        let kept: Vec<_> = before
            .iter()
            .filter(|row| row.is_running() && self.is_kept(row, deed))
            .collect();
        let came = self.act(deed, &before).await;
        self.told.push(format!("{deed:?}: {came}"));
        let after = self.rows().await;
        let breaches = breaches(&after);
        assert!(breaches.is_empty(), "{breaches:#?}\n{}", self.story());
        for row in kept {
            let now = after.iter().find(|now| now.id == row.id).unwrap();
            assert!(
                now.is_running() && now.attempt == row.attempt,
                "{deed:?} took {row:?} from a living worker\n{}",
                self.story()
            );
        }
        self.last = after;
    }

    /// Whether a run is one that its living worker has in hand, and that this deed must not end.
    fn is_kept(&self, row: &Row, deed: Deed) -> bool {
        let worker = WorkerId(row.worker_id.unwrap());
        let (Some(at), Some(job)) = (self.number(worker), self.job_number(row)) else {
            return false;
        };
        let own = [
            Deed::Finish(at, job),
            Deed::Park(at, job),
            Deed::GiveBack(at, job),
            Deed::CloseRun(at, job),
            Deed::Die(at),
            Deed::SignOff(at),
        ];
        self.in_hand.contains_key(&(worker, JobId(row.id))) && !own.contains(&deed)
    }

    /// Sees that every law holds now, and that no more than one run of each job may write.
    pub(crate) async fn look(&self, rows: &[Row]) {
        let breaches = breaches(rows);
        assert!(breaches.is_empty(), "{breaches:#?}\n{}", self.story());
        for row in rows {
            let mut writers = Vec::new();
            for run in self.runs.iter().filter(|run| run.job_id.0 == row.id) {
                if self.ground.store.owns(run).await.unwrap() == Written::Stored {
                    writers.push(run);
                }
            }
            let may_write = writers
                .iter()
                .all(|run| row.is_running() && run.attempt == row.attempt);
            assert!(
                writers.len() <= 1 && may_write,
                "{writers:?} may write {row:?}\n{}",
                self.story()
            );
        }
    }

    fn number(&self, worker: WorkerId) -> Option<usize> {
        self.workers.iter().position(|it| *it == worker)
    }

    fn job_number(&self, row: &Row) -> Option<usize> {
        self.jobs.iter().position(|job| job.id.0 == row.id)
    }

    async fn act(&mut self, deed: Deed, before: &[Row]) -> String {
        match deed {
            Deed::Take(worker, job) => self.take(worker, job, Wants::ToRun).await,
            Deed::HandOver(worker, job) => self.take(worker, job, Wants::ToHandOver).await,
            Deed::Wake(worker, job) => self.wake(worker, job, true).await,
            Deed::WakeSuspecting(worker, job) => self.wake(worker, job, false).await,
            Deed::Append(worker, job) => self.append(worker, job, before).await,
            Deed::Finish(worker, job) => self.finish(worker, job, before).await,
            Deed::Park(worker, job)
            | Deed::GiveBack(worker, job)
            | Deed::CloseRun(worker, job)
            | Deed::Lose(worker, job) => self.leave(deed, (worker, job), before).await,
            Deed::Die(worker) => {
                self.ground.dies(self.workers[worker]).await;
                self.replace(worker).await
            }
            Deed::Ghosts(job) => self.ghosts(job, before).await,
            Deed::SignOff(worker) => {
                let leaving = self.workers[worker];
                self.ground.store.sign_off(leaving).await.unwrap();
                self.replace(worker).await
            }
            Deed::Cancel(job) => {
                let job = self.jobs[job].id;
                let done = self.ground.store.request_cancel(job, Some("why"), None);
                format!("{:?}", done.await.unwrap())
            }
            Deed::SweepDead => {
                let next = self.ground.store.take_from_the_dead(MANY).await.unwrap();
                format!("{next:?}")
            }
            Deed::SweepOver => self.close_over().await,
            Deed::SweepDue => {
                let next = self.ground.store.dispatch_due(MANY).await.unwrap();
                format!("{next:?}")
            }
            Deed::SweepStranded => {
                let next = self.ground.store.dispatch_stranded(MANY).await.unwrap();
                assert!(next.is_empty(), "a turn was forgotten\n{}", self.story());
                self.ground.store.apply_kept_cancels().await.unwrap();
                String::new()
            }
            Deed::TimePasses => {
                self.ground.sql("UPDATE chat.jobs SET due_at = now() WHERE due_at IS NOT NULL AND finished_at IS NULL").await;
                String::new()
            }
        }
    }

    /// The dead stay, as they may be thawed; another takes their place.
    async fn replace(&mut self, worker: usize) -> String {
        let fresh = self.ground.worker().await;
        self.dead
            .push(std::mem::replace(&mut self.workers[worker], fresh));
        String::new()
    }

    pub(crate) fn claimant(&self, worker: usize, job: JobId) -> Claimant<'static> {
        let worker = self.workers[worker];
        Claimant {
            in_hand: self.in_hand.contains_key(&(worker, job)),
            ..claimant(worker)
        }
    }

    async fn take(&mut self, worker: usize, job: usize, wants: Wants) -> String {
        let new = self.jobs[job];
        let claimant = Claimant {
            wants,
            ..self.claimant(worker, new.id)
        };
        let claimed = self.ground.store.claim(&new, claimant).await.unwrap();
        self.note(worker, &claimed)
    }

    async fn wake(&mut self, worker: usize, job: usize, takes_suspects: bool) -> String {
        let id = self.jobs[job].id;
        let claimant = Claimant {
            takes_suspects,
            ..self.claimant(worker, id)
        };
        match self.ground.store.claim_known(id, claimant).await.unwrap() {
            None => "unknown".to_owned(),
            Some(claimed) => self.note(worker, &claimed),
        }
    }

    fn note(&mut self, worker: usize, claimed: &Claimed) -> String {
        if let Claimed::Run(claimed) = claimed {
            assert_eq!(claimed.run.worker, self.workers[worker]);
            self.adopt(claimed.run);
            return format!("runs as attempt {}", claimed.run.attempt);
        }
        let text = format!("{claimed:?}");
        text.chars().take(60).collect()
    }

    /// Its worker has this run in hand from now on.
    pub(crate) fn adopt(&mut self, run: Run) {
        self.in_hand.insert((run.worker, run.job_id), run);
        self.runs.push(run);
    }

    /// The runs that living workers have in hand.
    pub(crate) fn in_hand(&self) -> Vec<Run> {
        let living = |run: &&Run| self.workers.contains(&run.worker);
        self.in_hand.values().filter(living).copied().collect()
    }

    /// Its worker has let this run go.
    pub(crate) fn let_go(&mut self, run: &Run) {
        if self.in_hand.get(&(run.worker, run.job_id)) == Some(run) {
            self.in_hand.remove(&(run.worker, run.job_id));
        }
    }

    /// What happened at once, for the story; and what is there now.
    pub(crate) async fn tell(&mut self, what: String) {
        self.told.push(what);
        self.last = self.rows().await;
        let rows = self.last.clone();
        self.look(&rows).await;
    }

    /// The run of a job that a worker has in hand, and whether the rows say that it still is one.
    fn run(&self, worker: usize, job: usize, before: &[Row]) -> Option<(Run, bool)> {
        let run = *self
            .in_hand
            .get(&(self.workers[worker], self.jobs[job].id))?;
        let row = before.iter().find(|row| row.id == run.job_id.0)?;
        let owns =
            row.is_running() && row.attempt == run.attempt && row.worker_id == Some(run.worker.0);
        Some((run, owns))
    }

    async fn append(&mut self, worker: usize, job: usize, before: &[Row]) -> String {
        let Some((run, owns)) = self.run(worker, job, before) else {
            return "no such run".to_owned();
        };
        let number = self.answers.get(&run.job_id).copied().unwrap_or_default() + 1;
        let written = store_answer(self.ground, &run, number).await;
        assert_eq!(written == Written::Stored, owns, "{}", self.story());
        if owns {
            self.answers.insert(run.job_id, number);
        }
        format!("{written:?}")
    }

    /// As a run does: called off meanwhile, it ends as cancelled.
    async fn finish(&mut self, worker: usize, job: usize, before: &[Row]) -> String {
        let Some((run, owns)) = self.run(worker, job, before) else {
            return "no such run".to_owned();
        };
        let finished = finish(self.ground, &run).await;
        assert_eq!(finished != Finished::Fenced, owns, "{}", self.story());
        self.in_hand.remove(&(run.worker, run.job_id));
        format!("{finished:?}").chars().take(60).collect()
    }

    async fn leave(&mut self, deed: Deed, at: (usize, usize), before: &[Row]) -> String {
        let Some((run, owns)) = self.run(at.0, at.1, before) else {
            return "no such run".to_owned();
        };
        self.in_hand.remove(&(run.worker, run.job_id));
        let store = &self.ground.store;
        let done = if matches!(deed, Deed::Lose(..)) {
            return "lost".to_owned();
        } else if matches!(deed, Deed::Park(..)) {
            store.park(&run, HOUR, &failure(), 1).await.unwrap() == Written::Stored
        } else if matches!(deed, Deed::GiveBack(..)) {
            store.give_back(&run, 1).await.unwrap().is_some()
        } else {
            store.close_run(&run, failure()).await.unwrap().is_some()
        };
        assert_eq!(done, owns, "{deed:?}\n{}", self.story());
        format!("{done}")
    }

    /// Who was not taken from yet still owns the job: to be taken for dead is no fence, to be taken from is.
    async fn ghosts(&mut self, job: usize, before: &[Row]) -> String {
        let id = self.jobs[job].id;
        let ghosts: Vec<_> = self
            .runs
            .iter()
            .filter(|run| run.job_id == id && self.dead.contains(&run.worker))
            .copied()
            .collect();
        let mut ended = 0;
        for run in ghosts {
            let row = before.iter().find(|row| row.id == id.0).unwrap();
            let owns = ended == 0
                && row.is_running()
                && row.attempt == run.attempt
                && row.worker_id == Some(run.worker.0);
            let number = self.answers.get(&id).copied().unwrap_or_default() + 1;
            let written = store_answer(self.ground, &run, number).await;
            assert_eq!(written == Written::Stored, owns, "{}", self.story());
            let finished = finish(self.ground, &run).await;
            assert_eq!(finished != Finished::Fenced, owns, "{}", self.story());
            ended += u32::from(owns);
        }
        format!("{ended} still owned it")
    }

    async fn close_over(&mut self) -> String {
        let mut closed = Vec::new();
        for job in self.ground.store.find_over(MANY).await.unwrap() {
            if let Some(it) = self.ground.store.close_over(job).await.unwrap() {
                closed.push(it.result.result.job_id);
            }
        }
        format!("{closed:?}")
    }

    /// Lets everything come to its end: living workers end what they run, and take what is due. What is
    /// not finished after that would never be.
    pub(crate) async fn settle(&mut self) {
        for job in 0..self.jobs.len() {
            self.does(Deed::Take(0, job)).await;
        }
        let most = 10 * self.jobs.len();
        for _ in 0..most {
            let rows = self.rows().await;
            if rows.iter().all(|row| row.is_finished) {
                self.look(&rows).await;
                return self.ended(&rows);
            }
            for worker in 0..self.workers.len() {
                for job in 0..self.jobs.len() {
                    self.does(Deed::Finish(worker, job)).await;
                }
            }
            for deed in [
                Deed::TimePasses,
                Deed::SweepDead,
                Deed::SweepOver,
                Deed::SweepDue,
            ] {
                self.does(deed).await;
            }
            for job in 0..self.jobs.len() {
                self.wake_owner(job).await;
            }
        }
        panic!("some jobs hang: {:#?}\n{}", self.rows().await, self.story());
    }

    /// The wake-up of a job comes to its own worker if that has lost it, and else to the first.
    async fn wake_owner(&mut self, job: usize) {
        let rows = self.rows().await;
        let id = self.jobs[job].id;
        let row = rows.iter().find(|row| row.id == id.0);
        let owner = row
            .filter(|row| row.is_running())
            .and_then(|row| row.worker_id);
        let worker = owner.and_then(|owner| self.number(WorkerId(owner)));
        self.does(Deed::Wake(worker.unwrap_or_default(), job)).await;
    }

    fn ended(&self, rows: &[Row]) {
        for row in rows {
            let good = ["completed", "cancelled", "failed"].contains(&row.status.as_str());
            assert!(good && row.open_runs == 0, "{row:?}\n{}", self.story());
        }
    }
}

pub(crate) fn failure() -> Failure {
    Failure::new(ErrorCode::ModelUnavailable, "as scripted")
}

fn cancelled() -> Ending {
    let failure = chat_worker::store::cancelled(None);
    Ending {
        status: Status::Cancelled,
        finish_reason: None,
        reply: None,
        failure: Some(failure),
        ..completed()
    }
}

/// Ends a job as a run does.
pub(crate) async fn finish(ground: &Ground, run: &Run) -> Finished {
    let first = ground.store.finish(run, &[], None, &completed()).await;
    let first = first.unwrap();
    if !matches!(first, Finished::CalledOff(_)) {
        return first;
    }
    let second = ground.store.finish(run, &[], None, &cancelled()).await;
    second.unwrap()
}

/// Stores an answer with one call.
pub(crate) async fn store_answer(ground: &Ground, run: &Run, number: u32) -> Written {
    let call = ToolCall {
        call_id: format!("c{number}"),
        name: "calc__add".to_owned(),
        arguments: "{}".to_owned(),
    };
    let answer = Answer {
        message: RawValue::from_string("{}".to_owned()).unwrap().into(),
        content: None,
        refusal: None,
        stop: Stop::Done,
        finish_reason: None,
        tool_calls: [call].into(),
        usage: Usage::default(),
        is_estimated: false,
        model: None,
        asked: None,
        response_id: None,
    };
    let routes = [RouteOf {
        server: Some("calc".to_owned()),
        tool: "add".to_owned(),
    }];
    let now = SystemClock.now();
    let iteration = NewIteration {
        number,
        requested_model: "m",
        answer: &answer,
        routes: &routes,
        calls_starting: &[1],
        calls_held: &[],
        approval_timeout: Duration::ZERO,
        counts_for_user: false,
        started_at: now,
        finished_at: now,
    };
    ground
        .store
        .append(run, &[], Some(&iteration))
        .await
        .unwrap()
}
