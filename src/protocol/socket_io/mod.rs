//! socket_io codec.
