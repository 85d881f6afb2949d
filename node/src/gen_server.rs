//! Calls and casts in the protocol of OTP's `gen`, and servers that unmodified `gen_server` clients can call.
