//! The port mapper: a client of the running one, and one served in-process.
