//! Listener, dialer and the task of a connection.

pub(crate) mod listener;
