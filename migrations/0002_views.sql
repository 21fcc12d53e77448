-- What analysts read.

-- The linear conversation. Within a job: its messages, then round by round the answer and the
-- results of its calls, then the reply of a job that a limit stopped.
CREATE VIEW chat.transcript AS
WITH lines AS (
    SELECT j.conversation_id, j.turn, j.id AS job_id, 0 AS round, 0 AS part, m.place,
           m.message ->> 'role' AS role,
           CASE json_typeof(m.message -> 'content')
               WHEN 'string' THEN m.message ->> 'content'
               ELSE (m.message -> 'content')::text
           END AS content,
           NULL::text AS tool_name, NULL::text AS tool_call_id, NULL::json AS tool_calls,
           j.received_at AS created_at
    FROM chat.jobs AS j
    CROSS JOIN LATERAL json_array_elements(j.request -> 'messages') WITH ORDINALITY AS m (message, place)
    UNION ALL
    SELECT j.conversation_id, j.turn, j.id, i.number, 1, 0,
           'assistant', coalesce(i.content, i.refusal),
           NULL, NULL, calls.list,
           i.finished_at
    FROM chat.iterations AS i
    JOIN chat.jobs AS j ON j.id = i.job_id
    LEFT JOIN LATERAL (
        SELECT json_agg(json_build_object('id', c.call_id, 'server', c.server, 'name', c.tool,
                                          'arguments', c.arguments) ORDER BY c.position) AS list
        FROM chat.tool_calls AS c
        WHERE c.job_id = i.job_id AND c.iteration = i.number
    ) AS calls ON i.tool_calls > 0
    UNION ALL
    SELECT j.conversation_id, j.turn, j.id, c.iteration, 2, c.position,
           'tool', c.result, c.tool, c.call_id, NULL,
           coalesce(c.finished_at, c.started_at)
    FROM chat.tool_calls AS c
    JOIN chat.jobs AS j ON j.id = c.job_id
    WHERE c.result IS NOT NULL
    UNION ALL
    SELECT j.conversation_id, j.turn, j.id, 2147483647, 3, 0,
           'assistant', j.reply, NULL, NULL, NULL,
           j.finished_at
    FROM chat.jobs AS j
    WHERE j.finish_reason IN ('iteration_limit', 'budget')
)
SELECT conversation_id, turn, job_id,
       (row_number() OVER (PARTITION BY job_id ORDER BY round, part, place))::integer AS position,
       role, content, tool_name, tool_call_id, tool_calls, created_at
FROM lines;
COMMENT ON VIEW chat.transcript IS 'The conversation line by line: read it ordered by conversation_id, turn, position';
COMMENT ON COLUMN chat.transcript.conversation_id IS 'The conversation';
COMMENT ON COLUMN chat.transcript.turn IS 'The job''s place in the conversation';
COMMENT ON COLUMN chat.transcript.job_id IS 'The job';
COMMENT ON COLUMN chat.transcript.position IS 'The line''s place in the job, from 1';
COMMENT ON COLUMN chat.transcript.role IS 'Who speaks: system, user, assistant or tool';
COMMENT ON COLUMN chat.transcript.content IS 'What is said; parts of text and images as JSON';
COMMENT ON COLUMN chat.transcript.tool_name IS 'The tool that a tool line comes from';
COMMENT ON COLUMN chat.transcript.tool_call_id IS 'The call that a tool line answers';
COMMENT ON COLUMN chat.transcript.tool_calls IS 'The calls that an assistant line asks for';
COMMENT ON COLUMN chat.transcript.created_at IS 'When it was said';

CREATE VIEW chat.job_summary AS
SELECT j.id AS job_id, j.conversation_id, j.turn, j.user_id, j.status, j.finish_reason, j.error_code,
       j.model, j.attempt, j.iterations, j.tool_calls,
       j.input_tokens, j.cached_tokens, j.output_tokens, j.reasoning_tokens,
       j.input_tokens + j.output_tokens AS total_tokens, j.cost_usd,
       j.enqueued_at, j.received_at, j.started_at, j.finished_at,
       j.started_at - coalesce(j.enqueued_at, j.received_at) AS queue_wait,
       j.finished_at - j.started_at AS run_time,
       coalesce(m.spent, interval '0') AS model_time,
       coalesce(t.spent, interval '0') AS tool_time
