-- Calls of tools that need a person's word before they are made (`approval` in MCP_CONFIG).

CREATE TYPE chat.approval AS ENUM ('approved', 'denied', 'expired');
COMMENT ON TYPE chat.approval IS 'approved, denied: what a person said; expired: nobody said anything in time, which counts as denied';

ALTER TABLE chat.tool_calls
    ADD COLUMN approval_expires_at timestamptz,
    ADD COLUMN approval chat.approval,
    ADD COLUMN approval_by text,
    ADD COLUMN approval_reason text,
    ADD COLUMN approval_at timestamptz;
COMMENT ON COLUMN chat.tool_calls.approval_expires_at IS 'Until when a person may say whether it is made; none: it needs nobody''s word';
COMMENT ON COLUMN chat.tool_calls.approval IS 'What was said; none while the call waits for it';
COMMENT ON COLUMN chat.tool_calls.approval_by IS 'Who said so, in the words of who sent it';
COMMENT ON COLUMN chat.tool_calls.approval_reason IS 'Why, in the same person''s words; the model reads why a call was denied';
COMMENT ON COLUMN chat.tool_calls.approval_at IS 'When it was said, or when its time was found to be up';

-- No column of it is one that results change: those updates stay within their page.
CREATE INDEX tool_calls_undecided ON chat.tool_calls (approval_expires_at) WHERE approval_expires_at IS NOT NULL AND approval IS NULL;

CREATE VIEW chat.pending_approvals AS
SELECT c.job_id, c.call_id, c.server, c.tool, c.arguments, j.user_id, j.conversation_id, j.turn, c.iteration, c.position,
       i.finished_at AS requested_at, c.approval_expires_at AS expires_at, j.deadline, j.metadata
FROM chat.tool_calls AS c
JOIN chat.jobs AS j ON j.id = c.job_id
JOIN chat.iterations AS i ON i.job_id = c.job_id AND i.number = c.iteration
WHERE c.approval_expires_at IS NOT NULL AND c.approval IS NULL AND c.approval_expires_at > now() AND j.finished_at IS NULL;
COMMENT ON VIEW chat.pending_approvals IS 'A row a call that waits for a person: chat-worker approve JOB_ID CALL_ID, or deny';
COMMENT ON COLUMN chat.pending_approvals.job_id IS 'The job';
COMMENT ON COLUMN chat.pending_approvals.call_id IS 'The model''s id of the call';
COMMENT ON COLUMN chat.pending_approvals.server IS 'The tool server';
COMMENT ON COLUMN chat.pending_approvals.tool IS 'The tool''s name on its server';
COMMENT ON COLUMN chat.pending_approvals.arguments IS 'What it would be called with';
COMMENT ON COLUMN chat.pending_approvals.user_id IS 'Who the job speaks for';
COMMENT ON COLUMN chat.pending_approvals.conversation_id IS 'The job''s conversation';
COMMENT ON COLUMN chat.pending_approvals.turn IS 'The job''s place in it';
COMMENT ON COLUMN chat.pending_approvals.iteration IS 'The round that asks for the call';
COMMENT ON COLUMN chat.pending_approvals.position IS 'The call''s place in the round, from 1';
COMMENT ON COLUMN chat.pending_approvals.requested_at IS 'When the model had asked for it';
COMMENT ON COLUMN chat.pending_approvals.expires_at IS 'When it counts as denied';
COMMENT ON COLUMN chat.pending_approvals.deadline IS 'When the whole job fails, if that comes first';
COMMENT ON COLUMN chat.pending_approvals.metadata IS 'The producer''s metadata of the job';

-- The one way to decide. The job's row is locked as a run locks it, so that a run parks its job either before this or
-- after it, and sees what was said. `again`: this may be a repeat of what was obeyed before, and must not decide a
-- later call that the model gave the same id. Returns what became of it: decided, repeated (it was said before),
-- unknown_job, unknown_call, not_needed, ended (the job), expired, or the contrary that was said: approved, denied.
CREATE FUNCTION chat.decide(job uuid, call text, verdict chat.approval, by_whom text, why text, again boolean) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found_job record;
    found_call record;
