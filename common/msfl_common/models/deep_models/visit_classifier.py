"""What all deep models share: one volume a visit, the clinical values beside it, and a recurrent network over visits.

Legend: B batch, V visits, M visits that took place, C contrast, E clinical values and features, F features of a
volume, K classes, D slices upwards, H pixels to the front, W pixels to the right (RAS, read backwards).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

FIELD_MM = 200.0  # edge of the square that a slice shows; fixed, so that a shrinking brain is seen to shrink
HEIGHT_MM = 150.0  # of a brain from its lowest slice to its highest, usually


class VisitClassifier(nn.Module):
    """A volume encoder, and an Elman network over the visits that took place (Barulina et al. 2026, figures 2 and 5).

    A visit's vector is the encoder's features, a flag for each contrast that was scanned, and the clinical values.
    The paper has no flags, as it has no missing contrasts: where none is missing they act as a bias. It leaves open
    how wide the recurrent network is and what it reads out: here one layer with tanh, and its last state.

    A visit that did not take place is left out of the sequence, and its volume never looked at: neither a
    normalisation's statistics nor the output depend on padding. A missing contrast is a volume of zeros, which the
    encoder sees. A visit without any image has features 0, and does not reach the encoder.
    """

    def __init__(
        self,
        encoder: nn.Module,
        num_features: int,
        num_contrasts: int,
        num_values: int,
        num_hidden: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.encoder = encoder
        self.recurrent = nn.RNN(num_features + num_contrasts + num_values, num_hidden)
        self.output = nn.Linear(num_hidden, num_classes)

    def forward(
        self, images_BVCDHW: torch.Tensor, clinical_BVE: torch.Tensor, present_BV: torch.Tensor
    ) -> torch.Tensor:
        """Score each sequence.

        Args:
            images_BVCDHW: intensities from 0 to 255; zeros for a contrast that was not scanned.
            clinical_BVE: scaled clinical values and features, finite.
            present_BV: whether the visit took place; at least one of each sequence did.

        Returns:
            logits_BK.
        """
        images_MCDHW = images_BVCDHW[present_BV]
        scanned_MC = (images_MCDHW != 0).flatten(2).any(dim=2)
        features_MF = self._encode(images_MCDHW, scanned_MC.any(dim=1))
        visits_MJ = torch.cat([features_MF, scanned_MC.float(), clinical_BVE[present_BV].float()], dim=1)
        sequences = torch.split(visits_MJ, present_BV.sum(dim=1).tolist())
        _, last_1BJ = self.recurrent(pack_sequence(list(sequences), enforce_sorted=False))
        logits_BK: torch.Tensor = self.output(last_1BJ[0])
        return logits_BK

    def _encode(self, images_MCDHW: torch.Tensor, imaged_M: torch.Tensor) -> torch.Tensor:
        """features_MF, in float32; 0 for visits without an image."""
        features_MF = torch.zeros(len(images_MCDHW), self.num_features, device=images_MCDHW.device)
        if imaged_M.any():
            features_MF[imaged_M] = self.encoder(images_MCDHW[imaged_M]).float()
        return features_MF
