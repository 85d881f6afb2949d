ExUnit.start(exclude: [:stress, :benchmark], capture_log: true)
