"""Make tests/files/model-format-1, a model of format 1 that every later version must read; run on 0.1.0.dev0."""

import json
from pathlib import Path

import torch

import probcl as pcl

FOLDER = Path(__file__).with_name("model-format-1")


def main() -> None:
    torch.manual_seed(0)
    u, v = torch.randn(40, 3), torch.arange(40) % 4
    u[:, 0] += v
    model = pcl.BimodalModel(
        pcl.encoders.MLP(3, 3, hidden=[4]),
        pcl.encoders.Label(4, 3),
        alignment=pcl.WithPotentials(pcl.InnerProduct(), 1),
    )
    pcl.fit(model, (u, v), epochs=3, batch_size=20, lr=1e-2, seed=0, progress=False)
    model.save(FOLDER)
    expected = {"u": u[:4].tolist(), "v": v[:4].tolist(), "log_ratio": model.log_ratio(u[:4], v[:4]).tolist()}
    (FOLDER / "expected.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    main()
