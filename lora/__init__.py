"""LoRA adapters: the wanted set, loaded into the engine and kept loaded.

calls, Model YAML --> manager --> desired (state file)
                         |
                   reconciler: downloads (storage), preflight, engine
"""
