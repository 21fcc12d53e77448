-- Who may read. The roles belong to the whole server, so that another database may have created
-- them already, or this user may not create any: then an operator grants by hand.
REVOKE ALL ON SCHEMA chat FROM PUBLIC;

DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['chat_reader', 'chat_producer'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
            END IF;
            EXECUTE format('GRANT USAGE ON SCHEMA chat TO %I', role_name);
        EXCEPTION
            WHEN insufficient_privilege OR duplicate_object OR unique_violation OR undefined_object THEN
                RAISE NOTICE 'role % is left as it is: %', role_name, SQLERRM;
        END;
    END LOOP;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'chat_reader') THEN
        GRANT USAGE ON SCHEMA chat TO chat_reader;
        GRANT SELECT ON ALL TABLES IN SCHEMA chat TO chat_reader;
    END IF;
END;
$$;
