-- A job from SQL, inside the producer's own transaction: checked as a worker checks a message (src/wire) and stored
-- waiting and due. A chat.check_… returns NULL if all is well, else where (a JSON pointer, RFC 6901) and what was
-- expected; those that are STRICT check what may be absent. Globs are not tried out here: the worker does that.

CREATE FUNCTION chat.given(object jsonb, field text) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT nullif(object -> field, 'null')
$$;
COMMENT ON FUNCTION chat.given IS 'A field of an object; null is as good as none';

CREATE FUNCTION chat.check_got(pointer text, expected text, value jsonb) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT format('%s: expected %s, got %s', coalesce(nullif(pointer, ''), 'the job'), expected,
        CASE jsonb_typeof(value) WHEN 'object' THEN 'an object' WHEN 'array' THEN 'an array' ELSE left(value::text, 60) END)
$$;
COMMENT ON FUNCTION chat.check_got IS 'What is said of a value that is wrong';

CREATE FUNCTION chat.check_kind(value jsonb, pointer text, kind text) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF value IS NULL THEN
        RETURN pointer || ': expected a value, the field is missing';
    ELSIF jsonb_typeof(value) = kind THEN
        RETURN NULL;
    END IF;
    RETURN chat.check_got(pointer, CASE kind WHEN 'string' THEN 'a text' WHEN 'number' THEN 'a number'
        WHEN 'boolean' THEN 'true or false' WHEN 'array' THEN 'an array' ELSE 'an object' END, value);
END;
$$;
COMMENT ON FUNCTION chat.check_kind IS 'A value that must be there, of one of the kinds of jsonb_typeof';

