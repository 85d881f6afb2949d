//! `GenServer` between Elixir and Rust, both ways.

use std::time::Duration;

use foundation_interop_tests::{Case, Epmd, beam, case};
use foundation_node::Error;
use foundation_node::gen_server::{CallFrom, CallOutcome, GenServer, Next};
use foundation_node::process::{Process, Reason};
use foundation_proto::etf::Term;

use crate::rust::{Rust, WAIT, shown, term};

const TOPIC: &str = "GenServer";

/// `{:add, n}` and `:get` by call, `{:add, n}` by cast, `:never` is not answered, `:crash` ends it.
#[derive(Debug, Default)]
struct Counter {
    count: i64,
}

impl GenServer for Counter {
    type Call = Term;
    type Reply = Term;
    type Cast = Term;

    async fn handle_call(
        &mut self,
        request: Term,
        _from: CallFrom,
        _process: &mut Process,
    ) -> CallOutcome<Term> {
        match shown(&request).as_str() {
            "get" => CallOutcome::Reply(self.count.into()),
            "never" => CallOutcome::NoReply,
            "crash" => CallOutcome::Stop(Reason::from(term("{crashed, here}"))),
            _ => match request.as_tuple() {
                Some([add, n]) if add.is_atom("add") => {
                    self.count += n.as_i64().unwrap_or(0);
                    CallOutcome::Reply(Term::from((Term::atom("ok"), self.count)))
                }
                _ => CallOutcome::Reply(request),
            },
        }
    }

    async fn handle_cast(&mut self, message: Term, _process: &mut Process) -> Next {
        if let Some([_, n]) = message.as_tuple() {
            self.count += n.as_i64().unwrap_or(0);
        }
        Next::Continue
    }

    fn state(&self) -> Term {
        Term::from((Term::atom("counter"), self.count))
    }
}

#[test]
fn elixir_calls_rust() {
    case(Case::Smoke, TOPIC, "Elixir calls, casts to and stops a Rust GenServer", |release| {
        let epmd = Epmd::start(release);
        let rust = Rust::start(&epmd, "rust");
        rust.run(async { rust.node.start_server(Some("counter"), Counter::default()) }).unwrap();
        let node = beam::Options::new(release, epmd.port, "ex").elixir().start();
        node.elixir("c = {:counter, :\"rust@127.0.0.1\"}");
        assert_eq!(node.elixir("GenServer.call(c, {:add, 2})"), "{:ok, 2}");
        assert_eq!(node.elixir("GenServer.cast(c, {:add, 40})"), ":ok");
        assert_eq!(node.elixir("GenServer.call(c, :get)"), "42");
        assert_eq!(
            node.elixir("GenServer.call(c, %{\"key\" => [1.5, nil, 'x', self()]}) == %{\"key\" => [1.5, nil, 'x', self()]}"),
            "true"
        );
        assert_eq!(node.elixir(":sys.get_state(c)"), "{:counter, 42}");

        let late = node.try_elixir("GenServer.call(c, :never, 100)").unwrap_err();
        assert!(late.contains("exit:{timeout,"), "{late}");
        let absent = node.try_elixir("GenServer.call({:absent, :\"rust@127.0.0.1\"}, :get)").unwrap_err();
        assert!(absent.contains("exit:{noproc,"), "{absent}");
        let crash = node.try_elixir("GenServer.call(c, :crash)").unwrap_err();
        assert!(crash.contains("{crashed,here}"), "{crash}");

        rust.run(async { rust.node.start_server(Some("again"), Counter::default()) }).unwrap();
        assert_eq!(node.elixir("GenServer.stop({:again, :\"rust@127.0.0.1\"})"), ":ok");
        assert_eq!(rust.node.whereis("again"), None);
        Ok(())
    });
}

const BASKET: &str = "defmodule Basket do
  use GenServer
  def init(items), do: {:ok, items}
  def handle_call(:items, _from, items), do: {:reply, items, items}
  def handle_call({:put, item}, _from, items), do: {:reply, :ok, [item | items]}
  def handle_call(:never, _from, items), do: {:noreply, items}
  def handle_call(:crash, _from, _items), do: exit({:crashed, :there})
  def handle_cast({:put, item}, items), do: {:noreply, [item | items]}
end
{:ok, _} = GenServer.start(Basket, [], name: :basket)
Process.register(spawn(fn -> Process.sleep(:infinity) end), :no_server)
:ok";

#[test]
fn rust_calls_elixir() {
    case(Case::Smoke, TOPIC, "Rust calls, casts to and stops an Elixir GenServer", |release| {
        let epmd = Epmd::start(release);
        let rust = Rust::start(&epmd, "rust");
        // Elixir's compiler and logger are needed to define a module and to report its crash.
        let node = beam::Options::new(release, epmd.port, "ex").elixir().start();
        assert_eq!(node.elixir(BASKET), ":ok");
        let basket = ("basket", "ex@127.0.0.1");
        let call = |request: &str| rust.run(rust.node.call(basket, term(request), WAIT));
        assert_eq!(shown(&call("{put, <<\"apple\">>}").unwrap()), "ok");
        rust.run(rust.node.cast(basket, term("{put, {pear, 2}}"))).unwrap();
        assert_eq!(shown(&call("items").unwrap()), "[{pear,2},<<\"apple\">>]");

        let late = rust.run(rust.node.call(basket, term("never"), Duration::from_millis(100)));
        assert!(matches!(late, Err(Error::Timeout)), "{late:?}");
        let absent = rust.run(rust.node.call(("absent", "ex@127.0.0.1"), term("x"), WAIT));
        assert!(matches!(absent, Err(Error::NoProc)), "{absent:?}");
        let nowhere = rust.run(rust.node.call(("absent", "nowhere@127.0.0.1"), term("x"), WAIT));
        assert!(matches!(nowhere, Err(Error::NoConnection { .. })), "{nowhere:?}");
        match call("crash") {
            Err(Error::Exit(reason)) => assert!(reason.to_string().contains("crashed"), "{reason}"),
            other => panic!("{other:?}"),
        }

        assert_eq!(node.elixir("{:ok, _} = GenServer.start(Basket, [:a], name: :other); :ok"), ":ok");
        rust.run(rust.node.stop_server(("other", "ex@127.0.0.1"), Reason::NORMAL, WAIT)).unwrap();
        assert_eq!(node.elixir("Process.whereis(:other)"), "nil");
        Ok(())
    });
}
