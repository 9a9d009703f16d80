"""Windows in, symbolised windows out. Resolves each location once per build; never touches BPF."""
