defmodule Foundation.HostLibraries do
  @moduledoc false
  # Code paths of libraries that a host application may bring, compiled for this release, under FOUNDATION_HOST_LIBRARIES:
  # one directory a library, with ebin in it. Without the variable the tests that need them are not run.

  @doc "The paths of all of the libraries, or none if one is missing."
  def paths(libraries) do
    root = System.get_env("FOUNDATION_HOST_LIBRARIES", "")
    paths = Enum.map(libraries, &Path.join([root, to_string(&1), "ebin"]))
    if root != "" and Enum.all?(paths, &File.dir?/1), do: paths, else: []
  end
end
