//! The ecosystem's own libraries, unmodified, beside our node: `make ecosystem`.
//!
//! Their sources cannot be part of this project. `FOUNDATION_ECOSYSTEM` names a folder that holds them, one folder a library
//! (`phoenix_pubsub`, …); `ecosystem.toml` says which versions. Without it each case prints *not run: source absent*.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use foundation_interop_tests::beam::Options;
use foundation_interop_tests::case::Unsupported;
use foundation_interop_tests::eventually::eventually_true;
use foundation_interop_tests::{Beam, Case, Epmd, Release, case, work_dir};
use foundation_node::service::pubsub::PubSub;
use foundation_proto::Limits;
use foundation_proto::etf::Term;

use crate::rust::{Rust, WAIT, shown};

pub(crate) const TOPIC: &str = "ecosystem";

/// The folder of a library; `None`, said aloud, if it is not there.
pub(crate) fn source(library: &str) -> Option<PathBuf> {
    sources(library).into_iter().next()
}

/// The folders of all versions of a library that are there: `LIBRARY`, then `LIBRARY-VERSION`. Says so if there are none.
pub(crate) fn sources(library: &str) -> Vec<PathBuf> {
    let root = std::env::var_os("FOUNDATION_ECOSYSTEM").map(PathBuf::from);
    let entries = root.and_then(|root| std::fs::read_dir(root).ok()).into_iter().flatten().flatten();
    let is_version = |name: &str| {
        let rest = name.strip_prefix(library)?.strip_prefix('-')?;
        rest.starts_with(|first: char| first.is_ascii_digit()).then_some(())
    };
    let mut folders: Vec<PathBuf> = entries
        .filter(|entry| {
            entry.file_name().to_str().is_some_and(|name| name == library || is_version(name).is_some())
        })
        .map(|entry| entry.path())
        .filter(|folder| ["mix.exs", "rebar.config"].iter().any(|file| folder.join(file).is_file()))
        .collect();
    folders.sort();
    if folders.is_empty() {
        println!("ecosystem {library}: not run: source absent");
    }
    folders
}

/// A node with Elixir on which the libraries are compiled and loaded, each after those that it needs.
pub(crate) fn node_with(release: &Release, epmd: &Epmd, name: &str, sources: &[PathBuf]) -> Beam {
    let beam = Options::new(release, epmd.port, name).elixir().start();
    load(&beam, sources);
    beam
}

/// Compiles and loads the libraries, each after those that it needs, on a node with Elixir.
pub(crate) fn load(beam: &Beam, sources: &[PathBuf]) {
    // The libraries log, and look at Mix when they are compiled.
    beam.elixir(
        "for app <- [:logger, :eex, :ex_unit, :mix] do\n\
           true = :code.add_path(String.to_charlist(Path.join([:code.lib_dir(:elixir), \"..\", \"#{app}\", \"ebin\"])))\n\
           {:ok, _} = Application.ensure_all_started(app)\n\
         end\nMix.env(:prod)\n:ok",
    );
    for source in sources {
        let files = |pattern: &str| {
            format!("Path.wildcard({:?})", source.join(pattern).to_str().expect("a readable path"))
        };
        beam.elixir(&format!(
            "for f <- {} do {{:ok, m, b}} = :compile.file(String.to_charlist(f), [:binary]); {{:module, _}} = :code.load_binary(m, ~c\"x\", b) end\n\
             {{:ok, _, _}} = File.cd!({source:?}, fn -> Kernel.ParallelCompiler.compile({}, return_diagnostics: true) end); :ok",
            files("src/*.erl"),
            files("lib/**/*.ex"),
        ));
    }
}

/// The folders with the code of these libraries, each compiled once for a release, after those that it needs. `None`, said aloud, if the
/// source of one is absent.
pub(crate) fn compiled(release: &Release, libraries: &[&str]) -> Option<Vec<PathBuf>> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let sources: Vec<PathBuf> = libraries.iter().map(|library| source(library)).collect::<Option<_>>()?;
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = |source: &PathBuf| {
        let library = source.file_name().unwrap_or_default().to_string_lossy();
        work_dir("ebin").join(format!("ecosystem-{}-{library}", release.version))
    };
    let folders: Vec<PathBuf> = sources.iter().map(folder).collect();
    // A copy of its description, made last, says which version is there.
    let is_old = |(source, folder): &(&PathBuf, &PathBuf)| {
        let read = |file: PathBuf| std::fs::read(file).ok();
        read(folder.join("compiled-from")).is_none_or(|made| read(source.join("mix.exs")) != Some(made))
    };
    let missing: Vec<_> = sources.iter().zip(&folders).filter(is_old).collect();
    if missing.is_empty() {
        return Some(folders);
    }
    folders.iter().for_each(|folder| std::fs::create_dir_all(folder).expect("a folder for code"));
    let epmd = Epmd::start(release);
    let beam = with_code(Options::new(release, epmd.port, "compiler"), &folders).start();
    load(&beam, &[]);
    for (source, out) in missing {
        // Some take longer than one answer may.
        beam.elixir(&format!(
            "out = {out:?}\n\
             spawn(fn ->\n\
               for f <- Path.wildcard({erlang:?}), do: {{:ok, _}} = :compile.file(String.to_charlist(f), outdir: String.to_charlist(out))\n\
               for f <- Path.wildcard({app:?}), do: File.cp!(f, Path.join(out, Path.basename(f, \".src\")))\n\
               {{:ok, _, _}} = File.cd!({source:?}, fn -> Kernel.ParallelCompiler.compile_to_path(Path.wildcard({elixir:?}), out, return_diagnostics: true) end)\n\
               File.cp!(Path.join({source:?}, \"mix.exs\"), Path.join(out, \"compiled-from\"))\n\
             end)\n:ok",
            erlang = source.join("src/*.erl"),
            app = source.join("src/*.app.src"),
            elixir = source.join("lib/**/*.ex"),
        ));
        eventually_true(&format!("{} is compiled", source.display()), COMPILING, || !is_old(&(source, out)));
    }
    Some(folders)
}

