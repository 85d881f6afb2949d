//! Names of nodes and hosts: short and long, generated and given.
