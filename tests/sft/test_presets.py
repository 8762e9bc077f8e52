"""The presets: they compose, hold what they say, and fit the models they are made for."""

import pytest
import torch

from etchr.config import compose, experiments
from etchr.editor.shapes import random_transformer
from etchr.sft.settings import SftConfig
from etchr.training.optim import lr_factor
from etchr.training.settings import OptimConfig
from etchr.training.state import attach


@pytest.mark.parametrize(
    ("preset", "size", "billions", "num_linears", "dtype"),
    [
        ("sft_9b", "9b", (9.08, 2.089), 144, torch.float32),
        ("sft_released_9b", "9b", (9.08, 2.089), 144, torch.bfloat16),
        ("sft_4b", "4b", (3.876, 1.156), 100, torch.float32),
    ],
)
def test_a_preset_puts_its_adapter_on_the_true_shape(preset, size, billions, num_linears, dtype):
    config = compose(SftConfig, "sft", [f"experiment={preset}"])
    transformer = random_transformer(size, "meta", torch.bfloat16)
    base = sum(weight.numel() for weight in transformer.parameters())
    parameters = attach(transformer, config.model, config.adapter, config.seed)
    assert base / 1e9 == pytest.approx(billions[0], abs=0.005)
    assert sum(weight.numel() for weight in parameters) / 1e9 == pytest.approx(billions[1], abs=0.0005)
    assert len(parameters) == 2 * num_linears
    assert {weight.dtype for weight in parameters} == {dtype}
    assert {weight.dtype for weight in transformer.parameters() if not weight.requires_grad} == {torch.bfloat16}


def test_every_preset_composes():
    names = {"sft_released_9b", "sft_9b", "sft_4b", "nano_sft", "nano_sft_released"}
    names |= {"sft_no_meta_prompt"}
    assert names <= set(experiments("sft"))
    configs = {name: compose(SftConfig, "sft", [f"experiment={name}"]) for name in experiments("sft")}
    assert len({config.out for config in configs.values()}) == len(configs)


def test_the_released_preset_holds_the_released_values():
    config = compose(SftConfig, "sft", ["experiment=sft_released_9b"])
    assert (config.epochs, config.steps, config.global_batch_size, config.batch_size) == (1, None, 8, 1)
    assert (config.adapter.rank, config.adapter.alpha, config.adapter.dropout) == (768, 768, 0)
    assert config.adapter.dtype == config.model.dtype == "bfloat16"
    assert (config.model.gradient_checkpointing, config.model.max_pixels) == (1, 1048576)
    optim = config.optim
    assert (optim.name, optim.lr, optim.betas, optim.eps, optim.weight_decay) == (
        "adamw",
        1e-4,
        [0.9, 0.999],
        1e-8,
        0.01,
    )
    assert (optim.schedule, optim.clip, optim.ema, optim.warmup_steps) == ("released", None, None, 0)
    assert (config.flow.draw, config.flow.stratified, config.flow.released_rounding) == ("released", False, True)
    assert (config.data.geometry, config.data.prompt_dropout, config.data.cache) == ("released", 0, "none")
    assert config.data.last_batch == "wrap"


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_schedules_warm_up_and_end_where_they_say(schedule):
    factor = lr_factor(OptimConfig(schedule=schedule, warmup_steps=10), 110, 8)
    assert [factor(step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert factor(10) == 1
    halfway, last = factor(60), factor(109)
    assert halfway == pytest.approx(1.0 if schedule == "constant" else 0.5)
    assert last == pytest.approx(1.0 if schedule == "constant" else 0.0, abs=0.011)


@pytest.mark.parametrize(("processes", "slow_steps"), [(1, 5), (2, 3), (8, 1)])
def test_the_released_schedule_is_torch_s_constant_lr_ticked_once_per_process(processes, slow_steps):
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight], lr=1.0)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)  # its defaults: a third for five ticks
    factor = lr_factor(OptimConfig(schedule="released"), 100, processes)
    rates = []
    for step in range(12):
        rates.append(optimizer.param_groups[0]["lr"])
        assert factor(step) == pytest.approx(rates[-1])
        optimizer.step()
        for _ in range(processes):
            schedule.step()
    assert sum(rate < 0.5 for rate in rates) == slow_steps
