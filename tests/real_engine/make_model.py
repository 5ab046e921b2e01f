"""Make a tiny Llama with random weights, its tokenizer and LoRA adapters for the real engine of the tests.

Run by install.sh with that engine's own Python::

    make_model.py FOLDER

    FOLDER/model                       a Llama of two layers, vocabulary of 1,024
    FOLDER/lora-a, lora-b, lora-c      adapters of rank 8
    FOLDER/lora-rank64                 above the engine's --max-lora-rank
    FOLDER/lora-empty                  an empty folder
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SYLLABLES = "ka ro mi tel sun dra pov lin bex qua zor nim fel gat hus wex".split()
COMMON = "the of and to in is it that for you was on with as are this have from one had by word but not what".split()
SPECIAL = ["<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>"]
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WIDTH, LAYERS, VOCABULARY = 64, 2, 1024


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Train a byte-level BPE of 1,000 tokens on sentences of invented words."""
    words = ["".join(random.choices(SYLLABLES, k=random.randint(1, 4))) for _ in range(1500)] + COMMON
    sentences = (" ".join(random.choices(words, k=random.randint(5, 20))) + "." for _ in range(3000))
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1000, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(sentences, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>", model_max_length=512
    )
    fast.chat_template = TEMPLATE
    return fast


def make_model(folder: Path) -> None:
    """Write model and tokenizer."""
    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=WIDTH // 2,
        max_position_embeddings=1024,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        tie_word_embeddings=False,
        initializer_range=0.4,
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    with torch.no_grad():  # no token beyond the tokenizer's own is ever sampled
        model.lm_head.weight[len(tokenizer) :] = 0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_adapter(folder: Path, base: Path, *, seed: int, rank: int = 8) -> None:
    """Write an adapter in PEFT's form."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(LAYERS):
        for module in ("q_proj", "v_proj"):
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{name}.lora_A.weight"] = torch.randn(rank, WIDTH, generator=generator) * 0.3
            tensors[f"{name}.lora_B.weight"] = torch.randn(WIDTH, rank, generator=generator) * 0.3
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": rank,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1))


def main(home: Path) -> None:
    """Make everything, the same at each run."""
    random.seed(7)
    torch.manual_seed(7)
    make_model(home / "model")
    for seed, name in enumerate(("lora-a", "lora-b", "lora-c"), start=1):
        make_adapter(home / name, home / "model", seed=seed)
    make_adapter(home / "lora-rank64", home / "model", seed=4, rank=64)
    (home / "lora-empty").mkdir(exist_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
