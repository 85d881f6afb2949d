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

/// A cloud whose API says which nodes there are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Cloud {
    /// A task of AWS's ECS.
    Ecs,
    /// An instance of AWS's EC2.
    Ec2,
    /// An instance of Google Compute Engine.
    Gcp,
}

/// Looks on whose machine this runs. Nobody is asked: the metadata services of clouds are at addresses that elsewhere may be
/// anybody's, and where nothing answers the question takes seconds. `root` is `/`.
#[cfg(any(feature = "cloud", test))]
pub(super) fn cloud(variable: impl Fn(&str) -> Option<String>, root: &Path) -> Option<(Cloud, String)> {
    const TASK: &str = "ECS_CONTAINER_METADATA_URI_V4";
    if variable(TASK).is_some() {
        return Some((Cloud::Ecs, format!("{TASK} is set")));
    }
    // What the firmware says of the machine; containers see it too.
    let hardware = |file: &str| {
        let text = std::fs::read_to_string(root.join(file)).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    let vendor = hardware("sys/class/dmi/id/sys_vendor").filter(|vendor| vendor == "Amazon EC2");
    if let Some(vendor) = vendor {
        return Some((Cloud::Ec2, format!("the vendor of this machine is {vendor}")));
    }
    let product =
        hardware("sys/class/dmi/id/product_name").filter(|product| product == "Google Compute Engine");
    if let Some(product) = product {
        return Some((Cloud::Gcp, format!("the product name of this machine is {product}")));
    }
    // The older kind of EC2's instances, on Xen.
    let uuid = hardware("sys/hypervisor/uuid").filter(|uuid| uuid.starts_with("ec2"))?;
    Some((Cloud::Ec2, format!("the hypervisor's uuid is {uuid}")))
}

impl Choice {
    fn add(&mut self, strategy: StrategyConfig, why: String) {
        self.evidence.push(format!("{}: {why}", strategy.word()));
        self.sources.push(SourceConfig::new(strategy));
    }
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
    /// On whose machine this runs, if that is one of a cloud, and how it shows.
    pub cloud: Option<(Cloud, String)>,
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
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
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
            #[cfg(feature = "cloud")]
            cloud: cloud(variable, Path::new("/")),
            #[cfg(not(feature = "cloud"))]
            cloud: None,
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
    #[cfg(feature = "dns")]
    if let Some(query) = &environment.dns_query {
        choice.add(StrategyConfig::Dns(Default::default()), format!("DNS_CLUSTER_QUERY is {query}"));
        return choice;
    }
    #[cfg(feature = "consul")]
    if let Some(why) = environment.consul.as_ref().filter(|_| environment.app_name.is_some()) {
        choice.add(StrategyConfig::Consul(Default::default()), why.clone());
        return choice;
    }
    #[cfg(feature = "cloud")]
    if let Some((cloud, why)) = &environment.cloud {
        let strategy = match cloud {
            Cloud::Ecs => StrategyConfig::Ecs(Default::default()),
            Cloud::Ec2 => StrategyConfig::Ec2(Default::default()),
            Cloud::Gcp => StrategyConfig::Gcp(Default::default()),
        };
        if environment.app_name.is_some() {
            choice.add(strategy, why.clone());
            return choice;
        }
        // Nothing is guessed: the machines of an account can be anybody's in a company.
        let word = strategy.word();
        choice.evidence.push(format!(
            "not {word} ({why}): which nodes belong to the cluster is not said; set FOUNDATION_APP_NAME"
        ));
    }
    match environment.development(mode) {
        Ok(why) => {
            #[cfg(feature = "mdns")]
            choice.add(StrategyConfig::Mdns(Default::default()), why.clone());
            choice.add(StrategyConfig::LocalEpmd(Default::default()), why);
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

    #[test]
    fn on_whose_machine_this_runs_is_seen_without_asking() {
        let root = std::env::temp_dir().join(format!("foundation-auto-{}", std::process::id()));
        let file = |name: &str, text: &str| {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let seen = |variables: &[&str]| {
            cloud(|name| variables.contains(&name).then(|| "x".to_owned()), &root).map(|(cloud, _)| cloud)
        };
        assert_eq!(seen(&[]), None);
        file("sys/class/dmi/id/sys_vendor", "QEMU\n");
        file("sys/hypervisor/uuid", "e7c1\n");
        assert_eq!(seen(&[]), None);
        file("sys/hypervisor/uuid", "ec2e1916-9099-7caf-fd21-012345abcdef\n");
        assert_eq!(seen(&[]), Some(Cloud::Ec2));
        file("sys/hypervisor/uuid", "");
        file("sys/class/dmi/id/product_name", "Google Compute Engine\n");
        assert_eq!(seen(&[]), Some(Cloud::Gcp));
        file("sys/class/dmi/id/sys_vendor", "Amazon EC2\n");
        assert_eq!(seen(&[]), Some(Cloud::Ec2));
        assert_eq!(seen(&["ECS_CONTAINER_METADATA_URI_V4"]), Some(Cloud::Ecs));
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[cfg(feature = "cloud")]
    #[test]
    fn a_cloud_is_asked_if_it_is_said_for_what() {
        let seen = (Cloud::Ec2, "the vendor of this machine is Amazon EC2".to_owned());
        let mut machine = Environment { cloud: Some(seen), ..Environment::default() };
        let (sources, evidence) = chosen(&machine);
        assert!(sources.iter().all(|(word, _)| *word != "ec2"), "{sources:?}");
        assert!(evidence.contains("not ec2 (the vendor of this machine is Amazon EC2)"), "{evidence}");
        machine.app_name = Some("web".into());
        let (sources, evidence) = chosen(&machine);
        assert_eq!(
            (sources, evidence.as_str()),
            (vec![("ec2", 0)], "ec2: the vendor of this machine is Amazon EC2")
        );
        for (cloud, word) in [(Cloud::Ecs, "ecs"), (Cloud::Gcp, "gcp")] {
            machine.cloud = Some((cloud, "x".into()));
            assert_eq!(chosen(&machine).0, [(word, 0)]);
        }
        #[cfg(feature = "dns")]
        {
            machine.dns_query = Some("web.internal".into());
            assert_eq!(chosen(&machine).0, [("dns", 0)]);
        }
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
