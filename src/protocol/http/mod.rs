//! http codec.