/// How long a library may be compiled, on a machine that does other things too.
const COMPILING: Duration = Duration::from_secs(300);

/// A node with Elixir that finds the code of these folders.
pub(crate) fn with_code(options: Options, folders: &[PathBuf]) -> Options {
    folders
        .iter()
        .fold(options.elixir(), |options, folder| options.arg("-pa").arg(&folder.display().to_string()))
}

pub(crate) fn start_pubsub(beam: &Beam, pool_size: usize) {
    beam.elixir(&format!(
        "Application.put_env(:elixir, :ansi_enabled, false)\n\
         {{:ok, _}} = :pg.start_link(Phoenix.PubSub)\n\
         {{:ok, _}} = Supervisor.start_link([{{Phoenix.PubSub, name: MyApp.PubSub, pool_size: {pool_size}}}], strategy: :one_for_one)\n\
         :ok = Phoenix.PubSub.subscribe(MyApp.PubSub, \"room:1\"); :ok"
    ));
}

#[test]
fn phoenix_pubsub() {
    for source in sources("phoenix_pubsub") {
        let version = source.file_name().expect("a folder").to_string_lossy().into_owned();
        case(
            Case::Smoke,
            TOPIC,
            &format!("Phoenix.PubSub ({version}): broadcasts both ways, direct, pools of one and three"),
            |release| {
                if release.number < 25 {
                    return Err(Unsupported("Phoenix.PubSub wants a later Elixir"));
                }
                broadcasts(release, &source);
                Ok(())
            },
        );
    }
}

fn broadcasts(release: &Release, source: &Path) {
    let epmd = Epmd::start(release);
    let rust = Rust::start(&epmd, "rust");
    let sources = [source.to_owned()];
    let one = node_with(release, &epmd, "one", &sources);
    let three = node_with(release, &epmd, "three", &sources);
    start_pubsub(&one, 1);
    start_pubsub(&three, 3);
    let pubsub: PubSub = rust.run(async { rust.node.pubsub("MyApp.PubSub") }).unwrap();
    for node in ["one@127.0.0.1", "three@127.0.0.1"] {
        assert!(rust.run(rust.node.connect(node)).is_ok());
    }
    let mut subscription = pubsub.subscribe("room:1").unwrap();
    eventually_true("all three are members", WAIT, || pubsub.nodes().len() == 3);
    for beam in [&one, &three] {
        let members = "Enum.any?(:pg.get_members(Phoenix.PubSub, MyApp.PubSub.Adapter), &(node(&1) == :\"rust@127.0.0.1\"))";
        eventually_true("the BEAM sees our worker", WAIT, || beam.elixir(members) == "true");
    }

    rust.run(pubsub.broadcast("room:1", &Term::from((Term::atom("from_rust"), 1)))).unwrap();
    for beam in [&one, &three] {
        assert_eq!(beam.elixir("receive do {:from_rust, n} -> n after 5000 -> :nothing end"), "1");
    }
    let own = rust.run(subscription.next()).unwrap();
    assert_eq!(shown(&own.to_term(&Limits::default()).unwrap()), "{from_rust,1}");

    // From each shard of the pool: the group depends on the sender, and we listen on all of them.
    let joined = "Enum.all?([:\"Elixir.MyApp.PubSub.Adapter_2\", :\"Elixir.MyApp.PubSub.Adapter_3\"], fn g -> Enum.any?(:pg.get_members(Phoenix.PubSub, g), &(node(&1) == :\"rust@127.0.0.1\")) end)";
    // 2.0 has no pools.
    let pools = three.elixir("Code.ensure_loaded?(Phoenix.PubSub.PG2Worker)") == "true";
    if pools {
        eventually_true("we join the groups of the larger pool", WAIT, || three.elixir(joined) == "true");
    }
    three.elixir(
            "for n <- 1..30, do: Task.async(fn -> Phoenix.PubSub.broadcast(MyApp.PubSub, \"room:1\", {:from_pool, n}) end) |> Task.await()\n:ok",
        );
    let mut seen = Vec::new();
    rust.run(async {
        while seen.len() < 30 {
            let term = subscription.next().await.unwrap().to_term(&Limits::default()).unwrap();
            if let Some([tag, n]) = term.as_tuple()
                && *tag == Term::atom("from_pool")
            {
                seen.extend(n.as_i64());
            }
        }
    });
    seen.sort_unstable();
    assert_eq!(seen, (1..=30).collect::<Vec<_>>());

    one.elixir("Phoenix.PubSub.direct_broadcast(:\"rust@127.0.0.1\", MyApp.PubSub, \"room:1\", :direct)");
    let direct = rust.run(subscription.next()).unwrap();
    assert_eq!(direct.to_term(&Limits::default()).unwrap(), Term::atom("direct"));
    rust.run(pubsub.direct_broadcast("one@127.0.0.1", "room:1", &Term::atom("only_one"))).unwrap();
    assert_eq!(one.elixir("receive do :only_one -> true after 5000 -> :nothing end"), "true");
}
