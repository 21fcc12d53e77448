-- Which model was asked, and in whose stead.

ALTER TABLE chat.iterations
    ADD COLUMN requested_model text,
    ADD COLUMN asked_model text;
COMMENT ON COLUMN chat.iterations.requested_model IS 'The model that the job is for';
COMMENT ON COLUMN chat.iterations.asked_model IS 'The model that answered, by its name in jobs and settings; another than requested_model when that one was down and a fallback answered';
COMMENT ON COLUMN chat.iterations.message IS 'What the provider sent, as it sent it, and replayed unchanged: an assistant message of Chat Completions, an object, or the output of Responses, an array';
