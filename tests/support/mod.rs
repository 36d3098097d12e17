//! The server the official clients and the raw protocol checks talk to, and how to run them.
//!
//! [`contract`] keeps the contract written at the top of `tests/js/clients.mjs`; [`tools`] finds
//! the programs a test needs, and says so when one is missing.

pub(crate) mod contract;
pub(crate) mod tools;
