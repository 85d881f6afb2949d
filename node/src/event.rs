//! Nodes that join and leave, as a stream.
