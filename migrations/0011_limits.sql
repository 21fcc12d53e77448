-- Rate limits of models, shared by all workers, and what users spent today.

-- Unlogged: what it says is worth nothing a minute later, and after a crash of the database every limit begins afresh.
CREATE UNLOGGED TABLE chat.rate_limits (
    name text PRIMARY KEY,
    tokens_at timestamptz NOT NULL,
    requests_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
COMMENT ON TABLE chat.rate_limits IS 'How far the limits of each model are used up, for all workers together; lost in a crash, to no harm';
COMMENT ON COLUMN chat.rate_limits.name IS 'What is limited: a model''s entry in CHAT_MODEL_CONFIG';
COMMENT ON COLUMN chat.rate_limits.tokens_at IS 'When the limit of tokens has room again for all that was reserved; in the past: it has room now';
COMMENT ON COLUMN chat.rate_limits.requests_at IS 'The same of the limit of requests';
COMMENT ON COLUMN chat.rate_limits.updated_at IS 'When a worker last reserved something';

-- A limit of r a second is kept as the moment at which all that was reserved is paid for (a leaky bucket as a clock: GCRA).
-- Amounts are seconds of the limit's rate. One call, one row lock, one commit that waits for no disk.
CREATE FUNCTION chat.reserve_rate(
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
    held.tokens_at := held.tokens_at + make_interval(secs => owed);
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
    UPDATE chat.rate_limits SET tokens_at = tokens_from, requests_at = requests_from, updated_at = at WHERE name = model;
END
$$;
COMMENT ON FUNCTION chat.reserve_rate IS 'For workers: reserves a part of a model''s limits and says when it may be used, in seconds from now';
REVOKE ALL ON FUNCTION chat.reserve_rate FROM PUBLIC;

CREATE TABLE chat.user_costs (
    user_id text NOT NULL,
    day date NOT NULL,
    cost_usd numeric NOT NULL,
    PRIMARY KEY (user_id, day)
) WITH (fillfactor = 70);
COMMENT ON TABLE chat.user_costs IS 'What the calls of each user cost, by UTC day; kept while CHAT_USER_DAILY_COST is set';
COMMENT ON COLUMN chat.user_costs.user_id IS 'The user';
COMMENT ON COLUMN chat.user_costs.day IS 'The UTC day on which the model answered';
COMMENT ON COLUMN chat.user_costs.cost_usd IS 'What it cost in US dollars';

CREATE OR REPLACE FUNCTION chat.check_budget(budget jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    RETURN coalesce(
        chat.check_object(budget, '/budget', '{total_tokens,tool_calls,cost_usd}'),
        chat.check_number(chat.given(budget, 'total_tokens'), '/budget/total_tokens', 1, 18446744073709551615, true),
        chat.check_number(chat.given(budget, 'tool_calls'), '/budget/tool_calls', 0, 18446744073709551615, true),
        chat.check_number(chat.given(budget, 'cost_usd'), '/budget/cost_usd', 0, 10000000, false));
END;
$$;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'chat_reader') THEN
        GRANT SELECT ON chat.rate_limits, chat.user_costs TO chat_reader;
    END IF;
END
$$;
