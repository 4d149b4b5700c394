import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from training.fit.step.contrast import contrastive_step
from training.fit.step.loss import PairIds, softmax_loss

PAIRS = 12


class TwoTowers(nn.Module):
    """Two linear towers with dropout, over fixed inputs."""

    def __init__(self, *, dropout: float) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.image, self.text = nn.Linear(10, 6), nn.Linear(10, 6)
        self.drop = nn.Dropout(dropout)
        self.log_scale = nn.Parameter(torch.tensor(2.0))
        self.inputs = torch.randn(2, PAIRS, 10)

    def step(self, *, micro_batch: int, rows: slice = slice(0, PAIRS)) -> float:
        image_inputs, text_inputs = self.inputs[0, rows], self.inputs[1, rows]
        # Pairs 0 and 1 show one image; 2 and 3 bear one caption.
        images = torch.tensor([0, 0, *range(2, PAIRS)])[rows]
        captions = torch.tensor([0, 1, 2, 2, *range(4, PAIRS)])[rows]

        def towers(part: slice) -> tuple[torch.Tensor, torch.Tensor]:
            return (
                F.normalize(self.image(self.drop(image_inputs[part])), dim=1),
                F.normalize(self.text(self.drop(text_inputs[part])), dim=1),
            )

        return contrastive_step(
            towers,
            PairIds(images, captions),
            loss_of=lambda batch: softmax_loss(batch, self.log_scale.exp()),
            micro_batch=micro_batch,
            seed=3,
        )

    def gradients(self) -> torch.Tensor:
        return torch.cat([parameter.grad.reshape(-1) for parameter in self.parameters()])


@pytest.mark.parametrize("micro_batch", [1, 5, 6])
def test_micro_batches_give_the_loss_and_gradients_of_the_whole_batch(micro_batch: int) -> None:
    whole, parts = TwoTowers(dropout=0.0), TwoTowers(dropout=0.0)
    assert parts.step(micro_batch=micro_batch) == pytest.approx(whole.step(micro_batch=PAIRS), rel=1e-6)
    torch.testing.assert_close(parts.gradients(), whole.gradients(), rtol=1e-4, atol=1e-6)


def test_dropout_draws_the_same_masks_when_micro_batches_run_again() -> None:
    """With other masks, the gradient of a fixed step would not be the finite difference of its loss."""
    towers = TwoTowers(dropout=0.5)
    towers.step(micro_batch=4)
    slope = towers.image.weight.grad[0, 0].item()
    losses = []
    for shift in (-1e-2, 1e-2):
        moved = TwoTowers(dropout=0.5)
        with torch.no_grad():
            moved.image.weight[0, 0] += shift
        losses.append(moved.step(micro_batch=4))
    assert slope == pytest.approx((losses[1] - losses[0]) / 2e-2, rel=0.02, abs=1e-4)


def test_two_processes_give_the_loss_and_gradients_of_one(tmp_path: Path) -> None:
    alone = TwoTowers(dropout=0.0)
    loss = alone.step(micro_batch=PAIRS)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        __file__, str(tmp_path),
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=300, capture_output=True, cwd=Path(__file__).parents[2])
    for micro_batch in (PAIRS, 3):
        for rank in (0, 1):
            result = torch.load(tmp_path / f"{rank}-{micro_batch}.pt", weights_only=True)
            assert result["loss"] == pytest.approx(loss, rel=1e-6)
            torch.testing.assert_close(result["gradients"], alone.gradients(), rtol=1e-4, atol=1e-6)


def _as_one_of_two(folder: Path) -> None:
    from training.fit.processes import join_processes, leave_processes
    from training.fit.step.contrast import average_gradients

    processes = join_processes(torch.device("cpu"))
    for micro_batch in (PAIRS, 3):
        towers = TwoTowers(dropout=0.0)
        loss = towers.step(micro_batch=micro_batch, rows=processes.share(PAIRS))
        average_gradients(towers.parameters())
        torch.save(
            {"loss": loss, "gradients": towers.gradients()}, folder / f"{processes.rank}-{micro_batch}.pt"
        )
    leave_processes()


if __name__ == "__main__":
    _as_one_of_two(Path(sys.argv[1]))
