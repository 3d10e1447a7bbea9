#!/bin/sh
# Installs Headway, editable, into a virtual environment: tools/install.sh VENV REQUIREMENT
# PYTHON makes the environment; TORCH is a version of torch to have instead of the one in constraints.txt.
set -eu
venv=$1
requirement=$2
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "headway needs Python 3.11 or newer; $python is $("$python" -V). Try: make PYTHON=python3.12 ..." >&2
    exit 1
}
[ -x "$venv/bin/python" ] || { echo "Making $venv"; "$python" -m venv "$venv"; }
[ -x "$venv/bin/uv" ] || "$venv/bin/python" -m pip install --quiet uv

# uv does not read pip's find-links, and fails where pip ignores a missing directory.
links=$("$venv/bin/python" -m pip config get global.find-links 2>/dev/null || true)
set --
for link in $links; do
    [ -d "$link" ] && set -- "$@" --find-links "$link"
done

constraints=constraints.txt
if [ -n "${TORCH:-}" ]; then
    # Each torch comes with one version of triton; torch 2.11 wants an older setuptools, the interpreter of its triton an older numpy.
    constraints=$venv/constraints.txt
    { sed -E '/^(torch|triton|setuptools|numpy)==/d' constraints.txt; echo "torch==$TORCH"; echo "numpy<2.4"; } >"$constraints"
fi

echo "Installing $requirement"
"$venv/bin/uv" pip install --quiet --python "$venv/bin/python" -c "$constraints" "$@" -e "$requirement"

# Lets mypy see the repository's root under the name that it is imported by.
mkdir -p "$venv/src"
ln -sfn ../.. "$venv/src/headway"
