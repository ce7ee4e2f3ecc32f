"""Models that others wrote, for those who post tasks on them: public definitions, and a pretrained one."""

from trainer.foreign.gguf import GgufFile
from trainer.foreign.models import KINDS, ForeignModel, build_foreign, language_model_logits, language_model_loss
from trainer.foreign.smollm2 import find_smollm2, smollm2_parameters, smollm2_sizes, smollm2_tokenizer

__all__ = [
    "KINDS",
    "ForeignModel",
    "GgufFile",
    "build_foreign",
    "find_smollm2",
    "language_model_logits",
    "language_model_loss",
    "smollm2_parameters",
    "smollm2_sizes",
    "smollm2_tokenizer",
]
