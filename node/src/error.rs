//! What can go wrong with a process, a call or a node, in types.
