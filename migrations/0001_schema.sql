-- The record of chat jobs. Times are timestamptz, texts are stored once, and a character that
-- Postgres refuses (NUL, a lone surrogate) stands as U+241B and four hexadecimal digits.

CREATE SCHEMA IF NOT EXISTS chat;
COMMENT ON SCHEMA chat IS 'chat-worker: conversations, jobs and everything that happened in them';

CREATE TYPE chat.job_status AS ENUM ('queued', 'running', 'waiting', 'completed', 'failed', 'cancelled');
COMMENT ON TYPE chat.job_status IS 'queued: a wake-up is on its way; running: a worker has it; waiting: see wait_reason; the rest: ended';
CREATE TYPE chat.wait_reason AS ENUM ('turn', 'retry', 'schedule', 'approval', 'enqueued');
COMMENT ON TYPE chat.wait_reason IS 'why a waiting job waits';
CREATE TYPE chat.tool_call_status AS ENUM ('requested', 'started', 'succeeded', 'failed', 'refused', 'interrupted');
COMMENT ON TYPE chat.tool_call_status IS 'requested: not begun; started: under way; refused: never made; interrupted: its worker died, the outcome is unknown';

CREATE TABLE chat.installation (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    prefix text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE chat.installation IS 'The one installation that this database serves';
COMMENT ON COLUMN chat.installation.only_row IS 'Keeps the table at one row';
COMMENT ON COLUMN chat.installation.prefix IS 'CHAT_PREFIX of the workers: first part of the broker''s names';
COMMENT ON COLUMN chat.installation.created_at IS 'When the first worker started';

CREATE TABLE chat.conversations (
    id uuid PRIMARY KEY,
    user_id text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    turns integer NOT NULL DEFAULT 0,
    metadata json
) WITH (fillfactor = 80);
COMMENT ON TABLE chat.conversations IS 'A conversation: the jobs that share one history and one user';
COMMENT ON COLUMN chat.conversations.id IS 'The conversation''s id: given by the producer, else the id of its first job';
COMMENT ON COLUMN chat.conversations.user_id IS 'The user of its first job, to whom it belongs';
COMMENT ON COLUMN chat.conversations.created_at IS 'When its first job was taken in';
COMMENT ON COLUMN chat.conversations.updated_at IS 'When a job of it was last taken in';
COMMENT ON COLUMN chat.conversations.turns IS 'Turn numbers given out so far';
COMMENT ON COLUMN chat.conversations.metadata IS 'Room for the installation''s own notes; never written by a worker';

CREATE TABLE chat.jobs (
    id uuid PRIMARY KEY,
    conversation_id uuid NOT NULL REFERENCES chat.conversations ON DELETE CASCADE,
    turn integer,
    user_id text NOT NULL,
    status chat.job_status NOT NULL,
    wait_reason chat.wait_reason,
    due_at timestamptz,
    attempt integer NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0,
    worker_id uuid,
    request json NOT NULL,
    request_hash bytea NOT NULL,
    model text,
    finish_reason text,
    reply text,
    refusal text,
    warnings text[] NOT NULL DEFAULT '{}',
    error_code text,
    error_message text,
    iterations integer NOT NULL DEFAULT 0,
    tool_calls integer NOT NULL DEFAULT 0,
    input_tokens bigint NOT NULL DEFAULT 0,
    cached_tokens bigint NOT NULL DEFAULT 0,
    output_tokens bigint NOT NULL DEFAULT 0,
    reasoning_tokens bigint NOT NULL DEFAULT 0,
    cost_usd numeric,
    reply_to text,
    correlation_id text,
    priority smallint,
    trace_id text,
    traceparent text,
    tracestate text,
    enqueued_at timestamptz,
    received_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz,
    publish_due_at timestamptz,
    result_published_at timestamptz,
    cancel_requested_at timestamptz,
    deadline timestamptz,
    metadata json,
    CONSTRAINT jobs_turn UNIQUE (conversation_id, turn),
    CONSTRAINT jobs_waiting CHECK ((status = 'waiting') = (wait_reason IS NOT NULL)),
    CONSTRAINT jobs_running CHECK (status <> 'running' OR (worker_id IS NOT NULL AND turn IS NOT NULL)),
    CONSTRAINT jobs_finished CHECK ((status IN ('completed', 'failed', 'cancelled')) = (finished_at IS NOT NULL))
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX jobs_one_running ON chat.jobs (conversation_id) WHERE status = 'running';
CREATE INDEX jobs_due ON chat.jobs (due_at) WHERE status IN ('waiting', 'queued');
CREATE INDEX jobs_owned ON chat.jobs (worker_id) WHERE status = 'running';
CREATE INDEX jobs_unpublished ON chat.jobs (publish_due_at) WHERE result_published_at IS NULL AND publish_due_at IS NOT NULL;
COMMENT ON TABLE chat.jobs IS 'A job: one turn of a conversation, from its message to its result';
COMMENT ON COLUMN chat.jobs.id IS 'The job''s id: the idempotency key';
COMMENT ON COLUMN chat.jobs.conversation_id IS 'The conversation it belongs to';
COMMENT ON COLUMN chat.jobs.turn IS 'Its place in the conversation, from 1, given when it is first ready to run';
COMMENT ON COLUMN chat.jobs.user_id IS 'Who it speaks for';
COMMENT ON COLUMN chat.jobs.status IS 'Where it stands';
COMMENT ON COLUMN chat.jobs.wait_reason IS 'Why it waits, while it does';
COMMENT ON COLUMN chat.jobs.due_at IS 'When a waiting or queued job is looked at again';
COMMENT ON COLUMN chat.jobs.attempt IS 'The run that may write: it grows with every claim and fences earlier runs off';
COMMENT ON COLUMN chat.jobs.failures IS 'Failed runs and deaths of its worker since the last stored entry';
COMMENT ON COLUMN chat.jobs.worker_id IS 'The worker that has it or had it last';
COMMENT ON COLUMN chat.jobs.request IS 'The message as it came in';
COMMENT ON COLUMN chat.jobs.request_hash IS 'SHA-256 of the request''s content, by which a repeat is told from other content';
COMMENT ON COLUMN chat.jobs.model IS 'The model that answered, as the provider names it; before that the model to be asked';
COMMENT ON COLUMN chat.jobs.finish_reason IS 'Why a completed job ended: answered, iteration_limit, budget, length, refused';
COMMENT ON COLUMN chat.jobs.reply IS 'The reply of a completed job';
COMMENT ON COLUMN chat.jobs.refusal IS 'The model''s refusal, if it refused';
COMMENT ON COLUMN chat.jobs.warnings IS 'What the job went on without, such as the tools of a server that was down';
COMMENT ON COLUMN chat.jobs.error_code IS 'What kind of error a failed or cancelled job ended with';
COMMENT ON COLUMN chat.jobs.error_message IS 'What went wrong, for people';
COMMENT ON COLUMN chat.jobs.iterations IS 'Answers of the model; like all sums here it is written when the job ends';
COMMENT ON COLUMN chat.jobs.tool_calls IS 'Tool calls that the model asked for and that were answered';
COMMENT ON COLUMN chat.jobs.input_tokens IS 'Tokens of the prompts';
COMMENT ON COLUMN chat.jobs.cached_tokens IS 'Of the input tokens, read from the provider''s cache';
COMMENT ON COLUMN chat.jobs.output_tokens IS 'Tokens of the answers';
COMMENT ON COLUMN chat.jobs.reasoning_tokens IS 'Of the output tokens, spent on reasoning';
COMMENT ON COLUMN chat.jobs.cost_usd IS 'What it cost in US dollars, where prices are known';
COMMENT ON COLUMN chat.jobs.reply_to IS 'Where its producer wants the result; none: the results queue';
COMMENT ON COLUMN chat.jobs.correlation_id IS 'The producer''s correlation id';
COMMENT ON COLUMN chat.jobs.priority IS 'The message''s priority, kept on wake-ups';
COMMENT ON COLUMN chat.jobs.trace_id IS 'Trace id of the message''s traceparent';
COMMENT ON COLUMN chat.jobs.traceparent IS 'The message''s traceparent (W3C Trace Context)';
COMMENT ON COLUMN chat.jobs.tracestate IS 'The message''s tracestate (W3C Trace Context)';
COMMENT ON COLUMN chat.jobs.enqueued_at IS 'The message''s own timestamp';
COMMENT ON COLUMN chat.jobs.received_at IS 'When a worker first took it in';
COMMENT ON COLUMN chat.jobs.started_at IS 'When it first ran';
COMMENT ON COLUMN chat.jobs.finished_at IS 'When it ended';
COMMENT ON COLUMN chat.jobs.publish_due_at IS 'When its result is published again if it is not known to be published';
COMMENT ON COLUMN chat.jobs.result_published_at IS 'When the broker had confirmed its result';
COMMENT ON COLUMN chat.jobs.cancel_requested_at IS 'When somebody called it off';
COMMENT ON COLUMN chat.jobs.deadline IS 'It fails if it is not done by then';
COMMENT ON COLUMN chat.jobs.metadata IS 'The producer''s metadata, echoed in the result';

CREATE TABLE chat.iterations (
    job_id uuid NOT NULL REFERENCES chat.jobs ON DELETE CASCADE,
    number integer NOT NULL CHECK (number >= 1),
    attempt integer NOT NULL,
    model text,
    response_id text,
    message json NOT NULL,
    content text,
    refusal text,
    finish_reason text,
    tool_calls integer NOT NULL DEFAULT 0,
    input_tokens bigint NOT NULL DEFAULT 0,
    cached_tokens bigint NOT NULL DEFAULT 0,
    output_tokens bigint NOT NULL DEFAULT 0,
    reasoning_tokens bigint NOT NULL DEFAULT 0,
    cost_usd numeric,
    started_at timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    PRIMARY KEY (job_id, number)
);
COMMENT ON TABLE chat.iterations IS 'An answer of the model: one round of a job''s loop';
COMMENT ON COLUMN chat.iterations.job_id IS 'The job';
COMMENT ON COLUMN chat.iterations.number IS 'The round, from 1';
COMMENT ON COLUMN chat.iterations.attempt IS 'The run that stored it';
COMMENT ON COLUMN chat.iterations.model IS 'The model, as the provider names it';
COMMENT ON COLUMN chat.iterations.response_id IS 'The provider''s id of the answer';
COMMENT ON COLUMN chat.iterations.message IS 'The assistant message as the provider sent it; it is replayed unchanged';
COMMENT ON COLUMN chat.iterations.content IS 'The text of it';
COMMENT ON COLUMN chat.iterations.refusal IS 'The refusal, if the model refused';
COMMENT ON COLUMN chat.iterations.finish_reason IS 'Why the model stopped, in the provider''s word';
COMMENT ON COLUMN chat.iterations.tool_calls IS 'How many tool calls it asks for';
COMMENT ON COLUMN chat.iterations.input_tokens IS 'Tokens of the prompt';
COMMENT ON COLUMN chat.iterations.cached_tokens IS 'Of the input tokens, read from the provider''s cache';
COMMENT ON COLUMN chat.iterations.output_tokens IS 'Tokens of the answer';
COMMENT ON COLUMN chat.iterations.reasoning_tokens IS 'Of the output tokens, spent on reasoning';
COMMENT ON COLUMN chat.iterations.cost_usd IS 'What it cost in US dollars, where prices are known';
COMMENT ON COLUMN chat.iterations.started_at IS 'When the model was asked';
COMMENT ON COLUMN chat.iterations.finished_at IS 'When it had answered';

CREATE TABLE chat.tool_calls (
    job_id uuid NOT NULL,
    iteration integer NOT NULL,
    position integer NOT NULL CHECK (position >= 1),
    call_id text NOT NULL,
    offered_as text NOT NULL,
    server text,
    tool text NOT NULL,
    arguments json NOT NULL,
    status chat.tool_call_status NOT NULL,
    result text,
    result_bytes bigint,
    attempt integer NOT NULL,
    started_at timestamptz,
    finished_at timestamptz,
    PRIMARY KEY (job_id, iteration, position),
    FOREIGN KEY (job_id, iteration) REFERENCES chat.iterations ON DELETE CASCADE
) WITH (fillfactor = 80);
COMMENT ON TABLE chat.tool_calls IS 'A tool call that an answer asks for, and what it came to';
COMMENT ON COLUMN chat.tool_calls.job_id IS 'The job';
COMMENT ON COLUMN chat.tool_calls.iteration IS 'The round that asks for it';
COMMENT ON COLUMN chat.tool_calls.position IS 'Its place among the calls of the round, from 1';
COMMENT ON COLUMN chat.tool_calls.call_id IS 'The model''s id of the call';
COMMENT ON COLUMN chat.tool_calls.offered_as IS 'The tool''s name as the model says it';
COMMENT ON COLUMN chat.tool_calls.server IS 'The tool server; none when no server has the tool';
COMMENT ON COLUMN chat.tool_calls.tool IS 'The tool''s name on its server; where no server has it, as the model said it';
COMMENT ON COLUMN chat.tool_calls.arguments IS 'The arguments as the model wrote them; what is no JSON stands as a JSON string';
COMMENT ON COLUMN chat.tool_calls.status IS 'How it stands';
COMMENT ON COLUMN chat.tool_calls.result IS 'What the model is told, up to max_result_bytes of it';
COMMENT ON COLUMN chat.tool_calls.result_bytes IS 'The result''s size before it was cut';
COMMENT ON COLUMN chat.tool_calls.attempt IS 'The run that made it';
COMMENT ON COLUMN chat.tool_calls.started_at IS 'When it was begun';
COMMENT ON COLUMN chat.tool_calls.finished_at IS 'When it had ended';

CREATE TABLE chat.attempts (
    job_id uuid NOT NULL REFERENCES chat.jobs ON DELETE CASCADE,
    attempt integer NOT NULL,
    worker_id uuid NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    outcome text,
    error_code text,
    error_message text,
    PRIMARY KEY (job_id, attempt)
) WITH (fillfactor = 80);
COMMENT ON TABLE chat.attempts IS 'A run of a job by a worker';
COMMENT ON COLUMN chat.attempts.job_id IS 'The job';
COMMENT ON COLUMN chat.attempts.attempt IS 'The run, from 1';
COMMENT ON COLUMN chat.attempts.worker_id IS 'The worker';
COMMENT ON COLUMN chat.attempts.started_at IS 'When it began';
COMMENT ON COLUMN chat.attempts.ended_at IS 'When it ended; none while it runs or when its worker died';
COMMENT ON COLUMN chat.attempts.outcome IS 'How it ended: completed, failed, cancelled, parked, taken_over';
COMMENT ON COLUMN chat.attempts.error_code IS 'What kind of error it met';
COMMENT ON COLUMN chat.attempts.error_message IS 'What went wrong, for people';

CREATE TABLE chat.dead_letters (
    id uuid PRIMARY KEY,
    job_id uuid,
    error_code text NOT NULL,
    error_message text NOT NULL,
    body bytea NOT NULL,
    properties json NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    replayed_at timestamptz
);
CREATE INDEX dead_letters_created_at ON chat.dead_letters (created_at);
COMMENT ON TABLE chat.dead_letters IS 'A message that was no job, or a job that failed for good';
COMMENT ON COLUMN chat.dead_letters.id IS 'The dead letter''s id';
COMMENT ON COLUMN chat.dead_letters.job_id IS 'The job''s id, if one could be read or derived';
COMMENT ON COLUMN chat.dead_letters.error_code IS 'What kind of error';
COMMENT ON COLUMN chat.dead_letters.error_message IS 'What was wrong, for people';
COMMENT ON COLUMN chat.dead_letters.body IS 'The message''s body, byte for byte';
COMMENT ON COLUMN chat.dead_letters.properties IS 'The message''s AMQP properties and headers';
COMMENT ON COLUMN chat.dead_letters.created_at IS 'When it was put here';
COMMENT ON COLUMN chat.dead_letters.replayed_at IS 'When it was sent again as a new job';

CREATE TABLE chat.workers (
    id uuid PRIMARY KEY,
    host text NOT NULL,
    pid integer NOT NULL,
    version text NOT NULL,
    concurrency integer NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    heartbeat_at timestamptz NOT NULL DEFAULT now(),
    stopped_at timestamptz
) WITH (fillfactor = 50);
COMMENT ON TABLE chat.workers IS 'A worker process';
COMMENT ON COLUMN chat.workers.id IS 'A fresh id of each process';
COMMENT ON COLUMN chat.workers.host IS 'The machine''s name';
COMMENT ON COLUMN chat.workers.pid IS 'The process id';
COMMENT ON COLUMN chat.workers.version IS 'The program''s version';
COMMENT ON COLUMN chat.workers.concurrency IS 'Jobs that it takes in hand at once';
COMMENT ON COLUMN chat.workers.started_at IS 'When it started';
COMMENT ON COLUMN chat.workers.heartbeat_at IS 'When it last said that it is alive';
COMMENT ON COLUMN chat.workers.stopped_at IS 'When it stopped in good order';
