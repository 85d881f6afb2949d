//! Processes of this node: the table, mailboxes, links, monitors, aliases, registered names and exit signals.

mod mon_lnk_dist;

pub use mon_lnk_dist::MonLnkDist;
