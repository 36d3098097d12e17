//! Tests of `request`, `body`, `response` and `cors`; the other files carry their own.

mod body;
mod cors;
mod head;
mod response;
