//! Tests of the nesting: `encoder` by exact bytes, `groups` (what a slow session may lose) against
//! a naive list of messages.

mod encoder;
mod groups;
