//! A Rust node in the place of a BEAM: what tools and operators ask of any node.

use std::path::PathBuf;
use std::time::Duration;

use foundation_interop_tests::case::Unsupported;
use foundation_interop_tests::{Beam, Case, Epmd, Release, beam, case, eventually::eventually_true};
use foundation_node::config::Builtins;
use foundation_node::process::SpawnOptions;
use foundation_proto::etf::{Atom, Term};

use crate::rust::Rust;

const TOPIC: &str = "standing in for a BEAM";

/// Both nodes, `R` bound to the Rust one and `C` to a fun that calls a function there by `rpc`.
fn nodes(release: &Release) -> (Epmd, Rust, Beam) {
    let epmd = Epmd::start(release);
    let rust = Rust::start(&epmd, "rust");
    let beam = Beam::visible(release, &epmd, "beam");
    beam.eval("R = 'rust@127.0.0.1', C = fun(M, F, A) -> rpc:call(R, M, F, A) end");
    (epmd, rust, beam)
}

#[test]
fn a_node_tells_about_itself() {
    case(
        Case::Smoke,
        TOPIC,
        "erlang, net_kernel, application, code, init and os answer by rpc, erpc and rex",
        |release| {
            let (_epmd, rust, beam) = nodes(release);
            let keeper = rust.node.mailbox("keeper").unwrap();
            assert_eq!(beam.eval("C(erlang, node, [])"), "'rust@127.0.0.1'");
            assert_eq!(beam.eval("C(erlang, is_alive, [])"), "true");
            assert_eq!(beam.eval("C(erlang, nodes, [])"), "[]");
            assert_eq!(beam.eval("C(erlang, nodes, [connected])"), "['beam@127.0.0.1']");
            assert_eq!(
                beam.eval("lists:sort(C(erlang, nodes, [[this, hidden]]))"),
                "['beam@127.0.0.1','rust@127.0.0.1']"
            );
            assert_eq!(beam.eval("C(net_kernel, get_net_ticktime, [])"), "60");
            assert_eq!(
                beam.eval(
                    "{ok, [{N, I}]} = C(net_kernel, nodes_info, []), {N, proplists:get_value(type, I)}"
                ),
                "{'beam@127.0.0.1',hidden}"
            );
            assert_eq!(beam.eval("net_adm:ping(R)"), "pong");

            // Processes, by all that can be asked of them.
            assert_eq!(beam.eval("K = C(erlang, whereis, [keeper]), node(K)"), "'rust@127.0.0.1'");
            assert_eq!(beam.eval("C(erlang, whereis, [nobody])"), "undefined");
            assert_eq!(beam.eval("lists:member(K, C(erlang, processes, []))"), "true");
            assert_eq!(beam.eval("lists:member(keeper, C(erlang, registered, []))"), "true");
            assert_eq!(beam.eval("C(erlang, is_process_alive, [K])"), "true");
            assert_eq!(
                beam.eval(
                    "K ! {some, <<0:800>>}, erpc:call(R, erlang, process_info, [K, message_queue_len])"
                ),
                "{message_queue_len,1}"
            );
            assert_eq!(
                beam.eval("{memory, Bytes} = C(erlang, process_info, [K, memory]), Bytes > 100"),
                "true"
            );
            assert_eq!(
            beam.eval("link(K), erlang:monitor(process, K), \
                       [{links, [L]}, {monitored_by, [L]}] = C(erlang, process_info, [K, [links, monitored_by]]), L =:= self()"),
            "true"
        );
            assert_eq!(beam.eval("unlink(K)"), "true");
            assert_eq!(
            beam.eval("[registered_name, current_function, initial_call | _] = [I1 || {I1, _} <- C(erlang, process_info, [K])], ok"),
            "ok"
        );
            assert_eq!(
                beam.eval(
                    "{badrpc, {'EXIT', {badarg, [{erlang, process_info, [K, nothing], _} | _]}}} = \
                       C(erlang, process_info, [K, nothing]), badarg"
                ),
                "badarg"
            );
            drop(keeper);
            assert_eq!(beam.eval("C(erlang, process_info, [K])"), "undefined");
            assert_eq!(beam.eval("C(erlang, is_process_alive, [K])"), "false");

            // What is measured.
            assert_eq!(
            beam.eval("M = C(erlang, memory, []), [T, P, S] = [proplists:get_value(I2, M) || I2 <- [total, processes, system]], T =:= P + S"),
            "true"
        );
            assert_eq!(
                beam.eval("{badrpc, {'EXIT', {notsup, _}}} = C(erlang, memory, [ets]), notsup"),
                "notsup"
            );
            assert_eq!(beam.eval("C(erlang, system_info, [wordsize])"), "8");
            assert_eq!(
                beam.eval(
                    "C(erlang, system_info, [process_count]) =< C(erlang, system_info, [process_limit])"
                ),
                "true"
            );
            assert_eq!(beam.eval("C(erlang, system_info, [port_count])"), "1");
            assert_eq!(
                beam.eval(
                    "string:find(C(erlang, system_info, [system_version]), \"Foundation\") =/= nomatch"
                ),
                "true"
            );
            assert_eq!(
                beam.eval("{badrpc, {'EXIT', {badarg, _}}} = C(erlang, system_info, [otp_release]), badarg"),
                "badarg"
            );
            assert_eq!(
                beam.eval(
                    "{{input, In}, {output, Out}} = C(erlang, statistics, [io]), In > 0 andalso Out > 0"
                ),
                "true"
            );
            assert_eq!(beam.eval("{Up, _} = C(erlang, statistics, [wall_clock]), is_integer(Up)"), "true");
            assert_eq!(beam.eval("{Cpu, _} = C(erlang, statistics, [runtime]), is_integer(Cpu)"), "true");
            assert_eq!(beam.eval("is_integer(C(erlang, statistics, [run_queue]))"), "true");
            assert_eq!(beam.eval("[{1, _, _} | _] = C(erlang, statistics, [scheduler_wall_time]), ok"), "ok");
            assert_eq!(
                beam.eval("abs(C(erlang, system_time, [second]) - erlang:system_time(second)) < 60"),
                "true"
            );

            assert_eq!(
                beam.eval("[{foundation, _, Vsn}] = C(application, which_applications, []), is_list(Vsn)"),
                "true"
            );
            assert_eq!(beam.eval("{ok, Vsn} = C(application, get_key, [foundation, vsn]), ok"), "ok");
            assert_eq!(beam.eval("C(code, ensure_loaded, [observer_backend])"), "{module,observer_backend}");
            assert_eq!(beam.eval("C(code, ensure_loaded, [recon])"), "{error,nofile}");
            assert_eq!(beam.eval("C(code, is_loaded, [recon])"), "false");
            assert_eq!(beam.eval("C(init, get_status, [])"), "{started,started}");
            assert_eq!(beam.eval("list_to_integer(C(os, getpid, []))"), std::process::id().to_string());

            // The other ways to call, and what is not there.
            assert_eq!(beam.eval("rpc:block_call(R, erlang, node, [])"), "'rust@127.0.0.1'");
            assert_eq!(
            beam.eval("{rex, R} ! {self(), {call, erlang, is_alive, [], user}}, receive {rex, Alive} -> Alive after 5000 -> nothing end"),
            "true"
        );
            assert_eq!(
                beam.eval(
                    "{badrpc, {'EXIT', {undef, [{erlang, halt, [], []}]}}} = C(erlang, halt, []), undef"
                ),
                "undef"
            );
            assert_eq!(beam.eval("{badrpc, {'EXIT', {undef, _}}} = C(init, stop, []), undef"), "undef");
            assert_eq!(
                beam.eval("{badrpc, {'EXIT', {undef, _}}} = C(erlang, get_cookie, []), undef"),
                "undef"
            );
            Ok(())
        },
    );
}

