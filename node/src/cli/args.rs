//! The arguments of `foundation`: its own, and those of `erl`, with one dash or two.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};
use foundation_node::config::{ConfigError, Layers, NodeConfig};
use foundation_node::ssl_dist;

/// A native node for Erlang and Elixir clusters.
#[derive(Debug, Parser)]
#[command(name = "foundation", version, about, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What all commands understand.
#[derive(Args, Debug, Default)]
pub(crate) struct Options {
    /// Long node name (app@host.example.com); without a host part, this machine's
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "sname", help_heading = "Node")]
    pub(crate) name: Option<String>,
    /// Short node name (app or app@host)
    #[arg(long, global = true, value_name = "NAME", help_heading = "Node")]
    pub(crate) sname: Option<String>,
    /// The cookie; `ps` shows it, so better --cookie-file, FOUNDATION_COOKIE or ~/.erlang.cookie
    #[arg(long, global = true, value_name = "COOKIE", help_heading = "Node")]
    pub(crate) setcookie: Option<String>,
    /// A cookie for one node only
    #[arg(long, global = true, num_args = 2, value_names = ["NODE", "COOKIE"], help_heading = "Node")]
    pub(crate) peer_cookie: Vec<String>,
    /// Read the cookie from this file
    #[arg(long, global = true, value_name = "FILE", help_heading = "Node")]
    pub(crate) cookie_file: Option<PathBuf>,
    /// Stay out of nodes() and global (the default)
    #[arg(long, global = true, conflicts_with = "visible", help_heading = "Node")]
    pub(crate) hidden: bool,
    /// Be a visible node: stand in nodes() and take part in global. Supervisors of Horde that count it are told that it runs no
    /// children; with `--visible=no-horde` they are told nothing
    #[arg(long, global = true, value_name = "no-horde", num_args = 0..=1, require_equals = true, default_missing_value = "", value_parser = visible, help_heading = "Node")]
    pub(crate) visible: Option<String>,
    /// Configuration file (TOML); FOUNDATION_CONFIG
    #[arg(long, global = true, value_name = "FILE", help_heading = "Node")]
    pub(crate) config: Option<PathBuf>,
    /// Where other nodes are found: true, false, or a strategy (static, local_epmd, …); FOUNDATION_CLUSTER
    #[arg(long, global = true, value_name = "STRATEGY", help_heading = "Cluster")]
    pub(crate) cluster: Option<String>,
    /// A node to connect to and to stay connected to; may be given several times
    #[arg(long, global = true, value_name = "NODE", help_heading = "Cluster")]
    pub(crate) join: Vec<String>,
    /// How the port mapper is used: auto, embedded, require, none
    #[arg(long, global = true, value_name = "MODE", help_heading = "Network")]
    pub(crate) epmd: Option<String>,
    /// Work without a port mapper; needs --dist-port
    #[arg(long, global = true, conflicts_with = "epmd", help_heading = "Network")]
    pub(crate) no_epmd: bool,
    /// Port of the port mapper; ERL_EPMD_PORT
    #[arg(long, global = true, value_name = "PORT", help_heading = "Network")]
    pub(crate) epmd_port: Option<String>,
    /// Listen on this port; without a port mapper, also expect the others on it
    #[arg(long, global = true, value_name = "PORT", help_heading = "Network")]
    pub(crate) dist_port: Option<String>,
    /// Listen on this port and expect all other nodes on it
    #[arg(long, alias = "erl_epmd_port", global = true, value_name = "PORT", help_heading = "Network")]
    pub(crate) erl_epmd_port: Option<String>,
    /// `false`: do not start a port mapper
    #[arg(long, alias = "start_epmd", global = true, value_name = "BOOL", help_heading = "Network")]
    pub(crate) start_epmd: Option<bool>,
    /// `false`: neither listen nor register
    #[arg(long, alias = "dist_listen", global = true, value_name = "BOOL", help_heading = "Network")]
    pub(crate) dist_listen: Option<bool>,
    /// The carrier: inet_tcp, inet6_tcp, inet_tls or inet6_tls
    #[arg(long, alias = "proto_dist", global = true, value_name = "PROTO", help_heading = "Network")]
    pub(crate) proto_dist: Option<String>,
    /// The options of TLS, in a file as erl's -ssl_dist_optfile takes it
    #[arg(long, alias = "ssl_dist_optfile", global = true, value_name = "FILE", help_heading = "Network")]
    pub(crate) ssl_dist_optfile: Option<PathBuf>,
    /// One option of TLS: server_ or client_ and certfile, keyfile, cacertfile, verify, …
    #[arg(long, alias = "ssl_dist_opt", global = true, num_args = 2, value_names = ["OPTION", "VALUE"], help_heading = "Network")]
    pub(crate) ssl_dist_opt: Vec<String>,
    /// Set a kernel parameter or any other key of the configuration
    #[arg(long, global = true, num_args = 2, value_names = ["KEY", "VALUE"], help_heading = "Network")]
    pub(crate) kernel: Vec<String>,
    /// Seconds to wait for the other node
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 30.0, help_heading = "Output")]
    pub(crate) timeout: f64,
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value_t, help_heading = "Output")]
    pub(crate) format: Format,
    /// How diagnostics are printed; FOUNDATION_LOG_FORMAT
    #[arg(long, global = true, value_enum, help_heading = "Output")]
    pub(crate) log_format: Option<LogFormat>,
    /// What is logged: error, warn, info, debug, trace, or a filter as in RUST_LOG; FOUNDATION_LOG
    #[arg(long, global = true, value_name = "FILTER", help_heading = "Output")]
    pub(crate) log: Option<String>,
    /// Read further arguments from this file, as erl's -args_file does (vm.args); wherever it stands
    #[arg(long, alias = "args_file", global = true, value_name = "FILE", help_heading = "Node")]
    pub(crate) args_file: Option<PathBuf>,
    /// Flags of `erl` that mean nothing here and are accepted
    #[arg(long = "ignored", global = true, hide = true, action = ArgAction::Append)]
    pub(crate) ignored: Vec<String>,
}

