# Sourced by the other scripts: makes .venv on the first use, installs the project under the constraints, activates it.
# PYTHON names the interpreter to build from (default python3); any Python from 3.11 on will do.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
stamp=.venv/installed
if ! cmp -s "$stamp" <(cat constraints.txt pyproject.toml); then
  "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11" >&2; exit 1; }
  echo "installing into .venv (once) ..."
  [ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
  pip() { .venv/bin/python -m pip --disable-pip-version-check --quiet "$@"; }
  # bytecode is made as modules are first used: of all that is installed, that is a small part
  install() { pip install --no-compile -c constraints.txt "$@"; }
  torch=$(grep -m1 '^torch==' constraints.txt)
  if command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then
    install "$torch"
  else # without CUDA the CPU build, wherever this machine's pip finds one; the default build also runs, but is huge
    install "$torch+cpu" 2>/dev/null ||
      install --retries 1 --index-url https://download.pytorch.org/whl/cpu "$torch" 2>/dev/null ||
      install "$torch"
  fi
  install -e '.[dev]'
  cat constraints.txt pyproject.toml > "$stamp"
fi
export PATH="$PWD/.venv/bin:$PATH" TOKENIZERS_PARALLELISM=false HF_HUB_DISABLE_TELEMETRY=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1
# many containers set it, and every start would compile torch and diffusers anew, for half a minute
unset PYTHONDONTWRITEBYTECODE
# a command in two processes that share the work
together() { accelerate launch --config_file configs/accelerate/cpu.yaml -m "$@"; }
# read as a process starts: glibc would give the memory of every large tensor back and ask for it again, page by page
export MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296