#[test]
fn the_configuration_decides() {
    case(
        Case::Full,
        TOPIC,
        "a node that serves nothing of itself, and one that init:stop/0 stops",
        |release| {
            let epmd = Epmd::start(release);
            let served = |name: &str, builtins| {
                Rust::with(&epmd, name, |mut config| {
                    config.builtins = builtins;
                    config
                })
            };
            let _silent = served("silent", Builtins::None);
            let _stops = served("stops", Builtins::Stop);
            let beam = Beam::visible(release, &epmd, "beam");
            assert_eq!(
                beam.eval(
                    "{badrpc, {'EXIT', {undef, _}}} = rpc:call('silent@127.0.0.1', erlang, node, []), undef"
                ),
                "undef"
            );
            assert_eq!(beam.eval("rpc:call('stops@127.0.0.1', init, stop, [])"), "ok");
            eventually_true("the node has stopped", Duration::from_secs(10), || {
                beam.eval("net_adm:ping('stops@127.0.0.1')") == "pang"
            });
            Ok(())
        },
    );
}

#[test]
fn observer_asks() {
    case(
        Case::Smoke,
        TOPIC,
        "the calls of observer's System and Processes tabs, as its source has them",
        |release| {
            let (_epmd, rust, beam) = nodes(release);
            let _watched = rust.node.mailbox("watched").unwrap();
            // System: observer_sys_wx.
            assert_eq!(
            beam.eval("Info = C(observer_backend, sys_info, []), \
                [is_integer(proplists:get_value(I, Info)) || I <- [uptime, run_queue, io_input, io_output, schedulers, \
                 schedulers_online, schedulers_available, process_count, process_limit, port_count, port_limit, total, processes]]"),
            "[true,true,true,true,true,true,true,true,true,true,true,true,true]"
        );
            assert_eq!(beam.eval("is_list(proplists:get_value(version, Info))"), "true");
            // Processes: observer_pro_wx.
            assert_eq!(beam.eval("C(code, ensure_loaded, [observer_backend])"), "{module,observer_backend}");
            assert_eq!(beam.eval("C(erlang, function_exported, [observer_backend, procs_info, 1])"), "true");
            beam.eval("Procs = spawn_link(R, observer_backend, procs_info, [self()])");
            assert_eq!(
            beam.eval("receive {procs_info, Procs, Rows} -> \
                [{etop_proc_info, W, Mem, 0, watched, 0, undefined, 0}] = [Row || Row <- Rows, element(5, Row) =:= watched], \
                {node(W), Mem > 0, lists:keymember(Procs, 2, Rows)} after 5000 -> nothing end"),
            "{'rust@127.0.0.1',true,false}"
        );
            // The window of one process: observer_procinfo.
            assert_eq!(
            beam.eval("Items = [binary, catchlevel, current_function, error_handler, garbage_collection, group_leader, heap_size, \
                initial_call, last_calls, links, memory, message_queue_len, monitored_by, monitors, priority, reductions, \
                registered_name, sequential_trace_token, stack_size, status, suspending, total_heap_size, trace, trap_exit], \
                Items =:= [I3 || {I3, _} <- C(erlang, process_info, [W, Items])]"),
            "true"
        );
            assert_eq!(beam.eval("C(proc_lib, translate_initial_call, [W])"), "{proc_lib,init_p,5}");
            // Load Charts: observer_perf_wx.
            beam.eval("Stats = spawn_link(R, observer_backend, fetch_stats, [self(), 100])");
            for _ in 0..2 {
                assert_eq!(
                beam.eval("receive {stats, 1, [{1, _, _} | _], {{input, _}, {output, _}}, [{total, _} | _]} -> ok after 5000 -> nothing end"),
                "ok"
            );
            }
            assert_eq!(beam.eval("unlink(Stats), exit(Stats, normal), ok"), "ok");
            eventually_true("it ends when it is told to", Duration::from_secs(5), || {
                beam.eval("C(erlang, is_process_alive, [Stats])") == "false"
            });
            // Its other tabs are empty.
            assert_eq!(
                beam.eval("[C(observer_backend, F, []) || F <- [get_port_list, get_socket_list]]"),
                "[[],[]]"
            );
            assert_eq!(beam.eval("C(observer_backend, get_table_list, [ets, []])"), "[]");
            Ok(())
        },
    );
}

