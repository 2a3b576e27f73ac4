"""What `compat/bench` is made of: servers, loads, experiments, and how results are shown."""