/// File, environment and flags, laid over each other.
pub(crate) struct Layered {
    pub(crate) layers: Layers,
    pub(crate) warnings: Vec<String>,
    /// Variables with our prefix that mean nothing.
    pub(crate) unknown: Vec<String>,
}

/// How terms are written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum Format {
    /// As io:format("~p") prints them
    #[default]
    Erlang,
    /// As inspect prints them
    Elixir,
    /// As JSON
    Json,
}

/// How diagnostics are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Pretty,
    /// One JSON object per line
    Json,
    /// key=value
    Logfmt,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node until SIGTERM or SIGINT
    Start,
    /// Serve a port mapper, or speak to the running one
    Epmd(Epmd),
    /// List the names registered on a host, as `epmd -names` does
    Names {
        /// Host, this one by default
        host: Option<String>,
    },
    /// List the nodes that a node is connected to
    Nodes {
        #[command(flatten)]
        target: Target,
    },
    /// Ask a node whether it answers: pong or pang
    Ping {
        #[command(flatten)]
        target: Target,
    },
    /// Call a function: rpc NODE 'lists:seq(1, 5)', rpc NODE lists seq 1 5, rpc NODE ':lists.seq(1, 5)'
    Rpc {
        /// The node
        #[arg(value_name = "NODE")]
        node: String,
        /// A call in Erlang or Elixir syntax; or module, function, and each argument as a term
        #[arg(
            required = true,
            value_name = "CALL|MODULE FUNCTION ARG",
            allow_hyphen_values = true,
            trailing_var_arg = true
        )]
        call: Vec<String>,
    },
    /// Call a gen_server and print its reply
    Call {
        #[command(flatten)]
        message: Message,
    },
    /// Send a cast to a gen_server
    Cast {
        #[command(flatten)]
        message: Message,
    },
    /// Send a message to a registered process
    Send {
        #[command(flatten)]
        message: Message,
    },
    /// Print what is broadcast on a channel or topic, one message a line
    Subscribe {
        #[command(flatten)]
        topic: Topic,
        /// Stop after this many messages
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
    /// Broadcast a message on a channel or topic
    Broadcast {
        #[command(flatten)]
        topic: Topic,
        /// The message, a term in Erlang or Elixir syntax
        #[arg(allow_hyphen_values = true)]
        term: String,
    },
    /// List the process groups of a pg scope: group, members, nodes
    Groups {
        /// The node
        node: String,
        /// The scope
        #[arg(default_value = "pg")]
        scope: String,
    },
    /// List the names of a Horde.Registry (name, pid, node, value) or the children of a Horde.DynamicSupervisor (start, pid, node)
    Horde {
        /// The node, with Horde or with a member of ours
        node: String,
        /// The registry or supervisor, such as MyApp.Registry
        #[arg(id = "horde", value_name = "NAME")]
        name: String,
    },
    /// List the names of a registry: key, process, value
    Registry {
        /// The node
        node: String,
        /// The registry
        #[arg(id = "registry", value_name = "NAME")]
        name: String,
    },
    /// List the children of a supervisor of Rust children: id, part, node, status, process; or one of them; or move one
    Singleton {
        /// The node
        node: String,
        /// The supervisor
        #[arg(id = "supervisor", value_name = "NAME")]
        name: String,
        /// The child, a term in Erlang or Elixir syntax
        id: Option<String>,
        /// Move it to this node, with the state that it leaves
        #[arg(long, value_name = "NODE", requires = "id")]
        to: Option<String>,
    },
    /// List the services of a mesh: name, process, health, capabilities, metadata
    Services {
        /// The node
        node: String,
        /// What to look for, such as `[name: :payment]` or `[{capabilities,[refunds]}]`
        criteria: Option<String>,
        /// The mesh
        #[arg(long, value_name = "NAME", default_value = foundation_node::service::mesh::NAME)]
        mesh: String,
        /// Instead of the services, how busy the nodes are that tell it
        #[arg(long, conflicts_with = "criteria")]
        loads: bool,
    },
    /// Show the traffic of the channels, line by line
    Channels {
        /// The node
        node: String,
        /// Only what this node itself sends, not the nodes that it is connected to
        #[arg(long)]
        one: bool,
        /// Seconds between two reports
        #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
        interval: f64,
        /// Stop after this many reports
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
    /// Show what the configured sources find, and whether it can be reached
    Discover(Discover),
    /// Find out, step by step, what is wrong between this machine and a node
    Doctor {
        #[command(flatten)]
        target: Target,
        /// Print the steps as JSON
        #[arg(long)]
        json: bool,
    },
    /// Find nodes for an Elixir node that starts this and speaks to it over the standard streams; not to be run by hand
    Companion,
    /// Check the configuration, or show what is in force
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Stop a node in an orderly way (init:stop/0)
    Stop {
        #[command(flatten)]
        target: Target,
    },
    /// Print the operating system's process id of a node
    Pid {
        #[command(flatten)]
        target: Target,
    },
    /// Print the completions of a shell: bash, elvish, fish, powershell or zsh
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page (for man -l), of all or of one command
    Man {
        /// The command
        command: Option<String>,
    },
    /// Print the version
    Version,
}

/// What `foundation discover` does.
#[derive(Args, Debug)]
pub(crate) struct Discover {
    /// Also say which sources were chosen and why, and what each has seen
    #[arg(long)]
    pub(crate) explain: bool,
    /// Connect to nobody
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// How long sources that only hear (gossip, mdns) are listened to, and others may take
    #[arg(long, value_name = "SECONDS", default_value_t = 6.0)]
    pub(crate) seconds: f64,
}

/// What `foundation config` does.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check file, environment and flags, as `start` with the same ones would; nothing is started or written
    Check {
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print what is configured, each value with its origin; secrets are not shown
    Show {
        /// Every key, also those that have their default
        #[arg(long)]
        effective: bool,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
}

/// A node to speak to.
#[derive(Args, Debug)]
pub(crate) struct Target {
    /// The node; by default the one that FOUNDATION_NODE or RELEASE_NODE names
    #[arg(value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// The same
    #[arg(long = "node", value_name = "NODE", id = "node_option", conflicts_with = "node")]
    pub(crate) option: Option<String>,
}

/// A topic of a Phoenix.PubSub.
#[derive(Args, Debug)]
pub(crate) struct Topic {
    /// The node
    pub(crate) node: String,
    /// control, events, telemetry or data; with --pubsub, any topic
    #[arg(value_name = "CHANNEL|TOPIC")]
    pub(crate) topic: String,
    /// The PubSub, such as MyApp.PubSub
    #[arg(long, value_name = "NAME")]
    pub(crate) pubsub: Option<String>,
    /// Only with this node, not with those that it is connected to
    #[arg(long)]
    pub(crate) one: bool,
}

/// A message to a registered process.
#[derive(Args, Debug)]
pub(crate) struct Message {
    /// The node
    pub(crate) node: String,
    /// The registered name
    #[arg(id = "registered", value_name = "NAME")]
    pub(crate) name: String,
    /// The message, a term in Erlang or Elixir syntax
    #[arg(allow_hyphen_values = true)]
    pub(crate) term: String,
}

#[derive(Args, Debug)]
pub(crate) struct Epmd {
    /// List the registered names
    #[arg(long)]
    pub(crate) names: bool,
    /// Stop the running one
    #[arg(long, conflicts_with = "names")]
    pub(crate) kill: bool,
    /// Run in the background
    #[arg(long, conflicts_with_all = ["names", "kill"])]
    pub(crate) daemon: bool,
    /// Port to serve or ask
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Addresses to serve, separated by commas, besides the loopback ones
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    pub(crate) address: Vec<std::net::IpAddr>,
}

/// Long flags that `erl`, `iex` and `epmd` write with one dash, and how many values follow them.
const ERL_FLAGS: &[(&str, usize)] = &[
    ("name", 1),
    ("sname", 1),
    ("setcookie", 1),
    ("hidden", 0),
    ("kernel", 2),
    ("erl_epmd_port", 1),
    ("start_epmd", 1),
    ("dist_listen", 1),
    ("proto_dist", 1),
    ("ssl_dist_optfile", 1),
    ("ssl_dist_opt", 2),
    ("epmd", 1),
    ("names", 0),
    ("kill", 0),
    ("daemon", 0),
    ("port", 1),
    ("address", 1),
];

/// Flags of `erl` about things that a node without a virtual machine does not have.
const IGNORED_FLAGS: &[(&str, usize)] = &[
    ("noshell", 0),
    ("noinput", 0),
    ("detached", 0),
    ("connect_all", 1),
    ("epmd_module", 1),
    ("smp", 1),
    ("mode", 1),
    ("boot", 1),
    ("config", 1),
    ("pa", 1),
    ("pz", 1),
];

/// Turns the flags of `erl` into the form that the parser below takes: `-name x` into `--name x`, `-setcookie node c` into
/// `--peer-cookie node c`. Everything else stays.
pub(crate) fn normalise(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments = arguments.peekable();
    let mut out: Vec<OsString> = arguments.next().into_iter().collect();
    let mut in_call = None;
    while let Some(argument) = arguments.next() {
        let text = argument.to_str().unwrap_or_default();
        // What stands behind `--`, and the arguments of a remote call, belong to somebody else.
        if text == "--" {
            out.push(argument);
            out.extend(arguments);
            return out;
        }
        if in_call == Some(0) {
            return with_call(out, std::iter::once(argument).chain(arguments));
        }
        let flag = text.strip_prefix('-').filter(|flag| !flag.starts_with('-')).unwrap_or_default();
        if let Some((_, values)) = IGNORED_FLAGS.iter().find(|(name, _)| *name == flag) {
            out.push(format!("--ignored={text}").into());
            arguments.by_ref().take(*values).for_each(drop);
            continue;
        }
        let long = text.strip_prefix("--").unwrap_or(flag);
        let Some((name, values)) = ERL_FLAGS.iter().find(|(name, _)| *name == long) else {
            if !text.starts_with('-') {
                // `rpc`, then the node; what follows is the call.
                in_call = match in_call {
                    None if text == "rpc" => Some(1),
                    Some(left) => Some(left - 1),
                    None => Some(usize::MAX),
                };
            }
            out.push(argument);
            continue;
        };
        let of_one_node = *name == "setcookie"
            && arguments.peek().and_then(|next| next.to_str()).is_some_and(|node| node.contains('@'));
        if of_one_node {
            out.push("--peer-cookie".into());
            out.extend(arguments.by_ref().take(2));
        } else {
            out.push(format!("--{name}").into());
            out.extend(arguments.by_ref().take(*values));
        }
    }
    out
}

/// Adds the words of a remote call. No term starts with two dashes, so an option of ours that stands behind the call is
/// taken for one, up to a `--`; flags with one dash are left to the call, as `-5` is a term.
fn with_call(out: Vec<OsString>, words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let command = Cli::command();
    let (mut options, mut call) = (Vec::new(), Vec::new());
    let mut words = words;
    while let Some(word) = words.next() {
        let text = word.to_str().unwrap_or_default();
        if text == "--" {
            call.push(word);
            call.extend(words);
            break;
        }
        let name = text.strip_prefix("--").map(|option| option.split('=').next().unwrap_or_default());
        let known =
            name.and_then(|name| command.get_arguments().find(|known| known.get_long() == Some(name)));
        match known {
            Some(known) => {
                let separate = known.get_action().takes_values() && !text.contains('=');
                let values =
                    if separate { known.get_num_args().map_or(1, |range| range.min_values()) } else { 0 };
                options.push(word);
                options.extend(words.by_ref().take(values));
            }
            None => call.push(word),
        }
    }
    // Options go before the command, behind the name of the program.
    let mut out = out.into_iter();
    out.next().into_iter().chain(options).chain(out).chain(call).collect()
}

impl Options {
    /// The configuration that file, environment and these flags add up to, and the warnings that it deserves.
    pub(crate) fn configuration(&self) -> Result<(NodeConfig, Vec<String>), ConfigError> {
        let Layered { layers, warnings, unknown } = self.layers()?;
        for variable in unknown {
            // Not worth a line of every command; whoever starts a node sees it.
            tracing::warn!(variable, "this variable means nothing to this version");
        }
        Ok((layers.finish()?, warnings))
    }

    /// The same before it is added up.
    pub(crate) fn layers(&self) -> Result<Layered, ConfigError> {
        let mut layers = Layers::new();
        let mut warnings = Vec::new();
        let path = self.config.clone().or_else(|| std::env::var_os("FOUNDATION_CONFIG").map(PathBuf::from));
        layers.set("epmd", "auto", "default")?;
        layers.set("cluster", "environment", "default")?;
        if let Some(path) = path {
            layers.file(&path)?;
        }
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let unknown = layers.environment(variables)?;
        self.flags(&mut layers, &mut warnings)?;
        Ok(Layered { layers, warnings, unknown })
    }

    fn flags(&self, layers: &mut Layers, warnings: &mut Vec<String>) -> Result<(), ConfigError> {
        if let Some(name) = &self.name {
            layers.set_text("name", name, "--name")?;
            layers.set("name_domain", "longnames", "--name")?;
        }
        if let Some(name) = &self.sname {
            layers.set_text("name", name, "--sname")?;
            layers.set("name_domain", "shortnames", "--sname")?;
        }
        if let Some(cookie) = &self.setcookie {
            layers.set_text("cookie", cookie, "--setcookie")?;
            warnings.push(
                "everybody on this machine can read a cookie given with --setcookie (`ps`); --cookie-file, FOUNDATION_COOKIE \
                 and ~/.erlang.cookie are the quiet ways"
                    .to_owned(),
            );
        }
        for pair in self.peer_cookie.chunks_exact(2) {
            if let [node, cookie] = pair {
                layers.set_cookie(node, cookie, "--setcookie")?;
            }
        }
        if let Some(path) = &self.cookie_file {
            layers.set_text("cookie_file", &path.to_string_lossy(), "--cookie-file")?;
            layers.unset("cookie");
        }
        if self.hidden || self.visible.is_some() {
            layers.set("hidden", if self.visible.is_some() { "false" } else { "true" }, "--hidden")?;
        }
        if self.visible.as_deref() == Some("no-horde") {
            layers.set("horde", "false", "--visible")?;
        }
        if let Some(cluster) = &self.cluster {
            layers.set("cluster", cluster, "--cluster")?;
        }
        for node in &self.join {
            layers.join(node, "--join")?;
        }
        if let Some(mode) = &self.epmd {
            layers.set_text("epmd", mode, "--epmd")?;
        }
        if self.start_epmd == Some(false) {
            layers.set("epmd", "require", "--start-epmd")?;
        }
        if self.no_epmd {
            layers.set("epmd", "none", "--no-epmd")?;
        }
        if let Some(port) = &self.epmd_port {
            layers.set("epmd_port", port, "--epmd-port")?;
        }
        if let Some(port) = &self.dist_port {
            if self.no_epmd {
                layers.set("erl_epmd_node_listen_port", port, "--dist-port")?;
            } else {
                layers.set("inet_dist_listen_min", port, "--dist-port")?;
                layers.set("inet_dist_listen_max", port, "--dist-port")?;
            }
        }
        if let Some(port) = &self.erl_epmd_port {
            layers.set("erl_epmd_node_listen_port", port, "--erl-epmd-port")?;
        }
        if let Some(listen) = self.dist_listen {
            layers.set("dist_listen", if listen { "true" } else { "false" }, "--dist-listen")?;
        }
        if let Some(proto) = &self.proto_dist {
            layers.set_text("proto_dist", proto, "--proto-dist")?;
        }
        if let Some(path) = &self.ssl_dist_optfile {
            layers.set_text("ssl_dist_optfile", &path.to_string_lossy(), "--ssl-dist-optfile")?;
        }
        for pair in self.ssl_dist_opt.chunks_exact(2) {
            let [option, value] = pair else { continue };
            let place = format!("--ssl-dist-opt {option}");
            match option.split_once('_') {
                Some((_, key)) if ssl_dist::is_ignored(key) => {}
                Some((side @ ("server" | "client"), key)) => {
                    let value = if key == "versions" { format!("[{value:?}]") } else { value.clone() };
                    layers.set(&format!("ssl_dist_opt.{side}.{key}"), &value, &place)?;
                }
                _ => return Err(ConfigError::source(place, "must begin with server_ or client_")),
            }
        }
        for pair in self.kernel.chunks_exact(2) {
            let [key, value] = pair else { continue };
            match layers.set(key, &erlang_value(value), &format!("--kernel {key}")) {
                Err(error) if error.is_unknown_key() => {
                    warnings.push(format!("the kernel parameter {key} has no meaning here and is ignored"));
                }
                result => result?,
            }
        }
        Ok(())
    }
}

/// A value of a kernel parameter as `erl` takes it, in the form of the configuration file: `{127,0,0,1}` is an address.
fn erlang_value(value: &str) -> String {
    let tuple = value.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let Some(elements) = tuple.map(|inside| inside.split(',').map(str::trim).collect::<Vec<_>>()) else {
        return value.trim_matches('"').to_owned();
    };
    let separator = if elements.len() == 8 { ":" } else { "." };
    let address = match elements.len() {
        8 => elements
            .iter()
            .map(|group| {
                group.parse::<u16>().map_or_else(|_| (*group).to_owned(), |group| format!("{group:x}"))
            })
            .collect::<Vec<_>>()
            .join(separator),
        _ => elements.join(separator),
    };
    format!("{address:?}")
}

/// The value of `--visible`: none, or `no-horde`.
fn visible(value: &str) -> Result<String, String> {
    match value {
        "" | "no-horde" => Ok(value.to_owned()),
        _ => Err("--visible has no value, or no-horde: supervisors of Horde that count this node are then told nothing".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Cli {
        let words = line.split_whitespace().map(OsString::from).collect::<Vec<_>>();
        Cli::try_parse_from(normalise(words.into_iter())).unwrap()
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_visible_node_answers_horde_unless_told_otherwise() {
        for (line, visible) in [
            ("foundation start", (true, true)),
            ("foundation start --visible", (false, true)),
            ("foundation --visible=no-horde start", (false, false)),
        ] {
            let mut layers = Layers::new();
            parse(line).options.flags(&mut layers, &mut Vec::new()).unwrap();
            let config = layers.finish().unwrap();
            assert_eq!((config.hidden, config.horde), visible, "{line}");
        }
        let words = ["foundation", "--visible=maybe", "start"].map(OsString::from);
        let refused = Cli::try_parse_from(normalise(words.into_iter())).unwrap_err();
        assert!(refused.to_string().contains("no-horde"), "{refused}");
    }

    #[test]
    fn flags_of_erl_work_with_one_dash_and_two_before_and_after_the_command() {
        for line in [
            "foundation -sname a@h -setcookie c -hidden -kernel net_ticktime 8 -erl_epmd_port 9100 start",
            "foundation start --sname a@h --setcookie c --hidden --kernel net_ticktime 8 --erl-epmd-port 9100",
            "foundation -noshell start -sname a@h --setcookie=c -hidden -kernel net_ticktime 8 --erl_epmd_port 9100",
        ] {
            let options = parse(line).options;
            assert_eq!(options.sname.as_deref(), Some("a@h"), "{line}");
            assert_eq!(options.setcookie.as_deref(), Some("c"), "{line}");
            assert_eq!(options.erl_epmd_port.as_deref(), Some("9100"), "{line}");
            assert!(options.hidden);
            let mut layers = Layers::new();
            options.flags(&mut layers, &mut Vec::new()).unwrap();
            let config = layers.finish().unwrap();
            assert_eq!((config.net_ticktime, config.erl_epmd_node_listen_port), (8, Some(9100)));
        }
    }

    #[test]
    fn a_cookie_for_one_node_has_two_values() {
        let options = parse("foundation ping -setcookie n@h one -setcookie all n@h").options;
        assert_eq!(options.peer_cookie, ["n@h", "one"]);
        assert_eq!(options.setcookie.as_deref(), Some("all"));
    }

    #[test]
    fn the_arguments_of_a_remote_call_are_left_alone() {
        let cli = parse("foundation -name x@y.z rpc n@h io format -name -5");
        let Command::Rpc { node, call } = cli.command else { panic!() };
        assert_eq!((node.as_str(), call.join(" ").as_str()), ("n@h", "io format -name -5"));
        assert_eq!(cli.options.name.as_deref(), Some("x@y.z"));
    }

    #[test]
    fn options_may_stand_behind_a_call() {
        let cli = parse("foundation rpc n@h :lists.seq(1,5) --format elixir --setcookie abc --timeout=5");
        let Command::Rpc { node, call } = cli.command else { panic!() };
        assert_eq!((node.as_str(), call.join(" ").as_str()), ("n@h", ":lists.seq(1,5)"));
        assert_eq!(cli.options.setcookie.as_deref(), Some("abc"));
        let cli = parse("foundation rpc n@h m f -- --format");
        let Command::Rpc { call, .. } = cli.command else { panic!() };
        assert_eq!(call.last().map(String::as_str), Some("--format"));
    }

    #[test]
    fn addresses_are_taken_in_erlang_form() {
        assert_eq!(erlang_value("{127,0,0,1}"), "\"127.0.0.1\"");
        assert_eq!(erlang_value("{0,0,0,0,0,0,0,1}"), "\"0:0:0:0:0:0:0:1\"");
        assert_eq!(erlang_value("60"), "60");
        let options = parse(
            "foundation start -kernel inet_dist_use_interface {127,0,0,1} -kernel shell_history enabled",
        )
        .options;
        let (mut layers, mut warnings) = (Layers::new(), Vec::new());
        options.flags(&mut layers, &mut warnings).unwrap();
        assert_eq!(warnings.len(), 1);
        assert_eq!(
            layers.finish().unwrap().inet_dist_use_interface,
            ["127.0.0.1".parse::<std::net::IpAddr>().unwrap()]
        );
    }
}
