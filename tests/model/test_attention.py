"""Attention: every implementation present equals the eager one, and none meets a dtype that it does not take."""

import pytest
import torch
from transformers import modeling_flash_attention_utils
from transformers.integrations import hub_kernels

from data.tokenizer import Tokenizer
from model import attention
from model.attention import IMPLEMENTATIONS, cast_for_kernel
from model.modeling_turnwise import TurnwiseForOfflineRL
from tests import varlen_kernel
from tests.packs import assert_close, inputs_of, outputs, random_pack, tiny_network
from trainer.config import load_config
from trainer.setup import build_network


@pytest.mark.parametrize("lengths", [[128, 128], [1, 2, 125, 64, 64], [37] * 7, [2] * 40, [63, 66, 63]])
def test_blocked_attention_equals_eager(lengths):
    """Blocks reach just as far back as the longest window that there can be: 65 turns are two blocks."""
    network = tiny_network(max_turns=max(lengths))
    pack = random_pack(sum(lengths), lengths=lengths)
    results = {}
    for implementation in ("sdpa", "eager"):
        network.attention = implementation
        out = network.train()(**inputs_of(pack))
        network.zero_grad()
        (
            out.q_values.square().mean() + out.logits[pack["legal"].unsqueeze(1).expand_as(out.logits)].square().mean()
        ).backward()
        results[implementation] = (
            out,
            {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None},
        )
    assert_close([results["sdpa"][0].q_values], [results["eager"][0].q_values])
    for name, gradient in results["eager"][1].items():
        assert torch.allclose(results["sdpa"][1][name], gradient, atol=1e-4 * gradient.abs().max().item() + 1e-7), name


@pytest.mark.gpu
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_every_implementation_present_equals_eager_on_gpu(implementation):
    from model.attention import available_implementations

    if implementation not in available_implementations("cuda"):
        pytest.skip(f"{implementation} is not installed")
    network = tiny_network().cuda()
    pack = {key: value.cuda() for key, value in random_pack(256).items()}
    network.attention = "eager"
    expected = outputs(network, pack)
    network.attention = implementation
    assert_close(outputs(network, pack), expected, 3e-2)


@pytest.fixture
def kernel_of_the_hub(monkeypatch):
    """The name of one whose download is the only thing that is not real: the way to it is transformers' own."""
    name = "kernels-community/flash-attn2"
    monkeypatch.setattr(hub_kernels, "is_kernels_available", lambda: True)
    monkeypatch.setattr(hub_kernels, "get_kernel", lambda asked, **_: {name: varlen_kernel}[asked])
    monkeypatch.setattr(attention, "_FLASH", {})
    monkeypatch.setattr(modeling_flash_attention_utils, "_loaded_implementation", None)
    return name


def test_a_kernel_of_the_hub_is_taken_by_its_name_and_equals_eager(kernel_of_the_hub, tmp_path):
    network, pack = tiny_network(), random_pack(100, lengths=[60, 40])
    network.attention = "eager"
    expected = outputs(network, pack)
    network.save_pretrained(tmp_path)
    by_transformers = TurnwiseForOfflineRL.from_pretrained(tmp_path, attn_implementation=kernel_of_the_hub)
    assert by_transformers.attention == kernel_of_the_hub
    network.attention = attention.choose_implementation(kernel_of_the_hub, "cpu")
    for model in (network, by_transformers):
        varlen_kernel.met.clear()
        assert_close(outputs(model, pack), expected, 3e-2)
        assert varlen_kernel.met == {torch.bfloat16}


