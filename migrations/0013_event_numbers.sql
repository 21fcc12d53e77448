-- Events of a job go on being numbered where no run is there to count them.

ALTER TABLE chat.jobs ADD COLUMN events integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN chat.jobs.events IS
    'The number of the last event of the current attempt, as far as it is stored: when the job waits. 0 while it runs';
