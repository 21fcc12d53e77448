-- What a call used, where its server does not say.

ALTER TABLE chat.iterations ADD COLUMN usage_estimated boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN chat.iterations.usage_estimated IS
    'The server counted no tokens: these, and the cost, are estimated from the length of what was said';
ALTER TABLE chat.summaries ADD COLUMN usage_estimated boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN chat.summaries.usage_estimated IS
    'The server counted no tokens: these, and the cost, are estimated from the length of what was said';