FROM chat.jobs AS j
LEFT JOIN LATERAL (
    SELECT sum(i.finished_at - i.started_at) AS spent FROM chat.iterations AS i WHERE i.job_id = j.id
) AS m ON true
LEFT JOIN LATERAL (
    SELECT sum(c.finished_at - c.started_at) AS spent FROM chat.tool_calls AS c WHERE c.job_id = j.id
) AS t ON true;
COMMENT ON VIEW chat.job_summary IS 'A row a job: how it ended, what it used, where its time went';
COMMENT ON COLUMN chat.job_summary.queue_wait IS 'From the message''s timestamp (to the second; else from when it was taken in) to its first run';
COMMENT ON COLUMN chat.job_summary.run_time IS 'From its first run to its end';
COMMENT ON COLUMN chat.job_summary.model_time IS 'Time in model calls';
COMMENT ON COLUMN chat.job_summary.tool_time IS 'Time in tool calls, calls at the same time added up';

CREATE VIEW chat.usage_daily AS
SELECT (finished_at AT TIME ZONE 'UTC')::date AS day, user_id, model, count(*) AS jobs,
       sum(input_tokens)::bigint AS input_tokens, sum(output_tokens)::bigint AS output_tokens,
       sum(cost_usd) AS cost_usd
FROM chat.jobs
WHERE finished_at IS NOT NULL
GROUP BY 1, 2, 3;
COMMENT ON VIEW chat.usage_daily IS 'What each user used of each model, by the UTC day on which the jobs ended';

CREATE VIEW chat.tool_stats_daily AS
SELECT (started_at AT TIME ZONE 'UTC')::date AS day, server, tool, count(*) AS calls,
       count(*) FILTER (WHERE status <> 'succeeded') AS failures,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - started_at) * 1000) AS p50_ms,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - started_at) * 1000) AS p95_ms
FROM chat.tool_calls
WHERE finished_at IS NOT NULL
GROUP BY 1, 2, 3;
COMMENT ON VIEW chat.tool_stats_daily IS 'Calls, failures and times of each tool, by UTC day';

CREATE VIEW chat.queue_health AS
SELECT count(*) FILTER (WHERE j.status IN ('waiting', 'queued')) AS waiting,
       coalesce(extract(epoch FROM now() - min(j.received_at) FILTER (WHERE j.status IN ('waiting', 'queued'))), 0)::double precision
           AS oldest_waiting_seconds,
       count(*) FILTER (WHERE j.status = 'running') AS running,
       count(*) FILTER (WHERE j.status = 'running' AND NOT coalesce(w.heartbeat_at > now() - interval '30 s', false)) AS stale_running,
       count(*) FILTER (WHERE j.finished_at IS NOT NULL) AS unpublished_results
FROM chat.jobs AS j
LEFT JOIN chat.workers AS w ON w.id = j.worker_id
WHERE j.status IN ('waiting', 'queued', 'running')
   OR (j.result_published_at IS NULL AND j.publish_due_at IS NOT NULL);
COMMENT ON VIEW chat.queue_health IS 'One row: what waits, what runs, what is stuck';
COMMENT ON COLUMN chat.queue_health.waiting IS 'Jobs that wait or are on their way to a worker';
COMMENT ON COLUMN chat.queue_health.oldest_waiting_seconds IS 'Age of the oldest of them';
COMMENT ON COLUMN chat.queue_health.running IS 'Jobs that a worker has';
COMMENT ON COLUMN chat.queue_health.stale_running IS 'Of these, jobs whose worker has been silent for 30 s';
COMMENT ON COLUMN chat.queue_health.unpublished_results IS 'Ended jobs whose result is not known to be published';
