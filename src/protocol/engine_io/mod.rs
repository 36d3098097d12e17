//! engine_io codec.
