-- Conversations that are longer than the model takes, images, and replies of a shape.

CREATE TABLE chat.summaries (
    conversation_id uuid NOT NULL REFERENCES chat.conversations ON DELETE CASCADE,
    up_to_turn integer NOT NULL CHECK (up_to_turn >= 1),
    job_id uuid NOT NULL REFERENCES chat.jobs ON DELETE CASCADE,
    attempt integer NOT NULL,
    model text,
    content text NOT NULL,
    input_tokens bigint NOT NULL DEFAULT 0,
    cached_tokens bigint NOT NULL DEFAULT 0,
    output_tokens bigint NOT NULL DEFAULT 0,
    reasoning_tokens bigint NOT NULL DEFAULT 0,
    cost_usd numeric,
    started_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (conversation_id, up_to_turn)
);
CREATE INDEX summaries_job ON chat.summaries (job_id);
COMMENT ON TABLE chat.summaries IS 'What a model made of the older turns of a conversation (CHAT_COMPACT): it stands for them in later prompts. The turns themselves stay as they are';
COMMENT ON COLUMN chat.summaries.conversation_id IS 'The conversation';
COMMENT ON COLUMN chat.summaries.up_to_turn IS 'The last turn that it stands for; the first is 1';
COMMENT ON COLUMN chat.summaries.job_id IS 'The job that had it made, and whose sums hold what it used';
COMMENT ON COLUMN chat.summaries.attempt IS 'The run that stored it';
COMMENT ON COLUMN chat.summaries.model IS 'The model that wrote it, as the provider names it';
COMMENT ON COLUMN chat.summaries.content IS 'The summary';
COMMENT ON COLUMN chat.summaries.input_tokens IS 'Tokens of the prompt that asked for it';
COMMENT ON COLUMN chat.summaries.cached_tokens IS 'Of the input tokens, read from the provider''s cache';
COMMENT ON COLUMN chat.summaries.output_tokens IS 'Tokens of the answer';
COMMENT ON COLUMN chat.summaries.reasoning_tokens IS 'Of the output tokens, spent on reasoning';
COMMENT ON COLUMN chat.summaries.cost_usd IS 'What it cost in US dollars, where prices are known';
COMMENT ON COLUMN chat.summaries.started_at IS 'When the model was asked for it';
COMMENT ON COLUMN chat.summaries.created_at IS 'When it was stored';

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'chat_reader') THEN
        GRANT SELECT ON chat.summaries TO chat_reader;
    END IF;
END;
$$;

-- What chat.enqueue checks, as src/wire does.

CREATE FUNCTION chat.check_image(url text, pointer text) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    data text := substr(url, strpos(url, ',') + 1);
BEGIN
    RETURN pointer || ': ' || CASE
        WHEN url = '' THEN 'expected the URL of an image, got an empty text'
        WHEN starts_with(url, 'data:') THEN CASE
            WHEN url !~ '^data:image/(png|jpeg|webp|gif);base64,'
                THEN 'expected data:image/…;base64,… with one of png, jpeg, webp, gif'
            WHEN octet_length(data) > 10485760 THEN 'expected at most 10485760 bytes of base64'
            WHEN data !~ '^[A-Za-z0-9+/]+={0,2}$' OR length(data) % 4 <> 0
                THEN 'expected base64 (RFC 4648, section 4), padded' END
        WHEN url !~ '^https?://' THEN 'expected a URL that begins with https://, http:// or data:image/'
        WHEN octet_length(url) > 8192 THEN 'expected a URL of at most 8192 bytes'
        WHEN url !~ '^https?://[^/?#]' OR url !~ '^[!-~]+$'
            THEN 'expected a URL with a host, in ASCII without spaces' END;
END;
$$;
COMMENT ON FUNCTION chat.check_image IS 'The address of an image, or the image itself as a data: URL';

CREATE OR REPLACE FUNCTION chat.check_part(part jsonb, pointer text) RETURNS text
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
            chat.check_image(image ->> 'url', pointer || '/image_url/url')) END);
END;
$$;

CREATE OR REPLACE FUNCTION chat.check_message(message jsonb, pointer text) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN coalesce(
        chat.check_object(message, pointer, '{role,content}'),
        chat.check_kind(message -> 'role', pointer || '/role', 'string'),
        chat.check_word(message -> 'role', pointer || '/role', '{system,user,assistant}'),
        chat.check_content(message -> 'content', pointer || '/content'),
        CASE WHEN message ->> 'role' <> 'user' AND jsonb_typeof(message -> 'content') = 'array' THEN (
            SELECT format('%s/content/%s/type: expected text; images stand in messages of the user', pointer, p.place - 1)
            FROM jsonb_array_elements(message -> 'content') WITH ORDINALITY AS p (part, place)
            WHERE p.part ->> 'type' = 'image_url' LIMIT 1) END);
END;
$$;

CREATE FUNCTION chat.check_format(format jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    place CONSTANT text := '/options/response_format';
    named jsonb := format -> 'json_schema';
BEGIN
    RETURN coalesce(
        chat.check_freely(format, place),
        CASE WHEN jsonb_typeof(format -> 'type') IS DISTINCT FROM 'string'
            THEN place || '/type: expected `text`, `json_object` or `json_schema`' END,
        CASE WHEN format ->> 'type' = 'json_schema' THEN CASE
            WHEN jsonb_typeof(named) IS DISTINCT FROM 'object'
                THEN place || '/json_schema: expected an object with a name and a schema'
            WHEN jsonb_typeof(named -> 'name') IS DISTINCT FROM 'string' OR named ->> 'name' !~ '^[A-Za-z0-9_-]{1,64}$'
                THEN place || '/json_schema/name: expected a name, 1 to 64 characters of a-z A-Z 0-9 _ -'
            WHEN jsonb_typeof(named -> 'schema') IS DISTINCT FROM 'object'
                THEN place || '/json_schema/schema: expected a JSON Schema, an object' END END);
END;
$$;
COMMENT ON FUNCTION chat.check_format IS 'What a reply has to be. Whether a schema is one, the worker finds out';

CREATE OR REPLACE FUNCTION chat.check_options(options jsonb) RETURNS text
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
        chat.check_format(chat.given(options, 'response_format')));
END;
$$;

REVOKE ALL ON FUNCTION chat.check_image, chat.check_format FROM PUBLIC;
