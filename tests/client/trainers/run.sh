#!/usr/bin/env bash
# Runs trainers' own code against openseer: run.sh PYTHON [TRAINER]; PYTHON is the one of the project's environment.
# Each trainer has an environment of its own: what it needs in other versions comes first there, then the project's packages.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
python=$1
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
for lock in requirements/trainers/${2:-*}.txt; do
    trainer=$(basename "$lock" .txt)
    key=$(cat "$lock" <("$python" --version) | sha256sum | cut -c1-12)
    home=${XDG_CACHE_HOME:-$HOME/.cache}/openseer/trainers/$trainer-$key
    if ! test -f "$home/.ready"; then
        echo "$trainer: environment in $home"
        rm -rf "$home"
        "$python" -m uv venv --quiet --python "$python" "$home"
        "$python" -m uv pip install --quiet --python "$home/bin/python" --no-deps --require-hashes --requirement "$lock"
        touch "$home/.ready"
    fi
    # Of this checkout, which may be another one than the last time.
    own=$("$home/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "import site; site.addsitedir('$packages')" >"$own/zz_project.pth"
    ln -sf "$(dirname "$packages")/../../bin/openseer" "$home/bin/openseer"
    echo "$trainer: tests/client/trainers/test_$trainer*.py"
    "$home/bin/python" -m pytest --durations=5 -p no:cacheprovider tests/client/trainers/test_"$trainer"*.py
done
