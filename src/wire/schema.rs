use schemars::{Schema, generate::SchemaSettings};

use super::{Event, Job, JobResult};

/// JSON Schema (2020-12) of the job message.
#[must_use]
pub fn job_schema() -> Schema {
    SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<Job>()
}

/// JSON Schema (2020-12) of the result message.
#[must_use]
pub fn result_schema() -> Schema {
    SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<JobResult>()
}

/// JSON Schema (2020-12) of an event.
#[must_use]
pub fn event_schema() -> Schema {
    SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<Event>()
}