BEGIN
    SELECT j.status, j.finished_at INTO found_job FROM chat.jobs AS j WHERE j.id = job FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN 'unknown_job';
    END IF;
    -- Ids are unique within an answer only: the newest call that waits is meant, else the newest one.
    SELECT c.iteration, c.position, c.approval, c.approval_expires_at INTO found_call
    FROM chat.tool_calls AS c WHERE c.job_id = job AND c.call_id = call
    ORDER BY again AND c.approval IS NOT DISTINCT FROM verdict AND c.approval_by IS NOT DISTINCT FROM left(by_whom, 1000)
            AND c.approval_reason IS NOT DISTINCT FROM left(why, 1000) DESC,
        c.approval_expires_at IS NOT NULL AND c.approval IS NULL DESC, c.iteration DESC, c.position DESC
    LIMIT 1;
    IF NOT FOUND THEN
        RETURN 'unknown_call';
    ELSIF found_call.approval_expires_at IS NULL THEN
        RETURN 'not_needed';
    ELSIF found_call.approval = verdict THEN
        RETURN 'repeated';
    ELSIF found_call.approval IS NOT NULL THEN
        RETURN found_call.approval;
    ELSIF found_job.finished_at IS NOT NULL THEN
        RETURN 'ended';
    ELSIF found_call.approval_expires_at <= now() THEN
        RETURN 'expired';
    END IF;
    UPDATE chat.tool_calls AS c SET approval = verdict, approval_by = left(by_whom, 1000), approval_reason = left(why, 1000),
        approval_at = now()
    WHERE c.job_id = job AND c.iteration = found_call.iteration AND c.position = found_call.position;
    -- When all are decided the job goes on; the model gets all outcomes together.
    UPDATE chat.jobs AS j SET due_at = now()
    WHERE j.id = job AND j.status = 'waiting' AND j.wait_reason = 'approval' AND NOT EXISTS (
        SELECT FROM chat.tool_calls AS c
        WHERE c.job_id = job AND c.approval_expires_at IS NOT NULL AND c.approval IS NULL);
    IF FOUND THEN
        PERFORM pg_notify('chat_worker', 'due');
    END IF;
    RETURN 'decided';
END;
$$;
COMMENT ON FUNCTION chat.decide IS 'Says whether a call may be made; for workers. People have chat.approve and chat.deny';

CREATE FUNCTION chat.say(job uuid, call text, verdict chat.approval, by_whom text, why text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- As every text in this schema: the escape character itself is escaped.
    outcome text := chat.decide(job, replace(call, '␛', '␛241b'), verdict, replace(by_whom, '␛', '␛241b'),
        replace(why, '␛', '␛241b'), false);
BEGIN
    CASE outcome
        WHEN 'decided', 'repeated' THEN
            RETURN true;
        WHEN 'ended', 'expired' THEN
            RETURN false;
        WHEN 'unknown_job' THEN
            RAISE EXCEPTION USING ERRCODE = 'JB006', MESSAGE = format('there is no job %s', coalesce(job::text, 'NULL'));
        WHEN 'unknown_call' THEN
            RAISE EXCEPTION USING ERRCODE = 'JB006', MESSAGE = format('the job %s has no call %s', job, coalesce(left(call, 200), 'NULL')),
                HINT = 'What waits: SELECT * FROM chat.pending_approvals';
        WHEN 'not_needed' THEN
            RAISE EXCEPTION USING ERRCODE = 'JB007', MESSAGE = format('the call %s needs nobody''s approval', left(call, 200));
        ELSE
            RAISE EXCEPTION USING ERRCODE = 'JB007', MESSAGE = format('the call %s was %s already; that stands', left(call, 200), outcome);
    END CASE;
END;
$$;
COMMENT ON FUNCTION chat.say IS 'What chat.approve and chat.deny share';

CREATE FUNCTION chat.approve(job_id uuid, call_id text, by text DEFAULT NULL, reason text DEFAULT NULL) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT chat.say(job_id, call_id, 'approved', by, reason)
$$;
COMMENT ON FUNCTION chat.approve IS 'Lets a call be made that waits for that. True: it is approved, now or before. False: too late, its time was up or the job had ended. SQLSTATEs: JB006 no such job or call, JB007 it was denied already, or needs no approval';

CREATE FUNCTION chat.deny(job_id uuid, call_id text, by text DEFAULT NULL, reason text DEFAULT NULL) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT chat.say(job_id, call_id, 'denied', by, reason)
$$;
COMMENT ON FUNCTION chat.deny IS 'Has a call not be made that waits for approval; the model is told, with the reason. True: it is denied, now or before. False: too late, its time was up or the job had ended. SQLSTATEs: JB006 no such job or call, JB007 it was approved already, or needs no approval';

REVOKE ALL ON FUNCTION chat.decide, chat.say, chat.approve, chat.deny FROM PUBLIC;

-- Who may decide: a role of its own. Whoever may enqueue a job must not be able to approve what it does.
DO $$
BEGIN
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'chat_approver') THEN
            CREATE ROLE chat_approver NOLOGIN;
        END IF;
    EXCEPTION
        WHEN insufficient_privilege OR duplicate_object OR unique_violation OR undefined_object THEN
            RAISE NOTICE 'role chat_approver is left as it is: %', SQLERRM;
    END;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'chat_approver') THEN
        GRANT USAGE ON SCHEMA chat TO chat_approver;
        GRANT SELECT ON chat.pending_approvals TO chat_approver;
        GRANT EXECUTE ON FUNCTION chat.approve, chat.deny TO chat_approver;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'chat_reader') THEN
        GRANT SELECT ON chat.pending_approvals TO chat_reader;
    END IF;
END;
$$;
