/// What must happen when one connection is lost: the links and monitors that reach across it (erts' `ErtsMonLnkDist`).
///
/// Each `net::Link` holds one; only the process side looks inside.
#[derive(Debug, Default)]
pub struct MonLnkDist {}