@pytest.mark.slow
def test_a_kernel_of_the_hub_breaks_no_graph(kernel_of_the_hub):
    """Forward and backward. flash-attn's own kernel is called in the same way, through an `autograd.Function`, which
    the compiler does not follow where one tensor is given twice."""
    torch._dynamo.reset()
    network, pack, gradients = tiny_network(num_layers=1).train(), random_pack(100, lengths=[60, 40]), []
    qkv = network.model.trunk.layers[0].attention.qkv.weight
    for implementation in ("eager", kernel_of_the_hub):
        network.attention = implementation
        compiled = torch.compile(network, fullgraph=True, dynamic=False, backend="aot_eager")
        network.zero_grad()
        compiled(**inputs_of(pack)).q_values.square().mean().backward()
        gradients.append(qkv.grad)
    assert (gradients[1] - gradients[0]).norm() < 0.02 * gradients[0].norm()


def test_a_name_that_leads_to_no_kernel_is_an_error_that_says_what_is_present(monkeypatch):
    with pytest.raises(ValueError, match=r"(?s)model.attention='flash_2'.*Present on cpu are sdpa, eager"):
        attention.choose_implementation("flash_2", "cpu")
    # As it is where the package `kernels` is missing, which brings those of the Hub.
    monkeypatch.setattr(hub_kernels, "is_kernels_available", lambda: False)
    with pytest.raises(ValueError, match=r"(?s)model.attention='kernels-community/flash-attn2'.*kernels.*Present on"):
        attention.choose_implementation("kernels-community/flash-attn2", "cpu")


def test_a_gpu_older_than_ampere_computes_attention_without_flash_kernels(monkeypatch):
    """Which refuse it, at the first step."""
    monkeypatch.setitem(attention._FLASH, "flash_attention_2", varlen_kernel.flash_attn_varlen_func)
    for capability, auto in (((7, 5), "sdpa"), ((8, 0), "flash_attention_2"), ((12, 0), "flash_attention_2")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        assert attention.choose_implementation("auto", "cuda") == auto
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    with pytest.raises(
        ValueError, match=r"model\.attention='flash_attention_2' cannot run on cuda: present are sdpa, "
    ):
        attention.choose_implementation("flash_attention_2", "cuda")


@pytest.mark.parametrize("name", ["flash_attention_2", "kernels-community/flash-attn2"])
def test_a_run_in_fp32_computes_attention_in_fp32(kernel_of_the_hub, monkeypatch, name):
    """Also where the kernels are there that know bf16 alone: they are not taken unasked, and refused when asked for."""
    monkeypatch.setitem(attention._FLASH, "flash_attention_2", varlen_kernel.flash_attn_varlen_func)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert attention.choose_implementation("auto", "cuda") == "flash_attention_2"
    assert attention.choose_implementation("auto", "cuda", fp32=True) == "sdpa"
    assert attention.choose_implementation("flex_attention", "cuda", fp32=True) == "flex_attention"
    assert attention.choose_implementation(name, "cuda") == name
    with pytest.raises(ValueError, match=f"model.attention='{name}' computes in bf16, not fp32"):
        attention.choose_implementation(name, "cuda", fp32=True)
    config = load_config(None, ["precision=fp32", "model.preset=tiny", "model.attention=kernels-community/flash-attn2"])
    with pytest.raises(ValueError, match="computes in bf16"):
        build_network(config, Tokenizer.load(), torch.device("cpu"))


@pytest.mark.parametrize("implementation", ["flash_attention_2", "varlen_attn", "kernels-community/flash-attn2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_flash_kernels_never_meet_fp32(implementation, dtype):
    q, k, v = torch.randn(4, 2, 8), torch.randn(4, 2, 8), torch.randn(4, 2, 8, dtype=dtype)
    got = {t.dtype for t in cast_for_kernel(q, k, v, implementation)}
    assert got == {torch.bfloat16 if dtype == torch.float32 else dtype}


def test_autocast_decides_what_a_kernel_is_given():
    """Whatever norms and fp32 masters left q, k and v in."""
    mixed = torch.randn(4, 2, 8), torch.randn(4, 2, 8).bfloat16(), torch.randn(4, 2, 8)
    for enabled, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            assert {t.dtype for t in cast_for_kernel(*mixed, "sdpa")} == {dtype}