CREATE FUNCTION chat.check_object(value jsonb, pointer text, known text[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN coalesce(chat.check_kind(value, pointer, 'object'), (
        SELECT format('%s/%s: unknown field, expected one of %s', pointer,
            replace(replace(left(f.name, 60), '~', '~0'), '/', '~1'), array_to_string(known, ', '))
        FROM jsonb_object_keys(value) AS f (name) WHERE f.name <> ALL (known) LIMIT 1));
END;
$$;
COMMENT ON FUNCTION chat.check_object IS 'An object that must be there, of these fields and no others: a typo is not dropped silently';

CREATE FUNCTION chat.check_word(value jsonb, pointer text, words text[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    IF jsonb_typeof(value) = 'string' AND value #>> '{}' = ANY (words) THEN
        RETURN NULL;
    END IF;
    RETURN chat.check_got(pointer, 'one of ' || array_to_string(words, ', '), value);
END;
$$;
COMMENT ON FUNCTION chat.check_word IS 'One of these words';

-- The text of a whole number is looked at, since workers take 3 and not 3.0.
CREATE FUNCTION chat.check_number(value jsonb, pointer text, lowest numeric, highest numeric, whole boolean) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    RETURN coalesce(chat.check_kind(value, pointer, 'number'), CASE
        WHEN value::numeric NOT BETWEEN lowest AND highest
            THEN chat.check_got(pointer, format('a number from %s to %s', lowest, highest), value)
        WHEN whole AND value::text !~ '^-?[0-9]+$' THEN chat.check_got(pointer, 'a whole number', value) END);
END;
$$;
COMMENT ON FUNCTION chat.check_number IS 'A number within limits';

CREATE FUNCTION chat.check_texts(value jsonb, pointer text, many integer, longest integer) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    RETURN coalesce(chat.check_kind(value, pointer, 'array'),
        CASE WHEN jsonb_array_length(value) > many
            THEN format('%s: expected at most %s texts, got %s', pointer, many, jsonb_array_length(value)) END,
        (SELECT CASE jsonb_typeof(t.item)
            WHEN 'string' THEN format('%s/%s: expected a text of at most %s bytes', pointer, t.place - 1, longest)
            ELSE chat.check_kind(t.item, format('%s/%s', pointer, t.place - 1), 'string') END
        FROM jsonb_array_elements(value) WITH ORDINALITY AS t (item, place)
        WHERE jsonb_typeof(t.item) <> 'string' OR octet_length(t.item #>> '{}') > longest LIMIT 1));
END;
$$;
COMMENT ON FUNCTION chat.check_texts IS 'An array of texts: so many, and so long in bytes';

-- The spellings that workers read; Postgres would read others besides.
CREATE FUNCTION chat.check_uuid(value jsonb, pointer text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    hyphened CONSTANT text := '[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}';
BEGIN
    IF jsonb_typeof(value) = 'string'
        AND value #>> '{}' ~ format('^([0-9A-Fa-f]{32}|(urn:uuid:)?%1$s|[{]%1$s[}])$', hyphened)
    THEN
        RETURN NULL;
    END IF;
    RETURN chat.check_got(pointer, 'a UUID', value);
END;
$$;
COMMENT ON FUNCTION chat.check_uuid IS 'A UUID';

CREATE FUNCTION chat.check_time(value jsonb, pointer text) RETURNS text
LANGUAGE plpgsql STABLE STRICT AS $$
DECLARE
    shape CONSTANT text := '^[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]+)?'
        '(Z|[+-][01][0-9]:[0-5][0-9])$';
BEGIN
    IF jsonb_typeof(value) = 'string' AND value #>> '{}' ~ shape
        AND extract(year FROM (value #>> '{}')::timestamptz AT TIME ZONE 'UTC') BETWEEN 1 AND 9999
    THEN
        RETURN NULL;
    END IF;
    RETURN chat.check_got(pointer, 'a time as in RFC 3339, such as 2026-01-01T00:00:00Z', value);
EXCEPTION WHEN data_exception THEN
    RETURN chat.check_got(pointer, 'a time that there is', value);
END;
$$;
COMMENT ON FUNCTION chat.check_time IS 'An instant of the years 1 to 9999';

CREATE FUNCTION chat.check_part(part jsonb, pointer text) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    kind text := part ->> 'type';
    image jsonb := chat.given(part, 'image_url');
BEGIN
    RETURN coalesce(
        chat.check_object(part, pointer, '{type,text,image_url}'),
        chat.check_kind(part -> 'type', pointer || '/type', 'string'),
        chat.check_word(part -> 'type', pointer || '/type', '{text,image_url}'),
        -- A field of the other kind of part may stand there as null.
        chat.check_object(jsonb_strip_nulls(part), pointer, ARRAY['type', kind]),
        chat.check_kind(chat.given(part, kind), format('%s/%s', pointer, kind),
            CASE kind WHEN 'text' THEN 'string' ELSE 'object' END),
        CASE WHEN kind = 'image_url' THEN coalesce(
            chat.check_object(image, pointer || '/image_url', '{url}'),
            chat.check_kind(image -> 'url', pointer || '/image_url/url', 'string'),
            CASE image ->> 'url' WHEN '' THEN
                pointer || '/image_url/url: expected the URL of an image, got an empty text' END) END);
END;
$$;
COMMENT ON FUNCTION chat.check_part IS 'A part of a message''s content: text, or an image by its address';

CREATE FUNCTION chat.check_content(content jsonb, pointer text) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF jsonb_typeof(content) = 'string' THEN
        RETURN NULL;
    ELSIF jsonb_typeof(content) <> 'array' THEN
        RETURN chat.check_got(pointer, 'a text or an array of parts', content);
    END IF;
    RETURN coalesce(chat.check_kind(content, pointer, 'array'),
        CASE WHEN jsonb_array_length(content) NOT BETWEEN 1 AND 2000
            THEN format('%s: expected a text or 1 to 2000 parts, got %s', pointer, jsonb_array_length(content)) END,
        (SELECT c.failure
        FROM jsonb_array_elements(content) WITH ORDINALITY AS p (part, place),
            chat.check_part(p.part, format('%s/%s', pointer, p.place - 1)) AS c (failure)
        WHERE c.failure IS NOT NULL LIMIT 1));
END;
$$;
COMMENT ON FUNCTION chat.check_content IS 'What is said: a text, or parts of text and images';

CREATE FUNCTION chat.check_message(message jsonb, pointer text) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN coalesce(
        chat.check_object(message, pointer, '{role,content}'),
        chat.check_kind(message -> 'role', pointer || '/role', 'string'),
        chat.check_word(message -> 'role', pointer || '/role', '{system,user,assistant}'),
        chat.check_content(message -> 'content', pointer || '/content'));
END;
$$;
COMMENT ON FUNCTION chat.check_message IS 'A message: who speaks, and what is said';

CREATE FUNCTION chat.check_messages(messages jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN coalesce(chat.check_kind(messages, '/messages', 'array'),
        CASE WHEN jsonb_array_length(messages) NOT BETWEEN 1 AND 2000
            THEN format('/messages: expected 1 to 2000 messages, got %s', jsonb_array_length(messages)) END,
        (SELECT c.failure
        FROM jsonb_array_elements(messages) WITH ORDINALITY AS m (message, place),
            chat.check_message(m.message, format('/messages/%s', m.place - 1)) AS c (failure)
        WHERE c.failure IS NOT NULL LIMIT 1));
END;
$$;
COMMENT ON FUNCTION chat.check_messages IS 'What is said, at least one message';

CREATE FUNCTION chat.check_tools(tools jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    RETURN coalesce(
        chat.check_object(tools, '/tools', '{servers,allow,deny,choice}'),
        chat.check_texts(chat.given(tools, 'servers'), '/tools/servers', 2000, 16777216),
        chat.check_texts(tools -> 'allow', '/tools/allow', 128, 255),
        chat.check_texts(tools -> 'deny', '/tools/deny', 128, 255),
        chat.check_word(tools -> 'choice', '/tools/choice', '{auto,none,required}'));
END;
$$;
COMMENT ON FUNCTION chat.check_tools IS 'Which tools a job may use; whether a server is there is for the worker to say';

-- A worker's reader of JSON goes down some hundred levels, and its numbers end at 1.8e308.
CREATE FUNCTION chat.check_freely(value jsonb, pointer text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    RETURN coalesce(chat.check_kind(value, pointer, 'object'),
        CASE WHEN jsonb_path_exists(value, '$.**{100 to last}')
            THEN pointer || ': expected at most 100 levels of objects and arrays' END,
        CASE WHEN jsonb_path_exists(value, '$.** ? (@.type() == "number" && (@ > 1e308 || @ < -1e308))')
            THEN pointer || ': expected numbers from -1e308 to 1e308' END);
END;
$$;
COMMENT ON FUNCTION chat.check_freely IS 'An object of anybody''s making, as far as workers can read it';

CREATE FUNCTION chat.check_options(options jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    RETURN coalesce(
        chat.check_object(options, '/options', '{temperature,top_p,max_output_tokens,seed,stop,'
            'reasoning_effort,parallel_tool_calls,response_format}'),
        chat.check_number(chat.given(options, 'temperature'), '/options/temperature', 0, 2, false),
        chat.check_number(chat.given(options, 'top_p'), '/options/top_p', 0, 1, false),
        chat.check_number(chat.given(options, 'max_output_tokens'), '/options/max_output_tokens', 1, 4294967295, true),
        chat.check_number(chat.given(options, 'seed'), '/options/seed', -9223372036854775808, 9223372036854775807, true),
        chat.check_texts(chat.given(options, 'stop'), '/options/stop', 4, 16777216),
        CASE WHEN options -> 'stop' = '[]' OR options -> 'stop' @> '[""]'
            THEN '/options/stop: expected 1 to 4 texts that are not empty' END,
        chat.check_word(chat.given(options, 'reasoning_effort'), '/options/reasoning_effort',
            '{none,minimal,low,medium,high,xhigh}'),
        chat.check_kind(coalesce(chat.given(options, 'parallel_tool_calls'), 'true'), '/options/parallel_tool_calls',
            'boolean'),
        chat.check_freely(chat.given(options, 'response_format'), '/options/response_format'));
END;
$$;
COMMENT ON FUNCTION chat.check_options IS 'Options that go to the model';

CREATE FUNCTION chat.check_budget(budget jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    RETURN coalesce(
        chat.check_object(budget, '/budget', '{total_tokens,tool_calls}'),
        chat.check_number(chat.given(budget, 'total_tokens'), '/budget/total_tokens', 1, 18446744073709551615, true),
        chat.check_number(chat.given(budget, 'tool_calls'), '/budget/tool_calls', 0, 18446744073709551615, true));
END;
$$;
COMMENT ON FUNCTION chat.check_budget IS 'What a job may spend';

-- Counted as workers count: the text of jsonb has one space more after each colon and each comma.
CREATE FUNCTION chat.check_metadata(metadata jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    RETURN coalesce(chat.check_freely(metadata, '/metadata'),
        (SELECT format('/metadata: expected at most 16384 bytes of JSON, got %s', m.size)
        FROM (
            SELECT octet_length(metadata::text) - sum(CASE jsonb_typeof(n.node)
                WHEN 'object' THEN greatest(2 * (SELECT count(*) FROM jsonb_object_keys(n.node)) - 1, 0)
                WHEN 'array' THEN greatest(jsonb_array_length(n.node) - 1, 0)
                ELSE 0 END) AS size
            FROM jsonb_path_query(metadata, 'strict $.**') AS n (node)
        ) AS m
        WHERE m.size > 16384));
END;
$$;
COMMENT ON FUNCTION chat.check_metadata IS 'The producer''s own, at most 16 KiB';

CREATE FUNCTION chat.check_job(job jsonb) RETURNS text
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN coalesce(
        chat.check_object(job, '', '{version,job_id,conversation_id,user_id,messages,model,max_iterations,tools,'
            'options,budget,stream,not_before,deadline,on_busy,metadata}'),
        chat.check_number(chat.given(job, 'version'), '/version', 1, 1, true),
        chat.check_uuid(chat.given(job, 'job_id'), '/job_id'),
        chat.check_uuid(chat.given(job, 'conversation_id'), '/conversation_id'),
        chat.check_kind(job -> 'user_id', '/user_id', 'string'),
        -- It stands in the system prompt, so there is no room for a sentence.
        CASE WHEN job ->> 'user_id' !~ '^[A-Za-z0-9._:@+/=|-]{1,255}$'
            THEN '/user_id: expected 1 to 255 characters of A-Z a-z 0-9 . _ : @ + / = - |' END,
        chat.check_messages(job -> 'messages'),
        chat.check_kind(coalesce(chat.given(job, 'model'), '""'), '/model', 'string'),
        CASE WHEN job ->> 'model' !~ '[^[:space:]]' OR octet_length(job ->> 'model') > 255
            THEN '/model: expected the name of a model, 1 to 255 bytes' END,
        chat.check_number(chat.given(job, 'max_iterations'), '/max_iterations', 1, 100, true),
        chat.check_tools(chat.given(job, 'tools')),
        chat.check_options(chat.given(job, 'options')),
        chat.check_budget(chat.given(job, 'budget')),
        chat.check_kind(coalesce(chat.given(job, 'stream'), 'false'), '/stream', 'boolean'),
        CASE WHEN job -> 'stream' = 'true' THEN '/stream: expected false: this version does not stream' END,
        chat.check_time(chat.given(job, 'not_before'), '/not_before'),
        chat.check_time(chat.given(job, 'deadline'), '/deadline'),
        chat.check_word(chat.given(job, 'on_busy'), '/on_busy', '{enqueue,reject,interrupt}'),
        chat.check_metadata(chat.given(job, 'metadata')));
END;
$$;
COMMENT ON FUNCTION chat.check_job IS 'A job, version 1';

CREATE FUNCTION chat.uuid_v7() RETURNS uuid
LANGUAGE sql VOLATILE AS $$
    -- A random UUID, whose first 48 bits become the milliseconds since 1970 and whose version, 4, becomes 7.
    SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) PLACING
        substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6),
        52, 1), 53, 1), 'hex')::uuid
$$;
COMMENT ON FUNCTION chat.uuid_v7 IS 'A fresh UUID of version 7 (RFC 9562), which sorts by time';

CREATE FUNCTION chat.said(object jsonb, defaults jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT coalesce(jsonb_object_agg(f.key, f.value), '{}') FROM jsonb_each(object) AS f
    WHERE f.value <> 'null' AND f.value IS DISTINCT FROM defaults -> f.key
$$;
COMMENT ON FUNCTION chat.said IS 'An object without what says no more than its absence';

CREATE FUNCTION chat.job_content(job jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT chat.said(job - '{version,job_id,conversation_id}'::text[], '{"stream": false, "on_busy": "enqueue"}')
        || jsonb_build_object(
            'tools', chat.said(chat.given(job, 'tools'), '{"allow": [], "deny": [], "choice": "auto"}'),
            'options', chat.said(chat.given(job, 'options'), '{}'),
            'budget', chat.said(chat.given(job, 'budget'), '{}'))
$$;
COMMENT ON FUNCTION chat.job_content IS 'What two spellings of one job share; its ids are compared apart';

-- The locks are taken in the order of the workers: the conversation's row, then the job's.
CREATE FUNCTION chat.enqueue(job jsonb) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- As every text in this schema: the escape character itself is escaped. (jsonb holds nothing else that is.)
    asked jsonb := coalesce(replace(job::text, '␛', '␛241b'), 'null')::jsonb;
    size integer := octet_length(asked::text);
    failure text;
    new_id uuid;
    new_conversation uuid;
    starts_at timestamptz;
    owner text;
    stored record;
BEGIN
    IF size > 16777216 THEN
        RAISE EXCEPTION USING ERRCODE = 'JB003',
            MESSAGE = format('job_too_large: the job has %s bytes; at most 16777216 are taken', size);
    ELSIF jsonb_typeof(asked -> 'version') = 'number' AND asked ->> 'version' ~ '^[0-9]+$' AND asked -> 'version' <> '1' THEN
        RAISE EXCEPTION USING ERRCODE = 'JB002', MESSAGE = format('unsupported_version: /version: '
            'expected 1, the one version that is known here, got %s', left(asked ->> 'version', 60));
    END IF;
    failure := chat.check_job(asked);
    IF failure IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'JB001', MESSAGE = 'invalid_job: ' || failure,
            HINT = 'What a job is made of: chat-worker schema job';
    END IF;
    new_id := coalesce(replace(asked ->> 'job_id', 'urn:uuid:', '')::uuid, chat.uuid_v7());
    new_conversation := coalesce(replace(asked ->> 'conversation_id', 'urn:uuid:', '')::uuid, new_id);
    starts_at := (asked ->> 'not_before')::timestamptz;

    -- Once, unless the conversation is deleted before it is locked. A lock that keeps it there and no more:
    -- a transaction of a producer that takes long must not hold up the jobs that run.
    LOOP
        INSERT INTO chat.conversations (id, user_id) VALUES (new_conversation, asked ->> 'user_id')
        ON CONFLICT (id) DO NOTHING;
        SELECT c.user_id INTO owner FROM chat.conversations AS c WHERE c.id = new_conversation FOR KEY SHARE;
        EXIT WHEN FOUND;
    END LOOP;

    INSERT INTO chat.jobs (id, conversation_id, user_id, status, wait_reason, due_at, request, model,
        metadata, deadline, traceparent, trace_id, enqueued_at)
    SELECT new_id, new_conversation, owner, 'waiting',
        CASE WHEN starts_at > now() THEN 'schedule' ELSE 'enqueued' END::chat.wait_reason,
        -- By the wall clock: jobs of one transaction are due one after the other.
        greatest(starts_at, clock_timestamp()), asked::text::json, asked ->> 'model',
        chat.given(asked, 'metadata')::text::json, (asked ->> 'deadline')::timestamptz,
        format('00-%s-%s-01', t.trace, t.span), t.trace, now()
    -- The digits of a random UUID are never all zero: one of them is its version.
    FROM (SELECT replace(new_id::text, '-', ''), left(replace(gen_random_uuid()::text, '-', ''), 16)) AS t (trace, span)
    WHERE owner = asked ->> 'user_id'
    ON CONFLICT (id) DO NOTHING;
    IF FOUND THEN
        PERFORM pg_notify('chat_worker', 'due');
        RETURN new_id;
    END IF;

    SELECT j.conversation_id, j.request::text::jsonb AS request INTO stored FROM chat.jobs AS j WHERE j.id = new_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'JB005',
            MESSAGE = 'conversation_forbidden: the conversation belongs to another user';
    ELSIF stored.conversation_id <> new_conversation OR chat.job_content(stored.request) <> chat.job_content(asked) THEN
        RAISE EXCEPTION USING ERRCODE = 'JB004',
            MESSAGE = 'job_id_conflict: this job_id was used before with other content';
    END IF;
    RETURN new_id;
END;
$$;
COMMENT ON FUNCTION chat.enqueue IS 'Stores a job, in the shape of the job message, inside the caller''s transaction; a worker takes it up within a second of the commit. Returns its id: that of the job, else a fresh one. The same job again changes nothing. At most 16 MiB are taken: the workers'' CHAT_MAX_JOB_BYTES is not known here. SQLSTATEs: JB001 invalid_job, JB002 unsupported_version, JB003 job_too_large, JB004 job_id_conflict, JB005 conversation_forbidden; the text begins with the code and, where a field is wrong, its JSON pointer';
COMMENT ON COLUMN chat.jobs.enqueued_at IS 'The message''s own timestamp; of chat.enqueue, when the producer''s transaction began';

REVOKE ALL ON FUNCTION
    chat.given, chat.check_got, chat.check_kind, chat.check_object, chat.check_word, chat.check_number,
    chat.check_texts, chat.check_uuid, chat.check_time, chat.check_part, chat.check_content, chat.check_message,
    chat.check_messages, chat.check_tools, chat.check_freely, chat.check_options, chat.check_budget,
    chat.check_metadata, chat.check_job, chat.uuid_v7, chat.said, chat.job_content, chat.enqueue
FROM PUBLIC;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'chat_producer') THEN
        GRANT EXECUTE ON FUNCTION chat.enqueue TO chat_producer;
    END IF;
END;
$$;
