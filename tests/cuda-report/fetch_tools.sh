#!/usr/bin/env bash
# Puts ptxas and nvdisasm into FOLDER (275 MB to download, once): tests/cuda-report/fetch_tools.sh FOLDER
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:?a folder for the tools}
readonly PROGRAMS=(nvidia/cuda_nvcc/bin/ptxas triton/backends/nvidia/bin/nvdisasm)

# A download counts only when it was unpacked to its end, and by this version of the list.
if cmp -s "$here/pypi.txt" "$folder/complete"; then
    exit 0
fi
[[ $(uname -sm) == "Linux x86_64" ]] || { echo "cuda-report: NVIDIA's tools are fetched for x86_64 Linux alone" >&2; exit 1; }
echo "cuda-report: downloading ptxas and nvdisasm"
rm -rf "$folder"
mkdir -p "$folder/wheels"
python3 -m pip download --quiet --no-deps --only-binary :all: --require-hashes --python-version 3.11 \
    --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 -d "$folder/wheels" -r "$here/pypi.txt"
python3 - "$folder" "${PROGRAMS[@]}" <<'PYTHON'
import pathlib, sys, zipfile
folder = pathlib.Path(sys.argv[1])
for wheel in sorted((folder / "wheels").glob("*.whl")):
    with zipfile.ZipFile(wheel) as archive:
        for name in set(sys.argv[2:]) & set(archive.namelist()):
            program = folder / pathlib.Path(name).name
            program.write_bytes(archive.read(name))
            program.chmod(0o755)
PYTHON
rm -r "$folder/wheels"
for program in "${PROGRAMS[@]}"; do
    "$folder/$(basename "$program")" --version >/dev/null
done
cp "$here/pypi.txt" "$folder/complete"
