//! Processes of this node: the table, mailboxes, links, monitors, aliases, registered names and exit signals.

mod mon_lnk_dist;
mod undelivered;

pub use mon_lnk_dist::MonLnkDist;
pub use undelivered::Undelivered;
