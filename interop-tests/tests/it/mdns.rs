//! Nodes of one link: announced, asked for, and heard by multicast DNS, beside avahi and `mdns_lite`. Each case has hosts of
//! its own, so that nothing is announced on the real network.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use foundation_interop_tests::beam::Options;
use foundation_interop_tests::case::Unsupported;
use foundation_interop_tests::netns::{self, Hosts};
use foundation_interop_tests::{
    Beam, Case, Epmd, Release, beam, case, epmd, eventually::eventually_true, work_dir,
};

use crate::cli::foundation;
use crate::discovery::{Started, config};
use crate::ecosystem;
use crate::rust::WAIT;

const TOPIC: &str = "discovery";

/// A node with `strategy = "mdns"` and these further lines, with an EPMD of its own.
fn node(prefix: &[String], port: u16, name: &str, lines: &str) -> Started {
    let text = format!("epmd = 'embedded'\n[cluster]\nstrategy = 'mdns'\n{lines}\n");
    let [flag, file] = config(&format!("mdns-{name}"), &text);
    Started::behind(prefix, port, name, &[&flag, &file], &[("FOUNDATION_ENV", "prod")])
}

#[test]
fn two_hosts_with_ipv6_alone() {
    const NAME: &str =
        "two nodes on two hosts that have IPv6 alone find each other by mDNS, and a goodbye is understood";
    match netns::rerun("mdns::two_hosts_with_ipv6_alone") {
        Some(Ok(_)) => return,
        Some(Err(why)) => return case(Case::Full, TOPIC, NAME, |_| Err(Unsupported(why))),
        None => {}
    }
    case(Case::Full, TOPIC, NAME, |_release| {
        let hosts = Hosts::new();
        let ip = |prefix: &[String], words: &str| {
            let words: Vec<&str> = prefix.iter().map(String::as_str).chain(words.split(' ')).collect();
            assert!(Command::new(words[0]).args(&words[1..]).status().unwrap().success(), "{words:?}");
        };
        for (prefix, address) in [(Vec::new(), "fd77::1"), (hosts.enter_b(), "fd77::2")] {
            for wire in ["data", "control", "late"] {
                ip(&prefix, &format!("ip -4 addr flush dev {wire}"));
            }
            ip(&prefix, &format!("ip -6 addr add {address}/64 dev data nodad"));
        }
        let port = epmd::free_port();
        let text = "epmd = 'embedded'\nproto_dist = 'inet6_tcp'\n[cluster]\nstrategy = 'mdns'\nallow = ['fd77::/64']\n";
        let [flag, file] = config("mdns-ipv6", text);
        let start = |prefix: &[String], name: &str| {
            Started::behind(prefix, port, name, &[&flag, &file], &[("FOUNDATION_ENV", "prod")])
        };
        let two = start(&hosts.enter_b(), "two@fd77::2");
        two.logs(&["node started"]);
        let one = start(&[], "one@fd77::1");
        one.logs(&["connected to two@fd77::2"]);
        one.logs(&["Foundation cluster formed", "strategy=mdns", "node_count=2"]);
        two.stop();
        one.logs(&["two@fd77::2 is not named any more"]);
        Ok(())
    });
}

#[test]
fn two_hosts() {
    const NAME: &str = "two nodes on two hosts find each other by mDNS, a goodbye is understood, and what is not allowed is not dialled";
    match netns::rerun("mdns::two_hosts") {
        Some(Ok(_)) => return,
        Some(Err(why)) => return case(Case::Full, TOPIC, NAME, |_| Err(Unsupported(why))),
        None => {}
    }
    case(Case::Full, TOPIC, NAME, |_release| {
        let hosts = Hosts::new();
        let port = epmd::free_port();
        let (a, b) = (format!("one@{}", netns::A), format!("two@{}", netns::B));
        let strict = node(&hosts.enter_b(), port, &b, "");
        strict.logs(&["node started"]);
        // Without an entry it would not be dialled, and `discover` says which entry it takes.
        let text = "epmd = 'embedded'\n[cluster]\nstrategy = 'mdns'\n";
        let [flag, file] = config("mdns-discover", text);
        let refused = || {
            let arguments = ["--name", &a, &flag, &file, "discover", "--seconds", "2"];
            let out =
                foundation(port, beam::COOKIE, &arguments).env("FOUNDATION_ENV", "prod").output().unwrap();
            let text = String::from_utf8(out.stdout).unwrap();
            text.contains(&format!("{b}  refused")) && text.contains(&format!("allow = [\"{b}\"]"))
        };
        eventually_true("discover names the refused node", WAIT, refused);
        let open = node(&[], port, &a, "allow = ['10.77.0.0/24']");
        open.logs(&[&format!("connected to {b}")]);
        open.logs(&["Foundation cluster formed", "strategy=mdns", "node_count=2"]);
        // The other side was dialled; by itself it would not have.
        strict.logs(&[&format!("{a} is not dialled"), &format!("allow = [\\\"{a}\\\"]")]);
        // Of another cluster.
        let other = node(&[], port, &format!("other@{}", netns::A), "name = 'x'\nallow = ['*']");
        other.logs(&[&format!("connected to {b}")]);
        let stranger =
            node(&hosts.enter_b(), port, &format!("stranger@{}", netns::B), "name = 'y'\nallow = ['*']");
        stranger.logs(&["connected to"]);
        strict.stop();
        open.logs(&[&format!("{b} is not named any more")]);
        assert!(!other.log().contains("stranger@"), "{}", other.log());
        Ok(())
    });
}

