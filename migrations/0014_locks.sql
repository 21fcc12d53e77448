-- Less is locked, and what a worker reserves of a limit is bounded.

-- Looks without a lock first: a producer that keeps its transaction open must not keep a row that is ended already.
CREATE OR REPLACE FUNCTION chat.request_cancel(job uuid, why text, by_user text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found_job record;
BEGIN
    SELECT j.user_id, j.finished_at INTO found_job FROM chat.jobs AS j WHERE j.id = job;
    IF FOUND AND found_job.finished_at IS NULL AND (by_user IS NULL OR by_user = found_job.user_id) THEN
        SELECT j.user_id, j.finished_at INTO found_job FROM chat.jobs AS j WHERE j.id = job FOR NO KEY UPDATE;
    END IF;
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

CREATE OR REPLACE FUNCTION chat.reserve_rate(
    model text,
    tokens double precision,
    requests double precision,
    owed double precision,
    burst double precision,
    horizon double precision,
    ahead double precision,
    OUT granted boolean,
    OUT tokens_in double precision,
    OUT requests_in double precision,
    OUT tokens_idle double precision,
    OUT requests_idle double precision,
    OUT ahead_granted double precision
) LANGUAGE plpgsql AS $$
DECLARE
    at timestamptz;
    held chat.rate_limits;
    tokens_from timestamptz;
    requests_from timestamptz;
    room double precision;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    SELECT * INTO held FROM chat.rate_limits WHERE name = model FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        INSERT INTO chat.rate_limits (name, tokens_at, requests_at)
        VALUES (model, now() - interval '1 min', now() - interval '1 min')
        ON CONFLICT (name) DO NOTHING;
        SELECT * INTO held FROM chat.rate_limits WHERE name = model FOR NO KEY UPDATE;
    END IF;
    -- Read when the lock is there: others may have held it for a while.
    at := clock_timestamp();
    held.tokens_at := held.tokens_at + make_interval(secs => greatest(-600, least(600, owed)));
    tokens_idle := extract(epoch FROM at - held.tokens_at);
    requests_idle := extract(epoch FROM at - held.requests_at);
    tokens_from := greatest(held.tokens_at, at - make_interval(secs => burst));
    requests_from := greatest(held.requests_at, at - make_interval(secs => burst));
    tokens_in := extract(epoch FROM tokens_from - at);
    requests_in := extract(epoch FROM requests_from - at);
    granted := greatest(tokens_in, requests_in) <= horizon;
    ahead_granted := 0;
    IF granted THEN
        room := least(-tokens_in - tokens, -requests_in - requests);
        ahead_granted := greatest(0, least(ahead, room / 4));
        tokens_from := tokens_from + make_interval(secs => tokens + ahead_granted);
        requests_from := requests_from + make_interval(secs => requests + ahead_granted);
    END IF;
    -- A server that counts absurdly must not shut its model for longer than the largest call would.
    tokens_from := least(tokens_from, at + interval '10 min');
    UPDATE chat.rate_limits SET tokens_at = tokens_from, requests_at = requests_from, updated_at = at WHERE name = model;
END
$$;
