"""The pocket tokenizer: byte-pair pieces learnt from captions, with bytes for whatever captions never said.

Knows strings. Refuses to know models and scenes. Not a `T5Tokenizer`: transformers 5 rebuilds that one from its
vocabulary and loses the lower-casing; `PreTrainedTokenizerFast` keeps the file as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from studio.pocket.architecture import MAX_SEQUENCE_LENGTH

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>")
"""Ids 0, 1, 2, as in UMT5."""


def train_tokenizer(captions: Iterable[str], *, vocabulary: int) -> PreTrainedTokenizerFast:
    """Lower-cased, split at spaces and punctuation, ended by `</s>`; a word that captions repeat is one token."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always"), pre_tokenizers.Punctuation()]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[*SPECIAL_TOKENS, *byte_tokens],
        min_frequency=2,
        initial_alphabet=list("abcdefghijklmnopqrstuvwxyz0123456789-,.▁"),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=MAX_SEQUENCE_LENGTH,
        padding_side="right",
    )
