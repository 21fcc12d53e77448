-- Who is alive, what waits for what, and what was called off.

ALTER TABLE chat.workers ADD COLUMN presence bigint;
COMMENT ON COLUMN chat.workers.presence IS 'Key of the advisory lock that its own session holds while it lives';

ALTER TABLE chat.installation
    ADD COLUMN sweeper uuid,
    ADD COLUMN swept_until timestamptz;
COMMENT ON COLUMN chat.installation.sweeper IS 'The worker that looks for what is due';
COMMENT ON COLUMN chat.installation.swept_until IS 'When another may take that over';

ALTER TABLE chat.jobs
    ADD COLUMN deaths integer NOT NULL DEFAULT 0,
    ADD COLUMN wake_ups smallint NOT NULL DEFAULT 0,
    ADD COLUMN cancel_reason text;
ALTER TABLE chat.jobs ALTER COLUMN request_hash DROP NOT NULL;
COMMENT ON COLUMN chat.jobs.deaths IS 'Workers that died over it in a row: what killed them may be this job';
COMMENT ON COLUMN chat.jobs.wake_ups IS 'Wake-ups sent since it was last taken in hand or parked; each doubles the wait for the next';
COMMENT ON COLUMN chat.jobs.cancel_reason IS 'Why it was called off, in the words of who did';
COMMENT ON COLUMN chat.jobs.request_hash IS 'SHA-256 of the request''s content, by which a repeat is told from other content; none until a worker has read a job of chat.enqueue';
COMMENT ON COLUMN chat.attempts.outcome IS 'How it ended: completed, failed, cancelled, parked, given_back, taken_over';

CREATE INDEX jobs_with_deadline ON chat.jobs (deadline) WHERE deadline IS NOT NULL AND finished_at IS NULL;
CREATE INDEX jobs_called_off ON chat.jobs (cancel_requested_at) WHERE cancel_requested_at IS NOT NULL AND finished_at IS NULL;
CREATE INDEX jobs_waiting_for_turn ON chat.jobs (conversation_id, turn) WHERE status = 'waiting' AND wait_reason = 'turn';
CREATE INDEX jobs_unfinished ON chat.jobs (conversation_id, turn) WHERE finished_at IS NULL AND turn IS NOT NULL;

CREATE TABLE chat.cancel_requests (
    job_id uuid NOT NULL,
    user_id text NOT NULL DEFAULT '',
    reason text,
    requested_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job_id, user_id)
);
COMMENT ON TABLE chat.cancel_requests IS 'Cancels of jobs that have not come in yet; kept for 24 h';
COMMENT ON COLUMN chat.cancel_requests.job_id IS 'The job that is meant';
COMMENT ON COLUMN chat.cancel_requests.user_id IS 'Whose job it must be; empty: anybody''s';
COMMENT ON COLUMN chat.cancel_requests.reason IS 'Why, in the words of who asked';
COMMENT ON COLUMN chat.cancel_requests.requested_at IS 'When it was asked';

-- Whether the worker's own session still holds its lock. Looked up, never tried: to try would be to take.
CREATE FUNCTION chat.is_present(worker uuid) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT coalesce((
        SELECT w.presence IS NULL OR EXISTS (
            SELECT FROM pg_catalog.pg_locks AS l
            WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
              AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database())
              AND l.classid = ((w.presence >> 32) & 4294967295)::oid AND l.objid = (w.presence & 4294967295)::oid)
        FROM chat.workers AS w WHERE w.id = worker
    ), false)
$$;
COMMENT ON FUNCTION chat.is_present IS 'Whether the worker''s own session is there';

-- Dead is who has signed off, who has lost its session and been silent for 4 s (it crashed), and who has
-- been silent for 30 s (it hangs, or is cut off). After a restart of this server nobody has a session
-- and nobody could be heard: who was last heard before it gets 15 s to come back.
CREATE FUNCTION chat.is_alive(worker uuid) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT coalesce((
        SELECT w.stopped_at IS NULL AND (
            (w.heartbeat_at < pg_catalog.pg_postmaster_start_time()
                AND now() < pg_catalog.pg_postmaster_start_time() + interval '15 s')
            OR w.heartbeat_at > now() - interval '4 s'
            OR (w.heartbeat_at > now() - interval '30 s' AND chat.is_present(worker)))
        FROM chat.workers AS w WHERE w.id = worker
    ), false)
$$;
COMMENT ON FUNCTION chat.is_alive IS 'Whether the worker counts as alive, by this server''s clock alone';

-- The one way to call a job off. Waiting jobs are ended by the sweep, running ones by their worker; both
-- listen. Returns what became of it: requested, finished, kept (nobody knows the job yet) or forbidden.
CREATE FUNCTION chat.request_cancel(job uuid, why text, by_user text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found_job record;
BEGIN
    SELECT j.user_id, j.finished_at INTO found_job FROM chat.jobs AS j WHERE j.id = job FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        INSERT INTO chat.cancel_requests (job_id, user_id, reason) VALUES (job, coalesce(by_user, ''), left(why, 1000))
        ON CONFLICT (job_id, user_id) DO UPDATE SET requested_at = now(), reason = excluded.reason;
        RETURN 'kept';
    ELSIF by_user IS NOT NULL AND by_user <> found_job.user_id THEN
        RETURN 'forbidden';
    ELSIF found_job.finished_at IS NOT NULL THEN
        RETURN 'finished';
    END IF;
    UPDATE chat.jobs AS j SET cancel_requested_at = coalesce(j.cancel_requested_at, now()),
        cancel_reason = coalesce(j.cancel_reason, left(why, 1000))
    WHERE j.id = job;
    PERFORM pg_notify('chat_worker', 'cancel ' || job);
    RETURN 'requested';
END;
$$;
COMMENT ON FUNCTION chat.request_cancel IS 'Calls a job off for a user; for workers. Producers have chat.cancel';

CREATE FUNCTION chat.cancel(job_id uuid, reason text DEFAULT NULL) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT chat.request_cancel(job_id, reason, NULL) <> 'finished'
$$;
COMMENT ON FUNCTION chat.cancel IS 'Calls a job off. True: it will end as cancelled, now or, if nobody knows it yet, when it comes within 24 h. False: it had ended already';

REVOKE ALL ON FUNCTION chat.is_present, chat.is_alive, chat.request_cancel, chat.cancel FROM PUBLIC;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'chat_producer') THEN
        GRANT EXECUTE ON FUNCTION chat.cancel TO chat_producer;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'chat_reader') THEN
        GRANT SELECT ON chat.cancel_requests TO chat_reader;
        GRANT EXECUTE ON FUNCTION chat.is_present, chat.is_alive TO chat_reader;
    END IF;
END;
$$;
