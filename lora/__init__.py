"""LoRA adapters: the wanted set, kept true. No code yet; see docs/adr/0001."""
