#!/usr/bin/env bash
# The CUDA kernels against this machine's own driver: parity tests, then benchmarks, one JSON. Runs from the folder or the
# archive that `make gpu-package` makes, without cargo. --help says more.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[[ -x $here/bin/lichen-gpu-check ]] || { echo "gpu-check: $here is not a package: make gpu-package" >&2; exit 1; }
export LICHEN_TEST_DRIVER=machine LICHEN_REQUIRE_CUDA=1
export LICHEN_TEST_PROGRAMS=$here/bin LICHEN_TEST_FIXTURES=$here/fixtures
[[ ! -f $here/commit ]] || LICHEN_COMMIT=$(<"$here/commit")
export LICHEN_COMMIT=${LICHEN_COMMIT:-}
unset LICHEN_CUDA_ARCH
exec "$here/bin/lichen-gpu-check" "$@"
