//! Tests of the session layer: `machines` the small state machines and the reasons, `table` the
//! sessions, `outbox` the log and the outboxes by example, `model` the same against plain vectors.

mod machines;
mod model;
mod outbox;
mod table;
