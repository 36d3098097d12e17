//! Tests of the session layer: `machines` the small state machines and the reasons, `table` the
//! sessions, `outbox` the log and the outboxes by example, `tails` where the log writes for
//! audiences that alternate, `model` log and outboxes against plain vectors.

mod machines;
mod model;
mod outbox;
mod table;
mod tails;
