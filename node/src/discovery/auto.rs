//! Choosing sources by what the environment offers, with the evidence.

use std::io::IsTerminal;
use std::path::Path;

use super::config::{Context, Mode, SourceConfig, StrategyConfig};
use super::erlang_hosts;

/// What was chosen, and why.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Choice {
    /// The sources.
    pub sources: Vec<SourceConfig>,
    /// Entries for the allow-list that go with them.
    pub allow: Vec<String>,
    /// One line for each source, and for what was looked at in vain.
    pub evidence: Vec<String>,
}

/// What there is to look at.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// Whether somebody sits in front of it.
    pub terminal: bool,
    /// Whether this is a container.
    pub container: bool,
    /// Why this is a developer's machine, or why it is none, if the configuration or the node that this is done for says so.
    pub said: Option<Result<String, String>>,
    /// `FOUNDATION_ENV`, else `MIX_ENV`.
    pub profile: Option<String>,
    /// Where `.hosts.erlang` is.
    pub hosts_file: Option<String>,
    /// How it shows that this is a pod whose service account can ask.
    pub kubernetes: Option<String>,
    /// How it shows where Consul is.
    pub consul: Option<String>,
    /// `FOUNDATION_APP_NAME`.
    pub app_name: Option<String>,
    /// `DNS_CLUSTER_QUERY`.
    pub dns_query: Option<String>,
    /// The networks that this machine is on.
    pub networks: Vec<String>,
}

impl Environment {
    /// Looks at this process and machine.
    pub fn read() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        let container = ["/.dockerenv", "/run/.containerenv"].iter().any(|file| Path::new(file).exists());
        Self {
            said: None,
            terminal: std::io::stdin().is_terminal(),
            container: container || variable("KUBERNETES_SERVICE_HOST").is_some(),
            profile: variable("FOUNDATION_ENV").or_else(|| variable("MIX_ENV")),
            #[cfg(feature = "kubernetes")]
            kubernetes: super::kubernetes::evidence(),
            #[cfg(not(feature = "kubernetes"))]
            kubernetes: None,
            consul: variable("CONSUL_HTTP_ADDR").map(|address| format!("CONSUL_HTTP_ADDR is {address}")),
            app_name: variable("FOUNDATION_APP_NAME"),
            dns_query: variable("DNS_CLUSTER_QUERY"),
            networks: networks(),
            hosts_file: erlang_hosts::find().map(|path| path.display().to_string()),
        }
    }

    /// What may be dialled on a developer's machine whoever names it: this host, and what is on its networks.
    pub fn allowed(&self, context: &Context) -> Vec<String> {
        let host = format!("@{}", context.own.host());
        std::iter::once(host).chain(self.networks.iter().cloned()).collect()
    }

    /// Whether this is a developer's machine, and how that shows.
    ///
    /// # Errors
    /// How it shows that it is not.
    pub fn development(&self, mode: Mode) -> Result<String, String> {
        match self.profile.as_deref() {
            Some(profile @ ("dev" | "development" | "test")) => {
                return Ok(format!("FOUNDATION_ENV or MIX_ENV is {profile}"));
            }
            Some(profile) => return Err(format!("FOUNDATION_ENV or MIX_ENV is {profile}")),
            None => {}
        }
        if let Some(said) = &self.said {
            return said.clone();
        }
        if mode == Mode::Auto {
            return Ok("cluster = true, and nothing of a production environment was found".to_owned());
        }
        match (self.terminal, self.container) {
            (true, false) => Ok("started from a terminal, in no container".to_owned()),
            (true, true) => Err("this is a container".to_owned()),
            (false, _) => Err("not started from a terminal".to_owned()),
        }
    }
}

