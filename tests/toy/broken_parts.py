"""Networks, temperature laws and metrics with one fault each, which the conformance kit must find."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from walkback.metrics import Metric, Moment
from walkback.networks import Network, Ports, Told
from walkback.schedules import Level
from walkback.temperature import TemperatureLaw


@final
class BrokenNetwork(Network):
    """Two layers that are told temperature and label with the state."""

    def __init__(self, *, fault: str = "") -> None:
        self.fault = fault

    def build(self, ports: Ports) -> nn.Module:
        if self.fault == "no module":
            return lambda state, told: (state,)  # type: ignore[return-value]
        return BrokenLayers(ports, self.fault)


@final
class BrokenLayers(nn.Module):
    def __init__(self, ports: Ports, fault: str) -> None:
        super().__init__()
        self.fault = fault
        size = math.prod(ports.shape)
        self.classes = ports.classes
        self.inner = nn.Linear(size + 1 + ports.classes, 16)
        self.heads = nn.ModuleList(nn.Linear(16, size) for _ in range(ports.heads))
        self.shift = torch.randn(size) if fault == "not kept" else torch.zeros(size)
        if fault == "own seed":
            with torch.no_grad():
                noise = torch.Generator()
                noise.seed()
                self.inner.weight.normal_(generator=noise)

    def forward(self, state: Tensor, told: Told) -> tuple[Tensor, ...]:
        if self.fault == "in place":
            state.mul_(1.5)
        rows = state.flatten(1) + self.shift
        if self.fault == "sees others":
            rows = rows - rows.mean(0)
        level = told.log2_temperature
        if self.fault == "one temperature":
            level = level.mean()[None]
        features = [rows, level.expand(len(rows))[:, None]]
        if self.classes:
            features.append(self._labels(told.label, len(rows)))
        hidden = self._faulty(torch.tanh(self.inner(torch.cat(features, 1))))
        outputs = [head(hidden).reshape(state.shape) for head in self.heads]
        if self.fault == "flat":
            outputs = [output.flatten(1)[:, :1] for output in outputs]
        if self.fault == "double":
            outputs = [output.double() for output in outputs]
        if self.fault == "one head":
            outputs = outputs[:1]
        return outputs[0] if self.fault == "no tuple" else tuple(outputs)  # type: ignore[return-value]

    def _faulty(self, hidden: Tensor) -> Tensor:
        if self.fault == "draws":
            return hidden + torch.randn_like(hidden)
        if self.fault == "root":
            return (hidden * 0).sqrt() + hidden
        return hidden.detach() if self.fault == "detached" else hidden

    def _labels(self, label: Tensor | None, rows: int) -> Tensor:
        if label is None or self.fault == "deaf":
            return torch.zeros(rows, self.classes)
        known = label % self.classes if self.fault == "last class" else label
        return (known[:, None] == torch.arange(self.classes)).float()


@final
class BrokenLaw(TemperatureLaw):
    """v_T = T v_1."""

    def __init__(self, *, fault: str = "") -> None:
        self.fault = fault

    def variance(self, variance_at_1: Tensor, level: Level) -> Tensor:
        temperature = level.temperature_like(variance_at_1)
        if self.fault == "in place":
            return variance_at_1.mul_(temperature.mean())
        if self.fault == "doubled":
            temperature = 2 * temperature
        if self.fault == "colder":
            temperature = 1 / temperature
        if self.fault == "first row":
            temperature = temperature[:1]
        if self.fault == "detached":
            return (variance_at_1 * temperature).detach()
        if self.fault == "double":
            return (variance_at_1 * temperature).double()
        return variance_at_1 * temperature

    def max_temperature(self, largest: float, at_1: float) -> float:
        if self.fault == "a tensor":
            return torch.tensor(largest / at_1)  # type: ignore[return-value]
        return (largest / at_1) ** (0.5 if self.fault == "root" else 1.0)


@final
class BrokenMetric(Metric):
    """The norm of the weights, and the loss per walk."""

    def __init__(self, *, fault: str = "") -> None:
        self.fault = fault

    def measure(self, moment: Moment) -> Mapping[str, float]:
        operator = moment.model.operator
        weights = torch.cat([weight.flatten() for weight in operator.parameters()])
        if self.fault == "evaluation":
            operator.eval()
        if self.fault == "backward":
            weights.square().sum().backward()
        if self.fault == "moves":
            with torch.no_grad():
                next(operator.parameters()).add_(1)
        if self.fault == "draws":
            torch.rand(1)
        norm = weights.detach().norm()
        if self.fault == "a tensor":
            return {"norm": norm}  # type: ignore[dict-item]
        if self.fault == "a list":
            return [norm.item()]  # type: ignore[return-value]
        rounded = round(moment.loss) if self.fault == "finite only" else 0
        name = "loss" if self.fault == "taken name" else "norm"
        return {name: norm.item() + rounded}
