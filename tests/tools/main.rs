//! The tool servers of a worker, against real processes over their standard input and output.

mod calls;
mod failures;
mod harness;
mod line;
mod offers;
mod pools;
mod published;