/// Chooses.
pub fn choose(mode: Mode, environment: &Environment, context: &Context) -> Choice {
    let mut choice = Choice { sources: Vec::new(), allow: Vec::new(), evidence: Vec::new() };
    #[cfg(feature = "kubernetes")]
    if let Some(why) = &environment.kubernetes {
        if environment.app_name.is_some() {
            choice.evidence.push(format!("kubernetes ({why})"));
            choice.sources.push(SourceConfig::new(StrategyConfig::Kubernetes(Default::default())));
            #[cfg(feature = "dns")]
            if let Some(query) = &environment.dns_query {
                // Every pod has a service account, not every one may ask.
                choice.evidence.push(format!("dns, while kubernetes fails: DNS_CLUSTER_QUERY is {query}"));
                let dns = StrategyConfig::Dns(Default::default());
                choice.sources.push(SourceConfig { rank: 1, ..SourceConfig::new(dns) });
            }
            return choice;
        }
        choice.evidence.push(format!(
            "not kubernetes ({why}): which pods belong to the cluster is not said; set FOUNDATION_APP_NAME"
        ));
    }
    let mut add = |strategy: StrategyConfig, why: String| {
        choice.evidence.push(format!("{}: {why}", strategy.word()));
        choice.sources.push(SourceConfig::new(strategy));
    };
    #[cfg(feature = "dns")]
    if let Some(query) = &environment.dns_query {
        add(StrategyConfig::Dns(Default::default()), format!("DNS_CLUSTER_QUERY is {query}"));
        return choice;
    }
    #[cfg(feature = "consul")]
    if let Some(why) = environment.consul.as_ref().filter(|_| environment.app_name.is_some()) {
        add(StrategyConfig::Consul(Default::default()), why.clone());
        return choice;
    }
    match environment.development(mode) {
        Ok(why) => {
            #[cfg(feature = "mdns")]
            add(StrategyConfig::Mdns(Default::default()), why.clone());
            add(StrategyConfig::LocalEpmd(Default::default()), why);
            choice.allow = environment.allowed(context);
        }
        Err(why) => choice.evidence.push(format!("not local_epmd: {why}")),
    }
    if let Some(file) = &environment.hosts_file {
        choice.evidence.push(format!("erlang_hosts: {file} is there"));
        choice.sources.push(SourceConfig::new(StrategyConfig::ErlangHosts(Default::default())));
    }
    choice
}

/// The networks of the interfaces of this machine.
fn networks() -> Vec<String> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let network = |interface: &if_addrs::Interface| match &interface.addr {
        if_addrs::IfAddr::V4(v4) => format!("{}/{}", v4.ip, v4.prefixlen),
        if_addrs::IfAddr::V6(v6) => format!("{}/{}", v6.ip, v6.prefixlen),
    };
    interfaces.iter().map(network).collect()
}

#[cfg(test)]
mod tests {
    use foundation_proto::dist::NodeName;

    use super::*;

    fn chosen(environment: &Environment) -> (Vec<(&'static str, usize)>, String) {
        let context = Context::new(NodeName::parse("web@10.1.0.1").unwrap(), 4369);
        let choice = choose(Mode::Auto, environment, &context);
        let sources = choice.sources.iter().map(|source| (source.strategy.word(), source.rank)).collect();
        (sources, choice.evidence.join("\n"))
    }

    #[cfg(all(feature = "kubernetes", feature = "dns"))]
    #[test]
    fn a_service_account_and_an_app_name_choose_kubernetes() {
        let mut pod = Environment {
            kubernetes: Some("service account found, namespace web".into()),
            ..Environment::default()
        };
        // Every pod has one: without a name it says nothing about a cluster.
        let (sources, evidence) = chosen(&pod);
        assert!(sources.contains(&("local_epmd", 0)) && !sources.contains(&("kubernetes", 0)), "{sources:?}");
        assert!(evidence.contains("not kubernetes (service account found, namespace web)"), "{evidence}");
        pod.app_name = Some("web".into());
        let (sources, evidence) = chosen(&pod);
        assert_eq!(
            (sources, evidence.as_str()),
            (vec![("kubernetes", 0)], "kubernetes (service account found, namespace web)")
        );
        pod.dns_query = Some("web.internal".into());
        assert_eq!(chosen(&pod).0, [("kubernetes", 0), ("dns", 1)]);
    }
}
