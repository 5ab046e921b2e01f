"""The engine's LoRA interface: its routes, the meaning of its answers, and its prefix cache."""
