//! What stands in for TLS in a build without the feature `tls`: types that have no values.

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::TcpStream;

use super::stream::Stream;
use super::{TlsError, TlsInfo};
use crate::ssl_dist::{SslDistError, SslDistOptions};

pub(crate) enum Tls {}

#[derive(Debug)]
pub(crate) enum Session {}

impl Tls {
    pub(crate) fn new(_: &SslDistOptions) -> Result<Self, SslDistError> {
        Err(SslDistError::NotBuilt)
    }

    pub(crate) async fn connect(&self, _: TcpStream, _: &str, _: Duration) -> Result<Stream, TlsError> {
        match *self {}
    }

    pub(crate) async fn accept(&self, _: TcpStream, _: Duration) -> Result<Stream, TlsError> {
        match *self {}
    }
}

/// As with TLS: a session with a server that is no node.
#[cfg(feature = "http")]
pub(crate) async fn https(_: TcpStream, _: &str, _: &std::path::Path, _: Duration) -> Result<Stream, String> {
    Err("this program was built without the feature tls".to_owned())
}

impl Session {
    pub(crate) fn try_read(&self, _: &TcpStream, _: &mut BytesMut) -> io::Result<usize> {
        match *self {}
    }

    pub(crate) fn try_write(&self, _: &TcpStream, _: &[IoSlice<'_>]) -> io::Result<usize> {
        match *self {}
    }

    pub(crate) fn try_flush(&self, _: &TcpStream) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn close(&self, _: &TcpStream) {
        match *self {}
    }

    pub(crate) fn failure(&self) -> Option<TlsError> {
        match *self {}
    }

    pub(crate) fn info(&self) -> TlsInfo {
        match *self {}
    }

    pub(crate) fn narrow(&self, _: &[String], _: IpAddr) -> Vec<String> {
        match *self {}
    }
}
