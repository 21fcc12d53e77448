-- What `chat-worker prune` looks for, without reading the whole table: what ended long ago.
CREATE INDEX jobs_ended ON chat.jobs (finished_at, id) WHERE finished_at IS NOT NULL;
