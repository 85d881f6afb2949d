//! Functions called on another node, and functions of this node offered to others (`erpc`, `rpc`).
