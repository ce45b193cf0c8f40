#!/bin/sh
# Finds a Python that is new enough and hands over to setup_env.py. Used by the Makefile; PYTHON names one by hand.
set -eu
here=$(dirname "$0")
for python in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14 python}; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        exec "$python" "$here/setup_env.py" "$@"
    fi
done
echo "setup: Python 3.11 or newer is needed; tried without luck: ${PYTHON:-python3, python3.11 to python3.14, python}" >&2
echo "setup: install one, or name it: make setup PYTHON=/path/to/python3.11" >&2
exit 1
