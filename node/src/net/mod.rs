//! Listener, dialer and the task of a connection.
