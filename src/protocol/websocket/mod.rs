//! websocket codec.
