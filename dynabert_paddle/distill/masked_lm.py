"""DistilBERT's losses for a model that predicts masked words (Sanh et al., 2019, section 3).

Shapes: b batch, s sequence, v vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from dynabert_paddle.data.word_features import IGNORED
from dynabert_paddle.distill.losses import cosine_loss, pick_rows
from dynabert_paddle.supernet.supernet import SupernetOutput


@dataclass(frozen=True)
class MaskedLMLoss:
    """lambda_logit * soft targets + lambda_mlm * masked words + lambda_cosine * last hidden states.

    Args:
        lambda_logit: weight of the KL divergence from the teacher's distribution over the vocabulary, at every token;
            alpha_ce in the authors' code.
        lambda_mlm: weight of the cross-entropy of the masked words, alpha_mlm.
        lambda_cosine: weight of `cosine_loss`, alpha_cos.
        temperature: divides both sides' logits; the KL divergence is multiplied by its square.
    """

    lambda_logit: float
    lambda_mlm: float
    lambda_cosine: float
    temperature: float

    def __call__(
        self, student: SupernetOutput, teacher: SupernetOutput, labels: Tensor, rows: Tensor | None
    ) -> dict[str, Tensor]:
        """Compare a sub-network with the teacher and with the words that are masked.

        Args:
            student: its output, logits `[b, s, v]`.
            teacher: the teacher's, for the same masked texts.
            labels: `[b, s]`, the masked words, `IGNORED` elsewhere.
            rows: the tokens that count, from `token_rows`.

        Returns:
            `logit` and `cosine`, means over tokens, and `mlm`, the mean over masked words.
        """
        return {
            "logit": self.lambda_logit * soft_target_loss(student.logits, teacher.logits, rows, self.temperature),
            "mlm": self.lambda_mlm * masked_word_loss(student.logits, labels),
            "cosine": self.lambda_cosine * cosine_loss(student.hidden_states[-1], teacher.hidden_states[-1], rows=rows),
        }


def soft_target_loss(student: Tensor, teacher: Tensor, rows: Tensor | None, temperature: float) -> Tensor:
    """T^2 * KL(softmax(z_t / T) || softmax(z_s / T)), the mean over the tokens of `rows`; logits `[b, s, v]`."""
    ours, theirs = (pick_rows(logits, rows) / temperature for logits in (student, teacher))
    # Not F.log_softmax: on a CPU it takes hundreds of times as long over the pieces of a vocabulary.
    targets = F.softmax(theirs, axis=-1)
    cross_entropy = F.cross_entropy(ours, targets, soft_label=True, reduction="none").reshape([-1])
    entropy = (paddle.logsumexp(theirs, axis=-1) - (targets * theirs).sum(axis=-1)).reshape([-1])
    return (cross_entropy - entropy).mean() * temperature**2


def masked_word_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy of the masked words; 0 without any.

    Args:
        logits: `[b, s, v]`.
        labels: `[b, s]`, `IGNORED` where no word is masked.

    Returns:
        The mean.
    """
    flat = labels.reshape([-1])
    masked = paddle.nonzero(flat != IGNORED).reshape([-1])
    if not masked.shape[0]:
        return logits.sum() * 0.0
    return F.cross_entropy(pick_rows(logits, masked), paddle.gather(flat, masked))
