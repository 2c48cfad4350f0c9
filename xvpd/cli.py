"""``xvpd``: the operator's tool."""

import argparse
import secrets
import sys
from collections.abc import Sequence

from xvpd.api.auth import KeysFileError, Role, read_keys
from xvpd.api.keys import add_key, remove_key

_KEY_BYTES = 32


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says. The exit status: 0, or 1 with one line on stderr; argparse exits with 2."""
    options = _parser().parse_args(arguments)
    try:
        sys.stdout.write(options.command(options))
    except KeysFileError as error:
        sys.stderr.write(f"xvpd: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("xvpd", description="Operate the console proxy daemon.", allow_abbrev=False)
    rooms = parser.add_subparsers(required=True, metavar="COMMAND")
    key = rooms.add_parser("key", help="who may call the API", allow_abbrev=False)
    commands = key.add_subparsers(required=True, metavar="COMMAND")

    add = commands.add_parser("add", help="make a key, and print it once", allow_abbrev=False)
    add.add_argument("name", metavar="NAME", help="whose key it is")
    add.add_argument("--role", required=True, choices=[role.value for role in Role], help="what its holder may do")
    add.set_defaults(command=_add)

    listing = commands.add_parser("list", help="list the keys' names and roles", allow_abbrev=False)
    listing.set_defaults(command=_list)

    remove = commands.add_parser("remove", help="take a key away", allow_abbrev=False)
    remove.add_argument("name", metavar="NAME", help="whose key it is")
    remove.set_defaults(command=_remove)

    for command in (add, listing, remove):
        command.add_argument("--keys-file", metavar="FILE", default="/etc/xvpd/api-keys", help="default: %(default)s")
    return parser


def _add(options: argparse.Namespace) -> str:
    key = secrets.token_urlsafe(_KEY_BYTES)
    add_key(options.keys_file, options.name, options.role, key)
    return f"{key}\n"


def _list(options: argparse.Namespace) -> str:
    return "".join(f"{key.name} {key.role.value}\n" for key in read_keys(options.keys_file))


def _remove(options: argparse.Namespace) -> str:
    remove_key(options.keys_file, options.name)
    return ""


if __name__ == "__main__":
    sys.exit(main())
