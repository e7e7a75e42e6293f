"""Builds the CUDA stand-in for a Python with PyTorch's CUDA build: `python build.py PYTHON OUT` → OUT/python.

OUT/python is that Python as on a machine with an H100 that computes nothing (runtime.c says what that is good for).
Wants gcc and nm, which compilers bring, and the headers that PyTorch and Triton bring.
"""

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
STANDS_IN = re.compile(r"(?:__)?(?:cuda|cublas|nccl)[A-Z]\w*")
# How kernels are registered while libraries load needs no GPU: the real library does it.
REAL = re.compile(r"__cuda(?:Push|Pop|Register|Unregister)\w*")
WRAPPER = """#!/bin/sh
export LD_PRELOAD={out}/libstandin.so LD_LIBRARY_PATH={out} TRITON_LIBCUDA_PATH={out} PYTORCH_NVML_BASED_CUDA_CHECK=0
exec {python} "$@"
"""


def undefined(libraries: list[Path]) -> set[str]:
    """Functions of CUDA's libraries that PyTorch's own call."""
    text = subprocess.run(
        ["nm", "-D", "--undefined-only", *libraries], check=True, capture_output=True, text=True
    ).stdout
    names = {line.split()[-1].split("@")[0] for line in text.splitlines() if line.strip().startswith("U ")}
    return {name for name in names if STANDS_IN.fullmatch(name) and not REAL.fullmatch(name)}


def build(python: Path, out: Path) -> Path:
    """Compile into `out`; returns the wrapper. Raises SystemExit where that Python's PyTorch is not a CUDA build."""
    ask = "import sysconfig, torch; print(sysconfig.get_path('purelib'), torch.version.cuda or '')"
    site, *cuda = subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout.split()
    if not cuda:
        raise SystemExit(f"{python}: its PyTorch is a CPU build: give a Python with the CUDA build")
    libraries = [Path(site) / "torch" / "lib" / f"lib{name}.so" for name in ("c10_cuda", "torch_cuda", "torch_python")]
    written = set(re.findall(r"\b((?:__)?(?:cuda|cublas|nccl)\w+)\s*\(", (HERE / "runtime.c").read_text()))
    out.mkdir(parents=True, exist_ok=True)
    rest = out / "rest.c"
    rest.write_text("".join(f"int {name}(void) {{ return 0; }}\n" for name in sorted(undefined(libraries) - written)))
    folders = [*Path(site).glob("nvidia/cu*/include"), *Path(site).glob("triton/backends/nvidia/include"), HERE]
    compiler = ["gcc", "-shared", "-fPIC", "-O1", "-w", *(f"-I{folder}" for folder in folders)]
    subprocess.run([*compiler, HERE / "runtime.c", rest, "-o", out / "libstandin.so", "-ldl"], check=True)
    driver = out / "libcuda.so.1"
    subprocess.run([*compiler, "-Wl,-soname,libcuda.so.1", HERE / "driver.c", "-o", driver], check=True)
    wrapper = out / "python"
    wrapper.write_text(WRAPPER.format(out=out, python=python))
    wrapper.chmod(0o755)
    return wrapper


if __name__ == "__main__":
    print(build(*(Path(argument).absolute() for argument in sys.argv[1:3])))
