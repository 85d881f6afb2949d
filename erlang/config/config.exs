# Read only when this project itself is built; an application that depends on it has its own.
import Config

if config_env() == :test do
  config :foundation,
    test_mode: true,
    app_namespaces: [:sample],
    sample: [limit: 10, nested: [a: 1]]
end
