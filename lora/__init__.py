"""LoRA adapters: reconciles the engine's adapters with a desired set (docs/adr/0010).

HTTP calls, Model YAML --> manager --> desired set (state file)
                              |
                        records --> workers: download (storage), preflight, load into the engine
                              ^
                        watcher: compares the engine's list with the desired set
"""
