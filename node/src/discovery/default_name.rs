//! The name of a node that was given none, where its way to find the others says what they will call it.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use super::ClusterConfig;

/// `FOUNDATION_APP_NAME@address`, if the others will take it for the name of what runs here: pods of Kubernetes, tasks of ECS,
/// machines of a cloud.
pub(crate) fn default_name(config: &ClusterConfig) -> Option<String> {
    #[cfg(feature = "kubernetes")]
    if let Some(name) = super::kubernetes::default_name(config) {
        return Some(name);
    }
    #[cfg(feature = "cloud")]
    if let Some(name) = of_cloud(config) {
        return Some(name);
    }
    let _ = config;
    None
}

#[cfg(feature = "cloud")]
fn of_cloud(config: &ClusterConfig) -> Option<String> {
    use super::auto::Environment;
    use super::config::{Mode, StrategyConfig};
    /// An address of the Internet that is nobody's (RFC 5737): the way there is the way out.
    const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    let environment = Environment::read();
    let app = environment.app_name?;
    let asked = match config.mode {
        Mode::Auto | Mode::Environment => {
            let before = [environment.kubernetes, environment.dns_query, environment.consul];
            environment.cloud.is_some() && before.iter().all(Option::is_none)
        }
        _ => config.sources.iter().any(|source| match &source.strategy {
            StrategyConfig::Ec2(options) => options.names_by_address(),
            StrategyConfig::Ecs(options) => options.names_by_address(),
            StrategyConfig::Gcp(options) => options.names_by_address(),
            _ => false,
        }),
    };
    if !asked {
        return None;
    }
    Some(format!("{app}@{}", own_address(ELSEWHERE.into())?))
}

/// The address that this machine has towards another one. Nothing is sent.
#[cfg(any(feature = "kubernetes", feature = "cloud"))]
pub(super) fn own_address(towards: IpAddr) -> Option<IpAddr> {
    let any = if towards.is_ipv6() { IpAddr::from([0; 16]) } else { Ipv4Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((towards, 443)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