/// avahi on host B. It ends when this is dropped.
struct Avahi {
    child: Child,
    enter: Vec<String>,
}

/// The bus that avahi and its clients share; an address in no file system, seen in this network namespace only.
const BUS: &str = "unix:abstract=foundation-mdns";

/// The directory of services, the configuration of the bus and that of avahi are the arguments. All ends with the standard input.
const AVAHI: &str = r#"set -e
mount -t tmpfs none /run
mount --bind "$0" /etc/avahi/services
bus=$(dbus-daemon --config-file="$1" --fork --nopidfile --print-pid)
DBUS_SYSTEM_BUS_ADDRESS=$3 avahi-daemon --no-drop-root --no-chroot -f "$2" & child=$!
trap 'kill $child $bus; wait' EXIT
read -r _ || true"#;

impl Avahi {
    /// With this host name, publishing these services.
    fn start(hosts: &Hosts, host: &str, services: &[(&str, String)]) -> Result<Self, Unsupported> {
        for tool in ["avahi-daemon", "avahi-browse", "dbus-daemon"] {
            if Command::new(tool).arg("--version").output().is_err() {
                let root = Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout == b"0\n");
                assert!(
                    !root,
                    "{tool} is missing: script/erlang installs avahi-daemon, avahi-utils and dbus"
                );
                return Err(Unsupported("avahi is not installed, and only root can install it"));
            }
        }
        let dir = work_dir(&format!("avahi-{host}"));
        let services_dir = dir.join("services");
        let _ = std::fs::remove_dir_all(&services_dir);
        std::fs::create_dir_all(&services_dir).unwrap();
        for (name, service) in services {
            let text =
                format!("<service-group><name>{name}</name><service>{service}</service></service-group>");
            std::fs::write(services_dir.join(format!("{name}.service")), text).unwrap();
        }
        let write = |name: &str, text: &str| -> PathBuf {
            let file = dir.join(name);
            std::fs::write(&file, text).unwrap();
            file
        };
        let bus = write(
            "bus.conf",
            &format!(
                "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
                 \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n<busconfig><listen>{BUS}</listen>\
                 <auth>EXTERNAL</auth><policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/>\
                 <allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>\n"
            ),
        );
        let avahi = write(
            "avahi.conf",
            &format!(
                "[server]\nhost-name={host}\nuse-ipv4=yes\nuse-ipv6=no\nallow-interfaces=data\n\
                 [wide-area]\nenable-wide-area=no\n[publish]\npublish-workstation=no\npublish-hinfo=no\n[rlimits]\n"
            ),
        );
        let enter = hosts.enter_b();
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let child = Command::new(&enter[0])
            .args(&enter[1..])
            .args(["unshare", "-m", "sh", "-c", AVAHI])
            .args([&services_dir, &bus, &avahi] as [&Path; 3])
            .arg(BUS)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Ok(Self { child, enter })
    }

    /// What avahi has resolved of a type of service.
    fn browse(&self, kind: &str) -> String {
        let output = Command::new(&self.enter[0])
            .args(&self.enter[1..])
            .args(["avahi-browse", "-rpt", kind])
            .env("DBUS_SYSTEM_BUS_ADDRESS", BUS)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Avahi {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// A BEAM node on host B.
fn beam_on_b(release: &Release, hosts: &Hosts, port: u16, name: &str, host: &str) -> Options {
    Options::new(release, port, name).at(host).inside(&hosts.enter_b(), netns::CONTROL_A, netns::B)
}

#[test]
fn beside_avahi() {
    const NAME: &str = "avahi sees the announcement of a node and its goodbye; BEAM nodes that avahi announces are found, also without \
                        a name (Nerves), at a host of .local";
    match netns::rerun("mdns::beside_avahi") {
        Some(Ok(_)) => return,
        Some(Err(why)) => return case(Case::Full, TOPIC, NAME, |_| Err(Unsupported(why))),
        None => {}
    }
    case(Case::Full, TOPIC, NAME, |release| {
        let hosts = Hosts::new();
        let port = epmd::free_port();
        let _epmd = Epmd::try_start_at(release, port, &hosts.enter_b(), netns::B.parse().unwrap()).unwrap();
        let named = format!("app@{}", netns::B);
        let avahi = Avahi::start(
            &hosts,
            "nerves-1",
            &[
                ("nerves", format!("<type>_epmd._tcp</type><port>{port}</port>")),
                (
                    "app",
                    format!(
                        "<type>_foundation._tcp</type><port>{port}</port><txt-record>node={named}</txt-record>"
                    ),
                ),
            ],
        )?;
        let nerves = beam_on_b(release, &hosts, port, "nerves", "nerves-1.local").start();
        let app = beam_on_b(release, &hosts, port, "app", netns::B).start();
        let ours = format!("ours@{}", netns::A);
        let started = node(&[], port, &ours, "allow = ['*.local', '10.77.0.0/24']");
        for beam in [&nerves, &app] {
            eventually_true(&format!("{} has our node\n{}", beam.name(), started.log()), WAIT, || {
                beam.eval("nodes(hidden)") == format!("['{ours}']")
            });
        }
        started.logs(&["connected to nerves@nerves-1.local"]);
        let announced = format!("\"node={ours}\"");
        for kind in ["_epmd._tcp", "_foundation._tcp"] {
            eventually_true("avahi sees our node", WAIT, || {
                let seen = avahi.browse(kind);
                seen.lines()
                    .any(|line| line.contains(&announced) && line.contains(&format!(";{};{port};", netns::A)))
            });
        }
        started.stop();
        eventually_true("avahi has understood the goodbye", WAIT, || {
            !avahi.browse("_epmd._tcp").contains(&announced)
        });
        Ok(())
    });
}

/// `mdns_lite` as Nerves runs it, on host B, with the service that names this node.
fn mdns_lite(beam: &Beam, port: u16) {
    beam.elixir(&format!(
        r#"Application.put_all_env([mdns_lite: [if_monitor: MdnsLite.InetMonitor, hosts: ["nerves-1"], services: [%{{
             id: :foundation_cluster, protocol: "foundation", transport: "tcp", port: {port},
             txt_payload: ["node=#{{node()}}", "version=1.0"]}}]]])
           :ok = :application.load({{:application, :mdns_lite, [vsn: ~c"0", modules: [], registered: [],
             mod: {{MdnsLite.Application, []}}, applications: [:kernel, :stdlib, :elixir, :logger]]}})
           {{:ok, _}} = Application.ensure_all_started(:mdns_lite); :ok"#
    ));
}