/// Where etop is: in the release, or in the one of the matrix with the same number.
fn observer_ebin(release: &Release, beam: &Beam) -> Option<PathBuf> {
    let own = beam.eval_bytes("list_to_binary(filename:join(code:lib_dir(observer), ebin))");
    let cache = std::env::var_os("OTP_MATRIX_DIR").map(PathBuf::from).or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
        Some(cache.or(home)?.join("otp-matrix"))
    });
    let libraries = cache.map(|cache| cache.join(release.number.to_string()).join("otp/lib"));
    let in_matrix = libraries.and_then(|libraries| libraries.read_dir().ok()).into_iter().flatten();
    let in_matrix = in_matrix
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("observer-")))
        .map(|path| path.join("ebin"));
    std::iter::once(PathBuf::from(String::from_utf8(own).unwrap()))
        .chain(in_matrix)
        .find(|ebin| ebin.join("etop.beam").is_file())
}

#[test]
fn etop_shows_rust_processes() {
    case(Case::Smoke, TOPIC, "etop in text mode shows the processes of a Rust node", |release| {
        if release.number == 27 {
            return Err(Unsupported("its etop traces the node also with tracing off, and that needs a BEAM"));
        }
        let (_epmd, rust, beam) = nodes(release);
        let Some(ebin) = observer_ebin(release, &beam) else {
            return Err(Unsupported("etop is not installed (Debian: erlang-observer)"));
        };
        beam.eval(&format!("code:add_path(\"{}\")", ebin.display()));
        let busy = rust.node.mailbox("busy").unwrap();
        for _ in 0..3 {
            rust.run(rust.node.send_term("busy", &Term::from("waits"))).unwrap();
        }
        let start =
            SpawnOptions::default().initial_call(Atom::new_static("rusty"), Atom::new_static("loop"), 3);
        let _unnamed = rust.node.process_opt(&start).unwrap();
        beam.eval(
            "Etop = spawn(fun() -> etop:start([{node, R}, {output, text}, {tracing, off}, {interval, 1}, {lines, 100}, \
             {sort, msg_q}]) end)",
        );
        let row = |log: &str, name: &str| {
            let line = log.lines().rev().find(|line| line.split_whitespace().nth(1) == Some(name))?;
            Some(line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        };
        eventually_true("etop has printed twice", Duration::from_secs(15), || {
            beam.log().matches("Load:  cpu").count() >= 2
        });
        let log = beam.log();
        // Pid, name or initial function, time (not traced), reductions, memory, messages, current function.
        let shown = row(&log, "busy").unwrap_or_else(|| panic!("{log}"));
        assert_eq!((shown[2].as_str(), shown[3].as_str(), shown[5].as_str()), ("'-'", "0", "3"), "{log}");
        assert!(shown[4].parse::<u64>().unwrap() > 0, "{log}");
        assert_eq!(shown[6], "undefined", "{log}");
        assert!(row(&log, "rusty:loop/3").is_some(), "{log}");
        assert!(row(&log, "net_kernel").is_some(), "{log}");
        let procs = log.lines().rev().find_map(|line| line.trim().strip_prefix("procs")).unwrap();
        let procs: usize = procs.split_whitespace().next().unwrap().parse().unwrap();
        assert!(procs >= 5, "{log}");
        beam.eval("etop:stop()");
        drop(busy);
        Ok(())
    });
}

#[test]
fn elixir_asks() {
    case(Case::Smoke, TOPIC, "Node, Process and Application of Elixir by erpc", |release| {
        let epmd = Epmd::start(release);
        let rust = Rust::start(&epmd, "rust");
        let process = rust.node.mailbox("Elixir.Some.Server").unwrap();
        let beam = beam::Options::new(release, epmd.port, "beam").elixir().start();
        beam.elixir("r = :\"rust@127.0.0.1\"; call = fn m, f, a -> :erpc.call(r, m, f, a) end");
        assert_eq!(
            beam.elixir("pid = call.(Process, :whereis, [Some.Server]); node(pid)"),
            ":\"rust@127.0.0.1\""
        );
        assert_eq!(beam.elixir("call.(Process, :alive?, [pid])"), "true");
        assert_eq!(
            beam.elixir("call.(Process, :info, [pid, :registered_name])"),
            "{:registered_name, Some.Server}"
        );
        assert_eq!(beam.elixir("pid in call.(Process, :list, [])"), "true");
        assert_eq!(beam.elixir("call.(Node, :self, [])"), ":\"rust@127.0.0.1\"");
        assert_eq!(beam.elixir("call.(Node, :list, [:hidden])"), "[:\"beam@127.0.0.1\"]");
        assert_eq!(
            beam.elixir("for {a, _, _} <- call.(Application, :started_applications, []), do: a"),
            "[:foundation]"
        );
        drop(process);
        assert_eq!(beam.elixir("call.(Process, :alive?, [pid])"), "false");
        assert_eq!(beam.elixir("call.(Process, :info, [pid])"), "nil");
        assert_eq!(beam.elixir("call.(Process, :whereis, [Some.Server])"), "nil");
        Ok(())
    });
}

/// LiveDashboard itself is not part of a release: these are the calls of its 0.8.7, and what its pages take from the answers.
#[test]
fn live_dashboard_asks() {
    case(Case::Smoke, TOPIC, "the calls of LiveDashboard's Home and Processes pages, replayed", |release| {
        let epmd = Epmd::start(release);
        let rust = Rust::start(&epmd, "rust");
        let _process = rust.node.mailbox("Elixir.Some.Server").unwrap();
        let beam = beam::Options::new(release, epmd.port, "beam").elixir().start();
        beam.elixir(
            "r = :\"rust@127.0.0.1\"; m = Phoenix.LiveDashboard.SystemInfo; call = fn f, a -> :erpc.call(r, m, f, a) end",
        );
        // Opening a page of a node.
        assert_eq!(beam.elixir(":erpc.call(r, :code, :is_loaded, [m])"), "false");
        assert_eq!(
            beam.elixir(":erpc.call(r, :code, :load_binary, [m, ~c\"m.beam\", <<70, 79, 82, 49>>])"),
            "{:module, Phoenix.LiveDashboard.SystemInfo}"
        );
        assert_eq!(
            beam.elixir("c = call.(:capabilities_callback, [[application: :os_mon, process: Some.Name]]); \
                         {is_binary(c.system_info), c.dashboard_running?, c.applications, c.modules, c.processes}"),
            "{true, false, [], [], []}"
        );
        // Home.
        assert_eq!(
            beam.elixir("i = call.(:info_callback, [[\"HOME\"], :foundation]); \
                         {is_list(i.system_info.banner), i.system_info.elixir_version, is_list(i.system_info.app_version), i.environment}"),
            "{true, \"None\", true, [{\"HOME\", nil}]}"
        );
        assert_eq!(beam.elixir("i.system_usage.processes <= i.system_limits.processes"), "true");
        assert_eq!(beam.elixir("i.system_usage.ports <= i.system_limits.ports"), "true");
        assert_eq!(
            beam.elixir(
                "u = call.(:usage_callback, []); {a, b} = u.io; \
                         {a > 0, b > 0, is_integer(u.uptime), u.total_run_queue - u.cpu_run_queue, \
                          u.memory.total == u.memory.process + u.memory.other, u.ports}"
            ),
            "{true, true, true, 0, true, 1}"
        );
        // Processes, sorted, searched, and one of them.
        assert_eq!(
            beam.elixir("{rows, n, next} = call.(:processes_callback, [nil, :memory, :desc, 50, nil]); \
                         {length(rows) == n, n >= 5, is_map(next), Enum.map(rows, & &1[:memory]) == Enum.sort(Enum.map(rows, & &1[:memory]), :desc)}"),
            "{true, true, true, true}"
        );
        assert_eq!(
            beam.elixir("{[row], 1, _} = call.(:processes_callback, [\"some.server\", :reductions_diff, :asc, 50, next]); \
                         {Keyword.keys(row), row[:name_or_initial_call]}"),
            "{[:pid, :name_or_initial_call, :reductions_diff, :memory, :reductions, :message_queue_len, :current_function], \"Some.Server\"}"
        );
        assert_eq!(
            beam.elixir("{:ok, info} = call.(:process_info_callback, [row[:pid]]); \
                         {info[:registered_name], info[:group_leader].__struct__, info[:group_leader].name_or_initial_call, info[:ancestors]}"),
            "{Some.Server, Phoenix.LiveDashboard.SystemInfo.ProcessDetails, \":user\", []}"
        );
        assert_eq!(
            beam.elixir("{[app], 1} = call.(:applications_info_callback, [nil, :name, :asc, 50]); {app[:name], app[:state]}"),
            "{:foundation, :started}"
        );
        // The pages about what a Rust node does not have.
        assert_eq!(
            beam.elixir("for f <- [:ports_callback, :sockets_callback, :ets_callback], do: call.(f, [nil, :memory, :desc, 50])"),
            "[{[], 0}, {[], 0}, {[], 0}]"
        );
        Ok(())
    });
}
