"""How the pocket text encoder learns to read, before any picture: it must say what a caption states.

Knows token ids and the answers to a few questions about each caption. Refuses to know pictures. The end-of-text token
answers all questions at once, as in CLIP, so that a denoiser finds every fact in one place and need only learn what
each looks like: a colour word moves a hundredth of the pixels, and learning to read it from those alone takes long.

Shapes: token ids are (B, L), logits (B, answers).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import UMT5EncoderModel


class Reader(nn.Module):
    """The text encoder with one linear head a question; the heads are thrown away afterwards."""

    def __init__(self, text_encoder: UMT5EncoderModel, answers: dict[str, int]) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.heads = nn.ModuleDict({name: nn.Linear(text_encoder.config.d_model, n) for name, n in answers.items()})

    def forward(self, token_ids: Tensor) -> dict[str, Tensor]:
        mask = (token_ids != 0).long()
        states: Any = self.text_encoder(token_ids, attention_mask=mask).last_hidden_state
        end = states[torch.arange(len(states), device=states.device), mask.sum(dim=1) - 1]
        return {name: head(end) for name, head in self.heads.items()}


def objective_of(
    reader: Reader, token_ids: Tensor, labels: dict[str, Tensor], *, batch: int = 128
) -> Callable[[int, torch.Generator], Tensor]:
    """Mean cross-entropy over the questions, for `train_steps`; ids (N, V, L) hold V wordings of each caption."""
    device = next(reader.parameters()).device

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(token_ids), (batch,), generator=generator)
        wordings = torch.randint(token_ids.shape[1], (batch,), generator=generator)
        with torch.autocast(device.type, torch.bfloat16):
            said = reader(token_ids[rows, wordings].to(device))
        each = [F.cross_entropy(said[name].float(), answer[rows].to(device)) for name, answer in labels.items()]
        return torch.stack(each).mean()

    return loss_of


@torch.no_grad()
def accuracy(reader: Reader, token_ids: Tensor, labels: dict[str, Tensor]) -> dict[str, float]:
    """Share of captions (N, L) answered rightly, for each question."""
    said = reader(token_ids.to(next(reader.parameters()).device))
    return {name: float((said[name].argmax(dim=-1).cpu() == labels[name]).float().mean()) for name in labels}
