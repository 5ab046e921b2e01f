"""The engine's side of LoRA: its routes, what its answers mean, and its prefix cache."""
