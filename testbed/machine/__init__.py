"""The machine that a run is on: namespaces, processes, tools, folders."""
