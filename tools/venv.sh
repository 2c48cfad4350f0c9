#!/bin/sh
# venv.sh
# Makes an empty .venv with the first Python that is new enough; $PYTHON names another one.
set -eu

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

[ -n "${PYTHON:-}" ] || tools/need.sh python3=python3
for python in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    if new_enough "$python"; then
        # Debian keeps what a virtual environment is made with in a package of its own.
        "$python" -c 'import ensurepip' 2>/dev/null || tools/need.sh "ensurepip=$("$python" -c \
            'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
        exec "$python" -m venv --clear .venv
    fi
done
echo "Python 3.11 or newer is needed. If it has another name than python3, say so: make PYTHON=..." >&2
exit 1