#[test]
fn mdns_lite_is_found() {
    const NAME: &str = "two unmodified mdns_lite nodes on one host are found, from there and from another host; one that falls silent stays connected";
    let Some(source) = ecosystem::source("mdns_lite") else { return };
    match netns::rerun("mdns::mdns_lite_is_found") {
        Some(Ok(_)) => return,
        Some(Err(why)) => return case(Case::Full, ecosystem::TOPIC, NAME, |_| Err(Unsupported(why))),
        None => {}
    }
    case(Case::Full, ecosystem::TOPIC, NAME, |release| {
        if release.elixir_ebin().is_none() {
            return Err(Unsupported("this release has no Elixir"));
        }
        let hosts = Hosts::new();
        let port = epmd::free_port();
        let _epmd = Epmd::try_start_at(release, port, &hosts.enter_b(), netns::B.parse().unwrap()).unwrap();
        let beams: Vec<Beam> = ["lite1", "lite2"]
            .map(|name| beam_on_b(release, &hosts, port, name, netns::B).elixir().start())
            .into();
        let header = "filelib:is_regular(filename:join(code:lib_dir(kernel), \"src/inet_dns.hrl\"))";
        if beams[0].eval(header) == "false" {
            return Err(Unsupported(
                "mdns_lite compiles with kernel's inet_dns.hrl, which is not installed (erlang-src)",
            ));
        }
        for beam in &beams {
            ecosystem::load(beam, std::slice::from_ref(&source));
            mdns_lite(beam, port);
        }
        let here = node(
            &[],
            port,
            &format!("ours@{}", netns::A),
            "allow = ['10.77.0.0/24']\npolling_interval = 500",
        );
        let text = format!(
            "epmd = 'require'\n[cluster]\nstrategy = 'mdns'\nmulticast_if = '{}'\nallow = ['10.77.0.0/24']\n",
            netns::B
        );
        let [flag, file] = config("mdns-beside", &text);
        let there = Started::behind(
            &hosts.enter_b(),
            port,
            &format!("ours@{}", netns::B),
            &[&flag, &file],
            &[("FOUNDATION_ENV", "prod")],
        );
        for (ours, beam) in
            [&here, &there].into_iter().flat_map(|ours| beams.iter().map(move |beam| (ours, beam)))
        {
            ours.logs(&[&format!("connected to {}", beam.name())]);
        }
        // It does not answer any more, and the nodes live.
        beams[0].elixir("Application.stop(:mdns_lite)");
        let silent = format!("{} is not named any more", beams[0].name());
        eventually_true("it is not named any more", WAIT * 3, || here.log().contains(&silent));
        let both = format!("['ours@{}','ours@{}']", netns::A, netns::B);
        for beam in &beams {
            assert_eq!(beam.eval("lists:sort(nodes(hidden))"), both, "{}", here.log());
        }
        Ok(())
    });
}
