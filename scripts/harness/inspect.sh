#!/usr/bin/env bash
# Another harness, inspect_ai, against our server: 100 generated questions, answered by etchr-evr, and by our own evaluation;
# the last two lines are the accuracies. inspect_ai goes into an environment of its own, .venv-inspect. The editor is nano,
# with an adapter where one is named: LORA=outputs/quickstart-rl/adapter bash scripts/harness/inspect.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/env.sh
[ -x .venv-inspect/bin/inspect ] || { python -m venv .venv-inspect && .venv-inspect/bin/pip install -q inspect-ai openai; }
out=outputs/harness
for name in perception chart jigsaw view3d; do
  python -m data_prep $name split=test num_samples=25 seed=11 out=$out/data
done
python scripts/harness/export.py $out/data $out/samples.jsonl
etchr serve --port 8093 ${LORA:+--lora "$LORA"} > $out/server.log 2>&1 & server=$!
trap 'kill $server' EXIT
until python -c 'import httpx; httpx.get("http://127.0.0.1:8093/health").raise_for_status()' 2>/dev/null; do
  kill -0 $server 2>/dev/null || { echo "the server did not start: see $out/server.log" >&2; exit 1; }
  sleep 0.5
done
rm -rf $out/logs $out/ours
ETCHR_API_KEY=none ETCHR_BASE_URL=http://127.0.0.1:8093/v1 .venv-inspect/bin/inspect eval scripts/harness/inspect_task.py \
  -T samples=$PWD/$out/samples.jsonl --model openai-api/etchr/etchr-evr --max-connections 16 --display none --log-dir $out/logs
.venv-inspect/bin/inspect log dump $out/logs/*.eval > $out/log.json
python -m evaluation data=$out/data 'tasks=[perception,chart,jigsaw,view3d]' out=$out/ours \
  "systems={etchr: {kind: evr, editor: nano${LORA:+, lora: $LORA}}}"
python - $out <<'PYTHON'
import json, sys
from pathlib import Path
out = Path(sys.argv[1])
log = json.loads((out / "log.json").read_text())
theirs = {sample["id"]: next(iter(sample["scores"].values()))["value"] == "C" for sample in log["samples"]}
records = map(json.loads, (out / "ours/records/etchr.jsonl").read_text().splitlines())
ours = {record["sample_id"]: bool(record["correct"]) for record in records}
assert theirs.keys() == ours.keys()
print("not alike:", [name for name in ours if ours[name] != theirs[name]])
print(f"inspect_ai   {100 * sum(theirs.values()) / len(theirs):.1f} % of {len(theirs)}")
print(f"ours         {100 * sum(ours.values()) / len(ours):.1f} %")
PYTHON
