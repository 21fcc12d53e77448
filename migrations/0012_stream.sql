-- Jobs may ask for their answer piece by piece.

CREATE OR REPLACE FUNCTION chat.check_job(job jsonb) RETURNS text
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
        chat.check_time(chat.given(job, 'not_before'), '/not_before'),
        chat.check_time(chat.given(job, 'deadline'), '/deadline'),
        chat.check_word(chat.given(job, 'on_busy'), '/on_busy', '{enqueue,reject,interrupt}'),
        chat.check_metadata(chat.given(job, 'metadata')));
END;
$$;
