Logger.configure(level: :error)

# Nodes of their own need OTP 25's :peer and an epmd.
clusters? = Code.ensure_loaded?(:peer) and System.find_executable("epmd") != nil

ExUnit.start(
  exclude: [:stress, :benchmark] ++ if(clusters?, do: [], else: [:cluster]),
  capture_log: true,
  # The machine may be busy; nothing waits this long when all is well.
  assert_receive_timeout: 3000
)
