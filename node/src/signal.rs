//! What a signal of a peer does to the processes of this node. Every signal that must be answered is answered.
