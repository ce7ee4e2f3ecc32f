#!/bin/sh
# All checks that need an NVIDIA GPU or NVRTC, on a machine that has them and Python with torch, numpy, pytest and
# hypothesis; nothing else of the project need be installed. Fails where a check cannot run.
#
#   sh tools/gpu_check.sh            the checks
#   sh tools/gpu_check.sh -k random  some of them
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
"$python" -c 'import torch; assert torch.cuda.is_available(), "PyTorch sees no GPU"; print(torch.cuda.get_device_name())'
export PYTHONPATH=.
exec "$python" -m pytest --noconftest -p no:cacheprovider -m "gpu or nvrtc" \
    tests/engine/exact/test_on_gpu.py tests/engine/exact/test_cuda_nvrtc.py "$@"
