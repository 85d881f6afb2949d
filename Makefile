# What this project's machines run. CI calls `.ci/run`, which calls these and nothing else.
#
#   make demo     an Elixir node and a Rust node in one cluster, step by step
#   make test     everything: unit, property, golden bytes, fuzz smoke, real BEAM nodes
#   make matrix   every interop case on OTP 23, 25, 27 and 29; writes docs/compatibility.md
#   make ecosystem   the ecosystem's own libraries beside our node (sources from $FOUNDATION_ECOSYSTEM)
#   make bench    a node beside BEAM nodes and nodes of other libraries, every line of docs/performance.md; writes benches/results/
#   make bench-codec   the term codec beside OTP's and the field's, times and instructions (valgrind)
#   make soak     random schedules, the message law, faults, connections, partitions and the simulations, at length; leaves dated tables in interop-tests/results/
#   make fuzz     the protocol core under libFuzzer, at length (script/fuzz)
#   make mutants  small changes of the cores, and which of them no test notices (cargo-mutants); FILES and SHARD choose a part
#   make verify   formatting, lints, documentation, layout: read-only
#   make fix      what of that a tool can mend
#
# Needed: Rust (rustup), a C linker (Debian: gcc libc6-dev), make. Erlang and Elixir are installed if missing (script/erlang).

.PHONY: help demo test matrix bench bench-codec soak fuzz mutants verify fix

ERLANG := script/erlang

help:
	@sed -n 's/^# *\(make [a-z-]* .*\)/\1/p' Makefile

demo:
	$(ERLANG) cargo run --quiet -p foundation-interop-tests --bin demo

test:
	script/otp-matrix.sh
	$(ERLANG) cargo test --workspace --exclude 'foundation-bench-*'
	$(ERLANG) script/conformance
	$(ERLANG) sh -c 'cd erlang && mix test'

matrix:
	script/otp-matrix.sh
	rm -rf target/interop/results
	FOUNDATION_INTEROP=all $(ERLANG) cargo test -p foundation-interop-tests -- --nocapture; status=$$?; \
	$(ERLANG) cargo run --quiet -p foundation-interop-tests --bin compatibility && exit $$status

ecosystem:
	script/otp-matrix.sh
	$(ERLANG) cargo test -p foundation-interop-tests --test it ecosystem -- --nocapture
	$(ERLANG) sh -c 'libraries=$(CURDIR)/target/ecosystem/otp$$(elixir -e "IO.write(System.otp_release())") && cd erlang && \
	    elixir script/host_libraries.exs "$${FOUNDATION_ECOSYSTEM:-none}" "$$libraries" && \
	    FOUNDATION_HOST_LIBRARIES=$$libraries mix test --only host_libraries:true'

bench:
	script/jinterface
	$(ERLANG) cargo run --profile dist --quiet -p foundation-bench-macro -- \
	    --save benches/results/$$(date -u +%Y-%m-%d-%H%M).txt $(BENCH)

bench-codec:
	$(ERLANG) cargo run --profile dist --quiet -p foundation-bench-micro
	cargo run --profile dist --quiet -p foundation-bench-micro -- --count

SOAK_OPERATIONS ?= 100000
SOAK_MESSAGES ?= 100000000
SOAK_KILLS ?= 1000
SOAK_LOCAL ?= 100000000
SOAK_CYCLES ?= 10000
SOAK_PARTITIONS ?= 1000
SOAK_FAULTS ?= 10
SOAK_DISCONNECTS ?= 300
SOAK_SEEDS ?= 5000
SOAK_HORDE ?= 5

soak:
	script/otp-matrix.sh
	FOUNDATION_INTEROP=$${FOUNDATION_INTEROP:-all} FOUNDATION_SOAK_OPERATIONS=$(SOAK_OPERATIONS) \
	FOUNDATION_SOAK_MESSAGES=$(SOAK_MESSAGES) FOUNDATION_SOAK_KILLS=$(SOAK_KILLS) \
	$(ERLANG) cargo test -p foundation-interop-tests --test it -- \
	    law::the_message_law schedule::random_schedules --nocapture --test-threads 1
	FOUNDATION_INTEROP=$${FOUNDATION_INTEROP:-all} FOUNDATION_SOAK_FAULTS=$(SOAK_FAULTS) \
	FOUNDATION_SOAK_DISCONNECTS=$(SOAK_DISCONNECTS) \
	$(ERLANG) cargo test -p foundation-interop-tests --test it -- faults:: --nocapture
	@# Needs the sources that FOUNDATION_ECOSYSTEM names; says so if they are absent.
	FOUNDATION_INTEROP=$${FOUNDATION_INTEROP:-all} FOUNDATION_SOAK_SEEDS=$(SOAK_HORDE) \
	$(ERLANG) cargo test -p foundation-interop-tests --test it -- horde_under_faults --nocapture
	FOUNDATION_SOAK_LOCAL=$(SOAK_LOCAL) FOUNDATION_SOAK_CYCLES=$(SOAK_CYCLES) FOUNDATION_SOAK_PARTITIONS=$(SOAK_PARTITIONS) \
	$(ERLANG) cargo test -p foundation-interop-tests --test it faults::soak -- --ignored --nocapture
	FOUNDATION_SIM_SEEDS=$(SOAK_SEEDS) cargo test -p foundation-cluster --lib -- \
	    names_converge children_run_where meshes_converge a_name_never_has_two_holders maps_converge members_of_ours names_of_members --nocapture
	@# A thousand nodes that share names, and a map: three gigabytes.
	cargo test --release -p foundation-cluster --lib -- two_halves_of_a_thousand_meet a_thousand_members_converge --ignored --nocapture --test-threads 1

fuzz:
	script/fuzz

mutants:
	script/mutants $(FILES)

verify:
	cargo fmt --all --check
	$(ERLANG) sh -c 'cd erlang && mix format --check-formatted && mix compile --force --warnings-as-errors'
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	@# Module tables name private modules, for whoever reads the source.
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --workspace --no-deps --quiet
	script/layout
	@if cargo deny --version >/dev/null 2>&1; then cargo deny --log-level error check licenses bans sources; \
	else echo "cargo-deny is not installed: licences, bans and sources not checked"; fi

fix:
	cargo fmt --all
	$(ERLANG) sh -c 'cd erlang && mix format'
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged --quiet
